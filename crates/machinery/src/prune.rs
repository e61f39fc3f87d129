//! What decoding into a typed object does: unknown fields go, wrong types are refused, texts become canonical.

mod scalar;

pub use scalar::kind as kind_of;

use crate::decode::DecodeError;
use crate::path::{Path, Step};
use keelson_api_types::FieldError;
use keelson_api_types::gofmt::quote;
use keelson_schema::{Field, Link, List, Map as MapType, Object, Shape, Type};
use serde_json::{Map, Value};
use std::borrow::Cow;

/// The request parameter `fieldValidation`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    /// Drop unknown fields in silence.
    Ignore,
    /// Drop them and warn: the default.
    #[default]
    Warn,
    /// Refuse them.
    Strict,
}

impl FieldValidation {
    /// Parses the parameter; None for what is none of the three.
    pub fn parse(text: &str) -> Option<FieldValidation> {
        match text {
            "" | "Warn" => Some(FieldValidation::Warn),
            "Ignore" => Some(FieldValidation::Ignore),
            "Strict" => Some(FieldValidation::Strict),
            _ => None,
        }
    }
}

/// Upstream stops collecting here.
const MAX_UNKNOWN: usize = 100;

/// Makes `value` what decoding it into `ty` and encoding it again would give, and returns the unknown fields
/// as upstream words them (`unknown field "spec.foo"`). With `Ignore` nothing is collected; `Strict` collects
/// like `Warn`, and [`strict`] turns that (and the decoder's duplicates) into the error.
pub fn check(ty: &Type, value: &mut Value, mode: FieldValidation) -> Result<Vec<String>, DecodeError> {
    let mut walk = Walk { unknown: Vec::new(), collect: mode != FieldValidation::Ignore };
    let at = At { path: &Path::ROOT, owner: None, go: "" };
    walk.value(ty, value, at)?;
    if is_custom(ty) {
        // Metadata is decoded before the rest is pruned, and what is pruned comes sorted.
        let of_metadata = |m: &String| m.starts_with("unknown field \"metadata.");
        walk.unknown.sort_by(|a, b| (!of_metadata(a), a).cmp(&(!of_metadata(b), b)));
    }
    Ok(walk.unknown)
}

/// Whether a type came with a CRD.
pub fn is_custom(ty: &Type) -> bool {
    ty.as_object().is_some_and(|o| o.name.is_empty())
}

/// Brings a stored custom object up to its schema: what the schema does not know goes, malformed metadata too, and
/// defaults come. Returns whether that changed it.
pub fn renew(ty: &Type, value: &mut Value) -> bool {
    let before = value.clone();
    if let (Some(meta), Some(fields)) =
        (ty.field("metadata"), value.get_mut("metadata").and_then(Value::as_object_mut))
    {
        fields.retain(|key, value| {
            let mut alone = Value::Object(Map::from_iter([(key.clone(), value.clone())]));
            check(&meta.ty, &mut alone, FieldValidation::Ignore).is_ok()
        });
        fields.entry("generation").or_insert_with(|| 1.into());
    }
    // What is left to refuse are embedded resources, which are validated when they are written next.
    let _ = check(ty, value, FieldValidation::Ignore);
    default(ty, value);
    *value != before
}

/// Decides about what `check` and the decoder found: under `Strict` anything is an error, otherwise it comes back
/// as warnings (none under `Ignore`).
pub fn strict(mode: FieldValidation, problems: Vec<String>) -> Result<Vec<String>, DecodeError> {
    match mode {
        FieldValidation::Strict if !problems.is_empty() => Err(DecodeError::Strict(problems)),
        FieldValidation::Ignore => Ok(Vec::new()),
        _ => Ok(crate::decode::warnings(problems)),
    }
}

