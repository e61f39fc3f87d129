//! Audit over the wire: what is recorded of requests, in a file and at a webhook.

use std::path::Path;

use serde_json::{Value, json};

use crate::support::https::{Asked, Https};
use crate::support::{CONFIG_MAPS, PODS, Server, config_map, eventually};

const POLICY: &str = "
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: RequestResponse, resources: [{resources: [configmaps]}], verbs: [create, list], omitManagedFields: true}
- {level: Request, resources: [{resources: [configmaps]}], verbs: [delete]}
- {level: Metadata, resources: [{resources: [secrets, services]}]}
";

async fn server() -> (Server, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let policy = dir.path().join("policy.yaml");
    std::fs::write(&policy, POLICY).unwrap();
    let log = dir.path().join("audit.log");
    let audit = json!({"policyFile": policy, "log": {"path": log}});
    let server =
        Server::with(move |config| config.audit = Some(serde_json::from_value(audit.clone()).unwrap())).await;
    (server, dir)
}

/// The event that a condition finds, once it has been written.
async fn event(log: &Path, what: &str, found: impl Fn(&Value) -> bool) -> Value {
    eventually(what, || async {
        let text = std::fs::read_to_string(log.join("audit.log")).unwrap_or_default();
        let mut events = text.lines().map(|l| serde_json::from_str::<Value>(l).unwrap());
        events.find(|e| found(e)).ok_or(text)
    })
    .await
}

#[tokio::test]
async fn a_request_is_recorded_as_far_as_the_policy_says() {
    let (server, dir) = server().await;
    let admin = server.admin().with("user-agent", "tester").with("audit-id", "my-own-id");
    let created = admin.post(CONFIG_MAPS, &config_map("a")).await;
    assert_eq!(created.headers["audit-id"], "my-own-id");
    let made = event(dir.path(), "the create", |e| e["auditID"] == "my-own-id").await;
    assert_eq!((&made["level"], &made["stage"]), (&json!("RequestResponse"), &json!("ResponseComplete")));
    assert_eq!(made["verb"], "create");
    assert_eq!(made["requestURI"], CONFIG_MAPS);
    assert_eq!(made["user"]["username"], "kubernetes-admin");
    assert_eq!(made["sourceIPs"], json!(["127.0.0.1"]));
    assert_eq!(made["userAgent"], "tester");
    assert_eq!(
        made["objectRef"],
        json!({"resource": "configmaps", "namespace": "default", "name": "a", "apiVersion": "v1"})
    );
    assert_eq!(made["requestObject"]["data"], json!({"a": "1"}));
    assert_eq!(made["responseObject"]["metadata"]["name"], "a");
    assert!(made["responseObject"]["metadata"].get("managedFields").is_none());
    assert_eq!(made["responseStatus"]["code"], 201);
    assert_eq!(made["annotations"]["authorization.k8s.io/decision"], "allow");

    server.admin().get(CONFIG_MAPS).await;
    let listed = event(dir.path(), "the list", |e| e["verb"] == "list").await;
    assert_eq!(listed["responseObject"]["kind"], "ConfigMapList");
    server.admin().get(&format!("{CONFIG_MAPS}/a")).await;
    server.admin().delete(&format!("{CONFIG_MAPS}/a"), Some(json!({"gracePeriodSeconds": 0}))).await;
    let deleted = event(dir.path(), "the delete", |e| e["verb"] == "delete").await;
    assert_eq!(deleted["requestObject"]["gracePeriodSeconds"], 0);
    assert!(deleted.get("responseObject").is_none());
    let text = std::fs::read_to_string(dir.path().join("audit.log")).unwrap();
    assert!(!text.contains("\"verb\":\"get\""), "no rule matches a get: {text}");
    assert!(!text.contains("RequestReceived"));
}

#[tokio::test]
async fn refusals_impersonation_and_watches_are_recorded() {
    let (server, dir) = server().await;
    let jane = server.client("jane", &["system:authenticated"]);
    assert_eq!(jane.get("/api/v1/namespaces/default/secrets").await.status, 403);
    let refused = event(dir.path(), "the refusal", |e| e["user"]["username"] == "jane").await;
    assert_eq!(refused["annotations"]["authorization.k8s.io/decision"], "forbid");
    assert_eq!(refused["responseStatus"]["reason"], "Forbidden");
    assert_eq!(refused["responseStatus"]["code"], 403);

    let acting = server.admin().with("impersonate-user", "john");
    acting.get("/api/v1/namespaces/default/secrets").await;
    let as_john =
        event(dir.path(), "the impersonation", |e| e["impersonatedUser"]["username"] == "john").await;
    assert_eq!(as_john["user"]["username"], "kubernetes-admin");

    let mut watch = server.admin().watch("/api/v1/services?watch=1").await;
    assert_eq!(watch.seen().await, "ADDED kubernetes");
    event(dir.path(), "the watch's start", |e| e["stage"] == "ResponseStarted").await;
    drop(watch);
    let done = |e: &Value| e["verb"] == "watch" && e["stage"] == "ResponseComplete";
    event(dir.path(), "the watch's end", done).await;
}

