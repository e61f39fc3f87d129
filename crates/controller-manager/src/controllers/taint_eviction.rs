//! Pods leave nodes whose NoExecute taints they do not tolerate, or no longer.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use keelson_client::{Change, EventRecorder, EventType, Key, WorkQueue, object_ref};
use parking_lot::Mutex;
use serde_json::json;
use tokio::time::Instant;

use crate::context::{Context, NODE};
use crate::kit::{Condition, Error, conditions, error::gone_is_fine, only_if};
use crate::views::{Node, Pod, Taint, Toleration};

/// How long a pod may stay.
#[derive(Debug, PartialEq, Eq)]
enum Stay {
    Forever,
    For(Duration),
}

/// The shortest time of all tolerations that are needed; none at all when a taint is not tolerated.
fn stay(taints: &[Taint], tolerations: &[Toleration]) -> Stay {
    let mut shortest = Stay::Forever;
    for taint in taints.iter().filter(|t| t.effect == "NoExecute") {
        let mut tolerated = false;
        for toleration in tolerations.iter().filter(|t| t.tolerates(taint)) {
            tolerated = true;
            if let Some(seconds) = toleration.toleration_seconds {
                let time = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
                shortest = match shortest {
                    Stay::For(known) if known <= time => Stay::For(known),
                    _ => Stay::For(time),
                };
            }
        }
        if !tolerated {
            return Stay::For(Duration::ZERO);
        }
    }
    shortest
}

struct Controller {
    context: Arc<Context>,
    queue: WorkQueue<Key>,
    events: EventRecorder,
    /// Pods that have to go, by uid: since when.
    doomed: Mutex<HashMap<String, Instant>>,
}

pub async fn run(context: Arc<Context>) {
    let queue = WorkQueue::<Key>::new();
    let nodes = context.informers.nodes.clone();
    let pods = queue.clone();
    let this = Arc::new(Controller {
        context: context.clone(),
        queue: queue.clone(),
        events: context.events("taint-eviction-controller"),
        doomed: Mutex::default(),
    });
    let forget = this.clone();
    context.informers.pods.on_change(move |change| match change {
        Change::Deleted(pod) => drop(forget.doomed.lock().remove(&pod.metadata.uid)),
        Change::Updated { old, new } if old.spec.node_name == new.spec.node_name => {}
        Change::Added(pod) | Change::Updated { new: pod, .. } => {
            let tainted = |node: &Node| node.spec.taints.iter().any(|t| t.effect == "NoExecute");
            let node = nodes.get(&Key::cluster(&pod.spec.node_name));
            if node.is_some_and(|n| tainted(&n)) {
                pods.add(pod.key_of());
            }
        }
    });
    let (all, tainted) = (context.informers.pods.clone(), queue.clone());
    context.informers.nodes.on_change(move |change| {
        let effects = |node: &Node| -> Vec<Taint> {
            node.spec.taints.iter().filter(|t| t.effect == "NoExecute").cloned().collect()
        };
        let changed = match change {
            Change::Added(node) => !effects(node).is_empty(),
            Change::Updated { old, new } => effects(old) != effects(new),
            Change::Deleted(_) => false,
        };
        if changed {
            for pod in all.by_index(NODE, &change.object().metadata.name) {
                tainted.add(pod.key_of());
            }
        }
    });
    let reconcile = move |key| {
        let this = this.clone();
        async move { this.sync(key).await }
    };
    context.work("taint-eviction", queue, context.config.workers, reconcile).await;
}

impl Pod {
    fn key_of(&self) -> Key {
        self.metadata.key()
    }
}

impl Controller {
    async fn sync(&self, key: Key) -> Result<(), Error> {
        let informers = &self.context.informers;
        let Some(pod) = informers.pods.get(&key) else { return Ok(()) };
        let node = informers.nodes.get(&Key::cluster(&pod.spec.node_name));
        let taints = node.map(|n| n.spec.taints.clone()).unwrap_or_default();
        let uid = &pod.metadata.uid;
        let stay = match stay(&taints, &pod.spec.tolerations) {
            _ if pod.metadata.is_deleting() => Stay::Forever,
            stay => stay,
        };
        let Stay::For(time) = stay else {
            if self.doomed.lock().remove(uid).is_some() && !pod.metadata.is_deleting() {
                let message = format!("Cancelling deletion of Pod {key}");
                self.events.event(&object_ref(&*pod), EventType::Normal, "TaintManagerEviction", message);
            }
            return Ok(());
        };
        let since = *self.doomed.lock().entry(uid.clone()).or_insert_with(Instant::now);
        let spent = since.elapsed();
        if spent < time {
            self.queue.add_after(key, time - spent);
            return Ok(());
        }
        let message = format!("Marking for deletion Pod {key}");
        self.events.event(&object_ref(&*pod), EventType::Normal, "TaintManagerEviction", message);
        self.evict(&pod).await
    }

    async fn evict(&self, pod: &Pod) -> Result<(), Error> {
        let mut new = pod.status.conditions.clone();
        let message = "Taint manager: deleting due to NoExecute taint";
        let condition = Condition::new("DisruptionTarget", true, "DeletionByTaintManager", message);
        if conditions::set(&mut new, condition) {
            let patch = json!({ "metadata": only_if(&pod.metadata), "status": { "conditions": new } });
            gone_is_fine(self.context.requests.patch::<Pod>(&pod.metadata, Some("status"), &patch).await)?;
        }
        gone_is_fine(self.context.requests.delete::<Pod>(&pod.metadata).await)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn toleration(key: &str, seconds: Option<i64>) -> Toleration {
        Toleration {
            key: key.into(),
            operator: "Exists".into(),
            toleration_seconds: seconds,
            ..Toleration::default()
        }
    }

    #[test]
    fn the_shortest_needed_toleration_counts() {
        let taint = |key: &str| Taint { key: key.into(), effect: "NoExecute".into(), ..Taint::default() };
        let taints = [taint("a"), taint("b")];
        let both = [toleration("a", Some(30)), toleration("b", Some(10)), toleration("c", Some(1))];
        assert_eq!(stay(&taints, &both), Stay::For(Duration::from_secs(10)));
        assert_eq!(stay(&taints, &both[..1]), Stay::For(Duration::ZERO));
        assert_eq!(stay(&taints, &[toleration("", None)]), Stay::Forever);
        assert_eq!(stay(&[], &[]), Stay::Forever);
    }
}
