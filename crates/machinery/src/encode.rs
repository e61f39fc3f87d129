//! Values into bytes.

use serde_json::{Map, Value};

/// JSON with `apiVersion`, `kind` and `metadata` first and the other keys sorted, so that the first
/// `"metadata":{` in the bytes is the object's own.
pub fn canonical(object: &Value) -> Vec<u8> {
    let mut out = Vec::with_capacity(2048);
    let Value::Object(map) = object else {
        write_value(&mut out, object);
        return out;
    };
    out.push(b'{');
    for head in HEAD {
        if let Some(value) = map.get(head) {
            write_entry(&mut out, head, value);
        }
    }
    write_rest(&mut out, map);
    out.push(b'}');
    out
}

const HEAD: [&str; 3] = ["apiVersion", "kind", "metadata"];

fn write_rest(out: &mut Vec<u8>, map: &Map<String, Value>) {
    for (key, value) in map.iter().filter(|(k, _)| !HEAD.contains(&k.as_str())) {
        write_entry(out, key, value);
    }
}

fn write_entry(out: &mut Vec<u8>, key: &str, value: &Value) {
    if out.len() > 1 {
        out.push(b',');
    }
    // Writing to a Vec cannot fail, and a Value's keys are always strings.
    serde_json::to_writer(&mut *out, key).unwrap_or_default();
    out.push(b':');
    write_value(out, value);
}

fn write_value(out: &mut Vec<u8>, value: &Value) {
    serde_json::to_writer(out, value).unwrap_or_default();
}

/// YAML as clients print it, keys sorted.
pub fn yaml(value: &Value) -> String {
    serde_saphyr::to_string(value).unwrap_or_default()
}
