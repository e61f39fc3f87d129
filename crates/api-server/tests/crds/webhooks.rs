//! Several versions of one resource, converted by a webhook.

use serde_json::{Value, json};

use super::{DEFINITIONS, serve};
use crate::support::webhook::Webhook;
use crate::support::{CONFIG_MAPS, Client, Server, config_map, eventually};

pub(super) const V1: &str = "/apis/stable.example.com/v1/namespaces/default/tests";
pub(super) const V2: &str = "/apis/stable.example.com/v2/namespaces/default/tests";

/// `hostPort` of v1 is `host` and `port` in v2.
fn convert(object: &Value, to: &str) -> Value {
    let mut out = object.clone();
    out["apiVersion"] = to.into();
    let map = out.as_object_mut().unwrap();
    let taken = |map: &mut serde_json::Map<String, Value>, key: &str| {
        map.remove(key).and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
    };
    if to.ends_with("v2") {
        let whole = taken(map, "hostPort");
        let (host, port) = whole.split_once(':').unwrap_or((&whole, ""));
        map.insert("host".into(), host.into());
        map.insert("port".into(), port.into());
    } else {
        let (host, port) = (taken(map, "host"), taken(map, "port"));
        map.insert("hostPort".into(), format!("{host}:{port}").into());
    }
    out
}

pub(super) async fn converter(change: impl Fn(&mut Value) + Send + Sync + 'static) -> Webhook {
    Webhook::raw(move |review| {
        let request = &review["request"];
        let to = request["desiredAPIVersion"].as_str().unwrap();
        let converted: Vec<Value> =
            request["objects"].as_array().unwrap().iter().map(|o| convert(o, to)).collect();
        let mut response =
            json!({"uid": request["uid"], "result": {"status": "Success"}, "convertedObjects": converted});
        change(&mut response);
        json!({"apiVersion": review["apiVersion"], "kind": "ConversionReview", "response": response})
    })
    .await
}

fn definition(hook: &Webhook) -> Value {
    let text = |names: &[&str]| {
        let all: serde_json::Map<String, Value> =
            names.iter().map(|n| ((*n).to_owned(), json!({"type": "string"}))).collect();
        json!({"openAPIV3Schema": {"type": "object", "properties": all}})
    };
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "tests.stable.example.com"},
        "spec": {
            "group": "stable.example.com", "scope": "Namespaced", "names": {"plural": "tests", "kind": "Test"},
            "conversion": {"strategy": "Webhook", "webhook": {
                "clientConfig": {"url": format!("https://{}/convert", hook.address), "caBundle": hook.ca_bundle},
                "conversionReviewVersions": ["v1", "v1beta1"]}},
            "versions": [
                {"name": "v1", "served": true, "storage": true, "schema": text(&["hostPort"]), "selectableFields": [{"jsonPath": ".hostPort"}]},
                {"name": "v2", "served": true, "storage": false, "schema": text(&["host", "port"]), "selectableFields": [{"jsonPath": ".host"}, {"jsonPath": ".port"}]},
            ]
        }
    })
}

pub(super) fn v1(name: &str, host_port: &str) -> Value {
    json!({"apiVersion": "stable.example.com/v1", "kind": "Test", "metadata": {"name": name, "namespace": "default"}, "hostPort": host_port})
}

pub(super) fn v2(name: &str, host: &str, port: &str) -> Value {
    json!({"apiVersion": "stable.example.com/v2", "kind": "Test", "metadata": {"name": name, "namespace": "default"}, "host": host, "port": port})
}

pub(super) async fn started(hook: &Webhook) -> (Server, Client) {
    let server = Server::start().await;
    let admin = server.admin();
    serve(&admin, &definition(hook)).await;
    (server, admin)
}

#[tokio::test]
async fn a_webhook_converts_on_read_write_patch_and_apply() {
    let hook = converter(|_| {}).await;
    let (_server, admin) = started(&hook).await;
    let created = admin.post(V1, &v1("a", "localhost:8080")).await.expect(201);
    assert!(hook.asked().is_empty(), "the stored version needs no conversion");
    let seen = admin.get(&format!("{V2}/a")).await.expect(200);
    assert_eq!((&seen["host"], &seen["port"]), (&json!("localhost"), &json!("8080")));
    assert_eq!(seen["metadata"]["resourceVersion"], created["metadata"]["resourceVersion"]);
    let asked = hook.asked();
    assert_eq!(asked[0]["desiredAPIVersion"], "stable.example.com/v2");
    assert_eq!(
        (asked[0]["objects"].as_array().unwrap().len(), &asked[0]["objects"][0]["hostPort"]),
        (1, &json!("localhost:8080"))
    );
    let patched = admin.patch(&format!("{V2}/a"), "merge", &json!({"port": "9090"})).await.expect(200);
    assert_eq!((&patched["apiVersion"], &patched["port"]), (&json!("stable.example.com/v2"), &json!("9090")));
    assert_eq!(admin.get(&format!("{V1}/a")).await.expect(200)["hostPort"], "localhost:9090");
    let created = admin.post(V2, &v2("b", "h", "1")).await.expect(201);
    assert_eq!(created["host"], "h");
    assert_eq!(admin.get(&format!("{V1}/b")).await.expect(200)["hostPort"], "h:1");
    let applied =
        admin.patch(&format!("{V2}/c?fieldManager=m"), "apply", &v2("c", "x", "2")).await.expect(201);
    assert_eq!(applied["metadata"]["managedFields"][0]["apiVersion"], "stable.example.com/v2");
    let applied =
        admin.patch(&format!("{V2}/c?fieldManager=m"), "apply", &v2("c", "y", "2")).await.expect(200);
    assert_eq!(applied["host"], "y");
    assert_eq!(admin.get(&format!("{V1}/c")).await.expect(200)["hostPort"], "y:2");
    admin.delete(&format!("{V2}/c"), None).await.expect(200);
}

