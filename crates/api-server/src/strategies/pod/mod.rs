//! Pods, and the pod templates that workloads hold.

pub mod container;
pub mod defaults;
pub mod env;
pub mod resources;
pub mod scheduling;
pub mod security;
pub mod spec;
pub mod status;
pub mod update;
pub mod warnings;

use keelson_api_types::FieldError;
use keelson_api_types::names;
use serde_json::{Value, json};

use super::check::{At, Errors, Path};
use super::{Ctx, Grace, Selectable, Strategy, carry, edit, keep_only};

pub struct Pod;

impl Strategy for Pod {
    fn default(&self, object: &mut Value) {
        defaults::pod(object);
    }

    fn prepare_create(&self, _ctx: &Ctx<'_>, object: &mut Value) {
        let spec = object.get("spec").unwrap_or(&Value::Null);
        let mut status = json!({"phase": "Pending", "qosClass": resources::qos_class(spec)});
        if spec.get("schedulingGates").is_some_and(|gates| !edit::is_zero(gates)) {
            status["conditions"] = json!([{
                "type": "PodScheduled",
                "status": "False",
                "reason": "SchedulingGated",
                "message": "Scheduling is blocked due to non-empty scheduling gates",
                "lastProbeTime": null,
                "lastTransitionTime": keelson_api_types::meta::now_rfc3339(),
            }]);
        }
        edit::set(object, "status", status);
        merge_match_label_keys(object);
    }

    fn prepare_status_update(&self, _ctx: &Ctx<'_>, object: &mut Value, old: &Value) {
        keep_only(object, old, &["status"]);
        edit::carry(object, old, &["metadata", "ownerReferences"]);
        if object["status"]["qosClass"].as_str().is_none_or(str::is_empty) {
            edit::carry(object, old, &["status", "qosClass"]);
        }
        keep_observed_generation(object, old);
    }

    fn prepare_subresource_update(&self, ctx: &Ctx<'_>, object: &mut Value, old: &Value) {
        match ctx.subresource {
            "ephemeralcontainers" => {
                let added = object.get("spec").and_then(|s| s.get("ephemeralContainers")).cloned();
                keep_only(object, old, &[]);
                if let (Some(added), Some(spec)) = (added, edit::ensure(object, "spec")) {
                    edit::set(spec, "ephemeralContainers", added);
                }
            }
            "resize" => {
                update::prepare_resize(object, old);
                carry(object, old, "status");
            }
            _ => {}
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let (at, mut e) = (At::root(object), Errors::new());
        let spec = at.f("spec");
        spec::pod(&at, &mut e);
        if !spec.f("ephemeralContainers").is_empty() {
            e.forbidden(&spec.path.field("ephemeralContainers"), "cannot be set on create");
        }
        if !spec.f("nodeName").is_empty() && !spec.f("schedulingGates").is_empty() {
            let detail = "cannot be set until all schedulingGates have been cleared";
            e.forbidden(&spec.path.field("nodeName"), detail);
        }
        security::annotations_match(&at.f("metadata"), &spec, &mut e);
        e.into_vec()
    }

    fn validate_update(&self, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut e = Errors::new();
        update::validate(&At::root(object), &At::root(old), &mut e);
        e.into_vec()
    }

    fn validate_status_update(&self, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut e = Errors::new();
        status::validate(&At::root(object), &At::root(old), &mut e);
        e.into_vec()
    }

    fn validate_subresource_update(&self, subresource: &str, object: &Value, old: &Value) -> Vec<FieldError> {
        let (new, old, mut e) = (At::root(object), At::root(old), Errors::new());
        match subresource {
            "ephemeralcontainers" => update::validate_ephemeral(&new, &old, &mut e),
            "resize" => update::validate_resize(&new, &old, &mut e),
            _ => {}
        }
        e.into_vec()
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        if old.is_some() {
            return Vec::new();
        }
        let at = At::root(object);
        let mut out = Vec::new();
        let messages = names::dns1123_label(at.dig(&["metadata", "name"]).s());
        if !messages.is_empty() {
            out.push(format!(
                "metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; \
                 a DNS label is recommended: [{}]",
                messages.join(" ")
            ));
        }
        out.extend(warnings::of(&at));
        out
    }

    fn selectable_names(&self) -> &'static [&'static str] {
        &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.podIPs",
            "status.nominatedNodeName",
        ]
    }

    fn selectable_fields<'a>(&self, object: &'a Value) -> Selectable<'a> {
        let at = At::root(object);
        let (spec, status) = (at.f("spec"), at.f("status"));
        let ip = status.f("podIPs").at(0).f("ip").s();
        vec![
            ("spec.nodeName", spec.f("nodeName").s().into()),
            ("spec.restartPolicy", spec.f("restartPolicy").s().into()),
            ("spec.schedulerName", spec.f("schedulerName").s().into()),
            ("spec.serviceAccountName", spec.f("serviceAccountName").s().into()),
            ("spec.hostNetwork", spec.f("hostNetwork").b().to_string().into()),
            ("status.phase", status.f("phase").s().into()),
            ("status.podIP", ip.into()),
            ("status.podIPs", ip.into()),
            ("status.nominatedNodeName", status.f("nominatedNodeName").s().into()),
        ]
    }

    /// A pod that no node runs, or that ended, goes at once; others get the time they asked for.
    fn grace(&self, object: &Value, requested: Option<i64>) -> Grace {
        let at = At::root(object);
        let spec = at.f("spec");
        let ended = ["Failed", "Succeeded"].contains(&at.dig(&["status", "phase"]).s());
        if ended || spec.f("nodeName").is_empty() {
            return Grace::Now;
        }
        match requested.unwrap_or_else(|| spec.f("terminationGracePeriodSeconds").i()) {
            0 => Grace::Now,
            seconds if seconds < 0 => Grace::Seconds(1),
            seconds => Grace::Seconds(seconds),
        }
    }
}

