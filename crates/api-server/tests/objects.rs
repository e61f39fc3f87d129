//! create, get, update, delete.

use serde_json::json;

use crate::support::{CONFIG_MAPS, DEPLOYMENTS, Server, config_map, deployment, eventually};

#[tokio::test]
async fn an_object_is_created_read_replaced_and_deleted() {
    let server = Server::start().await;
    let admin = server.admin();
    let created = admin.post(CONFIG_MAPS, &config_map("x")).await.expect(201);
    let meta = &created["metadata"];
    for field in ["uid", "resourceVersion", "creationTimestamp", "namespace"] {
        assert!(meta[field].is_string(), "{field} in {created}");
    }
    let path = format!("{CONFIG_MAPS}/x");
    let mut read = admin.get(&path).await.expect(200);
    assert_eq!(read, created);
    read["data"]["a"] = "2".into();
    let replaced = admin.put(&path, &read).await.expect(200);
    assert_eq!(replaced["data"]["a"], "2");
    assert_ne!(replaced["metadata"]["resourceVersion"], meta["resourceVersion"]);
    assert_eq!(replaced["metadata"]["uid"], meta["uid"]);
    let deleted = admin.delete(&path, None).await.expect(200);
    assert_eq!((&deleted["status"], &deleted["details"]["name"]), (&json!("Success"), &json!("x")));
    admin.get(&path).await.refused(404, "NotFound", "configmaps \"x\" not found");
}

#[tokio::test]
async fn a_replace_that_changes_nothing_writes_nothing() {
    let server = Server::start().await;
    let admin = server.admin();
    let created = admin.post(CONFIG_MAPS, &config_map("x")).await.expect(201);
    let replaced = admin.put(&format!("{CONFIG_MAPS}/x"), &created).await.expect(200);
    assert_eq!(replaced, created);
}

#[tokio::test]
async fn generated_names_are_unique_and_dry_runs_leave_nothing() {
    let server = Server::start().await;
    let admin = server.admin();
    let mut object = config_map("");
    object["metadata"] = json!({"generateName": "web-"});
    let one = admin.post(CONFIG_MAPS, &object).await.expect(201);
    let two = admin.post(CONFIG_MAPS, &object).await.expect(201);
    let name = |o: &serde_json::Value| o["metadata"]["name"].as_str().unwrap().to_owned();
    assert!(name(&one).starts_with("web-") && name(&one) != name(&two));
    admin.post(&format!("{CONFIG_MAPS}?dryRun=All"), &config_map("dry")).await.expect(201);
    admin.get(&format!("{CONFIG_MAPS}/dry")).await.expect(404);
}

#[tokio::test]
async fn finalizers_hold_a_deleted_object_until_they_are_gone() {
    let server = Server::start().await;
    let admin = server.admin();
    let mut object = config_map("held");
    object["metadata"]["finalizers"] = json!(["example.com/mine"]);
    admin.post(CONFIG_MAPS, &object).await.expect(201);
    let path = format!("{CONFIG_MAPS}/held");
    let marked = admin.delete(&path, None).await.expect(200);
    assert!(marked["metadata"]["deletionTimestamp"].is_string(), "{marked}");
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 0);
    let patch = json!({"metadata": {"finalizers": ["example.com/mine", "example.com/more"]}});
    admin.patch(&path, "merge", &patch).await.refused(422, "Invalid", "no new finalizers can be added");
    admin.patch(&path, "merge", &json!({"metadata": {"finalizers": null}})).await.expect(200);
    admin.get(&path).await.expect(404);
}

#[tokio::test]
async fn propagation_policies_become_finalizers() {
    let server = Server::start().await;
    let admin = server.admin();
    for (policy, finalizer) in [("Orphan", "orphan"), ("Foreground", "foregroundDeletion")] {
        let name = policy.to_lowercase();
        admin.post(DEPLOYMENTS, &deployment(&name)).await.expect(201);
        let path = format!("{DEPLOYMENTS}/{name}");
        let marked = admin.delete(&path, Some(json!({"propagationPolicy": policy}))).await.expect(200);
        assert_eq!(marked["metadata"]["finalizers"], json!([finalizer]));
    }
    admin.post(DEPLOYMENTS, &deployment("gone")).await.expect(201);
    let path = format!("{DEPLOYMENTS}/gone");
    admin.delete(&path, Some(json!({"propagationPolicy": "Background"}))).await.expect(200);
    admin.get(&path).await.expect(404);
}

#[tokio::test]
async fn deletecollection_deletes_what_is_selected() {
    let server = Server::start().await;
    let admin = server.admin();
    for (name, app) in [("a", "x"), ("b", "x"), ("c", "y")] {
        let mut object = config_map(name);
        object["metadata"]["labels"] = json!({"app": app});
        admin.post(CONFIG_MAPS, &object).await.expect(201);
    }
    admin.delete(&format!("{CONFIG_MAPS}?labelSelector=app%3Dx"), None).await.expect(200);
    admin.get(&format!("{CONFIG_MAPS}/a")).await.expect(404);
    admin.get(&format!("{CONFIG_MAPS}/c")).await.expect(200);
}

