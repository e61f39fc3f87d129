//! Validating and mutating admission policies and their bindings.

use keelson_api_types::{FieldError, names};
use serde_json::Value;

use super::super::Strategy;
use super::super::check::{At, Errors};
use super::super::edit::{self, default};
use super::rules::{expression_error, match_conditions, match_defaults, match_resources, rule_scopes};
use crate::admission::expressions::{BOOL, Compiler, Names, Returns, STRING, STRING_OR_NULL};
use crate::admission::policy::mutating;

const MUTATING_OPERATIONS: &[&str] = &["*", "CONNECT", "CREATE", "UPDATE"];
const MAX_ANNOTATIONS: usize = 20;
const MAX_ANNOTATION_EXPRESSION: usize = 5 << 10;

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
            resource_defaults(constraints);
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        self.errors(object, false)
    }

    fn validate_update(&self, object: &Value, old: &Value) -> Vec<FieldError> {
        let same = |field: &str| object["spec"][field] == old["spec"][field];
        self.errors(object, same("paramKind") && same("matchConditions"))
    }

    fn validate_status_update(&self, object: &Value, _old: &Value) -> Vec<FieldError> {
        let mut e = Errors::new();
        for warning in At::root(object).dig(&["status", "typeChecking", "expressionWarnings"]).each() {
            e.required_string(&warning.f("warning"));
            if warning.f("fieldRef").s().trim().is_empty() {
                e.required(&warning.f("fieldRef").path, "");
            }
        }
        e.into_vec()
    }
}

fn resource_defaults(at: &mut Value) {
    match_defaults(at);
    rule_scopes(at, "resourceRules");
    rule_scopes(at, "excludeResourceRules");
}

impl Policy {
    fn errors(&self, object: &Value, same_conditions: bool) -> Vec<FieldError> {
        let (root, mut e) = (At::root(object), Errors::new());
        let spec = root.f("spec");
        e.one_of(&spec.f("failurePolicy"), &["Fail", "Ignore"]);
        let kind = spec.f("paramKind");
        if kind.has() {
            param_kind(&kind, &mut e);
        }
        let constraints = spec.f("matchConstraints");
        if constraints.has() {
            match_resources(&constraints, &mut e);
            let rules = constraints.f("resourceRules");
            if rules.is_empty() {
                e.required(&rules.path, "");
            }
            if self.mutating {
                only_changes(&rules, &mut e);
            }
        } else {
            e.required(&constraints.path, "");
        }
        let names = Names { params: kind.has(), authorizer: true, mutation: false };
        if !same_conditions {
            match_conditions(&spec.f("matchConditions"), &Compiler::default(), names, &mut e);
        }
        let compiler = variables(&spec.f("variables"), names, &mut e);
        if self.mutating {
            mutations(&spec, &compiler, names, &mut e);
        } else {
            validations(&root, &spec, &compiler, names, &mut e);
        }
        e.into_vec()
    }
}

fn param_kind(at: &At<'_>, e: &mut Errors) {
    let (version, kind) = (at.f("apiVersion"), at.f("kind"));
    if e.required_string(&version) {
        let parts: Vec<&str> = version.s().split('/').collect();
        let (group, number) = match parts.as_slice() {
            ["", ""] => ("", ""),
            [number] => ("", *number),
            [group, number] => (*group, *number),
            _ => {
                e.invalid(&version, format!("unexpected GroupVersion string: {}", version.s()));
                ("", "v1")
            }
        };
        if !group.is_empty() {
            let messages = names::dns1123_subdomain(group);
            if !messages.is_empty() {
                e.invalid_value(&version.path, group, messages.join(","));
            }
        }
        let messages = names::dns1035_label(number);
        if number.is_empty() {
            e.invalid(&version, "version must be specified");
        } else if !messages.is_empty() {
            e.invalid_value(&version.path, number, messages.join(","));
        }
    }
    if e.required_string(&kind) {
        let messages = names::dns1035_label(&kind.s().to_lowercase());
        if !messages.is_empty() {
            let detail = format!("may have mixed case, but should otherwise match: {}", messages.join(","));
            e.invalid(&kind, detail);
        }
    }
}

