//! OpenAPI documents of several servers as one. Pure functions on documents.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

const DEFINITIONS: &str = "#/definitions/";

/// What a v2 document says of one group and version: its paths, and the definitions that they lead to.
pub fn part(mut document: Value, group: &str, version: &str) -> Value {
    let prefix = format!("/apis/{group}/{version}/");
    let all = document["definitions"].take();
    let mut paths = document["paths"].take();
    if let Some(paths) = paths.as_object_mut() {
        paths.retain(|path, _| path.starts_with(&prefix));
    }
    let mut used = BTreeSet::new();
    let mut open = Vec::new();
    references(&paths, &mut open);
    while let Some(name) = open.pop() {
        if let (Some(definition), true) = (all.get(&name), used.insert(name.clone())) {
            references(definition, &mut open);
        }
    }
    let definitions: Map<String, Value> =
        used.into_iter().filter_map(|name| Some((name.clone(), all.get(&name)?.clone()))).collect();
    json!({"paths": paths, "definitions": definitions})
}

/// The names of the definitions that a value refers to.
fn references(value: &Value, out: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            let name = map.get("$ref").and_then(Value::as_str).and_then(|r| r.strip_prefix(DEFINITIONS));
            out.extend(name.map(str::to_owned));
            map.values().for_each(|v| references(v, out));
        }
        Value::Array(items) => items.iter().for_each(|v| references(v, out)),
        _ => {}
    }
}

/// Adds a part to a whole v2 document. A path that is there already stays; a definition of the same name that says
/// something else comes in under a name of its own.
pub fn merge(whole: &mut Value, part: &Value) {
    let mut part = part.clone();
    let mut renamed = Vec::new();
    for (name, definition) in part["definitions"].as_object().into_iter().flatten() {
        let there = |name: &str| whole["definitions"].get(name);
        let differs = |name: &str| there(name).is_some_and(|d| !same(d, definition));
        if differs(name) {
            let free = (2..).map(|n| format!("{name}_v{n}")).find(|n| !differs(n));
            renamed.extend(free.map(|free| (name.clone(), free)));
        }
    }
    for (name, free) in &renamed {
        refer(&mut part, name, free);
        if let Some(definitions) = part["definitions"].as_object_mut()
            && let Some(definition) = definitions.remove(name)
        {
            definitions.insert(free.clone(), definition);
        }
    }
    for section in ["paths", "definitions"] {
        let (Some(from), Some(to)) = (part[section].as_object(), whole[section].as_object_mut()) else {
            continue;
        };
        for (name, value) in from {
            to.entry(name.clone()).or_insert_with(|| value.clone());
        }
    }
}

/// Which kinds a definition is used for differs from server to server; what it says does not.
fn same(a: &Value, b: &Value) -> bool {
    let strip = |value: &Value| {
        let mut map = value.as_object().cloned().unwrap_or_default();
        map.remove("x-kubernetes-group-version-kind");
        map
    };
    strip(a) == strip(b)
}

/// Makes references to one definition lead to another.
fn refer(value: &mut Value, from: &str, to: &str) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let hit = key == "$ref"
                    && value
                        .as_str()
                        .and_then(|r| r.strip_prefix(DEFINITIONS))
                        .is_some_and(|name| name == from);
                match hit {
                    true => *value = format!("{DEFINITIONS}{to}").into(),
                    false => refer(value, from, to),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|v| refer(v, from, to)),
        _ => {}
    }
}

/// A part of a v2 document in the form of v3, as far as the two agree.
pub fn to_v3(part: &Value) -> Value {
    let mut paths = Map::new();
    for (path, item) in part["paths"].as_object().into_iter().flatten() {
        paths.insert(path.clone(), path_item(item));
    }
    let mut schemas = part["definitions"].clone();
    relocate(&mut schemas);
    json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "unversioned"},
        "paths": paths,
        "components": {"schemas": schemas},
    })
}

fn path_item(item: &Value) -> Value {
    let mut out = Map::new();
    for (key, value) in item.as_object().into_iter().flatten() {
        let value = match key.as_str() {
            "parameters" => parameters(value).0,
            _ if value.is_object() => operation(value),
            _ => value.clone(),
        };
        out.insert(key.clone(), value);
    }
    out.into()
}

