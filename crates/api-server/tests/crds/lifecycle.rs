//! Definitions that come, change and go, and those who watch.

use serde_json::json;

use super::{DEFINITIONS, WIDGETS, condition, definition, establish, serve, widget};
use crate::support::{Server, eventually};

#[tokio::test]
async fn a_definition_that_is_deleted_waits_for_its_objects() {
    let server = Server::start().await;
    let admin = server.admin();
    establish(&admin).await;
    let mut held = widget("held");
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    admin.post(WIDGETS, &held).await.expect(201);
    admin.post(WIDGETS, &widget("free")).await.expect(201);
    let path = format!("{DEFINITIONS}/widgets.example.com");
    let mut watch = admin.watch(&format!("{WIDGETS}?watch=1")).await;
    assert_eq!((watch.seen().await, watch.seen().await), ("ADDED free".into(), "ADDED held".into()));
    admin.delete(&path, None).await.expect(200);
    let now = condition(&admin, "widgets.example.com", "Terminating", "True").await;
    assert!(now["metadata"]["deletionTimestamp"].is_string(), "{now}");
    eventually("the free object is gone", || async {
        let reply = admin.get(&format!("{WIDGETS}/free")).await;
        if reply.status == 404 { Ok(()) } else { Err(reply.text()) }
    })
    .await;
    admin.post(WIDGETS, &widget("late")).await.refused(
        403,
        "Forbidden",
        "widgets.example.com \"late\" is forbidden: create not allowed while custom resource definition is terminating",
    );
    let verbs = admin.get("/apis/example.com/v1").await.expect(200)["resources"][0]["verbs"].clone();
    assert_eq!(verbs, json!(["delete", "deletecollection", "get", "list", "watch"]));
    admin
        .patch(&format!("{WIDGETS}/held"), "merge", &json!({"metadata": {"finalizers": null}}))
        .await
        .expect(200);
    eventually("the definition is gone", || async {
        let reply = admin.get(&path).await;
        if reply.status == 404 { Ok(()) } else { Err(reply.text()) }
    })
    .await;
    let mut seen = Vec::new();
    loop {
        match watch.seen().await {
            end if end == "the end" => break,
            event => seen.push(event),
        }
    }
    seen.retain(|e| e.starts_with("DELETED"));
    assert_eq!(
        seen,
        ["DELETED free", "DELETED held"],
        "a watch of what is gone has told everything and ends"
    );
    admin.get(WIDGETS).await.expect(404);
}

#[tokio::test]
async fn a_watch_ends_when_the_schema_changes() {
    let server = Server::start().await;
    let admin = server.admin();
    establish(&admin).await;
    admin.post(WIDGETS, &widget("w")).await.expect(201);
    let mut watch = admin.watch(&format!("{WIDGETS}?watch=1")).await;
    assert_eq!(watch.seen().await, "ADDED w");
    let path = format!("{DEFINITIONS}/widgets.example.com");
    // What changes nothing for the objects does not disturb who watches them.
    admin.patch(&path, "merge", &json!({"metadata": {"labels": {"a": "b"}}})).await.expect(200);
    admin.patch(&format!("{WIDGETS}/w"), "merge", &json!({"spec": {"size": 4}})).await.expect(200);
    assert_eq!(watch.seen().await, "MODIFIED w");
    let add = json!([{"op": "add", "path": "/spec/versions/0/schema/openAPIV3Schema/properties/extra", "value": {"type": "string"}}]);
    admin.patch(&path, "json", &add).await.expect(200);
    assert_eq!(watch.seen().await, "the end");
}

#[tokio::test]
async fn definitions_are_watched_like_all_objects() {
    let server = Server::start().await;
    let admin = server.admin();
    let mut watch = admin.watch(&format!("{DEFINITIONS}?watch=1&resourceVersion=0")).await;
    serve(&admin, &definition()).await;
    assert_eq!(watch.seen().await, "ADDED widgets.example.com");
    admin.delete(&format!("{DEFINITIONS}/widgets.example.com"), None).await.expect(200);
    let mut last = String::new();
    while last != "DELETED widgets.example.com" {
        last = watch.seen().await;
        assert!(last.ends_with(" widgets.example.com"), "{last}");
    }
}

#[tokio::test]
async fn the_status_of_a_definition_is_its_own() {
    let server = Server::start().await;
    let admin = server.admin();
    establish(&admin).await;
    let path = format!("{DEFINITIONS}/widgets.example.com");
    let status = admin.get(&format!("{path}/status")).await.expect(200);
    assert_eq!(status["spec"], admin.get(&path).await.expect(200)["spec"]);
    let patch = json!([{"op": "add", "path": "/status/conditions", "value": [{"type": "Test", "status": "True", "message": "patched"}]}]);
    let patched = admin.patch(&format!("{path}/status"), "json", &patch).await.expect(200);
    assert_eq!(patched["status"]["conditions"][0]["message"], "patched");
    let main = admin.patch(&path, "merge", &json!({"status": {"conditions": []}})).await.expect(200);
    assert_ne!(main["status"]["conditions"], json!([]));
    let names = json!({"status": {"acceptedNames": {"plural": "W"}}});
    admin.patch(&format!("{path}/status"), "merge", &names).await.refused(
        422,
        "Invalid",
        "status.acceptedNames.plural",
    );
}