/// Adds what upstream's encoder always writes: empty structs (`status: {}`, `resources: {}`) and zero scalars
/// of fields without `omitempty`. Lists and times that upstream writes as null stay absent.
pub fn fill_zero(ty: &Type, value: &mut Value) {
    match (&ty.shape, value) {
        (Shape::Object(object), Value::Object(map)) => {
            for field in object.fields.iter().filter(|f| f.emit_zero) {
                if let Some(zero) = zero(field).filter(|_| !map.contains_key(&*field.name)) {
                    map.insert(field.name.clone().into_owned(), zero);
                }
            }
            // Most fields are absent: look the present ones up rather than the other way round.
            for (key, child) in map.iter_mut().filter(|(_, v)| v.is_object() || v.is_array()) {
                if let Some(field) = object.field(key).filter(|f| !f.ty.is_scalar()) {
                    fill_zero(&field.ty, child);
                }
            }
        }
        (Shape::List(list), Value::Array(items)) if !list.item.is_scalar() => {
            items.iter_mut().for_each(|item| fill_zero(&list.item, item));
        }
        (Shape::Map(m), Value::Object(map)) if !m.value.is_scalar() => {
            map.values_mut().for_each(|item| fill_zero(&m.value, item));
        }
        _ => {}
    }
}

/// Fills in a CRD schema's defaults: where a field is absent, or null and not nullable.
pub fn default(ty: &Type, value: &mut Value) {
    match (&ty.shape, value) {
        (Shape::Object(object), Value::Object(map)) => {
            for field in &object.fields {
                if let Some(default) = &field.default {
                    let absent = map.get(&*field.name).is_none_or(|v| v.is_null() && !field.ty.nullable);
                    if absent {
                        map.insert(field.name.clone().into_owned(), (**default).clone());
                    }
                }
                if let Some(child) = map.get_mut(&*field.name) {
                    self::default(&field.ty, child);
                }
            }
        }
        (Shape::List(list), Value::Array(items)) => {
            items.iter_mut().for_each(|v| self::default(&list.item, v))
        }
        (Shape::Map(m), Value::Object(map)) => map.values_mut().for_each(|v| self::default(&m.value, v)),
        _ => {}
    }
}

fn zero(field: &Field) -> Option<Value> {
    Some(match field.ty.shape {
        Shape::Object(_) => Value::Object(Map::new()),
        Shape::String => Value::String(String::new()),
        Shape::Int32 | Shape::Int64 => Value::from(0),
        Shape::Bool => Value::Bool(false),
        Shape::Quantity => Value::String("0".to_owned()),
        _ => return None,
    })
}

struct Walk {
    unknown: Vec<String>,
    collect: bool,
}

/// Where the walk is: the path, the struct whose field this is, and Go's name of the type if unusual.
#[derive(Clone, Copy)]
struct At<'a> {
    path: &'a Path<'a>,
    owner: Option<&'a Object>,
    go: &'a str,
}

impl Walk {
    fn value(&mut self, ty: &Type, value: &mut Value, at: At<'_>) -> Result<(), DecodeError> {
        match (&ty.shape, &mut *value) {
            (Shape::Object(object), Value::Object(map)) => self.object(object, map, at),
            (Shape::List(list), Value::Array(items)) => self.list(list, items, at),
            (Shape::Map(m), Value::Object(map)) => self.map(m, map, at),
            (Shape::Any | Shape::RawExtension | Shape::FieldsV1, _) | (_, Value::Null) => Ok(()),
            // A CRD's values are judged by its schema's validation, with another wording.
            _ if at.owner.is_some_and(|o| o.name.is_empty()) => Ok(()),
            _ => scalar::normalise(ty, value).map_err(|e| e.at(ty, at.owner, at.path, at.go)),
        }
    }

