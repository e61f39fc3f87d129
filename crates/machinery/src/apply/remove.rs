//! Removing what a manager applied before and applies no more.

use super::atom::{Atom, Ref, field_set, identity, with_named_parents};
use super::fields::{FieldSet, PathElement};
use super::managers::Managers;
use serde_json::{Map, Value};

/// Takes out of `merged` the fields of `last` (the manager's former set) that no manager owns now.
pub(super) fn prune(root: Ref<'_>, merged: Value, managers: &Managers, last: &FieldSet) -> Value {
    if last.is_empty() {
        return merged;
    }
    let named = |set: &FieldSet| with_named_parents(root, set);
    let last = named(last);
    let without_last = remove(root, &merged, &last);
    let everything = named(&field_set(root, &merged));
    // Put back what somebody owns, the manager's new set included.
    let kept = named(&field_set(root, &without_last)).union(named(&managers.all_fields()));
    let owned = remove(root, &merged, &everything.clone().difference(&kept));
    // Put back what the manager never owned, such as siblings of a removed field.
    let gone = everything.difference(&named(&field_set(root, &owned)));
    remove(root, &merged, &gone.intersection(&last))
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
