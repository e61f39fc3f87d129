//! Pods that nobody else removes: those of nodes that are gone, those that were never placed and are being deleted,
//! and the oldest of too many that ended.

use std::sync::Arc;
use std::time::Duration;

use keelson_client::{Change, Key, WorkQueue};
use serde_json::json;

use crate::context::{Context, NODE};
use crate::kit::{Condition, Error, conditions, error::gone_is_fine, only_if};
use crate::views::{Node, Pod};

/// A node may come back within this time: its pods wait.
const QUARANTINE: Duration = Duration::from_secs(40);

/// Why a pod is removed.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Keep,
    /// Its node is not known; whether it exists at all is to be asked.
    NodeMissing,
    /// Nothing but the API server knows it.
    NeverPlaced,
}

fn judge(pod: &Pod, node_known: bool) -> Verdict {
    match (pod.spec.node_name.is_empty(), node_known) {
        (true, _) if pod.metadata.is_deleting() => Verdict::NeverPlaced,
        (false, false) => Verdict::NodeMissing,
        _ => Verdict::Keep,
    }
}

/// The pods that ended beyond `threshold`, the oldest first.
fn surplus(mut finished: Vec<Arc<Pod>>, threshold: usize) -> Vec<Arc<Pod>> {
    finished.retain(|p| p.is_finished() && !p.metadata.is_deleting());
    finished.sort_by_key(|p| p.created());
    let count = finished.len().saturating_sub(threshold);
    finished.truncate(count);
    finished
}

pub async fn run(context: Arc<Context>) {
    let queue = WorkQueue::<Key>::new();
    let (informers, changed) = (&context.informers, queue.clone());
    let (nodes, pods) = (informers.nodes.clone(), Arc::downgrade(&informers.pods));
    let threshold = context.config.terminated_pod_threshold;
    informers.pods.on_change(move |change| {
        if matches!(change, Change::Deleted(_)) {
            return;
        }
        let pod = change.object();
        match judge(pod, nodes.get(&Key::cluster(&pod.spec.node_name)).is_some()) {
            Verdict::Keep => {}
            Verdict::NeverPlaced => changed.add(pod.metadata.key()),
            Verdict::NodeMissing => changed.add_after(pod.metadata.key(), QUARANTINE),
        }
        let many = threshold > 0 && pods.upgrade().is_some_and(|p| p.len() > threshold);
        if many && pod.is_finished() {
            // The empty key stands for all that ended.
            changed.add_after(Key::default(), Duration::from_secs(5));
        }
    });
    let (pods, lost) = (informers.pods.clone(), queue.clone());
    informers.nodes.on_change(move |change| {
        if let Change::Deleted(node) = change {
            for pod in pods.by_index(NODE, &node.metadata.name) {
                lost.add_after(pod.metadata.key(), QUARANTINE);
            }
        }
    });
    let this = context.clone();
    context.work("pod-gc", queue, 2, move |key| sync(this.clone(), key)).await;
}

async fn sync(context: Arc<Context>, key: Key) -> Result<(), Error> {
    let informers = &context.informers;
    if key == Key::default() {
        for pod in surplus(informers.pods.list(), context.config.terminated_pod_threshold) {
            remove(&context, &pod, None).await?;
        }
        return Ok(());
    }
    let Some(pod) = informers.pods.get(&key) else { return Ok(()) };
    match judge(&pod, informers.nodes.get(&Key::cluster(&pod.spec.node_name)).is_some()) {
        Verdict::Keep => Ok(()),
        Verdict::NeverPlaced => remove(&context, &pod, None).await,
        Verdict::NodeMissing => match context.requests.get::<Node>("", &pod.spec.node_name).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_not_found() => {
                remove(&context, &pod, Some("PodGC: node no longer exists")).await
            }
            Err(error) => Err(error),
        },
    }
}

/// Deletes without grace: no node agent is there to confirm.
async fn remove(context: &Context, pod: &Pod, disrupted: Option<&str>) -> Result<(), Error> {
    let meta = &pod.metadata;
    if let Some(message) = disrupted.filter(|_| !pod.is_finished()) {
        let mut new = pod.status.conditions.clone();
        conditions::set(&mut new, Condition::new("DisruptionTarget", true, "DeletionByPodGC", message));
        let status = json!({ "phase": "Failed", "conditions": new });
        let patch = json!({ "metadata": only_if(meta), "status": status });
        gone_is_fine(context.requests.patch::<Pod>(meta, Some("status"), &patch).await)?;
    }
    let options = json!({ "gracePeriodSeconds": 0 });
    gone_is_fine(context.requests.delete_with::<Pod>(meta, options).await)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn pod(value: Value) -> Pod {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn only_lost_pods_are_removed() {
        let placed = pod(json!({"spec": {"nodeName": "n"}}));
        assert_eq!(judge(&placed, true), Verdict::Keep);
        assert_eq!(judge(&placed, false), Verdict::NodeMissing);
        assert_eq!(judge(&pod(json!({})), false), Verdict::Keep);
        let deleting = pod(json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}));
        assert_eq!(judge(&deleting, false), Verdict::NeverPlaced);
    }

    #[test]
    fn the_oldest_that_ended_go_first() {
        let ended = |name: &str, day: u32, phase: &str| {
            let created = format!("2026-01-{day:02}T00:00:00Z");
            Arc::new(pod(
                json!({"metadata": {"name": name, "creationTimestamp": created}, "status": {"phase": phase}}),
            ))
        };
        let pods = vec![ended("new", 3, "Failed"), ended("old", 1, "Succeeded"), ended("runs", 1, "Running")];
        let names: Vec<_> = surplus(pods, 1).iter().map(|p| p.metadata.name.clone()).collect();
        assert_eq!(names, ["old"]);
    }
}
