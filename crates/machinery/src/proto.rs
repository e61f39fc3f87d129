//! Kubernetes' protobuf encoding into values, driven by the schema's field numbers.
//!
//! A body is the magic `k8s\0` and a `runtime.Unknown`: apiVersion and kind, then the object's own message.
//! Its encoder writes zero values of fields that are no pointers; JSON leaves those out, and so do we.

mod wire;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use keelson_api_types::meta;
use keelson_schema::{Field, Object, Shape, Type};
use serde_json::{Map, Value, json};

use crate::decode::DecodeError;
use wire::{Payload, Wire};

const MAGIC: &[u8] = b"k8s\0";
/// Deeper nesting than any API type has, and less than a stack bears.
const MAX_DEPTH: usize = 64;

/// An object's message, still encoded, with what its envelope says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope<'a> {
    pub api_version: String,
    pub kind: String,
    pub raw: &'a [u8],
}

fn malformed(problem: impl std::fmt::Display) -> DecodeError {
    DecodeError::Type(format!("proto: {problem}"))
}

/// Opens the envelope of a body.
pub fn open(body: &[u8]) -> Result<Envelope<'_>, DecodeError> {
    let rest = body.strip_prefix(MAGIC).ok_or_else(|| {
        malformed("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")
    })?;
    let mut envelope = Envelope { api_version: String::new(), kind: String::new(), raw: &[] };
    for item in Wire(rest) {
        match item.map_err(malformed)? {
            (1, Payload::Bytes(type_meta)) => {
                for item in Wire(type_meta) {
                    match item.map_err(malformed)? {
                        (1, Payload::Bytes(text)) => envelope.api_version = string(text)?,
                        (2, Payload::Bytes(text)) => envelope.kind = string(text)?,
                        _ => {}
                    }
                }
            }
            (2, Payload::Bytes(raw)) => envelope.raw = raw,
            _ => {}
        }
    }
    Ok(envelope)
}

/// Decodes a message as a type; fields that the type does not know are skipped.
pub fn decode(ty: &Type, message: &[u8]) -> Result<Value, DecodeError> {
    value_of_message(ty, message, 0)
}

fn string(bytes: &[u8]) -> Result<String, DecodeError> {
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| malformed("a string is not UTF-8"))
}

fn value_of_message(ty: &Type, message: &[u8], depth: usize) -> Result<Value, DecodeError> {
    if depth > MAX_DEPTH {
        return Err(malformed("too deep"));
    }
    match &ty.shape {
        Shape::Object(object) => {
            let mut map = Map::new();
            fields(object, message, "", &mut map, depth)?;
            Ok(Value::Object(map))
        }
        // A named list in a map is a message with the items as its first field.
        Shape::List(list) => {
            let mut items = Vec::new();
            for item in Wire(message) {
                items.push(value(&list.item, item.map_err(malformed)?.1, depth + 1)?);
            }
            Ok(Value::Array(items))
        }
        Shape::Quantity => Ok(json!(string(first(message, 1)?.bytes())?)),
        Shape::IntOrString => int_or_string(message),
        Shape::Time => Ok(time(message, false)?),
        Shape::MicroTime => Ok(time(message, true)?),
        Shape::Duration => Ok(json!(go_duration(first(message, 1)?.number() as i64))),
        Shape::RawExtension | Shape::Any | Shape::FieldsV1 => raw_json(first(message, 1)?.bytes()),
        _ => Err(malformed("a message where a scalar is expected")),
    }
}

/// Reads the fields of a message into `map`. `prefix` is the way to a message that is embedded in JSON.
fn fields(
    object: &Object,
    message: &[u8],
    prefix: &str,
    map: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), DecodeError> {
    for item in Wire(message) {
        let (number, payload) = item.map_err(malformed)?;
        let path = format!("{prefix}{number}");
        if let Some(field) = object.fields.iter().find(|f| f.proto == path) {
            add(field, payload, map, depth)?;
        } else if let Payload::Bytes(embedded) = payload {
            let path = format!("{path}.");
            if object.fields.iter().any(|f| f.proto.starts_with(&path)) {
                fields(object, embedded, &path, map, depth + 1)?;
            }
        }
    }
    Ok(())
}

