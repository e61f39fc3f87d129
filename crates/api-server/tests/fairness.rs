//! Priority and fairness over the wire.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{CONFIG_MAPS, Client, Server, config_map, eventually};

const GROUP: &str = "/apis/flowcontrol.apiserver.k8s.io/v1";

fn level(name: &str, queuing: Value) -> Value {
    json!({"apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "PriorityLevelConfiguration",
        "metadata": {"name": name},
        "spec": {"type": "Limited", "limited": {"nominalConcurrencyShares": 1, "lendablePercent": 0,
            "borrowingLimitPercent": 0, "limitResponse": {"type": "Queue", "queuing": queuing}}}})
}

fn schema(name: &str, level: &str, users: &[&str]) -> Value {
    let subjects: Vec<Value> = users.iter().map(|u| json!({"kind": "User", "user": {"name": u}})).collect();
    json!({"apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "FlowSchema", "metadata": {"name": name},
        "spec": {"matchingPrecedence": 50, "priorityLevelConfiguration": {"name": level},
            "distinguisherMethod": {"type": "ByUser"},
            "rules": [{"subjects": subjects, "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"],
                "resources": ["*"], "namespaces": ["*"], "clusterScope": true}]}]}})
}

/// A level of three seats for the users, who may do anything.
async fn narrow(server: &Server, queuing: Value, users: &[&str]) -> Client {
    let admin = server.admin();
    let subjects: Vec<Value> = users
        .iter()
        .map(|u| json!({"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": u}))
        .collect();
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": "users"}, "subjects": subjects,
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}});
    admin.post("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", &binding).await.expect(201);
    admin.post(&format!("{GROUP}/flowschemas"), &schema("narrow", "narrow", users)).await.expect(201);
    dangling(&admin, "narrow", "True").await;
    admin.post(&format!("{GROUP}/prioritylevelconfigurations"), &level("narrow", queuing)).await.expect(201);
    dangling(&admin, "narrow", "False").await;
    eventually("users may do anything", || async {
        let calm = server.client(users[0], &["system:authenticated"]);
        let reply = calm.get(CONFIG_MAPS).await;
        if reply.status == 200 { Ok(()) } else { Err(reply.text()) }
    })
    .await;
    admin
}

async fn dangling(admin: &Client, name: &str, wanted: &str) {
    eventually("the schema says whether its level exists", || async {
        let schema = admin.get(&format!("{GROUP}/flowschemas/{name}")).await.json();
        let status = schema["status"]["conditions"][0]["status"].clone();
        if status == wanted { Ok(()) } else { Err(schema.to_string()) }
    })
    .await;
}

/// Waiting and executing requests of the level.
async fn counts(admin: &Client) -> (usize, usize) {
    let dump = admin.get("/debug/api_priority_and_fairness/dump_priority_levels").await.text();
    let row = dump.lines().find(|l| l.starts_with("narrow,")).unwrap_or_else(|| panic!("{dump}"));
    let cells: Vec<&str> = row.split(", ").collect();
    (cells[4].parse().unwrap(), cells[5].parse().unwrap())
}

