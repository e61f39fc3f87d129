//! Values: scalars, and collections that borrow from JSON until something is built of them.

mod compare;
mod json;
mod opaque;

use crate::declare::{Declared, ListKind, Shape};
use crate::error::EvalError;
use serde_json::Value as Json;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

pub use opaque::{Cidr, Opaque};

/// A value of an expression. `'a` is the lifetime of the JSON that it was read from.
#[derive(Clone, Debug)]
pub enum Value<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Text<'a>),
    Bytes(Arc<[u8]>),
    /// In nanoseconds.
    Duration(i64),
    Timestamp(jiff::Timestamp),
    List(List<'a>),
    Map(Map<'a>),
    Optional(Option<Arc<Value<'a>>>),
    /// A type, by its name.
    Type(Cow<'static, str>),
    /// `Object{}`, `JSONPatch{}`.
    Struct(Arc<Struct<'a>>),
    Opaque(Opaque<'a>),
}

/// A string, borrowed where it can be.
#[derive(Clone)]
pub enum Text<'a> {
    Borrowed(&'a str),
    Shared(Arc<str>),
}

#[derive(Clone, Debug)]
pub struct List<'a> {
    items: Items<'a>,
    declared: Option<&'a Declared>,
}

#[derive(Clone, Debug)]
enum Items<'a> {
    Json(&'a [Json]),
    Built(Arc<Vec<Value<'a>>>),
}

/// A map, or an object with declared fields.
#[derive(Clone, Debug)]
pub struct Map<'a> {
    entries: Entries<'a>,
    declared: Option<&'a Declared>,
}

#[derive(Clone, Debug)]
enum Entries<'a> {
    Json(&'a serde_json::Map<String, Json>),
    Built(Arc<BTreeMap<Key<'a>, Value<'a>>>),
}

/// A map's key; integers are equal by their number.
#[derive(Clone, Debug)]
pub enum Key<'a> {
    Bool(bool),
    Int(i64),
    Uint(u64),
    String(Text<'a>),
}

/// An object that an expression built.
#[derive(Clone, Debug)]
pub struct Struct<'a> {
    pub type_name: Arc<str>,
    pub fields: BTreeMap<Arc<str>, Value<'a>>,
}

impl<'a> Value<'a> {
    pub fn list(items: Vec<Value<'a>>) -> Value<'a> {
        Value::List(List { items: Items::Built(Arc::new(items)), declared: None })
    }

    pub fn map(entries: BTreeMap<Key<'a>, Value<'a>>) -> Value<'a> {
        Value::Map(Map { entries: Entries::Built(Arc::new(entries)), declared: None })
    }

    pub fn some(value: Value<'a>) -> Value<'a> {
        Value::Optional(Some(Arc::new(value)))
    }

    pub(crate) fn borrowed(text: &'a str) -> Value<'a> {
        Value::String(Text::Borrowed(text))
    }

    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Value::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// The name of the value's type, as `type()` gives it and messages say it.
    pub fn type_name(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Value::Null => "null_type",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Uint(_) => "uint",
            Value::Double(_) => "double",
            Value::String(_) => "string",
            Value::Bytes(_) => "bytes",
            Value::Duration(_) => "google.protobuf.Duration",
            Value::Timestamp(_) => "google.protobuf.Timestamp",
            Value::List(_) => "list",
            Value::Map(_) => "map",
            Value::Optional(_) => "optional_type",
            Value::Type(_) => "type",
            Value::Struct(value) => return Cow::Owned(value.type_name.to_string()),
            Value::Opaque(value) => value.type_name(),
        })
    }

    /// Characters, bytes, items or entries; `None` for what has no size.
    pub(crate) fn size(&self) -> Option<u64> {
        Some(match self {
            Value::String(text) => text.chars().count() as u64,
            Value::Bytes(bytes) => bytes.len() as u64,
            Value::List(list) => list.len() as u64,
            Value::Map(map) => map.len() as u64,
            Value::Opaque(value) => return value.size(),
            _ => return None,
        })
    }

    /// Whether `optional.ofNonZeroValue` drops the value.
    pub(crate) fn is_zero(&self) -> bool {
        match self {
            Value::Null => true,
            Value::Bool(value) => !value,
            Value::Int(value) => *value == 0,
            Value::Uint(value) => *value == 0,
            Value::Double(value) => *value == 0.0,
            Value::String(text) => text.is_empty(),
            Value::Bytes(bytes) => bytes.is_empty(),
            Value::Duration(nanos) => *nanos == 0,
            Value::Timestamp(_) | Value::Type(_) | Value::Opaque(_) => false,
            Value::List(list) => list.is_empty(),
            Value::Map(map) => map.is_empty(),
            Value::Optional(value) => value.as_ref().is_none_or(|v| v.is_zero()),
            Value::Struct(value) => value.fields.is_empty(),
        }
    }
}

impl<'a> List<'a> {
    pub fn len(&self) -> usize {
        match &self.items {
            Items::Json(items) => items.len(),
            Items::Built(items) => items.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// # Errors
    /// When the item is not what its schema says.
    pub fn get(&self, index: usize) -> Option<Result<Value<'a>, EvalError>> {
        match &self.items {
            Items::Json(items) => {
                let item = items.get(index)?;
                Some(Value::read(item, self.declared.and_then(Declared::element).map(|d| &**d)))
            }
            Items::Built(items) => items.get(index).cloned().map(Ok),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = Result<Value<'a>, EvalError>> + '_ {
        (0..self.len()).filter_map(|i| self.get(i))
    }

    pub(crate) fn to_vec(&self) -> Result<Vec<Value<'a>>, EvalError> {
        self.iter().collect()
    }

    fn kind(&self) -> &ListKind {
        match self.declared.map(|d| &d.shape) {
            Some(Shape::List(_, kind)) => kind,
            _ => &ListKind::Atomic,
        }
    }

    /// Adds an item in place where nobody else holds the list.
    pub(crate) fn push(&mut self, item: Value<'a>) -> Result<(), EvalError> {
        if let Items::Json(_) = self.items {
            self.items = Items::Built(Arc::new(self.to_vec()?));
        }
        if let Items::Built(items) = &mut self.items {
            Arc::make_mut(items).push(item);
        }
        Ok(())
    }

    /// `self + other`: a set gains what it lacks, a map-like list has the items of equal keys replaced.
    pub(crate) fn concat(&self, other: &List<'a>) -> Result<List<'a>, EvalError> {
        let mut items = self.to_vec()?;
        for item in other.iter() {
            let item = item?;
            match self.kind() {
                ListKind::Atomic => items.push(item),
                ListKind::Set => {
                    if !items.iter().any(|i| i.equals(&item)) {
                        items.push(item);
                    }
                }
                ListKind::Map(keys) => match items.iter_mut().find(|i| i.same_keys(&item, keys)) {
                    Some(place) => *place = item,
                    None => items.push(item),
                },
            }
        }
        Ok(List { items: Items::Built(Arc::new(items)), declared: self.declared })
    }
}

impl<'a> Map<'a> {
    pub fn len(&self) -> usize {
        match &self.entries {
            Entries::Json(entries) => entries.len(),
            Entries::Built(entries) => entries.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value of a key; of an object, the field by its escaped name.
    ///
    /// # Errors
    /// When the value is not what its schema says.
    pub fn get(&self, key: &Key<'_>) -> Option<Result<Value<'a>, EvalError>> {
        match &self.entries {
            Entries::Built(entries) => entries.get(key).cloned().map(Ok),
            Entries::Json(entries) => {
                let Key::String(name) = key else { return None };
                match self.declared.map(|d| &d.shape) {
                    Some(Shape::Object(object)) => {
                        // A null field is as good as absent.
                        let property = object.field(name)?;
                        let json = entries.get(&*property.json).filter(|json| !json.is_null())?;
                        Some(Value::read(json, Some(&property.declared)))
                    }
                    _ => {
                        let declared = self.declared.and_then(Declared::element).map(|d| &**d);
                        Some(Value::read(entries.get(&**name)?, declared))
                    }
                }
            }
        }
    }

    pub fn get_str(&self, name: &str) -> Option<Result<Value<'a>, EvalError>> {
        self.get(&Key::String(Text::Borrowed(name)))
    }

    /// All keys; of an object, the escaped names of the declared fields that are set.
    pub fn keys(&self) -> Vec<Key<'a>> {
        match &self.entries {
            Entries::Built(entries) => entries.keys().cloned().collect(),
            Entries::Json(entries) => match self.declared.map(|d| &d.shape) {
                Some(Shape::Object(object)) => object
                    .fields()
                    .filter(|(_, property)| entries.contains_key(&*property.json))
                    .map(|(name, _)| Key::String(Text::Shared(name.clone())))
                    .collect(),
                _ => entries.keys().map(|name| Key::String(Text::Borrowed(name))).collect(),
            },
        }
    }

    /// The same map with one entry more.
    pub(crate) fn insert(mut self, key: Key<'a>, value: Value<'a>) -> Result<Map<'a>, EvalError> {
        if self.get(&key).is_some() {
            return Err(EvalError::new(format!("insert failed: key {} already exists", key.to_value())));
        }
        if let Entries::Json(_) = self.entries {
            let mut built = BTreeMap::new();
            for key in self.keys() {
                let value = self.get(&key).unwrap_or(Ok(Value::Null))?;
                built.insert(key, value);
            }
            self.entries = Entries::Built(Arc::new(built));
        }
        if let Entries::Built(entries) = &mut self.entries {
            Arc::make_mut(entries).insert(key, value);
        }
        Ok(self)
    }
}

impl<'a> Key<'a> {
    /// The key that a value makes; a whole double is its integer.
    ///
    /// # Errors
    /// When no map has keys of the value's type.
    pub fn from_value(value: &Value<'a>) -> Result<Key<'a>, EvalError> {
        Ok(match value {
            Value::Bool(value) => Key::Bool(*value),
            Value::Int(value) => Key::Int(*value),
            Value::Uint(value) => Key::Uint(*value),
            Value::String(text) => Key::String(text.clone()),
            Value::Double(number) if *number == (*number as i64) as f64 => Key::Int(*number as i64),
            Value::Double(number) if *number == (*number as u64) as f64 => Key::Uint(*number as u64),
            other => return Err(EvalError::new(format!("unsupported key type: {}", other.type_name()))),
        })
    }

    pub fn to_value(&self) -> Value<'a> {
        match self {
            Key::Bool(value) => Value::Bool(*value),
            Key::Int(value) => Value::Int(*value),
            Key::Uint(value) => Value::Uint(*value),
            Key::String(text) => Value::String(text.clone()),
        }
    }
}

impl std::ops::Deref for Text<'_> {
    type Target = str;
    fn deref(&self) -> &str {
        match self {
            Text::Borrowed(text) => text,
            Text::Shared(text) => text,
        }
    }
}

impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl From<String> for Value<'_> {
    fn from(text: String) -> Self {
        Value::String(Text::Shared(text.into()))
    }
}

impl From<&str> for Value<'_> {
    fn from(text: &str) -> Self {
        Value::String(Text::Shared(text.into()))
    }
}

impl From<bool> for Value<'_> {
    fn from(value: bool) -> Self {
        Value::Bool(value)
    }
}

impl From<i64> for Value<'_> {
    fn from(value: i64) -> Self {
        Value::Int(value)
    }
}

/// As messages show values: scalars as they are, collections as literals.
impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Null => f.write_str("null"),
            Value::Bool(value) => write!(f, "{value}"),
            Value::Int(value) => write!(f, "{value}"),
            Value::Uint(value) => write!(f, "{value}"),
            Value::Double(value) => f.write_str(&crate::number::shortest(*value)),
            Value::String(text) => f.write_str(text),
            Value::Bytes(bytes) => f.write_str(&String::from_utf8_lossy(bytes)),
            Value::Duration(nanos) => f.write_str(&crate::time::duration_text(*nanos)),
            Value::Timestamp(time) => f.write_str(&crate::time::timestamp_text(*time)),
            Value::List(list) => {
                f.write_str("[")?;
                for (i, item) in list.iter().flatten().enumerate() {
                    write!(f, "{}{item}", if i > 0 { ", " } else { "" })?;
                }
                f.write_str("]")
            }
            Value::Map(map) => {
                f.write_str("{")?;
                for (i, key) in map.keys().iter().enumerate() {
                    write!(f, "{}{}", if i > 0 { ", " } else { "" }, key.to_value())?;
                    if let Some(Ok(value)) = map.get(key) {
                        write!(f, ": {value}")?;
                    }
                }
                f.write_str("}")
            }
            Value::Optional(None) => f.write_str("optional.none()"),
            Value::Optional(Some(value)) => write!(f, "optional({value})"),
            Value::Type(name) => f.write_str(name),
            Value::Struct(value) => write!(f, "{}{{}}", value.type_name),
            Value::Opaque(value) => f.write_str(&value.text()),
        }
    }
}