/// What is deleted cannot be changed.
fn only_changes(rules: &At<'_>, e: &mut Errors) {
    for operation in rules.each().flat_map(|rule| rule.f("operations").each().collect::<Vec<_>>()) {
        if !MUTATING_OPERATIONS.contains(&operation.s()) {
            e.not_supported(&operation.under(rules.path.field("operations")), MUTATING_OPERATIONS);
        }
    }
}

fn variables(at: &At<'_>, names: Names, e: &mut Errors) -> Compiler {
    let mut compiler = Compiler::default();
    for variable in at.each() {
        let (name, expression) = (variable.f("name"), variable.f("expression"));
        if name.s().trim().is_empty() {
            e.required(&name.path, "name is not specified");
        } else if !is_identifier(name.s()) {
            e.invalid(&name, "must be a valid CEL identifier");
        }
        if expression.s().trim().is_empty() {
            e.required(&expression.path, "expression is not specified");
        } else if let Some(problem) = compiler.add(name.s(), expression.s(), names) {
            e.invalid(&expression, problem);
        }
    }
    compiler
}

fn is_identifier(name: &str) -> bool {
    let letter = |c: char| c.is_ascii_alphabetic() || c == '_';
    name.starts_with(letter)
        && name.chars().all(|c| letter(c) || c.is_ascii_digit())
        && !keelson_cel::is_keyword(name)
}

fn validations(root: &At<'_>, spec: &At<'_>, compiler: &Compiler, names: Names, e: &mut Errors) {
    let (validations, audits) = (spec.f("validations"), spec.f("auditAnnotations"));
    if validations.is_empty() && audits.is_empty() {
        let detail = "validations or auditAnnotations must contain at least one item";
        e.required(&validations.path, detail);
        e.required(&audits.path, detail);
    }
    validations.each().for_each(|v| validation(&v, compiler, names, e));
    if audits.len() > MAX_ANNOTATIONS {
        e.invalid(&audits, format!("must not have more than {MAX_ANNOTATIONS} auditAnnotations"));
    }
    let mut seen = Vec::new();
    for audit in audits.each() {
        let key = audit.f("key");
        annotation(&root.dig(&["metadata", "name"]), &audit, compiler, names, e);
        if seen.contains(&key.s()) {
            e.duplicate(&key.path, key.s());
        }
        seen.push(key.s());
    }
}

fn validation(at: &At<'_>, compiler: &Compiler, names: Names, e: &mut Errors) {
    let (expression, made, message) = (at.f("expression"), at.f("messageExpression"), at.f("message"));
    if expression.s().trim().is_empty() {
        e.required(&expression.path, "expression is not specified");
    } else {
        expression_error(&expression, &compiler.compile(expression.s(), names, &BOOL), e);
    }
    if !made.s().is_empty() && made.s().trim().is_empty() {
        e.invalid(&made, "must be non-empty if specified");
    } else if !made.s().is_empty() {
        let names = Names { authorizer: false, ..names };
        expression_error(&made, &compiler.compile(made.s(), names, &STRING), e);
    }
    if !message.s().is_empty() && message.s().trim().is_empty() {
        e.invalid(&message, "must be non-empty if specified");
    } else if message.s().trim().contains(['\n', '\r']) {
        e.invalid(&message, "must not contain line breaks");
    }
    e.optional_one_of(&at.f("reason"), &["Forbidden", "Invalid", "RequestEntityTooLarge"]);
}

fn annotation(policy: &At<'_>, at: &At<'_>, compiler: &Compiler, names: Names, e: &mut Errors) {
    let (key, value) = (at.f("key"), at.f("valueExpression"));
    if policy.s().is_empty() {
        e.invalid(&key, "requires metadata.name be non-empty");
    } else {
        let full = format!("{}/{}", policy.s(), key.s());
        for message in names::qualified_name(&full) {
            e.invalid_value(&key.path, full.as_str(), message);
        }
    }
    let source = value.s().trim();
    if source.is_empty() {
        e.required(&value.path, "valueExpression is not specified");
    } else if source.len() > MAX_ANNOTATION_EXPRESSION {
        let detail = format!("must not exceed {MAX_ANNOTATION_EXPRESSION} bytes in length");
        e.required(&value.path, detail);
    } else if let Some(problem) = compiler.compile(source, names, &STRING_OR_NULL).problem() {
        e.invalid(&value, problem);
    }
}

