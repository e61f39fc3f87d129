//! Declared types: what a schema says of values, for the checker, for cost estimates and for reading JSON.
//!
//! The sizes and the rules of what is exposed are upstream's: estimated costs decide which rules a CRD may carry.

use crate::escape::escape;
use crate::types::Type;
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

/// The largest request that sizes are estimated from, in bytes.
pub const MAX_REQUEST_SIZE: u64 = 3 * 1024 * 1024;

/// A type with the sizes that its values can have.
#[derive(Clone, Debug)]
pub struct Declared {
    pub(crate) shape: Shape,
    /// The most characters, bytes, items or entries that a value can have.
    pub(crate) max_elements: u64,
    /// The fewest bytes that a value takes as JSON.
    pub(crate) min_serialized: u64,
    pub(crate) nullable: bool,
}

#[derive(Clone, Debug)]
pub(crate) enum Shape {
    /// JSON as it comes.
    Dyn,
    Bool,
    Int,
    Double,
    String,
    Bytes,
    Duration,
    Date,
    DateTime,
    IntOrString,
    List(Arc<Declared>, ListKind),
    /// From strings.
    Map(Arc<Declared>),
    Object(ObjectType),
    /// Values of the type never come from JSON.
    Other(Type),
}

/// How lists compare and add up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ListKind {
    Atomic,
    Set,
    /// Keyed by these fields, as JSON names them.
    Map(Arc<[String]>),
}

/// An object type, equal by its name.
#[derive(Clone, Debug)]
pub struct ObjectType(Arc<Object>);

#[derive(Debug)]
struct Object {
    name: Arc<str>,
    /// By escaped name.
    fields: BTreeMap<Arc<str>, Property>,
    /// Any field may be set, to anything.
    open: bool,
}

#[derive(Debug)]
pub(crate) struct Property {
    /// The name in JSON.
    pub json: Arc<str>,
    pub declared: Arc<Declared>,
}

impl Declared {
    /// Any JSON, typed by what it is.
    pub fn dynamic() -> Declared {
        Declared::sized(Shape::Dyn, 0, 1)
    }

    /// A type whose sizes are unknown.
    pub fn of(ty: Type) -> Declared {
        let shape = match ty {
            Type::Dyn => Shape::Dyn,
            Type::Bool => Shape::Bool,
            Type::Int => Shape::Int,
            Type::Double => Shape::Double,
            Type::String => Shape::String,
            Type::Object(object) => Shape::Object(object),
            Type::List(item) => Shape::List(Arc::new(Declared::of((*item).clone())), ListKind::Atomic),
            Type::Map(pair) if pair.0 == Type::String => Shape::Map(Arc::new(Declared::of(pair.1.clone()))),
            other => Shape::Other(other),
        };
        Declared::sized(shape, MAX_REQUEST_SIZE, 1)
    }

    /// An object with these fields, whose names need no escaping.
    pub fn object<N: Into<Arc<str>>>(
        name: &str,
        fields: impl IntoIterator<Item = (N, Declared)>,
    ) -> Declared {
        let fields = fields.into_iter().map(|(name, declared)| {
            let json: Arc<str> = name.into();
            (json.clone(), Property { json, declared: Arc::new(declared) })
        });
        let object = Object { name: name.into(), fields: fields.collect(), open: false };
        Declared::sized(Shape::Object(ObjectType(Arc::new(object))), 0, 2)
    }

    pub fn ty(&self) -> Type {
        match &self.shape {
            Shape::Dyn | Shape::IntOrString => Type::Dyn,
            Shape::Bool => Type::Bool,
            Shape::Int => Type::Int,
            Shape::Double => Type::Double,
            Shape::String => Type::String,
            Shape::Bytes => Type::Bytes,
            Shape::Duration => Type::Duration,
            Shape::Date | Shape::DateTime => Type::Timestamp,
            Shape::List(item, _) => Type::list(item.ty()),
            Shape::Map(value) => Type::map(Type::String, value.ty()),
            Shape::Object(object) => Type::Object(object.clone()),
            Shape::Other(ty) => ty.clone(),
        }
    }

