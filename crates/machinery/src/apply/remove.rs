//! Removing what a manager applied before and applies no more.

use super::Manager;
use super::atom::{Atom, Ref, field_set, identity, with_named_parents};
use super::fields::{FieldSet, PathElement};
use super::managers::{Entry, Managers};
use keelson_api_types::StatusError;
use keelson_schema::Type;
use serde_json::{Map, Value};

/// Takes out of `merged` the fields of the manager's former entry that no manager owns now. All that is in the
/// version of that entry; what others own is put back in theirs.
pub(super) fn prune(
    ty: &Type,
    merged: Value,
    managers: &Managers,
    manager: &Manager<'_>,
    last: &Entry,
) -> Result<Value, StatusError> {
    if last.owned.is_empty() {
        return Ok(merged);
    }
    let Some((there, last_ty)) = manager.view(ty, &merged, &last.api_version)? else { return Ok(merged) };
    let root = Ref::new(last_ty);
    let last_set = with_named_parents(root, last.owned.set());
    let mut pruned = remove(root, &there, &last_set);
    let mut versions: Vec<&str> = managers.versions().collect();
    versions.sort_by_key(|version| (*version != last.api_version, *version));
    versions.dedup();
    if manager.versions.is_none() {
        // All entries speak of one shape.
        pruned = put_back(root, &there, &pruned, &managers.fields_of(None));
    } else {
        let there_manager = Manager { api_version: &last.api_version, ..*manager };
        for version in versions {
            let view = |object| there_manager.view(last_ty, object, version);
            let (Some((whole, ty)), Some((part, _))) = (view(&there)?, view(&pruned)?) else { continue };
            let kept = put_back(Ref::new(ty), &whole, &part, &managers.fields_of(Some(version)));
            let back = Manager { api_version: version, ..*manager };
            let Some((kept, _)) = back.view(ty, &kept, &last.api_version)? else { continue };
            pruned = kept.into_owned();
        }
    }
    // Put back what the manager never owned, such as siblings of a removed field.
    let named = |value: &Value| with_named_parents(root, &field_set(root, value));
    let gone = named(&there).difference(&named(&pruned));
    let pruned = remove(root, &there, &gone.intersection(&last_set));
    let there = Manager { api_version: &last.api_version, ..*manager };
    let back = there.view(last_ty, &pruned, manager.api_version)?.map(|(object, _)| object.into_owned());
    Ok(back.unwrap_or_else(|| merged.clone()))
}

/// `pruned` with everything of `merged` that somebody owns.
fn put_back(root: Ref<'_>, merged: &Value, pruned: &Value, owned: &FieldSet) -> Value {
    let named = |set: &FieldSet| with_named_parents(root, set);
    let kept = named(&field_set(root, pruned)).union(named(owned));
    remove(root, merged, &named(&field_set(root, merged)).difference(&kept))
}

fn remove(root: Ref<'_>, value: &Value, set: &FieldSet) -> Value {
    if set.is_empty() {
        return value.clone();
    }
    walk(root, value, set).unwrap_or_else(|| Value::Object(Map::new()))
}

/// The value without the set's paths; None when nothing is left that was not emptied on purpose.
fn walk(at: Ref<'_>, value: &Value, set: &FieldSet) -> Option<Value> {
    match at.atom(value) {
        Atom::Leaf if value.is_object() || value.is_array() => None,
        Atom::Leaf => Some(value.clone()),
        Atom::Map(map) => {
            let mut out = Map::new();
            let mut touched = false;
            for (key, value) in map {
                match set.get(&PathElement::Field(key.clone())) {
                    Some(node) if node.member => {}
                    Some(node) => {
                        touched = true;
                        out.insert(key.clone(), kept(walk(at.key(key).0, value, &node.below), value));
                    }
                    None => {
                        out.insert(key.clone(), value.clone());
                    }
                }
            }
            (touched || !out.is_empty()).then_some(Value::Object(out))
        }
        Atom::List(list, items) => {
            let mut out = Vec::with_capacity(items.len());
            let mut touched = false;
            for item in items {
                match identity(list, item).ok().and_then(|id| set.get(&id)) {
                    Some(node) if node.member => {}
                    Some(node) => {
                        touched = true;
                        out.push(kept(walk(Ref::item(list), item, &node.below), item));
                    }
                    None => out.push(item.clone()),
                }
            }
            (touched || !out.is_empty()).then_some(Value::Array(out))
        }
    }
}

/// A container that lost everything inside stays, empty.
fn kept(result: Option<Value>, was: &Value) -> Value {
    result.unwrap_or_else(|| match was {
        Value::Object(_) => Value::Object(Map::new()),
        Value::Array(_) => Value::Array(Vec::new()),
        _ => Value::Null,
    })
}