#[tokio::test]
async fn what_a_row_says_of_its_kind_holds() {
    let server = Server::start().await;
    let admin = server.admin();
    let classes = "/apis/storage.k8s.io/v1/storageclasses";
    admin
        .post(classes, &json!({"metadata": {"name": "c"}, "provisioner": "example.com/p"}))
        .await
        .expect(201);
    let deleted = admin.delete(&format!("{classes}/c"), None).await.expect(200);
    assert_eq!(deleted["kind"], "StorageClass");
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    let mut budget = json!({"metadata": {"name": "b"}, "spec": {"minAvailable": 1}});
    admin.post(budgets, &budget).await.expect(201);
    budget["spec"]["minAvailable"] = 2.into();
    let refused = admin.put(&format!("{budgets}/b"), &budget).await;
    refused.refused(
        422,
        "Invalid",
        "metadata.resourceVersion: Invalid value: 0: must be specified for an update",
    );
    let claims = "/apis/resource.k8s.io/v1/namespaces/default/resourceclaims";
    let mut claim = json!({"metadata": {"name": "c"}, "spec": {"devices": {
        "requests": [{"name": "gpu", "exactly": {"deviceClassName": "gpu.example.com"}}],
        "constraints": [{"requests": ["other"], "matchAttribute": "example.com/model"}]}}});
    admin.post(claims, &claim).await.refused(422, "Invalid", "must be the name of a request in the claim");
    claim["spec"]["devices"]["constraints"][0]["requests"] = json!(["gpu"]);
    let created = admin.post(claims, &claim).await.expect(201);
    let request = &created["spec"]["devices"]["requests"][0]["exactly"];
    assert_eq!((&request["allocationMode"], &request["count"]), (&json!("ExactCount"), &json!(1)));
    let patch = json!({"spec": {"devices": {"requests": []}}});
    admin.patch(&format!("{claims}/c"), "merge", &patch).await.refused(422, "Invalid", "field is immutable");
}

#[tokio::test]
async fn scale_shows_and_sets_replicas() {
    let server = Server::start().await;
    let admin = server.admin();
    admin.post(DEPLOYMENTS, &deployment("web")).await.expect(201);
    let path = format!("{DEPLOYMENTS}/web/scale");
    let mut scale = admin.get(&path).await.expect(200);
    assert_eq!((&scale["kind"], &scale["spec"]["replicas"]), (&json!("Scale"), &json!(2)));
    assert_eq!(scale["status"]["selector"], "app=web");
    scale["spec"]["replicas"] = 5.into();
    assert_eq!(admin.put(&path, &scale).await.expect(200)["spec"]["replicas"], 5);
    admin.patch(&path, "merge", &json!({"spec": {"replicas": 7}})).await.expect(200);
    let object = admin.get(&format!("{DEPLOYMENTS}/web")).await.expect(200);
    assert_eq!(object["spec"]["replicas"], 7);
    let refused = admin.patch(&path, "merge", &json!({"spec": {"replicas": -1}})).await;
    refused.refused(422, "Invalid", "must be greater than or equal to 0");
}

#[tokio::test]
async fn a_namespace_is_emptied_before_it_goes() {
    let server = Server::start().await;
    let admin = server.admin();
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}});
    admin.post("/api/v1/namespaces", &namespace).await.expect(201);
    let marked = admin.delete("/api/v1/namespaces/n", None).await.expect(200);
    assert_eq!(marked["status"]["phase"], "Terminating");
    let mut now = admin.get("/api/v1/namespaces/n").await.expect(200);
    now["spec"]["finalizers"] = json!([]);
    admin.put("/api/v1/namespaces/n/finalize", &now).await.expect(200);
    eventually("the namespace is gone", || async {
        let reply = admin.get("/api/v1/namespaces/n").await;
        if reply.status == 404 { Ok(()) } else { Err(reply.text()) }
    })
    .await;
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_restart() {
    let mut server = Server::start().await;
    let created = server.admin().post(CONFIG_MAPS, &config_map("kept")).await.expect(201);
    server.restart().await;
    assert_eq!(server.admin().get(&format!("{CONFIG_MAPS}/kept")).await.expect(200), created);
}

#[tokio::test]
async fn a_revision_keeps_what_it_was_made_of() {
    let server = Server::start().await;
    let admin = server.admin();
    let revisions = "/apis/apps/v1/namespaces/default/controllerrevisions";
    let mut revision =
        json!({"metadata": {"name": "web-1"}, "revision": 1, "data": {"spec": {"replicas": 3}}});
    let created = admin.post(revisions, &revision).await.expect(201);
    assert_eq!(created["data"], revision["data"]);
    let path = format!("{revisions}/web-1");
    revision["revision"] = 2.into();
    assert_eq!(admin.put(&path, &revision).await.expect(200)["revision"], 2);
    revision["data"]["spec"]["replicas"] = 4.into();
    let why = "ControllerRevision.apps \"web-1\" is invalid: data: Invalid value: {\"spec\":{\"replicas\":4}}: field is immutable";
    admin.put(&path, &revision).await.refused(422, "Invalid", why);
}

#[tokio::test]
async fn a_pod_template_has_the_defaults_of_its_pods() {
    let server = Server::start().await;
    let admin = server.admin();
    let templates = "/api/v1/namespaces/default/podtemplates";
    let spec = json!({"containers": [{"name": "app", "image": "app"}]});
    let template = json!({"metadata": {"name": "app"}, "template": {"spec": spec}});
    let created = admin.post(templates, &template).await.expect(201);
    let spec = &created["template"]["spec"];
    assert_eq!((&spec["restartPolicy"], &created["metadata"]["generation"]), (&json!("Always"), &json!(1)));
    assert_eq!(spec["containers"][0]["imagePullPolicy"], "Always");
    let patch = json!({"template": {"spec": {"restartPolicy": "Sometimes"}}});
    let path = format!("{templates}/app");
    admin.patch(&path, "merge", &patch).await.expect(422);
    // Unlike most, it is shown as it was when it is gone.
    assert_eq!(admin.delete(&path, None).await.expect(200)["metadata"]["uid"], created["metadata"]["uid"]);
}
