//! How a value of a type is owned: as one, key by key, or item by item.

use super::fields::{FieldSet, PathElement};
use keelson_schema::{List, ListKind, Shape, Type};
use serde_json::{Map, Value};
use std::borrow::Cow;

/// A type as a field refers to it: the field may make a granular type atomic.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ref<'a> {
    ty: &'a Type,
    atomic: bool,
}

/// What a walk does with a value.
pub(super) enum Atom<'a, 'v> {
    /// Owned as one.
    Leaf,
    Map(&'v Map<String, Value>),
    /// A list with identities.
    List(&'a List, &'v [Value]),
}

static DEDUCED: Type = Type::new(Shape::RawExtension);

impl<'a> Ref<'a> {
    pub(super) fn new(ty: &'a Type) -> Ref<'a> {
        Ref { ty, atomic: false }
    }

    pub(super) fn item(list: &'a List) -> Ref<'a> {
        Ref::new(&list.item)
    }

    pub(super) fn atom<'v>(&self, value: &'v Value) -> Atom<'a, 'v> {
        match (&self.ty.shape, value) {
            _ if self.atomic => Atom::Leaf,
            (Shape::Object(o), Value::Object(map)) if !o.atomic => Atom::Map(map),
            (Shape::Map(m), Value::Object(map)) if !m.atomic => Atom::Map(map),
            (Shape::RawExtension, Value::Object(map)) => Atom::Map(map),
            (Shape::List(list), Value::Array(items)) if list.kind != ListKind::Atomic => {
                Atom::List(list, items)
            }
            _ => Atom::Leaf,
        }
    }

    /// Whether values with something in them are owned as one.
    fn is_atomic(&self) -> bool {
        self.atomic
            || match &self.ty.shape {
                Shape::Object(o) => o.atomic,
                Shape::Map(m) => m.atomic,
                Shape::List(list) => list.kind == ListKind::Atomic,
                _ => false,
            }
    }

    /// Whether a value that took another's place is itself changed, and not only what is in it. Null is an empty container.
    pub(super) fn is_modified(&self, old: &Value, new: &Value) -> bool {
        match (self.atom(old), self.atom(new)) {
            (Atom::Map(_), Atom::Map(_)) | (Atom::List(..), Atom::List(..)) => false,
            (Atom::Leaf, Atom::Map(_) | Atom::List(..)) => !old.is_null(),
            _ => true,
        }
    }

    /// The type of a key, and whether the type declares it as a field.
    pub(super) fn key(&self, key: &str) -> (Ref<'a>, bool) {
        match &self.ty.shape {
            Shape::Object(o) => match o.field(key) {
                Some(f) => (Ref { ty: &f.ty, atomic: f.atomic }, true),
                None => (Ref::new(&DEDUCED), false),
            },
            Shape::Map(m) => (Ref::new(&m.value), false),
            _ => (Ref::new(&DEDUCED), false),
        }
    }

    pub(super) fn below(&self, element: &PathElement) -> Ref<'a> {
        match (element, &self.ty.shape) {
            (PathElement::Field(name), _) => self.key(name).0,
            (_, Shape::List(list)) => Ref::item(list),
            _ => Ref::new(&DEDUCED),
        }
    }
}

/// The paths of containers that are owned as one.
pub(super) fn atomic_parts(at: Ref<'_>, value: &Value, path: &mut String, found: &mut Vec<String>) {
    let length = path.len();
    match at.atom(value) {
        Atom::Map(map) => {
            for (key, value) in map.iter().filter(|(key, _)| at.key(key).1) {
                path.push_str(&format!(".{key}"));
                atomic_parts(at.key(key).0, value, path, found);
                path.truncate(length);
            }
        }
        Atom::List(list, items) => {
            for (i, item) in items.iter().enumerate() {
                path.push_str(&format!("[{i}]"));
                atomic_parts(Ref::item(list), item, path, found);
                path.truncate(length);
            }
        }
        Atom::Leaf => {
            let structured = matches!(at.ty.shape, Shape::Object(_) | Shape::Map(_) | Shape::List(_));
            if structured && (value.is_object() || value.is_array()) {
                found.push(path.clone());
            }
        }
    }
}

/// An item's identity in its list.
pub(super) fn identity(list: &List, item: &Value) -> Result<PathElement, String> {
    if let ListKind::Map(keys) = &list.kind {
        let Some(map) = item.as_object() else {
            let what = if item.is_null() { "a null element" } else { "non-map elements" };
            return Err(format!("associative list with keys may not have {what}"));
        };
        let mut found: Vec<(String, Value)> = Vec::with_capacity(keys.len());
        for key in keys {
            let default = || list.item.field(key).and_then(|f| f.default.as_deref());
            if let Some(value) = map.get(&**key).or_else(default) {
                found.push((key.clone().into_owned(), value.clone()));
            }
        }
        if found.is_empty() {
            let quoted: Vec<String> = keys.iter().map(|k| format!("{k:?}")).collect();
            return Err(format!(
                "associative list with keys has an element that omits all key fields [{}] (and doesn't have default values for any key fields)",
                quoted.join(" ")
            ));
        }
        found.sort_by(|a, b| a.0.cmp(&b.0));
        return Ok(PathElement::Key(found));
    }
    match item {
        Value::Object(_) => Err("associative list without keys has an element that's a map type".to_owned()),
        Value::Array(_) => Err("not supported: associative list with lists as elements".to_owned()),
        Value::Null => Err("associative list without keys has an element that's an explicit null".to_owned()),
        scalar => Ok(PathElement::Value(scalar.clone())),
    }
}

/// The fields that an object sets.
pub(super) fn field_set(at: Ref<'_>, value: &Value) -> FieldSet {
    fields(at, value).1
}

/// Whether the path itself is in the set, and what is below it.
fn fields(at: Ref<'_>, value: &Value) -> (bool, FieldSet) {
    let mut set = FieldSet::default();
    match at.atom(value) {
        Atom::Leaf => return (!value.is_null() || at.ty.is_scalar(), set),
        Atom::Map(map) => {
            for (key, value) in map {
                let (child, declared) = at.key(key);
                let (member, below) = fields(child, value);
                let empty = value.is_null() || value.as_object().is_some_and(Map::is_empty);
                set.attach(PathElement::Field(key.clone()), member || empty || !declared, below);
            }
        }
        Atom::List(list, items) => {
            for item in items {
                let Ok(element) = identity(list, item) else { continue };
                // An item that occurs twice is owned as one.
                if set.get(&element).is_some() {
                    set.attach(element, true, FieldSet::default());
                    continue;
                }
                let (_, below) = fields(Ref::item(list), item);
                set.attach(element, true, below);
            }
        }
    }
    (false, set)
}

/// With the whole of what is owned as one instead of parts of it, which who wrote before the type changed may own.
pub(super) fn with_whole_atoms(at: Ref<'_>, set: &FieldSet) -> FieldSet {
    let mut out = FieldSet::default();
    for (element, node) in set.nodes() {
        let there = at.below(element);
        match there.is_atomic() && !node.below.is_empty() {
            true => out.attach(element.clone(), true, FieldSet::default()),
            false => out.attach(element.clone(), node.member, with_whole_atoms(there, &node.below)),
        }
    }
    out
}

/// Adds the declared fields on the way to each member.
pub(super) fn with_named_parents(at: Ref<'_>, set: &FieldSet) -> FieldSet {
    let mut out = FieldSet::default();
    for (element, node) in set.nodes() {
        let named = match element {
            PathElement::Field(name) => !node.below.is_empty() && at.key(name).1,
            _ => false,
        };
        let below = with_named_parents(at.below(element), &node.below);
        out.attach(element.clone(), node.member || named, below);
    }
    out
}

/// Checks that an applied object fits its type; the error is upstream's.
pub(super) fn validate(at: Ref<'_>, value: &Value) -> Result<(), String> {
    let mut problems = Vec::new();
    check(at, value, &mut String::new(), &mut problems);
    match problems.as_slice() {
        [] => Ok(()),
        [only] => Err(only.clone()),
        many => Err(format!("errors:\n  {}", many.join("\n  "))),
    }
}

fn check(at: Ref<'_>, value: &Value, path: &mut String, problems: &mut Vec<String>) {
    let (Shape::Object(_) | Shape::Map(_) | Shape::List(_), false) = (&at.ty.shape, value.is_null()) else {
        return check_scalar(at.ty, value, path, problems);
    };
    match (&at.ty.shape, value) {
        (Shape::Object(o), Value::Object(map)) => {
            for (key, value) in map {
                let mark = path.len();
                path.push_str(&format!(".{key}"));
                match o.field(key) {
                    Some(f) => check(Ref::new(&f.ty), value, path, problems),
                    None if !o.preserve_unknown => {
                        problems.push(format!("{path}: field not declared in schema"));
                        path.truncate(mark);
                        return;
                    }
                    None => {}
                }
                path.truncate(mark);
            }
        }
        (Shape::Map(m), Value::Object(map)) => {
            for (key, value) in map {
                let mark = path.len();
                path.push_str(&format!(".{key}"));
                check(Ref::new(&m.value), value, path, problems);
                path.truncate(mark);
            }
        }
        (Shape::List(list), Value::Array(items)) => check_items(list, items, path, problems),
        (Shape::List(_), other) => problems.push(at_path(path, &format!("expected list, got {other}"))),
        (_, other) => problems.push(at_path(path, &format!("expected map, got {}", go_value(other)))),
    }
}

fn check_items(list: &List, items: &[Value], path: &mut String, problems: &mut Vec<String>) {
    let mut seen = FieldSet::default();
    for (i, item) in items.iter().enumerate() {
        let element = match &list.kind {
            ListKind::Atomic => PathElement::Index(i as i64),
            _ => match identity(list, item) {
                Ok(element) => element,
                Err(e) => return problems.push(at_path(path, &format!("element {i}: {e}"))),
            },
        };
        if seen.get(&element).is_some() {
            problems.push(at_path(path, &format!("duplicate entries for key {}", element.printed())));
        }
        let mark = path.len();
        path.push_str(&element.printed());
        check(Ref::item(list), item, path, problems);
        path.truncate(mark);
        seen.attach(element, true, FieldSet::default());
    }
}

fn check_scalar(ty: &Type, value: &Value, path: &str, problems: &mut Vec<String>) {
    let wanted = match (&ty.shape, value) {
        (_, Value::Null) => return,
        (Shape::String | Shape::Bytes | Shape::Time | Shape::MicroTime | Shape::Duration, v)
            if !v.is_string() =>
        {
            format!("expected string, got &value.valueUnstructured{{Value:{}}}", go_value(v))
        }
        (Shape::Int32 | Shape::Int64 | Shape::Float, v) if !v.is_number() => {
            let found = match v {
                Value::String(_) => "string",
                Value::Bool(_) => "bool",
                Value::Array(_) => "[]interface {}",
                _ => "map[string]interface {}",
            };
            format!("expected numeric (int or float), got {found}")
        }
        (Shape::Bool, v) if !v.is_boolean() => format!("expected boolean, got {}", go_value(v)),
        _ => return,
    };
    problems.push(at_path(path, &wanted));
}

fn at_path(path: &str, problem: &str) -> String {
    if path.is_empty() { problem.to_owned() } else { format!("{path}: {problem}") }
}

fn go_value(value: &Value) -> Cow<'_, str> {
    Cow::Owned(value.to_string())
}
