//! The strategic difference of two maps or lists.

use crate::patch::{PatchError, lookup};
use keelson_schema::{Patch, Type};
use serde_json::{Map, Value, json};

const RETAIN_KEYS: &str = "$retainKeys";

/// Which half of the difference is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Everything,
    /// Changes and additions.
    Additions,
    Deletions,
}

impl Wanted {
    fn additions(self) -> bool {
        self != Wanted::Deletions
    }

    fn deletions(self) -> bool {
        self != Wanted::Additions
    }
}

type Object = Map<String, Value>;

pub(super) fn diff_maps(
    original: &Object,
    modified: &Object,
    ty: Option<&Type>,
    wanted: Wanted,
    retain_keys: bool,
) -> Result<Object, PatchError> {
    let mut patch = Object::new();
    for (key, new) in modified {
        match (original.get(key), new) {
            (Some(Value::Object(old)), Value::Object(new)) => {
                diff_map_field(key, old, new, ty, wanted, &mut patch)?
            }
            (Some(Value::Array(old)), Value::Array(new)) => {
                diff_list_field(key, old, new, ty, wanted, &mut patch)?
            }
            (Some(old), new) if old == new => {}
            _ if wanted.additions() => {
                patch.insert(key.clone(), new.clone());
            }
            _ => {}
        }
    }
    if wanted.deletions() {
        for key in original.keys().filter(|k| !modified.contains_key(*k)) {
            patch.insert(key.clone(), Value::Null);
        }
    }
    let grew = original.keys().any(|k| !modified.contains_key(k));
    if retain_keys && (!patch.is_empty() || grew) {
        let keys: Vec<&String> = modified.iter().filter(|(_, v)| !v.is_null()).map(|(k, _)| k).collect();
        if !keys.is_empty() {
            patch.insert(RETAIN_KEYS.to_owned(), json!(keys));
        }
    }
    Ok(patch)
}

fn diff_map_field(
    key: &str,
    old: &Object,
    new: &Object,
    ty: Option<&Type>,
    wanted: Wanted,
    patch: &mut Object,
) -> Result<(), PatchError> {
    let (sub, strategy) = lookup(ty, key);
    if strategy.replace {
        if wanted.additions() {
            patch.insert(key.to_owned(), Value::Object(new.clone()));
        }
        return Ok(());
    }
    let inner = diff_maps(old, new, sub, wanted, strategy.retain_keys)?;
    if !inner.is_empty() {
        patch.insert(key.to_owned(), Value::Object(inner));
    }
    Ok(())
}

fn diff_list_field(
    key: &str,
    old: &[Value],
    new: &[Value],
    ty: Option<&Type>,
    wanted: Wanted,
    patch: &mut Object,
) -> Result<(), PatchError> {
    let (sub, strategy) = lookup(ty, key);
    if !strategy.merge {
        if wanted.additions() && old != new {
            patch.insert(key.to_owned(), Value::Array(new.to_vec()));
        }
        return Ok(());
    }
    let lists = if old.is_empty() {
        Lists { add: if wanted.additions() { new.to_vec() } else { Vec::new() }, ..Lists::default() }
    } else if old.iter().chain(new).any(Value::is_object) {
        diff_objects(old, new, sub, strategy, wanted)?
    } else {
        diff_scalars(old, new, wanted)
    };
    for (name, list) in [
        (key.to_owned(), lists.add),
        (format!("$deleteFromPrimitiveList/{key}"), lists.delete),
        (format!("$setElementOrder/{key}"), lists.order),
    ] {
        if !list.is_empty() {
            patch.insert(name, Value::Array(list));
        }
    }
    Ok(())
}

#[derive(Default)]
struct Lists {
    add: Vec<Value>,
    delete: Vec<Value>,
    order: Vec<Value>,
}

fn diff_objects(
    old: &[Value],
    new: &[Value],
    ty: Option<&Type>,
    strategy: Patch,
    wanted: Wanted,
) -> Result<Lists, PatchError> {
    let key = strategy.key;
    for item in old.iter().chain(new) {
        if item.get(key).is_none() {
            let message = format!("map: {item} does not contain declared merge key: {key}");
            return Err(PatchError::Malformed(message));
        }
    }
    let item_type = ty.and_then(Type::as_list).map(|l| &*l.item);
    let mut add = Vec::new();
    for item in new {
        let before = old.iter().find(|o| o.get(key) == item.get(key));
        match (before, item) {
            (Some(Value::Object(before)), Value::Object(after)) => {
                let mut change = diff_maps(before, after, item_type, wanted, strategy.retain_keys)?;
                if !change.is_empty() {
                    change.insert(key.to_owned(), item[key].clone());
                    add.push(Value::Object(change));
                }
            }
            _ if wanted.additions() => add.push(item.clone()),
            _ => {}
        }
    }
    if wanted.deletions() {
        let gone = old.iter().filter(|o| !new.iter().any(|n| n.get(key) == o.get(key)));
        add.extend(gone.map(|o| json!({"$patch": "delete", key: o[key]})));
    }
    let same_order = old.len() == new.len() && old.iter().zip(new).all(|(o, n)| o.get(key) == n.get(key));
    let reordered = wanted.additions() && !same_order;
    let order = if !add.is_empty() || reordered {
        new.iter().map(|n| json!({key: n[key]})).collect()
    } else {
        Vec::new()
    };
    Ok(Lists { add, delete: Vec::new(), order })
}

fn diff_scalars(old: &[Value], new: &[Value], wanted: Wanted) -> Lists {
    let missing = |from: &[Value], of: &[Value]| -> Vec<Value> {
        from.iter().filter(|v| !of.contains(v)).cloned().collect()
    };
    let add = if wanted.additions() { missing(new, old) } else { Vec::new() };
    let delete = if wanted.deletions() { missing(old, new) } else { Vec::new() };
    let changed = !delete.is_empty() || (wanted.additions() && old != new);
    Lists { add, delete, order: if changed { new.to_vec() } else { Vec::new() } }
}
