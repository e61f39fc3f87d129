//! Events as they are written.

use crate::eventually;
use crate::peer::Peer;
use keelson_client::{EventRecorder, EventType, ObjectRef};
use std::time::Duration;

fn about(name: &str) -> ObjectRef {
    ObjectRef {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        namespace: Some("ns".to_owned()),
        name: Some(name.to_owned()),
        uid: Some(format!("uid-{name}")),
        ..ObjectRef::default()
    }
}

fn counts(peer: &Peer) -> Vec<i64> {
    let mut counts: Vec<_> = peer.all("events").iter().map(|e| e["count"].as_i64().unwrap()).collect();
    counts.sort_unstable();
    counts
}

#[tokio::test(start_paused = true)]
async fn an_event_says_what_happened_where_and_who_saw_it() {
    let peer = Peer::default();
    let recorder = EventRecorder::new(peer.client(), "scheduler", "node-1");
    recorder.event(&about("p"), EventType::Warning, "FailedScheduling", "no node fits");
    eventually(1, || peer.all("events").len()).await;
    let event = peer.all("events").remove(0);
    assert_eq!(event["involvedObject"]["uid"], "uid-p");
    assert_eq!((&event["type"], &event["reason"]), (&"Warning".into(), &"FailedScheduling".into()));
    assert_eq!(event["source"], serde_json::json!({ "component": "scheduler", "host": "node-1" }));
    assert_eq!(event["reportingComponent"], "scheduler");
    assert_eq!(event["firstTimestamp"], event["lastTimestamp"]);
    assert!(event["metadata"]["name"].as_str().unwrap().starts_with("p."), "{event}");
    assert_eq!(event["metadata"]["namespace"], "ns");
}

#[tokio::test(start_paused = true)]
async fn equal_events_are_counted_for_ten_minutes() {
    let peer = Peer::default();
    let recorder = EventRecorder::new(peer.client(), "c", "");
    for _ in 0..3 {
        recorder.event(&about("p"), EventType::Normal, "Pulled", "again");
    }
    recorder.event(&about("p"), EventType::Normal, "Pulled", "something else");
    eventually(vec![1, 3], || counts(&peer)).await;
    tokio::time::sleep(Duration::from_secs(601)).await;
    recorder.event(&about("p"), EventType::Normal, "Pulled", "again");
    eventually(vec![1, 1, 3], || counts(&peer)).await;
}

#[tokio::test(start_paused = true)]
async fn a_counted_event_that_expired_begins_anew() {
    let peer = Peer::default();
    let recorder = EventRecorder::new(peer.client(), "c", "");
    recorder.event(&about("p"), EventType::Normal, "Pulled", "again");
    eventually(1, || peer.all("events").len()).await;
    let name = peer.all("events")[0]["metadata"]["name"].as_str().unwrap().to_owned();
    peer.remove("events", "ns", &name);
    recorder.event(&about("p"), EventType::Normal, "Pulled", "again");
    eventually(vec![1], || counts(&peer)).await;
}

#[tokio::test(start_paused = true)]
async fn an_object_that_floods_is_cut_off_and_others_are_not() {
    let peer = Peer::default();
    let recorder = EventRecorder::new(peer.client(), "c", "");
    for i in 0..40 {
        recorder.event(&about("noisy"), EventType::Normal, "Noise", format!("number {i}"));
    }
    recorder.event(&about("quiet"), EventType::Normal, "Word", "x".repeat(3000));
    eventually(26, || peer.all("events").len()).await;
    let quiet = peer.all("events").into_iter().find(|e| e["reason"] == "Word").unwrap();
    assert_eq!(quiet["message"].as_str().unwrap().len(), 1024);
}
