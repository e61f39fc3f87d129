//! The present state of all nodes, and snapshots of it that cost one pointer a node.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::api::{Labels, NodeSpec, NodeStatus};
use crate::node::NodeInfo;
use crate::pod::{Namespaces, PodInfo};

/// Nodes with their pods, as the informers tell it, plus the pods whose binding is under way.
///
/// An assumed pod counts on its node from the decision on, so that the next decision sees it; it becomes a
/// plain one when the informer shows it bound, and goes when the binding failed ([`Cache::remove_pod`]).
#[derive(Debug, Default)]
pub struct Cache {
    nodes: BTreeMap<String, Entry>,
    /// The node on which each known pod counts.
    placed: HashMap<String, String>,
    namespaces: Arc<HashMap<String, Arc<Labels>>>,
    /// Changed since the last snapshot.
    dirty: bool,
    snapshot: Snapshot,
}

#[derive(Debug, Default)]
struct Entry {
    info: Arc<NodeInfo>,
    /// Whether the node object exists: pods can arrive before their node, and outlive it.
    exists: bool,
}

/// All existing nodes at one moment.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    pub nodes: Arc<Vec<Arc<NodeInfo>>>,
    namespaces: Arc<HashMap<String, Arc<Labels>>>,
}

impl Namespaces for Snapshot {
    fn labels_of(&self, namespace: &str) -> Option<Arc<Labels>> {
        self.namespaces.get(namespace).cloned()
    }
}

impl Snapshot {
    pub fn new(nodes: Vec<Arc<NodeInfo>>) -> Self {
        Self { nodes: Arc::new(nodes), namespaces: Arc::default() }
    }

    /// The same with one node replaced.
    pub fn with_node(&self, index: usize, node: NodeInfo) -> Self {
        let mut nodes = Vec::clone(&self.nodes);
        nodes[index] = Arc::new(node);
        Self { nodes: Arc::new(nodes), namespaces: Arc::clone(&self.namespaces) }
    }
}

impl Cache {
    pub fn set_node(&mut self, name: &str, labels: Labels, spec: &NodeSpec, status: &NodeStatus) {
        self.dirty = true;
        let entry = self.nodes.entry(name.to_owned()).or_default();
        entry.exists = true;
        let info = Arc::make_mut(&mut entry.info);
        name.clone_into(&mut info.name);
        info.update(labels, spec, status);
    }

    pub fn remove_node(&mut self, name: &str) {
        self.dirty = true;
        if let Some(entry) = self.nodes.get_mut(name) {
            entry.exists = false;
        }
        self.drop_if_empty(name);
    }

    /// Counts a pod on its node; one that is known already moves there.
    pub fn set_pod(&mut self, pod: Arc<PodInfo>) {
        self.remove_pod(&pod.id.uid);
        self.dirty = true;
        self.placed.insert(pod.id.uid.clone(), pod.node_name.clone());
        let entry = self.nodes.entry(pod.node_name.clone()).or_default();
        let info = Arc::make_mut(&mut entry.info);
        info.name.clone_from(&pod.node_name);
        info.add_pod(pod);
    }

    /// Counts a pod on a node before the API server knows.
    pub fn assume(&mut self, pod: &PodInfo, node: &str) {
        self.set_pod(Arc::new(PodInfo { node_name: node.to_owned(), ..pod.clone() }));
    }

    pub fn remove_pod(&mut self, uid: &str) {
        let Some(node) = self.placed.remove(uid) else { return };
        self.dirty = true;
        if let Some(entry) = self.nodes.get_mut(&node) {
            Arc::make_mut(&mut entry.info).remove_pod(uid);
        }
        self.drop_if_empty(&node);
    }

    pub fn set_namespace(&mut self, name: &str, labels: Option<Labels>) {
        self.dirty = true;
        let namespaces = Arc::make_mut(&mut self.namespaces);
        match labels {
            Some(labels) => drop(namespaces.insert(name.to_owned(), Arc::new(labels))),
            None => drop(namespaces.remove(name)),
        }
    }

    pub fn snapshot(&mut self) -> Snapshot {
        if self.dirty {
            let nodes = self.nodes.values().filter(|e| e.exists).map(|e| Arc::clone(&e.info)).collect();
            self.snapshot = Snapshot { nodes: Arc::new(nodes), namespaces: Arc::clone(&self.namespaces) };
            self.dirty = false;
        }
        self.snapshot.clone()
    }

    fn drop_if_empty(&mut self, name: &str) {
        if self.nodes.get(name).is_some_and(|e| !e.exists && e.info.pods.is_empty()) {
            self.nodes.remove(name);
        }
    }
}
