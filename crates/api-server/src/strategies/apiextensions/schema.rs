//! A definition's schema as an OpenAPI document: what it may not use, and which `x-kubernetes-*` go together.

use std::collections::HashSet;

use keelson_api_types::FieldError;
use keelson_api_types::field::{child, index, key};
use serde_json::Value;

use super::definition::Options;
use crate::meta::string;

const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
const LIST_TYPES: [&str; 3] = ["atomic", "set", "map"];

/// Where in a schema the walk is.
#[derive(Clone, Default)]
struct Place {
    root: bool,
    /// Why no default may stand here.
    no_defaults: Option<String>,
    /// In `apiVersion`, `kind` or `metadata` of a resource.
    in_meta: bool,
}

pub fn check(s: &Value, path: &str, options: &Options, e: &mut Vec<FieldError>) {
    walk(s, path, &Place { root: true, ..Place::default() }, options, e);
}

fn walk(s: &Value, path: &str, place: &Place, options: &Options, e: &mut Vec<FieldError>) {
    if !s.is_object() {
        return;
    }
    let at = |name: &str| child(path, name);
    forbidden(s, path, place, options, e);
    if s["uniqueItems"] == true {
        let detail = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        e.push(FieldError::forbidden(at("uniqueItems"), detail));
    }
    let below = Place { root: false, ..place.clone() };
    if let Some(values) = s.get("additionalProperties").filter(|v| !v.is_null()) {
        if s["properties"].as_object().is_some_and(|p| !p.is_empty()) && *values != true {
            let detail = "additionalProperties and properties are mutual exclusive";
            e.push(FieldError::forbidden(at("additionalProperties"), detail));
        }
        let mut below = below.clone();
        if place.in_meta {
            // Without a value it cannot be told what pruning leaves of the default.
            below.no_defaults = Some("inside additionalProperties applying to object metadata".to_owned());
        }
        walk(values, &at("additionalProperties"), &below, options, e);
    }
    for (name, property) in s["properties"].as_object().into_iter().flatten() {
        let mut below = below.clone();
        let resource = place.root || s["x-kubernetes-embedded-resource"] == true;
        if resource && matches!(name.as_str(), "metadata" | "kind" | "apiVersion") {
            below.in_meta = true;
            if place.root {
                below.no_defaults = Some(format!("in top-level {name}"));
            }
        }
        walk(property, &key(&at("properties"), name), &below, options, e);
    }
    walk(&s["not"], &at("not"), &below, options, e);
    for junctor in ["allOf", "oneOf", "anyOf"] {
        for (i, branch) in s[junctor].as_array().into_iter().flatten().enumerate() {
            walk(branch, &index(&at(junctor), i), &below, options, e);
        }
    }
    walk(&s["items"], &at("items"), &below, options, e);
    if s["x-kubernetes-preserve-unknown-fields"] == false {
        let name = at("x-kubernetes-preserve-unknown-fields");
        e.push(FieldError::invalid(name, false, "must be true or undefined"));
    }
    map_type(s, path, e);
    list_type(s, path, options, e);
    if options.map_keys {
        list_keys(s, path, e);
    }
}

fn forbidden(s: &Value, path: &str, place: &Place, options: &Options, e: &mut Vec<FieldError>) {
    let at = |name: &str| child(path, name);
    let set = |name: &str| s.get(name).is_some_and(|v| !v.is_null());
    if options.types && has_bad_type(s) {
        e.push(FieldError::not_supported(at("type"), string(s, "type"), &TYPES));
    }
    if let Some(reason) = place.no_defaults.as_ref().filter(|_| set("default")) {
        e.push(FieldError::forbidden(at("default"), format!("must not be set {reason}")));
    }
    for name in ["id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref"] {
        if set(name) {
            e.push(FieldError::forbidden(at(name), format!("{name} is not supported")));
        }
    }
    if string(s, "type") == "null" {
        let detail = "type cannot be set to null, use nullable as an alternative";
        e.push(FieldError::forbidden(at("type"), detail));
    }
    if s["items"].as_array().is_some_and(|i| !i.is_empty()) {
        e.push(FieldError::forbidden(at("items"), "items must be a schema object and not an array"));
    }
    if place.in_meta && s["x-kubernetes-embedded-resource"] == true {
        let name = at("x-kubernetes-embedded-resource");
        e.push(FieldError::forbidden(name, "must not be used inside of resource meta"));
    }
}

/// The type that an extension needs.
fn needs_type(s: &Value, path: &str, wanted: &str, extension: &str, e: &mut Vec<FieldError>) {
    let detail = format!("must be {wanted} if {extension} is specified");
    match string(s, "type") {
        "" => e.push(FieldError::required(child(path, "type"), detail)),
        other => e.push(FieldError::invalid(child(path, "type"), other, detail)),
    }
}

fn map_type(s: &Value, path: &str, e: &mut Vec<FieldError>) {
    let name = "x-kubernetes-map-type";
    let Some(kind) = s[name].as_str() else { return };
    if string(s, "type") != "object" {
        needs_type(s, path, "object", name, e);
    }
    if !["atomic", "granular"].contains(&kind) {
        e.push(FieldError::not_supported(child(path, name), kind, &["atomic", "granular"]));
    }
}

