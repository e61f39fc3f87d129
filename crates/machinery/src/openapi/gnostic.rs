//! The v2 document as protobuf, which clients in Go ask for.
//!
//! The messages and numbers are those of `openapi.v2` (gnostic's `OpenAPIv2.proto`). A message is a table from the
//! document's keys to numbers, so that one walk writes them all; keys that no table knows are left out, and those that
//! begin with `x-` become vendor extensions.

use crate::proto::wire;
use serde_json::Value;

/// How a key's value is written.
enum Kind {
    Text,
    Texts,
    Bool,
    Int,
    Double,
    /// Any value, as YAML.
    Any,
    Anys,
    One(&'static Message),
    Many(&'static Message),
    /// A message that holds the value as its field of that number.
    Wrapped(u32, &'static Kind),
    /// Each of a list, wrapped.
    Each(&'static Kind),
    /// A choice made by the value.
    Choice(fn(&Value) -> &'static Kind),
}

use Kind::{Any, Anys, Bool, Choice, Double, Each, Int, Many, One, Text, Texts, Wrapped};

struct Message {
    fields: &'static [(&'static str, u32, Kind)],
    /// The number of the vendor extensions; 0 for a message without them.
    extensions: u32,
    /// Number and kind of all other keys, written as pairs of name and value.
    named: Option<(u32, Kind)>,
}

const fn message(fields: &'static [(&'static str, u32, Kind)], extensions: u32) -> Message {
    Message { fields, extensions, named: None }
}

const fn map(number: u32, kind: Kind, extensions: u32) -> Message {
    Message { fields: &[], extensions, named: Some((number, kind)) }
}

static DOCUMENT: Message = message(
    &[
        ("swagger", 1, Text),
        ("info", 2, One(&INFO)),
        ("host", 3, Text),
        ("basePath", 4, Text),
        ("schemes", 5, Texts),
        ("consumes", 6, Texts),
        ("produces", 7, Texts),
        ("paths", 8, One(&PATHS)),
        ("definitions", 9, One(&SCHEMAS)),
        ("parameters", 10, One(&PARAMETERS)),
        ("security", 12, Many(&REQUIREMENT)),
        ("securityDefinitions", 13, One(&SECURITY)),
    ],
    16,
);
static INFO: Message = message(&[("title", 1, Text), ("version", 2, Text), ("description", 3, Text)], 7);
static PATHS: Message = map(2, One(&PATH), 1);
static SCHEMAS: Message = map(1, One(&SCHEMA), 0);
static PARAMETERS: Message = map(1, Choice(parameter), 0);
static REQUIREMENT: Message = map(1, Wrapped(1, &Texts), 0);
static SECURITY: Message = map(1, Wrapped(2, &One(&API_KEY)), 0);
static API_KEY: Message =
    message(&[("type", 1, Text), ("name", 2, Text), ("in", 3, Text), ("description", 4, Text)], 5);
static PATH: Message = message(
    &[
        ("$ref", 1, Text),
        ("get", 2, One(&OPERATION)),
        ("put", 3, One(&OPERATION)),
        ("post", 4, One(&OPERATION)),
        ("delete", 5, One(&OPERATION)),
        ("options", 6, One(&OPERATION)),
        ("head", 7, One(&OPERATION)),
        ("patch", 8, One(&OPERATION)),
        ("parameters", 9, Each(&Choice(parameters_item))),
    ],
    10,
);
static OPERATION: Message = message(
    &[
        ("tags", 1, Texts),
        ("summary", 2, Text),
        ("description", 3, Text),
        ("operationId", 5, Text),
        ("produces", 6, Texts),
        ("consumes", 7, Texts),
        ("parameters", 8, Each(&Choice(parameters_item))),
        ("responses", 9, One(&RESPONSES)),
        ("schemes", 10, Texts),
        ("deprecated", 11, Bool),
        ("security", 12, Many(&REQUIREMENT)),
    ],
    13,
);
static RESPONSES: Message = map(1, Wrapped(1, &One(&RESPONSE)), 2);
static RESPONSE: Message = message(&[("description", 1, Text), ("schema", 2, Wrapped(1, &One(&SCHEMA)))], 5);
static REFERENCE: Message = message(&[("$ref", 1, Text), ("description", 2, Text)], 0);
static BODY: Message = message(
    &[
        ("description", 1, Text),
        ("name", 2, Text),
        ("in", 3, Text),
        ("required", 4, Bool),
        ("schema", 5, One(&SCHEMA)),
    ],
    6,
);
static QUERY: Message = message(
    &[
        ("required", 1, Bool),
        ("in", 2, Text),
        ("description", 3, Text),
        ("name", 4, Text),
        ("type", 6, Text),
        ("format", 7, Text),
        ("default", 10, Any),
        ("uniqueItems", 20, Bool),
    ],
    23,
);
/// Of headers and paths alike.
static OTHER: Message = message(
    &[
        ("required", 1, Bool),
        ("in", 2, Text),
        ("description", 3, Text),
        ("name", 4, Text),
        ("type", 5, Text),
        ("format", 6, Text),
        ("default", 9, Any),
        ("uniqueItems", 19, Bool),
    ],
    22,
);
static SCHEMA: Message = message(
    &[
        ("$ref", 1, Text),
        ("format", 2, Text),
        ("title", 3, Text),
        ("description", 4, Text),
        ("default", 5, Any),
        ("multipleOf", 6, Double),
        ("maximum", 7, Double),
        ("exclusiveMaximum", 8, Bool),
        ("minimum", 9, Double),
        ("exclusiveMinimum", 10, Bool),
        ("maxLength", 11, Int),
        ("minLength", 12, Int),
        ("pattern", 13, Text),
        ("maxItems", 14, Int),
        ("minItems", 15, Int),
        ("uniqueItems", 16, Bool),
        ("maxProperties", 17, Int),
        ("minProperties", 18, Int),
        ("required", 19, Texts),
        ("enum", 20, Anys),
        ("additionalProperties", 21, Choice(additional_properties)),
        ("type", 22, Choice(types)),
        ("items", 23, Wrapped(1, &One(&SCHEMA))),
        ("allOf", 24, Many(&SCHEMA)),
        ("properties", 25, One(&SCHEMAS)),
        ("readOnly", 27, Bool),
        ("example", 30, Any),
    ],
    31,
);

fn additional_properties(value: &Value) -> &'static Kind {
    static BOOLEAN: Kind = Wrapped(2, &Bool);
    static OF_SCHEMA: Kind = Wrapped(1, &One(&SCHEMA));
    if value.is_boolean() { &BOOLEAN } else { &OF_SCHEMA }
}

