//! PodDisruptionBudgets, PriorityClasses, RuntimeClasses and Leases: small kinds with a few rules each.

use keelson_api_types::{FieldError, names};
use serde_json::Value;

use super::check::{At, Errors, Path};
use super::edit::{self, default};
use super::pod::resources::{self, Scope};
use super::pod::scheduling;
use super::pod::warnings::node_label;
use super::{Ctx, Strategy};

pub struct PodDisruptionBudget;

impl Strategy for PodDisruptionBudget {
    fn default(&self, object: &mut Value) {
        if let Some(status) = edit::ensure(object, "status") {
            for count in ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"] {
                default(status, count, 0);
            }
        }
    }

    fn prepare_create(&self, _ctx: &Ctx<'_>, object: &mut Value) {
        edit::unset(object, "status");
        self.default(object);
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let (spec, mut e) = (At::root(object).f("spec"), Errors::new());
        let (min, max) = (spec.f("minAvailable"), spec.f("maxUnavailable"));
        if min.has() && max.has() {
            e.invalid(&spec, "minAvailable and maxUnavailable cannot be both set");
        }
        for amount in [min, max].iter().filter(|at| at.has()) {
            e.int_or_percent(amount);
            e.not_more_than_100_percent(amount);
        }
        e.label_selector(&spec.f("selector"));
        e.optional_one_of(&spec.f("unhealthyPodEvictionPolicy"), &["AlwaysAllow", "IfHealthyBudget"]);
        e.into_vec()
    }

    fn validate_status_update(&self, object: &Value, _old: &Value) -> Vec<FieldError> {
        let (status, mut e) = (At::root(object).f("status"), Errors::new());
        e.conditions(&status.f("conditions"));
        let counts = ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"];
        e.nonnegative_all(&status, &counts);
        e.into_vec()
    }
}

const HIGHEST_USER_PRIORITY: i64 = 1_000_000_000;
const SYSTEM_CLASSES: [(&str, i64); 2] =
    [("system-node-critical", 2_000_001_000), ("system-cluster-critical", 2_000_000_000)];

pub struct PriorityClass;

impl Strategy for PriorityClass {
    fn default(&self, object: &mut Value) {
        default(object, "preemptionPolicy", "PreemptLowerPriority");
        default(object, "value", 0);
        edit::omit_zero(object, &["globalDefault", "description"]);
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let (at, mut e) = (At::root(object), Errors::new());
        let (name, value) = (at.dig(&["metadata", "name"]), at.f("value"));
        if name.s().starts_with("system-") {
            let known = SYSTEM_CLASSES.iter().find(|(system, _)| *system == name.s());
            let reason = match known {
                None => Some(format!("{} is not a known system priority class", name.s())),
                Some((_, v)) if *v != value.i() => {
                    Some(format!("value of {} PriorityClass must be {v}", name.s()))
                }
                Some(_) if at.f("globalDefault").b() => {
                    Some(format!("globalDefault of {} PriorityClass must be false", name.s()))
                }
                Some(_) => None,
            };
            if let Some(reason) = reason {
                let detail = format!(
                    "priority class names with 'system-' prefix are reserved for system use only. error: {reason}"
                );
                e.forbidden(&name.path, detail);
            }
        } else if value.i() > HIGHEST_USER_PRIORITY {
            let detail =
                format!("maximum allowed value of a user defined priority is {HIGHEST_USER_PRIORITY}");
            e.forbidden(&value.path, detail);
        }
        e.one_of(&at.f("preemptionPolicy"), &["PreemptLowerPriority", "Never"]);
        e.into_vec()
    }

    fn validate_update(&self, object: &Value, old: &Value) -> Vec<FieldError> {
        let (at, before, mut e) = (At::root(object), At::root(old), Errors::new());
        if at.f("value").i() != before.f("value").i() {
            e.forbidden(&Path::of(&["value"]), "may not be changed in an update.");
        }
        e.immutable(&at.f("preemptionPolicy"), &before.f("preemptionPolicy"));
        e.into_vec()
    }
}

pub struct RuntimeClass;

impl Strategy for RuntimeClass {
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let (at, mut e) = (At::root(object), Errors::new());
        if e.required_string(&at.f("handler")) {
            e.dns_label(&at.f("handler"));
        }
        for (name, amount) in at.dig(&["overhead", "podFixed"]).entries() {
            let amount = amount.under(Path::of(&["overhead", "limits"]).key(name));
            resources::name(name, &amount, Scope::Container, &mut e);
            resources::amount(name, &amount, &mut e);
        }
        let scheduling = at.f("scheduling");
        e.labels(&scheduling.f("nodeSelector"));
        scheduling::tolerations(&scheduling.f("tolerations"), &mut e);
        let mut seen = Vec::new();
        for toleration in scheduling.f("tolerations").each() {
            let key = ["key", "operator", "value", "effect"].map(|field| toleration.f(field).s());
            if seen.contains(&key) {
                e.duplicate(&toleration.path, toleration.value.clone());
            }
            seen.push(key);
        }
        e.into_vec()
    }

    fn validate_update(&self, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut e = Errors::new();
        e.immutable(&At::root(object).f("handler"), &At::root(old).f("handler"));
        e.into_vec()
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>) -> Vec<String> {
        let selector = At::root(object).dig(&["scheduling", "nodeSelector"]);
        let one = |(key, _): (&str, At<'_>)| Some(format!("{}: {}", selector.path, node_label(key)?));
        selector.entries().filter_map(one).collect()
    }
}

const LEASE_STRATEGY: &str = "OldestEmulationVersion";

pub struct Lease;

impl Strategy for Lease {
    fn default(&self, object: &mut Value) {
        edit::ensure(object, "spec");
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let (spec, mut e) = (At::root(object).f("spec"), Errors::new());
        let (duration, transitions) = (spec.f("leaseDurationSeconds"), spec.f("leaseTransitions"));
        if duration.has() && duration.i() <= 0 {
            e.invalid(&duration, "must be greater than 0");
        }
        if transitions.i() < 0 {
            e.invalid(&transitions, "must be greater than or equal to 0");
        }
        let strategy = spec.f("strategy");
        if strategy.has() {
            let at = strategy.under(strategy.path.field("strategy"));
            if !strategy.s().contains('/') && strategy.s() != LEASE_STRATEGY {
                e.not_supported(&at, &[LEASE_STRATEGY]);
            } else {
                e.messages(&at, names::qualified_name(strategy.s()));
            }
        }
        let holder = spec.f("preferredHolder");
        if !holder.is_empty() && strategy.is_empty() {
            e.forbidden(&holder.path, "may only be specified if `strategy` is defined");
        }
        e.into_vec()
    }
}
