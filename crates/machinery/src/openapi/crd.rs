//! What a CustomResourceDefinition adds to the documents.

use super::CrdSchema;
use super::paths::{Kind, PathItem};
use super::schemas::{Refs, Style};
use serde_json::{Map, Value, json};

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";
const PRESERVE: &str = "x-kubernetes-preserve-unknown-fields";

/// The definition's name: the group backwards, then version and kind.
fn model_name(c: &CrdSchema, kind: &str) -> String {
    let group: Vec<&str> = c.group.rsplit('.').collect();
    format!("{}.{}.{kind}", group.join("."), c.version)
}

pub(super) fn item(c: &CrdSchema) -> PathItem {
    let kind = Kind {
        group: c.group.clone(),
        version: c.version.clone(),
        kind: c.kind.clone(),
        definition: model_name(c, &c.kind),
    };
    let verbs = |v: &[&str]| v.iter().map(|v| (*v).to_owned()).collect::<Vec<_>>();
    let mut subresources = Vec::new();
    if c.has_status {
        subresources.push(("status".to_owned(), kind.clone(), verbs(&["get", "patch", "update"])));
    }
    if c.has_scale {
        let scale = Kind::builtin("autoscaling", "v1", "Scale");
        subresources.push(("scale".to_owned(), scale, verbs(&["get", "patch", "update"])));
    }
    PathItem {
        group: c.group.clone(),
        version: c.version.clone(),
        plural: c.plural.clone(),
        kind,
        list: model_name(c, &c.list_kind),
        namespaced: c.namespaced,
        verbs: verbs(&["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]),
        subresources,
        custom: true,
    }
}

/// The kind's schema and its list's.
pub(super) fn schemas(c: &CrdSchema, style: Style, refs: &mut Refs) -> [(String, Value); 2] {
    let (name, list_name) = (model_name(c, &c.kind), model_name(c, &c.list_kind));
    refs.written(&name);
    refs.written(&list_name);
    let mut schema = kind_schema(c, style, refs);
    let gvk = |kind: &str| json!([{"group": c.group, "version": c.version, "kind": kind}]);
    schema["x-kubernetes-group-version-kind"] = gvk(&c.kind);
    let selectable: Vec<Value> = c.selectable.iter().map(|f| json!({"fieldPath": f})).collect();
    let items = json!({"type": "array", "items": {"$ref": style.pointer(&name)}, "description": format!("List of {}.", c.plural)});
    let mut properties = Map::new();
    properties.insert("items".to_owned(), items);
    properties.insert("metadata".to_owned(), referring(LIST_META, "Standard list metadata.", style, refs));
    add_type_meta(&mut properties);
    let mut list = json!({
        "type": "object",
        "description": format!("{} is a list of {}", c.list_kind, c.kind),
        "required": ["items"],
        "properties": properties,
        "x-kubernetes-group-version-kind": gvk(&c.list_kind),
    });
    if !selectable.is_empty() {
        schema["x-kubernetes-selectable-fields"] = selectable.clone().into();
        list["x-kubernetes-selectable-fields"] = selectable.into();
    }
    [(name, schema), (list_name, list)]
}

fn kind_schema(c: &CrdSchema, style: Style, refs: &mut Refs) -> Value {
    // Clients take listed properties for all there are: say nothing where anything goes.
    let open = c.schema.get(PRESERVE) == Some(&json!(true));
    if !c.schema.is_object() || (style == Style::V2 && open) {
        return json!({"type": "object"});
    }
    // Clients are not told of a schema that says one thing and does another.
    let sound = || {
        keelson_schema::unsupported(&c.schema).is_none()
            && keelson_schema::violations(&c.schema, "").is_empty()
    };
    if !c.told.get_or_init(sound) {
        return json!({"type": "object"});
    }
    let mut schema = c.schema.clone();
    match style {
        Style::V2 => to_v2(&mut schema),
        Style::V3 => unfold(&mut schema),
    }
    if let Some(map) = schema.as_object_mut() {
        embed(map, style, refs);
        let properties = map.entry("properties").or_insert_with(|| json!({}));
        if let Some(properties) = properties.as_object_mut() {
            properties.insert(
                "metadata".to_owned(),
                referring(OBJECT_META, "Standard object's metadata.", style, refs),
            );
            add_type_meta(properties);
        }
    }
    schema
}

fn referring(name: &str, description: &str, style: Style, refs: &mut Refs) -> Value {
    let reference = style.reference(name, refs);
    match style {
        Style::V2 => json!({"$ref": reference["$ref"], "description": description}),
        Style::V3 => json!({"allOf": [reference], "description": description}),
    }
}

fn add_type_meta(properties: &mut Map<String, Value>) {
    let version = "APIVersion defines the group and version of the schema that this object follows.";
    let kind = "Kind is the name of the REST resource that this object represents, in CamelCase.";
    properties.insert("apiVersion".to_owned(), json!({"type": "string", "description": version}));
    properties.insert("kind".to_owned(), json!({"type": "string", "description": kind}));
}

/// Gives embedded resources the fields of every object.
fn embed(schema: &mut Map<String, Value>, style: Style, refs: &mut Refs) {
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        properties.values_mut().filter_map(Value::as_object_mut).for_each(|s| embed(s, style, refs));
    }
    for key in ["items", "additionalProperties"] {
        if let Some(Value::Object(inner)) = schema.get_mut(key) {
            embed(inner, style, refs);
        }
    }
    let is = |key: &str| schema.get(key) == Some(&json!(true));
    if !is("x-kubernetes-embedded-resource") || (style == Style::V2 && is(PRESERVE)) {
        return;
    }
    if let Some(properties) = schema.entry("properties").or_insert_with(|| json!({})).as_object_mut() {
        properties.insert(
            "metadata".to_owned(),
            referring(OBJECT_META, "Standard object's metadata.", style, refs),
        );
        add_type_meta(properties);
    }
    if let Some(required) = schema.entry("required").or_insert_with(|| json!([])).as_array_mut() {
        for name in ["kind", "apiVersion"] {
            if !required.contains(&json!(name)) {
                required.push(json!(name));
            }
        }
    }
}

/// Says of `x-kubernetes-int-or-string` what it means, unless the schema does so itself.
fn unfold(schema: &mut Value) {
    let Some(map) = schema.as_object_mut() else { return };
    if map.get("x-kubernetes-int-or-string") == Some(&json!(true)) {
        let either = json!([{"type": "integer"}, {"type": "string"}]);
        let said = map.get("anyOf") == Some(&either)
            || map.get("allOf").and_then(|a| a.get(0)).and_then(|f| f.get("anyOf")) == Some(&either);
        if !said && map.contains_key("anyOf") {
            if let Some(all) = map.entry("allOf").or_insert_with(|| json!([])).as_array_mut() {
                all.insert(0, json!({"anyOf": either}));
            }
        } else if !said {
            map.insert("anyOf".to_owned(), either);
        }
    }
    if let Some(Value::Object(properties)) = map.get_mut("properties") {
        properties.values_mut().for_each(unfold);
    }
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = map.get_mut(key) {
            unfold(inner);
        }
    }
}

