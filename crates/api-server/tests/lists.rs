//! LIST: pages, revisions, selectors, forms.

use serde_json::{Value, json};

use crate::support::{CONFIG_MAPS, Client, PODS, Server, config_map};

async fn fill(admin: &Client, count: usize) {
    for n in 0..count {
        let mut object = config_map(&format!("m{n:02}"));
        object["metadata"]["labels"] = json!({"odd": (n % 2 == 1).to_string()});
        admin.post(CONFIG_MAPS, &object).await.expect(201);
    }
}

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|o| o["metadata"]["name"].as_str().unwrap()).collect()
}

fn with_token(path: &str, list: &Value) -> String {
    format!("{path}&continue={}", list["metadata"]["continue"].as_str().unwrap())
}

#[tokio::test]
async fn pages_come_from_one_snapshot() {
    let server = Server::start().await;
    let admin = server.admin();
    fill(&admin, 7).await;
    let path = format!("{CONFIG_MAPS}?limit=3&fieldSelector=metadata.name!%3Dkube-root-ca.crt");
    let first = admin.get(&path).await.expect(200);
    assert_eq!(names(&first), ["m00", "m01", "m02"]);
    // What happens between the pages does not show.
    admin.delete(&format!("{CONFIG_MAPS}/m04"), None).await.expect(200);
    admin.post(CONFIG_MAPS, &config_map("m99")).await.expect(201);
    let second = admin.get(&with_token(&path, &first)).await.expect(200);
    assert_eq!(names(&second), ["m03", "m04", "m05"]);
    assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    let third = admin.get(&with_token(&path, &second)).await.expect(200);
    assert_eq!(names(&third), ["m06"]);
    assert!(third["metadata"].get("continue").is_none());
}

#[tokio::test]
async fn unfiltered_pages_say_how_many_follow() {
    let server = Server::start().await;
    let admin = server.admin();
    fill(&admin, 4).await;
    let all = admin.get(CONFIG_MAPS).await.expect(200);
    let page = admin.get(&format!("{CONFIG_MAPS}?limit=1")).await.expect(200);
    assert_eq!(page["metadata"]["remainingItemCount"], all["items"].as_array().unwrap().len() - 1);
    let reply = admin.get(&format!("{CONFIG_MAPS}?limit=1&continue=nonsense")).await;
    reply.refused(400, "BadRequest", "continue key is not valid");
}

#[tokio::test]
async fn an_exact_revision_shows_the_past() {
    let server = Server::start().await;
    let admin = server.admin();
    fill(&admin, 2).await;
    let then = admin.get(CONFIG_MAPS).await.expect(200);
    let revision = then["metadata"]["resourceVersion"].as_str().unwrap();
    admin.delete(&format!("{CONFIG_MAPS}/m00"), None).await.expect(200);
    let exact =
        admin.get(&format!("{CONFIG_MAPS}?resourceVersion={revision}&resourceVersionMatch=Exact")).await;
    assert_eq!(names(&exact.expect(200)), names(&then));
    let newer = admin
        .get(&format!("{CONFIG_MAPS}?resourceVersion={revision}&resourceVersionMatch=NotOlderThan"))
        .await;
    assert!(!names(&newer.expect(200)).contains(&"m00"));
    let reply = admin.get(&format!("{CONFIG_MAPS}?resourceVersion=999999999")).await;
    reply.refused(504, "Timeout", "Too large resource version: 999999999");
    admin.get(&format!("{CONFIG_MAPS}?resourceVersion=abc")).await.expect(400);
}

#[tokio::test]
async fn selectors_narrow_a_list() {
    let server = Server::start().await;
    let admin = server.admin();
    fill(&admin, 4).await;
    let odd = admin.get(&format!("{CONFIG_MAPS}?labelSelector=odd%3Dtrue")).await.expect(200);
    assert_eq!(names(&odd), ["m01", "m03"]);
    let odd = admin.get("/api/v1/configmaps?labelSelector=odd%20in%20(true),odd").await.expect(200);
    assert_eq!(names(&odd), ["m01", "m03"]);
    let one = admin.get(&format!("{CONFIG_MAPS}?fieldSelector=metadata.name%3Dm02")).await.expect(200);
    assert_eq!(names(&one), ["m02"]);
    let everywhere = admin.get("/api/v1/configmaps?fieldSelector=metadata.name%3Dm02").await.expect(200);
    assert_eq!(names(&everywhere), ["m02"]);
    let none = admin.get(&format!("{PODS}?fieldSelector=spec.nodeName%3Dn")).await.expect(200);
    assert_eq!(names(&none), [""; 0]);
    assert_eq!((&none["kind"], &none["apiVersion"]), (&json!("PodList"), &json!("v1")));
}

