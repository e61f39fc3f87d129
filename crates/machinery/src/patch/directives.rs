//! The directives inside strategic merge patches.

use super::PatchError;
use serde_json::{Map, Value};

pub(crate) const PATCH: &str = "$patch";
pub(crate) const RETAIN_KEYS: &str = "$retainKeys";
pub(crate) const DELETE_PREFIX: &str = "$deleteFromPrimitiveList/";
pub(crate) const ORDER_PREFIX: &str = "$setElementOrder/";

/// Applies `$retainKeys`: keys of the original that it does not name go.
pub(super) fn retain_keys(
    original: &mut Map<String, Value>,
    patch: &mut Map<String, Value>,
    keep_directive: bool,
) -> Result<(), PatchError> {
    let Some(keys) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    if keep_directive {
        original.insert(RETAIN_KEYS.to_owned(), keys);
        return Ok(());
    }
    let Value::Array(keys) = keys else { return malformed("invalid patch format of retainKeys") };
    let named = |k: &str| keys.iter().any(|v| v.as_str() == Some(k));
    for (key, value) in patch.iter() {
        let directive = key.starts_with(DELETE_PREFIX) || key.starts_with(ORDER_PREFIX);
        if !directive && !value.is_null() && !named(key) {
            return malformed("invalid patch format of retainKeys");
        }
    }
    original.retain(|k, _| named(k));
    Ok(())
}

/// Takes directives out of a value that is new to the object; None when the value is only a directive.
pub(super) fn strip(value: Value) -> Option<Value> {
    match value {
        Value::Object(map) if map.contains_key(PATCH) => None,
        Value::Object(map) => {
            Some(Value::Object(map.into_iter().filter_map(|(k, v)| Some((k, strip(v)?))).collect()))
        }
        Value::Array(items) => Some(Value::Array(items.into_iter().filter_map(strip).collect())),
        other => Some(other),
    }
}

/// Nulls in a value that is new to the object delete nothing.
pub(super) fn discard_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, v| !v.is_null());
            map.values_mut().for_each(discard_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(discard_nulls),
        _ => {}
    }
}

pub(super) fn malformed<T>(message: impl Into<String>) -> Result<T, PatchError> {
    Err(PatchError::Malformed(message.into()))
}

pub(super) fn no_merge_key<T>(item: &Value, key: &str) -> Result<T, PatchError> {
    malformed(format!("map: {item} does not contain declared merge key: {key}"))
}