    fn object(
        &mut self,
        object: &Object,
        map: &mut Map<String, Value>,
        at: At<'_>,
    ) -> Result<(), DecodeError> {
        let custom = object.name.is_empty();
        let mut stale: Vec<String> = Vec::new();
        for (key, value) in map.iter_mut() {
            let Some(field) = object.field(key) else {
                if !object.preserve_unknown {
                    self.unknown(at.path, key);
                    stale.push(key.clone());
                }
                continue;
            };
            if value.is_null() {
                let kept = match &field.ty {
                    // A default takes its place, or a schema allows it.
                    Link::Owned(ty) if custom => ty.nullable || field.default.is_some(),
                    ty => matches!(ty.shape, Shape::Any),
                };
                if !kept {
                    stale.push(key.clone());
                }
                continue;
            }
            let own = custom && !matches!(field.ty, Link::Owned(_));
            if own && key != "metadata" && !value.is_string() && !at.path.is_root() {
                let path = at.path.then(Step::Field(key)).bracketed();
                let error = FieldError::invalid(path, value.clone(), "must be a string");
                return Err(DecodeError::Type(error.to_string()));
            }
            let step = if own { Step::Apart(&field.name) } else { Step::Field(&field.name) };
            let path = at.path.then(step);
            self.value(&field.ty, value, At { path: &path, owner: Some(object), go: field.go_type })?;
        }
        for key in &stale {
            map.remove(key);
        }
        Ok(())
    }

    fn list(&mut self, list: &List, items: &mut [Value], at: At<'_>) -> Result<(), DecodeError> {
        let go = at.go.strip_prefix("[]").unwrap_or_default();
        for (i, item) in items.iter_mut().enumerate() {
            let path = at.path.then(Step::Index(i));
            self.element(&list.item, item, At { path: &path, go, ..at })?;
        }
        Ok(())
    }

    fn map(&mut self, ty: &MapType, map: &mut Map<String, Value>, at: At<'_>) -> Result<(), DecodeError> {
        let go = at.go.strip_prefix("map[string]").unwrap_or_default();
        if at.owner.is_some_and(|o| o.name.is_empty()) {
            map.retain(|_, v| !v.is_null() || ty.value.nullable);
        }
        for (key, value) in map.iter_mut() {
            let path = at.path.then(Step::Key(key));
            self.element(&ty.value, value, At { path: &path, go, ..at })?;
        }
        Ok(())
    }

    /// An element of a list or map: null means the zero value there, for it cannot be absent.
    fn element(&mut self, ty: &Type, value: &mut Value, at: At<'_>) -> Result<(), DecodeError> {
        if value.is_null() && at.owner.is_some_and(|o| !o.name.is_empty()) {
            *value = match ty.shape {
                Shape::Object(_) => Value::Object(Map::new()),
                Shape::String => Value::String(String::new()),
                Shape::Quantity => Value::String("0".to_owned()),
                Shape::Int32 | Shape::Int64 | Shape::IntOrString => Value::from(0),
                Shape::Bool => Value::Bool(false),
                _ => return Ok(()),
            };
        }
        self.value(ty, value, at)
    }

    fn unknown(&mut self, parent: &Path<'_>, key: &str) {
        if self.collect && self.unknown.len() < MAX_UNKNOWN {
            let path = parent.then(Step::Key(key)).dotted();
            self.unknown.push(format!("unknown field {}", quote(&path)));
        }
    }
}

/// Go's name of a type, as its decoder's errors show it.
fn go_type<'a>(ty: &Type, hint: &'a str) -> Cow<'a, str> {
    if !hint.is_empty() {
        return Cow::Borrowed(hint);
    }
    Cow::Borrowed(match &ty.shape {
        Shape::Object(o) => return Cow::Owned(o.go_type()),
        Shape::List(l) => return Cow::Owned(format!("[]{}", go_type(&l.item, ""))),
        Shape::Map(m) => return Cow::Owned(format!("map[string]{}", go_type(&m.value, ""))),
        Shape::String | Shape::Time | Shape::MicroTime | Shape::Duration => "string",
        Shape::Int32 | Shape::IntOrString => "int32",
        Shape::Int64 => "int64",
        Shape::Float => "float64",
        Shape::Bool => "bool",
        Shape::Bytes => "[]uint8",
        Shape::Quantity => "resource.Quantity",
        Shape::RawExtension => "runtime.RawExtension",
        Shape::Any => "v1.JSON",
        Shape::FieldsV1 => "v1.FieldsV1",
    })
}