    /// The items of a list, the values of a map.
    pub fn element(&self) -> Option<&Arc<Declared>> {
        match &self.shape {
            Shape::List(element, _) | Shape::Map(element) => Some(element),
            _ => None,
        }
    }

    /// An object's field by its name in JSON.
    pub fn property(&self, json: &str) -> Option<&Arc<Declared>> {
        let Shape::Object(object) = &self.shape else { return None };
        object.field(&escape(json)?).map(|p| &p.declared)
    }

    /// The fewest bytes of a value as JSON.
    pub fn min_serialized_size(&self) -> u64 {
        self.min_serialized
    }

    fn sized(shape: Shape, max_elements: u64, min_serialized: u64) -> Declared {
        Declared { shape, max_elements, min_serialized, nullable: false }
    }

    /// The type of a structural OpenAPI v3 schema, `None` where rules cannot see its values. `name` is the
    /// type's own; `root` says that this is a whole resource, whose `apiVersion`, `kind`, `metadata.name` and
    /// `metadata.generateName` are always there.
    pub fn from_schema(schema: &Json, name: &str, root: bool) -> Option<Declared> {
        let nullable = flag(schema, "nullable");
        convert(schema, name, root).map(|declared| Declared { nullable, ..declared })
    }
}

fn flag(schema: &Json, key: &str) -> bool {
    schema.get(key).and_then(Json::as_bool).unwrap_or(false)
}

fn limit(schema: &Json, key: &str) -> Option<u64> {
    schema.get(key).and_then(Json::as_i64).map(|n| n.max(0) as u64)
}

fn nested(schema: &Json, name: &str) -> Option<Declared> {
    Declared::from_schema(schema, name, flag(schema, "x-kubernetes-embedded-resource"))
}

fn convert(schema: &Json, name: &str, root: bool) -> Option<Declared> {
    // A character takes up to four bytes; quotes take two.
    let max_length = limit(schema, "maxLength").map(|n| n.saturating_mul(4));
    let any_length = MAX_REQUEST_SIZE - 2;
    if flag(schema, "x-kubernetes-int-or-string") {
        return Some(Declared::sized(Shape::IntOrString, max_length.unwrap_or(any_length), 1));
    }
    let ty = if root { "object" } else { schema.get("type").and_then(Json::as_str).unwrap_or_default() };
    Some(match ty {
        "array" => {
            let item = nested(schema.get("items")?, &format!("{name}.@idx"))?;
            let most =
                limit(schema, "maxItems").unwrap_or((MAX_REQUEST_SIZE - 2) / (item.min_serialized + 1));
            Declared::sized(Shape::List(Arc::new(item), list_kind(schema)), most, 2)
        }
        "object" => match schema.get("additionalProperties") {
            Some(values @ Json::Object(_)) => {
                let value = nested(values, &format!("{name}.@elem"))?;
                // A key takes at least its quotes, a colon and a comma.
                let most = limit(schema, "maxProperties")
                    .unwrap_or((MAX_REQUEST_SIZE - 2) / (value.min_serialized + 6));
                Declared::sized(Shape::Map(Arc::new(value)), most, 2)
            }
            _ => object(schema, name, root),
        },
        "string" => match schema.get("format").and_then(Json::as_str).unwrap_or_default() {
            "byte" => Declared::sized(Shape::Bytes, limit(schema, "maxLength").unwrap_or(any_length), 2),
            "duration" => Declared::sized(Shape::Duration, 32, 3),
            "date" => Declared::sized(Shape::Date, 12, 12),
            "date-time" => Declared::sized(Shape::DateTime, 32, 21),
            _ => {
                let values = schema.get("enum").and_then(Json::as_array).filter(|v| !v.is_empty());
                let longest =
                    values.map(|v| v.iter().filter_map(Json::as_str).map(str::len).max().unwrap_or(0));
                let most = max_length.or(longest.map(|n| n as u64)).unwrap_or(any_length);
                Declared::sized(Shape::String, most, 2)
            }
        },
        "boolean" => Declared::sized(Shape::Bool, 0, 4),
        "number" => Declared::sized(Shape::Double, 0, 1),
        "integer" => Declared::sized(Shape::Int, 0, 1),
        _ => return None,
    })
}

