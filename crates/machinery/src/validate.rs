//! A CRD's value validation: types, required fields and the OpenAPI rules, in upstream's words.

mod rules;

use keelson_api_types::field::{child, index};
use keelson_api_types::{FieldError, gofmt};
use keelson_schema::{ListKind, Object, Shape, Type};
use serde_json::{Map, Value};
use std::collections::HashSet;

/// Validates a custom resource against its schema. `apiVersion`, `kind` and `metadata` are not looked at:
/// every object's metadata has its own validation.
pub fn validate_schema(ty: &Type, value: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    walk(ty, value, "", true, &mut errors);
    errors
}

fn walk(ty: &Type, value: &Value, path: &str, root: bool, errors: &mut Vec<FieldError>) {
    if value.is_null() && ty.nullable {
        return;
    }
    if !type_matches(ty, value) {
        errors.push(type_error(ty, value, path));
        return;
    }
    match (&ty.shape, value) {
        (Shape::Object(object), Value::Object(map)) => fields(object, map, path, root, errors),
        (Shape::Map(m), Value::Object(map)) => {
            for (name, value) in map {
                walk(&m.value, value, &child(path, name), false, errors);
            }
        }
        (Shape::List(list), Value::Array(items)) => {
            for (i, item) in items.iter().enumerate() {
                walk(&list.item, item, &index(path, i), false, errors);
            }
            duplicates(&list.kind, &list.item, items, path, errors);
        }
        _ => {}
    }
    if let Some(r) = &ty.rules {
        rules::check(r, ty, value, path, errors);
    }
}

fn fields(object: &Object, map: &Map<String, Value>, path: &str, root: bool, errors: &mut Vec<FieldError>) {
    for field in &object.fields {
        let own = matches!(&*field.name, "apiVersion" | "kind" | "metadata");
        if own && (root || object.embedded_resource) {
            continue;
        }
        match map.get(&*field.name) {
            Some(value) => walk(&field.ty, value, &child(path, &field.name), false, errors),
            None if field.required => errors.push(FieldError::required(child(path, &field.name), "")),
            None => {}
        }
    }
}

fn type_matches(ty: &Type, value: &Value) -> bool {
    match &ty.shape {
        Shape::Object(_) | Shape::Map(_) | Shape::RawExtension => value.is_object(),
        Shape::List(_) => value.is_array(),
        Shape::String | Shape::Bytes | Shape::Time | Shape::MicroTime | Shape::Duration => value.is_string(),
        // An integral float counts as an integer, as in JSON Schema.
        Shape::Int32 | Shape::Int64 => value.as_f64().is_some_and(|n| n.fract() == 0.0),
        Shape::Float => value.is_number(),
        Shape::Bool => value.is_boolean(),
        Shape::IntOrString | Shape::Quantity => {
            value.is_string() || value.as_f64().is_some_and(|n| n.fract() == 0.0)
        }
        Shape::Any | Shape::FieldsV1 => true,
    }
}

fn type_error(ty: &Type, value: &Value, path: &str) -> FieldError {
    let wanted = match &ty.shape {
        Shape::List(_) => "array",
        Shape::Int32 | Shape::Int64 => "integer",
        Shape::Float => "number",
        Shape::Bool => "boolean",
        Shape::IntOrString | Shape::Quantity => "integer,string",
        Shape::Object(_) | Shape::Map(_) | Shape::RawExtension => "object",
        _ => "string",
    };
    let found = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let detail = format!("{path} in body must be of type {wanted}: {}", gofmt::quote(found));
    FieldError::type_invalid(path, found, detail)
}

/// Items that sets and map lists must not repeat.
fn duplicates(kind: &ListKind, item: &Type, items: &[Value], path: &str, errors: &mut Vec<FieldError>) {
    let mut seen = HashSet::new();
    for (i, value) in items.iter().enumerate() {
        let identity = match kind {
            ListKind::Atomic => return,
            ListKind::Set => value.clone(),
            ListKind::Map(keys) => {
                let mut picked = Map::new();
                for name in keys {
                    let default = || item.field(name).and_then(|f| f.default.as_deref());
                    if let Some(v) = value.get(&**name).or_else(default) {
                        picked.insert(name.clone().into_owned(), v.clone());
                    }
                }
                Value::Object(picked)
            }
        };
        if !seen.insert(identity.to_string()) {
            errors.push(FieldError::duplicate(index(path, i), identity));
        }
    }
}
