//! A CRD's structural OpenAPI v3 schema as a [`Type`].

use crate::model::{Field, Link, List, ListKind, Map, Object, Patch, Rules, Shape, Type};
use crate::pattern::Pattern;
use crate::registry::builtin;
use serde_json::Value;
use std::borrow::Cow;
use std::sync::Arc;

/// The formats of strings, without dashes.
const FORMATS: [&str; 26] = [
    "bsonobjectid",
    "uri",
    "email",
    "hostname",
    "ipv4",
    "ipv6",
    "cidr",
    "mac",
    "uuid",
    "uuid3",
    "uuid4",
    "uuid5",
    "isbn",
    "isbn10",
    "isbn13",
    "creditcard",
    "ssn",
    "hexcolor",
    "rgbcolor",
    "byte",
    "password",
    "date",
    "duration",
    "datetime",
    "k8sshortname",
    "k8slongname",
];

const PRESERVE: &str = "x-kubernetes-preserve-unknown-fields";

/// Why a schema is not one that we can serve; `path` is where in the schema.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("schema at {path}: {problem}")]
pub struct SchemaError {
    pub path: String,
    pub problem: String,
}

/// Converts the schema of a whole custom resource: `apiVersion`, `kind` and `metadata` are those of every
/// object, whatever it says of them.
pub fn from_json_schema(schema: &Value) -> Result<Type, SchemaError> {
    let mut ty = convert(schema, "openAPIV3Schema")?;
    if let Shape::Object(object) = &mut ty.shape {
        add_object_fields(object);
    } else if flag(schema, PRESERVE) || schema.get("type").is_none() {
        let mut object = Object { preserve_unknown: true, ..Object::default() };
        add_object_fields(&mut object);
        ty.shape = Shape::Object(object);
    } else {
        return err("openAPIV3Schema.type", "must be object at the root");
    }
    Ok(ty)
}

/// Converts a schema that is not a whole resource.
pub fn from_json_schema_fragment(schema: &Value) -> Result<Type, SchemaError> {
    convert(schema, "schema")
}

fn convert(schema: &Value, path: &str) -> Result<Type, SchemaError> {
    if !schema.is_object() {
        return err(path, "must be an object");
    }
    Ok(Type {
        shape: shape(schema, path)?,
        nullable: flag(schema, "nullable"),
        rules: rules(schema, path)?.map(Box::new),
    })
}

fn shape(schema: &Value, path: &str) -> Result<Shape, SchemaError> {
    if flag(schema, "x-kubernetes-int-or-string") {
        return Ok(Shape::IntOrString);
    }
    let preserve = flag(schema, PRESERVE);
    let properties = schema.get("properties").is_some();
    match schema.get("type").and_then(Value::as_str) {
        Some("object") => object_shape(schema, path),
        Some("array") => list_shape(schema, path),
        Some("string") => Ok(match text(schema, "format") {
            "byte" => Shape::Bytes,
            _ => Shape::String,
        }),
        Some("integer") => Ok(if text(schema, "format") == "int32" { Shape::Int32 } else { Shape::Int64 }),
        Some("number") => Ok(Shape::Float),
        Some("boolean") => Ok(Shape::Bool),
        // Without a type: a value validation (under anyOf and the like), or anything at all.
        None if properties || schema.get("additionalProperties").is_some() => {
            let mut shape = object_shape(schema, path)?;
            if let Shape::Object(o) = &mut shape {
                o.preserve_unknown = true;
            }
            Ok(shape)
        }
        None if schema.get("items").is_some() => list_shape(schema, path),
        None if preserve => Ok(Shape::RawExtension),
        None => Ok(Shape::Any),
        Some(other) => err(&format!("{path}.type"), &format!("unsupported type {other:?}")),
    }
}