fn list_type(s: &Value, path: &str, options: &Options, e: &mut Vec<FieldError>) {
    let (name, keys_name) = ("x-kubernetes-list-type", "x-kubernetes-list-map-keys");
    let at = |name: &str| child(path, name);
    let kind = s[name].as_str();
    let keys = s[keys_name].as_array().map(Vec::as_slice).unwrap_or_default();
    if kind.is_some() && string(s, "type") != "array" {
        needs_type(s, path, "array", name, e);
    } else if options.atomic_sets && has_open_set(s) {
        let part = if string(&s["items"], "type") == "array" { name } else { "x-kubernetes-map-type" };
        let detail = "must be atomic as item of a list with x-kubernetes-list-type=set";
        // Upstream shows the list type in both cases.
        let value = s["items"][name].clone();
        e.push(FieldError::invalid(child(&at("items"), part), value, detail));
    }
    if let Some(kind) = kind.filter(|k| !LIST_TYPES.contains(k)) {
        e.push(FieldError::not_supported(at(name), kind, &LIST_TYPES));
    }
    if !keys.is_empty() && kind != Some("map") {
        let detail = "must be map if x-kubernetes-list-map-keys is non-empty";
        match kind {
            None => e.push(FieldError::required(at(name), detail)),
            Some(kind) => e.push(FieldError::invalid(at(name), kind, detail)),
        }
    }
    if kind != Some("map") {
        return;
    }
    if keys.is_empty() {
        let detail = "must not be empty if x-kubernetes-list-type is map";
        e.push(FieldError::required(at(keys_name), detail));
    }
    let items = &s["items"];
    if items.is_null() {
        let detail = "must have a schema if x-kubernetes-list-type is map";
        return e.push(FieldError::required(at("items"), detail));
    }
    if items.is_array() {
        let detail = "must only have a single schema if x-kubernetes-list-type is map";
        return e.push(FieldError::invalid(at("items"), items.clone(), detail));
    }
    if string(items, "type") != "object" {
        let detail = "must be object if parent array's x-kubernetes-list-type is map";
        return e.push(FieldError::invalid(child(&at("items"), "type"), string(items, "type"), detail));
    }
    let mut seen = HashSet::new();
    for name in keys.iter().filter_map(Value::as_str) {
        match items["properties"].get(name) {
            Some(property) if matches!(string(property, "type"), "array" | "object") => {
                let place = child(&key(&child(&at("items"), "properties"), name), "type");
                let detail = "must be a scalar type if parent array's x-kubernetes-list-type is map";
                e.push(FieldError::invalid(place, string(items, "type"), detail));
            }
            Some(_) => {}
            None => {
                let detail = "entries must all be names of item properties";
                e.push(FieldError::invalid(at(keys_name), s[keys_name].clone(), detail));
            }
        }
        if !seen.insert(name) {
            let detail = "must not contain duplicate entries";
            e.push(FieldError::invalid(at(keys_name), s[keys_name].clone(), detail));
        }
    }
}

/// Items of sets and keyed lists are never null, and keys always there.
fn list_keys(s: &Value, path: &str, e: &mut Vec<FieldError>) {
    let (items, kind) = (&s["items"], string(s, "x-kubernetes-list-type"));
    if !items.is_object() || !matches!(kind, "set" | "map") {
        return;
    }
    let below = child(path, "items");
    if items["nullable"] == true {
        let detail = format!("cannot be nullable when x-kubernetes-list-type is {kind}");
        e.push(FieldError::forbidden(child(&below, "nullable"), detail));
    }
    if kind != "map" {
        return;
    }
    let required = |name: &str| items["required"].as_array().is_some_and(|r| r.iter().any(|n| n == name));
    for name in s["x-kubernetes-list-map-keys"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        let Some(property) = items["properties"].get(name) else { continue };
        let at = key(&child(&below, "properties"), name);
        if !required(name) && property["default"].is_null() {
            let detail = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
            e.push(FieldError::required(child(&at, "default"), detail));
        }
        if property["nullable"] == true {
            let detail = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
            e.push(FieldError::forbidden(child(&at, "nullable"), detail));
        }
    }
}

pub fn has_bad_type(s: &Value) -> bool {
    let ty = string(s, "type");
    !ty.is_empty() && !TYPES.contains(&ty)
}

/// A set whose items are not owned as one.
pub fn has_open_set(s: &Value) -> bool {
    let items = &s["items"];
    string(s, "x-kubernetes-list-type") == "set"
        && match string(items, "type") {
            "array" => items["x-kubernetes-list-type"].as_str().is_some_and(|t| t != "atomic"),
            "object" => string(items, "x-kubernetes-map-type") != "atomic",
            _ => false,
        }
}

pub fn has_bad_keys(s: &Value) -> bool {
    let mut errors = Vec::new();
    list_keys(s, "", &mut errors);
    !errors.is_empty()
}

/// Whether something holds of a schema or of one below it.
pub fn any(s: &Value, holds: &dyn Fn(&Value) -> bool) -> bool {
    let mut found = false;
    visit(s, &mut |s| found |= holds(s));
    found
}

/// The formats of all versions' schemas that mean nothing.
pub fn unknown_formats(spec: &Value) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for version in spec["versions"].as_array().into_iter().flatten() {
        visit(&version["schema"]["openAPIV3Schema"], &mut |s| {
            let format = string(s, "format");
            let known = format.is_empty() || keelson_schema::is_known_format(string(s, "type"), format);
            if !known && !found.iter().any(|f| f == format) {
                found.push(format.to_owned());
            }
        });
    }
    found
}

fn visit(s: &Value, see: &mut dyn FnMut(&Value)) {
    if !s.is_object() {
        return;
    }
    see(s);
    for part in ["items", "additionalProperties", "not"] {
        visit(&s[part], see);
    }
    let lists = ["allOf", "anyOf", "oneOf"].iter().filter_map(|j| s[*j].as_array()).flatten();
    lists.for_each(|s| visit(s, see));
    s["properties"].as_object().into_iter().flatten().for_each(|(_, s)| visit(s, see));
}
