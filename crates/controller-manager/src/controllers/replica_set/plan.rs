//! What a set does about its pods, and what it says of them.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;

use crate::views::{Pod, ReplicaStatus, Replicated};

/// Pods that one sync creates or deletes at most.
const BURST: usize = 500;
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

#[derive(Debug)]
pub enum Scale {
    Keep,
    Create(usize),
    Delete(Vec<Arc<Pod>>),
}

/// How to come to the wanted number from the active pods. `related` is asked for only where pods have to go.
pub fn scale<R: Replicated>(
    set: &R,
    active: &[Arc<Pod>],
    related: impl FnOnce() -> Vec<Arc<Pod>>,
    now: Timestamp,
) -> Scale {
    let wanted = usize::try_from(set.spec().replicas()).unwrap_or(0);
    match active.len().cmp(&wanted) {
        Ordering::Equal => Scale::Keep,
        Ordering::Less => Scale::Create((wanted - active.len()).min(BURST)),
        Ordering::Greater => {
            let count = (active.len() - wanted).min(BURST);
            Scale::Delete(first_to_go(active, &related(), count, now))
        }
    }
}

/// The pods that are missed the least: not placed before placed, pending before running, not ready before ready,
/// cheap before dear, from crowded nodes, ready for a short time, often restarted, young.
fn first_to_go(active: &[Arc<Pod>], related: &[Arc<Pod>], count: usize, now: Timestamp) -> Vec<Arc<Pod>> {
    let mut crowd: HashMap<&str, usize> = HashMap::new();
    for pod in related.iter().filter(|p| p.is_active()) {
        *crowd.entry(&pod.spec.node_name).or_default() += 1;
    }
    let mut ranked: Vec<_> = active.iter().map(|pod| (rank(pod, &crowd, now), pod)).collect();
    if count < ranked.len() {
        ranked.sort_by_key(|(rank, _)| *rank);
        ranked.truncate(count);
    }
    ranked.into_iter().map(|(_, pod)| pod.clone()).collect()
}

type Rank<'a> = (bool, u8, bool, i64, i64, u32, i64, i32, u32, i64, &'a str);

fn rank<'a>(pod: &'a Pod, crowd: &HashMap<&str, usize>, now: Timestamp) -> Rank<'a> {
    let phase = match pod.status.phase.as_str() {
        "Pending" | "" => 0,
        "Unknown" => 1,
        _ => 2,
    };
    let cost = pod.metadata.annotations.get(DELETION_COST).and_then(|c| c.parse::<i32>().ok()).unwrap_or(0);
    let crowded = crowd.get(pod.spec.node_name.as_str()).copied().unwrap_or(0) as i64;
    // Ages count by magnitude, so that the choice among pods of one rollout is not always the youngest's node.
    let magnitude = |since: Timestamp| {
        let age = now.as_second() - since.as_second();
        u64::try_from(age).map_or(0, |age| 64 - age.leading_zeros())
    };
    let ready = pod.ready_since();
    (
        !pod.spec.node_name.is_empty(),
        phase,
        pod.is_ready(),
        i64::from(cost),
        -crowded,
        ready.map_or(0, magnitude),
        0,
        -pod.restarts(),
        magnitude(pod.created()),
        0,
        &pod.metadata.uid,
    )
}

/// The status by what the active pods are; conditions as they were.
pub fn calculate_status<R: Replicated>(set: &R, active: &[Arc<Pod>], now: Timestamp) -> ReplicaStatus {
    let labels = set.spec().template.pointer("/metadata/labels").and_then(|l| l.as_object());
    let fully_labeled = |pod: &Pod| {
        labels
            .into_iter()
            .flatten()
            .all(|(key, value)| pod.metadata.labels.get(key).map(String::as_str) == value.as_str())
    };
    let min_ready = set.spec().min_ready_seconds;
    let count = |test: &dyn Fn(&Pod) -> bool| active.iter().filter(|p| test(p)).count() as i32;
    ReplicaStatus {
        replicas: active.len() as i32,
        fully_labeled_replicas: count(&fully_labeled),
        ready_replicas: count(&Pod::is_ready),
        available_replicas: count(&|p: &Pod| p.is_available(min_ready, now)),
        observed_generation: set.meta().generation,
        conditions: set.status().conditions.clone(),
    }
}

