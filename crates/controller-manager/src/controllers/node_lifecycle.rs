//! Nodes that give no sign of life become unknown, and taints follow from a node's conditions.
//!
//! A sign of life is a change of the node's lease or of its Ready condition's heartbeat, timed by our own clock.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use keelson_client::{EventRecorder, EventType, Key, WorkQueue, object_ref};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::context::{Context, NODE, enqueue};
use crate::kit::{Condition, Error, conditions, error::gone_is_fine, now, only_if};
use crate::views::{Node, Pod, Taint};

/// The namespace of the nodes' leases.
pub const LEASES: &str = "kube-node-lease";

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
/// Conditions that become unknown with the node, and the taint that each brings when it is true.
const PRESSURES: [(&str, &str); 3] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
];
const NETWORK: (&str, &str) = ("NetworkUnavailable", "node.kubernetes.io/network-unavailable");
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// The conditions of a node that fell silent, or `None` if they say so already.
fn silenced(node: &Node) -> Option<Vec<Condition>> {
    let mut new = node.status.conditions.clone();
    let mut changed = false;
    let pressures = PRESSURES.iter().map(|(kind, _)| *kind);
    for kind in std::iter::once("Ready").chain(pressures) {
        let known = conditions::find(&new, kind);
        if known.is_some_and(|c| c.status == "Unknown") {
            continue;
        }
        let (reason, message) = match known {
            Some(_) => ("NodeStatusUnknown", "Kubelet stopped posting node status."),
            None => ("NodeStatusNeverUpdated", "Kubelet never posted node status."),
        };
        let mut condition = Condition::with_status(kind, "Unknown", reason, message);
        if let Some(known) = known {
            condition.more = known.more.clone();
        }
        changed |= conditions::set(&mut new, condition);
    }
    changed.then_some(new)
}

/// The taints that a node should have: those of others as they are, ours by its conditions.
fn taints(node: &Node, conditions: &[Condition], at: Timestamp) -> Vec<Taint> {
    let status = |kind: &str| conditions::find(conditions, kind).map(|c| c.status.as_str());
    let mut wanted: Vec<(&str, &str)> = Vec::new();
    match status("Ready") {
        Some("False") => wanted.extend([(NOT_READY, "NoSchedule"), (NOT_READY, "NoExecute")]),
        Some("Unknown") => wanted.extend([(UNREACHABLE, "NoSchedule"), (UNREACHABLE, "NoExecute")]),
        // Not reported yet: the API server's admission has put the first taint there; it stays.
        None => wanted.push((NOT_READY, "NoSchedule")),
        Some(_) => {}
    }
    let pressures = PRESSURES.iter().chain([&NETWORK]);
    wanted
        .extend(pressures.filter(|(kind, _)| status(kind) == Some("True")).map(|(_, t)| (*t, "NoSchedule")));
    if node.spec.unschedulable {
        wanted.push((UNSCHEDULABLE, "NoSchedule"));
    }
    let ours = |taint: &Taint| {
        let by_condition = PRESSURES.iter().chain([&NETWORK]).any(|(_, key)| *key == taint.key);
        match taint.effect.as_str() {
            "NoSchedule" => {
                by_condition || [NOT_READY, UNREACHABLE, UNSCHEDULABLE].contains(&taint.key.as_str())
            }
            "NoExecute" => [NOT_READY, UNREACHABLE].contains(&taint.key.as_str()),
            _ => false,
        }
    };
    let is_wanted = |t: &Taint| wanted.iter().any(|(key, effect)| *key == t.key && *effect == t.effect);
    let mut new: Vec<Taint> = node.spec.taints.iter().filter(|t| !ours(t) || is_wanted(t)).cloned().collect();
    for (key, effect) in wanted {
        if !new.iter().any(|t| t.key == key && t.effect == effect) {
            new.push(Taint {
                key: key.to_owned(),
                value: String::new(),
                effect: effect.to_owned(),
                time_added: Some(at),
            });
        }
    }
    new
}

/// When a node last gave a sign of life, and what that was.
struct Seen {
    sign: (Option<Timestamp>, Option<Value>),
    at: Instant,
}

struct Controller {
    context: Arc<Context>,
    queue: WorkQueue<Key>,
    events: EventRecorder,
    seen: Mutex<HashMap<String, Seen>>,
    grace: Duration,
}

pub async fn run(context: Arc<Context>) {
    let queue = WorkQueue::new();
    enqueue(&context.informers.nodes, &queue);
    let renewed = queue.clone();
    context.informers.leases.on_change(move |c| renewed.add(Key::cluster(&c.object().metadata.name)));
    let grace = Duration::from_secs(context.config.node_monitor_grace_seconds);
    let events = context.events("node-controller");
    let this = Arc::new(Controller {
        context: context.clone(),
        queue: queue.clone(),
        events,
        seen: Mutex::default(),
        grace,
    });
    let reconcile = move |key| {
        let this = this.clone();
        async move { this.sync(key).await }
    };
    context.work("node-lifecycle", queue, context.config.workers, reconcile).await;
}

