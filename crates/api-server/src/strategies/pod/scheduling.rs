//! Validation of what steers the scheduler: affinity, tolerations, spread, node selectors.

use keelson_api_types::names;

use crate::strategies::check::{At, Errors, Path};

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
pub const TAINT_EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];

pub fn affinity(at: &At<'_>, e: &mut Errors) {
    let node = at.f("nodeAffinity");
    if let Some(required) = node.get(REQUIRED) {
        node_selector(&required, e);
    }
    for term in node.f(PREFERRED).each() {
        weight(&term, e);
        node_selector_term(&term.f("preference"), false, e);
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        for term in at.dig(&[kind, REQUIRED]).each() {
            pod_affinity_term(&term, e);
        }
        for term in at.dig(&[kind, PREFERRED]).each() {
            weight(&term, e);
            pod_affinity_term(&term.f("podAffinityTerm"), e);
        }
    }
}

fn weight(term: &At<'_>, e: &mut Errors) {
    let weight = term.f("weight");
    if !(1..=100).contains(&weight.i()) {
        e.invalid_value(&weight.path, weight.i(), "must be in the range 1-100");
    }
}

fn pod_affinity_term(at: &At<'_>, e: &mut Errors) {
    e.label_selector(&at.f("labelSelector"));
    e.label_selector(&at.f("namespaceSelector"));
    for namespace in at.f("namespaces").each() {
        e.dns_label(&namespace.under(at.path.field("namespace")));
    }
    match_label_keys(at, e);
    let key = at.f("topologyKey");
    if key.is_empty() {
        e.required(&key.path, "can not be empty");
    }
    e.qualified_name(&key);
}

/// `matchLabelKeys` and `mismatchLabelKeys` beside the selector they extend.
fn match_label_keys(at: &At<'_>, e: &mut Errors) {
    let selector = at.f("labelSelector");
    for field in ["matchLabelKeys", "mismatchLabelKeys"] {
        let keys = at.f(field);
        if !keys.is_empty() && !selector.has() {
            e.forbidden(&keys.path, "must not be specified when labelSelector is not set");
        } else {
            keys.each().for_each(|key| e.qualified_name(&key));
        }
    }
    let keys = at.f("matchLabelKeys").strings();
    let mut seen: Vec<&str> =
        selector.f("matchLabels").map().into_iter().flatten().map(|(k, _)| k.as_str()).collect();
    for expression in selector.f("matchExpressions").each() {
        let key = expression.f("key").s();
        if let Some(i) = keys.iter().position(|k| *k == key).filter(|_| seen.contains(&key)) {
            e.invalid_value(&at.path.index(i), key, "exists in both matchLabelKeys and labelSelector");
        }
        seen.push(key);
    }
    let mismatch = at.f("mismatchLabelKeys").strings();
    for key in at.f("matchLabelKeys").each().filter(|key| mismatch.contains(&key.s())) {
        e.invalid(&key, "exists in both matchLabelKeys and mismatchLabelKeys");
    }
}

pub fn node_selector(at: &At<'_>, e: &mut Errors) {
    let terms = at.f("nodeSelectorTerms");
    if terms.is_empty() {
        e.required(&terms.path, "must have at least one node selector term");
    }
    for term in terms.each() {
        node_selector_term(&term, true, e);
    }
}