fn add(
    field: &Field,
    payload: Payload<'_>,
    map: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), DecodeError> {
    let name = &*field.name;
    match &field.ty.shape {
        Shape::List(list) => {
            let slot = map.entry(name).or_insert_with(|| json!([]));
            let Value::Array(items) = slot else { return Ok(()) };
            match payload {
                Payload::Bytes(packed) if matches!(list.item.shape, Shape::Int32 | Shape::Int64) => {
                    for number in wire::packed(packed) {
                        items.push(json!(number.map_err(malformed)? as i64));
                    }
                }
                payload => items.push(one(field, &list.item, payload, depth)?),
            }
        }
        Shape::Map(entries) => {
            let slot = map.entry(name).or_insert_with(|| json!({}));
            let (key, item) = entry(payload.bytes())?;
            let item = one(field, &entries.value, item, depth)?;
            slot[string(key)?] = item;
        }
        _ => {
            let decoded = one(field, &field.ty, payload, depth)?;
            if field.pointer || !is_zero(&decoded) {
                map.insert(name.to_owned(), decoded);
            }
        }
    }
    Ok(())
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(b) => !b,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::String(s) => s.is_empty(),
        Value::Array(a) => a.is_empty(),
        Value::Object(o) => o.is_empty(),
    }
}

/// One value of a field; the JSON schema types of CRDs are unions that only Go's name tells apart.
fn one(field: &Field, ty: &Type, payload: Payload<'_>, depth: usize) -> Result<Value, DecodeError> {
    let kind = field.go_type.rsplit('.').next().unwrap_or_default();
    if !kind.starts_with("JSONSchemaPropsOr") {
        return value(ty, payload, depth + 1);
    }
    let props = keelson_schema::builtin()
        .by_name("apiextensions.v1.JSONSchemaProps")
        .ok_or_else(|| malformed("no schema of JSON schemas"))?;
    let mut list = Vec::new();
    let mut allows = Value::Bool(false);
    for item in Wire(payload.bytes()) {
        match (kind, item.map_err(malformed)?) {
            ("JSONSchemaPropsOrBool", (1, allowed)) => allows = json!(allowed.number() != 0),
            ("JSONSchemaPropsOrBool", (2, schema)) | (_, (1, schema)) => {
                return value(props, schema, depth + 1);
            }
            ("JSONSchemaPropsOrStringArray", (2, text)) => list.push(json!(string(text.bytes())?)),
            (_, (2, schema)) => list.push(value(props, schema, depth + 1)?),
            _ => {}
        }
    }
    Ok(if kind == "JSONSchemaPropsOrBool" { allows } else { Value::Array(list) })
}

fn value(ty: &Type, payload: Payload<'_>, depth: usize) -> Result<Value, DecodeError> {
    Ok(match &ty.shape {
        Shape::String => json!(string(payload.bytes())?),
        Shape::Int32 => json!(payload.number() as i32),
        Shape::Int64 => json!(payload.number() as i64),
        Shape::Bool => json!(payload.number() != 0),
        Shape::Float => json!(f64::from_bits(payload.number())),
        Shape::Bytes => json!(STANDARD.encode(payload.bytes())),
        Shape::Map(_) => json!({}),
        _ => value_of_message(ty, payload.bytes(), depth)?,
    })
}

/// Key and value of a map's entry.
fn entry(message: &[u8]) -> Result<(&[u8], Payload<'_>), DecodeError> {
    let (mut key, mut value): (&[u8], _) = (&[], Payload::Bytes(&[]));
    for item in Wire(message) {
        match item.map_err(malformed)? {
            (1, payload) => key = payload.bytes(),
            (2, payload) => value = payload,
            _ => {}
        }
    }
    Ok((key, value))
}

fn first(message: &[u8], wanted: u32) -> Result<Payload<'_>, DecodeError> {
    for item in Wire(message) {
        let (number, payload) = item.map_err(malformed)?;
        if number == wanted {
            return Ok(payload);
        }
    }
    Ok(Payload::Bytes(&[]))
}

