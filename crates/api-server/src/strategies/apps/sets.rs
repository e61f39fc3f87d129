//! StatefulSets and DaemonSets.

use keelson_api_types::FieldError;
use serde_json::{Value, json};

use super::{
    both_zero, collision_count, default_spec, replica_status, selector, template, workload_warnings,
};
use crate::strategies::check::{At, Errors};
use crate::strategies::common::int_or_percent_value;
use crate::strategies::edit::{self, default, default_zero, same};
use crate::strategies::storage::{claim, defaults as storage_defaults};
use crate::strategies::{Ctx, Strategy, carry};

/// What of a StatefulSet's spec may change.
const MUTABLE: [&str; 7] = [
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];

pub struct StatefulSet;

impl Strategy for StatefulSet {
    fn default(&self, object: &mut Value) {
        if let Some(spec) = default_spec(object, true) {
            default(spec, "replicas", 1);
            default_zero(spec, "podManagementPolicy", "OrderedReady");
            default(spec, "serviceName", "");
            edit::omit_zero(spec, &["minReadySeconds"]);
            if let Some(strategy) = edit::ensure(spec, "updateStrategy") {
                let unset = strategy.get("type").and_then(Value::as_str).is_none_or(str::is_empty);
                default_zero(strategy, "type", "RollingUpdate");
                if unset {
                    edit::ensure(strategy, "rollingUpdate");
                }
                if strategy["type"] == "RollingUpdate"
                    && let Some(rolling) = edit::some(strategy, "rollingUpdate")
                {
                    default(rolling, "partition", 0);
                }
            }
            if let Some(policy) = edit::ensure(spec, "persistentVolumeClaimRetentionPolicy") {
                default_zero(policy, "whenDeleted", "Retain");
                default_zero(policy, "whenScaled", "Retain");
            }
            for claim in edit::each(spec, "volumeClaimTemplates") {
                storage_defaults::claim_spec(claim);
                default_zero(claim, "apiVersion", "v1");
                default_zero(claim, "kind", "PersistentVolumeClaim");
                if let Some(status) = edit::ensure(claim, "status") {
                    default_zero(status, "phase", "Pending");
                }
            }
        }
        if let Some(status) = edit::ensure(object, "status") {
            default(status, "replicas", 0);
            default(status, "availableReplicas", 0);
        }
    }

    fn prepare_create(&self, _ctx: &Ctx<'_>, object: &mut Value) {
        edit::set(object, "status", json!({"replicas": 0, "availableReplicas": 0}));
        drop_max_unavailable(object, None);
    }

    fn prepare_update(&self, _ctx: &Ctx<'_>, object: &mut Value, old: &Value) {
        carry(object, old, "status");
        drop_max_unavailable(object, Some(old));
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let (spec, mut e) = (At::root(object).f("spec"), Errors::new());
        stateful_spec(&spec, &mut e);
        for template in spec.f("volumeClaimTemplates").each() {
            claim::spec(&template.f("spec"), &mut e);
        }
        if !spec.f("serviceName").is_empty() {
            e.dns_label(&spec.f("serviceName"));
        }
        e.into_vec()
    }

    fn validate_update(&self, object: &Value, old: &Value) -> Vec<FieldError> {
        let (spec, mut e) = (At::root(object).f("spec"), Errors::new());
        stateful_spec(&spec, &mut e);
        let mut rest = spec.value.clone();
        let before = old.get("spec").unwrap_or(&Value::Null);
        for field in MUTABLE {
            carry(&mut rest, before, field);
        }
        if !same(&rest, before) {
            let detail = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
                          'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and \
                          'minReadySeconds' are forbidden";
            e.forbidden(&spec.path, detail);
        }
        e.into_vec()
    }

