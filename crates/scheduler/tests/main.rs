//! The scheduler with a real API server and its own rights there.

use std::time::Duration;

use keelson_client::rest;
use keelson_daemon::Daemon;
use keelson_scheduler::config::{Config, ProfileConfig};
use keelson_testkit::{ControlPlane, eventually};
use kube::Client;
use serde_json::{Value, json};

const WAIT: Duration = Duration::from_secs(60);
const PODS: &str = "/api/v1/namespaces/default/pods";

/// A server with a namespace to work in, and a scheduler of these profiles.
async fn started(profiles: Vec<ProfileConfig>) -> (ControlPlane, Client) {
    let plane = ControlPlane::start().await;
    let admin = plane.admin().await;
    let look = || rest::get::<Value>(&admin, "/api/v1/namespaces/default");
    eventually(WAIT, "the namespace is there", look).await;
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    create(&admin, "/api/v1/namespaces/default/serviceaccounts", account).await;
    let kubeconfig = plane.kubeconfig("scheduler");
    let mut config = Config { kubeconfig, leader_election: false, ..Config::default() };
    config.profiles.extend(profiles);
    tokio::spawn(async move {
        keelson_scheduler::run(config, Daemon::new("scheduler")).await.expect("it runs");
    });
    (plane, admin)
}

async fn create(client: &Client, path: &str, object: Value) -> Value {
    rest::create(client, path, &object).await.unwrap_or_else(|error| panic!("create {object}: {error}"))
}

async fn change(client: &Client, path: &str, change: Value) {
    let changed = rest::patch::<Value>(client, path, rest::patch::MERGE, &change).await;
    changed.unwrap_or_else(|error| panic!("patch {path}: {error}"));
}

/// A node with one processor.
async fn node(client: &Client, name: &str, taints: Value) {
    create(client, "/api/v1/nodes", json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}))
        .await;
    let path = format!("/api/v1/nodes/{name}");
    let room = json!({"cpu": "1", "memory": "1Gi", "pods": "10"});
    change(client, &format!("{path}/status"), json!({"status": {"capacity": room, "allocatable": room}}))
        .await;
    change(client, &path, json!({"spec": {"taints": taints}})).await;
}

async fn pod(client: &Client, name: &str, spec: Value) {
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {
        "containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "600m"}}}]}});
    pod["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    create(client, PODS, pod).await;
}

/// Waits until a pod is as it should be.
async fn until(client: &Client, name: &str, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    eventually(WAIT, &format!("{name} is {what}"), || async {
        let now: Value = rest::get(client, &format!("{PODS}/{name}")).await.map_err(|e| e.to_string())?;
        if is(&now) { Ok(now) } else { Err(now.to_string()) }
    })
    .await
}

async fn placed(client: &Client, name: &str) {
    until(client, name, "placed", |pod| pod["spec"]["nodeName"] == "n").await;
}

/// Waits until a pod's condition says why it cannot be placed.
async fn refused(client: &Client, name: &str, why: &str) {
    let why = format!("0/1 nodes are available: {why}");
    until(client, name, "refused", |pod| {
        let condition = &pod["status"]["conditions"][0];
        condition["reason"] == "Unschedulable" && condition["message"].as_str().unwrap().starts_with(&why)
    })
    .await;
}

async fn remove(client: &Client, name: &str) {
    rest::delete(client, &format!("{PODS}/{name}"), &json!({"gracePeriodSeconds": 0})).await.unwrap();
}

#[tokio::test]
async fn each_pod_is_placed_by_the_profile_that_it_names() {
    let careless = ProfileConfig {
        scheduler_name: "careless".into(),
        disabled_plugins: vec!["TaintToleration".into()],
        weights: Default::default(),
    };
    let (_plane, admin) = started(vec![careless]).await;
    node(&admin, "n", json!([{"key": "k", "effect": "NoSchedule"}])).await;
    pod(&admin, "foreign", json!({"schedulerName": "nobody"})).await;
    pod(&admin, "default", json!({})).await;
    refused(&admin, "default", "1 node(s) had untolerated taint").await;
    pod(&admin, "careless", json!({"schedulerName": "careless"})).await;
    placed(&admin, "careless").await;
    let foreign: Value = rest::get(&admin, &format!("{PODS}/foreign")).await.unwrap();
    assert_eq!((foreign["spec"].get("nodeName"), foreign["status"].get("conditions")), (None, None));
    // Once the taint is gone, what waited is tried again; there is no room for two.
    change(&admin, "/api/v1/nodes/n", json!({"spec": {"taints": null}})).await;
    refused(&admin, "default", "1 Insufficient cpu").await;
    remove(&admin, "careless").await;
    placed(&admin, "default").await;
}

#[tokio::test]
async fn room_is_made_for_a_pod_that_matters_more() {
    let (_plane, admin) = started(Vec::new()).await;
    node(&admin, "n", json!(null)).await;
    let class = json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "high"}, "value": 1000});
    create(&admin, "/apis/scheduling.k8s.io/v1/priorityclasses", class).await;
    pod(&admin, "low", json!({})).await;
    placed(&admin, "low").await;
    pod(&admin, "high", json!({"priorityClassName": "high"})).await;
    until(&admin, "high", "to come here", |pod| pod["status"]["nominatedNodeName"] == "n").await;
    let victim =
        until(&admin, "low", "to go", |pod| pod["metadata"].get("deletionTimestamp").is_some()).await;
    let conditions = victim["status"]["conditions"].as_array().unwrap();
    let told = |c: &Value| c["type"] == "DisruptionTarget" && c["reason"] == "PreemptionByScheduler";
    assert!(conditions.iter().any(told), "{victim}");
    remove(&admin, "low").await;
    placed(&admin, "high").await;
}
