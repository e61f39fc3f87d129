//! FlowSchemas and PriorityLevelConfigurations.

use keelson_api_types::FieldError;
use serde_json::Value;

use super::Strategy;
use super::check::{At, Errors};
use super::edit::{self, default, default_zero};

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
            for subject in subjects.each() {
                if !["User", "Group", "ServiceAccount"].contains(&subject.f("kind").s()) {
                    e.not_supported(&subject.f("kind"), &["Group", "ServiceAccount", "User"]);
                }
            }
            if resources.is_empty() && rule.f("nonResourceRules").is_empty() {
                let detail = "at least one of resourceRules and nonResourceRules has to be non-empty";
                e.required(&rule.path, detail);
            }
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
            "Limited" => limited_errors(&limited, &mut e),
            "Exempt" => {}
            _ => e.not_supported(&spec.f("type"), &["Exempt", "Limited"]),
        }
        e.into_vec()
    }
}

fn limited_errors(at: &At<'_>, e: &mut Errors) {
    let shares = at.f("nominalConcurrencyShares");
    if shares.i() < 0 {
        e.invalid(&shares, "must be a non-negative integer");
    }
    let lendable = at.f("lendablePercent");
    if !(0..=100).contains(&lendable.i()) {
        e.invalid(&lendable, "must be between 0 and 100, inclusive");
    }
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
            let hand = queuing.f("handSize");
            if hand.i() > queuing.f("queues").i() {
                let detail = format!("should not be greater than queues ({})", queuing.f("queues").i());
                e.invalid(&hand, detail);
            }
        }
        _ => e.not_supported(&response.f("type"), &["Queue", "Reject"]),
    }
}