    fn validate_status_update(&self, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut e = Errors::new();
        let counts = ["readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"];
        replica_status(&At::root(object).f("status"), &counts, &mut e);
        collision_count(object, old, &mut e);
        e.into_vec()
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        let mut out = workload_warnings(object, old, false);
        let spec = At::root(object).f("spec");
        for template in spec.f("volumeClaimTemplates").each() {
            claim::spec_warnings(&template.f("spec"), &mut out);
        }
        if spec.f("revisionHistoryLimit").i() < 0 {
            out.push(
                "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is \
                 recommended"
                    .to_owned(),
            );
        }
        out
    }
}

/// `maxUnavailable` is behind a gate that is off by default.
fn drop_max_unavailable(object: &mut Value, old: Option<&Value>) {
    let path = ["spec", "updateStrategy", "rollingUpdate"];
    let in_use = old.is_some_and(|old| At::root(old).dig(&path).f("maxUnavailable").has());
    if let (false, Some(rolling)) = (in_use, edit::dig(object, &path)) {
        edit::unset(rolling, "maxUnavailable");
    }
}

fn stateful_spec(spec: &At<'_>, e: &mut Errors) {
    let policy = spec.f("podManagementPolicy");
    match policy.s() {
        "" => e.required(&policy.path, ""),
        "OrderedReady" | "Parallel" => {}
        _ => e.invalid(&policy, "must be 'OrderedReady' or 'Parallel'"),
    }
    let strategy = spec.f("updateStrategy");
    let rolling = strategy.f("rollingUpdate");
    match strategy.f("type").s() {
        "" => e.required(&strategy.path, ""),
        "OnDelete" if rolling.has() => {
            e.invalid(&rolling, "only allowed for updateStrategy 'RollingUpdate'");
        }
        "OnDelete" => {}
        "RollingUpdate" => {
            e.nonnegative(&rolling.f("partition"));
            if let Some(unavailable) = rolling.get("maxUnavailable") {
                e.int_or_percent(&unavailable);
                if int_or_percent_value(unavailable.value) == 0 {
                    e.invalid(&unavailable, "cannot be 0");
                }
                e.not_more_than_100_percent(&unavailable);
            }
        }
        _ => e.invalid(&strategy, "must be 'RollingUpdate' or 'OnDelete'"),
    }
    let retention = spec.f("persistentVolumeClaimRetentionPolicy");
    for when in ["whenDeleted", "whenScaled"].iter().filter(|_| retention.has()) {
        if !["Retain", "Delete"].contains(&retention.f(when).s()) {
            e.not_supported(&retention.f(when), &["Retain", "Delete"]);
        }
    }
    e.nonnegative_all(spec, &["replicas", "minReadySeconds"]);
    let start = spec.dig(&["ordinals", "start"]);
    e.nonnegative(&start.under(spec.path.field("ordinals.start")));
    selector(&spec.f("selector"), "statefulset", e);
    // Claims become volumes of the pods, under their templates' names.
    let volumes: Vec<Value> = spec
        .f("volumeClaimTemplates")
        .each()
        .map(|claim| {
            let name = claim.dig(&["metadata", "name"]).s();
            json!({"name": name, "persistentVolumeClaim": {"claimName": name}})
        })
        .collect();
    let extra: Vec<At<'_>> = volumes.iter().map(At::root).collect();
    let mut object = spec.value.clone();
    if let Some(pod) = edit::dig(&mut object, &["template", "spec"]) {
        // The controller sets these itself.
        edit::unset(pod, "hostname");
        edit::unset(pod, "subdomain");
    }
    template(&At { value: &object, path: spec.path.clone() }, "StatefulSet", &extra, e);
}

pub struct DaemonSet;

