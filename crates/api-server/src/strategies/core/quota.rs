//! LimitRanges and ResourceQuotas.

use std::collections::BTreeSet;

use keelson_api_types::{FieldError, Quantity};
use serde_json::{Map, Value};

use crate::strategies::Strategy;
use crate::strategies::check::{At, Errors, quantity};
use crate::strategies::edit;
use crate::strategies::pod::resources::{self, Scope};

pub struct LimitRange;

impl Strategy for LimitRange {
    fn default(&self, object: &mut Value) {
        let Some(spec) = edit::some(object, "spec") else { return };
        for limit in edit::each(spec, "limits") {
            if limit.get("type").and_then(Value::as_str) != Some("Container") {
                continue;
            }
            let list = |limit: &Value, name: &str| -> Map<String, Value> {
                limit.get(name).and_then(Value::as_object).cloned().unwrap_or_default()
            };
            let (max, min) = (list(limit, "max"), list(limit, "min"));
            let (mut default, mut request) = (list(limit, "default"), list(limit, "defaultRequest"));
            for (name, amount) in max {
                default.entry(name).or_insert(amount);
            }
            for (name, amount) in default.iter().map(|(n, a)| (n.clone(), a.clone())).chain(min) {
                request.entry(name).or_insert(amount);
            }
            for (name, list) in [("default", default), ("defaultRequest", request)] {
                if !list.is_empty() {
                    edit::set(limit, name, list);
                }
            }
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut e = Errors::new();
        let mut seen = Vec::new();
        for limit in At::root(object).dig(&["spec", "limits"]).each() {
            let kind = limit.f("type");
            let before = e.len();
            e.qualified_name(&kind);
            let standard = ["Pod", "Container", "PersistentVolumeClaim"];
            if e.len() == before && !kind.s().contains('/') && !standard.contains(&kind.s()) {
                e.invalid(&kind, "must be a standard limit type or fully qualified");
            }
            if seen.contains(&kind.s()) {
                e.duplicate(&kind.path, kind.s());
            }
            seen.push(kind.s());
            limit_item(&limit, &mut e);
        }
        e.into_vec()
    }
}

fn limit_item(at: &At<'_>, e: &mut Errors) {
    let kind = at.f("type").s();
    let scope = if ["Pod", "Container"].contains(&kind) { Scope::Container } else { Scope::Any };
    let mut keys = BTreeSet::new();
    for list in ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"] {
        let entries = at.f(list);
        if kind == "Pod" && list.starts_with("default") {
            if !entries.is_empty() {
                e.forbidden(&entries.path, "may not be specified when `type` is 'Pod'");
            }
            continue;
        }
        for (name, amount) in entries.entries() {
            resources::name(name, &amount, scope, e);
            keys.insert(name);
        }
    }
    if kind == "PersistentVolumeClaim" && !at.f("min").f("storage").has() && !at.f("max").f("storage").has() {
        let detail = "either minimum or maximum storage value is required, but neither was provided";
        e.required(&at.path.field("limits"), detail);
    }
    for key in keys {
        relations(at, key, e);
    }
}

/// min ≤ default request ≤ default ≤ max, for one resource.
fn relations(at: &At<'_>, key: &str, e: &mut Errors) {
    let amount = |list: &'static str| at.f(list).f(key).quantity();
    let (min, max) = (amount("min"), amount("max"));
    let (default, request) = (amount("default"), amount("defaultRequest"));
    let mut check = |list: &'static str, low: Option<Quantity>, high: Option<Quantity>, text: &str| {
        if let (Some(low), Some(high)) = (low, high)
            && low > high
        {
            let shown = at.f(list).f(key).value.clone();
            let detail = text.replacen("{}", &low.to_string(), 1).replacen("{}", &high.to_string(), 1);
            e.invalid_value(&at.path.field(list).key(key), shown, detail);
        }
    };
    check("min", min, max, "min value {} is greater than max value {}");
    check("defaultRequest", min, request, "min value {} is greater than default request value {}");
    check("defaultRequest", request, max, "default request value {} is greater than max value {}");
    check(
        "defaultRequest",
        request,
        default,
        "default request value {} is greater than default limit value {}",
    );
    check("default", min, default, "min value {} is greater than default value {}");
    check("default", default, max, "default value {} is greater than max value {}");
    let ratio = at.f("maxLimitRequestRatio").f(key);
    let path = at.path.field("maxLimitRequestRatio").key(key);
    if let Some(ratio) = ratio.quantity() {
        if ratio.milli() < 1000 {
            e.invalid_value(&path, ratio.to_string(), format!("ratio {ratio} is less than 1"));
        }
        if let (Some(min), Some(max)) = (min, max)
            && !min.is_zero()
            && ratio.as_f64() > max.as_f64() / min.as_f64()
        {
            let limit = max.as_f64() / min.as_f64();
            let detail = format!("ratio {ratio} is greater than max/min = {limit:.6}");
            e.invalid_value(&path, ratio.to_string(), detail);
        }
    }
    if let (false, Some(default), Some(request)) = (resources::may_overcommit(key), default, request)
        && default != request
    {
        let detail = format!("default value {default} must equal to defaultRequest value {request} in {key}");
        e.invalid_value(&at.path.field("defaultRequest").key(key), request.to_string(), detail);
    }
}

