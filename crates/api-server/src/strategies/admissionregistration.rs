//! Webhook configurations and admission policies.

use keelson_api_types::{FieldError, names};
use serde_json::{Value, json};

use super::Strategy;
use super::check::{At, Errors};
use super::edit::{self, default};

const OPERATIONS: &[&str] = &["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];

/// Mutating and validating webhook configurations.
pub struct Webhooks {
    pub mutating: bool,
}

impl Strategy for Webhooks {
    fn default(&self, object: &mut Value) {
        for webhook in edit::each(object, "webhooks") {
            default(webhook, "failurePolicy", "Fail");
            match_defaults(webhook);
            default(webhook, "timeoutSeconds", 10);
            if self.mutating {
                default(webhook, "reinvocationPolicy", "Never");
            }
            rule_scopes(webhook, "rules");
            if let Some(service) = edit::dig(webhook, &["clientConfig", "service"]) {
                default(service, "port", 443);
            }
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut e = Errors::new();
        let mut seen = Vec::new();
        for webhook in At::root(object).f("webhooks").each() {
            let name = webhook.f("name");
            qualified_webhook_name(&name, &mut e);
            if seen.contains(&name.s()) {
                e.duplicate(&name.path, name.s());
            }
            seen.push(name.s());
            self.webhook(&webhook, &mut e);
        }
        e.into_vec()
    }
}

fn match_defaults(at: &mut Value) {
    default(at, "matchPolicy", "Equivalent");
    default(at, "namespaceSelector", json!({}));
    default(at, "objectSelector", json!({}));
}

fn rule_scopes(at: &mut Value, list: &str) {
    edit::each(at, list).for_each(|rule| default(rule, "scope", "*"));
}

fn qualified_webhook_name(at: &At<'_>, e: &mut Errors) {
    if !e.required_string(at) {
        return;
    }
    let messages = names::dns1123_subdomain(at.s());
    if !messages.is_empty() {
        e.invalid(at, messages.join(","));
    } else if at.s().split('.').count() < 3 {
        e.invalid(at, "should be a domain with at least three segments separated by dots");
    }
}

impl Webhooks {
    fn webhook(&self, at: &At<'_>, e: &mut Errors) {
        e.label_selector(&at.f("namespaceSelector"));
        e.label_selector(&at.f("objectSelector"));
        let versions = at.f("admissionReviewVersions");
        if versions.is_empty() {
            let detail = "must specify one of v1, v1beta1";
            e.required(&versions.path, detail);
        } else if !versions.strings().iter().any(|v| ["v1", "v1beta1"].contains(v)) {
            e.invalid(&versions, "must include at least one of v1, v1beta1");
        }
        at.f("rules").each().for_each(|rule| rule_errors(&rule, e));
        e.optional_one_of(&at.f("failurePolicy"), &["Fail", "Ignore"]);
        e.optional_one_of(&at.f("matchPolicy"), &["Equivalent", "Exact"]);
        e.optional_one_of(&at.f("reinvocationPolicy"), &["IfNeeded", "Never"]);
        let effects = at.f("sideEffects");
        if effects.has() {
            e.optional_one_of(&effects, &["None", "NoneOnDryRun"]);
        } else {
            e.required(&effects.path, "must specify one of None, NoneOnDryRun");
        }
        let timeout = at.f("timeoutSeconds");
        if timeout.has() && !(1..=30).contains(&timeout.i()) {
            e.invalid(&timeout, "the timeout value must be between 1 and 30 seconds");
        }
        client_config(&at.f("clientConfig"), e);
        match_conditions(&at.f("matchConditions"), e);
    }
}

fn rule_errors(rule: &At<'_>, e: &mut Errors) {
    for field in ["operations", "apiGroups", "apiVersions", "resources"] {
        let list = rule.f(field);
        if list.is_empty() {
            e.required(&list.path, "");
        }
        if list.len() > 1 && list.strings().contains(&"*") {
            e.invalid(&list, format!("if '*' is present, must not specify other {}", spaced(field)));
        }
    }
    for operation in rule.f("operations").each() {
        if !OPERATIONS.contains(&operation.s()) {
            e.not_supported(&operation, OPERATIONS);
        }
    }
    for version in rule.f("apiVersions").each() {
        e.required_string(&version);
    }
    e.optional_one_of(&rule.f("scope"), &["*", "Cluster", "Namespaced"]);
}

/// The field as it is spelt in messages.
fn spaced(field: &str) -> &str {
    match field {
        "apiGroups" => "API groups",
        "apiVersions" => "API versions",
        other => other,
    }
}

fn client_config(at: &At<'_>, e: &mut Errors) {
    let (url, service) = (at.f("url"), at.f("service"));
    if url.has() == service.has() {
        e.required(&at.path, "exactly one of url or service is required");
    }
    if url.has() && !url.s().starts_with("https://") {
        let detail = "'https' is the only allowed URL scheme";
        e.invalid(&url, detail);
    }
    if service.has() {
        e.required_string(&service.f("name"));
        e.required_string(&service.f("namespace"));
        if service.f("port").has() {
            e.port_number(&service.f("port"));
        }
        if service.f("path").has() && !service.f("path").s().starts_with('/') {
            e.invalid(&service.f("path"), "must start with a '/'");
        }
    }
}

fn match_conditions(at: &At<'_>, e: &mut Errors) {
    if at.len() > 64 {
        e.too_many(&at.path, at.len(), 64);
    }
    let mut seen = Vec::new();
    for condition in at.each() {
        let (name, expression) = (condition.f("name"), condition.f("expression"));
        if e.required_string(&name) {
            e.qualified_name(&name);
        }
        if seen.contains(&name.s()) {
            e.duplicate(&name.path, name.s());
        }
        seen.push(name.s());
        if expression.s().trim().is_empty() {
            e.required(&expression.path, "");
        }
    }
}

/// Validating and mutating admission policies. Their expressions are compiled where they are evaluated.
pub struct Policy {
    pub mutating: bool,
}

impl Strategy for Policy {
    fn default(&self, object: &mut Value) {
        if !self.mutating {
            edit::ensure(object, "status");
        }
        let Some(spec) = edit::ensure(object, "spec") else { return };
        default(spec, "failurePolicy", "Fail");
        if let Some(constraints) = edit::some(spec, "matchConstraints") {
            match_resources(constraints);
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let (spec, mut e) = (At::root(object).f("spec"), Errors::new());
        e.optional_one_of(&spec.f("failurePolicy"), &["Fail", "Ignore"]);
        if let Some(kind) = spec.get("paramKind") {
            e.required_string(&kind.f("apiVersion"));
            e.required_string(&kind.f("kind"));
        }
        let constraints = spec.f("matchConstraints");
        if constraints.has() {
            if constraints.f("resourceRules").is_empty() {
                e.required(&constraints.path.field("resourceRules"), "");
            }
            e.label_selector(&constraints.f("namespaceSelector"));
            e.label_selector(&constraints.f("objectSelector"));
            constraints.f("resourceRules").each().for_each(|rule| rule_errors(&rule, &mut e));
        } else {
            e.required(&constraints.path, "");
        }
        match_conditions(&spec.f("matchConditions"), &mut e);
        if !self.mutating {
            self.validations(&spec, &mut e);
        } else if spec.f("mutations").is_empty() {
            e.required(&spec.path.field("mutations"), "mutations must contain at least one item");
        }
        e.into_vec()
    }
}

impl Policy {
    fn validations(&self, spec: &At<'_>, e: &mut Errors) {
        let (validations, audits) = (spec.f("validations"), spec.f("auditAnnotations"));
        if validations.is_empty() && audits.is_empty() {
            let detail = "validations or auditAnnotations must contain at least one item";
            e.required(&validations.path, detail);
            e.required(&audits.path, detail);
        }
        for validation in validations.each() {
            let expression = validation.f("expression");
            if expression.s().trim().is_empty() {
                e.required(&expression.path, "expression is not specified");
            }
        }
        for audit in audits.each() {
            e.required_string(&audit.f("key"));
            e.required_string(&audit.f("valueExpression"));
        }
    }
}

fn match_resources(at: &mut Value) {
    match_defaults(at);
    rule_scopes(at, "resourceRules");
    rule_scopes(at, "excludeResourceRules");
}

/// Bindings of either kind of policy.
pub struct PolicyBinding {
    pub mutating: bool,
}

impl Strategy for PolicyBinding {
    fn default(&self, object: &mut Value) {
        if let Some(resources) = edit::dig(object, &["spec", "matchResources"]) {
            match_resources(resources);
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let (spec, mut e) = (At::root(object).f("spec"), Errors::new());
        if e.required_string(&spec.f("policyName")) {
            e.dns_subdomain(&spec.f("policyName"));
        }
        if let Some(param) = spec.get("paramRef") {
            let (name, selector) = (param.f("name"), param.f("selector"));
            match (name.is_empty(), selector.has()) {
                (true, false) => e.required(&param.path, "one of name or selector must be specified"),
                (false, true) => e.forbidden(&name.path, "name and selector are mutually exclusive"),
                _ => {}
            }
            let action = param.f("parameterNotFoundAction");
            e.one_of(&action, &["Allow", "Deny"]);
        }
        if !self.mutating {
            let actions = spec.f("validationActions");
            if actions.is_empty() {
                e.required(&actions.path, "");
            }
            let mut seen = Vec::new();
            for action in actions.each() {
                if !["Deny", "Warn", "Audit"].contains(&action.s()) {
                    e.not_supported(&action, &["Audit", "Deny", "Warn"]);
                }
                if seen.contains(&action.s()) {
                    e.duplicate(&action.path, action.s());
                }
                seen.push(action.s());
            }
            if ["Deny", "Warn"].iter().all(|action| seen.contains(action)) {
                e.invalid(&actions, "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)");
            }
        }
        e.into_vec()
    }
}
