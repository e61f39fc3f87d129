//! WATCH: order, resumption, selectors, bookmarks, initial events.

use serde_json::{Value, json};

use crate::support::{CONFIG_MAPS, Client, Server, config_map};

async fn revision(admin: &Client) -> String {
    let list = admin.get(CONFIG_MAPS).await.expect(200);
    list["metadata"]["resourceVersion"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_watch_shows_every_change_after_its_revision() {
    let server = Server::start().await;
    let admin = server.admin();
    let start = revision(&admin).await;
    admin.post(CONFIG_MAPS, &config_map("a")).await.expect(201);
    let mut watch = admin.watch(&format!("{CONFIG_MAPS}?watch=1&resourceVersion={start}")).await;
    assert_eq!(watch.seen().await, "ADDED a");
    admin.patch(&format!("{CONFIG_MAPS}/a"), "merge", &json!({"data": {"a": "2"}})).await.expect(200);
    assert_eq!(watch.seen().await, "MODIFIED a");
    admin.delete(&format!("{CONFIG_MAPS}/a"), None).await.expect(200);
    let last = watch.next().await.unwrap();
    assert_eq!((&last["type"], &last["object"]["data"]["a"]), (&json!("DELETED"), &json!("2")));
    let number = |v: &Value| v.as_str().unwrap().parse::<u64>().unwrap();
    assert!(number(&last["object"]["metadata"]["resourceVersion"]) > number(&json!(start)));
}

#[tokio::test]
async fn a_watch_without_revision_begins_with_what_exists() {
    let server = Server::start().await;
    let admin = server.admin();
    admin.post(CONFIG_MAPS, &config_map("a")).await.expect(201);
    let mut watch = admin.watch(&format!("{CONFIG_MAPS}?watch=1&fieldSelector=metadata.name%3Da")).await;
    assert_eq!(watch.seen().await, "ADDED a");
    admin.delete(&format!("{CONFIG_MAPS}/a"), None).await.expect(200);
    assert_eq!(watch.seen().await, "DELETED a");
}

#[tokio::test]
async fn objects_enter_and_leave_a_selection() {
    let server = Server::start().await;
    let admin = server.admin();
    let start = revision(&admin).await;
    admin.post(CONFIG_MAPS, &config_map("a")).await.expect(201);
    let path = format!("{CONFIG_MAPS}?watch=1&resourceVersion={start}&labelSelector=in%3Dyes");
    let mut watch = admin.watch(&path).await;
    let object = format!("{CONFIG_MAPS}/a");
    admin.patch(&object, "merge", &json!({"metadata": {"labels": {"in": "yes"}}})).await.expect(200);
    assert_eq!(watch.seen().await, "ADDED a");
    let left =
        admin.patch(&object, "merge", &json!({"metadata": {"labels": {"in": "no"}}})).await.expect(200);
    let event = watch.next().await.unwrap();
    assert_eq!(event["type"], "DELETED");
    assert_eq!(event["object"]["metadata"]["resourceVersion"], left["metadata"]["resourceVersion"]);
    assert_eq!(event["object"]["metadata"]["labels"]["in"], "yes");
}

#[tokio::test]
async fn a_bookmark_marks_the_end_of_the_initial_events() {
    let server = Server::start().await;
    let admin = server.admin();
    admin.post(CONFIG_MAPS, &config_map("a")).await.expect(201);
    let path = format!(
        "{CONFIG_MAPS}?watch=1&sendInitialEvents=true&allowWatchBookmarks=true&\
         resourceVersionMatch=NotOlderThan&fieldSelector=metadata.name%3Da"
    );
    let mut watch = admin.watch(&path).await;
    assert_eq!(watch.seen().await, "ADDED a");
    let mark = watch.next().await.unwrap();
    assert_eq!((&mark["type"], &mark["object"]["kind"]), (&json!("BOOKMARK"), &json!("ConfigMap")));
    assert_eq!(mark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    let reply = admin.get(&format!("{CONFIG_MAPS}?watch=1&sendInitialEvents=true")).await;
    reply.refused(422, "Invalid", "resourceVersionMatch");
}

#[tokio::test]
async fn a_revision_from_before_the_history_is_gone() {
    let mut server = Server::start().await;
    let old = revision(&server.admin()).await;
    server.admin().post(CONFIG_MAPS, &config_map("a")).await.expect(201);
    server.restart().await;
    let mut watch = server.admin().watch(&format!("{CONFIG_MAPS}?watch=1&resourceVersion={old}")).await;
    let event = watch.next().await.unwrap();
    assert_eq!((&event["type"], &event["object"]["code"]), (&json!("ERROR"), &json!(410)));
    assert_eq!(event["object"]["reason"], "Expired");
    assert!(watch.next().await.is_none());
}

#[tokio::test]
async fn a_watch_ends_at_its_timeout_and_at_shutdown() {
    let mut server = Server::start().await;
    let admin = server.admin();
    let start = revision(&admin).await;
    let mut short =
        admin.watch(&format!("{CONFIG_MAPS}?watch=1&resourceVersion={start}&timeoutSeconds=1")).await;
    assert_eq!(short.seen().await, "the end");
    let mut long = admin.watch(&format!("{CONFIG_MAPS}?watch=1&resourceVersion={start}")).await;
    server.restart().await;
    assert_eq!(long.seen().await, "the end");
}

#[tokio::test]
async fn a_watched_table_has_its_columns_once() {
    let server = Server::start().await;
    let admin = server.admin();
    let start = revision(&admin).await;
    let table = admin.with("accept", "application/json;as=Table;v=v1;g=meta.k8s.io");
    let mut watch = table.watch(&format!("{CONFIG_MAPS}?watch=1&resourceVersion={start}")).await;
    for name in ["a", "b"] {
        admin.post(CONFIG_MAPS, &config_map(name)).await.expect(201);
    }
    let first = watch.next().await.unwrap();
    let second = watch.next().await.unwrap();
    assert_eq!(first["object"]["rows"][0]["cells"][0], "a");
    assert!(!first["object"]["columnDefinitions"].as_array().unwrap().is_empty());
    assert_eq!(second["object"]["rows"][0]["cells"][0], "b");
    assert!(second["object"]["columnDefinitions"].as_array().unwrap().is_empty());
}

#[tokio::test]
async fn a_watcher_that_does_not_keep_up_is_told_to_start_over() {
    let server = Server::start().await;
    let admin = server.admin();
    let start = revision(&admin).await;
    let mut watch = admin.watch(&format!("{CONFIG_MAPS}?watch=1&resourceVersion={start}")).await;
    // More than the history holds, while nobody reads.
    let mut large = config_map("a");
    admin.post(CONFIG_MAPS, &large).await.expect(201);
    for round in 0..130 {
        large["data"]["a"] = format!("{round}{}", "x".repeat(1_000_000)).into();
        admin.put(&format!("{CONFIG_MAPS}/a"), &large).await.expect(200);
    }
    let last = loop {
        let event = watch.next().await.expect("an end that says why");
        if event["type"] == "ERROR" {
            break event;
        }
    };
    assert_eq!((&last["object"]["code"], &last["object"]["reason"]), (&json!(410), &json!("Expired")));
    assert!(watch.next().await.is_none());
}
