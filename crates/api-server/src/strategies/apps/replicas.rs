//! Deployments, ReplicaSets and ReplicationControllers.

use keelson_api_types::FieldError;
use serde_json::{Value, json};

use super::{
    both_zero, collision_count, default_spec, replica_status, selector, template, workload_warnings,
};
use crate::strategies::check::{At, Errors};
use crate::strategies::edit::{self, default, default_zero, same};
use crate::strategies::{Ctx, Selectable, Strategy, keep_only};

pub struct Deployment;

impl Strategy for Deployment {
    fn default(&self, object: &mut Value) {
        let Some(spec) = default_spec(object, true) else { return };
        default(spec, "replicas", 1);
        default(spec, "progressDeadlineSeconds", 600);
        edit::omit_zero(spec, &["paused", "minReadySeconds"]);
        let Some(strategy) = edit::ensure(spec, "strategy") else { return };
        default_zero(strategy, "type", "RollingUpdate");
        if strategy["type"] == "RollingUpdate"
            && let Some(rolling) = edit::ensure(strategy, "rollingUpdate")
        {
            default(rolling, "maxUnavailable", "25%");
            default(rolling, "maxSurge", "25%");
        }
    }

    fn prepare_status_update(&self, _ctx: &Ctx<'_>, object: &mut Value, old: &Value) {
        keep_only(object, old, &["status"]);
        edit::carry(object, old, &["metadata", "labels"]);
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut e = Errors::new();
        deployment_spec(&At::root(object).f("spec"), &mut e);
        e.into_vec()
    }

    fn validate_update(&self, object: &Value, old: &Value) -> Vec<FieldError> {
        let (spec, mut e) = (At::root(object).f("spec"), Errors::new());
        deployment_spec(&spec, &mut e);
        e.immutable(&spec.f("selector"), &At::root(old).dig(&["spec", "selector"]));
        e.into_vec()
    }

    fn validate_status_update(&self, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut e = Errors::new();
        let counts = ["updatedReplicas", "readyReplicas", "availableReplicas", "unavailableReplicas"];
        replica_status(&At::root(object).f("status"), &counts, &mut e);
        collision_count(object, old, &mut e);
        e.into_vec()
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        workload_warnings(object, old, true)
    }

    /// Its revisions are annotations, and followers of `observedGeneration` wait for those too.
    fn also_changes_generation(&self, object: &Value, old: &Value) -> bool {
        let annotations = |object| At::root(object).dig(&["metadata", "annotations"]);
        !same(annotations(object).value, annotations(old).value)
    }
}

fn deployment_spec(spec: &At<'_>, e: &mut Errors) {
    e.nonnegative(&spec.f("replicas"));
    selector(&spec.f("selector"), "deployment", e);
    template(spec, "ReplicaSet", &[], e);
    let strategy = spec.f("strategy");
    match strategy.f("type").s() {
        "Recreate" => {
            if let Some(rolling) = strategy.get("rollingUpdate") {
                e.forbidden(&rolling.path, "may not be specified when strategy `type` is 'Recreate'");
            }
        }
        "RollingUpdate" => rolling_update(&strategy.f("rollingUpdate"), e),
        _ => e.not_supported(&strategy, &["Recreate", "RollingUpdate"]),
    }
    e.nonnegative_all(spec, &["minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"]);
    let deadline = spec.f("progressDeadlineSeconds");
    if deadline.has() && deadline.i() <= spec.f("minReadySeconds").i() {
        e.invalid(&deadline, "must be greater than minReadySeconds");
    }
}

fn rolling_update(at: &At<'_>, e: &mut Errors) {
    if !at.has() {
        e.required(&at.path, "this should be defaulted and never be nil");
        return;
    }
    let (unavailable, surge) = (at.f("maxUnavailable"), at.f("maxSurge"));
    e.int_or_percent(&unavailable);
    e.int_or_percent(&surge);
    if both_zero(&unavailable, &surge) {
        e.invalid(&unavailable, "may not be 0 when `maxSurge` is 0");
    }
    e.not_more_than_100_percent(&unavailable);
}

