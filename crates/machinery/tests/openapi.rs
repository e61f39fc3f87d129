use keelson_api_types::resources;
use keelson_machinery::openapi::{CrdSchema, v2, v2_protobuf, v3, v3_hash, v3_index};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;

fn all() -> Vec<&'static resources::ResourceInfo> {
    resources::ALL.iter().collect()
}

fn document(group: &str, version: &str) -> Value {
    serde_json::from_slice(&v3(&all(), group, version, &[]).expect("served")).expect("JSON")
}

fn references(value: &Value, out: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            if let Some(r) = map.get("$ref").and_then(Value::as_str) {
                out.insert(r.to_owned());
            }
            map.values().for_each(|v| references(v, out));
        }
        Value::Array(items) => items.iter().for_each(|v| references(v, out)),
        _ => {}
    }
}

fn resolves(document: &Value) {
    let mut refs = BTreeSet::new();
    references(document, &mut refs);
    for r in refs {
        let (place, name) = r.trim_start_matches("#/").rsplit_once('/').expect("a pointer");
        let found = place.split('/').try_fold(document, |v, key| v.get(key)).and_then(|v| v.get(name));
        assert!(found.is_some(), "{r}");
    }
}

#[test]
fn every_group_version_has_a_whole_document() {
    let index = v3_index(&all(), &[]);
    for r in resources::ALL.iter() {
        let doc = document(r.group, r.version);
        resolves(&doc);
        let root = if r.group.is_empty() {
            format!("api/{}", r.version)
        } else {
            format!("apis/{}/{}", r.group, r.version)
        };
        assert!(
            index["paths"][&root]["serverRelativeURL"].as_str().is_some_and(|u| u.contains("?hash=")),
            "{root}"
        );
    }
    assert!(v3(&all(), "nope", "v1", &[]).is_none());
}

#[test]
fn clients_find_what_they_look_for() {
    let doc = document("apps", "v1");
    let item = &doc["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"];
    let patch = &item["patch"];
    assert_eq!(
        patch["x-kubernetes-group-version-kind"],
        json!({"group": "apps", "version": "v1", "kind": "Deployment"})
    );
    let names: Vec<&str> =
        patch["parameters"].as_array().expect("list").iter().filter_map(|p| p["name"].as_str()).collect();
    assert_eq!(names, ["dryRun", "fieldManager", "fieldValidation", "force"]);
    assert_eq!(patch["operationId"], "patchAppsV1NamespacedDeployment");
    assert_eq!(item["get"]["x-kubernetes-action"], "get");
    let all = &doc["paths"]["/apis/apps/v1/deployments"]["get"];
    assert_eq!(all["operationId"], "listAppsV1DeploymentForAllNamespaces");
    let schemas = &doc["components"]["schemas"];
    let spec = &schemas["io.k8s.api.apps.v1.DeploymentSpec"];
    assert_eq!(spec["properties"]["strategy"]["x-kubernetes-patch-strategy"], "retainKeys");
    assert_eq!(spec["required"], json!(["selector", "template"]));
    let ports = &schemas["io.k8s.api.core.v1.Container"]["properties"]["ports"];
    assert_eq!(ports["x-kubernetes-list-map-keys"], json!(["containerPort", "protocol"]));
    assert_eq!(ports["x-kubernetes-patch-merge-key"], "containerPort");
    let exec = &document("", "v1")["paths"]["/api/v1/namespaces/{namespace}/pods/{name}/exec"]["get"];
    assert_eq!(
        (&exec["operationId"], &exec["x-kubernetes-action"]),
        (&json!("connectGetCoreV1NamespacedPodExec"), &json!("connect"))
    );
}

#[test]
fn operation_ids_do_not_repeat() {
    let doc: Value = serde_json::from_slice(&v2(&all(), &[])).expect("JSON");
    let mut seen = BTreeSet::new();
    for (path, item) in doc["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("item").iter().filter(|(k, _)| *k != "parameters")
        {
            let id = operation["operationId"].as_str().expect("an id");
            assert!(seen.insert(id.to_owned()), "{method} {path}: {id}");
        }
    }
}