fn node_selector_term(at: &At<'_>, check_values: bool, e: &mut Errors) {
    for requirement in at.f("matchExpressions").each() {
        let (operator, values) = (requirement.f("operator"), requirement.f("values"));
        match operator.s() {
            "In" | "NotIn" if values.is_empty() => {
                e.required(&values.path, "must be specified when `operator` is 'In' or 'NotIn'");
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                e.forbidden(&values.path, detail);
            }
            "Gt" | "Lt" if values.len() != 1 => {
                e.required(&values.path, "must be specified single value when `operator` is 'Lt' or 'Gt'");
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
            other => e.invalid_value(&operator.path, other, "not a valid selector operator"),
        }
        e.qualified_name(&requirement.f("key"));
        if check_values {
            values.each().for_each(|value| e.text(&value, names::label_value(value.s())));
        }
    }
    for requirement in at.f("matchFields").each() {
        let (operator, values) = (requirement.f("operator"), requirement.f("values"));
        match operator.s() {
            "In" | "NotIn" if values.len() != 1 => {
                let detail =
                    "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
                e.required(&values.path, detail);
            }
            "In" | "NotIn" => {}
            other => e.invalid_value(&operator.path, other, "not a valid selector operator"),
        }
        if requirement.f("key").s() == "metadata.name" {
            values.each().for_each(|value| e.dns_subdomain(&value));
        } else {
            let key = requirement.f("key");
            e.invalid_value(&key.path, key.s(), "not a valid field selector key");
        }
    }
}

pub fn tolerations(at: &At<'_>, e: &mut Errors) {
    for toleration in at.each() {
        let (key, operator) = (toleration.f("key"), toleration.f("operator"));
        let (value, effect) = (toleration.f("value"), toleration.f("effect"));
        if !key.is_empty() {
            e.qualified_name(&key);
        } else if operator.s() != "Exists" {
            let detail =
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            e.invalid_value(&operator.path, operator.s(), detail);
        }
        if toleration.f("tolerationSeconds").has() && effect.s() != "NoExecute" {
            let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            e.invalid_value(&effect.path, effect.s(), detail);
        }
        match operator.s() {
            "" | "Equal" => {
                let messages = names::label_value(value.s());
                if !messages.is_empty() {
                    e.invalid_value(&operator.path, value.s(), messages.join(";"));
                }
            }
            "Exists" if !value.is_empty() => {
                let detail = "value must be empty when `operator` is 'Exists'";
                e.invalid_value(&operator.path, value.s(), detail);
            }
            "Exists" => {}
            "Lt" | "Gt" => e.not_supported(&operator, &["Equal", "Exists", "Lt", "Gt"]),
            _ => e.not_supported(&operator, &["Equal", "Exists"]),
        }
        if !effect.is_empty() && !TAINT_EFFECTS.contains(&effect.s()) {
            e.not_supported(&effect, TAINT_EFFECTS);
        }
    }
}

pub fn taints(at: &At<'_>, path: &Path<'_>, e: &mut Errors) {
    let mut seen = Vec::new();
    for (i, taint) in at.each().enumerate() {
        let path = path.index(i);
        let (key, value, effect) = (taint.f("key"), taint.f("value"), taint.f("effect"));
        e.qualified_name(&key.under(path.field("key")));
        let messages = names::label_value(value.s());
        if !messages.is_empty() {
            e.invalid_value(&path.field("value"), value.s(), messages.join(";"));
        }
        e.one_of(&effect.under(path.field("effect")), TAINT_EFFECTS);
        let identity = (key.s(), effect.s());
        if seen.contains(&identity) {
            e.duplicate(&path, taint.value.clone());
            e.detail_last("taints must be unique by key and effect pair");
        }
        seen.push(identity);
    }
}

pub fn spread_constraints(at: &At<'_>, e: &mut Errors) {
    let mut seen = Vec::new();
    for constraint in at.each() {
        let (key, action) = (constraint.f("topologyKey"), constraint.f("whenUnsatisfiable"));
        e.positive(&constraint.f("maxSkew"));
        if key.is_empty() {
            e.required(&key.path, "can not be empty");
        }
        if !["DoNotSchedule", "ScheduleAnyway"].contains(&action.s()) {
            e.not_supported(&action, &["DoNotSchedule", "ScheduleAnyway"]);
        }
        if seen.contains(&(key.s(), action.s())) {
            let path = constraint.path.field("{topologyKey, whenUnsatisfiable}");
            e.duplicate(&path, format!("{{{}, {}}}", key.s(), action.s()));
        }
        seen.push((key.s(), action.s()));
        if let Some(domains) = constraint.get("minDomains") {
            e.positive(&domains);
            if action.s() != "DoNotSchedule" {
                let detail =
                    format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {}", action.s());
                e.invalid(&domains, detail);
            }
        }
        for policy in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            e.optional_one_of(&constraint.f(policy), &["Honor", "Ignore"]);
        }
        match_label_keys(&constraint, e);
        e.label_selector(&constraint.f("labelSelector"));
    }
}