const SET_COUNTS: [&str; 3] = ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"];

pub struct ReplicaSet;

impl Strategy for ReplicaSet {
    fn default(&self, object: &mut Value) {
        if let Some(spec) = default_spec(object, false) {
            default(spec, "replicas", 1);
            edit::omit_zero(spec, &["minReadySeconds"]);
        }
        if let Some(status) = edit::ensure(object, "status") {
            default(status, "replicas", 0);
        }
    }

    fn prepare_create(&self, _ctx: &Ctx<'_>, object: &mut Value) {
        edit::set(object, "status", json!({"replicas": 0}));
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let (spec, mut e) = (At::root(object).f("spec"), Errors::new());
        e.nonnegative_all(&spec, &["replicas", "minReadySeconds"]);
        selector(&spec.f("selector"), "deployment", &mut e);
        template(&spec, "ReplicaSet", &[], &mut e);
        e.into_vec()
    }

    fn validate_update(&self, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut e = Errors::new();
        e.extend(self.validate(object));
        let now = At::root(object).dig(&["spec", "selector"]);
        e.immutable(&now, &At::root(old).dig(&["spec", "selector"]));
        e.into_vec()
    }

    fn validate_status_update(&self, object: &Value, _old: &Value) -> Vec<FieldError> {
        let mut e = Errors::new();
        replica_status(&At::root(object).f("status"), &SET_COUNTS, &mut e);
        e.into_vec()
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        workload_warnings(object, old, true)
    }
}

pub struct ReplicationController;

impl Strategy for ReplicationController {
    fn default(&self, object: &mut Value) {
        let labels = At::root(object).dig(&["spec", "template", "metadata", "labels"]).value.clone();
        let templated = At::root(object).dig(&["spec", "template"]).has();
        if let Some(spec) = edit::ensure(object, "spec") {
            if templated {
                crate::strategies::pod::defaults::template(spec, "template");
            }
            default(spec, "replicas", 1);
            edit::omit_zero(spec, &["minReadySeconds"]);
            if !labels.is_null() {
                default_zero(spec, "selector", labels.clone());
            }
        }
        if let (false, Some(meta)) = (labels.is_null(), edit::ensure(object, "metadata")) {
            default_zero(meta, "labels", labels);
        }
        if let Some(status) = edit::ensure(object, "status") {
            default(status, "replicas", 0);
        }
    }

    fn prepare_create(&self, _ctx: &Ctx<'_>, object: &mut Value) {
        edit::set(object, "status", json!({"replicas": 0}));
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let (spec, mut e) = (At::root(object).f("spec"), Errors::new());
        e.nonnegative(&spec.f("minReadySeconds"));
        let wanted = spec.f("selector");
        if wanted.is_empty() {
            e.required(&wanted.path, "");
        }
        if spec.f("replicas").has() {
            e.nonnegative(&spec.f("replicas"));
        } else {
            e.required(&spec.path.field("replicas"), "");
        }
        let at = spec.f("template");
        if !at.has() {
            e.required(&at.path, "");
            return e.into_vec();
        }
        let labels = at.dig(&["metadata", "labels"]);
        if wanted.entries().any(|(key, value)| labels.f(key).value != value.value) {
            e.invalid(&labels, "`selector` does not match template `labels`");
        }
        crate::strategies::pod::spec::template(&at, &[], &mut e);
        super::runs_for_ever(&at, "ReplicationController", &mut e);
        e.into_vec()
    }

    fn validate_status_update(&self, object: &Value, _old: &Value) -> Vec<FieldError> {
        let mut e = Errors::new();
        replica_status(&At::root(object).f("status"), &SET_COUNTS, &mut e);
        e.into_vec()
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        workload_warnings(object, old, true)
    }

    fn selectable_names(&self) -> &'static [&'static str] {
        &["status.replicas"]
    }

    fn selectable_fields<'a>(&self, object: &'a Value) -> Selectable<'a> {
        vec![("status.replicas", At::root(object).dig(&["status", "replicas"]).i().to_string().into())]
    }
}
