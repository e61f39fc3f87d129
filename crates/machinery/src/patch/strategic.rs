//! Strategic merge patch: a merge patch that knows lists of objects by their merge keys.

use super::PatchError;
use super::directives::{
    DELETE_PREFIX, ORDER_PREFIX, PATCH, discard_nulls, malformed, no_merge_key, retain_keys, strip,
};
use super::order;
use keelson_schema::{Patch, Shape, Type};
use serde_json::{Map, Value};

/// What a merge is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Applying a patch to an object.
    Apply,
    /// Merging two patches into one: directives and nulls stay.
    Combine,
}

/// Applies a strategic merge patch to a copy of `original`, an object of type `ty`.
pub fn strategic(ty: &Type, original: &Value, patch: &Value) -> Result<Value, PatchError> {
    let Value::Object(patch) = patch else { return malformed("invalid JSON document") };
    let mut out = original.as_object().cloned().unwrap_or_default();
    merge_map(&mut out, patch.clone(), Some(ty), Mode::Apply)?;
    Ok(Value::Object(out))
}

/// The type and patch strategy of a key; both empty for what the schema does not know.
pub(crate) fn lookup<'a>(ty: Option<&'a Type>, key: &str) -> (Option<&'a Type>, Patch) {
    match ty.map(|t| &t.shape) {
        Some(Shape::Object(o)) => match o.field(key) {
            Some(f) => (Some(&f.ty), f.patch),
            None => (None, Patch::default()),
        },
        Some(Shape::Map(m)) => (Some(&m.value), Patch::default()),
        _ => (None, Patch::default()),
    }
}

pub(crate) fn item_type(ty: Option<&Type>) -> Option<&Type> {
    ty.and_then(Type::as_list).map(|l| &*l.item)
}

pub(crate) fn merge_map(
    original: &mut Map<String, Value>,
    mut patch: Map<String, Value>,
    ty: Option<&Type>,
    mode: Mode,
) -> Result<(), PatchError> {
    if let Some(directive) = patch.remove(PATCH) {
        match directive.as_str() {
            Some("replace") => *original = patch,
            Some("delete") => original.clear(),
            _ => return malformed(format!("unknown patch type: {directive} in map: {}", Value::from(patch))),
        }
        return Ok(());
    }
    retain_keys(original, &mut patch, mode == Mode::Combine)?;
    element_orders(original, &mut patch, ty, mode)?;
    for (key, change) in patch {
        let (name, deletes) = match key.strip_prefix(DELETE_PREFIX) {
            Some(_) if mode == Mode::Combine => {
                original.insert(key, change);
                continue;
            }
            Some(name) => (name.to_owned(), true),
            None => (key, false),
        };
        merge_key(original, name, change, deletes, ty, mode)?;
    }
    Ok(())
}

fn merge_key(
    original: &mut Map<String, Value>,
    key: String,
    mut change: Value,
    deletes: bool,
    ty: Option<&Type>,
    mode: Mode,
) -> Result<(), PatchError> {
    if change.is_null() {
        original.remove(&key);
        if mode == Mode::Combine {
            original.insert(key, Value::Null);
        }
        return Ok(());
    }
    let (sub, strategy) = lookup(ty, &key);
    match (original.get_mut(&key), change) {
        (Some(Value::Object(current)), Value::Object(change)) => {
            if strategy.replace {
                *current = change;
                return Ok(());
            }
            merge_map(current, change, sub, mode)
        }
        (Some(Value::Array(current)), Value::Array(change)) => {
            if strategy.merge || deletes {
                let merged = merge_list(std::mem::take(current), change, sub, strategy.key, mode, deletes)?;
                *current = merged;
            } else {
                *current = change;
            }
            Ok(())
        }
        // New, or of another JSON type: the patch's value stands, without what only concerns merging.
        (_, _) if deletes => Ok(()),
        (_, other) => {
            change = other;
            if mode == Mode::Apply {
                discard_nulls(&mut change);
            }
            match strip(change) {
                Some(value) => original.insert(key, value),
                None => original.remove(&key),
            };
            Ok(())
        }
    }
}

