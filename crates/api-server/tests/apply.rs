//! Server-side apply over the wire, as upstream's integration tests show it.

use serde_json::{Value, json};

use crate::support::{CONFIG_MAPS, DEPLOYMENTS, Server, config_map, deployment};

fn managers(object: &Value) -> Vec<String> {
    let entries = object["metadata"]["managedFields"].as_array().into_iter().flatten();
    entries
        .map(|e| format!("{} {}", e["manager"].as_str().unwrap(), e["operation"].as_str().unwrap()))
        .collect()
}

#[tokio::test]
async fn ownership_is_cleared_by_an_empty_entry() {
    let server = Server::start().await;
    let admin = server.admin();
    let path = format!("{CONFIG_MAPS}/x");
    let by = format!("{path}?fieldManager=one");
    let cleared = json!({"metadata": {"managedFields": [{}]}});
    for (kind, patch) in [
        ("merge", cleared.clone()),
        ("strategic-merge", cleared),
        ("json", json!([{"op": "replace", "path": "/metadata/managedFields", "value": [{}]}])),
    ] {
        let applied = admin.patch(&format!("{by}&force=true"), "apply", &config_map("x")).await.json();
        assert!(managers(&applied).contains(&"one Apply".to_owned()), "{kind}: {applied}");
        let patched = admin.patch(&path, kind, &patch).await.expect(200);
        assert_eq!(managers(&patched), [""; 0], "{kind}");
    }
}

#[tokio::test]
async fn managers_are_renamed_and_nonsense_is_passed_over() {
    let server = Server::start().await;
    let admin = server.admin();
    let path = format!("{CONFIG_MAPS}/x");
    let mut object =
        admin.patch(&format!("{path}?fieldManager=one"), "apply", &config_map("x")).await.expect(201);
    object["metadata"]["managedFields"][0]["manager"] = "two".into();
    let renamed = admin.put(&path, &object).await.expect(200);
    assert_eq!(managers(&renamed), ["two Apply"]);
    // What "two" owns now, "one" is told about.
    let mut other = config_map("x");
    other["data"]["a"] = "2".into();
    admin
        .patch(&format!("{path}?fieldManager=one"), "apply", &other)
        .await
        .refused(409, "Conflict", "\"two\"");
    let mut odd = config_map("odd");
    odd["metadata"]["managedFields"] = json!([{"manager": "apply", "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {"x:": {}}}]);
    let created = admin.post(&format!("{CONFIG_MAPS}?fieldManager=me"), &odd).await.expect(201);
    assert_eq!(managers(&created), ["me Update"]);
}

#[tokio::test]
async fn shared_fields_stay_until_their_last_owner_leaves() {
    let server = Server::start().await;
    let admin = server.admin();
    let by = |manager: &str| format!("{CONFIG_MAPS}/x?fieldManager={manager}");
    let both = config_map("x");
    admin.patch(&by("one"), "apply", &both).await.expect(201);
    admin.patch(&by("two"), "apply", &both).await.expect(200);
    let none = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}});
    assert_eq!(admin.patch(&by("one"), "apply", &none).await.expect(200)["data"]["a"], "1");
    let gone = admin.patch(&by("two"), "apply", &none).await.expect(200);
    assert!(gone.get("data").is_none_or(|data| data == &json!({})), "{gone}");
}

#[tokio::test]
async fn an_apply_that_changes_nothing_writes_nothing() {
    let server = Server::start().await;
    let admin = server.admin();
    let path = format!("{DEPLOYMENTS}/d?fieldManager=one");
    let mut object = deployment("d");
    object["spec"]["template"]["spec"]["containers"][0]["resources"] = json!({"limits": {"cpu": "1000m"}});
    let first = admin.patch(&path, "apply", &object).await.expect(201);
    assert_eq!(admin.patch(&path, "apply", &object).await.expect(200), first);
    let dry =
        admin.patch(&format!("{path}&dryRun=All&force=true"), "apply", &deployment("d")).await.expect(200);
    assert!(dry["spec"]["template"]["spec"]["containers"][0]["resources"].get("limits").is_none());
    assert_eq!(admin.get(&format!("{DEPLOYMENTS}/d")).await.expect(200), first);
}

