//! Custom resources.

mod definitions;
mod lifecycle;
mod objects;
mod ownership;
mod publication;
mod versions;
mod webhooks;

use serde_json::{Value, json};

use crate::support::{Client, Server, eventually};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
pub const WIDGETS: &str = "/apis/example.com/v1/namespaces/default/widgets";

fn definition() -> Value {
    let schema = json!({
        "type": "object",
        "properties": {
            "spec": {
                "type": "object",
                "required": ["size"],
                "properties": {
                    "size": {"type": "integer", "minimum": 1},
                    "color": {"type": "string", "default": "red"},
                    "replicas": {"type": "integer"}
                }
            },
            "status": {"type": "object", "properties": {"replicas": {"type": "integer"}}}
        }
    });
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "shortNames": ["wd"]},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": schema},
                "subresources": {
                    "status": {},
                    "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}
                },
                "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}]
            }]
        }
    })
}

pub fn widget(name: &str) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": name}, "spec": {"size": 3}})
}

pub async fn establish(admin: &Client) {
    serve(admin, &definition()).await;
}

/// Creates a definition and waits until its objects are served.
async fn serve(admin: &Client, definition: &Value) {
    admin.post(DEFINITIONS, definition).await.expect(201);
    condition(admin, definition["metadata"]["name"].as_str().unwrap(), "Established", "True").await;
}

/// Serves widgets in v1, which is stored, and v2, which is the same.
pub async fn two_versions(admin: &Client) {
    let mut definition = definition();
    let versions = definition["spec"]["versions"].as_array_mut().unwrap();
    versions.push(versions[0].clone());
    versions[1]["name"] = "v2".into();
    versions[1]["storage"] = false.into();
    serve(admin, &definition).await;
}

/// Serves widgets in v1, which is stored, and v2, which has other fields.
pub async fn differing_versions(admin: &Client) {
    serve(admin, &versions::two()).await;
}

/// Makes v2 the version that is stored instead of v1.
pub async fn switch_storage(admin: &Client) {
    let hash = async || {
        let list = admin.get("/apis/example.com/v1").await.expect(200);
        list["resources"][0]["storageVersionHash"].clone()
    };
    let before = hash().await;
    let switch = json!([
        {"op": "replace", "path": "/spec/versions/0/storage", "value": false},
        {"op": "replace", "path": "/spec/versions/1/storage", "value": true},
    ]);
    admin.patch(&format!("{DEFINITIONS}/widgets.example.com"), "json", &switch).await.expect(200);
    eventually("v2 is stored", || async {
        let now = hash().await;
        if now != before { Ok(()) } else { Err(now.to_string()) }
    })
    .await;
}

/// Waits for a condition of a definition, and returns the definition.
async fn condition(admin: &Client, name: &str, kind: &str, status: &str) -> Value {
    eventually(&format!("{name} is {kind}: {status}"), || async {
        let now = admin.get(&format!("{DEFINITIONS}/{name}")).await.json();
        let conditions = now["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let is = conditions.iter().any(|c| c["type"] == kind && c["status"] == status);
        if is { Ok(now) } else { Err(now.to_string()) }
    })
    .await
}

/// A definition of `widgets.example.com` with one version of this schema for `spec`.
fn with_spec(spec: Value) -> Value {
    let mut definition = definition();
    let version = &mut definition["spec"]["versions"][0];
    version["schema"]["openAPIV3Schema"]["properties"]["spec"] = spec;
    version.as_object_mut().unwrap().remove("subresources");
    version.as_object_mut().unwrap().remove("additionalPrinterColumns");
    definition
}

/// A widget with this `spec`.
fn with(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": name}, "spec": spec})
}

/// The messages of a refusal, as `field: message`.
fn causes(status: &Value) -> Vec<String> {
    let all = status["details"]["causes"].as_array().cloned().unwrap_or_default();
    all.iter()
        .map(|c| format!("{}: {}", c["field"].as_str().unwrap(), c["message"].as_str().unwrap()))
        .collect()
}

#[tokio::test]
async fn a_definition_is_established_and_its_objects_are_served() {
    let server = Server::start().await;
    let admin = server.admin();
    establish(&admin).await;
    let mut object = widget("w");
    object["spec"]["unknown"] = 1.into();
    let created = admin.post(WIDGETS, &object).await.expect(201);
    assert_eq!(created["spec"], json!({"size": 3, "color": "red"}));
    assert_eq!(created["metadata"]["generation"], 1);
    let mut bad = widget("bad");
    bad["spec"]["size"] = 0.into();
    admin.post(WIDGETS, &bad).await.refused(422, "Invalid", "spec.size");
    let patched =
        admin.patch(&format!("{WIDGETS}/w/status"), "merge", &json!({"status": {"replicas": 2}})).await;
    assert_eq!(patched.expect(200)["status"]["replicas"], 2);
    let scale = admin.patch(&format!("{WIDGETS}/w/scale"), "merge", &json!({"spec": {"replicas": 4}})).await;
    assert_eq!(scale.expect(200)["spec"]["replicas"], 4);
    let table = admin.with("accept", "application/json;as=Table;v=v1;g=meta.k8s.io");
    let list = table.get(WIDGETS).await.expect(200);
    assert_eq!(list["rows"][0]["cells"], json!(["w", 3]));
    let resources = admin.get("/apis/example.com/v1").await.expect(200);
    assert_eq!(resources["resources"][0]["shortNames"], json!(["wd"]));
    admin.patch(&format!("{WIDGETS}/w"), "strategic-merge", &json!({})).await.refused(
        415,
        "UnsupportedMediaType",
        "",
    );
}

#[tokio::test]
async fn a_deleted_definition_takes_its_objects_along() {
    let server = Server::start().await;
    let admin = server.admin();
    establish(&admin).await;
    admin.post(WIDGETS, &widget("w")).await.expect(201);
    let path = format!("{DEFINITIONS}/widgets.example.com");
    let deleted = admin.delete(&path, None).await.expect(200);
    assert_eq!(deleted["metadata"]["finalizers"], json!(["customresourcecleanup.apiextensions.k8s.io"]));
    eventually("the definition is gone", || async {
        let reply = admin.get(&path).await;
        if reply.status == 404 { Ok(()) } else { Err(reply.text()) }
    })
    .await;
    eventually("its resource is gone", || async {
        let reply = admin.get(WIDGETS).await;
        if reply.status == 404 { Ok(()) } else { Err(reply.text()) }
    })
    .await;
    establish(&admin).await;
    assert_eq!(admin.get(WIDGETS).await.expect(200)["items"], json!([]));
}

#[tokio::test]
async fn custom_objects_survive_a_restart() {
    let mut server = Server::start().await;
    establish(&server.admin()).await;
    let created = server.admin().post(WIDGETS, &widget("w")).await.expect(201);
    server.restart().await;
    let admin = server.admin();
    let read = eventually("the resource is served", || async {
        let reply = admin.get(&format!("{WIDGETS}/w")).await;
        if reply.status == 200 { Ok(reply.json()) } else { Err(reply.text()) }
    })
    .await;
    assert_eq!(read, created);
}