/// Handles `$setElementOrder/…`: merges the list that it belongs to and orders the result.
fn element_orders(
    original: &mut Map<String, Value>,
    patch: &mut Map<String, Value>,
    ty: Option<&Type>,
    mode: Mode,
) -> Result<(), PatchError> {
    let keys: Vec<String> = patch.keys().filter(|k| k.starts_with(ORDER_PREFIX)).cloned().collect();
    for key in keys {
        let Some(order) = patch.remove(&key) else { continue };
        let name = key.strip_prefix(ORDER_PREFIX).unwrap_or_default();
        if mode == Mode::Combine {
            original.insert(key.clone(), order.clone());
        }
        let Value::Array(order) = order else {
            return malformed("invalid patch format of setElementOrder list");
        };
        let (sub, strategy) = lookup(ty, name);
        let current = list(original.get(name))?;
        let change = list(patch.get(name))?;
        order::check(change.as_deref().unwrap_or_default(), &order, strategy.key)?;
        let server_order = current.clone().unwrap_or_default();
        let merged = match (current, change) {
            (None, None) => continue,
            (Some(current), None) => current,
            (None, Some(change)) => change.into_iter().filter_map(strip).collect(),
            (Some(current), Some(change)) if strategy.merge => {
                merge_list(current, change, sub, strategy.key, mode, false)?
            }
            (Some(_), Some(change)) => change,
        };
        let ordered = order::normalize(merged, &order, &server_order, strategy.key)?;
        original.insert(name.to_owned(), Value::Array(ordered));
        patch.remove(name);
    }
    Ok(())
}

fn list(value: Option<&Value>) -> Result<Option<Vec<Value>>, PatchError> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Array(items)) => Ok(Some(items.clone())),
        Some(_) => malformed("expected a list, but received another type"),
    }
}

fn merge_list(
    original: Vec<Value>,
    patch: Vec<Value>,
    ty: Option<&Type>,
    key: &str,
    mode: Mode,
    deletes: bool,
) -> Result<Vec<Value>, PatchError> {
    let objects = original.iter().chain(&patch).any(Value::is_object);
    if !objects {
        if deletes {
            return Ok(original.into_iter().filter(|v| !patch.contains(v)).collect());
        }
        let mut merged: Vec<Value> = Vec::new();
        for item in original.iter().chain(&patch) {
            if !merged.contains(item) {
                merged.push(item.clone());
            }
        }
        return order::normalize(merged, &patch, &original, "");
    }
    if key.is_empty() {
        return malformed("cannot merge lists without merge key");
    }
    let (mut merged, patch) = special_items(original, patch, key)?;
    let server_order = merged.clone();
    let patch_order = patch.clone();
    for item in patch {
        let Some(id) = item.get(key).cloned() else { return no_merge_key(&item, key) };
        match merged.iter_mut().find(|v| v.get(key) == Some(&id)) {
            Some(Value::Object(current)) => {
                if let Value::Object(change) = item {
                    merge_map(current, change, item_type(ty), mode)?;
                }
            }
            _ if mode == Mode::Apply => merged.extend(strip(item)),
            _ => merged.push(item),
        }
    }
    order::normalize(merged, &patch_order, &server_order, key)
}

/// Carries out the items that are directives; returns what is left of both lists.
fn special_items(
    mut original: Vec<Value>,
    patch: Vec<Value>,
    key: &str,
) -> Result<(Vec<Value>, Vec<Value>), PatchError> {
    let mut plain = Vec::with_capacity(patch.len());
    let mut replace = false;
    for item in patch {
        if !item.is_object() {
            return malformed("list element types are not identical");
        }
        match item.get(PATCH).map(|d| d.as_str().unwrap_or_default()) {
            None => plain.push(item),
            Some("delete") => match item.get(key) {
                Some(id) => original.retain(|v| v.get(key) != Some(id)),
                None => return no_merge_key(&item, key),
            },
            Some("replace") => replace = true,
            Some("merge") => return malformed("merging lists cannot yet be specified in the patch"),
            Some(other) => return malformed(format!("unknown patch type: {other} in map: {item}")),
        }
    }
    Ok(if replace { (plain, Vec::new()) } else { (original, plain) })
}
