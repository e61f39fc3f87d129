//! The four patches.

use serde_json::json;

use crate::support::{CONFIG_MAPS, DEPLOYMENTS, Server, config_map, deployment};

#[tokio::test]
async fn each_kind_of_patch_does_its_own() {
    let server = Server::start().await;
    let admin = server.admin();
    admin.post(DEPLOYMENTS, &deployment("d")).await.expect(201);
    let path = format!("{DEPLOYMENTS}/d");
    let merged = admin.patch(&path, "merge", &json!({"spec": {"replicas": 3}})).await.expect(200);
    assert_eq!(merged["spec"]["replicas"], 3);
    assert_eq!(merged["metadata"]["generation"], 2);
    let patch = json!([{"op": "replace", "path": "/spec/replicas", "value": 4}]);
    assert_eq!(admin.patch(&path, "json", &patch).await.expect(200)["spec"]["replicas"], 4);
    let patch = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "other"}]}}}});
    let merged = admin.patch(&path, "strategic-merge", &patch).await.expect(200);
    let containers = merged["spec"]["template"]["spec"]["containers"].as_array().unwrap();
    assert_eq!((containers.len(), &containers[0]["image"]), (1, &json!("other")));
    admin
        .patch(&path, "json", &json!([{"op": "test", "path": "/spec/replicas", "value": 9}]))
        .await
        .expect(422);
    let reply = admin.patch(&path, "merge", &json!({"metadata": {"name": "other"}})).await;
    assert_eq!(reply.status, 400, "{}", reply.text());
    admin.patch(&format!("{DEPLOYMENTS}/missing"), "merge", &json!({})).await.refused(
        404,
        "NotFound",
        "not found",
    );
}

#[tokio::test]
async fn apply_creates_owns_and_conflicts() {
    let server = Server::start().await;
    let admin = server.admin();
    let path = |manager: &str| format!("{CONFIG_MAPS}/x?fieldManager={manager}");
    let mut object = config_map("x");
    admin.patch(&format!("{CONFIG_MAPS}/x"), "apply", &object).await.refused(
        422,
        "Invalid",
        "is required for apply patch",
    );
    let created = admin.patch(&path("one"), "apply", &object).await.expect(201);
    assert_eq!(created["metadata"]["managedFields"][0]["manager"], "one");
    assert_eq!(created["metadata"]["managedFields"][0]["operation"], "Apply");
    object["data"]["a"] = "2".into();
    let status = admin.patch(&path("two"), "apply", &object).await.refused(409, "Conflict", "conflict");
    assert_eq!(status["details"]["causes"][0]["reason"], "FieldManagerConflict");
    let forced = admin.patch(&format!("{}&force=true", path("two")), "apply", &object).await.expect(200);
    assert_eq!(forced["data"]["a"], "2");
    object["data"] = json!({});
    let emptied = admin.patch(&path("two"), "apply", &object).await.expect(200);
    assert!(emptied["data"].get("a").is_none(), "{emptied}");
}

#[tokio::test]
async fn status_is_written_alone() {
    let server = Server::start().await;
    let admin = server.admin();
    let mut object = deployment("d");
    object["status"] = json!({"replicas": 9});
    let created = admin.post(DEPLOYMENTS, &object).await.expect(201);
    assert_ne!(created["status"]["replicas"], 9);
    let patch = json!({"spec": {"replicas": 8}, "status": {"replicas": 1, "observedGeneration": 1}});
    let patched = admin.patch(&format!("{DEPLOYMENTS}/d/status"), "merge", &patch).await.expect(200);
    assert_eq!((&patched["spec"]["replicas"], &patched["status"]["replicas"]), (&json!(2), &json!(1)));
    let patched = admin.patch(&format!("{DEPLOYMENTS}/d"), "merge", &patch).await.expect(200);
    assert_eq!((&patched["spec"]["replicas"], &patched["status"]["replicas"]), (&json!(8), &json!(1)));
}

#[tokio::test]
async fn patches_without_a_revision_do_not_conflict() {
    let server = Server::start().await;
    let admin = server.admin();
    admin.post(CONFIG_MAPS, &config_map("x")).await.expect(201);
    let path = format!("{CONFIG_MAPS}/x");
    let all = (0..20).map(|n| {
        let (admin, path) = (admin.clone(), path.clone());
        async move { admin.patch(&path, "merge", &json!({"data": {format!("k{n}"): "v"}})).await.expect(200) }
    });
    futures::future::join_all(all).await;
    let object = admin.get(&path).await.expect(200);
    assert_eq!(object["data"].as_object().unwrap().len(), 21);
}
