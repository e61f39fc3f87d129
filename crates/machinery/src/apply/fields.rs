//! Sets of paths (`fieldsV1`): which fields of an object somebody owns.

use crate::encode::{write_key, write_value};
use serde_json::{Map, Value};
use std::cmp::Ordering;

/// One step of a path. Equal are those that are in the same place: a number is the same however it is written.
#[derive(Clone, Debug)]
pub enum PathElement {
    Field(String),
    /// The keys of an item of a map-like list, sorted by name.
    Key(Vec<(String, Value)>),
    /// An item of a set.
    Value(Value),
    Index(i64),
}

/// A tree of path elements; each node says whether the path up to it is in the set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSet {
    /// Sorted. Most sets are small and made in order, which a tree of maps would pay for with every node.
    nodes: Vec<(PathElement, Node)>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) member: bool,
    pub(super) below: FieldSet,
}

impl PathElement {
    pub(super) fn serialize(&self) -> String {
        match self {
            PathElement::Field(name) => ["f:", name].concat(),
            PathElement::Key(keys) => {
                let mut out = b"k:{".to_vec();
                for (key, value) in keys {
                    write_key(&mut out, key);
                    write_value(&mut out, value);
                }
                out.push(b'}');
                String::from_utf8(out).unwrap_or_default()
            }
            PathElement::Value(value) => format!("v:{value}"),
            PathElement::Index(i) => format!("i:{i}"),
        }
    }

    fn parse(text: &str) -> Option<PathElement> {
        let rest = text.get(2..)?;
        match text.get(..2)? {
            "f:" => Some(PathElement::Field(rest.to_owned())),
            "v:" => serde_json::from_str(rest).ok().map(PathElement::Value),
            "k:" => {
                let map: Map<String, Value> = serde_json::from_str(rest).ok()?;
                Some(PathElement::Key(map.into_iter().collect()))
            }
            "i:" => rest.parse().ok().map(PathElement::Index),
            _ => None,
        }
    }

    /// As error messages write it: `.name`, `[name="a"]`, `[="x"]`.
    pub(super) fn printed(&self) -> String {
        match self {
            PathElement::Field(name) => format!(".{name}"),
            PathElement::Key(keys) => {
                let parts: Vec<String> = keys.iter().map(|(k, v)| format!("{k}={v}")).collect();
                format!("[{}]", parts.join(","))
            }
            PathElement::Value(value) => format!("[={value}]"),
            PathElement::Index(i) => format!("[{i}]"),
        }
    }

    fn rank(&self) -> u8 {
        match self {
            PathElement::Field(_) => 0,
            PathElement::Key(_) => 1,
            PathElement::Value(_) => 2,
            PathElement::Index(_) => 3,
        }
    }
}

