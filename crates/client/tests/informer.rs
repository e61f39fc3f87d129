//! What an informer knows and tells, whatever happens to its server.

use crate::eventually;
use crate::peer::Peer;
use keelson_client::k8s_openapi::api::core::v1::ConfigMap;
use keelson_client::{Change, Informer, Key, Meta, Whole, projection};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

#[derive(Debug, Deserialize)]
struct Pod {
    metadata: Meta,
    #[serde(default)]
    spec: Spec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    node_name: String,
}

projection!(Pod, "", "v1", "pods", "Pod", namespaced);

fn pod(namespace: &str, name: &str, node: &str) -> Value {
    json!({ "metadata": { "namespace": namespace, "name": name }, "spec": { "nodeName": node, "other": [1, 2] } })
}

type Log = Arc<Mutex<Vec<String>>>;

/// Writes down changes as `+name`, `~name` and `-name`.
fn log(informer: &Informer<Pod>) -> Log {
    let log = Log::default();
    let to = log.clone();
    informer.on_change(move |change| {
        let sign = match change {
            Change::Added(_) => '+',
            Change::Updated { .. } => '~',
            Change::Deleted(_) => '-',
        };
        to.lock().push(format!("{sign}{}", change.object().metadata.name));
    });
    log
}

fn names(informer: &Informer<Pod>) -> Vec<String> {
    informer.list().iter().map(|p| p.metadata.name.clone()).collect()
}

async fn started(peer: &Peer) -> Arc<Informer<Pod>> {
    let informer = Informer::<Pod>::new(&peer.client())
        .index("byNode", |p: &Pod| vec![p.spec.node_name.clone()])
        .start();
    informer.synced().await;
    informer
}

#[tokio::test(start_paused = true)]
async fn it_lists_in_pages_and_then_watches() {
    let peer = Peer::default();
    for i in 0..1200 {
        peer.put("pods", pod("ns", &format!("p{i:04}"), "n"));
    }
    let informer = Informer::<Pod>::new(&peer.client()).namespace("ns").fields("spec.nodeName=n").start();
    assert!(!informer.has_synced());
    informer.synced().await;
    assert_eq!(informer.len(), 1200);
    eventually(4, || peer.requests().len()).await;
    let requests = peer.requests();
    let base = "GET /api/v1/namespaces/ns/pods?fieldSelector=spec.nodeName%3Dn&";
    assert_eq!(requests[0], format!("{base}limit=500&resourceVersion=0"));
    assert_eq!(requests[1], format!("{base}limit=500&continue=500"));
    let watch = format!("{base}watch=true&allowWatchBookmarks=true&resourceVersion=1200&timeoutSeconds=");
    assert!(requests[3].starts_with(&watch), "{}", requests[3]);
}

