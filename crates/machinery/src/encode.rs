//! Values into bytes.

use serde::Serialize;
use serde_json::{Map, Value};

/// JSON with `apiVersion`, `kind` and `metadata` first and the other keys sorted, so that the first
/// `"metadata":{` in the bytes is the object's own.
pub fn canonical(object: &Value) -> Vec<u8> {
    canonical_with(object, &[])
}

/// The same with this JSON, if there is any, as `metadata.managedFields` of an object that has none.
pub fn canonical_with(object: &Value, managed_fields: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(4096);
    let Value::Object(map) = object else {
        write_value(&mut out, object);
        return out;
    };
    out.push(b'{');
    for head in HEAD {
        match map.get(head) {
            Some(Value::Object(metadata)) if head == "metadata" && !managed_fields.is_empty() => {
                write_key(&mut out, head);
                write_metadata(&mut out, metadata, managed_fields);
            }
            Some(value) => write_entry(&mut out, head, value),
            None => {}
        }
    }
    for (key, value) in map.iter().filter(|(k, _)| !HEAD.contains(&k.as_str())) {
        write_entry(&mut out, key, value);
    }
    out.push(b'}');
    out
}

const HEAD: [&str; 3] = ["apiVersion", "kind", "metadata"];
const MANAGED: &str = "managedFields";

fn write_metadata(out: &mut Vec<u8>, metadata: &Map<String, Value>, managed_fields: &[u8]) {
    out.push(b'{');
    let (before, after): (Vec<_>, Vec<_>) = metadata.iter().partition(|(key, _)| key.as_str() < MANAGED);
    before.into_iter().for_each(|(key, value)| write_entry(out, key, value));
    write_key(out, MANAGED);
    out.extend_from_slice(managed_fields);
    after.into_iter().for_each(|(key, value)| write_entry(out, key, value));
    out.push(b'}');
}

fn write_entry(out: &mut Vec<u8>, key: &str, value: &Value) {
    write_key(out, key);
    write_value(out, value);
}

/// An object's key, with a comma before it but for the first.
pub(crate) fn write_key(out: &mut Vec<u8>, key: &str) {
    if out.last() != Some(&b'{') {
        out.push(b',');
    }
    write_value(out, key);
    out.push(b':');
}

/// Writing to a Vec cannot fail, and a Value's keys are always strings.
pub(crate) fn write_value<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    serde_json::to_writer(out, value).unwrap_or_default();
}

/// YAML as clients print it, keys sorted.
pub fn yaml(value: &Value) -> String {
    serde_saphyr::to_string(value).unwrap_or_default()
}