impl Controller {
    async fn sync(&self, key: Key) -> Result<(), Error> {
        let Some(node) = self.context.informers.nodes.get(&key) else {
            self.seen.lock().remove(&key.name);
            return Ok(());
        };
        let silence = self.silence(&node);
        let mut conditions = node.status.conditions.clone();
        let mut meta = node.metadata.clone();
        if silence >= self.grace {
            if let Some(new) = silenced(&node) {
                let patch = json!({ "metadata": only_if(&meta), "status": { "conditions": new } });
                meta = self.context.requests.patch::<Node>(&meta, Some("status"), &patch).await?.metadata;
                conditions = new;
                let message = format!("Node {} status is now: NodeNotReady", node.metadata.name);
                self.events.event(&object_ref(&*node), EventType::Normal, "NodeNotReady", message);
            }
        } else {
            self.queue.add_after(key.clone(), self.grace - silence);
        }
        let wanted = taints(&node, &conditions, now());
        if wanted != node.spec.taints {
            let patch = json!({ "metadata": only_if(&meta), "spec": { "taints": wanted } });
            self.context.requests.patch::<Node>(&meta, None, &patch).await?;
        }
        if !conditions::is_true(&conditions, "Ready") && !conditions.is_empty() {
            self.mark_pods(&key.name).await?;
        }
        Ok(())
    }

    /// How long the node has been silent.
    fn silence(&self, node: &Node) -> Duration {
        let name = &node.metadata.name;
        let lease = self.context.informers.leases.get(&Key::new(LEASES, name));
        let ready = conditions::find(&node.status.conditions, "Ready");
        // What we wrote ourselves is no sign of life, so the status is not part of it.
        let sign = (
            lease.and_then(|l| l.spec.renew_time),
            ready.and_then(|c| c.more.get("lastHeartbeatTime").cloned()),
        );
        // Who cannot hear must not take that for silence.
        let deaf = !self.context.informers.leases.connected() || !self.context.informers.nodes.connected();
        let mut seen = self.seen.lock();
        match seen.get_mut(name) {
            Some(known) if known.sign == sign && !deaf => known.at.elapsed(),
            _ => {
                seen.insert(name.clone(), Seen { sign, at: Instant::now() });
                Duration::ZERO
            }
        }
    }

    /// Pods of a node that is not ready are no endpoints of Services.
    async fn mark_pods(&self, node: &str) -> Result<(), Error> {
        for pod in self.context.informers.pods.by_index(NODE, node) {
            let Some(ready) = conditions::find(&pod.status.conditions, "Ready").filter(|c| c.is_true())
            else {
                continue;
            };
            let mut new = pod.status.conditions.clone();
            let condition =
                Condition { status: "False".to_owned(), last_transition_time: Some(now()), ..ready.clone() };
            new.retain(|c| c.r#type != "Ready");
            new.push(condition);
            let patch = json!({ "metadata": only_if(&pod.metadata), "status": { "conditions": new } });
            gone_is_fine(self.context.requests.patch::<Pod>(&pod.metadata, Some("status"), &patch).await)?;
            self.events.event(&object_ref(&*pod), EventType::Warning, "NodeNotReady", "Node is not ready");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(ready: Option<&str>, taints: Value) -> Node {
        let conditions = ready.map_or(json!([]), |s| json!([{"type": "Ready", "status": s}]));
        serde_json::from_value(json!({
            "metadata": {"name": "n"}, "spec": {"taints": taints}, "status": {"conditions": conditions},
        }))
        .unwrap()
    }

    fn check(node: &Node, expected: &[&str]) {
        let taints = taints(node, &node.status.conditions, Timestamp::UNIX_EPOCH);
        let names: Vec<String> = taints.iter().map(|t| format!("{}:{}", t.key, t.effect)).collect();
        assert_eq!(names, expected);
    }

    #[test]
    fn taints_follow_the_ready_condition_and_spare_those_of_others() {
        let foreign =
            json!([{"key": "mine", "effect": "NoExecute"}, {"key": NOT_READY, "effect": "NoSchedule"}]);
        check(&node(Some("True"), foreign.clone()), &["mine:NoExecute"]);
        let not_ready = [
            "mine:NoExecute",
            "node.kubernetes.io/not-ready:NoSchedule",
            "node.kubernetes.io/not-ready:NoExecute",
        ];
        check(&node(Some("False"), foreign), &not_ready);
        let unreachable =
            ["node.kubernetes.io/unreachable:NoSchedule", "node.kubernetes.io/unreachable:NoExecute"];
        check(&node(Some("Unknown"), json!([])), &unreachable);
        check(&node(None, json!([])), &["node.kubernetes.io/not-ready:NoSchedule"]);
    }

    #[test]
    fn a_silent_node_is_unknown_once() {
        let silent = silenced(&node(Some("True"), json!([]))).unwrap();
        assert_eq!(silent.len(), 4);
        assert!(silent.iter().all(|c| c.status == "Unknown"));
        let mut again = node(None, json!([]));
        again.status.conditions = silent;
        assert!(silenced(&again).is_none());
    }
}
