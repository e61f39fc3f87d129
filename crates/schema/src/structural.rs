//! Whether a CRD's schema is structural: types outside of the logical junctors, value validations inside of them.
//!
//! Works on the schema as written (`JSONSchemaProps`), whose keywords have been type-checked as an API object.

use crate::pattern::Pattern;
use keelson_api_types::FieldError;
use keelson_api_types::field::{child, index, key};
use serde_json::{Map, Value};

/// Keywords that no structural schema has, with the names that messages give them.
const UNSUPPORTED: [(&str, &str); 7] = [
    ("id", "id"),
    ("$schema", "schema"),
    ("$ref", "$ref"),
    ("patternProperties", "patternProperties"),
    ("dependencies", "dependencies"),
    ("additionalItems", "additionalItems"),
    ("definitions", "definitions"),
];

/// Keywords that describe structure and may not stand below a junctor, and how they should be instead.
const STRUCTURE: [(&str, &str); 12] = [
    ("type", "must be empty to be structural"),
    ("default", "must be undefined to be structural"),
    ("title", "must be empty to be structural"),
    ("description", "must be empty to be structural"),
    ("nullable", "must be false to be structural"),
    ("x-kubernetes-preserve-unknown-fields", "must be false to be structural"),
    ("x-kubernetes-embedded-resource", "must be false to be structural"),
    ("x-kubernetes-int-or-string", "must be false to be structural"),
    ("x-kubernetes-list-map-keys", "must be empty to be structural"),
    ("x-kubernetes-list-type", "must be undefined to be structural"),
    ("x-kubernetes-map-type", "must be undefined to be structural"),
    ("x-kubernetes-validations", "must be empty to be structural"),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Item,
    Field,
}

/// The first keyword of a schema, at any depth, that a structural one cannot have: upstream's message.
pub fn unsupported(schema: &Value) -> Option<String> {
    let map = schema.as_object()?;
    let set = |k: &str| map.get(k).is_some_and(|v| !is_zero(v));
    if let Some((_, name)) = UNSUPPORTED.iter().find(|(k, _)| set(k)) {
        return Some(format!("OpenAPIV3Schema '{name}' is not supported"));
    }
    if map.get("items").is_some_and(Value::is_array) {
        return Some("OpenAPIV3Schema 'items' must be a schema, but is an array".to_owned());
    }
    subschemas(map).find_map(unsupported)
}

/// What keeps a schema from being structural, sorted by message.
pub fn violations(schema: &Value, path: &str) -> Vec<FieldError> {
    let mut found = Vec::new();
    invariants(schema, Level::Root, path, &mut found);
    complete(schema, Some(schema), path, path, &mut found);
    found.sort_by_cached_key(ToString::to_string);
    found
}

