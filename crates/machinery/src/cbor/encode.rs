//! Values into CBOR, deterministically (RFC 8949, 4.2.1): the shortest heads and floats, keys in the order of their bytes.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ciborium_ll::{Encoder, Header};
use keelson_api_types::Gvk;
use keelson_schema::{Shape, Type};
use serde_json::{Number, Value};

use super::{BASE64, FALSE, NULL, SELF_DESCRIBED, child, is_bytes};

const ITEMS: &str = "items";

/// A whole object, self-described, by the type of the kind that it says it is.
pub fn encode(object: &Value) -> Vec<u8> {
    let ty = Gvk::of(object).and_then(|gvk| keelson_schema::builtin().for_gvk(&gvk));
    encoded(Some(SELF_DESCRIBED), |to| to.value(ty, object))
}

/// An object as it stands in a list.
pub fn encode_item(ty: Option<&Type>, object: &Value) -> Vec<u8> {
    encoded(None, |to| to.value(ty, object))
}

/// A list up to the first of `count` items, which are to follow; `list` has everything else.
pub fn list_head(list: &Value, count: usize) -> Vec<u8> {
    let entries = list.as_object().into_iter().flatten().filter(|(key, _)| *key != ITEMS);
    encoded(Some(SELF_DESCRIBED), |to| {
        to.head(Header::Map(Some(entries.clone().count() + 1)));
        for (key, value) in entries {
            to.bytes(key);
            to.value(None, value);
        }
        to.bytes(ITEMS);
        to.head(Header::Array(Some(count)));
    })
}

/// An event of a watch: an item of a sequence (RFC 8742), with an object that is encoded.
pub fn watch_frame(kind: &str, object: &[u8]) -> Vec<u8> {
    let mut out = encoded(Some(SELF_DESCRIBED), |to| {
        to.head(Header::Map(Some(2)));
        to.bytes("type");
        to.bytes(kind);
        to.bytes("object");
    });
    out.extend_from_slice(object);
    out
}

fn encoded(tag: Option<u64>, write: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    let mut to = Writer(Encoder::from(&mut out));
    if let Some(tag) = tag {
        to.head(Header::Tag(tag));
    }
    write(&mut to);
    out
}

struct Writer<'a>(Encoder<&'a mut Vec<u8>>);

impl Writer<'_> {
    fn head(&mut self, header: Header) {
        let Ok(()) = self.0.push(header);
    }

    fn bytes(&mut self, bytes: impl AsRef<[u8]>) {
        let Ok(()) = self.0.bytes(bytes.as_ref(), None);
    }

    fn value(&mut self, ty: Option<&Type>, value: &Value) {
        match value {
            Value::Null => self.head(Header::Simple(NULL)),
            Value::Bool(set) => self.head(Header::Simple(FALSE + u8::from(*set))),
            Value::Number(number) => self.number(ty, number),
            Value::String(text) => match is_bytes(ty).then(|| STANDARD.decode(text)) {
                Some(Ok(bytes)) => {
                    self.head(Header::Tag(BASE64));
                    self.bytes(bytes);
                }
                _ => self.bytes(text),
            },
            Value::Array(items) => {
                let item = ty.and_then(Type::as_list).map(|list| &*list.item);
                self.head(Header::Array(Some(items.len())));
                items.iter().for_each(|value| self.value(item, value));
            }
            Value::Object(map) => {
                let mut entries: Vec<_> = map.iter().collect();
                // The head of a key says its length.
                entries.sort_by(|(a, _), (b, _)| a.len().cmp(&b.len()).then_with(|| a.cmp(b)));
                self.head(Header::Map(Some(entries.len())));
                for (key, value) in entries {
                    self.bytes(key);
                    self.value(child(ty, key), value);
                }
            }
        }
    }

    fn number(&mut self, ty: Option<&Type>, number: &Number) {
        let is_float = ty.is_some_and(|ty| matches!(ty.shape, Shape::Float));
        self.head(match (number.as_u64(), number.as_i64()) {
            (Some(n), _) if !is_float => Header::Positive(n),
            (_, Some(n)) if !is_float => Header::Negative(!n as u64),
            _ => Header::Float(number.as_f64().unwrap_or_default()),
        });
    }
}