/// Labels named by `matchLabelKeys` become part of the selector, so that the scheduler needs no more.
fn merge_match_label_keys(object: &mut Value) {
    let labels = object["metadata"]["labels"].as_object().cloned().unwrap_or_default();
    let extend = |term: &mut Value| {
        let pairs = [("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn")];
        let mut added = Vec::new();
        for (field, operator) in pairs {
            let keys = At::root(term).f(field).strings();
            added.extend(keys.into_iter().filter_map(|key| {
                let value = labels.get(key)?;
                Some(json!({"key": key, "operator": operator, "values": [value]}))
            }));
        }
        if let Some(selector) = edit::some(term, "labelSelector").filter(|_| !added.is_empty())
            && let Some(map) = selector.as_object_mut()
        {
            let list = map.entry("matchExpressions").or_insert_with(|| json!([]));
            if list.is_null() {
                *list = json!([]);
            }
            if let Some(list) = list.as_array_mut() {
                list.extend(added);
            }
        }
    };
    let Some(spec) = edit::some(object, "spec") else { return };
    for kind in ["podAffinity", "podAntiAffinity"] {
        let Some(affinity) = edit::dig(spec, &["affinity", kind]) else { continue };
        edit::each(affinity, "requiredDuringSchedulingIgnoredDuringExecution").for_each(extend);
        edit::each(affinity, "preferredDuringSchedulingIgnoredDuringExecution")
            .filter_map(|term| edit::some(term, "podAffinityTerm"))
            .for_each(extend);
    }
    edit::each(spec, "topologySpreadConstraints").for_each(extend);
}

/// Writers that know nothing of observed generations do not erase them.
fn keep_observed_generation(object: &mut Value, old: &Value) {
    let before = At::root(old).f("status");
    let Some(status) = edit::some(object, "status") else { return };
    if let Some(generation) = before.f("observedGeneration").opt_i() {
        edit::default_zero(status, "observedGeneration", generation);
    }
    for condition in edit::each(status, "conditions") {
        let kind = condition.get("type").and_then(Value::as_str).unwrap_or_default();
        let was = before.f("conditions").each().find(|c| c.f("type").s() == kind);
        if let Some(generation) = was.and_then(|c| c.f("observedGeneration").opt_i()) {
            edit::default_zero(condition, "observedGeneration", generation);
        }
    }
}

/// `PodTemplate` objects.
pub struct PodTemplate;

impl Strategy for PodTemplate {
    fn default(&self, object: &mut Value) {
        defaults::template(object, "template");
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut e = Errors::new();
        spec::template(&At::root(object).f("template"), &[], &mut e);
        e.into_vec()
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>) -> Vec<String> {
        warnings::of(&At::root(object).f("template"))
    }
}

/// The `binding` subresource: which node a pod goes to.
pub fn validate_binding(binding: &Value) -> Vec<FieldError> {
    let (target, mut e) = (At::root(binding).f("target"), Errors::new());
    if !["", "Node"].contains(&target.f("kind").s()) {
        e.not_supported(&target.f("kind"), &["Node", "<empty>"]);
    }
    e.required_string(&target.f("name"));
    e.into_vec()
}

/// Options of the `log` subresource, already parsed from the query.
pub fn validate_log_options(options: &Value) -> Vec<FieldError> {
    let (at, mut e) = (At::root(options), Errors::new());
    e.nonnegative(&at.f("tailLines"));
    if at.get("limitBytes").is_some_and(|limit| limit.i() < 1) {
        e.invalid(&at.f("limitBytes"), "must be greater than 0");
    }
    match (at.get("sinceSeconds"), at.get("sinceTime")) {
        (Some(_), Some(_)) => {
            let detail = "at most one of `sinceTime` or `sinceSeconds` may be specified";
            e.forbidden(&Path::default(), detail);
        }
        (Some(seconds), None) if seconds.i() < 1 => e.invalid(&seconds, "must be greater than 0"),
        _ => {}
    }
    if let Some(stream) = at.get("stream") {
        e.optional_one_of(&stream, &["All", "Stderr", "Stdout"]);
        if stream.s() != "All" && at.f("tailLines").has() {
            let detail = "`tailLines` and specific `stream` are mutually exclusive for now";
            e.forbidden(&Path::default(), detail);
        }
    }
    e.into_vec()
}
