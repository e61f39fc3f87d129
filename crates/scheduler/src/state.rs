//! The cluster as the informers tell it, and the queue, behind one lock.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use keelson_client::{Change, Informer};
use keelson_sched_core::{Cache, PodInfo, Snapshot};
use tokio::sync::Notify;

use crate::config::Config;
use crate::queue::Queue;
use crate::views::{NamespaceView, NodeView, PodView};

pub struct State {
    inner: Mutex<Inner>,
    /// Woken whenever a pod may have become ready.
    pub wake: Notify,
    scheduler_names: Vec<String>,
}

pub struct Inner {
    pub cache: Cache,
    pub queue: Queue,
    /// Pods for which room is being made, and where.
    pub nominated: HashMap<String, (Arc<PodInfo>, String)>,
}

impl State {
    pub fn new(config: &Config, scheduler_names: Vec<String>) -> Self {
        let seconds = Duration::from_secs;
        let queue = Queue::new(seconds(config.backoff_initial_seconds), seconds(config.backoff_max_seconds));
        let inner = Inner { cache: Cache::default(), queue, nominated: HashMap::new() };
        Self { inner: Mutex::new(inner), wake: Notify::new(), scheduler_names }
    }

    pub fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic while it is held has left nothing half-done that the next informer event would not repair.
        self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub fn watch(
        self: &Arc<Self>,
        pods: &Informer<PodView>,
        nodes: &Informer<NodeView>,
        namespaces: &Informer<NamespaceView>,
    ) {
        let state = Arc::clone(self);
        pods.on_change(move |change| match change {
            Change::Added(pod) | Change::Updated { new: pod, .. } => state.pod_changed(pod),
            Change::Deleted(pod) => state.pod_gone(&pod.metadata.uid),
        });
        let state = Arc::clone(self);
        nodes.on_change(move |change| {
            let mut inner = state.lock();
            match change {
                Change::Added(node) => inner.set_node(node),
                // A heartbeat changes nothing that matters here, and must not wake every waiting pod.
                Change::Updated { old, new } if old.same_for_scheduling(new) => return,
                Change::Updated { new, .. } => inner.set_node(new),
                Change::Deleted(node) => inner.cache.remove_node(&node.metadata.name),
            }
            inner.queue.something_changed(Instant::now());
            state.wake.notify_one();
        });
        let state = Arc::clone(self);
        namespaces.on_change(move |change| {
            let mut inner = state.lock();
            match change {
                Change::Added(ns) | Change::Updated { new: ns, .. } => {
                    inner.cache.set_namespace(&ns.metadata.name, Some(ns.metadata.labels.clone()));
                }
                Change::Deleted(ns) => inner.cache.set_namespace(&ns.metadata.name, None),
            }
        });
    }

    fn pod_changed(&self, pod: &PodView) {
        let uid = &pod.metadata.uid;
        if pod.finished {
            return self.pod_gone(uid);
        }
        let mut inner = self.lock();
        if !pod.info.node_name.is_empty() {
            inner.queue.remove(uid);
            inner.nominated.remove(uid);
            inner.cache.set_pod(Arc::clone(&pod.info));
            // Its labels may satisfy somebody's affinity.
            inner.queue.something_changed(Instant::now());
        } else if self.scheduler_names.contains(&pod.scheduler_name) {
            if pod.info.terminating {
                inner.queue.remove(uid);
            } else if pod.info.gates.is_empty() {
                // Room that was being made before a restart is still being made.
                if !pod.nominated_node.is_empty() {
                    let nomination = (Arc::clone(&pod.info), pod.nominated_node.clone());
                    inner.nominated.insert(uid.clone(), nomination);
                }
                inner.queue.set(Arc::clone(&pod.info), &pod.scheduler_name);
            }
        }
        self.wake.notify_one();
    }

    fn pod_gone(&self, uid: &str) {
        let mut inner = self.lock();
        inner.queue.remove(uid);
        inner.nominated.remove(uid);
        inner.cache.remove_pod(uid);
        inner.queue.something_changed(Instant::now());
        self.wake.notify_one();
    }
}

impl Inner {
    fn set_node(&mut self, node: &NodeView) {
        self.cache.set_node(&node.metadata.name, node.metadata.labels.clone(), &node.spec, &node.status);
    }

    /// The cluster as one pod should see it: the room that is being made for others, which matter at least as
    /// much, counts as taken.
    pub fn snapshot_for(&mut self, pod: &PodInfo) -> Snapshot {
        let mut snapshot = self.cache.snapshot();
        for (uid, (other, node)) in &self.nominated {
            if *uid == pod.id.uid || other.priority < pod.priority {
                continue;
            }
            if let Some(index) = snapshot.nodes.iter().position(|n| n.name == *node) {
                let mut changed = keelson_sched_core::NodeInfo::clone(&snapshot.nodes[index]);
                changed.add_pod(Arc::clone(other));
                snapshot = snapshot.with_node(index, changed);
            }
        }
        snapshot
    }
}