fn operation(operation: &Value) -> Value {
    let mut out = operation.as_object().cloned().unwrap_or_default();
    let types = |field: &str| -> Vec<String> {
        let listed = operation[field].as_array().into_iter().flatten().filter_map(Value::as_str);
        let listed: Vec<String> = listed.map(str::to_owned).collect();
        if listed.is_empty() { vec!["application/json".to_owned()] } else { listed }
    };
    let content = |schema: &Value, field: &str| -> Value {
        let mut schema = schema.clone();
        relocate(&mut schema);
        types(field).into_iter().map(|kind| (kind, json!({"schema": schema}))).collect::<Map<_, _>>().into()
    };
    for gone in ["consumes", "produces", "schemes"] {
        out.remove(gone);
    }
    if let Some(given) = operation.get("parameters") {
        let (parameters, body) = parameters(given);
        out.insert("parameters".into(), parameters);
        if let Some(body) = body {
            let mut request = json!({"content": content(&body["schema"], "consumes")});
            if body["required"] == true {
                request["required"] = true.into();
            }
            out.insert("requestBody".into(), request);
        }
    }
    for response in
        out.get_mut("responses").and_then(Value::as_object_mut).into_iter().flat_map(|r| r.values_mut())
    {
        if let Some(schema) = response.as_object_mut().and_then(|r| r.remove("schema")) {
            response["content"] = content(&schema, "produces");
        }
    }
    out.into()
}

/// Parameters with their types in schemas, and the one that is the body.
fn parameters(given: &Value) -> (Value, Option<Value>) {
    let mut body = None;
    let mut out = Vec::new();
    for parameter in given.as_array().into_iter().flatten() {
        if parameter["in"] == "body" {
            body = Some(parameter.clone());
            continue;
        }
        let (mut kept, mut schema) = (Map::new(), Map::new());
        for (key, value) in parameter.as_object().into_iter().flatten() {
            let stays = matches!(key.as_str(), "name" | "in" | "description" | "required" | "$ref");
            (if stays { &mut kept } else { &mut schema }).insert(key.clone(), value.clone());
        }
        if !schema.is_empty() {
            kept.insert("schema".into(), schema.into());
        }
        out.push(Value::Object(kept));
    }
    (out.into(), body)
}

/// v3 keeps its schemas elsewhere.
fn relocate(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                match value.as_str().and_then(|r| r.strip_prefix(DEFINITIONS)).filter(|_| key == "$ref") {
                    Some(name) => *value = format!("#/components/schemas/{name}").into(),
                    None => relocate(value),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(relocate),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document() -> Value {
        let to = |name: &str| json!({"schema": {"$ref": format!("{DEFINITIONS}{name}")}});
        json!({
            "paths": {
                "/apis/g/v1/things": {"get": {"produces": ["application/json"], "responses": {"200": to("Thing")},
                    "parameters": [{"name": "limit", "in": "query", "type": "integer"},
                                   {"name": "body", "in": "body", "required": true, "schema": {"$ref": "#/definitions/Thing"}}]}},
                "/apis/g/v2/others": {"get": {"responses": {"200": to("Other")}}},
                "/version": {"get": {}},
            },
            "definitions": {
                "Thing": {"properties": {"meta": {"$ref": "#/definitions/Meta"}}},
                "Meta": {"type": "object"},
                "Other": {"type": "string"},
            },
        })
    }

    #[test]
    fn a_part_has_a_versions_paths_and_what_they_lead_to() {
        let part = part(document(), "g", "v1");
        let names = |of: &str| part[of].as_object().expect("a map").keys().cloned().collect::<Vec<_>>();
        assert_eq!(
            (names("paths"), names("definitions")),
            (vec!["/apis/g/v1/things".into()], vec!["Meta".into(), "Thing".into()])
        );
    }

    #[test]
    fn definitions_that_differ_come_in_under_another_name() {
        let gvk = json!([{"group": "", "version": "v1", "kind": "Meta"}]);
        let local = |meta: Value| json!({"paths": {}, "definitions": {"Meta": meta}});
        let part = part(document(), "g", "v1");
        let mut alike = local(json!({"type": "object", "x-kubernetes-group-version-kind": gvk}));
        merge(&mut alike, &part);
        assert_eq!(alike["definitions"]["Thing"]["properties"]["meta"]["$ref"], "#/definitions/Meta");
        let mut unlike = local(json!({"type": "string"}));
        merge(&mut unlike, &part);
        assert_eq!(unlike["definitions"]["Thing"]["properties"]["meta"]["$ref"], "#/definitions/Meta_v2");
        assert_eq!(unlike["definitions"]["Meta_v2"]["type"], "object");
        assert_eq!(unlike["definitions"]["Meta"]["type"], "string");
    }

    #[test]
    fn a_v2_part_reads_as_v3() {
        let v3 = to_v3(&part(document(), "g", "v1"));
        let get = &v3["paths"]["/apis/g/v1/things"]["get"];
        let thing = json!({"application/json": {"schema": {"$ref": "#/components/schemas/Thing"}}});
        assert_eq!(get["requestBody"], json!({"content": thing, "required": true}));
        assert_eq!(get["responses"]["200"], json!({"content": thing}));
        assert_eq!(
            get["parameters"],
            json!([{"name": "limit", "in": "query", "schema": {"type": "integer"}}])
        );
        assert_eq!(
            v3["components"]["schemas"]["Thing"]["properties"]["meta"]["$ref"],
            "#/components/schemas/Meta"
        );
    }
}