fn object_shape(schema: &Value, path: &str) -> Result<Shape, SchemaError> {
    let atomic = text(schema, "x-kubernetes-map-type") == "atomic";
    let properties = schema.get("properties").and_then(Value::as_object);
    match schema.get("additionalProperties") {
        Some(values @ (Value::Object(_) | Value::Bool(_))) if properties.is_none_or(|p| p.is_empty()) => {
            let value = match values {
                Value::Object(_) => convert(values, &format!("{path}.additionalProperties"))?,
                // Values without a schema: whatever they are, but the fields of objects are pruned.
                _ => Type {
                    rules: Some(Box::new(Rules { untyped: true, ..Rules::default() })),
                    ..Type::new(Shape::Object(Object::default()))
                },
            };
            return Ok(Shape::Map(Map { value: Link::Owned(Arc::new(value)), atomic }));
        }
        _ => {}
    }
    let required: Vec<&str> = schema
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let mut fields = Vec::new();
    for (name, property) in properties.into_iter().flatten() {
        let ty = convert(property, &format!("{path}.properties[{name}]"))?;
        fields.push(Field {
            required: required.contains(&name.as_str()),
            default: property.get("default").filter(|d| !d.is_null()).cloned().map(Box::new),
            atomic: false,
            ..field(name, Link::Owned(Arc::new(ty)))
        });
    }
    fields.sort_by(|a, b| a.name.cmp(&b.name));
    let mut object = Object {
        name: Cow::Borrowed(""),
        fields,
        atomic,
        preserve_unknown: flag(schema, PRESERVE) || schema.get("additionalProperties").is_some(),
        embedded_resource: flag(schema, "x-kubernetes-embedded-resource"),
        ..Object::default()
    };
    if object.embedded_resource {
        add_object_fields(&mut object);
    }
    Ok(Shape::Object(object))
}

fn list_shape(schema: &Value, path: &str) -> Result<Shape, SchemaError> {
    let mut item = match schema.get("items") {
        Some(items) => convert(items, &format!("{path}.items"))?,
        None => Type::new(Shape::Any),
    };
    if let (true, Shape::Object(object)) = (flag(schema, PRESERVE), &mut item.shape) {
        object.preserve_unknown = true;
    }
    let kind = match text(schema, "x-kubernetes-list-type") {
        "set" => ListKind::Set,
        "map" => {
            let keys =
                schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array).into_iter().flatten();
            ListKind::Map(keys.filter_map(Value::as_str).map(|k| Cow::Owned(k.to_owned())).collect())
        }
        "" | "atomic" => ListKind::Atomic,
        other => {
            return err(
                &format!("{path}.x-kubernetes-list-type"),
                &format!("unsupported list type {other:?}"),
            );
        }
    };
    Ok(Shape::List(List { item: Link::Owned(Arc::new(item)), kind }))
}

fn rules(schema: &Value, path: &str) -> Result<Option<Rules>, SchemaError> {
    let array = |k: &str| schema.get(k).and_then(Value::as_array);
    let number = |k: &str| schema.get(k).and_then(Value::as_f64);
    let count = |k: &str| schema.get(k).and_then(Value::as_u64).map(|n| n as usize);
    let owned = |k: &str| schema.get(k).and_then(Value::as_str).map(str::to_owned);
    let branches = |k: &str| -> Result<Vec<Type>, SchemaError> {
        let list = array(k).into_iter().flatten().enumerate();
        list.map(|(i, s)| convert(s, &format!("{path}.{k}[{i}]"))).collect()
    };
    let rules = Rules {
        enumeration: array("enum").cloned().unwrap_or_default(),
        minimum: number("minimum"),
        exclusive_minimum: flag(schema, "exclusiveMinimum"),
        maximum: number("maximum"),
        exclusive_maximum: flag(schema, "exclusiveMaximum"),
        multiple_of: number("multipleOf"),
        min_length: count("minLength"),
        max_length: count("maxLength"),
        pattern: owned("pattern").filter(|p| !p.is_empty()).map(Pattern::new),
        format: owned("format").filter(|f| is_known_format(text(schema, "type"), f)),
        min_items: count("minItems"),
        max_items: count("maxItems"),
        unique_items: flag(schema, "uniqueItems"),
        min_properties: count("minProperties"),
        max_properties: count("maxProperties"),
        required: array("required")
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect(),
        untyped: schema.get("type").is_none() && !flag(schema, "x-kubernetes-int-or-string"),
        closed: schema.get("additionalProperties") == Some(&Value::Bool(false)),
        all_of: branches("allOf")?,
        any_of: branches("anyOf")?,
        one_of: branches("oneOf")?,
        not: schema.get("not").map(|s| convert(s, &format!("{path}.not"))).transpose()?.map(Box::new),
        validations: array("x-kubernetes-validations").cloned().unwrap_or_default(),
    };
    Ok(if rules.is_empty() { None } else { Some(rules) })
}