/// One type or several, in a message of their own.
fn types(value: &Value) -> &'static Kind {
    static SEVERAL: Kind = Wrapped(1, &Texts);
    static SINGLE: Kind = Wrapped(1, &Text);
    if value.is_array() { &SEVERAL } else { &SINGLE }
}

fn parameters_item(value: &Value) -> &'static Kind {
    static REFERRED: Kind = Wrapped(2, &One(&REFERENCE));
    static GIVEN: Kind = Wrapped(1, &Choice(parameter));
    if value.get("$ref").is_some() { &REFERRED } else { &GIVEN }
}

fn parameter(value: &Value) -> &'static Kind {
    static IN_BODY: Kind = Wrapped(1, &One(&BODY));
    static IN_HEADER: Kind = Wrapped(2, &Wrapped(1, &One(&OTHER)));
    static IN_QUERY: Kind = Wrapped(2, &Wrapped(3, &One(&QUERY)));
    static IN_PATH: Kind = Wrapped(2, &Wrapped(4, &One(&OTHER)));
    match value.get("in").and_then(Value::as_str) {
        Some("body") => &IN_BODY,
        Some("header") => &IN_HEADER,
        Some("query") => &IN_QUERY,
        _ => &IN_PATH,
    }
}

/// The document, given as JSON.
pub fn v2_protobuf(document: &[u8]) -> serde_json::Result<Vec<u8>> {
    let document: Value = serde_json::from_slice(document)?;
    let mut out = Vec::with_capacity(1 << 20);
    write_message(&mut out, &DOCUMENT, &document);
    Ok(out)
}

fn write_message(out: &mut Vec<u8>, message: &Message, value: &Value) {
    for (key, number, kind) in message.fields {
        if let Some(value) = value.get(key) {
            write(out, *number, kind, value);
        }
    }
    for (name, value) in value.as_object().into_iter().flatten() {
        if name.starts_with("x-") && message.extensions > 0 {
            pair(out, message.extensions, name, &Any, value);
        } else if let Some((number, kind)) = &message.named {
            pair(out, *number, name, kind, value);
        }
    }
}

fn pair(out: &mut Vec<u8>, number: u32, name: &str, kind: &Kind, value: &Value) {
    nested(out, number, |out| {
        wire::bytes(out, 1, name.as_bytes());
        write(out, 2, kind, value);
    });
}

fn nested(out: &mut Vec<u8>, number: u32, body: impl FnOnce(&mut Vec<u8>)) {
    let Ok(()) = wire::nested(out, number, |out| {
        body(out);
        Ok::<_, std::convert::Infallible>(())
    });
}

fn write(out: &mut Vec<u8>, number: u32, kind: &Kind, value: &Value) {
    let items = || value.as_array().into_iter().flatten();
    match kind {
        Text => wire::bytes(out, number, value.as_str().unwrap_or_default().as_bytes()),
        Texts => items().for_each(|text| write(out, number, &Text, text)),
        Bool => wire::number(out, number, u64::from(value.as_bool().unwrap_or_default())),
        Int => wire::number(out, number, value.as_i64().unwrap_or_default() as u64),
        Double => wire::double(out, number, value.as_f64().unwrap_or_default()),
        // JSON is YAML.
        Any => nested(out, number, |out| wire::bytes(out, 2, format!("{value}\n").as_bytes())),
        Anys => items().for_each(|item| write(out, number, &Any, item)),
        One(message) => nested(out, number, |out| write_message(out, message, value)),
        Many(message) => items().for_each(|item| write(out, number, &One(message), item)),
        Wrapped(inner, kind) => nested(out, number, |out| write(out, *inner, kind, value)),
        Each(kind) => items().for_each(|item| write(out, number, kind, item)),
        Choice(choose) => write(out, number, choose(value), value),
    }
}
