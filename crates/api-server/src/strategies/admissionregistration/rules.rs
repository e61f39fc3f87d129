//! What webhooks and policies have in common: the rules and conditions by which they choose requests.

use serde_json::{Value, json};

use super::super::check::{At, Errors};
use super::super::edit::{self, default};
use crate::admission::expressions::{BOOL, Compiler, Expression, Names};
use keelson_api_types::names as names_of;

const OPERATIONS: &[&str] = &["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];

pub fn match_defaults(at: &mut Value) {
    default(at, "matchPolicy", "Equivalent");
    default(at, "namespaceSelector", json!({}));
    default(at, "objectSelector", json!({}));
}

pub fn rule_scopes(at: &mut Value, list: &str) {
    edit::each(at, list).for_each(|rule| default(rule, "scope", "*"));
}

pub fn rule_errors(rule: &At<'_>, e: &mut Errors) {
    listed(&rule.f("operations"), "operations", e);
    for operation in rule.f("operations").each() {
        if !OPERATIONS.contains(&operation.s()) {
            e.not_supported(&operation, OPERATIONS);
        }
    }
    listed(&rule.f("apiGroups"), "API groups", e);
    listed(&rule.f("apiVersions"), "API versions", e);
    for version in rule.f("apiVersions").each() {
        e.required_string(&version);
    }
    resources(&rule.f("resources"), e);
    e.optional_one_of(&rule.f("scope"), &["*", "Cluster", "Namespaced"]);
}

/// A list that is not empty, and in which `*` stands alone.
fn listed(at: &At<'_>, what: &str, e: &mut Errors) {
    if at.is_empty() {
        e.required(&at.path, "");
    }
    if at.len() > 1 && at.strings().contains(&"*") {
        e.invalid(at, format!("if '*' is present, must not specify other {what}"));
    }
}

fn resources(at: &At<'_>, e: &mut Errors) {
    if at.is_empty() {
        e.required(&at.path, "");
    }
    let (mut all_below, mut all_above) = (Vec::new(), Vec::new());
    let mut last_is_plain = false;
    for item in at.each() {
        let text = item.s();
        if !e.required_string(&item) {
            continue;
        }
        let Some((resource, sub)) = text.split_once('/') else {
            last_is_plain = text != "*";
            continue;
        };
        if all_below.contains(&resource) {
            e.invalid(&item, format!("if '{resource}/*' is present, must not specify {text}"));
        }
        if all_above.contains(&sub) {
            e.invalid(&item, format!("if '*/{sub}' is present, must not specify {text}"));
        }
        all_below.extend((sub == "*").then_some(resource));
        all_above.extend((resource == "*").then_some(sub));
    }
    let all = at.strings();
    if all.len() > 1 && all.contains(&"*/*") {
        e.invalid(at, "if '*/*' is present, must not specify other resources");
    }
    if all.contains(&"*") && last_is_plain {
        e.invalid(at, "if '*' is present, must not specify other resources without subresources");
    }
}

pub fn match_conditions(at: &At<'_>, compiler: &Compiler, names: Names, e: &mut Errors) {
    if at.len() > 64 {
        e.too_many(&at.path, at.len(), 64);
    }
    let mut seen = Vec::new();
    for condition in at.each() {
        let (name, expression) = (condition.f("name"), condition.f("expression"));
        if expression.s().trim().is_empty() {
            e.required(&expression.path, "");
        } else {
            let compiled = compiler.compile(expression.s().trim(), names, &BOOL);
            expression_error(&expression, &compiled, e);
        }
        if e.required_string(&name) {
            e.qualified_name(&name);
            if seen.contains(&name.s()) {
                e.duplicate(&name.path, name.s());
            }
            seen.push(name.s());
        }
    }
}

/// What compiling has found wrong, as an error of the field.
pub fn expression_error(at: &At<'_>, compiled: &Expression, e: &mut Errors) {
    if let Some(problem) = compiled.problem() {
        e.invalid_value(&at.path, compiled.source.as_str(), problem);
    }
}

/// `matchConstraints` and `matchResources`.
pub fn match_resources(at: &At<'_>, e: &mut Errors) {
    if !at.has() {
        return;
    }
    e.one_of(&at.f("matchPolicy"), &["Equivalent", "Exact"]);
    for field in ["namespaceSelector", "objectSelector"] {
        let selector = at.f(field);
        if selector.has() {
            e.label_selector(&selector);
        } else {
            e.required(&selector.path, "");
        }
    }
    for list in ["resourceRules", "excludeResourceRules"] {
        for rule in at.f(list).each() {
            let mut seen = Vec::new();
            for name in rule.f("resourceNames").each() {
                e.messages(&name, names_of::path_segment_name(name.s()));
                if seen.contains(&name.s()) {
                    e.duplicate(&name.path, name.s());
                }
                seen.push(name.s());
            }
            rule_errors(&rule, e);
        }
    }
}