/// Whether values of a type (empty for none) are checked against a format; unknown ones say nothing.
pub fn is_known_format(ty: &str, format: &str) -> bool {
    match ty {
        "" | "string" => FORMATS.contains(&format.replace('-', "").as_str()),
        "integer" => matches!(format, "int32" | "int64"),
        "number" => matches!(format, "float" | "double"),
        _ => false,
    }
}

impl Rules {
    /// No rules.
    pub const fn new() -> Rules {
        Rules {
            enumeration: Vec::new(),
            minimum: None,
            exclusive_minimum: false,
            maximum: None,
            exclusive_maximum: false,
            multiple_of: None,
            min_length: None,
            max_length: None,
            pattern: None,
            format: None,
            min_items: None,
            max_items: None,
            unique_items: false,
            min_properties: None,
            max_properties: None,
            required: Vec::new(),
            untyped: false,
            closed: false,
            all_of: Vec::new(),
            any_of: Vec::new(),
            one_of: Vec::new(),
            not: None,
            validations: Vec::new(),
        }
    }

    fn is_empty(&self) -> bool {
        let numbers = self.minimum.or(self.maximum).or(self.multiple_of).is_some();
        let sizes = [self.min_length, self.max_length, self.min_items, self.max_items];
        let counts =
            sizes.iter().any(Option::is_some) || self.min_properties.or(self.max_properties).is_some();
        let texts = self.pattern.is_some() || self.format.is_some();
        let branches = [&self.all_of, &self.any_of, &self.one_of].iter().any(|b| !b.is_empty());
        let lists = !self.enumeration.is_empty() || !self.required.is_empty() || !self.validations.is_empty();
        !(self.untyped
            || self.closed
            || numbers
            || counts
            || texts
            || branches
            || lists
            || self.unique_items
            || self.not.is_some())
    }
}

/// Gives an object type the fields that every Kubernetes object has.
fn add_object_fields(object: &mut Object) {
    let string = || Link::Static(&Type { shape: Shape::String, nullable: false, rules: None });
    for (name, ty) in [("apiVersion", string()), ("kind", string()), ("metadata", builtin().object_meta())] {
        match object.fields.binary_search_by(|f| (*f.name).cmp(name)) {
            Ok(at) => {
                object.restricted.push(std::mem::replace(&mut object.fields[at], field(name, ty)));
            }
            Err(at) => object.fields.insert(at, field(name, ty)),
        }
    }
}

fn field(name: &str, ty: Link) -> Field {
    Field {
        name: Cow::Owned(name.to_owned()),
        ty,
        required: false,
        default: None,
        atomic: false,
        emit_zero: false,
        pointer: false,
        proto: "",
        patch: Patch::default(),
        go_type: "",
    }
}

fn flag(schema: &Value, key: &str) -> bool {
    schema.get(key).and_then(Value::as_bool).unwrap_or(false)
}

fn text<'a>(schema: &'a Value, key: &str) -> &'a str {
    schema.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn err<T>(path: &str, problem: &str) -> Result<T, SchemaError> {
    Err(SchemaError { path: path.to_owned(), problem: problem.to_owned() })
}