fn object(schema: &Json, name: &str, root: bool) -> Declared {
    let empty = serde_json::Map::new();
    let properties = schema.get("properties").and_then(Json::as_object).unwrap_or(&empty);
    let required: Vec<&str> = schema
        .get("required")
        .and_then(Json::as_array)
        .into_iter()
        .flatten()
        .filter_map(Json::as_str)
        .collect();
    let mut fields = BTreeMap::new();
    // Braces, and of each required field its quotes, colon and comma.
    let mut size = 2;
    let mut add = |json: &str, declared: Declared, counts: bool| {
        if counts {
            size += json.len() as u64 + declared.min_serialized + 4;
        }
        if let Some(escaped) = escape(json) {
            fields.insert(escaped.into(), Property { json: json.into(), declared: Arc::new(declared) });
        }
    };
    for (json, property) in properties {
        if let Some(declared) = nested(property, &format!("{name}.{json}")) {
            let defaulted = property.get("default").is_some_and(|d| !d.is_null());
            add(json, declared, required.contains(&json.as_str()) && !defaulted);
        }
    }
    if root {
        let text = || Declared::sized(Shape::String, MAX_REQUEST_SIZE - 2, 2);
        for json in ["apiVersion", "kind"] {
            add(json, text(), required.contains(&json));
        }
        let metadata = properties.get("metadata").and_then(|m| m.get("properties")).and_then(Json::as_object);
        let mut fields = vec![("name", text()), ("generateName", text())];
        for (json, property) in metadata.into_iter().flatten() {
            if !["name", "generateName"].contains(&json.as_str())
                && let Some(declared) = nested(property, &format!("{name}.metadata.{json}"))
            {
                fields.push((json, declared));
            }
        }
        let metadata = Declared::object(&format!("{name}.metadata"), fields);
        add("metadata", metadata, required.contains(&"metadata"));
    }
    let object = Object { name: name.into(), fields, open: false };
    Declared::sized(Shape::Object(ObjectType(Arc::new(object))), 0, size)
}

fn list_kind(schema: &Json) -> ListKind {
    match schema.get("x-kubernetes-list-type").and_then(Json::as_str) {
        Some("set") => ListKind::Set,
        Some("map") => {
            let keys = schema.get("x-kubernetes-list-map-keys").and_then(Json::as_array);
            ListKind::Map(keys.into_iter().flatten().filter_map(Json::as_str).map(str::to_owned).collect())
        }
        _ => ListKind::Atomic,
    }
}

impl ObjectType {
    /// An object that takes any field, as `Object{}` of mutations does.
    pub(crate) fn open(name: &str) -> ObjectType {
        ObjectType(Arc::new(Object { name: name.into(), fields: BTreeMap::new(), open: true }))
    }

    /// One operation of a JSON patch.
    pub(crate) fn json_patch() -> ObjectType {
        static TYPE: LazyLock<ObjectType> = LazyLock::new(|| {
            let fields =
                [("op", Type::String), ("path", Type::String), ("from", Type::String), ("value", Type::Dyn)];
            match Declared::object("JSONPatch", fields.map(|(name, ty)| (name, Declared::of(ty)))).shape {
                Shape::Object(object) => object,
                _ => ObjectType::open("JSONPatch"),
            }
        });
        TYPE.clone()
    }

    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// A declared field by its escaped name.
    pub(crate) fn field(&self, escaped: &str) -> Option<&Property> {
        self.0.fields.get(escaped)
    }

    pub(crate) fn fields(&self) -> impl Iterator<Item = (&Arc<str>, &Property)> {
        self.0.fields.iter()
    }

    /// The type that the checker gives a field.
    pub(crate) fn field_type(&self, escaped: &str) -> Option<Type> {
        match self.field(escaped) {
            Some(property) => Some(property.declared.ty()),
            None if self.0.open => Some(Type::Dyn),
            None => None,
        }
    }
}

impl PartialEq for ObjectType {
    fn eq(&self, other: &Self) -> bool {
        self.0.name == other.0.name
    }
}

impl Eq for ObjectType {}
