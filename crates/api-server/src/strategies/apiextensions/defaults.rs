//! A schema's defaults must be values that it accepts whole.

use keelson_api_types::FieldError;
use keelson_api_types::field::{child, key};
use keelson_machinery::prune::{self, FieldValidation};
use keelson_machinery::validate_schema;
use keelson_schema::from_json_schema_fragment;
use serde_json::{Value, json};

/// Checks the defaults of a structural schema; `additionalProperties` have none.
pub fn check(s: &Value, path: &str, pruned: bool, e: &mut Vec<FieldError>) {
    each(s, path, &mut |s, path| one(s, &s["default"], &child(path, "default"), pruned, e));
}

/// Whether a default has fields that its schema does not know.
pub fn any_unpruned(s: &Value) -> bool {
    let mut found = false;
    each(s, "", &mut |s, _| found |= unpruned(s, &s["default"]));
    found
}

/// Calls `see` with every schema that has a default.
fn each(s: &Value, path: &str, see: &mut dyn FnMut(&Value, &str)) {
    if !s["default"].is_null() {
        see(s, path);
    }
    if s["items"].is_object() {
        each(&s["items"], &child(path, "items"), see);
    }
    for (name, property) in s["properties"].as_object().into_iter().flatten() {
        each(property, &key(&child(path, "properties"), name), see);
    }
}

fn one(s: &Value, value: &Value, path: &str, pruned: bool, e: &mut Vec<FieldError>) {
    if pruned && unpruned(s, value) {
        e.push(FieldError::invalid(path, value.clone(), "must not have unknown fields"));
    }
    if let Ok(ty) = from_json_schema_fragment(s) {
        let mut errors = Vec::new();
        keelson_machinery::embedded_resources(&ty, value, &mut |below, resource| {
            errors.extend(crate::custom::embedded_errors(&join(path, below), resource));
        });
        match errors.is_empty() {
            true => e.extend(validate_schema(&ty, value, None, path)),
            false => e.extend(errors),
        }
    }
}

fn join(path: &str, below: &str) -> String {
    if below.is_empty() { path.to_owned() } else { child(path, below) }
}

fn unpruned(s: &Value, value: &Value) -> bool {
    let wrapped = json!({"type": "object", "properties": {"default": s}});
    let Ok(ty) = from_json_schema_fragment(&wrapped) else { return false };
    let mut value = json!({"default": value});
    prune::check(&ty, &mut value, FieldValidation::Warn).is_ok_and(|unknown| !unknown.is_empty())
}