fn int_or_string(message: &[u8]) -> Result<Value, DecodeError> {
    Ok(match first(message, 1)?.number() {
        0 => json!(first(message, 2)?.number() as i32),
        _ => json!(string(first(message, 3)?.bytes())?),
    })
}

/// An absent time is the zero time: null in JSON.
fn time(message: &[u8], micro: bool) -> Result<Value, DecodeError> {
    if message.is_empty() {
        return Ok(Value::Null);
    }
    let seconds = first(message, 1)?.number() as i64;
    let nanos = first(message, 2)?.number() as i32;
    let at = jiff::Timestamp::new(seconds, nanos).map_err(malformed)?;
    Ok(json!(if micro { meta::micro(at) } else { meta::rfc3339(at) }))
}

/// A duration as Go prints it: `1h2m3.5s`.
fn go_duration(nanos: i64) -> String {
    let total = nanos.unsigned_abs();
    let sign = if nanos < 0 { "-" } else { "" };
    let trim = |text: String| text.trim_end_matches('0').trim_end_matches('.').to_owned();
    if total == 0 {
        return "0s".into();
    }
    if total < 1_000_000_000 {
        let (unit, size) = match total {
            n if n < 1_000 => ("ns", 1),
            n if n < 1_000_000 => ("µs", 1_000),
            _ => ("ms", 1_000_000),
        };
        let text = format!("{}.{:09}", total / size, total % size * (1_000_000_000 / size));
        return format!("{sign}{}{unit}", trim(text));
    }
    let seconds = total / 1_000_000_000;
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    let rest = trim(format!("{}.{:09}", seconds % 60, total % 1_000_000_000));
    match (hours, minutes) {
        (0, 0) => format!("{sign}{rest}s"),
        (0, m) => format!("{sign}{m}m{rest}s"),
        (h, m) => format!("{sign}{h}h{m}m{rest}s"),
    }
}

/// JSON in a message, or an object in an envelope of its own.
fn raw_json(bytes: &[u8]) -> Result<Value, DecodeError> {
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    if bytes.starts_with(MAGIC) {
        let envelope = open(bytes)?;
        let gvk = keelson_api_types::Gvk::from_api_version(&envelope.api_version, &envelope.kind);
        let ty = keelson_schema::builtin()
            .for_gvk(&gvk)
            .ok_or_else(|| malformed(format!("no schema for {gvk}")))?;
        let mut object = decode(ty, envelope.raw)?;
        object["apiVersion"] = envelope.api_version.into();
        object["kind"] = envelope.kind.into();
        return Ok(object);
    }
    serde_json::from_slice(bytes).map_err(malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_print_as_go_prints_them() {
        let check = |nanos, text| assert_eq!(go_duration(nanos), text);
        check(0, "0s");
        check(1_500_000, "1.5ms");
        check(2_000, "2µs");
        check(90_000_000_000, "1m30s");
        check(3_600_000_000_000, "1h0m0s");
        check(-1_500_000_000, "-1.5s");
    }

    #[test]
    fn rubbish_is_refused() {
        assert!(open(b"{}").is_err());
        assert!(open(b"k8s\0\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f").is_err());
        let pod = keelson_schema::builtin().for_kind("", "v1", "Pod").unwrap();
        assert!(decode(pod, b"\x0a\x05ab").is_err());
    }

    #[test]
    fn embedded_messages_and_pointers_read_as_json_has_them() {
        let ty = keelson_schema::builtin().for_kind("", "v1", "Pod").unwrap();
        // spec.volumes[0] = {name: "v", volumeSource: {emptyDir: {}}}, spec.restartPolicy = ""
        let source = [0x12, 0x02, 0x12, 0x00];
        let volume = [&[0x0a, 0x01, b'v'][..], &source].concat();
        let spec = [&[0x0a, volume.len() as u8][..], &volume, &[0x1a, 0x00]].concat();
        let pod = [&[0x12, spec.len() as u8][..], &spec].concat();
        assert_eq!(decode(ty, &pod).unwrap(), json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}}));
    }
}
