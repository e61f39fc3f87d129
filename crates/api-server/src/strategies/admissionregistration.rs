//! Webhook configurations and admission policies.

mod policies;
mod rules;

use keelson_api_types::{FieldError, names};
use serde_json::Value;

pub use self::policies::{Policy, PolicyBinding};
use self::rules::{match_conditions, match_defaults, rule_errors, rule_scopes};
use super::Strategy;
use super::check::{At, Errors};
use super::edit::{self, default};
use crate::admission::expressions::{Compiler, Names};

const REVIEW_VERSIONS: [&str; 2] = ["v1", "v1beta1"];
const NO_SIDE_EFFECTS: &[&str] = &["None", "NoneOnDryRun"];
const SIDE_EFFECTS: &[&str] = &["None", "NoneOnDryRun", "Some", "Unknown"];
const URL_FORM: &str = "; desired format: https://host[/path]";

/// Mutating and validating webhook configurations.
pub struct Webhooks {
    pub mutating: bool,
}

/// What an update need not mend, because it was stored before it was forbidden.
#[derive(Default)]
struct Stored {
    same_conditions: bool,
    side_effects: bool,
    review_versions: bool,
    repeated_names: bool,
}

impl Stored {
    fn of(object: &Value, old: &Value) -> Self {
        let hooks = || At::root(old).f("webhooks").each();
        let conditions = |object: &Value| -> Vec<Value> {
            At::root(object).f("webhooks").each().map(|h| h.f("matchConditions").value.clone()).collect()
        };
        let names: Vec<&str> = hooks().map(|h| h.f("name").s()).collect();
        Self {
            same_conditions: conditions(object) == conditions(old),
            side_effects: hooks().any(|h| !NO_SIDE_EFFECTS.contains(&h.f("sideEffects").s())),
            review_versions: hooks().any(|h| {
                let versions = h.f("admissionReviewVersions").strings();
                !versions.is_empty() && !versions.iter().any(|v| REVIEW_VERSIONS.contains(v))
            }),
            repeated_names: names.iter().enumerate().any(|(i, name)| names[..i].contains(name)),
        }
    }
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
        configuration(object, &Stored::default())
    }

    fn validate_update(&self, object: &Value, old: &Value) -> Vec<FieldError> {
        configuration(object, &Stored::of(object, old))
    }
}

fn configuration(object: &Value, stored: &Stored) -> Vec<FieldError> {
    let mut e = Errors::new();
    let mut seen = Vec::new();
    for hook in At::root(object).f("webhooks").each() {
        let name = hook.f("name");
        webhook(&hook, stored, &mut e);
        review_versions(&hook.f("admissionReviewVersions"), stored, &mut e);
        if !stored.repeated_names && !name.s().is_empty() {
            if seen.contains(&name.s()) {
                e.duplicate(&name.path, name.s());
            }
            seen.push(name.s());
        }
    }
    e.into_vec()
}

fn webhook(at: &At<'_>, stored: &Stored, e: &mut Errors) {
    webhook_name(&at.f("name"), e);
    at.f("rules").each().for_each(|rule| rule_errors(&rule, e));
    e.optional_one_of(&at.f("failurePolicy"), &["Fail", "Ignore"]);
    e.optional_one_of(&at.f("matchPolicy"), &["Equivalent", "Exact"]);
    let effects = at.f("sideEffects");
    let allowed = if stored.side_effects { SIDE_EFFECTS } else { NO_SIDE_EFFECTS };
    if effects.has() {
        e.optional_one_of(&effects, allowed);
    } else {
        e.required(&effects.path, format!("must specify one of {}", allowed.join(", ")));
    }
    let timeout = at.f("timeoutSeconds");
    if timeout.has() && !(1..=30).contains(&timeout.i()) {
        e.invalid(&timeout, "the timeout value must be between 1 and 30 seconds");
    }
    e.label_selector(&at.f("namespaceSelector"));
    e.label_selector(&at.f("objectSelector"));
    e.optional_one_of(&at.f("reinvocationPolicy"), &["IfNeeded", "Never"]);
    client_config(&at.f("clientConfig"), e);
    if !stored.same_conditions {
        let names = Names { authorizer: true, ..Names::default() };
        match_conditions(&at.f("matchConditions"), &Compiler::default(), names, e);
    }
}

fn webhook_name(at: &At<'_>, e: &mut Errors) {
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

fn review_versions(at: &At<'_>, stored: &Stored, e: &mut Errors) {
    let known = REVIEW_VERSIONS.join(", ");
    if at.is_empty() {
        return e.required(&at.path, format!("must specify one of {known}"));
    }
    let mut seen = Vec::new();
    for version in at.each() {
        if seen.contains(&version.s()) {
            e.invalid(&version, "duplicate version");
            continue;
        }
        seen.push(version.s());
        e.messages(&version, names::dns1035_label(version.s()));
    }
    if !stored.review_versions && !seen.iter().any(|v| REVIEW_VERSIONS.contains(v)) {
        e.invalid(at, format!("must include at least one of {known}"));
    }
}

fn client_config(at: &At<'_>, e: &mut Errors) {
    let (url, service) = (at.f("url"), at.f("service"));
    if url.has() == service.has() {
        e.required(&at.path, "exactly one of url or service is required");
    } else if url.has() {
        webhook_url(&url, e);
    } else {
        webhook_service(&service, e);
    }
}

fn webhook_url(at: &At<'_>, e: &mut Errors) {
    let (text, fragment) = at.s().split_once('#').unwrap_or((at.s(), ""));
    let (text, query) = text.split_once('?').unwrap_or((text, ""));
    let (scheme, rest) = text.split_once("://").unwrap_or(("", ""));
    let authority = rest.split('/').next().unwrap_or_default();
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    if scheme != "https" {
        e.invalid_value(&at.path, scheme, format!("'https' is the only allowed URL scheme{URL_FORM}"));
    }
    if host.is_empty() {
        e.invalid_value(&at.path, host, format!("host must be specified{URL_FORM}"));
    }
    for (part, what) in [
        (user, "user information is not permitted in the URL"),
        (fragment, "fragments are not permitted in the URL"),
        (query, "query parameters are not permitted in the URL"),
    ] {
        if !part.is_empty() {
            e.invalid_value(&at.path, part, what);
        }
    }
}

fn webhook_service(at: &At<'_>, e: &mut Errors) {
    e.required_string(&at.f("name"));
    e.required_string(&at.f("namespace"));
    let port = at.f("port");
    let messages = names::port_number(port.i());
    if !messages.is_empty() {
        e.invalid(&port, format!("port is not valid: {}", messages.join(", ")));
    }
    let path = at.f("path");
    match path.s() {
        "" | "/" => return,
        "//" => return e.invalid(&path, "segment[0] may not be empty"),
        text if !text.starts_with('/') => e.invalid(&path, "must start with a '/'"),
        _ => {}
    }
    let mut chars = path.s().chars();
    chars.next();
    let steps = chars.as_str();
    for (i, step) in steps.strip_suffix('/').unwrap_or(steps).split('/').enumerate() {
        if step.is_empty() {
            e.invalid(&path, format!("segment[{i}] may not be empty"));
            continue;
        }
        let problems = names::dns1123_subdomain(step);
        e.messages(&path, problems.into_iter().map(|problem| format!("segment[{i}]: {problem}")));
    }
}