fn invariants(s: &Value, level: Level, path: &str, out: &mut Vec<FieldError>) {
    let ty = text(s, "type");
    let at = |name: &str| child(path, name);
    match s.get("items") {
        Some(items) => invariants(items, Level::Item, &at("items"), out),
        None if ty == "array" => out.push(FieldError::required(at("items"), "must be specified")),
        None => {}
    }
    for (name, property) in properties(s) {
        invariants(property, Level::Field, &key(&at("properties"), name), out);
    }
    if let Some(values) = s.get("additionalProperties") {
        if level == Level::Root {
            out.push(FieldError::forbidden(at("additionalProperties"), "must not be used at the root"));
        }
        if values.is_object() {
            invariants(values, Level::Field, &at("additionalProperties"), out);
        }
    }
    let (any_of, first_all_of) = (is_int_or_string(s), is_int_or_string(&s["allOf"][0]));
    let int_or_string = flag(s, "x-kubernetes-int-or-string");
    let preserve = flag(s, "x-kubernetes-preserve-unknown-fields");
    let embedded = flag(s, "x-kubernetes-embedded-resource");
    for (name, set) in
        [("x-kubernetes-preserve-unknown-fields", preserve), ("x-kubernetes-embedded-resource", embedded)]
    {
        if int_or_string && set {
            let detail = "must be false if x-kubernetes-int-or-string is true";
            out.push(FieldError::invalid(at(name), true, detail));
        }
    }
    values(s, any_of, first_all_of, path, out);
    if embedded && ty != "object" {
        let detail = "must be object if x-kubernetes-embedded-resource is true";
        out.push(match ty {
            "" => FieldError::required(at("type"), detail),
            _ => FieldError::invalid(at("type"), ty, detail),
        });
    } else if ty.is_empty() && !int_or_string && !preserve {
        let detail = match level {
            Level::Root => "must not be empty at the root",
            Level::Item => "must not be empty for specified array items",
            Level::Field => "must not be empty for specified object fields",
        };
        out.push(FieldError::required(at("type"), detail));
    }
    if embedded && s.get("additionalProperties").is_some() {
        let detail = "must not be used if x-kubernetes-embedded-resource is set";
        out.push(FieldError::forbidden(at("additionalProperties"), detail));
    }
    if level == Level::Root && !ty.is_empty() && ty != "object" {
        out.push(FieldError::invalid(at("type"), ty, "must be object at the root"));
    }
    object_fields(s, level, embedded, path, out);
    if embedded && !preserve && properties(s).next().is_none() {
        let detail = "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields";
        out.push(FieldError::required(at("properties"), detail));
    }
}

/// `apiVersion`, `kind` and `metadata` of a resource are what they are; of metadata only the name may be restricted.
fn object_fields(s: &Value, level: Level, embedded: bool, path: &str, out: &mut Vec<FieldError>) {
    let properties = &s["properties"];
    let at = |name: &str| key(&child(path, "properties"), name);
    let resource = level == Level::Root || embedded;
    for name in ["kind", "apiVersion"] {
        if let Some(property) = properties.get(name).filter(|_| resource)
            && text(property, "type") != "string"
        {
            let value = text(property, "type");
            out.push(FieldError::invalid(child(&at(name), "type"), value, "must be string"));
        }
    }
    let Some(metadata) = properties.get("metadata") else { return };
    if resource && text(metadata, "type") != "object" {
        out.push(FieldError::invalid(
            child(&at("metadata"), "type"),
            text(metadata, "type"),
            "must be object",
        ));
    }
    let names = |m: &Map<String, Value>| m.keys().all(|k| matches!(k.as_str(), "name" | "generateName"));
    let only_names = metadata.as_object().into_iter().flatten().all(|(k, v)| match k.as_str() {
        "type" | "default" => true,
        "properties" => v.as_object().is_none_or(names),
        _ => is_zero(v),
    });
    if level == Level::Root && !only_names {
        let detail = "must not specify anything other than name and generateName, but metadata is implicitly specified";
        out.push(FieldError::forbidden(at("metadata"), detail));
    }
}

/// The junctors and the pattern of a schema or of a value validation.
fn values(s: &Value, skip_any_of: bool, skip_first: bool, path: &str, out: &mut Vec<FieldError>) {
    let at = |name: &str| child(path, name);
    for (i, branch) in array(s, "anyOf").iter().enumerate().filter(|_| !skip_any_of) {
        nested(branch, false, &index(&at("anyOf"), i), out);
    }
    for (i, branch) in array(s, "allOf").iter().enumerate() {
        nested(branch, skip_first && i == 0, &index(&at("allOf"), i), out);
    }
    for (i, branch) in array(s, "oneOf").iter().enumerate() {
        nested(branch, false, &index(&at("oneOf"), i), out);
    }
    if let Some(not) = s.get("not") {
        nested(not, false, &at("not"), out);
    }
    let pattern = text(s, "pattern");
    if let Some(error) = Pattern::error(pattern) {
        let detail = format!("must be a valid regular expression, but isn't: error parsing regexp: {error}");
        out.push(FieldError::invalid(at("pattern"), pattern, detail));
    }
}

