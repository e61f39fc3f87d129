//! StorageVersionMigrations where they are served, and the empty writes that migrations are made of.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use keelson_api_server::config::Config;
use serde_json::{Value, json};

use crate::crds::{switch_storage, two_versions};
use crate::support::{CONFIG_MAPS, Client, DEPLOYMENTS, Server, config_map};

const MIGRATIONS: &str = "/apis/storagemigration.k8s.io/v1beta1/storageversionmigrations";
const WIDGET: &str = "/apis/example.com/v1/namespaces/default/widgets/w";

fn serve(config: &mut Config, apis: Value) {
    config.runtime_config = serde_json::from_value(apis).unwrap();
}

fn migration(group: &str, resource: &str) -> Value {
    json!({"apiVersion": "storagemigration.k8s.io/v1beta1", "kind": "StorageVersionMigration",
        "metadata": {"name": "m"}, "spec": {"resource": {"group": group, "resource": resource}}})
}

/// Everything that tells clients of the API: whether it is there.
async fn announced(admin: &Client) -> Vec<bool> {
    let groups = admin.get("/apis").await.expect(200).to_string();
    let documents = admin.get("/openapi/v3").await.expect(200).to_string();
    let mut found = vec![groups.contains("storagemigration"), documents.contains("storagemigration")];
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    for path in [
        MIGRATIONS,
        "/apis/storagemigration.k8s.io",
        "/apis/storagemigration.k8s.io/v1beta1",
        "/openapi/v3/apis/storagemigration.k8s.io/v1beta1",
        "/apis/apiregistration.k8s.io/v1/apiservices/v1beta1.storagemigration.k8s.io",
    ] {
        found.push(admin.get(path).await.status == 200);
    }
    let role = format!("{rbac}/clusterroles/system:controller:storage-version-migrator-controller");
    found.push(admin.get(&role).await.status == 200);
    found
}

#[tokio::test]
async fn an_api_that_is_off_by_default_is_turned_on_and_off_again() {
    let on = Arc::new(AtomicBool::new(false));
    let switch = on.clone();
    let mut server = Server::with(move |config| {
        serve(config, json!({"api/beta": switch.load(Ordering::Relaxed).to_string()}));
    })
    .await;
    assert_eq!(announced(&server.admin()).await, [false; 8]);
    on.store(true, Ordering::Relaxed);
    server.restart().await;
    assert_eq!(announced(&server.admin()).await, [true; 8]);
    server.admin().post(MIGRATIONS, &migration("apps", "deployments")).await.expect(201);
    on.store(false, Ordering::Relaxed);
    server.restart().await;
    let mut but_the_role = [false; 8];
    but_the_role[7] = true;
    assert_eq!(announced(&server.admin()).await, but_the_role);
    on.store(true, Ordering::Relaxed);
    server.restart().await;
    server.admin().get(&format!("{MIGRATIONS}/m")).await.expect(200);
}

#[tokio::test]
async fn a_resource_that_is_on_by_default_is_turned_off() {
    let server = Server::with(|config| serve(config, json!({"apps/v1/deployments": false}))).await;
    let admin = server.admin();
    admin.get(DEPLOYMENTS).await.expect(404);
    let resources = admin.get("/apis/apps/v1").await.expect(200).to_string();
    assert!(resources.contains("\"daemonsets\"") && !resources.contains("\"deployments\""));
    let document = admin.get("/openapi/v3/apis/apps/v1").await.expect(200);
    assert!(document["paths"]["/apis/apps/v1/deployments"].is_null());
}

