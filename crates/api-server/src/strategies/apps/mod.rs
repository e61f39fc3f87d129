//! Workloads: sets and deployments of pods made from a template.

mod replicas;
mod sets;

use keelson_api_types::{FieldError, names};
use serde_json::Value;

use super::Strategy;
use super::check::{At, Errors, Path};
use super::common::{int_or_percent_value, selector_is_empty, selects};
use super::edit::{self, default, same};
use super::pod::{self, warnings};

pub use replicas::{Deployment, ReplicaSet, ReplicationController};
pub use sets::{DaemonSet, StatefulSet};

/// A selector that must be there, be sound and select something.
fn selector(at: &At<'_>, kind: &str, e: &mut Errors) {
    if !at.has() {
        e.required(&at.path, "");
        return;
    }
    e.label_selector(at);
    if selector_is_empty(at) {
        e.invalid(at, format!("empty selector is invalid for {kind}"));
    }
}

/// A template, the labels that its selector wants, and the restart policy that workloads allow.
fn template(spec: &At<'_>, kind: &str, extra: &[At<'_>], e: &mut Errors) {
    let at = spec.f("template");
    let selector = spec.f("selector");
    let labels = at.dig(&["metadata", "labels"]);
    match selects(&selector, labels.map()) {
        None => e.invalid(&selector, "invalid label selector"),
        Some(false) if selector.has() && !selector_is_empty(&selector) => {
            e.invalid(&labels, "`selector` does not match template `labels`");
        }
        Some(_) => {}
    }
    pod::spec::template(&at, extra, e);
    runs_for_ever(&at, kind, e);
}

fn runs_for_ever(template: &At<'_>, kind: &str, e: &mut Errors) {
    let policy = template.dig(&["spec", "restartPolicy"]);
    if policy.s() != "Always" {
        e.not_supported(&policy, &["Always"]);
    }
    let deadline = template.dig(&["spec", "activeDeadlineSeconds"]);
    if deadline.has() {
        e.forbidden(&deadline.path, format!("activeDeadlineSeconds in {kind} is not Supported"));
    }
}

/// No count in a status is negative, none of these exceeds `replicas`, and no more are available than ready.
fn replica_status(status: &At<'_>, counts: &[&'static str], e: &mut Errors) {
    e.nonnegative_all(status, &["replicas", "observedGeneration", "terminatingReplicas", "collisionCount"]);
    e.nonnegative_all(status, counts);
    let total = status.f("replicas").i();
    for count in counts.iter().filter(|count| **count != "unavailableReplicas") {
        let at = status.f(count);
        if at.i() > total {
            e.invalid(&at, "cannot be greater than status.replicas");
        }
    }
    let available = status.f("availableReplicas");
    if available.i() > status.f("readyReplicas").i() {
        e.invalid(&available, "cannot be greater than readyReplicas");
    }
}

/// The count that makes names of old and new sets differ only grows.
fn collision_count(object: &Value, old: &Value, e: &mut Errors) {
    let count = |object: &Value| At::root(object).dig(&["status", "collisionCount"]).opt_i();
    let now = count(object);
    if count(old).is_some_and(|before| now.is_none_or(|now| now < before)) {
        let path = Path::of(&["status", "collisionCount"]);
        e.invalid_value(&path, now.unwrap_or(0), "cannot be decremented");
    }
}

/// Warnings for a workload whose name ends up in the names of its pods.
fn workload_warnings(object: &Value, old: Option<&Value>, check_name: bool) -> Vec<String> {
    let mut out = Vec::new();
    let template = |object: &Value| At::root(object).dig(&["spec", "template"]).value.clone();
    match old {
        None if check_name => out.extend(name_warning(object)),
        Some(old) if same(&template(object), &template(old)) => return out,
        _ => {}
    }
    out.extend(warnings::of(&At::root(object).dig(&["spec", "template"])));
    out
}

pub fn name_warning(object: &Value) -> Option<String> {
    let messages = names::dns1123_label(keelson_api_types::meta::name(object));
    (!messages.is_empty()).then(|| {
        format!(
            "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a \
             DNS label is recommended: [{}]",
            messages.join(" ")
        )
    })
}

fn default_spec(object: &mut Value, history: bool) -> Option<&mut Value> {
    edit::ensure(object, "status");
    let spec = edit::ensure(object, "spec")?;
    pod::defaults::template(spec, "template");
    if history {
        default(spec, "revisionHistoryLimit", 10);
    }
    Some(spec)
}

/// Two counts or percentages of which not both may be zero.
fn both_zero(a: &At<'_>, b: &At<'_>) -> bool {
    int_or_percent_value(a.value) == 0 && int_or_percent_value(b.value) == 0
}

/// A stored state of a workload's template.
pub struct ControllerRevision;

impl Strategy for ControllerRevision {
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let (at, mut e) = (At::root(object), Errors::new());
        e.nonnegative(&at.f("revision"));
        let data = at.f("data");
        if !data.has() {
            e.required(&data.path, "data is mandatory");
        } else if data.map().is_none() {
            e.required(&data.path, "data must be a valid JSON object");
        }
        e.into_vec()
    }

    fn validate_update(&self, object: &Value, old: &Value) -> Vec<FieldError> {
        let (at, mut e) = (At::root(object), Errors::new());
        e.nonnegative(&at.f("revision"));
        e.immutable(&at.f("data"), &At::root(old).f("data"));
        e.into_vec()
    }
}
