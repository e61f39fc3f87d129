//! Values into messages, as upstream's encoder writes them: fields by number, map keys sorted, zeros of
//! fields that are no pointers included.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use keelson_api_types::{Gvk, duration, meta};
use keelson_schema::{Field, Layout, Object, Shape, Slot, Type};
use serde_json::{Map, Value};

use super::wire::{self, Payload, Wire, bytes, double, nested, number};
use super::{MAGIC, Union, is_wrapped, schema_type, type_of};

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum EncodeError {
    #[error("an object without apiVersion and kind has no message")]
    Unnamed,
    #[error("no message is known for {0}")]
    UnknownKind(String),
    #[error("{0} does not fit the type of its message field")]
    Mismatch(String),
}

type Encoded = Result<(), EncodeError>;

fn mismatch(value: &Value) -> EncodeError {
    let mut text = value.to_string();
    if text.len() > 64 {
        let end = (0..=61).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
        text.truncate(end);
        text.push_str("...");
    }
    EncodeError::Mismatch(text)
}

/// An object in its envelope.
pub fn encode(object: &Value) -> Result<Vec<u8>, EncodeError> {
    // The one kind that says no version.
    if object["kind"] == "APIVersions"
        && object["apiVersion"].is_null()
        && let Some(ty) = keelson_schema::builtin().by_name("meta.v1.APIVersions")
    {
        return Ok(enveloped("", "APIVersions", &encode_message(ty, object)?));
    }
    let gvk = Gvk::of(object).ok_or(EncodeError::Unnamed)?;
    let ty = type_of(&gvk).ok_or_else(|| EncodeError::UnknownKind(gvk.to_string()))?;
    Ok(enveloped(&gvk.api_version(), &gvk.kind, &encode_message(ty, object)?))
}

/// An object's own message, without an envelope.
pub fn encode_message(ty: &Type, object: &Value) -> Result<Vec<u8>, EncodeError> {
    let mut out = Vec::with_capacity(1024);
    message(&mut out, ty, object)?;
    Ok(out)
}

/// A message in an envelope: the magic and a `runtime.Unknown`.
pub fn enveloped(api_version: &str, kind: &str, message: &[u8]) -> Vec<u8> {
    let mut out = envelope_head(api_version, kind, message.len());
    out.extend_from_slice(message);
    out.extend_from_slice(ENVELOPE_TAIL);
    out
}

/// Everything of an envelope up to a message of `length` bytes; [`ENVELOPE_TAIL`] follows it.
fn envelope_head(api_version: &str, kind: &str, length: usize) -> Vec<u8> {
    let mut type_meta = Vec::with_capacity(64);
    bytes(&mut type_meta, 1, api_version.as_bytes());
    bytes(&mut type_meta, 2, kind.as_bytes());
    let mut out = Vec::with_capacity(length + 128);
    out.extend_from_slice(MAGIC);
    bytes(&mut out, 1, &type_meta);
    wire::prefix(&mut out, 2, length);
    out
}

/// Empty content encoding and type.
pub const ENVELOPE_TAIL: &[u8] = &[0x1a, 0, 0x22, 0];

/// Every list has its items in this field, after the metadata.
const ITEMS: u32 = 2;

/// A list up to its first item, given the lengths of the items' messages; `list` is the list without items.
/// Each item is [`list_item`] and its message, and [`ENVELOPE_TAIL`] ends it all: so a list can be sent in pieces.
pub fn list_head(list: &Value, items: impl Iterator<Item = usize>) -> Result<Vec<u8>, EncodeError> {
    let gvk = Gvk::of(list).ok_or(EncodeError::Unnamed)?;
    let ty = type_of(&gvk).ok_or_else(|| EncodeError::UnknownKind(gvk.to_string()))?;
    let own = encode_message(ty, list)?;
    let all: usize = items.map(|length| list_item(length).len() + length).sum();
    let mut out = envelope_head(&gvk.api_version(), &gvk.kind, own.len() + all);
    out.extend_from_slice(&own);
    Ok(out)
}

