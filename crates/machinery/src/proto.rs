//! Kubernetes' protobuf encoding into values and back, driven by the schema's field numbers.
//!
//! A body is the magic `k8s\0` and a `runtime.Unknown`: apiVersion and kind, then the object's own message.
//! Its encoder writes zero values of fields that are no pointers; JSON leaves those out, and so do we.

mod encode;
pub(crate) mod wire;

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use keelson_api_types::{Gvk, meta};
use keelson_schema::{Field, Layout, Link, List, ListKind, Object, Patch, Shape, Slot, Type};
use serde_json::{Map, Value, json};

use crate::decode::DecodeError;
pub use encode::{
    ENVELOPE_TAIL, EncodeError, encode, encode_message, enveloped, list_head, list_item, metadata_length,
    watch_frame,
};
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

/// The type of a kind that has a message.
fn type_of(gvk: &Gvk) -> Option<&'static Type> {
    match (&*gvk.group, &*gvk.version, &*gvk.kind) {
        ("meta.k8s.io", "v1" | "v1beta1", "PartialObjectMetadata") => Some(&PARTIAL),
        ("meta.k8s.io", "v1" | "v1beta1", "PartialObjectMetadataList") => Some(&PARTIAL_LIST),
        _ => keelson_schema::builtin().for_gvk(gvk),
    }
}

/// An object's metadata alone.
pub static PARTIAL: LazyLock<Type> = LazyLock::new(|| metadata_and("meta.v1.ObjectMeta", None));
/// A list of those.
pub static PARTIAL_LIST: LazyLock<Type> = LazyLock::new(|| {
    let item = Link::Static(&PARTIAL);
    let items = Type::new(Shape::List(List { item, kind: ListKind::Atomic }));
    metadata_and("meta.v1.ListMeta", Some(Link::Owned(items.into())))
});

fn metadata_and(meta: &str, items: Option<Link>) -> Type {
    let field = |name: &'static str, ty, proto| Field {
        name: name.into(),
        ty,
        required: false,
        default: None,
        atomic: false,
        emit_zero: true,
        pointer: false,
        proto,
        patch: Patch::default(),
        go_type: "",
    };
    let items = items.map(|ty| field("items", ty, "2"));
    let metadata = field("metadata", keelson_schema::builtin().link(meta), "1");
    let fields = items.into_iter().chain([metadata]).collect();
    Type::new(Shape::Object(Object::with_fields(fields)))
}