#[tokio::test]
async fn every_answer_has_an_id_even_without_audit() {
    let server = Server::start().await;
    let ids: Vec<String> = [server.admin().get("/version").await, server.nobody().get("/nowhere").await]
        .iter()
        .map(|reply| reply.headers["audit-id"].to_str().unwrap().to_owned())
        .collect();
    assert!(ids.iter().all(|id| id.len() == 36) && ids[0] != ids[1], "{ids:?}");
}

/// A server that sends batches of two to a webhook.
async fn server_with(service: &Https) -> (Server, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let (policy, ca) = (dir.path().join("policy.yaml"), dir.path().join("ca.crt"));
    std::fs::write(&policy, POLICY).unwrap();
    std::fs::write(&ca, service.ca()).unwrap();
    let audit = json!({"policyFile": policy, "webhook": {"url": format!("{}/audit", service.url), "caFile": ca,
        "batchMaxSize": 2, "batchMaxWait": 1, "initialBackoff": 0}});
    let server =
        Server::with(move |config| config.audit = Some(serde_json::from_value(audit.clone()).unwrap())).await;
    (server, dir)
}

#[tokio::test]
async fn a_webhook_gets_batches_again_until_it_takes_them() {
    let tries = std::sync::atomic::AtomicUsize::new(0);
    let taken: std::sync::Arc<parking_lot::Mutex<Vec<Vec<String>>>> = Default::default();
    let kept = taken.clone();
    let service = Https::start(move |asked: &Asked| {
        // The first two times it is away.
        if tries.fetch_add(1, std::sync::atomic::Ordering::Relaxed) < 2 {
            return (503, Value::Null);
        }
        assert_eq!(
            (&asked.body["kind"], &asked.body["apiVersion"]),
            (&json!("EventList"), &json!("audit.k8s.io/v1"))
        );
        let ids = asked.body["items"].as_array().into_iter().flatten();
        kept.lock().push(ids.map(|e| e["auditID"].as_str().unwrap().to_owned()).collect());
        (200, json!({}))
    })
    .await;
    let (mut server, _dir) = server_with(&service).await;
    for name in ["a", "b", "c", "d", "e"] {
        let admin = server.admin().with("audit-id", name);
        admin.post(CONFIG_MAPS, &config_map(name)).await.expect(201);
    }
    // What waits for a batch to fill is sent when the server ends.
    server.shut_down();
    server.stopped().await;
    eventually("all has been delivered", || async {
        let batches = taken.lock().clone();
        let mut all: Vec<String> = batches.concat();
        all.retain(|id| id.len() == 1);
        let fine = all == ["a", "b", "c", "d", "e"] && batches.iter().all(|b| b.len() <= 2);
        if fine { Ok(()) } else { Err(format!("{batches:?}")) }
    })
    .await;
}

#[tokio::test]
async fn plug_ins_leave_notes_with_the_request() {
    let dir = tempfile::tempdir().unwrap();
    let policy = dir.path().join("policy.yaml");
    std::fs::write(&policy, "{apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{level: Metadata}]}")
        .unwrap();
    let audit = json!({"policyFile": policy, "log": {"path": dir.path().join("audit.log")}});
    let server =
        Server::with(move |config| config.audit = Some(serde_json::from_value(audit.clone()).unwrap())).await;
    let labels = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "privileged",
        "pod-security.kubernetes.io/audit": "baseline"}}});
    let admin = server.admin();
    admin.patch("/api/v1/namespaces/default", "merge", &labels).await.expect(200);
    admin.post(crate::support::ACCOUNTS, &crate::support::default_account()).await.expect(201);
    let pod = json!({"metadata": {"name": "p"}, "spec": {"hostNetwork": true, "containers": [{"name": "c", "image": "i"}]}});
    let reply = admin.with("audit-id", "the-pod").post(PODS, &pod).await;
    reply.expect(201);
    let made =
        event(dir.path(), "the create", |e| e["auditID"] == "the-pod" && e["stage"] == "ResponseComplete")
            .await;
    let notes = &made["annotations"];
    assert_eq!(notes["pod-security.kubernetes.io/enforce-policy"], "privileged:latest");
    let violations = notes["pod-security.kubernetes.io/audit-violations"].as_str().unwrap_or_default();
    assert!(
        violations.starts_with("would violate PodSecurity \"baseline:latest\": host namespaces"),
        "{notes}"
    );
    assert_eq!(notes["authorization.k8s.io/decision"], "allow");
}
