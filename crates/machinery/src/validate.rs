//! A CRD's value validation in upstream's words: the OpenAPI rules, list types, embedded resources.

mod check;
mod formats;

use crate::path::{Path, Step};
use keelson_api_types::FieldError;
use keelson_schema::{Link, List, ListKind, Object, Shape, Type};
use serde_json::{Map, Value};
use std::collections::HashSet;

/// The path of what has none: messages show it so.
const NOWHERE: &str = "<nil>";

/// Validates a value, on an update against what was there: what has not changed is not complained about. Field paths
/// start with `base`, the paths inside of messages do not.
pub fn validate_schema(ty: &Type, value: &Value, old: Option<&Value>, base: &str) -> Vec<FieldError> {
    let mut errors = check::walk(ty, value, old, &Path::ROOT).errors;
    for error in &mut errors {
        let below = error.path.trim_start_matches('.');
        error.path = match (base, below) {
            ("", "" | NOWHERE) => NOWHERE.to_owned(),
            ("", _) => below.to_owned(),
            (_, "" | NOWHERE) => base.to_owned(),
            _ => format!("{base}.{below}"),
        };
    }
    errors
}

/// Items that sets and map lists must not repeat.
pub fn validate_lists(ty: &Type, value: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    lists(ty, value, &Path::ROOT, &mut errors);
    errors
}

/// Calls `visit` with every embedded resource below the root and its path.
pub fn embedded_resources(ty: &Type, value: &Value, visit: &mut dyn FnMut(&str, &Value)) {
    embedded(ty, value, &Path::ROOT, visit);
}

fn embedded(ty: &Type, value: &Value, path: &Path<'_>, visit: &mut dyn FnMut(&str, &Value)) {
    if ty.as_object().is_some_and(|o| o.embedded_resource) && value.is_object() {
        visit(&path.bracketed(), value);
    }
    children(ty, value, path, &mut |ty, value, path| embedded(ty, value, path, visit));
}

fn lists(ty: &Type, value: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    if let (Shape::List(list), Value::Array(items)) = (&ty.shape, value) {
        repeated(list, items, path, errors);
    }
    children(ty, value, path, &mut |ty, value, path| lists(ty, value, path, errors));
}

/// The parts of a value that a schema of the CRD's own describes.
fn children(ty: &Type, value: &Value, path: &Path<'_>, visit: &mut dyn FnMut(&Type, &Value, &Path<'_>)) {
    match (&ty.shape, value) {
        (Shape::Object(object), Value::Object(map)) => {
            for field in object.fields.iter().filter(|f| matches!(f.ty, Link::Owned(_))) {
                if let Some(value) = map.get(&*field.name) {
                    visit(&field.ty, value, &path.then(Step::Field(&field.name)));
                }
            }
        }
        (Shape::Map(m), Value::Object(map)) => {
            for (name, value) in map {
                visit(&m.value, value, &path.then(Step::Key(name)));
            }
        }
        (Shape::List(list), Value::Array(items)) => {
            for (i, item) in items.iter().enumerate() {
                visit(&list.item, item, &path.then(Step::Index(i)));
            }
        }
        _ => {}
    }
}

/// Each identity is complained about once, where it is repeated first.
fn repeated(list: &List, items: &[Value], path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let at = |i: usize| path.then(Step::Index(i)).bracketed();
    if let ListKind::Map(_) = list.kind
        && let Some(i) = items.iter().position(|item| !item.is_object() && !item.is_null())
    {
        let detail = "must be an object for an array of list-type map";
        return errors.push(FieldError::invalid(at(i), items[i].clone(), detail));
    }
    let (mut once, mut twice) = (HashSet::new(), HashSet::new());
    for (i, item) in items.iter().enumerate() {
        let identity = match &list.kind {
            ListKind::Atomic => return,
            ListKind::Set => item.clone(),
            ListKind::Map(keys) => {
                let found =
                    keys.iter().filter_map(|k| Some((k.clone().into_owned(), item.get(&**k)?.clone())));
                Value::Object(found.collect::<Map<_, _>>())
            }
        };
        let text = identity.to_string();
        if !once.insert(text.clone()) && twice.insert(text) {
            errors.push(FieldError::duplicate(at(i), identity));
        }
    }
}

/// The schema's own words on a field that every resource has, where it has any.
fn restriction<'a>(object: &'a Object, name: &str) -> Option<&'a Type> {
    object.restricted.iter().find(|f| f.name == name).map(|f| &*f.ty)
}
