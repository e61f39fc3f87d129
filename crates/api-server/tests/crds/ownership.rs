//! Managers of one object in several versions: what they own is compared in their version.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use super::webhooks::{V1, V2, converter, started, v1, v2};
use super::{DEFINITIONS, serve, with};
use crate::support::{Client, Server, eventually};

/// `manager operation version: fields` of each entry.
fn owners(object: &Value) -> Vec<String> {
    let entries = object["metadata"]["managedFields"].as_array().into_iter().flatten();
    let text = |e: &Value, field: &str| e[field].as_str().unwrap().to_owned();
    entries
        .map(|e| {
            let version = text(e, "apiVersion").rsplit('/').next().unwrap().to_owned();
            let fields: Vec<&String> = e["fieldsV1"].as_object().unwrap().keys().collect();
            format!("{} {} {version}: {fields:?}", text(e, "manager"), text(e, "operation"))
        })
        .collect()
}

async fn apply(admin: &Client, path: &str, by: &str, object: &Value) -> crate::support::Reply {
    let path = format!("{path}/{}?fieldManager={by}", object["metadata"]["name"].as_str().unwrap());
    admin.patch(&path, "apply", object).await
}

/// What `object` sets alone, beside its name.
fn only(mut object: Value, unset: &str) -> Value {
    object.as_object_mut().unwrap().remove(unset);
    object
}

