//! Times and metadata fields of objects that are handled as JSON values.

use serde_json::Value;

/// Now, to the second: the form of `metav1.Time`.
pub fn now_rfc3339() -> String {
    rfc3339(jiff::Timestamp::now())
}

/// Now, to the microsecond: the form of `metav1.MicroTime`.
pub fn now_micro() -> String {
    micro(jiff::Timestamp::now())
}

/// `2026-01-02T03:04:05Z`.
pub fn rfc3339(t: jiff::Timestamp) -> String {
    t.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// `2026-01-02T03:04:05.000006Z`.
pub fn micro(t: jiff::Timestamp) -> String {
    t.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// Parses either form, with any offset.
pub fn parse_time(text: &str) -> Option<jiff::Timestamp> {
    // jiff also takes a space or lower-case letters as separators; RFC 3339 on this wire does not.
    (text.as_bytes().get(10) == Some(&b'T')).then(|| text.parse().ok()).flatten()
}

/// What a JSON pointer (RFC 6901) leads to, as [`Value::pointer`], but without a text made of each name.
pub fn at<'a>(value: &'a Value, pointer: &str) -> Option<&'a Value> {
    pointer.split('/').skip(1).try_fold(value, |value, name| match value {
        Value::Array(items) => items.get(name.parse::<usize>().ok()?),
        object if name.contains('~') => object.get(name.replace("~1", "/").replace("~0", "~")),
        object => object.get(name),
    })
}

/// `metadata.<field>` as a string, empty when absent.
pub fn string<'a>(object: &'a Value, field: &str) -> &'a str {
    object.get("metadata").and_then(|m| m.get(field)).and_then(Value::as_str).unwrap_or_default()
}

pub fn name(object: &Value) -> &str {
    string(object, "name")
}

pub fn namespace(object: &Value) -> &str {
    string(object, "namespace")
}

pub fn uid(object: &Value) -> &str {
    string(object, "uid")
}

pub fn resource_version(object: &Value) -> &str {
    string(object, "resourceVersion")
}

/// `metadata.labels`, None when absent.
pub fn labels(object: &Value) -> Option<&serde_json::Map<String, Value>> {
    object.get("metadata")?.get("labels")?.as_object()
}

/// One annotation's value.
pub fn annotation<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object.get("metadata")?.get("annotations")?.get(key)?.as_str()
}
