//! The order of merged lists: the patch's relative order for its items, the server's for the others.

use super::PatchError;
use super::directives::{PATCH, malformed, no_merge_key};
use serde_json::Value;

/// What identifies an item: its merge key's value, or itself where items are scalars.
pub(crate) fn identity<'a>(item: &'a Value, key: &str) -> &'a Value {
    if key.is_empty() { item } else { item.get(key).unwrap_or(&Value::Null) }
}

fn position(list: &[Value], item: &Value, key: &str) -> Option<usize> {
    list.iter().position(|v| identity(v, key) == identity(item, key))
}

/// Orders `merged` by the patch's order and the server's order.
pub(super) fn normalize(
    merged: Vec<Value>,
    patch_order: &[Value],
    server_order: &[Value],
    key: &str,
) -> Result<Vec<Value>, PatchError> {
    if !key.is_empty() {
        for item in merged.iter().chain(patch_order) {
            if item.get(key).is_none() {
                return no_merge_key(item, key);
            }
        }
    }
    let (patched, server): (Vec<Value>, Vec<Value>) =
        merged.into_iter().partition(|v| position(patch_order, v, key).is_some());
    let patched = sort(patched, patch_order, key);
    let server = sort(server, server_order, key);
    Ok(interleave(server, patched, server_order, key))
}

/// Stable order of `items` as in `order`; an item that `order` lacks moves to the front, and delete directives
/// to the end.
pub(crate) fn sort(items: Vec<Value>, order: &[Value], key: &str) -> Vec<Value> {
    let is_delete = |v: &Value| !key.is_empty() && v.get(PATCH).and_then(Value::as_str) == Some("delete");
    let (deletions, mut kept): (Vec<Value>, Vec<Value>) = items.into_iter().partition(is_delete);
    let at: Vec<Option<usize>> = kept.iter().map(|v| position(order, v, key)).collect();
    let mut indices: Vec<usize> = (0..kept.len()).collect();
    // Insertion sort with upstream's comparison, which is no strict order: its result must be the same.
    for i in 1..indices.len() {
        let mut j = i;
        while j > 0 {
            let before = match (at[indices[j]], at[indices[j - 1]]) {
                (Some(a), Some(b)) => a < b,
                _ => true,
            };
            if !before {
                break;
            }
            indices.swap(j, j - 1);
            j -= 1;
        }
    }
    let mut sorted: Vec<Value> = indices.into_iter().map(|i| kept[i].take()).collect();
    sorted.extend(deletions);
    sorted
}

/// Merges two ordered lists by the server's order where it knows both heads; else the patch's item is first.
fn interleave(server: Vec<Value>, patched: Vec<Value>, server_order: &[Value], key: &str) -> Vec<Value> {
    let mut out = Vec::with_capacity(server.len() + patched.len());
    let (mut left, mut right) = (server.into_iter().peekable(), patched.into_iter().peekable());
    loop {
        let take_left = match (left.peek(), right.peek()) {
            (None, None) => return out,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some(l), Some(r)) => match (position(server_order, l, key), position(server_order, r, key)) {
                (Some(l), Some(r)) => l < r,
                _ => false,
            },
        };
        out.extend(if take_left { left.next() } else { right.next() });
    }
}

/// Refuses a patch whose list is not in the order that its `$setElementOrder` names.
pub(super) fn check(patch: &[Value], order: &[Value], key: &str) -> Result<(), PatchError> {
    if order.is_empty() || patch.is_empty() {
        return Ok(());
    }
    let mut wanted = order.iter();
    for item in patch.iter().filter(|v| v.get(PATCH).is_none()) {
        if !key.is_empty() && item.get(key).is_none() {
            return no_merge_key(item, key);
        }
        if !wanted.any(|w| identity(w, key) == identity(item, key)) {
            let (list, directive) = (Value::from(patch.to_vec()), "$setElementOrder");
            let order = Value::from(order.to_vec());
            return malformed(format!(
                "The order in patch list:\n{list}\n doesn't match {directive} list:\n{order}\n"
            ));
        }
    }
    Ok(())
}
