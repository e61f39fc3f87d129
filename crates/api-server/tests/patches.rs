//! The four patches.

use serde_json::{Value, json};

use crate::support::{CONFIG_MAPS, DEPLOYMENTS, Server, config_map, deployment, eventually};

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

fn owners(object: &Value) -> Vec<String> {
    let entries = object["metadata"]["managedFields"].as_array().unwrap().iter();
    let one = |e: &Value| {
        let text = |field: &str| e[field].as_str().unwrap_or("-").to_owned();
        let replicas = e["fieldsV1"]["f:spec"].get("f:replicas").is_some();
        format!("{} {} {} {replicas}", text("manager"), text("operation"), text("subresource"))
    };
    entries.map(one).collect()
}

#[tokio::test]
async fn replicas_change_hands_through_scale() {
    let server = Server::start().await;
    let admin = server.admin();
    let (path, scale) = (format!("{DEPLOYMENTS}/d"), format!("{DEPLOYMENTS}/d/scale"));
    let mut object = deployment("d");
    let by = |path: &str, manager: &str| format!("{path}?fieldManager={manager}");
    admin.patch(&by(&path, "one"), "apply", &object).await.expect(201);
    let wanted = json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "d"}, "spec": {"replicas": 5}});
    let refused = admin.patch(&by(&scale, "two"), "apply", &wanted).await.refused(
        409,
        "Conflict",
        "conflict with \"one\"",
    );
    assert_eq!(refused["details"]["causes"][0]["field"], ".spec.replicas");
    let forced =
        admin.patch(&format!("{}&force=true", by(&scale, "two")), "apply", &wanted).await.expect(200);
    assert_eq!(forced["spec"]["replicas"], 5);
    let now = admin.get(&path).await.expect(200);
    assert_eq!(owners(&now), ["two Apply scale true", "one Apply - false"]);
    let two = &now["metadata"]["managedFields"][0];
    assert_eq!(
        (&two["apiVersion"], &two["fieldsV1"], two.get("time")),
        (&json!("apps/v1"), &json!({"f:spec": {"f:replicas": {}}}), None),
        "the time is forgotten, as upstream does"
    );
    // Whoever applies another number is told; whoever gives it up changes nothing.
    admin.patch(&by(&path, "one"), "apply", &object).await.refused(409, "Conflict", "conflict with \"two\"");
    object["spec"].as_object_mut().unwrap().remove("replicas");
    assert_eq!(admin.patch(&by(&path, "one"), "apply", &object).await.expect(200)["spec"]["replicas"], 5);
    // A plain write through scale takes over as an update does.
    let mut scaled = admin.get(&scale).await.expect(200);
    scaled["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    for replicas in [7, 8] {
        scaled["spec"]["replicas"] = replicas.into();
        admin.put(&by(&scale, "hpa"), &scaled).await.expect(200);
        assert_eq!(
            owners(&admin.get(&path).await.expect(200)),
            ["one Apply - false", "hpa Update scale true"]
        );
    }
}

#[tokio::test]
async fn only_who_may_create_creates_by_apply_or_replace() {
    let server = Server::start().await;
    let admin = server.admin();
    let rules = json!([{"apiGroups": [""], "resources": ["configmaps", "limitranges"], "verbs": ["patch", "update"]}]);
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    let role = json!({"metadata": {"name": "editor"}, "rules": rules});
    admin.post(&format!("{rbac}/roles"), &role).await.expect(201);
    let binding = json!({"metadata": {"name": "editor"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "editor"},
        "subjects": [{"kind": "User", "name": "ed", "apiGroup": "rbac.authorization.k8s.io"}]});
    admin.post(&format!("{rbac}/rolebindings"), &binding).await.expect(201);
    let ed = server.client("ed", &[]);
    let path = format!("{CONFIG_MAPS}/x?fieldManager=ed");
    let refused = eventually("the role is known", || async {
        let reply = ed.patch(&path, "apply", &config_map("x")).await;
        if reply.text().contains("cannot create") { Ok(reply) } else { Err(reply.text()) }
    })
    .await;
    refused.refused(
        403,
        "Forbidden",
        "configmaps \"x\" is forbidden: User \"ed\" cannot create resource \"configmaps\"",
    );
    let range = json!({"metadata": {"name": "r"}, "spec": {"limits": []}});
    let ranges = "/api/v1/namespaces/default/limitranges";
    ed.put(&format!("{ranges}/r"), &range).await.refused(
        403,
        "Forbidden",
        "cannot create resource \"limitranges\"",
    );
    admin.put(&format!("{ranges}/r"), &range).await.expect(201);
    ed.put(&format!("{ranges}/r"), &range).await.expect(200);
    let mut other = config_map("x");
    other["metadata"]["uid"] = "u".into();
    admin.patch(&path, "apply", &other).await.refused(409, "Conflict", "uid mismatch");
}

#[tokio::test]
async fn apply_refuses_what_its_schema_does_not_have() {
    let server = Server::start().await;
    let admin = server.admin();
    let path = format!("{DEPLOYMENTS}/d?fieldManager=one");
    let mut object = deployment("d");
    object["spec"]["foo"] = 1.into();
    let refused = admin.patch(&path, "apply", &object).await.expect(500);
    let expected = "failed to create typed patch object (/d; apps/v1, Kind=Deployment): .spec.foo: field not declared in schema";
    assert_eq!(refused["message"], expected);
    let ports = json!([{"containerPort": 80, "protocol": "TCP"}, {"containerPort": 80, "protocol": "TCP"}]);
    let mut object = deployment("d");
    object["spec"]["template"]["spec"]["containers"][0]["ports"] = ports;
    let refused = admin.patch(&path, "apply", &object).await.expect(500);
    assert!(refused["message"].as_str().unwrap().contains("duplicate entries for key"), "{refused}");
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
