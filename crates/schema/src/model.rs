//! The model: a `Type` is a shape, plus a CRD's value rules where there are any.

use crate::pattern::Pattern;
use crate::registry::Definition;
use serde_json::Value;
use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

#[derive(Debug)]
pub struct Type {
    pub shape: Shape,
    /// Whether null is a value of its own (CRDs); elsewhere null means absent.
    pub nullable: bool,
    /// What a CRD's schema says about values; built-in kinds are validated by code.
    pub rules: Option<Box<Rules>>,
}

#[derive(Debug)]
pub enum Shape {
    Object(Object),
    /// Any keys, values of one type.
    Map(Map),
    List(List),
    String,
    Int32,
    Int64,
    Float,
    Bool,
    /// Base64 in JSON.
    Bytes,
    Quantity,
    IntOrString,
    /// RFC 3339 to the second.
    Time,
    /// RFC 3339 to the microsecond.
    MicroTime,
    /// Go's duration syntax.
    Duration,
    /// Any object, kept as is; merged key by key.
    RawExtension,
    /// Any value, kept as is; owned as one.
    Any,
    /// A `fieldsV1` set, kept as is.
    FieldsV1,
}

#[derive(Debug, Default)]
pub struct Object {
    /// Short definition name (`apps.v1.DeploymentSpec`); empty for a CRD's nested objects.
    pub name: Cow<'static, str>,
    /// Sorted by name.
    pub fields: Vec<Field>,
    /// Owned as one by server-side apply.
    pub atomic: bool,
    /// Unknown fields are kept (CRDs).
    pub preserve_unknown: bool,
    /// `apiVersion`, `kind` and `metadata` are implied (CRDs).
    pub embedded_resource: bool,
    /// What a CRD's schema itself says of those three; only looked at to validate values.
    pub restricted: Vec<Field>,
    /// See [`Object::layout`].
    pub layout: OnceLock<Layout>,
}

/// The fields of a message by protobuf number, ascending.
#[derive(Debug, Default)]
pub struct Layout(Vec<(u32, Slot)>);

#[derive(Debug)]
pub enum Slot {
    /// A field of the object, by its place among the fields.
    Field(usize),
    /// A message whose fields are the object's own in JSON.
    Embedded(Layout),
}

#[derive(Debug)]
pub struct Field {
    pub name: Cow<'static, str>,
    pub ty: Link,
    pub required: bool,
    pub default: Option<Box<Value>>,
    /// The field's map or struct is owned as one, whatever its type says.
    pub atomic: bool,
    /// Upstream's encoder writes the zero value when nothing is set.
    pub emit_zero: bool,
    /// A Go pointer: absent differs from zero.
    pub pointer: bool,
    /// Protobuf field number; `2.19` is field 19 of the message embedded as field 2.
    pub proto: &'static str,
    pub patch: Patch,
    /// Go's name of the type, where it is not the obvious one.
    pub go_type: &'static str,
}

/// How strategic merge patch treats a field.
#[derive(Clone, Copy, Debug, Default)]
pub struct Patch {
    pub merge: bool,
    pub retain_keys: bool,
    pub replace: bool,
    /// Merge key of a list of objects, empty when there is none.
    pub key: &'static str,
}

#[derive(Debug)]
pub struct Map {
    pub value: Link,
    pub atomic: bool,
}