#[test]
fn v2_is_whole_and_carries_crds() {
    let schema = json!({"type": "object", "description": "Foo", "properties": {
        "spec": {"type": "object", "required": ["a"], "properties": {"a": {"type": "string", "nullable": true}, "raw": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}},
        "obj": {"type": "object", "x-kubernetes-embedded-resource": true, "properties": {"spec": {"type": "object"}}}}});
    let crd = CrdSchema {
        group: "stable.example.com".into(),
        version: "v1".into(),
        kind: "Foo".into(),
        list_kind: "FooList".into(),
        plural: "foos".into(),
        namespaced: true,
        schema,
        has_status: true,
        has_scale: true,
        ..CrdSchema::default()
    };
    let doc: Value = serde_json::from_slice(&v2(&all(), &[Arc::new(crd.clone())])).expect("JSON");
    resolves(&doc);
    let foo = &doc["definitions"]["com.example.stable.v1.Foo"];
    assert_eq!(
        foo["properties"]["spec"],
        json!({"type": "object", "properties": {"a": {}, "raw": {"x-kubernetes-preserve-unknown-fields": true}}})
    );
    assert_eq!(foo["properties"]["obj"]["required"], json!(["kind", "apiVersion"]));
    assert!(
        foo["properties"]["apiVersion"]["description"]
            .as_str()
            .is_some_and(|d| d.starts_with("APIVersion defines"))
    );
    let bare = CrdSchema { schema: Value::Null, ..crd.clone() };
    let doc: Value =
        serde_json::from_slice(&v3(&all(), "stable.example.com", "v1", &[Arc::new(bare)]).expect("served"))
            .expect("JSON");
    resolves(&doc);
    let foo = &doc["components"]["schemas"]["com.example.stable.v1.Foo"];
    assert_eq!(foo["type"], "object");
    assert!(foo.get("properties").is_none());
    assert!(
        doc["paths"].get("/apis/stable.example.com/v1/namespaces/{namespace}/foos/{name}/scale").is_some()
    );
    assert_ne!(
        v3_hash(&all(), "stable.example.com", "v1", &[]),
        v3_hash(&all(), "stable.example.com", "v1", &[Arc::new(crd)])
    );
}

/// The fields of a message, as number and content; numbers are left out.
fn fields(mut message: &[u8]) -> Vec<(u64, &[u8])> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let end = bytes.iter().position(|b| b & 0x80 == 0).expect("an end") + 1;
        let (number, rest) = bytes.split_at(end);
        *bytes = rest;
        number.iter().rev().fold(0, |value, b| value << 7 | u64::from(b & 0x7f))
    }
    let mut found = Vec::new();
    while !message.is_empty() {
        let tag = varint(&mut message);
        match tag & 7 {
            0 => drop(varint(&mut message)),
            1 => message = &message[8..],
            2 => {
                let length = varint(&mut message) as usize;
                let (content, rest) = message.split_at(length);
                found.push((tag >> 3, content));
                message = rest;
            }
            other => panic!("wire type {other}"),
        }
    }
    found
}

fn field(message: &[u8], number: u64) -> &[u8] {
    fields(message).into_iter().find(|(n, _)| *n == number).expect("the field is set").1
}

#[test]
fn the_v2_document_is_a_message_too() {
    let json = v2(&all(), &[]);
    let parsed: Value = serde_json::from_slice(&json).unwrap();
    let document = v2_protobuf(&json).unwrap();
    assert_eq!(field(&document, 1), b"2.0");
    assert_eq!(field(field(&document, 2), 1), b"Kubernetes");
    assert_eq!(fields(field(&document, 8)).len(), parsed["paths"].as_object().unwrap().len());
    let definitions = field(&document, 9);
    assert_eq!(fields(definitions).len(), parsed["definitions"].as_object().unwrap().len());
    let scale = fields(definitions).into_iter().map(|(_, pair)| pair);
    let scale = scale.into_iter().find(|pair| field(pair, 1) == b"io.k8s.api.autoscaling.v1.Scale").unwrap();
    let schema = field(scale, 2);
    assert_eq!(field(field(schema, 22), 1), b"object");
    let kinds = fields(schema).into_iter().find(|(n, _)| *n == 31).expect("a vendor extension").1;
    assert_eq!(field(kinds, 1), b"x-kubernetes-group-version-kind");
    let yaml = field(field(kinds, 2), 2);
    let kinds: Value = serde_json::from_slice(yaml).unwrap();
    assert_eq!(kinds[0]["kind"], "Scale");
}
