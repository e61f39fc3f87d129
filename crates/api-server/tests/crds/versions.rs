//! Several versions of one resource, without a converter.

use serde_json::{Value, json};

use super::{DEFINITIONS, condition, definition, serve, switch_storage, with};
use crate::support::{Client, Server, eventually};

const V1: &str = "/apis/example.com/v1/namespaces/default/widgets";
const V2: &str = "/apis/example.com/v2/namespaces/default/widgets";

/// v1 (stored) and v2, which has a field more and one less.
pub(super) fn two() -> Value {
    let mut definition = definition();
    let mut second = definition["spec"]["versions"][0].clone();
    second["name"] = "v2".into();
    second["storage"] = false.into();
    second["schema"]["openAPIV3Schema"]["properties"]["spec"] = json!({"type": "object", "properties": {
        "size": {"type": "integer", "maximum": 5}, "weight": {"type": "integer"}, "shape": {"type": "string", "default": "round"}}});
    second["selectableFields"] = json!([{"jsonPath": ".spec.shape"}]);
    definition["spec"]["versions"].as_array_mut().unwrap().push(second);
    definition
}

fn v2(name: &str, spec: Value) -> Value {
    let mut object = with(name, spec);
    object["apiVersion"] = "example.com/v2".into();
    object
}

async fn started() -> (Server, Client) {
    let server = Server::start().await;
    let admin = server.admin();
    serve(&admin, &two()).await;
    (server, admin)
}

#[tokio::test]
async fn each_version_has_its_own_schema() {
    let (_server, admin) = started().await;
    admin.post(V1, &with("w", json!({"size": 9, "color": "blue"}))).await.expect(201);
    // What v2 does not know, its reader does not see; nothing is lost in the store.
    let seen = admin.get(&format!("{V2}/w")).await.expect(200);
    assert_eq!((&seen["apiVersion"], &seen["spec"]), (&json!("example.com/v2"), &json!({"size": 9})));
    assert_eq!(admin.get(&format!("{V1}/w")).await.expect(200)["spec"]["color"], "blue");
    // The write is judged by v2 and stored by v1.
    admin.post(V2, &v2("x", json!({"size": 6}))).await.refused(
        422,
        "Invalid",
        "spec.size in body should be less than or equal to 5",
    );
    let created = admin.post(V2, &v2("x", json!({"size": 5, "weight": 1}))).await.expect(201);
    assert_eq!(created["apiVersion"], "example.com/v2");
    assert_eq!(created["spec"], json!({"size": 5}), "v1, which is stored, has neither weight nor shape");
    assert_eq!(admin.get(&format!("{V1}/x")).await.expect(200)["spec"], json!({"size": 5, "color": "red"}));
    let list = admin.get(V2).await.expect(200);
    assert!(list["items"].as_array().unwrap().iter().all(|o| o["apiVersion"] == "example.com/v2"), "{list}");
}

#[tokio::test]
async fn a_watch_shows_the_version_that_it_watches() {
    let (_server, admin) = started().await;
    admin.post(V1, &with("a", json!({"size": 1}))).await.expect(201);
    let mut watch = admin.watch(&format!("{V2}?watch=1")).await;
    let first = watch.next().await.unwrap();
    assert_eq!((&first["type"], &first["object"]["apiVersion"]), (&json!("ADDED"), &json!("example.com/v2")));
    admin.patch(&format!("{V1}/a"), "merge", &json!({"spec": {"size": 2}})).await.expect(200);
    admin.delete(&format!("{V1}/a"), None).await.expect(200);
    for kind in ["MODIFIED", "DELETED"] {
        let event = watch.next().await.unwrap();
        assert_eq!(
            (&event["type"], &event["object"]["apiVersion"]),
            (&json!(kind), &json!("example.com/v2"))
        );
        assert_eq!(event["object"]["spec"], json!({"size": 2}));
    }
}

#[tokio::test]
async fn objects_move_to_a_new_storage_version_as_they_are_written() {
    let (mut server, admin) = started().await;
    let created = admin.post(V1, &with("w", json!({"size": 3, "color": "blue"}))).await.expect(201);
    let hash = |list: Value| list["resources"][0]["storageVersionHash"].clone();
    let first = hash(admin.get("/apis/example.com/v1").await.expect(200));
    assert_eq!(first, hash(admin.get("/apis/example.com/v2").await.expect(200)));
    let path = format!("{DEFINITIONS}/widgets.example.com");
    switch_storage(&admin).await;
    let read = admin.get(&format!("{V1}/w")).await.expect(200);
    assert_eq!(read, created, "what was stored in v1 is still read as it was");
    // Now served in v2 alone: objects of the old version are converted.
    let off = json!([{"op": "replace", "path": "/spec/versions/0/served", "value": false}]);
    admin.patch(&path, "json", &off).await.expect(200);
    eventually("v1 is not served any longer", || async {
        let reply = admin.get(V1).await;
        if reply.status == 404 { Ok(()) } else { Err(reply.text()) }
    })
    .await;
    let object = admin.get(&format!("{V2}/w")).await.expect(200);
    assert_eq!(object["spec"], json!({"size": 3}));
    let written = admin.put(&format!("{V2}/w"), &object).await.expect(200);
    assert_ne!(written["metadata"]["resourceVersion"], object["metadata"]["resourceVersion"]);
    assert_eq!(written["spec"], json!({"size": 3, "shape": "round"}), "stored in v2, it has v2's defaults");
    server.restart().await;
    let admin = server.admin();
    condition(&admin, "widgets.example.com", "Established", "True").await;
    eventually("the object is there", || async {
        let reply = admin.get(&format!("{V2}/w")).await;
        if reply.status == 200 { Ok(()) } else { Err(reply.text()) }
    })
    .await;
}

#[tokio::test]
async fn fields_select_by_the_version_asked_for() {
    let (_server, admin) = started().await;
    admin.post(V2, &v2("w", json!({"size": 1}))).await.expect(201);
    admin.get(&format!("{V1}?fieldSelector=spec.shape%3Dround")).await.refused(400, "BadRequest", "");
    // Stored as v1, the object has no shape; converted, it is not defaulted.
    let list = admin.get(&format!("{V2}?fieldSelector=spec.shape%3Dround")).await.expect(200);
    assert_eq!(list["items"], json!([]));
    let list = admin.get(&format!("{V2}?fieldSelector=spec.shape%3D")).await.expect(200);
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_deprecated_version_says_so() {
    let server = Server::start().await;
    let admin = server.admin();
    let mut definition = two();
    definition["spec"]["versions"][0]["deprecated"] = true.into();
    serve(&admin, &definition).await;
    let reply = admin.get(V1).await;
    assert_eq!(
        reply.headers["warning"],
        r#"299 - "example.com/v1 Widget is deprecated; use example.com/v2 Widget""#
    );
    assert!(admin.get(V2).await.headers.get("warning").is_none());
    let own = json!([{"op": "add", "path": "/spec/versions/0/deprecationWarning", "value": "gone soon"}]);
    admin.patch(&format!("{DEFINITIONS}/widgets.example.com"), "json", &own).await.expect(200);
    eventually("the warning is its own", || async {
        let reply = admin.get(V1).await;
        let warning = reply.headers["warning"].to_str().unwrap().to_owned();
        if warning == r#"299 - "gone soon""# { Ok(()) } else { Err(warning) }
    })
    .await;
}