#[derive(Debug)]
pub struct List {
    pub item: Link,
    pub kind: ListKind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListKind {
    Atomic,
    Set,
    /// Keyed by these fields of the items.
    Map(Box<[Cow<'static, str>]>),
}

/// A reference to a type: a built-in one (built on first use) or one that came with a CRD.
#[derive(Clone, Debug)]
pub enum Link {
    Static(&'static Type),
    Builtin(&'static Definition),
    Owned(Arc<Type>),
}

/// Value validation of a CRD's schema (OpenAPI v3).
#[derive(Debug, Default)]
pub struct Rules {
    pub enumeration: Vec<Value>,
    pub minimum: Option<f64>,
    pub exclusive_minimum: bool,
    pub maximum: Option<f64>,
    pub exclusive_maximum: bool,
    pub multiple_of: Option<f64>,
    pub min_length: Option<usize>,
    pub max_length: Option<usize>,
    pub pattern: Option<Pattern>,
    pub format: Option<String>,
    pub min_items: Option<usize>,
    pub max_items: Option<usize>,
    pub unique_items: bool,
    pub min_properties: Option<usize>,
    pub max_properties: Option<usize>,
    /// Names that must be present, in the schema's order.
    pub required: Vec<String>,
    /// The schema names no type: objects and lists are looked into, everything else passes.
    pub untyped: bool,
    /// `additionalProperties: false`.
    pub closed: bool,
    pub all_of: Vec<Type>,
    pub any_of: Vec<Type>,
    pub one_of: Vec<Type>,
    pub not: Option<Box<Type>>,
    /// `x-kubernetes-validations`, as written.
    pub validations: Vec<Value>,
}

impl Type {
    pub const fn new(shape: Shape) -> Type {
        Type { shape, nullable: false, rules: None }
    }

    pub fn as_object(&self) -> Option<&Object> {
        match &self.shape {
            Shape::Object(o) => Some(o),
            _ => None,
        }
    }

    pub fn as_list(&self) -> Option<&List> {
        match &self.shape {
            Shape::List(l) => Some(l),
            _ => None,
        }
    }

    pub fn as_map(&self) -> Option<&Map> {
        match &self.shape {
            Shape::Map(m) => Some(m),
            _ => None,
        }
    }

    /// A declared field of an object type.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.as_object()?.field(name)
    }

    /// The type at a path of field names, through maps and lists (`["spec", "containers", "image"]`).
    pub fn at(&self, path: &[&str]) -> Option<&Type> {
        let mut ty = self;
        for name in path {
            while let Shape::List(l) = &ty.shape {
                ty = &l.item;
            }
            ty = match &ty.shape {
                Shape::Map(m) => &m.value,
                _ => &ty.field(name)?.ty,
            };
        }
        Some(ty)
    }

    pub fn is_scalar(&self) -> bool {
        !matches!(
            self.shape,
            Shape::Object(_)
                | Shape::Map(_)
                | Shape::List(_)
                | Shape::RawExtension
                | Shape::Any
                | Shape::FieldsV1
        )
    }
}

impl Object {
    pub fn field(&self, name: &str) -> Option<&Field> {
        let at = self.fields.binary_search_by(|f| (*f.name).cmp(name)).ok()?;
        self.fields.get(at)
    }

    /// An object with these fields, sorted by name.
    pub fn with_fields(fields: Vec<Field>) -> Self {
        Self { fields, ..Self::default() }
    }

    /// The object's protobuf message; empty where the type has none.
    pub fn layout(&self) -> &Layout {
        self.layout.get_or_init(|| {
            let mut layout = Layout::default();
            for (at, field) in self.fields.iter().enumerate().filter(|(_, f)| !f.proto.is_empty()) {
                layout.insert(field.proto, at);
            }
            layout
        })
    }

    /// Go's name without the package: `DeploymentSpec`.
    pub fn go_struct(&self) -> &str {
        self.name.rsplit('.').next().unwrap_or_default()
    }

    /// Go's name with the package: `v1.DeploymentSpec`.
    pub fn go_type(&self) -> String {
        let mut parts = self.name.rsplit('.');
        let name = parts.next().unwrap_or_default();
        match parts.next() {
            Some(package) => format!("{package}.{name}"),
            None => name.to_owned(),
        }
    }
}

impl Layout {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn get(&self, number: u32) -> Option<&Slot> {
        let at = self.0.binary_search_by_key(&number, |(n, _)| *n).ok()?;
        self.0.get(at).map(|(_, slot)| slot)
    }

    pub fn iter(&self) -> impl Iterator<Item = (u32, &Slot)> {
        self.0.iter().map(|(number, slot)| (*number, slot))
    }

    fn insert(&mut self, path: &str, field: usize) {
        let (number, rest) = path.split_once('.').unwrap_or((path, ""));
        let Ok(number) = number.parse() else { return };
        let place = self.0.binary_search_by_key(&number, |(n, _)| *n);
        if rest.is_empty() {
            match place {
                Ok(at) => self.0[at].1 = Slot::Field(field),
                Err(at) => self.0.insert(at, (number, Slot::Field(field))),
            }
            return;
        }
        let at = place.unwrap_or_else(|at| {
            self.0.insert(at, (number, Slot::Embedded(Self::default())));
            at
        });
        if let Slot::Embedded(inner) = &mut self.0[at].1 {
            inner.insert(rest, field);
        }
    }
}

impl List {
    /// The key fields of a map-like list, none for the others.
    pub fn keys(&self) -> &[Cow<'static, str>] {
        match &self.kind {
            ListKind::Map(keys) => keys,
            _ => &[],
        }
    }
}

impl std::ops::Deref for Link {
    type Target = Type;
    fn deref(&self) -> &Type {
        match self {
            Link::Static(ty) => ty,
            Link::Builtin(def) => def.ty(),
            Link::Owned(ty) => ty,
        }
    }
}