fn mutations(spec: &At<'_>, compiler: &Compiler, names: Names, e: &mut Errors) {
    let mutations = spec.f("mutations");
    if mutations.is_empty() {
        e.required(&mutations.path, "mutations must contain at least one item");
    }
    for mutation in mutations.each() {
        let kind = mutation.f("patchType");
        let (own, other, returns) = match kind.s() {
            "" => {
                e.required(&kind.path, "");
                continue;
            }
            "JSONPatch" => ("jsonPatch", "applyConfiguration", &mutating::PATCH),
            "ApplyConfiguration" => ("applyConfiguration", "jsonPatch", &mutating::CONFIGURATION),
            _ => {
                e.not_supported(&kind, &["ApplyConfiguration", "JSONPatch"]);
                continue;
            }
        };
        let part = mutation.f(own);
        if part.has() {
            made(&part.f("expression"), compiler, Names { mutation: true, ..names }, returns, e);
        } else {
            e.required(&part.path, format!("must be specified when patchType is {}", kind.s()));
        }
        let other_part = mutation.f(other);
        if other_part.has() {
            let detail = format!("must not be specified when patchType is {}", kind.s());
            e.invalid_value(&other_part.path, format!("{{{other}}}"), detail);
        }
    }
    e.one_of(&spec.f("reinvocationPolicy"), &["IfNeeded", "Never"]);
}

fn made(at: &At<'_>, compiler: &Compiler, names: Names, returns: &Returns, e: &mut Errors) {
    let source = at.s().trim();
    if source.is_empty() {
        e.required(&at.path, "");
    } else {
        expression_error(at, &compiler.compile(source, names, returns), e);
    }
}

/// Bindings of either kind of policy.
pub struct PolicyBinding {
    pub mutating: bool,
}

impl Strategy for PolicyBinding {
    fn default(&self, object: &mut Value) {
        if let Some(resources) = edit::dig(object, &["spec", "matchResources"]) {
            resource_defaults(resources);
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let (spec, mut e) = (At::root(object).f("spec"), Errors::new());
        if e.required_string(&spec.f("policyName")) {
            e.dns_subdomain(&spec.f("policyName"));
        }
        if let Some(param) = spec.get("paramRef") {
            param_ref(&param, &mut e);
        }
        let resources = spec.f("matchResources");
        match_resources(&resources, &mut e);
        if self.mutating {
            only_changes(&resources.f("resourceRules"), &mut e);
        } else {
            actions(&spec.f("validationActions"), &mut e);
        }
        e.into_vec()
    }
}

fn param_ref(at: &At<'_>, e: &mut Errors) {
    const EXCLUSIVE: &str = "name and selector are mutually exclusive";
    let (name, selector) = (at.f("name"), at.f("selector"));
    if !name.s().is_empty() {
        e.messages(&name, names::path_segment_name(name.s()));
        if selector.has() {
            e.forbidden(&name.path, EXCLUSIVE);
        }
    }
    if selector.has() {
        e.label_selector(&selector);
        if !name.s().is_empty() {
            e.forbidden(&selector.path, EXCLUSIVE);
        }
    }
    if name.s().is_empty() && !selector.has() {
        e.required(&at.path, "one of name or selector must be specified");
    }
    e.one_of(&at.f("parameterNotFoundAction"), &["Deny", "Allow"]);
}

fn actions(at: &At<'_>, e: &mut Errors) {
    let mut seen = Vec::new();
    for action in at.each() {
        if !["Audit", "Deny", "Warn"].contains(&action.s()) {
            e.not_supported(&action, &["Audit", "Deny", "Warn"]);
        }
        if seen.contains(&action.s()) {
            e.duplicate(&action.path, action.s());
        }
        seen.push(action.s());
    }
    if ["Deny", "Warn"].iter().all(|action| seen.contains(action)) {
        e.invalid(at, "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)");
    }
    if seen.is_empty() {
        e.required(&at.path, "at least one validation action is required");
    }
}