/// A request whose body is still to come, and the rest of it.
async fn stalled(client: &Client, name: &str) -> (impl AsyncReadExt + AsyncWriteExt + Unpin + use<>, String) {
    let body = config_map(name).to_string();
    let (head, rest) = body.split_at(10);
    let mut stream = client.stream().await;
    let request = format!(
        "POST {CONFIG_MAPS} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{head}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    (stream, rest.to_owned())
}

#[tokio::test]
async fn a_flood_of_one_user_leaves_anothers_requests_served() {
    let server = Server::start().await;
    let queuing = json!({"queues": 64, "handSize": 4, "queueLengthLimit": 50});
    let admin = narrow(&server, queuing, &["flood", "calm"]).await;
    let (flood, calm) = (server.client("flood", &["system:authenticated"]), server.client("calm", &[]));
    let mut open = Vec::new();
    for i in 0..40 {
        open.push(stalled(&flood, &format!("flood-{i}")).await);
    }
    eventually("the flood takes all seats and waits for more", || async {
        let counts = counts(&admin).await;
        if counts == (37, 3) { Ok(()) } else { Err(format!("{counts:?}")) }
    })
    .await;
    let dump =
        admin.get("/debug/api_priority_and_fairness/dump_requests?includeRequestDetails=1").await.text();
    assert_eq!(
        dump.lines().filter(|l| l.contains("narrow, narrow") && l.contains("flood")).count(),
        40,
        "{dump}"
    );
    let metrics = admin.get("/metrics").await.text();
    let held =
        "apiserver_flowcontrol_current_inqueue_requests{priority_level=\"narrow\",flow_schema=\"narrow\"} 37";
    assert!(metrics.contains(held), "{metrics}");

    let mut asking = tokio::spawn(async move { calm.get(CONFIG_MAPS).await.status });
    let mut ended = 0;
    for (stream, rest) in &mut open {
        stream.write_all(rest.as_bytes()).await.unwrap();
        ended += 1;
        if let Ok(status) = tokio::time::timeout(Duration::from_millis(20), &mut asking).await {
            assert_eq!(status.unwrap(), 200);
            break;
        }
    }
    assert!(ended < 30, "the calm user was served only after {ended} of the flood's requests");
    for (stream, rest) in open.iter_mut().skip(ended) {
        stream.write_all(rest.as_bytes()).await.unwrap();
    }
    for (mut stream, _) in open {
        let mut answer = vec![0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, b"HTTP/1.1 201");
    }
    eventually("all seats are given back", || async {
        let counts = counts(&admin).await;
        if counts == (0, 0) { Ok(()) } else { Err(format!("{counts:?}")) }
    })
    .await;
}

#[tokio::test]
async fn a_full_queue_answers_429_and_a_client_that_leaves_frees_its_place() {
    let server = Server::start().await;
    let admin = narrow(&server, json!({"queues": 1, "handSize": 1, "queueLengthLimit": 2}), &["flood"]).await;
    let flood = server.client("flood", &[]);
    let full = || async {
        let counts = counts(&admin).await;
        if counts == (2, 3) { Ok(()) } else { Err(format!("{counts:?}")) }
    };
    let mut open = Vec::new();
    for i in 0..5 {
        open.push(stalled(&flood, &format!("flood-{i}")).await);
    }
    eventually("the queue is full", full).await;
    let refused = flood.get(CONFIG_MAPS).await;
    assert_eq!(refused.status, 429);
    assert_eq!(refused.headers["retry-after"], "1");
    assert_eq!(refused.text(), "Too many requests, please try again later.\n");
    let uid = |object: Value| object["metadata"]["uid"].as_str().unwrap().to_owned();
    let schema = uid(admin.get(&format!("{GROUP}/flowschemas/narrow")).await.json());
    assert_eq!(refused.headers["x-kubernetes-pf-flowschema-uid"], schema);
    assert_eq!(admin.get(CONFIG_MAPS).await.status, 200);
    drop(open);
    eventually("those who left have freed their places", || async {
        let reply = flood.get(CONFIG_MAPS).await;
        if reply.status == 200 { Ok(()) } else { Err(reply.text()) }
    })
    .await;
}

#[tokio::test]
async fn who_does_not_read_a_list_keeps_no_seats() {
    let server = Server::with(|config| config.request_timeout = 2).await;
    let queuing = json!({"queues": 1, "handSize": 1, "queueLengthLimit": 9});
    let admin = narrow(&server, queuing, &["lazy", "calm"]).await;
    // More than the kernel takes for who does not read.
    for i in 0..20 {
        let mut big = config_map(&format!("big-{i}"));
        big["data"]["a"] = "x".repeat(1 << 20).into();
        admin.post(CONFIG_MAPS, &big).await.expect(201);
    }
    let (lazy, calm) = (server.client("lazy", &[]), server.client("calm", &[]));
    let _unread = lazy.watch(CONFIG_MAPS).await;
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut stream = lazy.raw(false).await;
        let request = format!("GET {CONFIG_MAPS} HTTP/1.1\r\nhost: x\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        open.push(stream);
    }
    eventually("the lists have all seats", || async {
        let counts = counts(&admin).await;
        if counts == (0, 3) { Ok(()) } else { Err(format!("{counts:?}")) }
    })
    .await;
    eventually("another gets a seat", || async {
        let reply = calm.get(&format!("{CONFIG_MAPS}/big-1")).await;
        if reply.status == 200 { Ok(()) } else { Err(reply.status.to_string()) }
    })
    .await;
    eventually("the lists have ended", || async {
        let counts = counts(&admin).await;
        if counts == (0, 0) { Ok(()) } else { Err(format!("{counts:?}")) }
    })
    .await;
    let mut read = Vec::new();
    let ended = open[0].read_to_end(&mut read).await;
    assert!(!read.ends_with(b"0\r\n\r\n"), "{ended:?}: all {} bytes", read.len());
}

#[tokio::test]
async fn every_answer_names_its_schema_and_level_even_a_refusal() {
    let server = Server::start().await;
    let admin = server.admin();
    let uid = |path: String| {
        let admin = admin.clone();
        async move { admin.get(&path).await.json()["metadata"]["uid"].as_str().unwrap().to_owned() }
    };
    let level = uid(format!("{GROUP}/prioritylevelconfigurations/global-default")).await;
    let schema = uid(format!("{GROUP}/flowschemas/global-default")).await;
    let jane = server.client("jane", &["system:authenticated"]);
    eventually("the objects are in use", || async {
        let reply = jane.get("/api/v1/secrets").await;
        assert_eq!(reply.status, 403);
        let seen = |name: &str| reply.headers.get(name).map(|v| v.to_str().unwrap().to_owned());
        let both = (seen("x-kubernetes-pf-flowschema-uid"), seen("x-kubernetes-pf-prioritylevel-uid"));
        if both == (Some(schema.clone()), Some(level.clone())) { Ok(()) } else { Err(format!("{both:?}")) }
    })
    .await;
    let metrics = admin.get("/metrics").await.text();
    let limit = "apiserver_flowcontrol_nominal_limit_seats{priority_level=\"workload-low\"} 245";
    assert!(metrics.contains(limit), "{metrics}");
}

#[tokio::test]
async fn what_the_server_needs_comes_back_and_what_is_fixed_is_refused() {
    let server = Server::start().await;
    let admin = server.admin();
    let path = format!("{GROUP}/flowschemas/catch-all");
    let before = admin.get(&path).await.json();
    admin.delete(&path, None).await.expect(200);
    eventually("the schema is back", || async {
        let reply = admin.get(&path).await;
        let back = reply.status == 200 && reply.json()["metadata"]["uid"] != before["metadata"]["uid"];
        if back { Ok(()) } else { Err(reply.text()) }
    })
    .await;
    let patch = json!({"spec": {"matchingPrecedence": 9999}});
    let fixed = "spec of 'catch-all' must equal the fixed value";
    admin.patch(&path, "merge", &patch).await.refused(422, "Invalid", fixed);
    let path = format!("{GROUP}/prioritylevelconfigurations/workload-low");
    let patch = json!({"spec": {"limited": {"nominalConcurrencyShares": 7}}});
    admin.patch(&path, "merge", &patch).await.expect(200);
    eventually("the level is what it was", || async {
        let level = admin.get(&path).await.json();
        if level["spec"]["limited"]["nominalConcurrencyShares"] == 100 {
            Ok(())
        } else {
            Err(level.to_string())
        }
    })
    .await;
    let keep = json!({"metadata": {"annotations": {"apf.kubernetes.io/autoupdate-spec": "false"}},
        "spec": {"limited": {"nominalConcurrencyShares": 245}}});
    admin.patch(&path, "merge", &keep).await.expect(200);
    eventually("the other level's seats follow the shares", || async {
        let metrics = admin.get("/metrics").await.text();
        let limit = "apiserver_flowcontrol_nominal_limit_seats{priority_level=\"workload-low\"} 377";
        if metrics.contains(limit) { Ok(()) } else { Err(metrics) }
    })
    .await;
}