/// What stands before an item's message of `length` bytes.
pub fn list_item(length: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(6);
    wire::prefix(&mut out, ITEMS, length);
    out
}

/// An object's metadata, which is field 1 of every message, as a message that has nothing else: how many of the
/// message's bytes it takes.
pub fn metadata_length(message: &[u8]) -> usize {
    let mut rest = Wire(message);
    match rest.next() {
        Some(Ok((1, Payload::Bytes(_)))) => message.len() - rest.0.len(),
        _ => 0,
    }
}

/// A watch's event as it is streamed: four bytes of length, then type and object, which is in an envelope.
pub fn watch_frame(kind: &str, object: &[u8]) -> Vec<u8> {
    let mut raw = Vec::with_capacity(object.len() + 6);
    bytes(&mut raw, 1, object);
    let mut out = Vec::with_capacity(object.len() + 32);
    out.extend_from_slice(&[0; 4]);
    bytes(&mut out, 1, kind.as_bytes());
    bytes(&mut out, 2, &raw);
    let length = u32::try_from(out.len() - 4).unwrap_or(u32::MAX);
    out[..4].copy_from_slice(&length.to_be_bytes());
    out
}

/// The fields of one message. Null stands for a zero value.
fn message(out: &mut Vec<u8>, ty: &Type, value: &Value) -> Encoded {
    match (&ty.shape, value) {
        (Shape::Object(object), Value::Object(map)) => fields(out, object, object.layout(), map),
        (Shape::Object(object), Value::Null) => fields(out, object, object.layout(), &Map::new()),
        // A named list in a map is a message with the items as its first field.
        (Shape::List(list), Value::Array(items)) => items.iter().try_for_each(|i| one(out, 1, &list.item, i)),
        (Shape::List(_), Value::Null) => Ok(()),
        (Shape::Quantity, _) => {
            let text = match value {
                Value::Null => "0".to_owned(),
                Value::String(text) => text.clone(),
                Value::Number(n) => n.to_string(),
                _ => return Err(mismatch(value)),
            };
            bytes(out, 1, text.as_bytes());
            Ok(())
        }
        (Shape::IntOrString, _) => int_or_string(out, value),
        (Shape::Time, _) => time(out, value, 1_000_000_000),
        (Shape::MicroTime, _) => time(out, value, 1_000),
        (Shape::Duration, _) => {
            let nanos = match value {
                Value::Null => 0,
                _ => value.as_str().and_then(duration::parse_go).ok_or_else(|| mismatch(value))?,
            };
            number(out, 1, nanos as u64);
            Ok(())
        }
        (Shape::RawExtension | Shape::FieldsV1, Value::Null) => Ok(()),
        (Shape::RawExtension | Shape::Any | Shape::FieldsV1, _) => {
            bytes(out, 1, value.to_string().as_bytes());
            Ok(())
        }
        _ => Err(mismatch(value)),
    }
}

fn fields(out: &mut Vec<u8>, object: &Object, layout: &Layout, map: &Map<String, Value>) -> Encoded {
    for (number, slot) in layout.iter() {
        match slot {
            Slot::Field(at) => {
                let declared = &object.fields[*at];
                field(out, number, declared, map.get(&*declared.name).unwrap_or(&Value::Null))?;
            }
            Slot::Embedded(inner) => nested(out, number, |out| fields(out, object, inner, map))?,
        }
    }
    Ok(())
}

fn field(out: &mut Vec<u8>, number: u32, field: &Field, value: &Value) -> Encoded {
    match (&field.ty.shape, value) {
        (Shape::List(_) | Shape::Map(_) | Shape::Bytes | Shape::Any, Value::Null) => Ok(()),
        (_, Value::Null) if field.pointer => Ok(()),
        (Shape::List(_), _) if is_wrapped(field) => nested(out, number, |out| message(out, &field.ty, value)),
        (Shape::List(list), Value::Array(items)) => {
            items.iter().try_for_each(|item| one(out, number, &list.item, item))
        }
        (Shape::Map(entries), Value::Object(map)) => map.iter().try_for_each(|(key, item)| {
            nested(out, number, |out| {
                bytes(out, 1, key.as_bytes());
                match Union::of(field) {
                    Some(union) => nested(out, 2, |out| schema_or(out, union, item)),
                    None => one(out, 2, &entries.value, item),
                }
            })
        }),
        _ => match Union::of(field) {
            Some(union) => nested(out, number, |out| schema_or(out, union, value)),
            None => one(out, number, &field.ty, value),
        },
    }
}

