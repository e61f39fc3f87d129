//! HorizontalPodAutoscalers (stored as `autoscaling/v2`) and scales.

use keelson_api_types::{FieldError, names};
use serde_json::{Value, json};

use super::Strategy;
use super::check::{At, Errors};
use super::edit::{self, default};

const METRICS: &[(&str, &str)] = &[
    ("ContainerResource", "containerResource"),
    ("External", "external"),
    ("Object", "object"),
    ("Pods", "pods"),
    ("Resource", "resource"),
];
const METRIC_TYPES: &[&str] = &["ContainerResource", "External", "Object", "Pods", "Resource"];

pub struct HorizontalPodAutoscaler;

impl Strategy for HorizontalPodAutoscaler {
    fn default(&self, object: &mut Value) {
        if let Some(status) = edit::ensure(object, "status") {
            default(status, "desiredReplicas", 0);
        }
        let Some(spec) = edit::ensure(object, "spec") else { return };
        default(spec, "minReplicas", 1);
        edit::default_zero(
            spec,
            "metrics",
            json!([{"type": "Resource", "resource": {"name": "cpu",
                "target": {"type": "Utilization", "averageUtilization": 80}}}]),
        );
        let Some(behavior) = edit::some(spec, "behavior") else { return };
        let percent = json!({"type": "Percent", "value": 100, "periodSeconds": 15});
        let pods = json!({"type": "Pods", "value": 4, "periodSeconds": 15});
        if let Some(up) = edit::ensure(behavior, "scaleUp") {
            default(up, "stabilizationWindowSeconds", 0);
            default(up, "selectPolicy", "Max");
            default(up, "policies", json!([pods, percent]));
        }
        if let Some(down) = edit::ensure(behavior, "scaleDown") {
            default(down, "selectPolicy", "Max");
            default(down, "policies", json!([percent]));
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut e = Errors::new();
        spec(&At::root(object).f("spec"), &mut e);
        e.into_vec()
    }

    fn validate_status_update(&self, object: &Value, _old: &Value) -> Vec<FieldError> {
        let mut e = Errors::new();
        e.nonnegative_all(&At::root(object).f("status"), &["currentReplicas", "desiredReplicas"]);
        e.into_vec()
    }
}

fn spec(at: &At<'_>, e: &mut Errors) {
    let (min, max) = (at.f("minReplicas"), at.f("maxReplicas"));
    if min.has() && min.i() < 1 {
        e.invalid(&min, "must be greater than or equal to 1");
    }
    if max.i() == 0 {
        e.required(&max.path, "must be set and greater than 0");
    } else if max.i() < 0 {
        e.invalid(&max, "must be greater than or equal to 1");
    }
    if min.has() && max.i() < min.i() {
        e.invalid_value(&max.path, max.i(), "must be greater than or equal to `minReplicas`");
    }
    target_reference(&at.f("scaleTargetRef"), e);
    at.f("metrics").each().for_each(|metric| metric_spec(&metric, e));
    for direction in ["scaleUp", "scaleDown"] {
        if let Some(rules) = at.f("behavior").get(direction) {
            scaling_rules(&rules, e);
        }
    }
}

fn target_reference(at: &At<'_>, e: &mut Errors) {
    for field in ["kind", "name"].iter().map(|field| at.f(field)) {
        if e.required_string(&field) {
            e.messages(&field, names::path_segment_name(field.s()));
        }
    }
    let version = at.f("apiVersion");
    if version.s().matches('/').count() > 1 {
        e.invalid(&version, format!("unexpected GroupVersion string: {}", version.s()));
    }
}

fn scaling_rules(at: &At<'_>, e: &mut Errors) {
    let (window, policies) = (at.f("stabilizationWindowSeconds"), at.f("policies"));
    if window.i() < 0 {
        e.invalid(&window, "must be greater than or equal to zero");
    } else if window.i() > 3600 {
        e.invalid(&window, "must be less than or equal to 3600");
    }
    e.optional_one_of(&at.f("selectPolicy"), &["Disabled", "Max", "Min"]);
    if policies.is_empty() {
        e.required(&policies.path, "must specify at least one Policy");
    }
    for policy in policies.each() {
        if !["Pods", "Percent"].contains(&policy.f("type").s()) {
            e.not_supported(&policy.f("type"), &["Percent", "Pods"]);
        }
        e.positive(&policy.f("value"));
        let period = policy.f("periodSeconds");
        e.positive(&period);
        if period.i() > 1800 {
            e.invalid(&period, "must be less than or equal to 1800");
        }
    }
}

fn metric_spec(at: &At<'_>, e: &mut Errors) {
    let kind = at.f("type");
    if kind.is_empty() {
        e.required(&kind.path, "must specify a metric source type");
    }
    let expected = METRICS.iter().find(|(name, _)| *name == kind.s()).map(|(_, field)| *field);
    if expected.is_none() {
        e.not_supported(&kind, METRIC_TYPES);
    }
    if let Some(field) = expected
        && !at.f(field).has()
    {
        let detail = "must populate information for the given metric source";
        e.required(&at.path.field(field), detail);
    }
    for (_, field) in METRICS {
        let Some(source) = at.get(field) else { continue };
        if expected.is_some_and(|wanted| wanted != *field) {
            e.forbidden(&source.path, "must populate the given metric source only");
            continue;
        }
        metric_source(field, &source, e);
    }
}

fn metric_source(kind: &str, at: &At<'_>, e: &mut Errors) {
    let target = at.f("target");
    if let "object" | "pods" | "external" = kind {
        let name = at.dig(&["metric", "name"]);
        if name.is_empty() {
            e.required(&name.path, "must specify a metric name");
        } else {
            e.messages(&name, names::path_segment_name(name.s()));
        }
    } else if at.f("name").is_empty() {
        e.required(&at.path.field("name"), "must specify a resource name");
    }
    if kind == "object" {
        target_reference(&at.f("describedObject"), e);
    }
    if target.f("type").is_empty() {
        e.required(&target.path.field("type"), "must specify a metric target type");
    }
    if !["Utilization", "Value", "AverageValue"].contains(&target.f("type").s()) {
        let detail = "must be either Utilization, Value, or AverageValue";
        e.invalid_value(&target.path.field("type"), target.f("type").s(), detail);
    }
    for amount in ["value", "averageValue"].iter().filter_map(|field| target.get(field)) {
        if amount.quantity().is_some_and(|q| q.sign() <= 0) {
            e.invalid(&amount, "must be positive");
        }
    }
    let (average, utilization) = (target.f("averageValue"), target.f("averageUtilization"));
    if utilization.has() && utilization.i() < 1 {
        e.invalid(&utilization, "must be greater than 0");
    }
    match kind {
        "resource" | "containerResource" => match (utilization.has(), average.has()) {
            (false, false) => {
                let detail = "must set either a target raw value or a target utilization";
                e.required(&utilization.path, detail);
            }
            (true, true) => {
                let detail = "may not set both a target raw value and a target utilization";
                e.forbidden(&average.path, detail);
            }
            _ => {}
        },
        "pods" if !average.has() => {
            e.required(&average.path, "must specify a positive target averageValue");
        }
        "object" | "external" if !average.has() && !target.f("value").has() => {
            e.required(&average.path, "must set either a target value or averageValue");
        }
        _ => {}
    }
}

/// A `Scale` written to a `scale` subresource.
pub fn validate_scale(scale: &Value) -> Vec<FieldError> {
    let mut e = Errors::new();
    e.nonnegative(&At::root(scale).dig(&["spec", "replicas"]));
    e.into_vec()
}
