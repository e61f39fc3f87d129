//! Changing objects in place: what defaulting and preparation need, no-ops on values of the wrong type.

use serde_json::{Map, Value};

/// The member as a map, made if absent or null; `None` if the parent or the member is something else.
pub fn map<'a>(value: &'a mut Value, name: &str) -> Option<&'a mut Map<String, Value>> {
    let parent = value.as_object_mut()?;
    if !matches!(parent.get(name), Some(v) if !v.is_null()) {
        parent.insert(name.to_owned(), Value::Object(Map::new()));
    }
    parent.get_mut(name)?.as_object_mut()
}

/// Like [`map`], but the value itself.
pub fn ensure<'a>(value: &'a mut Value, name: &str) -> Option<&'a mut Value> {
    map(value, name)?;
    value.get_mut(name)
}

/// The member if it is there and not null.
pub fn some<'a>(value: &'a mut Value, name: &str) -> Option<&'a mut Value> {
    value.get_mut(name).filter(|v| !v.is_null())
}

/// Follows members that exist.
pub fn dig<'a>(value: &'a mut Value, names: &[&str]) -> Option<&'a mut Value> {
    names.iter().try_fold(value, |value, name| some(value, name))
}

/// The elements of a member that is a list.
pub fn each<'a>(value: &'a mut Value, name: &str) -> impl Iterator<Item = &'a mut Value> {
    value.get_mut(name).and_then(Value::as_array_mut).into_iter().flatten()
}

pub fn set(value: &mut Value, name: &str, new: impl Into<Value>) {
    if let Some(map) = value.as_object_mut() {
        map.insert(name.to_owned(), new.into());
    }
}

pub fn unset(value: &mut Value, name: &str) -> Option<Value> {
    value.as_object_mut()?.remove(name)
}

/// Sets a member that is absent or null: the default of a pointer field.
pub fn default(value: &mut Value, name: &str, new: impl Into<Value>) {
    if value.get(name).is_none_or(Value::is_null) {
        set(value, name, new);
    }
}

/// Sets a member that is absent or the zero value: the default of a plain field.
pub fn default_zero(value: &mut Value, name: &str, new: impl Into<Value>) {
    if value.get(name).is_none_or(is_zero) {
        set(value, name, new);
    }
}

/// What a decoded struct cannot tell from an absent plain field.
pub fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(b) => !b,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::String(s) => s.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

/// Takes members away that hold the zero value, as encoding a struct with `omitempty` would.
pub fn omit_zero(value: &mut Value, names: &[&str]) {
    if let Some(map) = value.as_object_mut() {
        for name in names {
            if map.get(*name).is_some_and(is_zero) {
                map.remove(*name);
            }
        }
    }
}

/// Copies a nested member from `old`, absence included.
pub fn carry(value: &mut Value, old: &Value, names: &[&str]) {
    let Some((last, parents)) = names.split_last() else { return };
    let source = parents.iter().try_fold(old, |v, name| v.get(*name)).and_then(|v| v.get(*last));
    match source {
        Some(found) => {
            let mut target = value;
            for name in parents {
                let Some(next) = ensure(target, name) else { return };
                target = next;
            }
            set(target, last, found.clone());
        }
        None => {
            if let Some(parent) = dig(value, parents) {
                unset(parent, last);
            }
        }
    }
}

/// Whether two values mean the same: absent, null, `""`, `{}` and `[]` are one.
pub fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(x), Value::Object(y)) => {
            x.iter().all(|(k, v)| same(v, y.get(k).unwrap_or(&Value::Null)))
                && y.iter().all(|(k, v)| x.contains_key(k) || is_nothing(v))
        }
        (Value::Array(x), Value::Array(y)) => x.len() == y.len() && x.iter().zip(y).all(|(a, b)| same(a, b)),
        (Value::Number(x), Value::Number(y)) => x == y || x.as_f64() == y.as_f64(),
        _ => a == b || (is_nothing(a) && is_nothing(b)),
    }
}

/// Whether a value is one of the spellings of "not there", all the way down.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(s) => s.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.values().all(is_nothing),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn empty_spellings_are_the_same() {
        assert!(same(&json!({"a": 1}), &json!({"a": 1, "b": {}, "c": [], "d": null, "e": ""})));
        assert!(!same(&json!({"a": 1}), &json!({"a": 1, "b": false})));
        assert!(!same(&json!({"a": [1]}), &json!({"a": [1, 2]})));
    }

    #[test]
    fn carry_copies_and_removes() {
        let mut value = json!({"spec": {"x": 1}});
        carry(&mut value, &json!({"spec": {"x": 2}}), &["spec", "x"]);
        assert_eq!(value, json!({"spec": {"x": 2}}));
        carry(&mut value, &json!({}), &["spec", "x"]);
        assert_eq!(value, json!({"spec": {}}));
    }
}
