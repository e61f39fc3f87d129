//! Merging an applied object into the live one.

use super::atom::{Atom, Ref, identity};
use super::fields::PathElement;
use keelson_schema::List;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// `live` with everything that `applied` sets.
pub(super) fn merge(at: Ref<'_>, live: &Value, applied: &Value) -> Value {
    match (at.atom(live), at.atom(applied)) {
        (Atom::Map(l), Atom::Map(r)) if !(l.is_empty() && r.is_empty()) => {
            let mut out = Map::new();
            for (key, l) in l {
                let merged = r.get(key).map_or_else(|| l.clone(), |r| merge(at.key(key).0, l, r));
                out.insert(key.clone(), merged);
            }
            for (key, r) in r.iter().filter(|(k, _)| !l.contains_key(*k)) {
                out.insert(key.clone(), r.clone());
            }
            Value::Object(out)
        }
        (Atom::List(list, l), Atom::List(_, r)) if !(l.is_empty() && r.is_empty()) => {
            Value::Array(merge_items(list, l, r))
        }
        // Null applied to a container that has something in it takes nothing away.
        (Atom::Map(l), _) if applied.is_null() && !l.is_empty() => live.clone(),
        (Atom::List(_, l), _) if applied.is_null() && !l.is_empty() => live.clone(),
        _ => applied.clone(),
    }
}

/// Live items keep their place relative to one another, applied items theirs; shared ones tie both orders.
fn merge_items(list: &List, live: &[Value], applied: &[Value]) -> Vec<Value> {
    let ids = |items: &[Value]| -> Vec<PathElement> {
        items.iter().filter_map(|item| identity(list, item).ok()).collect()
    };
    let (left, right) = (ids(live), ids(applied));
    if left.len() != live.len() || right.len() != applied.len() {
        return applied.to_vec();
    }
    let index = |ids: &[PathElement]| -> BTreeMap<PathElement, usize> {
        ids.iter().enumerate().rev().map(|(i, id)| (id.clone(), i)).collect()
    };
    let (in_left, in_right) = (index(&left), index(&right));
    let mut shared = right.iter().filter(|id| in_left.contains_key(*id));
    let mut next_shared = shared.next();
    let mut done: Vec<bool> = vec![false; right.len()];
    let mut out = Vec::with_capacity(left.len().max(right.len()));
    let both = |l: Option<&usize>, r: &Value| match l {
        Some(l) => merge(Ref::item(list), &live[*l], r),
        None => r.clone(),
    };
    let (mut l, mut r) = (0, 0);
    while l < left.len() || r < right.len() {
        if l < left.len() && r < right.len() {
            if left[l] == right[r] {
                done[r] = true;
                out.push(both(in_left.get(&left[l]), &applied[r]));
                l += 1;
                r += 1;
                next_shared = shared.next();
                continue;
            }
            if in_right.contains_key(&left[l]) && next_shared.is_some_and(|s| *s != left[l]) {
                l += 1;
                continue;
            }
        }
        if l < left.len() {
            match in_right.get(&left[l]) {
                None => {
                    out.push(live[l].clone());
                    l += 1;
                    continue;
                }
                Some(at) if done[*at] => l += 1,
                Some(_) => {}
            }
        }
        if r < right.len() {
            done[r] = true;
            out.push(both(in_left.get(&right[r]), &applied[r]));
            if next_shared == Some(&right[r]) {
                next_shared = shared.next();
            }
            r += 1;
        }
    }
    out
}
