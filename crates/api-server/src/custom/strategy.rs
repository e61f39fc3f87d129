//! What a version's schema says, as a strategy.

use keelson_api_types::{FieldError, names};
use keelson_machinery::{Rules, embedded_resources, prune, validate_lists, validate_schema};
use keelson_schema::Link;
use serde_json::Value;

use crate::meta::{self, string};
use crate::strategies::{Ctx, Strategy, keep_only};

pub struct CustomStrategy {
    pub ty: Link,
    /// `subresources.scale`, as written; null for none.
    pub scale: Value,
    /// `x-kubernetes-validations`.
    pub rules: Option<Rules>,
}

impl CustomStrategy {
    /// `old` is the state before an update, in the same version.
    fn errors(&self, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let mut errors = validate_schema(&self.ty, object, old, "");
        errors.extend(self.scale_spec(object));
        errors.extend(self.scale_status(object));
        errors.extend(self.embedded(object));
        errors.extend(self.lists(object, old));
        self.rules(object, old, &mut errors);
        errors
    }

    /// What repeats was there before, or is refused.
    fn lists(&self, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let errors = validate_lists(&self.ty, object);
        let known = !errors.is_empty() && old.is_some_and(|old| !validate_lists(&self.ty, old).is_empty());
        if known { Vec::new() } else { errors }
    }

    fn embedded(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        embedded_resources(&self.ty, object, &mut |path, resource| {
            errors.extend(embedded_errors(path, resource));
        });
        errors
    }

    /// `x-kubernetes-validations`: they see valid objects alone.
    fn rules(&self, object: &Value, old: Option<&Value>, errors: &mut Vec<FieldError>) {
        if let Some(rules) = &self.rules {
            let found = rules.validate(object, old, errors).errors;
            errors.extend(found);
        }
    }

    /// What rules say of the parts that an update leaves alone.
    fn ratcheted(&self, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let (Some(rules), Some(_)) = (&self.rules, old) else { return Vec::new() };
        rules.validate(object, old, &[]).ratcheted
    }

    fn scale_spec(&self, object: &Value) -> Vec<FieldError> {
        replicas(object, string(&self.scale, "specReplicasPath"))
    }

    fn scale_status(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = replicas(object, string(&self.scale, "statusReplicasPath"));
        let path = string(&self.scale, "labelSelectorPath");
        let selector = object.pointer(&super::pointer(path)).filter(|v| !path.is_empty() && !v.is_string());
        if let Some(other) = selector {
            let detail = format!("{path} accessor error: {other} is of the wrong type, expected string");
            errors.push(FieldError::invalid(path, "", detail));
        }
        errors
    }
}

impl Strategy for CustomStrategy {
    fn default(&self, object: &mut Value) {
        prune::default(&self.ty, object);
    }

    fn prepare_status_update(&self, _ctx: &Ctx<'_>, object: &mut Value, old: &Value) {
        keep_only(object, old, &["status"]);
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        self.errors(object, None)
    }

    fn validate_update(&self, object: &Value, old: &Value) -> Vec<FieldError> {
        self.errors(object, Some(old))
    }

    fn validate_status_update(&self, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = match (self.ty.field("status"), object.get("status")) {
            (Some(field), Some(status)) => validate_schema(&field.ty, status, old.get("status"), "status"),
            _ => Vec::new(),
        };
        errors.extend(self.scale_status(object));
        errors.extend(self.lists(object, Some(old)));
        self.rules(object, Some(old), &mut errors);
        errors
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        let before = old.map(meta::finalizers).unwrap_or_default();
        let mut added: Vec<&str> =
            meta::finalizers(object).into_iter().filter(|f| !before.contains(f)).collect();
        added.sort_unstable();
        let ratcheted = self.ratcheted(object, old).into_iter().map(|error| error.to_string());
        added.into_iter().flat_map(finalizer_warnings).chain(ratcheted).collect()
    }
}

fn finalizer_warnings(name: &str) -> Vec<String> {
    let place = format!("metadata.finalizers: {name:?}");
    let mut all: Vec<String> =
        names::qualified_name(name).into_iter().map(|m| format!("{place}: {m}")).collect();
    if !name.contains('/') && !matches!(name, meta::ORPHAN | meta::FOREGROUND | "kubernetes") {
        let path = if name.contains('.') { " including a path (/)" } else { "" };
        all.push(format!(
            "{place}: prefer a domain-qualified finalizer name{path} to avoid accidental conflicts with other finalizer writers"
        ));
    }
    all
}

/// What is wrong with the replicas at a path, if there is one.
fn replicas(object: &Value, path: &str) -> Vec<FieldError> {
    let Some(value) = object.pointer(&super::pointer(path)).filter(|_| !path.is_empty()) else {
        return Vec::new();
    };
    let detail = match value.as_i64() {
        None => format!("{path} accessor error: {value} is of the wrong type, expected int64"),
        Some(n) if n < 0 => "should be a non-negative integer".to_owned(),
        Some(n) if n > i64::from(i32::MAX) => format!("should be less than or equal to {}", i32::MAX),
        Some(_) => return Vec::new(),
    };
    let value = value.as_i64().unwrap_or(0);
    vec![FieldError::invalid(path, value, detail)]
}

/// An embedded resource says what it is, and its metadata is valid.
pub fn embedded_errors(path: &str, resource: &Value) -> Vec<FieldError> {
    let at = |name: &str| format!("{path}.{name}");
    let mut errors = Vec::new();
    for name in ["apiVersion", "kind"] {
        let detail = match resource.get(name) {
            None => {
                errors.push(FieldError::required(at(name), ""));
                continue;
            }
            Some(Value::String(s)) if s.is_empty() => "must not be empty".to_owned(),
            Some(Value::String(s)) if name == "apiVersion" && s.matches('/').count() > 1 => {
                format!("unexpected GroupVersion string: {s}")
            }
            Some(Value::String(s)) if name == "kind" => match names::dns1035_label(&s.to_lowercase()) {
                messages if messages.is_empty() => continue,
                messages => {
                    format!("may have mixed case, but should otherwise match: {}", messages.join(","))
                }
            },
            Some(Value::String(_)) => continue,
            Some(_) => "must be a string".to_owned(),
        };
        errors.push(FieldError::invalid(at(name), resource[name].clone(), detail));
    }
    if resource.get("metadata").is_some_and(Value::is_object) {
        errors.extend(meta::validate_embedded(resource, &at("metadata")));
    }
    errors
}
