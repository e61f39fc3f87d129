//! Who owns a new object, straight into the text of `managedFields`: creating is the most frequent write, and sets of
//! paths and their encoded tree would cost more than the rest of it.

use super::atom::{Atom, Ref, identity};
use super::fields::{FieldSet, Node, PathElement};
use super::{Manager, STRIPPED, zero};
use crate::encode::write_value;
use keelson_schema::{List, Type};
use serde_json::Value;

/// The JSON that [`super::track_update`] would set as `metadata.managedFields` of a new object that brings none; empty
/// if nobody owns anything.
pub fn owner_of_new(ty: &Type, new: &Value, manager: &Manager) -> Vec<u8> {
    let resets = manager.resets();
    let mut out = Vec::with_capacity(1024);
    out.extend_from_slice(br#"[{"apiVersion":"#);
    write_value(&mut out, manager.api_version);
    out.extend_from_slice(br#","fieldsType":"FieldsV1","fieldsV1":{"#);
    let empty = out.len();
    let root = Walk { at: Ref::new(ty), stripped: Some(&STRIPPED), resets: Some(&resets) };
    root.below(&mut out, Some(&zero(ty)), new);
    if out.len() == empty {
        return Vec::new();
    }
    out.extend_from_slice(br#"},"manager":"#);
    write_value(&mut out, if manager.name.is_empty() { "unknown" } else { manager.name });
    out.extend_from_slice(br#","operation":"Update""#);
    if !manager.subresource.is_empty() {
        out.extend_from_slice(br#","subresource":"#);
        write_value(&mut out, manager.subresource);
    }
    out.extend_from_slice(br#","time":"#);
    write_value(&mut out, manager.now);
    out.extend_from_slice(b"}]");
    out
}

/// A place in the object, and in the sets of what nobody owns and of what this write does not change.
#[derive(Clone, Copy)]
struct Walk<'a> {
    at: Ref<'a>,
    stripped: Option<&'a FieldSet>,
    resets: Option<&'a FieldSet>,
}

impl<'a> Walk<'a> {
    /// Writes what is set below, given what was there, each with a comma before it but the first.
    fn below(self, out: &mut Vec<u8>, old: Option<&Value>, new: &Value) {
        // Null counts as a container that is not there.
        let old = old.filter(|old| !old.is_null());
        match (old.map(|old| self.at.atom(old)), self.at.atom(new)) {
            (Some(Atom::Map(old)), Atom::Map(new)) => {
                new.iter().for_each(|(key, new)| self.field(out, key, old.get(key), new));
            }
            (None, Atom::Map(new)) => new.iter().for_each(|(key, new)| self.field(out, key, None, new)),
            // A new object's lists were empty, if they were there.
            (None | Some(Atom::List(..)), Atom::List(list, items)) => self.items(out, list, items),
            _ => {}
        }
    }

    fn field(self, out: &mut Vec<u8>, name: &str, old: Option<&Value>, new: &Value) {
        let at = self.at.key(name).0;
        let member = match old {
            None => true,
            Some(old) if old == new => return,
            Some(old) => at.is_modified(old, new),
        };
        let (stripped, resets) = match (self.stripped, self.resets) {
            (None, None) => (None, None),
            (stripped, resets) => {
                let element = PathElement::Field(name.to_owned());
                let node = |set: Option<&'a FieldSet>| set.and_then(|set| set.get(&element));
                (node(stripped), node(resets))
            }
        };
        if resets.is_some_and(|node| node.member) {
            return;
        }
        let below = |node: Option<&'a Node>| node.map(|node| &node.below).filter(|set| !set.is_empty());
        let walk = Walk { at, stripped: below(stripped), resets: below(resets) };
        let key = |out: &mut Vec<u8>| match name.bytes().any(|b| b < b' ' || b == b'"' || b == b'\\') {
            true => write_value(out, &["f:", name].concat()),
            false => [b"\"f:", name.as_bytes(), b"\""].iter().for_each(|part| out.extend_from_slice(part)),
        };
        let member = member && !stripped.is_some_and(|node| node.member);
        node(out, key, member, |out| walk.below(out, old, new));
    }

    /// Items by their encoded identity. Those that occur several times have none of their own, and nothing below.
    fn items(self, out: &mut Vec<u8>, list: &List, items: &[Value]) {
        let known = items.iter().filter_map(|item| Some((identity(list, item).ok()?, item)));
        let mut known: Vec<_> = known.collect();
        known.sort_by(|a, b| a.0.cmp(&b.0));
        let mut distinct: Vec<_> = (known.chunk_by(|a, b| a.0 == b.0))
            .filter_map(|same| same.first().map(|(element, item)| (element.serialize(), item, same.len())))
            .collect();
        distinct.sort_by(|a, b| a.0.cmp(&b.0));
        for (key, item, times) in distinct {
            let walk = Walk { at: Ref::item(list), stripped: None, resets: None };
            let below = |out: &mut Vec<u8>| {
                if times == 1 {
                    walk.below(out, None, item);
                }
            };
            node(out, |out| write_value(out, &key), true, below);
        }
    }
}

/// Writes what is owned at a place and below it, if anything is.
fn node(out: &mut Vec<u8>, key: impl FnOnce(&mut Vec<u8>), member: bool, below: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    if out.last() != Some(&b'{') {
        out.push(b',');
    }
    key(out);
    out.extend_from_slice(b":{");
    let empty = out.len();
    if member {
        out.extend_from_slice(br#"".":{}"#);
    }
    let bare = out.len();
    below(out);
    match (member, out.len() == bare) {
        (false, true) => return out.truncate(start),
        (true, true) => out.truncate(empty),
        _ => {}
    }
    out.push(b'}');
}
