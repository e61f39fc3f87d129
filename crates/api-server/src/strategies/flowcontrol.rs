//! FlowSchemas and PriorityLevelConfigurations.

use keelson_api_types::{FieldError, meta, names};
use serde_json::Value;

use super::Strategy;
use super::check::{At, Errors};
use super::edit::{self, default, default_zero};
use crate::bootstrap::objects;
use crate::fairness::config::{CATCH_ALL, EXEMPT};

const MOST_QUEUES: i64 = 10_000_000;
/// What a flow's hash can tell apart.
const HASH_BITS: u32 = 60;

/// What choosing so many queues out of so many takes of a hash.
fn entropy_bits(queues: i64, hand: i64) -> u32 {
    (0..hand).map(|i| ((queues - i).max(1) as f64).log2()).sum::<f64>().ceil() as u32
}

pub struct FlowSchema;

impl Strategy for FlowSchema {
    fn default(&self, object: &mut Value) {
        edit::ensure(object, "status");
        if let Some(spec) = edit::ensure(object, "spec") {
            default_zero(spec, "matchingPrecedence", 1000);
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let (spec, mut e) = (At::root(object).f("spec"), Errors::new());
        let precedence = spec.f("matchingPrecedence");
        if precedence.i() <= 0 {
            e.invalid(&precedence, "must be a positive value");
        } else if precedence.i() > 10000 {
            e.invalid(&precedence, "must not be greater than 10000");
        } else if precedence.i() == 1 && meta::name(object) != EXEMPT {
            e.invalid(&precedence, "only the schema named 'exempt' may have matchingPrecedence 1");
        }
        if let Some(method) = spec.get("distinguisherMethod") {
            let kinds = ["ByNamespace", "ByUser"];
            if !kinds.contains(&method.f("type").s()) {
                e.not_supported(&method.under(method.path.clone()).f("type"), &kinds);
            }
        }
        let level = spec.dig(&["priorityLevelConfiguration", "name"]);
        if level.is_empty() {
            e.required(&level.path, "must reference a priority level");
        } else {
            e.dns_subdomain(&level);
        }
        for rule in spec.f("rules").each() {
            let (subjects, resources) = (rule.f("subjects"), rule.f("resourceRules"));
            if subjects.is_empty() {
                e.required(&subjects.path, "subjects must contain at least one value");
            }
            subjects.each().for_each(|subject| subject_errors(&subject, &mut e));
            if resources.is_empty() && rule.f("nonResourceRules").is_empty() {
                let detail = "at least one of resourceRules and nonResourceRules has to be non-empty";
                e.required(&rule.path, detail);
            }
            resources.each().for_each(|rule| resource_rule_errors(&rule, &mut e));
            rule.f("nonResourceRules").each().for_each(|rule| path_rule_errors(&rule, &mut e));
        }
        if let Some(fixed) = fixed_spec("FlowSchema", object)
            && *spec.value != fixed
        {
            e.invalid(&spec, format!("spec of '{}' must equal the fixed value", meta::name(object)));
        }
        e.into_vec()
    }

    fn validate_status_update(&self, object: &Value, _old: &Value) -> Vec<FieldError> {
        let mut e = Errors::new();
        let mut seen = Vec::new();
        for condition in At::root(object).dig(&["status", "conditions"]).each() {
            let kind = condition.f("type");
            if seen.contains(&kind.s()) {
                e.duplicate(&kind.path, kind.s());
            }
            seen.push(kind.s());
            e.required_string(&kind);
        }
        e.into_vec()
    }
}

/// The spec that an object must have which always exists, as it is with its defaults.
pub fn fixed_spec(kind: &str, object: &Value) -> Option<Value> {
    let name = meta::name(object);
    if ![EXEMPT, CATCH_ALL].contains(&name) {
        return None;
    }
    let wanted = objects::flow_control().into_iter().map(|w| w.object);
    let mut fixed = wanted.into_iter().find(|w| w["kind"] == kind && meta::name(w) == name)?;
    match kind {
        "FlowSchema" => FlowSchema.default(&mut fixed),
        _ => PriorityLevelConfiguration.default(&mut fixed),
    }
    Some(fixed["spec"].take())
}

/// Of the three kinds of subjects, the one that is named must be described, and no other.
fn subject_errors(subject: &At<'_>, e: &mut Errors) {
    let fields = [("User", "user"), ("Group", "group"), ("ServiceAccount", "serviceAccount")];
    let kind = subject.f("kind");
    let Some((_, named)) = fields.iter().find(|(k, _)| *k == kind.s()) else {
        e.not_supported(&kind, &["Group", "ServiceAccount", "User"]);
        return;
    };
    let described = subject.f(named);
    if !described.has() {
        e.required(&described.path, format!("{named} is required when subject kind is '{}'", kind.s()));
        return;
    }
    let name = described.f("name");
    if name.is_empty() {
        e.required(&name.path, "");
    }
    if *named == "serviceAccount" {
        let namespace = described.f("namespace");
        if !name.is_empty() && name.s() != "*" {
            e.messages(&name, names::dns1123_subdomain(name.s()));
        }
        if namespace.is_empty() {
            e.required(&namespace.path, "must specify namespace for service account");
        } else {
            e.messages(&namespace, names::dns1123_label(namespace.s()));
        }
    }
    for (other_kind, other) in fields.iter().filter(|(k, f)| *k != kind.s() && subject.f(f).has()) {
        let detail = format!("{other} is forbidden when subject kind is not '{other_kind}'");
        e.forbidden(&subject.f(other).path, detail);
    }
}

/// A list that has members, or a single `*`; returns whether its members are to be looked at.
fn list_errors(list: &At<'_>, empty: &str, others: &str, e: &mut Errors) -> bool {
    let wild = list.strings().contains(&"*");
    if list.is_empty() {
        e.required(&list.path, empty);
    } else if wild && list.len() > 1 {
        e.invalid(list, format!("if '*' is present, must not specify other {others}"));
    }
    !wild
}

fn verb_errors(verbs: &At<'_>, e: &mut Errors) {
    let known = ["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];
    if list_errors(verbs, "verbs must contain at least one value", "verbs", e)
        && verbs.strings().iter().any(|v| !known.contains(v))
    {
        e.not_supported(verbs, &known);
    }
}

fn resource_rule_errors(rule: &At<'_>, e: &mut Errors) {
    verb_errors(&rule.f("verbs"), e);
    let least = |what: &str| format!("resource rules must supply at least one {what}");
    list_errors(&rule.f("apiGroups"), &least("api group"), "api groups", e);
    list_errors(&rule.f("resources"), &least("resource"), "resources", e);
    let namespaces = rule.f("namespaces");
    if namespaces.is_empty() && rule.f("clusterScope").b() {
        return;
    }
    let empty = "resource rules that are not cluster scoped must supply at least one namespace";
    if list_errors(&namespaces, empty, "namespaces", e) {
        for namespace in namespaces.each() {
            let messages = names::dns1123_label(namespace.s()).into_iter();
            e.messages(
                &namespace,
                messages.map(|m| format!("each member of this list must be '*' or a DNS-1123 label; {m}")),
            );
        }
    }
}

fn path_rule_errors(rule: &At<'_>, e: &mut Errors) {
    verb_errors(&rule.f("verbs"), e);
    let urls = rule.f("nonResourceURLs");
    if !list_errors(&urls, "nonResourceURLs must contain at least one value", "non-resource URLs", e) {
        return;
    }
    for url in urls.each() {
        let path = url.s();
        let stars = path.matches('*').count();
        let problem = match path {
            "" => "must not be empty",
            _ if !path.starts_with('/') => "must start with slash",
            _ if path.contains(' ') => "must not contain white-space",
            _ if path.contains("//") => "must not contain double slash",
            _ if stars > 1 || stars == 1 && !path.ends_with("/*") => "wildcard can only do suffix matching",
            _ => continue,
        };
        e.invalid(&url, problem);
    }
}

pub struct PriorityLevelConfiguration;

impl Strategy for PriorityLevelConfiguration {
    fn default(&self, object: &mut Value) {
        edit::ensure(object, "status");
        let Some(spec) = edit::ensure(object, "spec") else { return };
        if let Some(exempt) = edit::some(spec, "exempt") {
            default(exempt, "nominalConcurrencyShares", 0);
            default(exempt, "lendablePercent", 0);
        }
        let Some(limited) = edit::some(spec, "limited") else { return };
        default(limited, "nominalConcurrencyShares", 30);
        default(limited, "lendablePercent", 0);
        if let Some(queuing) = edit::dig(limited, &["limitResponse", "queuing"]) {
            for (field, value) in [("handSize", 8), ("queues", 64), ("queueLengthLimit", 50)] {
                default_zero(queuing, field, value);
            }
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let (spec, mut e) = (At::root(object).f("spec"), Errors::new());
        let (exempt, limited) = (spec.f("exempt"), spec.f("limited"));
        let name = meta::name(object);
        if (name == EXEMPT) != (spec.f("type").s() == "Exempt") {
            e.invalid(&spec.f("type"), "must be 'Exempt' if and only if `name` is 'exempt'");
        }
        match spec.f("type").s() {
            "Exempt" if limited.has() => {
                e.forbidden(&limited.path, "must be nil if the type is not Limited");
            }
            "Limited" if exempt.has() => {
                e.forbidden(&exempt.path, "must be nil if the type is Limited");
            }
            "Limited" if !limited.has() => {
                e.required(&limited.path, "must not be empty when type is Limited");
            }
            "Limited" => {
                seat_errors(&limited, &mut e);
                limited_errors(&limited, &mut e);
            }
            "Exempt" if exempt.has() => seat_errors(&exempt, &mut e),
            "Exempt" => {}
            _ => e.not_supported(&spec.f("type"), &["Exempt", "Limited"]),
        }
        if let Some(mut fixed) = fixed_spec("PriorityLevelConfiguration", object) {
            let mut given = spec.value.clone();
            let mut but = "";
            if name == EXEMPT {
                super::remove(&mut fixed, "exempt");
                super::remove(&mut given, "exempt");
                but = " except the 'spec.exempt' field";
            }
            if given != fixed {
                e.invalid(&spec, format!("spec of '{name}'{but} must equal the fixed value"));
            }
        }
        e.into_vec()
    }
}

fn seat_errors(at: &At<'_>, e: &mut Errors) {
    let shares = at.f("nominalConcurrencyShares");
    if shares.i() < 0 {
        e.invalid(&shares, "must be a non-negative integer");
    }
    let lendable = at.f("lendablePercent");
    if !(0..=100).contains(&lendable.i()) {
        e.invalid(&lendable, "must be between 0 and 100, inclusive");
    }
    let borrowing = at.f("borrowingLimitPercent");
    if borrowing.i() < 0 {
        e.invalid(&borrowing, "if specified, must be a non-negative integer");
    }
}

fn limited_errors(at: &At<'_>, e: &mut Errors) {
    let response = at.f("limitResponse");
    let queuing = response.f("queuing");
    match response.f("type").s() {
        "Reject" if queuing.has() => {
            e.forbidden(&queuing.path, "must be nil if limited.limitResponse.type is not Limited");
        }
        "Reject" => {}
        "Queue" if !queuing.has() => {
            e.required(&queuing.path, "must not be empty if limited.limitResponse.type is Limited");
        }
        "Queue" => {
            for field in ["queueLengthLimit", "queues", "handSize"].iter().map(|f| queuing.f(f)) {
                if field.i() <= 0 {
                    e.invalid(&field, "must be positive");
                }
            }
            let (hand, queues) = (queuing.f("handSize"), queuing.f("queues").i());
            if queues > MOST_QUEUES {
                e.invalid(&queuing.f("queues"), format!("must not be greater than {MOST_QUEUES}"));
            }
            if hand.i() > queues {
                e.invalid(&hand, format!("should not be greater than queues ({queues})"));
            } else if hand.i() > 0 && entropy_bits(queues, hand.i()) > HASH_BITS {
                e.invalid(
                    &hand,
                    format!(
                        "required entropy bits of deckSize {queues} and handSize {} should not be greater than {HASH_BITS}",
                        hand.i()
                    ),
                );
            }
        }
        _ => e.not_supported(&response.f("type"), &["Queue", "Reject"]),
    }
}