#[tokio::test]
async fn tables_and_partial_metadata_are_given_to_who_accepts_them() {
    let server = Server::start().await;
    let admin = server.admin();
    fill(&admin, 1).await;
    let table = admin.with("accept", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json");
    let one = table.get(&format!("{CONFIG_MAPS}/m00")).await.expect(200);
    assert_eq!(one["kind"], "Table");
    assert_eq!(one["columnDefinitions"][0]["name"], "Name");
    assert_eq!(one["rows"][0]["cells"][0], "m00");
    assert_eq!(one["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    let partial = admin.with("accept", "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io");
    let list = partial.get(&format!("{CONFIG_MAPS}?labelSelector=odd")).await.expect(200);
    assert_eq!(list["kind"], "PartialObjectMetadataList");
    assert_eq!(list["items"][0]["metadata"]["name"], "m00");
    assert!(list["items"][0].get("data").is_none());
}

#[tokio::test]
async fn long_lists_are_compressed_for_who_takes_it() {
    let server = Server::start().await;
    let admin = server.admin();
    for n in 0..3 {
        let mut object = config_map(&format!("big{n}"));
        object["data"]["a"] = "lorem ipsum ".repeat(8000).into();
        admin.post(CONFIG_MAPS, &object).await.expect(201);
    }
    let plain = admin.get(CONFIG_MAPS).await;
    let packed = admin.with("accept-encoding", "gzip").get(CONFIG_MAPS).await;
    assert_eq!(packed.headers["content-encoding"], "gzip");
    assert!(packed.bytes.len() * 10 < plain.bytes.len());
    assert_eq!(
        plain.expect(200)["items"].as_array().unwrap().len(),
        3 + usize::from(plain.text().contains("kube-root-ca.crt"))
    );
}

#[tokio::test]
async fn events_are_selected_by_who_reports_them() {
    let server = Server::start().await;
    let admin = server.admin();
    let event = |name: &str, by: &str| {
        json!({"metadata": {"name": name}, "regarding": {"kind": "Pod", "namespace": "default", "name": "p"},
            "eventTime": "2026-01-02T03:04:05.000000Z", "reportingController": by, "reportingInstance": "i",
            "action": "a", "reason": "r", "type": "Normal"})
    };
    let modern = "/apis/events.k8s.io/v1/namespaces/default/events";
    for (name, by) in [("a", "example.com/one"), ("b", "example.com/two")] {
        admin.post(modern, &event(name, by)).await.expect(201);
    }
    let core = "/api/v1/namespaces/default/events";
    for (path, selector) in [
        (core, "reportingComponent=example.com/one"),
        (core, "source=example.com/one,involvedObject.kind=Pod"),
        (modern, "reportingController=example.com/one"),
        (modern, "regarding.name=p,reportingController!=example.com/two"),
    ] {
        let list =
            admin.get(&format!("{path}?fieldSelector={}", selector.replace('=', "%3D"))).await.expect(200);
        let names: Vec<_> =
            list["items"].as_array().unwrap().iter().map(|e| &e["metadata"]["name"]).collect();
        assert_eq!(names, ["a"], "{selector}");
    }
    for (path, field) in
        [(core, "reportingController"), (modern, "reportingComponent"), (modern, "involvedObject.kind")]
    {
        let refused = admin.get(&format!("{path}?fieldSelector={field}%3Dx")).await;
        refused.refused(400, "BadRequest", &format!("field label not supported: {field}"));
    }
    // Through the newer group the newer rules hold.
    let mut odd = event("c", "example.com/one");
    odd["type"] = "Strange".into();
    admin.post(modern, &odd).await.refused(422, "Invalid", "has invalid value: Strange");
}