impl Strategy for DaemonSet {
    fn default(&self, object: &mut Value) {
        if let Some(spec) = default_spec(object, true)
            && let Some(strategy) = edit::ensure(spec, "updateStrategy")
        {
            default_zero(strategy, "type", "RollingUpdate");
            if strategy["type"] == "RollingUpdate"
                && let Some(rolling) = edit::ensure(strategy, "rollingUpdate")
            {
                default(rolling, "maxUnavailable", 1);
                default(rolling, "maxSurge", 0);
            }
        }
        if let Some(status) = edit::ensure(object, "status") {
            for count in
                ["currentNumberScheduled", "numberMisscheduled", "desiredNumberScheduled", "numberReady"]
            {
                default(status, count, 0);
            }
        }
    }

    fn prepare_create(&self, _ctx: &Ctx<'_>, object: &mut Value) {
        edit::unset(object, "status");
        self.default(object);
        template_generation(object, 1);
    }

    /// The v1 API has no `templateGeneration`; an annotation carries it, as upstream's conversion does.
    fn prepare_update(&self, _ctx: &Ctx<'_>, object: &mut Value, old: &Value) {
        carry(object, old, "status");
        let generation = At::root(old)
            .dig(&["metadata", "annotations", "deprecated.daemonset.template.generation"])
            .s()
            .parse()
            .unwrap_or(1);
        let template = |object| At::root(object).dig(&["spec", "template"]);
        let changed = !same(template(object).value, template(old).value);
        template_generation(object, i64::saturating_add(generation, i64::from(changed)));
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let (spec, mut e) = (At::root(object).f("spec"), Errors::new());
        daemon_spec(&spec, &mut e);
        e.into_vec()
    }

    fn validate_update(&self, object: &Value, old: &Value) -> Vec<FieldError> {
        let (spec, mut e) = (At::root(object).f("spec"), Errors::new());
        e.immutable(&spec.f("selector"), &At::root(old).dig(&["spec", "selector"]));
        daemon_spec(&spec, &mut e);
        e.into_vec()
    }

    fn validate_status_update(&self, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut e = Errors::new();
        e.nonnegative_all(
            &At::root(object).f("status"),
            &[
                "currentNumberScheduled",
                "numberMisscheduled",
                "desiredNumberScheduled",
                "numberReady",
                "observedGeneration",
                "updatedNumberScheduled",
                "numberAvailable",
                "numberUnavailable",
                "collisionCount",
            ],
        );
        collision_count(object, old, &mut e);
        e.into_vec()
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        workload_warnings(object, old, false)
    }
}

fn template_generation(object: &mut Value, generation: i64) {
    if let Some(meta) = edit::ensure(object, "metadata")
        && let Some(annotations) = edit::map(meta, "annotations")
    {
        let key = "deprecated.daemonset.template.generation".to_owned();
        annotations.insert(key, generation.to_string().into());
    }
}

fn daemon_spec(spec: &At<'_>, e: &mut Errors) {
    let wanted = spec.f("selector");
    if !wanted.has() {
        e.required(&wanted.path, "");
    } else {
        selector(&wanted, "daemonset", e);
    }
    template(spec, "DaemonSet", &[], e);
    e.nonnegative_all(spec, &["minReadySeconds", "revisionHistoryLimit"]);
    let strategy = spec.f("updateStrategy");
    match strategy.f("type").s() {
        "OnDelete" => {}
        "RollingUpdate" => {
            let rolling = strategy.f("rollingUpdate");
            if !rolling.has() {
                e.required(&rolling.path, "");
                return;
            }
            let (unavailable, surge) = (rolling.f("maxUnavailable"), rolling.f("maxSurge"));
            for at in [&unavailable, &surge] {
                e.int_or_percent(at);
                e.not_more_than_100_percent(at);
            }
            if both_zero(&unavailable, &surge) {
                e.required(&unavailable.path, "cannot be 0 when maxSurge is 0");
            } else if [&unavailable, &surge].iter().all(|at| int_or_percent_value(at.value) != 0) {
                e.invalid(&surge, "may not be set when maxUnavailable is non-zero");
            }
        }
        _ => e.not_supported(&strategy, &["RollingUpdate", "OnDelete"]),
    }
}
