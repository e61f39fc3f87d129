//! What changed between two objects, as sets of paths.

use super::Manager;
use super::atom::{Atom, Ref, identity};
use super::fields::{FieldSet, PathElement};
use super::managers::Managers;
use keelson_api_types::StatusError;
use keelson_schema::{List, Type};
use serde_json::Value;
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub(super) struct Comparison {
    pub(super) removed: FieldSet,
    pub(super) modified: FieldSet,
    pub(super) added: FieldSet,
}

/// Which sets the path itself is in.
#[derive(Default)]
struct Here {
    removed: bool,
    modified: bool,
    added: bool,
}

impl Comparison {
    pub(super) fn is_same(&self) -> bool {
        self.removed.is_empty() && self.modified.is_empty() && self.added.is_empty()
    }

    /// Without these fields and all below them, and without the entries that say who owns what.
    pub(super) fn without(self, fields: &FieldSet) -> Comparison {
        let without = |set: FieldSet| {
            let mut set = set.recursive_difference(fields);
            set.remove_names(&["metadata", "managedFields"]);
            set
        };
        Comparison {
            removed: without(self.removed),
            modified: without(self.modified),
            added: without(self.added),
        }
    }

    fn attach(&mut self, element: PathElement, here: Here, below: Comparison) {
        if here.removed || !below.removed.is_empty() {
            self.removed.attach(element.clone(), here.removed, below.removed);
        }
        if here.modified || !below.modified.is_empty() {
            self.modified.attach(element.clone(), here.modified, below.modified);
        }
        if here.added || !below.added.is_empty() {
            self.added.attach(element, here.added, below.added);
        }
    }
}

/// What changed, in each version in which somebody owns something.
pub(super) struct Changes<'a> {
    own: &'a Comparison,
    /// Without one: the version is no more, and nobody owns anything in it.
    others: BTreeMap<String, Option<Comparison>>,
}

impl<'a> Changes<'a> {
    /// `own` is the comparison in the manager's version.
    pub(super) fn new(
        ty: &Type,
        old: &Value,
        new: &Value,
        manager: &Manager<'_>,
        managers: &Managers,
        own: &'a Comparison,
    ) -> Result<Self, StatusError> {
        let mut others = BTreeMap::new();
        if manager.versions.is_some() {
            for version in managers.versions().filter(|version| *version != manager.api_version) {
                if others.contains_key(version) {
                    continue;
                }
                let views = (manager.view(ty, old, version)?, manager.view(ty, new, version)?);
                let compared = match views {
                    (Some((old, there)), Some((new, _))) => {
                        Some(compare(Ref::new(there), &old, &new).without(&manager.resets()))
                    }
                    _ => None,
                };
                others.insert(version.to_owned(), compared);
            }
        }
        Ok(Self { own, others })
    }

    pub(super) fn of(&self, version: &str) -> Option<&Comparison> {
        self.others.get(version).map_or(Some(self.own), Option::as_ref)
    }
}

pub(super) fn compare(root: Ref<'_>, old: &Value, new: &Value) -> Comparison {
    walk(root, Some(old), Some(new)).1
}

fn walk(at: Ref<'_>, old: Option<&Value>, new: Option<&Value>) -> (Here, Comparison) {
    let mut out = Comparison::default();
    let mut here = Here { removed: new.is_none(), modified: false, added: old.is_none() };
    if old == new {
        return (Here::default(), out);
    }
    let atoms = (old.map(|v| at.atom(v)), new.map(|v| at.atom(v)));
    match atoms {
        (Some(Atom::Map(l)), Some(Atom::Map(r))) => {
            for (key, l) in l {
                let (h, below) = walk(at.key(key).0, Some(l), r.get(key));
                out.attach(PathElement::Field(key.clone()), h, below);
            }
            for (key, r) in r.iter().filter(|(k, _)| !l.contains_key(*k)) {
                let (h, below) = walk(at.key(key).0, None, Some(r));
                out.attach(PathElement::Field(key.clone()), h, below);
            }
        }
        (Some(Atom::Map(map)), None) | (None, Some(Atom::Map(map))) => {
            for (key, value) in map {
                let (l, r) = if old.is_some() { (Some(value), None) } else { (None, Some(value)) };
                let (h, below) = walk(at.key(key).0, l, r);
                out.attach(PathElement::Field(key.clone()), h, below);
            }
        }
        (Some(Atom::List(list, l)), Some(Atom::List(_, r))) => items(list, l, r, &mut out),
        // Null is an empty container: what is in the other one comes or goes, the container itself stays.
        (Some(Atom::Leaf), Some(Atom::Map(map))) if old.is_some_and(Value::is_null) => {
            for (key, value) in map {
                let (h, below) = walk(at.key(key).0, None, Some(value));
                out.attach(PathElement::Field(key.clone()), h, below);
            }
        }
        (Some(Atom::Leaf), Some(Atom::List(list, r))) if old.is_some_and(Value::is_null) => {
            items(list, &[], r, &mut out);
        }
        (Some(Atom::List(list, l)), None) => items(list, l, &[], &mut out),
        (None, Some(Atom::List(list, r))) => items(list, &[], r, &mut out),
        (Some(_), Some(_)) => here.modified = true,
        _ => {}
    }
    (here, out)
}

/// The items that have an identity, in its order.
fn index<'v>(list: &List, values: &'v [Value]) -> std::vec::IntoIter<(PathElement, &'v Value)> {
    let known = values.iter().filter_map(|item| Some((identity(list, item).ok()?, item)));
    let mut known: Vec<_> = known.collect();
    known.sort_by(|a, b| a.0.cmp(&b.0));
    known.into_iter()
}

fn items(list: &List, old: &[Value], new: &[Value], out: &mut Comparison) {
    let (mut old, mut new) = (index(list, old).peekable(), index(list, new).peekable());
    loop {
        let (mut l, mut r) = (Vec::new(), Vec::new());
        let first_is_old = match (old.peek(), new.peek()) {
            (None, None) => return,
            (Some((l, _)), Some((r, _))) => l <= r,
            (l, _) => l.is_some(),
        };
        let (side, values) = if first_is_old { (&mut old, &mut l) } else { (&mut new, &mut r) };
        let Some((element, value)) = side.next() else { return };
        values.push(value);
        for (side, values) in [(&mut old, &mut l), (&mut new, &mut r)] {
            values.extend(std::iter::from_fn(|| Some(side.next_if(|(e, _)| *e == element)?.1)));
        }
        pair(list, element, &l, &r, out);
    }
}

fn pair(list: &List, element: PathElement, old: &[&Value], new: &[&Value], out: &mut Comparison) {
    if old.len() <= 1 && new.len() <= 1 {
        let (here, below) = walk(Ref::item(list), old.first().copied(), new.first().copied());
        out.attach(element, here, below);
    } else if old != new {
        // Repeated items have no identity of their own: they change together.
        let here = Here { removed: new.is_empty(), modified: true, added: old.is_empty() };
        out.attach(element, here, Comparison::default());
    }
}