/// Decodes an object in its envelope as `ty`.
pub fn decode_object(ty: &Type, body: &[u8]) -> Result<Value, DecodeError> {
    let envelope = open(body)?;
    let mut object = decode(ty, envelope.raw)?;
    object["apiVersion"] = envelope.api_version.into();
    object["kind"] = envelope.kind.into();
    Ok(object)
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
            fields(object, object.layout(), message, &mut map, depth)?;
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

/// Reads the fields of a message into `map`, those of embedded messages too.
fn fields(
    object: &Object,
    layout: &Layout,
    message: &[u8],
    map: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), DecodeError> {
    if depth > MAX_DEPTH {
        return Err(malformed("too deep"));
    }
    for item in Wire(message) {
        let (number, payload) = item.map_err(malformed)?;
        match layout.get(number) {
            Some(Slot::Field(at)) => add(&object.fields[*at], payload, map, depth)?,
            Some(Slot::Embedded(inner)) => fields(object, inner, payload.bytes(), map, depth + 1)?,
            None => {}
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
        Shape::List(_) if is_wrapped(field) => {
            map.insert(name.to_owned(), value_of_message(&field.ty, payload.bytes(), depth + 1)?);
        }
        Shape::List(list) => {
            let slot = map.entry(name).or_insert_with(|| json!([]));
            let Value::Array(items) = slot else { return Ok(()) };
            match payload {
                Payload::Bytes(packed) if matches!(list.item.shape, Shape::Int32 | Shape::Int64) => {
                    for number in wire::packed(packed) {
                        items.push(value(&list.item, Payload::Number(number.map_err(malformed)?), depth)?);
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

/// Whether a list is a message of its own, with the items as its first field.
fn is_wrapped(field: &Field) -> bool {
    field.go_type == "v1.Verbs"
}

/// What a JSON schema holds in some places: a schema, or something simpler. Only Go's name tells which.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Union {
    Array,
    Bool,
    StringArray,
}

impl Union {
    fn of(field: &Field) -> Option<Self> {
        match field.go_type {
            "v1.JSONSchemaPropsOrArray" => Some(Self::Array),
            "v1.JSONSchemaPropsOrBool" => Some(Self::Bool),
            "v1.JSONSchemaDependencies" => Some(Self::StringArray),
            _ => None,
        }
    }
}

fn schema_type() -> Option<&'static Type> {
    keelson_schema::builtin().by_name("apiextensions.v1.JSONSchemaProps")
}

/// One value of a field.
fn one(field: &Field, ty: &Type, payload: Payload<'_>, depth: usize) -> Result<Value, DecodeError> {
    let Some(union) = Union::of(field) else { return value(ty, payload, depth + 1) };
    let props = schema_type().ok_or_else(|| malformed("no schema of JSON schemas"))?;
    let mut list = Vec::new();
    let mut allows = Value::Bool(false);
    for item in Wire(payload.bytes()) {
        match (union, item.map_err(malformed)?) {
            (Union::Bool, (1, allowed)) => allows = json!(allowed.number() != 0),
            (Union::Bool, (2, schema)) | (_, (1, schema)) => return value(props, schema, depth + 1),
            (Union::StringArray, (2, text)) => list.push(json!(string(text.bytes())?)),
            (_, (2, schema)) => list.push(value(props, schema, depth + 1)?),
            _ => {}
        }
    }
    Ok(if union == Union::Bool { allows } else { Value::Array(list) })
}

fn value(ty: &Type, payload: Payload<'_>, depth: usize) -> Result<Value, DecodeError> {
    Ok(match &ty.shape {
        Shape::String => json!(string(payload.bytes())?),
        Shape::Int32 => json!(payload.number() as i32),
        Shape::Int64 => json!(payload.number() as i64),
        Shape::Bool => json!(payload.number() != 0),
        Shape::Float => float(f64::from_bits(payload.number())),
        Shape::Bytes => json!(STANDARD.encode(payload.bytes())),
        Shape::Map(_) => json!({}),
        _ => value_of_message(ty, payload.bytes(), depth)?,
    })
}

/// A number as JSON has it: whole ones without a fraction.
fn float(number: f64) -> Value {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if number.fract() == 0.0 && number.abs() < EXACT { json!(number as i64) } else { json!(number) }
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
        let gvk = Gvk::from_api_version(&envelope.api_version, &envelope.kind);
        let ty = type_of(&gvk).ok_or_else(|| malformed(format!("no schema for {gvk}")))?;
        return decode_object(ty, bytes);
    }
    serde_json::from_slice(bytes).map_err(malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Go, which takes the lower half of what does not fit.
    #[test]
    fn a_number_is_the_same_packed_or_not() {
        let name = "batch.v1.PodFailurePolicyOnExitCodesRequirement";
        let ty = keelson_schema::builtin().definition(name).expect(name).ty();
        let number = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbf, 0xff, 0x01];
        let packed = decode(ty, &[&[0x1a, 10], &number[..]].concat()).expect("packed");
        let plain = decode(ty, &[&[0x18], &number[..]].concat()).expect("plain");
        assert_eq!(packed["values"], json!([-1]));
        assert_eq!(packed, plain);
    }

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

    #[test]
    fn zero_values_are_written_where_upstream_writes_them() {
        let lease =
            json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"}});
        let body = encode(&lease).unwrap();
        let envelope = open(&body).unwrap();
        assert_eq!(envelope.kind, "Lease");
        // metadata: name, generateName, namespace, selfLink, uid, resourceVersion, generation, creationTimestamp
        let metadata = b"\x0a\x01l\x12\x00\x1a\x00\x22\x00\x2a\x00\x32\x00\x38\x00\x42\x00";
        let expected = [&[0x0a, metadata.len() as u8][..], metadata, &[0x12, 0x00]].concat();
        assert_eq!(envelope.raw, expected);
        assert!(body.ends_with(&[0x1a, 0x00, 0x22, 0x00]));
    }

    #[test]
    fn a_watch_event_carries_its_length_and_an_enveloped_object() {
        let partial = json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
            "metadata": {"name": "a", "annotations": {"k": "v".repeat(300)}}});
        let frame = watch_frame("ADDED", &encode(&partial).unwrap());
        let (length, event) = frame.split_first_chunk::<4>().unwrap();
        assert_eq!(u32::from_be_bytes(*length) as usize, event.len());
        assert_eq!(first(event, 1).unwrap().bytes(), b"ADDED");
        let raw = first(first(event, 2).unwrap().bytes(), 1).unwrap().bytes();
        assert_eq!(raw_json(raw).unwrap(), partial);
    }

    #[test]
    fn metadata_is_cut_out_of_a_message_without_decoding_it() {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "labels": {"b": "c"}},
            "spec": {"nodeName": "n"}});
        let message = encode_message(type_of(&Gvk::of(&pod).unwrap()).unwrap(), &pod).unwrap();
        let cut = decode(&PARTIAL, &message[..metadata_length(&message)]).unwrap();
        assert_eq!(cut, json!({"metadata": pod["metadata"]}));
        assert_eq!(metadata_length(b"\x12\x00"), 0);
    }

    #[test]
    fn what_does_not_fit_is_not_written() {
        let check = |object: Value, message: &str| {
            assert_eq!(encode(&object).map_err(|e| e.to_string()), Err(message.to_owned()));
        };
        check(json!({"kind": "Pod"}), "an object without apiVersion and kind has no message");
        check(json!({"apiVersion": "a.b/v1", "kind": "C"}), "no message is known for a.b/v1, Kind=C");
        check(
            json!({"apiVersion": "v1", "kind": "Secret", "type": 3}),
            "3 does not fit the type of its message field",
        );
    }
}