/// One value with its tag. Null stands for a zero value.
fn one(out: &mut Vec<u8>, at: u32, ty: &Type, value: &Value) -> Encoded {
    match (&ty.shape, value) {
        (Shape::String | Shape::Bytes, Value::Null) => bytes(out, at, b""),
        (Shape::String, Value::String(text)) => bytes(out, at, text.as_bytes()),
        (Shape::Bytes, Value::String(text)) => {
            bytes(out, at, &STANDARD.decode(text).map_err(|_| mismatch(value))?);
        }
        (Shape::Int32 | Shape::Int64 | Shape::Bool, Value::Null) => number(out, at, 0),
        (Shape::Int32 | Shape::Int64, Value::Number(n)) => {
            let whole = n.as_i64().or_else(|| n.as_f64().filter(|f| f.fract() == 0.0).map(|f| f as i64));
            number(out, at, whole.ok_or_else(|| mismatch(value))? as u64);
        }
        (Shape::Bool, Value::Bool(set)) => number(out, at, u64::from(*set)),
        (Shape::Float, Value::Null) => double(out, at, 0.0),
        (Shape::Float, Value::Number(n)) => double(out, at, n.as_f64().ok_or_else(|| mismatch(value))?),
        (Shape::String | Shape::Bytes | Shape::Int32 | Shape::Int64 | Shape::Bool | Shape::Float, _)
        | (Shape::Map(_), _) => return Err(mismatch(value)),
        _ => nested(out, at, |out| message(out, ty, value))?,
    }
    Ok(())
}

/// A schema, or what may stand in its place.
fn schema_or(out: &mut Vec<u8>, union: Union, value: &Value) -> Encoded {
    let props = schema_type().ok_or_else(|| EncodeError::UnknownKind("JSONSchemaProps".into()))?;
    match (union, value) {
        (Union::Bool, Value::Bool(allowed)) => number(out, 1, u64::from(*allowed)),
        (Union::Bool, Value::Object(_)) => {
            number(out, 1, 1);
            one(out, 2, props, value)?;
        }
        (_, Value::Object(_)) => one(out, 1, props, value)?,
        (Union::Array, Value::Array(items)) => items.iter().try_for_each(|item| one(out, 2, props, item))?,
        (Union::StringArray, Value::Array(items)) => {
            for item in items {
                bytes(out, 2, item.as_str().ok_or_else(|| mismatch(value))?.as_bytes());
            }
        }
        _ => return Err(mismatch(value)),
    }
    Ok(())
}

fn int_or_string(out: &mut Vec<u8>, value: &Value) -> Encoded {
    let (kind, int, text) = match value {
        Value::Null => (0, 0, ""),
        Value::Number(n) => (0, n.as_i64().ok_or_else(|| mismatch(value))?, ""),
        Value::String(text) => (1, 0, text.as_str()),
        _ => return Err(mismatch(value)),
    };
    number(out, 1, kind);
    number(out, 2, int as u64);
    bytes(out, 3, text.as_bytes());
    Ok(())
}

/// Seconds and nanoseconds, the latter to `unit` only; the zero time is an empty message.
fn time(out: &mut Vec<u8>, value: &Value, unit: i64) -> Encoded {
    if value.is_null() {
        return Ok(());
    }
    let at = value.as_str().and_then(meta::parse_time).ok_or_else(|| mismatch(value))?;
    let nanos = at.as_nanosecond();
    number(out, 1, nanos.div_euclid(1_000_000_000) as i64 as u64);
    number(out, 2, (nanos.rem_euclid(1_000_000_000) as i64 / unit * unit) as u64);
    Ok(())
}