#[tokio::test(start_paused = true)]
async fn it_tells_changes_in_order_and_a_late_subscriber_the_present_state() {
    let peer = Peer::default();
    peer.put("pods", pod("a", "one", "n1"));
    let informer = started(&peer).await;
    let early = log(&informer);
    peer.put("pods", pod("b", "two", "n1"));
    peer.put("pods", pod("a", "one", "n2"));
    peer.remove("pods", "b", "two");
    peer.put("pods", pod("a", "three", "n1"));
    eventually(5, || early.lock().len()).await;
    assert_eq!(*early.lock(), ["+one", "+two", "~one", "-two", "+three"]);
    assert_eq!(*log(&informer).lock(), ["+one", "+three"]);
    assert_eq!(informer.get(&Key::new("a", "one")).unwrap().spec.node_name, "n2");
    assert_eq!(informer.get(&Key::new("b", "two")).map(|p| p.metadata.name.clone()), None);
    assert_eq!(informer.list_namespace("a").len(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_index_follows_changes() {
    let peer = Peer::default();
    peer.put("pods", pod("a", "one", "n1"));
    peer.put("pods", pod("a", "two", "n1"));
    let informer = started(&peer).await;
    assert_eq!(informer.by_index("byNode", "n1").len(), 2);
    peer.put("pods", pod("a", "one", "n2"));
    eventually((1, 1), || (informer.by_index("byNode", "n1").len(), informer.by_index("byNode", "n2").len()))
        .await;
    peer.remove("pods", "a", "one");
    eventually(0, || informer.by_index("byNode", "n2").len()).await;
}

#[tokio::test(start_paused = true)]
async fn a_broken_watch_goes_on_where_it_stopped() {
    let peer = Peer::default();
    peer.put("pods", pod("a", "one", ""));
    let informer = started(&peer).await;
    let changes = log(&informer);
    eventually(2, || peer.requests().len()).await;
    let version = peer.bookmark();
    // A change that was told proves that the bookmark before it was read.
    peer.put("pods", pod("a", "two", ""));
    eventually(2, || informer.len()).await;
    peer.disconnect();
    peer.put("pods", pod("a", "three", ""));
    eventually(3, || informer.len()).await;
    assert_eq!(*changes.lock(), ["+one", "+two", "+three"]);
    let last = peer.requests().pop().unwrap();
    assert!(last.contains(&format!("resourceVersion={}&", version + 1)), "{last}");
    assert_eq!(peer.requests().len(), 3, "one list and two watches: {:?}", peer.requests());
}

#[tokio::test(start_paused = true)]
async fn a_bookmark_moves_the_version_along() {
    let peer = Peer::default();
    let informer = started(&peer).await;
    eventually(2, || peer.requests().len()).await;
    let version = peer.bookmark();
    tokio::task::yield_now().await;
    // History up to the bookmark is forgotten; who has read it need not list again.
    peer.compact();
    eventually(true, || {
        peer.disconnect();
        peer.requests().iter().any(|r| r.contains(&format!("resourceVersion={version}&")))
    })
    .await;
    assert_eq!(peer.requests().iter().filter(|r| r.contains("limit=")).count(), 1);
    drop(informer);
}

#[tokio::test(start_paused = true)]
async fn what_is_known_outlives_the_server_and_what_was_missed_is_told() {
    let peer = Peer::default();
    for name in ["gone", "same", "changed", "reborn"] {
        peer.put("pods", pod("a", name, ""));
    }
    let informer = started(&peer).await;
    let changes = log(&informer);
    peer.stop();
    eventually(false, || informer.connected()).await;
    assert_eq!(informer.len(), 4);

    peer.remove("pods", "a", "gone");
    peer.put("pods", pod("a", "changed", "n9"));
    peer.remove("pods", "a", "reborn");
    let mut reborn = pod("a", "reborn", "");
    reborn["metadata"]["uid"] = "another".into();
    peer.put("pods", reborn);
    peer.put("pods", pod("a", "new", ""));
    peer.compact();
    changes.lock().clear();
    peer.start();
    eventually(true, || informer.connected() && names(&informer).contains(&"new".to_owned())).await;
    assert_eq!(*changes.lock(), ["-gone", "~changed", "+new", "-reborn", "+reborn"]);
    assert_eq!(names(&informer), ["changed", "new", "reborn", "same"]);
}

#[tokio::test(start_paused = true)]
async fn attempts_while_the_server_is_away_grow_to_ten_seconds_apart() {
    let peer = Peer::default();
    peer.stop();
    let informer = Informer::<Pod>::new(&peer.client()).start();
    let started = tokio::time::Instant::now();
    eventually(4, || peer.requests().len()).await;
    assert!(started.elapsed().as_secs_f64() < 2.0, "{:?}", started.elapsed());
    tokio::time::sleep(std::time::Duration::from_secs(100)).await;
    let attempts = peer.requests().len();
    assert!((13..=20).contains(&attempts), "{attempts} attempts");
    peer.start();
    informer.synced().await;
}

#[tokio::test(start_paused = true)]
async fn an_object_that_is_not_understood_does_not_stop_the_rest() {
    let peer = Peer::default();
    let mut odd = pod("a", "odd", "");
    odd["spec"]["nodeName"] = json!(7);
    peer.put("pods", odd.clone());
    peer.put("pods", pod("a", "one", ""));
    let informer = started(&peer).await;
    peer.put("pods", odd);
    peer.put("pods", pod("a", "two", ""));
    eventually(vec!["one".to_owned(), "two".to_owned()], || names(&informer)).await;
}

#[tokio::test(start_paused = true)]
async fn a_whole_object_is_held_where_that_is_asked_for() {
    let peer = Peer::default();
    peer.put("configmaps", json!({ "metadata": { "namespace": "a", "name": "m" }, "data": { "k": "v" } }));
    let informer = Informer::<Whole<ConfigMap>>::new(&peer.client()).start();
    informer.synced().await;
    let map = informer.get(&Key::new("a", "m")).unwrap();
    assert_eq!(map.data.as_ref().unwrap()["k"], "v");
}
