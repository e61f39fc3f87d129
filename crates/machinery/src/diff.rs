//! Patches made from objects: what `apply` sends to turn what is there into what is wanted.

mod strategic;

use crate::patch::{Mode, PatchError, merge_map, merge_patch};
use keelson_schema::Type;
use serde_json::{Map, Value};
use strategic::{Wanted, diff_maps};

/// The strategic merge patch from `original` to `modified`.
pub fn two_way_strategic(ty: &Type, original: &Value, modified: &Value) -> Result<Value, PatchError> {
    let patch = diff_maps(&object(original), &object(modified), Some(ty), Wanted::Everything, false)?;
    Ok(Value::Object(patch))
}

/// The strategic merge patch that brings `current` to `modified`, deleting what `original` (the last applied
/// state) had and `modified` no longer has.
pub fn three_way_strategic(
    ty: &Type,
    original: &Value,
    modified: &Value,
    current: &Value,
) -> Result<Value, PatchError> {
    let (original, modified, current) = (object(original), object(modified), object(current));
    let delta = diff_maps(&current, &modified, Some(ty), Wanted::Additions, false)?;
    let mut patch = diff_maps(&original, &modified, Some(ty), Wanted::Deletions, false)?;
    merge_map(&mut patch, delta, Some(ty), Mode::Combine)?;
    Ok(Value::Object(patch))
}

/// The JSON merge patch from `original` to `modified`.
pub fn two_way_merge(original: &Value, modified: &Value) -> Value {
    let (Value::Object(from), Value::Object(to)) = (original, modified) else { return modified.clone() };
    let mut patch = Map::new();
    for (key, new) in to {
        match from.get(key) {
            Some(old) if old == new => {}
            Some(old @ Value::Object(_)) if new.is_object() => {
                patch.insert(key.clone(), two_way_merge(old, new));
            }
            _ => {
                patch.insert(key.clone(), new.clone());
            }
        }
    }
    for key in from.keys().filter(|k| !to.contains_key(*k)) {
        patch.insert(key.clone(), Value::Null);
    }
    Value::Object(patch)
}

/// Like [`three_way_strategic`], as a JSON merge patch: for kinds without a built-in schema.
pub fn three_way_merge(original: &Value, modified: &Value, current: &Value) -> Value {
    let changes = keep_nulls(two_way_merge(current, modified), false).unwrap_or_default();
    let deletions = keep_nulls(two_way_merge(original, modified), true).unwrap_or_default();
    let (Value::Object(_), Value::Object(_)) = (&changes, &deletions) else {
        return if changes.is_object() { changes } else { object(&deletions).into() };
    };
    combine(deletions, changes)
}

/// Only the deletions of a merge patch, or all but them; None when nothing is left.
fn keep_nulls(patch: Value, keep: bool) -> Option<Value> {
    match patch {
        Value::Null => keep.then_some(Value::Null),
        Value::Object(map) => {
            let empty = map.is_empty();
            let kept: Map<String, Value> =
                map.into_iter().filter_map(|(k, v)| Some((k, keep_nulls(v, keep)?))).collect();
            (!kept.is_empty() || (empty && !keep)).then_some(Value::Object(kept))
        }
        other => (!keep).then_some(other),
    }
}

/// One merge patch that does what both do, `over` winning.
fn combine(mut base: Value, over: Value) -> Value {
    match (&mut base, over) {
        (Value::Object(map), Value::Object(changes)) => {
            for (key, change) in changes {
                let value = match map.remove(&key) {
                    Some(old) => combine(old, change),
                    None => change,
                };
                map.insert(key, value);
            }
            base
        }
        (_, over) => over,
    }
}

/// Whether a patch would leave the object as it is.
pub fn changes_nothing(object: &Value, patch: &Value) -> bool {
    merge_patch(object, patch) == *object
}

fn object(value: &Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap_or_default()
}