#[tokio::test]
async fn what_the_server_fills_in_belongs_to_no_manager() {
    let server = Server::start().await;
    let admin = server.admin();
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"},
        "spec": {"ports": [{"port": 80}], "selector": {"a": "b"}}});
    let path = "/api/v1/namespaces/default/services/s?fieldManager=one";
    let created = admin.patch(path, "apply", &service).await.expect(201);
    let owned = &created["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"];
    assert_eq!(
        owned,
        &json!({"f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}}}, "f:selector": {}})
    );
}

#[tokio::test]
async fn versions_of_a_kind_know_of_each_others_owners() {
    let server = Server::start().await;
    let admin = server.admin();
    let path = |version: &str, manager: &str| {
        format!(
            "/apis/autoscaling/{version}/namespaces/default/horizontalpodautoscalers/h?fieldManager={manager}"
        )
    };
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"});
    let v1 = json!({"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"},
        "spec": {"scaleTargetRef": target, "maxReplicas": 3, "targetCPUUtilizationPercentage": 50}});
    let created = admin.patch(&path("v1", "one"), "apply", &v1).await.expect(201);
    let entry = &created["metadata"]["managedFields"][0];
    assert_eq!(entry["apiVersion"], "autoscaling/v1");
    assert!(entry["fieldsV1"]["f:spec"].get("f:targetCPUUtilizationPercentage").is_some(), "{entry}");
    // Another number for the CPU, said in the newer version, is a conflict in the older one.
    let cpu = |percent: i64| json!([{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": percent}}}]);
    let v2 = |percent: i64| {
        json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"},
            "spec": {"scaleTargetRef": target, "maxReplicas": 3, "metrics": cpu(percent)}})
    };
    let refused = admin.patch(&path("v2", "two"), "apply", &v2(70)).await.refused(
        409,
        "Conflict",
        "conflict with \"one\"",
    );
    assert_eq!(refused["details"]["causes"][0]["field"], ".spec.targetCPUUtilizationPercentage");
    let forced =
        admin.patch(&format!("{}&force=true", path("v2", "two")), "apply", &v2(70)).await.expect(200);
    assert_eq!(forced["spec"]["metrics"], cpu(70));
    assert_eq!(managers(&forced), ["one Apply", "two Apply"]);
    // A plain write is entered in the version that it was made in.
    let patch = json!({"spec": {"targetCPUUtilizationPercentage": 80}});
    let patched = admin.patch(&path("v1", "three"), "merge", &patch).await.expect(200);
    let entries = patched["metadata"]["managedFields"].as_array().unwrap().clone();
    let three = entries.iter().find(|e| e["manager"] == "three").unwrap();
    assert_eq!(
        (&three["apiVersion"], &three["fieldsV1"]),
        (&json!("autoscaling/v1"), &json!({"f:spec": {"f:targetCPUUtilizationPercentage": {}}}))
    );
    // Who applies the older version without the field loses nothing that another owns in the newer.
    let mut less = v1.clone();
    less["spec"].as_object_mut().unwrap().remove("targetCPUUtilizationPercentage");
    let kept = admin.patch(&path("v1", "one"), "apply", &less).await.expect(200);
    assert_eq!(kept["spec"]["targetCPUUtilizationPercentage"], 80);
}

#[tokio::test]
async fn a_deprecated_kind_is_warned_of() {
    let server = Server::start().await;
    for (path, expected) in [
        ("/api/v1/componentstatuses", "299 - \"v1 ComponentStatus is deprecated in v1.19+\""),
        (
            "/api/v1/endpoints",
            "299 - \"v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice\"",
        ),
    ] {
        assert_eq!(server.admin().get(path).await.headers["warning"], expected);
    }
}