#[tokio::test]
async fn a_conflict_is_found_in_the_version_of_the_owner() {
    let hook = converter(|_| {}).await;
    let (_server, admin) = started(&hook).await;
    apply(&admin, V1, "one", &v1("a", "h:1")).await.expect(201);
    // Both fields of v2 are parts of the one of v1.
    let other = only(v2("a", "x", ""), "port");
    let refused = apply(&admin, V2, "two", &other).await.expect(409);
    let message = r#"conflict with "one""#;
    assert_eq!(
        refused["details"]["causes"],
        json!([{"reason": "FieldManagerConflict", "message": message, "field": ".hostPort"}])
    );
    let same = apply(&admin, V2, "two", &only(v2("a", "h", ""), "port")).await.expect(200);
    assert_eq!(owners(&same), [r#"one Apply v1: ["f:hostPort"]"#, r#"two Apply v2: ["f:host"]"#]);
    let forced = apply(&admin, V2, "two&force=true", &other).await.expect(200);
    assert_eq!((&forced["host"], &forced["port"]), (&json!("x"), &json!("1")));
    assert_eq!(owners(&forced), [r#"two Apply v2: ["f:host"]"#]);
}

#[tokio::test]
async fn a_write_takes_over_what_it_changes_in_the_version_of_the_owner() {
    let hook = converter(|_| {}).await;
    let (_server, admin) = started(&hook).await;
    apply(&admin, V1, "one", &v1("a", "h:1")).await.expect(201);
    let by = |manager: &str, version: &str| format!("{version}/a?fieldManager={manager}");
    let labelled = json!({"metadata": {"labels": {"a": "b"}}});
    let seen = admin.patch(&by("two", V2), "merge", &labelled).await.expect(200);
    assert_eq!(owners(&seen), [r#"one Apply v1: ["f:hostPort"]"#, r#"two Update v2: ["f:metadata"]"#]);
    let seen = admin.patch(&by("two", V2), "merge", &json!({"port": "2"})).await.expect(200);
    assert_eq!(owners(&seen), [r#"two Update v2: ["f:metadata", "f:port"]"#]);
    let seen = admin.patch(&by("three", V1), "merge", &json!({"hostPort": "g:2"})).await.expect(200);
    let wanted = [r#"two Update v2: ["f:metadata", "f:port"]"#, r#"three Update v1: ["f:hostPort"]"#];
    let mut found = owners(&seen);
    found.sort_by_key(|entry| entry.starts_with("three"));
    assert_eq!(found, wanted, "the port is as it was");
}

#[tokio::test]
async fn a_manager_that_changes_versions_keeps_what_it_applies() {
    let hook = converter(|_| {}).await;
    let (_server, admin) = started(&hook).await;
    apply(&admin, V1, "one", &v1("a", "h:1")).await.expect(201);
    let before = hook.asked().len();
    let applied = apply(&admin, V2, "one", &v2("a", "h", "1")).await.expect(200);
    assert_eq!((&applied["host"], &applied["port"]), (&json!("h"), &json!("1")));
    assert_eq!(owners(&applied), [r#"one Apply v2: ["f:host", "f:port"]"#]);
    let asked = hook.asked().split_off(before);
    let asked: Vec<_> = asked.iter().map(|r| (&r["objects"], &r["desiredAPIVersion"])).collect();
    let again = asked.iter().enumerate().find(|(i, one)| asked[..*i].contains(one));
    assert_eq!(again, None, "each object is converted to each version once");
    // What it applies no more is gone, whichever version it was applied in.
    let applied = apply(&admin, V1, "one", &v1("a", "h:1")).await.expect(200);
    assert_eq!(owners(&applied), [r#"one Apply v1: ["f:hostPort"]"#]);
    let applied = apply(&admin, V1, "one", &only(v1("a", ""), "hostPort")).await.expect(200);
    assert_eq!(applied.get("hostPort"), None);
}

#[tokio::test]
async fn without_a_converter_versions_are_compared_by_their_schemas() {
    let server = Server::start().await;
    let admin = server.admin();
    serve(&admin, &super::versions::two()).await;
    let paths = ["v1", "v2"].map(|v| format!("/apis/example.com/{v}/namespaces/default/widgets"));
    apply(&admin, &paths[0], "one", &with("w", json!({"size": 3, "color": "blue"}))).await.expect(201);
    let mut other = with("w", json!({"size": 4}));
    other["apiVersion"] = "example.com/v2".into();
    let refused = apply(&admin, &paths[1], "two", &other).await.expect(409);
    assert_eq!(refused["details"]["causes"][0]["field"], ".spec.size");
    other["spec"]["size"] = 3.into();
    let shared = apply(&admin, &paths[1], "two", &other).await.expect(200);
    assert_eq!(owners(&shared).len(), 2, "{shared}");
    // Now one owns something in v2, where nobody can say whose the color is.
    admin.patch(&format!("{}/w", paths[0]), "merge", &json!({"spec": {"color": "red"}})).await.expect(200);
    apply(&admin, &paths[1], "two", &other).await.expect(200);
    let refused = apply(&admin, &paths[0], "one", &with("w", json!({"size": 3}))).await.expect(500);
    assert_eq!(refused["message"], ".spec.color: field not declared in schema");
}

#[tokio::test]
async fn a_scale_takes_the_replicas_of_each_version_from_their_owner() {
    let server = Server::start().await;
    let admin = server.admin();
    let mut definition = super::definition();
    let version = &mut definition["spec"]["versions"][0];
    let count = json!({"type": "integer"});
    version["schema"]["openAPIV3Schema"]["properties"]["spec"] =
        json!({"type": "object", "properties": {"replicas": count, "count": count}});
    let version = version.clone();
    for (name, path) in [("v2", ".spec.count"), ("v3", "")] {
        let mut other = version.clone();
        (other["name"], other["storage"]) = (name.into(), false.into());
        match path {
            "" => other["subresources"] = json!({}),
            path => other["subresources"]["scale"]["specReplicasPath"] = path.into(),
        }
        definition["spec"]["versions"].as_array_mut().unwrap().push(other);
    }
    serve(&admin, &definition).await;
    let paths = ["v1", "v2", "v3"].map(|v| format!("/apis/example.com/{v}/namespaces/default/widgets"));
    for (i, spec) in [json!({"replicas": 1}), json!({"count": 1}), json!({"replicas": 1, "count": 1})]
        .into_iter()
        .enumerate()
    {
        let mut object = with("w", spec);
        object["apiVersion"] = format!("example.com/v{}", i + 1).into();
        let by = ["one", "two", "three"][i];
        apply(&admin, &paths[i], by, &object).await.expect(if i == 0 { 201 } else { 200 });
    }
    let url = format!("{}/w", paths[1]);
    let (scale, three) = (format!("{url}/scale?fieldManager=hpa"), json!({"spec": {"replicas": 3}}));
    assert_eq!(admin.patch(&scale, "merge", &three).await.expect(200)["spec"]["replicas"], 3);
    let seen = admin.get(&url).await.expect(200);
    assert_eq!(seen["spec"], json!({"replicas": 1, "count": 3}));
    let entries: Vec<Value> = seen["metadata"]["managedFields"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| {
            json!([
                e["manager"],
                e["apiVersion"],
                e.get("subresource"),
                e.get("time").is_some(),
                e["fieldsV1"]["f:spec"]
            ])
        })
        .collect();
    // v1's replicas are others than v2's, but both are what a scale shows; v3 has no scale.
    assert_eq!(
        entries,
        [
            json!(["three", "example.com/v3", null, true, {"f:count": {}, "f:replicas": {}}]),
            json!(["hpa", "example.com/v2", "scale", false, {"f:count": {}}]),
        ]
    );
}

#[tokio::test]
async fn replicas_that_are_not_there_have_to_be_given() {
    let server = Server::start().await;
    let admin = server.admin();
    super::establish(&admin).await;
    admin.post(super::WIDGETS, &super::widget("w")).await.expect(201);
    let scale = format!("{}/w/scale", super::WIDGETS);
    let why = r#"the spec replicas field ".spec.replicas" cannot be empty"#;
    admin.patch(&scale, "merge", &json!({"spec": {}})).await.refused(400, "BadRequest", why);
    admin.patch(&scale, "merge", &json!({"spec": {"replicas": 0}})).await.expect(200);
    assert_eq!(admin.get(&scale).await.expect(200)["spec"], json!({"replicas": 0}));
}

#[tokio::test]
async fn apply_fails_where_an_owner_cannot_be_compared_and_other_writes_forget_the_owners() {
    let hook = converter(|_| {}).await;
    let (_server, admin) = started(&hook).await;
    apply(&admin, V2, "old", &v2("a", "h", "1")).await.expect(201);
    let definition = format!("{DEFINITIONS}/tests.stable.example.com");
    let without = json!([{"op": "remove", "path": "/spec/versions/1"}]);
    admin.patch(&definition, "json", &without).await.expect(200);
    eventually("v2 is no more", || async {
        let reply = admin.get(V2).await;
        if reply.status == 404 { Ok(()) } else { Err(reply.text()) }
    })
    .await;
    let why = "request to convert CR to an invalid group/version: stable.example.com/v2";
    let refused = apply(&admin, V1, "one", &v1("a", "h:2")).await.expect(500);
    assert_eq!(refused["message"], why);
    let path = format!("{V1}/a");
    let seen = admin.patch(&path, "merge", &json!({"hostPort": "h:3"})).await.expect(200);
    assert_eq!(owners(&seen), [""; 0]);
}

#[tokio::test]
async fn a_webhook_that_fails_fails_an_apply_and_no_other_write() {
    let broken = Arc::new(AtomicBool::new(false));
    let fails = broken.clone();
    let hook = converter(move |response| {
        if fails.load(Ordering::Relaxed) {
            response["result"] = json!({"status": "Failed", "message": "no"});
        }
    })
    .await;
    let (_server, admin) = started(&hook).await;
    apply(&admin, V2, "two", &v2("b", "h", "1")).await.expect(201);
    broken.store(true, Ordering::Relaxed);
    let refused = apply(&admin, V1, "one&force=true", &v1("b", "h:2")).await.expect(500);
    assert_eq!(refused["message"], "conversion webhook for stable.example.com/v1, Kind=Test failed: no");
    let seen = admin.patch(&format!("{V1}/b"), "merge", &json!({"hostPort": "h:3"})).await.expect(200);
    assert_eq!(owners(&seen), [""; 0]);
}