impl Ord for PathElement {
    fn cmp(&self, other: &PathElement) -> Ordering {
        match (self, other) {
            (PathElement::Field(a), PathElement::Field(b)) => a.cmp(b),
            (PathElement::Index(a), PathElement::Index(b)) => a.cmp(b),
            (PathElement::Value(a), PathElement::Value(b)) => compare(a, b),
            (PathElement::Key(a), PathElement::Key(b)) => {
                for ((ka, va), (kb, vb)) in a.iter().zip(b) {
                    let order = ka.cmp(kb).then_with(|| compare(va, vb));
                    if order != Ordering::Equal {
                        return order;
                    }
                }
                a.len().cmp(&b.len())
            }
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl PartialEq for PathElement {
    fn eq(&self, other: &PathElement) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for PathElement {}

impl PartialOrd for PathElement {
    fn partial_cmp(&self, other: &PathElement) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Scalars by kind, then by value.
fn compare(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::Number(x), Value::Number(y)) => match (x.as_i64(), y.as_i64()) {
            (Some(x), Some(y)) => x.cmp(&y),
            _ => x.as_f64().partial_cmp(&y.as_f64()).unwrap_or(Ordering::Equal),
        },
        _ if a == b => Ordering::Equal,
        _ => a.to_string().cmp(&b.to_string()),
    }
}

impl FieldSet {
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = (&PathElement, &Node)> {
        self.nodes.iter().map(|(element, node)| (element, node))
    }

    /// Where the element is, or belongs.
    fn find(&self, element: &PathElement) -> Result<usize, usize> {
        match self.nodes.last() {
            Some((last, _)) if last < element => Err(self.nodes.len()),
            _ => self.nodes.binary_search_by(|(known, _)| known.cmp(element)),
        }
    }

    pub(super) fn get(&self, element: &PathElement) -> Option<&Node> {
        self.find(element).ok().map(|at| &self.nodes[at].1)
    }

    /// Attaches a subtree; nothing happens for an empty one.
    pub(super) fn attach(&mut self, element: PathElement, member: bool, below: FieldSet) {
        if member || !below.is_empty() {
            let node = Node { member, below };
            match self.find(&element) {
                Ok(at) => self.nodes[at].1 = node,
                Err(at) => self.nodes.insert(at, (element, node)),
            }
        }
    }

    /// Adds a path of field names.
    pub fn insert_names(&mut self, path: &[&str]) {
        let Some((first, rest)) = path.split_first() else { return };
        let element = PathElement::Field((*first).to_owned());
        let at = self.find(&element).unwrap_or_else(|at| {
            self.nodes.insert(at, (element, Node::default()));
            at
        });
        let node = &mut self.nodes[at].1;
        if rest.is_empty() { node.member = true } else { node.below.insert_names(rest) }
    }

    pub fn union(mut self, other: FieldSet) -> FieldSet {
        if self.is_empty() {
            return other;
        }
        for (element, node) in other.nodes {
            match self.find(&element) {
                Ok(at) => {
                    let mine = &mut self.nodes[at].1;
                    mine.member |= node.member;
                    mine.below = std::mem::take(&mut mine.below).union(node.below);
                }
                Err(at) => self.nodes.insert(at, (element, node)),
            }
        }
        self
    }

    pub fn intersection(&self, other: &FieldSet) -> FieldSet {
        let mut out = FieldSet::default();
        for (element, node) in &self.nodes {
            if let Some(theirs) = other.get(element) {
                let below = node.below.intersection(&theirs.below);
                out.attach(element.clone(), node.member && theirs.member, below);
            }
        }
        out
    }

    /// Without the members of `other`; what lies below a removed member stays.
    pub fn difference(self, other: &FieldSet) -> FieldSet {
        self.subtract(other, false)
    }

    /// Without the members of `other` and all below them.
    pub fn recursive_difference(self, other: &FieldSet) -> FieldSet {
        self.subtract(other, true)
    }

    fn subtract(self, other: &FieldSet, recursive: bool) -> FieldSet {
        if other.is_empty() {
            return self;
        }
        let mut out = FieldSet::default();
        for (element, node) in self.nodes {
            match other.get(&element) {
                None => out.attach(element, node.member, node.below),
                Some(theirs) if theirs.member && recursive => {}
                Some(theirs) => {
                    let below = node.below.subtract(&theirs.below, recursive);
                    out.attach(element, node.member && !theirs.member, below);
                }
            }
        }
        out
    }

    /// Every member as text (`.spec.containers[name="a"].image`), parents first.
    pub fn paths(&self) -> Vec<String> {
        let mut out = Vec::new();
        self.collect("", &mut out);
        out
    }

    fn collect(&self, prefix: &str, out: &mut Vec<String>) {
        // Members of a level come before what is below it.
        for (element, _) in self.nodes.iter().filter(|(_, n)| n.member) {
            out.push(format!("{prefix}{}", element.printed()));
        }
        for (element, node) in self.nodes.iter().filter(|(_, n)| !n.below.is_empty()) {
            node.below.collect(&format!("{prefix}{}", element.printed()), out);
        }
    }

    /// The `fieldsV1` value.
    pub fn to_value(&self) -> Value {
        let mut map = Map::new();
        for (element, node) in &self.nodes {
            let mut below = node.below.to_value();
            if let Value::Object(inner) = &mut below
                && node.member
                && !inner.is_empty()
            {
                inner.insert(".".to_owned(), Value::Object(Map::new()));
            }
            map.insert(element.serialize(), below);
        }
        Value::Object(map)
    }

    /// Whether a member of this set is one of an encoded set too.
    pub(super) fn meets(&self, encoded: &Value) -> bool {
        self.nodes.iter().any(|(element, node)| match encoded.get(element.serialize()) {
            Some(below) => node.member && is_member(below) || node.below.meets(below),
            None => false,
        })
    }

    /// Whether all members of this set are members of an encoded set.
    pub(super) fn is_within(&self, encoded: &Value) -> bool {
        self.nodes.iter().all(|(element, node)| match encoded.get(element.serialize()) {
            Some(below) => (!node.member || is_member(below)) && node.below.is_within(below),
            None => false,
        })
    }

    /// Whether a `fieldsV1` value is what [`Self::to_value`] would make of it.
    pub(super) fn is_canonical(value: &Value) -> bool {
        let own = |key: &str| {
            key.starts_with("f:") || PathElement::parse(key).is_some_and(|element| element.serialize() == key)
        };
        value.as_object().is_some_and(|map| {
            map.iter().all(|(key, below)| match key.as_str() {
                "." => map.len() > 1 && below.as_object().is_some_and(Map::is_empty),
                key => own(key) && FieldSet::is_canonical(below),
            })
        })
    }

    /// Takes out a path of field names.
    pub(super) fn remove_names(&mut self, path: &[&str]) {
        let Some((first, rest)) = path.split_first() else { return };
        let is_first = |element: &PathElement| matches!(element, PathElement::Field(name) if name == first);
        let Some(at) = self.nodes.iter().position(|(element, _)| is_first(element)) else { return };
        let node = &mut self.nodes[at].1;
        if rest.is_empty() {
            node.member = false
        } else {
            node.below.remove_names(rest)
        }
        if !node.member && node.below.is_empty() {
            self.nodes.remove(at);
        }
    }

    /// Parses a `fieldsV1` value; None when a key is malformed.
    pub fn from_value(value: &Value) -> Option<FieldSet> {
        let mut set = FieldSet::default();
        for (key, below) in value.as_object()?.iter().filter(|(k, _)| *k != ".") {
            let element = PathElement::parse(key)?;
            set.attach(element, is_member(below), FieldSet::from_value(below)?);
        }
        Some(set)
    }
}

/// Whether the path that leads to an encoded set is a member.
fn is_member(below: &Value) -> bool {
    below.as_object().is_some_and(|inner| inner.is_empty() || inner.contains_key("."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_encoded_set_answers_what_the_parsed_one_does() {
        let sets = [
            json!({}),
            json!({"f:a": {}}),
            json!({"f:a": {".": {}, "f:b": {}}, "f:c": {"f:d": {}}}),
            json!({"f:a": {"f:b": {}}, "f:l": {r#"k:{"name":"<x>","port":80}"#: {".": {}, "f:name": {}}}}),
            json!({"f:l": {r#"k:{"name":"<x>","port":80}"#: {"f:name": {}}, r#"v:"s""#: {}, "i:3": {}}}),
        ];
        for one in &sets {
            let parsed = FieldSet::from_value(one).unwrap();
            assert!(FieldSet::is_canonical(one), "{one}");
            assert_eq!(parsed.to_value(), *one);
            for other in &sets {
                let set = FieldSet::from_value(other).unwrap();
                assert_eq!(set.meets(one), !set.intersection(&parsed).is_empty(), "{other} and {one}");
                assert_eq!(
                    set.is_within(one),
                    parsed.clone().union(set.clone()) == parsed,
                    "{other} in {one}"
                );
                assert_eq!(
                    set.meets(one),
                    parsed.clone().difference(&set) != parsed,
                    "{one} without {other}"
                );
            }
        }
    }

    #[test]
    fn what_would_be_encoded_otherwise_is_not_canonical() {
        for odd in [
            json!({"f:a": {".": {}}}),
            json!({".": {"f:a": {}}, "f:a": {}}),
            json!({r#"k:{"b":1,"a":2}"#: {}}),
            json!({r#"k:{"a": 2}"#: {}}),
            json!({"x:a": {}}),
            json!({"f:a": 1}),
            json!([]),
        ] {
            assert!(!FieldSet::is_canonical(&odd), "{odd}");
        }
    }
}