#[tokio::test]
async fn migrations_are_announced_and_checked_as_upstream_does() {
    let server = Server::with(|config| serve(config, json!({"storagemigration.k8s.io/v1beta1": true}))).await;
    let admin = server.admin();
    let resources = admin.get("/apis/storagemigration.k8s.io/v1beta1").await.expect(200)["resources"].clone();
    let verbs = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
    assert_eq!(
        resources,
        json!([
            {"kind": "StorageVersionMigration", "name": "storageversionmigrations", "namespaced": false,
                "singularName": "storageversionmigration", "storageVersionHash": "pCjmmKOkLy4=", "verbs": verbs},
            {"kind": "StorageVersionMigration", "name": "storageversionmigrations/status", "namespaced": false,
                "singularName": "", "verbs": ["get", "patch", "update"]},
        ])
    );
    admin.post(MIGRATIONS, &migration("", "Pods")).await.refused(422, "Invalid", "spec.resource.resource");
    let mut given = migration("", "secrets");
    given["status"] = json!({"resourceVersion": "7"});
    let created = admin.post(MIGRATIONS, &given).await.expect(201);
    assert_eq!(created["status"], json!({}));
    assert_eq!(created["spec"], json!({"resource": {"group": "", "resource": "secrets"}}));
    let path = format!("{MIGRATIONS}/m");
    let change = json!({"spec": {"resource": {"resource": "configmaps"}}});
    admin.patch(&path, "merge", &change).await.refused(422, "Invalid", "spec: Invalid value");
    let running = json!({"status": {"resourceVersion": "7", "conditions": [{"type": "Running", "status": "True",
        "reason": "MigrationRunning", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
    let status = admin.patch(&format!("{path}/status"), "merge", &running).await.expect(200);
    assert_eq!(status["status"]["conditions"][0]["type"], "Running");
    let table =
        admin.with("accept", "application/json;as=Table;v=v1;g=meta.k8s.io").get(&path).await.expect(200);
    assert_eq!(table["rows"][0]["cells"], json!(["m", "secrets", "Running"]));
}

/// Applies nothing to an object, as a migration does.
async fn touch(admin: &Client, path: &str, object: &Value) -> Value {
    let meta = &object["metadata"];
    let nothing = json!({"apiVersion": object["apiVersion"], "kind": object["kind"],
        "metadata": {"uid": meta["uid"], "resourceVersion": meta["resourceVersion"]}});
    admin
        .patch(&format!("{path}?fieldManager=storage-version-migrator-controller"), "apply", &nothing)
        .await
        .json()
}

/// An object whose revision is another.
fn at(mut object: Value, other: &Value) -> Value {
    object["metadata"]["resourceVersion"] = other["metadata"]["resourceVersion"].clone();
    object
}

#[tokio::test]
async fn applying_nothing_writes_what_is_stored_in_another_version_and_nothing_else() {
    let server = Server::start().await;
    let admin = server.admin();
    two_versions(&admin).await;
    let widget = json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"},
        "spec": {"size": 3, "color": "blue"}});
    let created = admin.post(WIDGET.trim_end_matches("/w"), &widget).await.expect(201);
    let stored = async || {
        let raw = server.raw("/registry/example.com/widgets/default/w").await;
        serde_json::from_slice::<Value>(&raw).unwrap()["apiVersion"].clone()
    };
    assert_eq!(touch(&admin, WIDGET, &created).await, created);
    assert_eq!(stored().await, "example.com/v1");
    switch_storage(&admin).await;
    let moved = touch(&admin, WIDGET, &created).await;
    assert_eq!(stored().await, "example.com/v2");
    assert_ne!(moved["metadata"]["resourceVersion"], created["metadata"]["resourceVersion"]);
    assert_eq!(moved, at(created.clone(), &moved));
    assert_eq!(touch(&admin, WIDGET, &moved).await, moved);
    // Of what has been written or deleted meanwhile nothing is overwritten or brought back.
    assert_eq!(touch(&admin, WIDGET, &created).await["reason"], "Conflict");
    admin.delete(WIDGET, None).await.expect(200);
    let gone = touch(&admin, WIDGET, &moved).await;
    assert_eq!((&gone["reason"], &gone["code"]), (&json!("Conflict"), &json!(409)));
    assert!(gone["message"].as_str().unwrap().contains("uid mismatch"), "{gone}");
}

#[tokio::test]
async fn applying_nothing_encrypts_with_the_key_of_now() {
    let write = |dir: &Path, providers: Value| {
        let document = json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "EncryptionConfiguration",
            "resources": [{"resources": ["configmaps"], "providers": providers}]});
        std::fs::write(dir.join("encryption.yaml"), document.to_string()).unwrap();
    };
    let key = |name: &str| json!({"secretbox": {"keys": [{"name": name, "secret": "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="}]}});
    let mut server = Server::start_with(move |config, dir| {
        let file = dir.join("encryption.yaml");
        if !file.exists() {
            write(dir, json!([key("one")]));
        }
        config.encryption = Some(serde_json::from_value(json!({"file": file})).unwrap());
    })
    .await;
    let path = format!("{CONFIG_MAPS}/x");
    let created = server.admin().post(CONFIG_MAPS, &config_map("x")).await.expect(201);
    assert_eq!(touch(&server.admin(), &path, &created).await, created);
    write(server.dir(), json!([key("two"), key("one")]));
    server.restart().await;
    let moved = touch(&server.admin(), &path, &created).await;
    assert_eq!(moved, at(created.clone(), &moved));
    assert_ne!(moved, created);
    assert!(server.raw("/registry/configmaps/default/x").await.starts_with(b"k8s:enc:secretbox:v1:two:"));
    assert_eq!(touch(&server.admin(), &path, &moved).await, moved);
}
