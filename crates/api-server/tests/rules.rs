//! CEL rules of CustomResourceDefinitions.

use serde_json::{Value, json};

use crate::support::{Client, Server, eventually};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const GAUGES: &str = "/apis/example.com/v1/namespaces/default/gauges";

fn definition(schema: Value) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "gauges.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "gauges", "kind": "Gauge"},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": schema}, "subresources": {"status": {}}}]
        }
    })
}

fn schema() -> Value {
    json!({
        "type": "object",
        "x-kubernetes-validations": [{"rule": "self.metadata.name != 'forbidden'", "message": "no such name"}],
        "properties": {
            "spec": {
                "type": "object",
                "x-kubernetes-validations": [
                    {"rule": "self.min <= self.max", "messageExpression": "'min %d is above max %d'.format([self.min, self.max])"},
                ],
                "properties": {
                    "min": {"type": "integer"}, "max": {"type": "integer"},
                    "unit": {"type": "string", "x-kubernetes-validations": [
                        {"rule": "self == oldSelf", "message": "unit is immutable", "reason": "FieldValueForbidden"}]},
                    "mode": {"type": "string"}
                }
            },
            "status": {"type": "object", "properties": {"value": {"type": "integer",
                "x-kubernetes-validations": [{"rule": "self >= 0"}]}}}
        }
    })
}

fn gauge(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Gauge", "metadata": {"name": name}, "spec": spec})
}

async fn serve(admin: &Client, schema: Value) {
    admin.post(DEFINITIONS, &definition(schema)).await.expect(201);
    eventually("the objects are served", || async {
        let answer = admin.get(GAUGES).await;
        if answer.status == 200 { Ok(()) } else { Err(answer.json().to_string()) }
    })
    .await;
}

#[tokio::test]
async fn every_way_to_write_an_object_holds_it_against_the_rules() {
    let server = Server::start().await;
    let admin = server.admin();
    serve(&admin, schema()).await;
    let refused = admin.post(GAUGES, &gauge("g", json!({"min": 5, "max": 2}))).await;
    refused.refused(422, "Invalid", "spec: Invalid value: min 5 is above max 2");
    admin.post(GAUGES, &gauge("forbidden", json!({"min": 1, "max": 2}))).await.refused(
        422,
        "Invalid",
        "<nil>: Invalid value: no such name",
    );
    let missing = admin.post(GAUGES, &gauge("g", json!({"min": 5}))).await;
    missing.refused(422, "Invalid", "no such key: max evaluating rule: self.min <= self.max");
    admin.post(GAUGES, &gauge("g", json!({"min": 1, "max": 2, "unit": "m"}))).await.expect(201);
    let path = format!("{GAUGES}/g");
    let patched = admin.patch(&path, "merge", &json!({"spec": {"min": 9}})).await;
    patched.refused(422, "Invalid", "min 9 is above max 2");
    let patched = admin.patch(&path, "merge", &json!({"spec": {"unit": "s"}})).await;
    patched.refused(422, "Invalid", "spec.unit: Forbidden: unit is immutable");
    let mut object = admin.get(&path).await.expect(200);
    object["spec"]["max"] = 0.into();
    admin.put(&path, &object).await.refused(422, "Invalid", "min 1 is above max 0");
    let status = admin.patch(&format!("{path}/status"), "merge", &json!({"status": {"value": -1}})).await;
    status.refused(422, "Invalid", "status.value: Invalid value: -1: failed rule: self >= 0");
    let status = admin.patch(&format!("{path}/status"), "merge", &json!({"status": {"value": 1}})).await;
    assert_eq!(status.expect(200)["status"]["value"], 1);
}

#[tokio::test]
async fn an_update_is_not_refused_for_what_it_leaves_alone() {
    let server = Server::start().await;
    let admin = server.admin();
    let mut loose = schema();
    loose["properties"]["spec"]["x-kubernetes-validations"] = json!([]);
    serve(&admin, loose).await;
    admin.post(GAUGES, &gauge("g", json!({"min": 5, "max": 2}))).await.expect(201);
    let path = format!("{DEFINITIONS}/gauges.example.com");
    let mut now = admin.get(&path).await.expect(200);
    now["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = schema();
    admin.put(&path, &now).await.expect(200);
    eventually("the rule holds", || async {
        let answer =
            admin.post(&format!("{GAUGES}?dryRun=All"), &gauge("h", json!({"min": 5, "max": 2}))).await;
        if answer.status == 422 { Ok(()) } else { Err(answer.json().to_string()) }
    })
    .await;
    let labelled = json!({"metadata": {"labels": {"a": "b"}}});
    let patched = admin.patch(&format!("{GAUGES}/g"), "merge", &labelled).await;
    assert_eq!(patched.expect(200)["metadata"]["labels"]["a"], "b");
    let patched = admin.patch(&format!("{GAUGES}/g"), "merge", &json!({"spec": {"mode": "x"}})).await;
    patched.refused(422, "Invalid", "min 5 is above max 2");
}

#[tokio::test]
async fn definitions_with_bad_rules_are_refused() {
    let server = Server::start().await;
    let admin = server.admin();
    for (rule, message) in [
        ("self.nope == 1", "undefined field 'nope'"),
        ("self.min >", "Syntax error: mismatched input"),
        ("self.min + 1", "cel expression must evaluate to a bool"),
    ] {
        let mut schema = schema();
        schema["properties"]["spec"]["x-kubernetes-validations"][0] = json!({"rule": rule});
        let refused = admin.post(DEFINITIONS, &definition(schema)).await;
        refused.refused(422, "Invalid", message);
    }
    let mut costly = schema();
    costly["properties"]["spec"]["properties"]["list"] = json!({"type": "array", "items": {"type": "string"},
        "x-kubernetes-validations": [{"rule": "self.all(x, self.all(y, x == y))"}]});
    let refused = admin.post(DEFINITIONS, &definition(costly)).await;
    refused.refused(422, "Invalid", "estimated rule cost exceeds budget by factor of more than 100x");
}