/// Leaves out what OpenAPI v2, or clients that read it, cannot take.
fn to_v2(schema: &mut Value) {
    let Some(map) = schema.as_object_mut() else { return };
    for key in ["allOf", "oneOf", "anyOf", "not"] {
        map.remove(key);
    }
    let preserve = map.get(PRESERVE) == Some(&json!(true));
    let nullable = map.remove("nullable") == Some(json!(true));
    if nullable || preserve {
        map.remove("items");
        map.remove("properties");
    }
    let object = map.get("type") == Some(&json!("object"));
    let bare_list = map.get("type") == Some(&json!("array")) && !map.contains_key("items");
    if nullable || bare_list || (preserve && object) {
        map.remove("type");
    }
    let mut optional: Vec<String> = Vec::new();
    if let Some(Value::Object(properties)) = map.get_mut("properties") {
        for (name, property) in properties.iter_mut() {
            if property.get("nullable") == Some(&json!(true)) {
                optional.push(name.clone());
            }
            to_v2(property);
        }
    }
    if let Some(Value::Array(required)) = map.get_mut("required") {
        required.retain(|r| !optional.iter().any(|o| r == o));
        if required.is_empty() {
            map.remove("required");
        }
    }
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = map.get_mut(key) {
            to_v2(inner);
        }
    }
}