/// Seconds until the next ready pod counts as available.
pub fn next_available<R: Replicated>(set: &R, active: &[Arc<Pod>], now: Timestamp) -> Option<i64> {
    let min_ready = set.spec().min_ready_seconds;
    if min_ready == 0 {
        return None;
    }
    active.iter().filter_map(|p| p.available_in(min_ready, now)).min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::views::ReplicaSet;
    use serde_json::{Value, json};

    fn set(replicas: i32) -> ReplicaSet {
        serde_json::from_value(json!({
            "metadata": {"name": "web", "uid": "rs", "generation": 3},
            "spec": {"replicas": replicas, "minReadySeconds": 10, "selector": {"matchLabels": {"a": "b"}},
                     "template": {"metadata": {"labels": {"a": "b"}}}},
        }))
        .unwrap()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn pod(name: &str, more: Value) -> Arc<Pod> {
        let mut value = json!({
            "metadata": {"name": name, "uid": name, "labels": {"a": "b"}, "creationTimestamp": "1970-01-01T00:00:00Z"},
            "spec": {"nodeName": "n1"},
            "status": {"phase": "Running", "conditions": [
                {"type": "Ready", "status": "True", "lastTransitionTime": "1970-01-01T00:00:00Z"}]},
        });
        fn merge(into: &mut Value, from: Value) {
            match (into, from) {
                (Value::Object(into), Value::Object(from)) => {
                    from.into_iter().for_each(|(k, v)| merge(into.entry(k).or_insert(Value::Null), v));
                }
                (into, from) => *into = from,
            }
        }
        merge(&mut value, more);
        Arc::new(serde_json::from_value(value).unwrap())
    }

    fn check_goes(pods: &[Arc<Pod>], expected: &[&str]) {
        let doomed = first_to_go(pods, pods, expected.len(), at(1000));
        let names: Vec<_> = doomed.iter().map(|p| p.metadata.name.as_str()).collect();
        assert_eq!(names, expected);
    }

    #[test]
    fn missing_pods_are_created_in_bursts() {
        let scale = |n, pods: &[Arc<Pod>]| scale(&set(n), pods, Vec::new, at(0));
        assert!(matches!(scale(2, &[]), Scale::Create(2)));
        assert!(matches!(scale(2000, &[]), Scale::Create(500)));
        assert!(matches!(scale(1, &[pod("a", json!({}))]), Scale::Keep));
        assert!(matches!(scale(0, &[pod("a", json!({}))]), Scale::Delete(d) if d.len() == 1));
    }

    #[test]
    fn the_least_missed_go_first() {
        let unplaced = pod(
            "unplaced",
            json!({"spec": {"nodeName": ""}, "status": {"phase": "Pending", "conditions": []}}),
        );
        let pending = pod("pending", json!({"status": {"phase": "Pending", "conditions": []}}));
        let unready = pod("unready", json!({"status": {"conditions": []}}));
        let cheap = pod("cheap", json!({"metadata": {"annotations": {DELETION_COST: "-5"}}}));
        let restarted =
            pod("restarted", json!({"status": {"containerStatuses": [{"name": "c", "restartCount": 4}]}}));
        let plain = pod("plain", json!({}));
        let all = [plain.clone(), restarted, cheap, unready, pending, unplaced];
        check_goes(&all, &["unplaced", "pending", "unready", "cheap", "restarted"]);
        let elsewhere = pod("elsewhere", json!({"spec": {"nodeName": "n2"}}));
        check_goes(&[elsewhere, plain.clone(), pod("same", json!({}))], &["plain", "same"]);
    }

    #[test]
    fn the_status_counts_labels_readiness_and_time() {
        let pods = [
            pod("a", json!({})),
            pod("b", json!({"metadata": {"labels": {"a": "other"}}, "status": {"conditions": []}})),
        ];
        let status = calculate_status(&set(2), &pods, at(9));
        assert_eq!((status.replicas, status.fully_labeled_replicas, status.ready_replicas), (2, 1, 1));
        assert_eq!((status.available_replicas, status.observed_generation), (0, 3));
        assert_eq!(next_available(&set(2), &pods, at(9)), Some(1));
        assert_eq!(calculate_status(&set(2), &pods, at(10)).available_replicas, 1);
        assert_eq!(next_available(&set(2), &pods, at(10)), None);
    }
}