const SCOPES: &[&str] = &[
    "Terminating",
    "NotTerminating",
    "BestEffort",
    "NotBestEffort",
    "PriorityClass",
    "VolumeAttributesClass",
    "CrossNamespacePodAffinity",
];
const COMPUTE: &[&str] = &["cpu", "memory", "limits.cpu", "limits.memory", "requests.cpu", "requests.memory"];

pub struct ResourceQuota;

impl Strategy for ResourceQuota {
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut e = Errors::new();
        quota_spec(&At::root(object).f("spec"), &mut e);
        e.into_vec()
    }

    fn validate_update(&self, object: &Value, old: &Value) -> Vec<FieldError> {
        let (spec, mut e) = (At::root(object).f("spec"), Errors::new());
        quota_spec(&spec, &mut e);
        let set = |spec: &At<'_>| -> BTreeSet<String> {
            spec.f("scopes").strings().into_iter().map(str::to_owned).collect()
        };
        if set(&spec) != set(&At::root(old).f("spec")) {
            e.invalid(&spec.f("scopes"), crate::strategies::common::IMMUTABLE);
        }
        e.into_vec()
    }

    fn validate_status_update(&self, object: &Value, _old: &Value) -> Vec<FieldError> {
        let mut e = Errors::new();
        for list in ["hard", "used"] {
            amounts(&At::root(object).dig(&["status", list]), &mut e);
        }
        e.into_vec()
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        let hard = At::root(object).dig(&["spec", "hard"]);
        let amount = |name: &str| hard.value.get(name).and_then(quantity);
        let odd = |resource: &&str| {
            let bare = ["cpu", "memory"].contains(resource);
            let (limit_name, mut name) = (format!("limits.{resource}"), format!("requests.{resource}"));
            let mut request = amount(&name);
            if request.is_none() && bare {
                (name, request) = ((*resource).to_owned(), amount(resource));
            }
            let (request, limit) = (request?, amount(&limit_name)?);
            (request > limit).then(|| {
                format!("ResourceQuota {name} ({request}) should be less than {limit_name} ({limit})")
            })
        };
        let known = ["cpu", "memory", "storage", "ephemeral-storage"];
        known.iter().filter(|_| old.is_none()).filter_map(odd).collect()
    }
}

fn amounts(at: &At<'_>, e: &mut Errors) {
    for (name, amount) in at.entries() {
        resources::name(name, &amount, Scope::Quota, e);
        resources::amount(name, &amount, e);
    }
}

fn quota_spec(spec: &At<'_>, e: &mut Errors) {
    let hard = spec.f("hard");
    amounts(&hard, e);
    let limits: Vec<&str> =
        hard.entries().map(|(name, _)| name).filter(|name| resources::is_standard_quota(name)).collect();
    let scopes = spec.f("scopes");
    for scope in scopes.each() {
        if !SCOPES.contains(&scope.s()) {
            e.invalid(&scopes, "unsupported scope");
        }
        for _ in limits.iter().filter(|name| !scope_covers(scope.s(), name)) {
            e.invalid(&scopes, "unsupported scope applied to resource");
        }
    }
    conflicting(&scopes, &scopes.strings(), e);
    let selector = spec.f("scopeSelector");
    let expressions = selector.f("matchExpressions");
    let mut names = Vec::new();
    for requirement in expressions.each() {
        let at = |field: &'static str| requirement.f(field).under(expressions.path.field(field));
        let (scope, operator, values) = (at("scopeName"), at("operator"), at("values"));
        names.push(scope.s());
        if !SCOPES.contains(&scope.s()) {
            e.invalid(&scope, "unsupported scope");
        }
        for _ in limits.iter().filter(|name| !scope_covers(scope.s(), name)) {
            let detail = "unsupported scope applied to resource";
            e.invalid_value(&expressions.path, selector.value.clone(), detail);
        }
        if !["PriorityClass", "VolumeAttributesClass"].contains(&scope.s())
            && SCOPES.contains(&scope.s())
            && operator.s() != "Exists"
        {
            let detail = "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, \
                          ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, \
                          ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity";
            e.invalid(&operator, detail);
        }
        match operator.s() {
            "In" | "NotIn" if values.is_empty() => {
                let detail =
                    "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
                e.required(&values.path, detail);
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let detail =
                    "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
                e.invalid(&values, detail);
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => e.invalid_value(&operator.path, other, "not a valid selector operator"),
        }
    }
    conflicting(&scopes.under(expressions.path), &names, e);
}

fn conflicting(at: &At<'_>, names: &[&str], e: &mut Errors) {
    for pair in [["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]] {
        if pair.iter().all(|scope| names.contains(scope)) {
            e.invalid(at, "conflicting scopes");
        }
    }
}

fn scope_covers(scope: &str, resource: &str) -> bool {
    match scope {
        "BestEffort" => resource == "pods",
        "VolumeAttributesClass" => ["persistentvolumeclaims", "requests.storage"].contains(&resource),
        _ if SCOPES.contains(&scope) => resource == "pods" || COMPUTE.contains(&resource),
        _ => true,
    }
}