fn nested(s: &Value, skip_any_of: bool, path: &str, out: &mut Vec<FieldError>) {
    values(s, skip_any_of, false, path, out);
    let at = |name: &str| child(path, name);
    if let Some(items) = s.get("items") {
        nested(items, false, &at("items"), out);
    }
    for (name, property) in properties(s) {
        nested(property, false, &key(&at("properties"), name), out);
    }
    if s.get("additionalProperties").is_some_and(|v| *v != Value::Bool(false)) {
        out.push(FieldError::forbidden(at("additionalProperties"), "must be undefined to be structural"));
    }
    for (name, detail) in STRUCTURE {
        if s.get(name).is_some_and(|v| !is_zero(v) || name.ends_with("-type")) {
            out.push(FieldError::forbidden(at(name), detail));
        }
    }
    if s["properties"].get("metadata").is_some() {
        let detail = "must not be specified in a nested context";
        out.push(FieldError::forbidden(key(&at("properties"), "metadata"), detail));
    }
}

/// Everything that a junctor speaks of must be specified outside of it too.
fn complete(v: &Value, s: Option<&Value>, s_path: &str, v_path: &str, out: &mut Vec<FieldError>) {
    if let Some(not) = v.get("not") {
        specified(not, s, s_path, &child(v_path, "not"), out);
    }
    for junctor in ["allOf", "anyOf", "oneOf"] {
        for (i, branch) in array(v, junctor).iter().enumerate() {
            specified(branch, s, s_path, &index(&child(v_path, junctor), i), out);
        }
    }
}

/// A junctor's branch, or a part of one, and its counterpart in the structure.
fn specified(v: &Value, s: Option<&Value>, s_path: &str, v_path: &str, out: &mut Vec<FieldError>) {
    let Some(s) = s else {
        return out.push(FieldError::required(s_path, format!("because it is defined in {v_path}")));
    };
    complete(v, Some(s), s_path, v_path, out);
    if let Some(items) = v.get("items") {
        specified(items, s.get("items"), &child(s_path, "items"), &child(v_path, "items"), out);
    }
    for (name, property) in properties(v) {
        let (s_path, v_path) =
            (key(&child(s_path, "properties"), name), key(&child(v_path, "properties"), name));
        specified(property, s["properties"].get(name), &s_path, &v_path, out);
    }
}

/// Exactly `anyOf: [{type: integer}, {type: string}]`.
fn is_int_or_string(s: &Value) -> bool {
    let only = |branch: &Value, ty: &str| {
        text(branch, "type") == ty && branch.as_object().is_some_and(|m| m.len() == 1)
    };
    matches!(array(s, "anyOf"), [a, b] if only(a, "integer") && only(b, "string"))
}

/// The schemas one level below.
fn subschemas(map: &Map<String, Value>) -> impl Iterator<Item = &Value> {
    let one = ["items", "additionalProperties", "not"].into_iter().filter_map(|k| map.get(k));
    let lists = ["allOf", "anyOf", "oneOf"].into_iter().filter_map(|k| map.get(k)?.as_array()).flatten();
    let properties = map.get("properties").and_then(Value::as_object).into_iter().flatten().map(|(_, v)| v);
    one.chain(lists).chain(properties)
}

fn properties(s: &Value) -> impl Iterator<Item = (&String, &Value)> {
    s.get("properties").and_then(Value::as_object).into_iter().flatten()
}

fn array<'a>(s: &'a Value, key: &str) -> &'a [Value] {
    s.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn text<'a>(s: &'a Value, key: &str) -> &'a str {
    s.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn flag(s: &Value, key: &str) -> bool {
    s.get(key) == Some(&Value::Bool(true))
}

/// What a decoded field that was not set holds.
fn is_zero(v: &Value) -> bool {
    match v {
        Value::Null | Value::Bool(false) => true,
        Value::String(s) => s.is_empty(),
        Value::Array(a) => a.is_empty(),
        Value::Object(m) => m.is_empty(),
        _ => false,
    }
}