#[tokio::test]
async fn a_list_is_converted_in_one_call() {
    let hook = converter(|_| {}).await;
    let (_server, admin) = started(&hook).await;
    for i in 0..5 {
        admin.post(V1, &v1(&format!("o{i}"), &format!("h{i}:{i}"))).await.expect(201);
    }
    let list = admin.get(V2).await.expect(200);
    let hosts: Vec<&str> =
        list["items"].as_array().unwrap().iter().map(|o| o["host"].as_str().unwrap()).collect();
    assert_eq!(hosts, ["h0", "h1", "h2", "h3", "h4"]);
    assert_eq!(hook.asked().len(), 1);
    admin.get(V2).await.expect(200);
    assert_eq!(hook.asked().len(), 1, "what was converted is remembered");
}

#[tokio::test]
async fn fields_of_each_version_select_and_watch() {
    let hook = converter(|_| {}).await;
    let (_server, admin) = started(&hook).await;
    let mut by_host = admin.watch(&format!("{V2}?watch=1&fieldSelector=host%3Dhost1")).await;
    let mut by_both = admin.watch(&format!("{V1}?watch=1&fieldSelector=hostPort%3Dhost1:80")).await;
    for (name, host, port) in [("a", "host1", "80"), ("b", "host1", "8080"), ("c", "host2", "")] {
        admin.post(V2, &v2(name, host, port)).await.expect(201);
    }
    let names = |list: Value| -> Vec<String> {
        list["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|o| o["metadata"]["name"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(names(admin.get(&format!("{V2}?fieldSelector=host%3Dhost1")).await.expect(200)), ["a", "b"]);
    assert_eq!(
        names(admin.get(&format!("{V2}?fieldSelector=host%3Dhost1,port%3D80")).await.expect(200)),
        ["a"]
    );
    assert_eq!(
        names(admin.get(&format!("{V1}?fieldSelector=hostPort%3Dhost1:8080")).await.expect(200)),
        ["b"]
    );
    admin.delete(&format!("{V2}?fieldSelector=host%3Dhost1,port%3D80"), None).await.expect(200);
    admin.patch(&format!("{V2}/b"), "merge", &json!({"host": "host2"})).await.expect(200);
    for wanted in ["ADDED a", "ADDED b", "DELETED a", "DELETED b"] {
        assert_eq!(by_host.seen().await, wanted);
    }
    for wanted in ["ADDED a", "DELETED a"] {
        assert_eq!(by_both.seen().await, wanted);
    }
}

#[tokio::test]
async fn a_failed_conversion_is_reported() {
    for (change, message) in [
        (
            json!({"result": {"status": "Failed", "message": "no way"}}),
            "conversion webhook for stable.example.com/v1, Kind=Test failed: no way",
        ),
        (
            json!({"convertedObjects": []}),
            "conversion webhook for stable.example.com/v1, Kind=Test returned 0 objects, expected 1",
        ),
        (
            json!({"convertedObjects": [{"apiVersion": "stable.example.com/v2", "kind": "Test", "metadata": {"name": "other", "namespace": "default"}}]}),
            "conversion webhook for stable.example.com/v1, Kind=Test returned invalid object: must have the same name: a != other",
        ),
        (
            json!({"uid": "other"}),
            "conversion webhook for stable.example.com/v1, Kind=Test failed: expected response.uid=",
        ),
    ] {
        let hook = converter(move |response| {
            for (key, value) in change.as_object().unwrap() {
                response[key] = value.clone();
            }
        })
        .await;
        let (_server, admin) = started(&hook).await;
        admin.post(V1, &v1("a", "h:1")).await.expect(201);
        let status = admin.get(&format!("{V2}/a")).await.expect(500);
        let text = status["message"].as_str().unwrap();
        assert!(text.starts_with(message), "{text}");
        assert!(admin.get(V2).await.expect(500)["message"].as_str().unwrap().starts_with(message));
    }
}

#[tokio::test]
async fn an_unreachable_webhook_is_reported_and_a_definition_is_still_emptied() {
    let hook = converter(|_| {}).await;
    let (_server, admin) = started(&hook).await;
    admin.post(V1, &v1("a", "h:1")).await.expect(201);
    let address = hook.address;
    drop(hook);
    let url = format!("https://{address}/convert?timeout=30s");
    let wanted =
        format!("conversion webhook for stable.example.com/v1, Kind=Test failed: Post \"{url}\": dial tcp");
    let status = admin.get(&format!("{V2}/a")).await.expect(500);
    assert!(status["message"].as_str().unwrap().starts_with(&wanted), "{status}");
    let path = format!("{DEFINITIONS}/tests.stable.example.com");
    admin.delete(&path, None).await.expect(200);
    eventually("the definition is gone", || async {
        let reply = admin.get(&path).await;
        if reply.status == 404 { Ok(()) } else { Err(reply.text()) }
    })
    .await;
}

#[tokio::test]
async fn only_labels_and_annotations_of_a_conversion_count() {
    let hook = converter(|response| {
        for object in response["convertedObjects"].as_array_mut().unwrap() {
            object["metadata"]["labels"] = json!({"converted": "yes"});
            object["metadata"]["finalizers"] = json!(["a/b"]);
        }
    })
    .await;
    let (_server, admin) = started(&hook).await;
    admin.post(V1, &v1("a", "h:1")).await.expect(201);
    let seen = admin.get(&format!("{V2}?labelSelector=converted%3Dyes")).await.expect(200);
    let metadata = &seen["items"][0]["metadata"];
    assert_eq!((&metadata["labels"], metadata.get("finalizers")), (&json!({"converted": "yes"}), None));
}

#[tokio::test]
async fn a_webhook_that_knows_only_v1beta1_is_asked_in_that() {
    let hook = Webhook::raw(|review| {
        let request = &review["request"];
        let to = request["desiredAPIVersion"].as_str().unwrap();
        let converted: Vec<Value> =
            request["objects"].as_array().unwrap().iter().map(|o| convert(o, to)).collect();
        // v1beta1 never checked what the answer calls itself, nor its uid.
        let version = review["apiVersion"].as_str().unwrap();
        let status = if version == "apiextensions.k8s.io/v1beta1" { "Success" } else { "Failed" };
        json!({"response": {"result": {"status": status, "message": version}, "convertedObjects": converted}})
    })
    .await;
    let server = Server::start().await;
    let admin = server.admin();
    let mut definition = definition(&hook);
    definition["spec"]["conversion"]["webhook"]["conversionReviewVersions"] = json!(["v2", "v1beta1", "v1"]);
    serve(&admin, &definition).await;
    admin.post(V1, &v1("a", "localhost:8080")).await.expect(201);
    assert_eq!(admin.get(&format!("{V2}/a")).await.expect(200)["port"], "8080");
}

#[tokio::test]
async fn conversions_are_counted_and_parameters_of_policies_converted_once() {
    let hook = converter(|_| {}).await;
    let (_server, admin) = started(&hook).await;
    admin.post(V1, &v1("a", "h:1")).await.expect(201);
    let group = "/apis/admissionregistration.k8s.io/v1";
    let rule = json!({"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]});
    let policy = json!({"metadata": {"name": "p"}, "spec": {
        "paramKind": {"apiVersion": "stable.example.com/v2", "kind": "Test"},
        "matchConstraints": {"resourceRules": [rule]},
        "validations": [{"expression": "object.metadata.name == params.host"}]}});
    let binding = json!({"metadata": {"name": "b"}, "spec": {
        "policyName": "p", "validationActions": ["Deny"],
        "paramRef": {"name": "a", "parameterNotFoundAction": "Deny"}}});
    for (resource, object) in
        [("validatingadmissionpolicies", policy), ("validatingadmissionpolicybindings", binding)]
    {
        let path = format!("{group}/{resource}");
        admin.post(&path, &object).await.expect(201);
        admin.get(&path).await.expect(200);
    }
    let before = hook.asked().len();
    admin.post(CONFIG_MAPS, &config_map("h")).await.expect(201);
    admin.post(CONFIG_MAPS, &config_map("g")).await.expect(422);
    assert_eq!(hook.asked().len(), before + 1, "the parameter is as it was");
    let text = admin.get("/metrics").await.text();
    for line in [
        r#"apiserver_crd_conversion_webhook_duration_seconds_count{crd_name="tests.stable.example.com",from_version="v1",to_version="v2",succeeded="true"} 1"#,
        r#"apiserver_conversion_webhook_request_total{result="success",failure_type=""} 1"#,
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}
