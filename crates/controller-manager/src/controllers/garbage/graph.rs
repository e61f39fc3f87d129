//! Who owns whom.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use keelson_client::Meta;

use super::decide::OwnerState;
use super::{FOREGROUND, ORPHAN, Queue};

/// Which object it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub api_version: Arc<str>,
    pub kind: Arc<str>,
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}

/// What is kept of an object.
struct Node {
    identity: Identity,
    owners: Vec<OwnerReference>,
    /// Deletion has begun.
    deleting: bool,
    /// Only those that this controller takes off.
    finalizers: Vec<String>,
}

/// All objects by uid, and the dependents of each uid that is named as an owner, whether it exists or not.
#[derive(Default)]
pub struct Graph {
    nodes: HashMap<String, Node>,
    dependents: HashMap<String, HashSet<String>>,
    /// Names of kinds, each once.
    names: HashSet<Arc<str>>,
    /// Told the namespaces in which the number of objects changes.
    on_count: Option<OnCount>,
}

/// Takes a namespace and whether it has fewer objects now, or more.
type OnCount = Box<dyn Fn(&str, bool) + Send>;

impl Graph {
    fn intern(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.names.get(name) {
            return known.clone();
        }
        let name: Arc<str> = name.into();
        self.names.insert(name.clone());
        name
    }

    /// An object is there, or has changed. Queues what has to be looked at for that.
    pub fn apply(&mut self, api_version: &str, kind: &str, meta: &Meta, queue: &Queue) {
        let identity = Identity {
            api_version: self.intern(api_version),
            kind: self.intern(kind),
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone(),
            uid: meta.uid.clone(),
        };
        let old = self.nodes.remove(&meta.uid);
        if let (None, Some(on_count)) = (&old, &self.on_count) {
            on_count(&identity.namespace, false);
        }
        let old_owners = old.map(|n| n.owners).unwrap_or_default();
        if old_owners != meta.owner_references {
            self.unlink(&meta.uid, &old_owners);
            for owner in &meta.owner_references {
                self.dependents.entry(owner.uid.clone()).or_default().insert(meta.uid.clone());
            }
            // An owner that waits for this one may go on.
            self.wake_waiting(&old_owners, queue);
        }
        let ours = |f: &&String| *f == FOREGROUND || *f == ORPHAN;
        let node = Node {
            identity,
            owners: meta.owner_references.clone(),
            deleting: meta.is_deleting(),
            finalizers: meta.finalizers.iter().filter(ours).cloned().collect(),
        };
        let waits = node.deleting && !node.finalizers.is_empty();
        let look = waits || (!node.deleting && !node.owners.is_empty() && old_owners != node.owners);
        self.nodes.insert(meta.uid.clone(), node);
        if look {
            queue.add(meta.uid.clone());
        }
    }

    /// An object is gone.
    pub fn remove(&mut self, uid: &str, queue: &Queue) {
        let Some(node) = self.nodes.remove(uid) else { return };
        if let Some(on_count) = &self.on_count {
            on_count(&node.identity.namespace, true);
        }
        self.unlink(uid, &node.owners);
        for dependent in self.dependents(uid) {
            queue.add(dependent);
        }
        self.wake_waiting(&node.owners, queue);
    }

    fn unlink(&mut self, uid: &str, owners: &[OwnerReference]) {
        for owner in owners {
            if let Some(dependents) = self.dependents.get_mut(&owner.uid) {
                dependents.remove(uid);
                if dependents.is_empty() {
                    self.dependents.remove(&owner.uid);
                }
            }
        }
    }

    fn wake_waiting(&self, owners: &[OwnerReference], queue: &Queue) {
        for owner in owners {
            if self.nodes.get(&owner.uid).is_some_and(|n| n.deleting && !n.finalizers.is_empty()) {
                queue.add(owner.uid.clone());
            }
        }
    }

    /// An object, with as much of its metadata as is kept.
    pub fn object(&self, uid: &str) -> Option<(Identity, Meta)> {
        let node = self.nodes.get(uid)?;
        let deletion = node
            .deleting
            .then_some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::UNIX_EPOCH));
        let meta = Meta {
            name: node.identity.name.clone(),
            namespace: Some(node.identity.namespace.clone()),
            uid: uid.to_owned(),
            owner_references: node.owners.clone(),
            finalizers: node.finalizers.clone(),
            deletion_timestamp: deletion,
            ..Meta::default()
        };
        Some((node.identity.clone(), meta))
    }

    /// The uids of the objects that name `uid` as an owner.
    pub fn dependents(&self, uid: &str) -> Vec<String> {
        self.dependents.get(uid).into_iter().flatten().cloned().collect()
    }

    /// The state of an owner, if the graph has it and it is what the reference says: of that kind and name, and in the
    /// dependent's namespace or in none.
    pub fn owner(&self, dependent: &Identity, owner: &OwnerReference) -> Option<OwnerState> {
        let node = self.nodes.get(&owner.uid)?;
        let identity = &node.identity;
        let group = |version: &str| version.rsplit_once('/').map_or("", |(g, _)| g).to_owned();
        let same = *identity.kind == *owner.kind
            && identity.name == owner.name
            && group(&identity.api_version) == group(&owner.api_version)
            && (identity.namespace.is_empty() || identity.namespace == dependent.namespace);
        same.then(|| match node.deleting && node.finalizers.iter().any(|f| f == FOREGROUND) {
            true => OwnerState::Waiting,
            false => OwnerState::Solid,
        })
    }

    /// Sets who is told of namespaces in which an object appears or goes.
    pub fn on_count(&mut self, told: OnCount) {
        self.on_count = Some(told);
    }

    /// How many objects of each kind (API version and kind) a namespace has.
    pub fn count(&self, namespace: &str) -> HashMap<(String, String), usize> {
        let mut counts = HashMap::new();
        for node in self.nodes.values().filter(|n| n.identity.namespace == namespace) {
            let kind = (node.identity.api_version.to_string(), node.identity.kind.to_string());
            *counts.entry(kind).or_insert(0) += 1;
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(uid: &str, owners: &[&str]) -> Meta {
        let owner = |uid: &&str| OwnerReference {
            api_version: "apps/v1".into(),
            kind: "ReplicaSet".into(),
            name: format!("n-{uid}"),
            uid: (*uid).to_owned(),
            ..OwnerReference::default()
        };
        Meta {
            name: format!("n-{uid}"),
            namespace: Some("d".into()),
            uid: uid.into(),
            owner_references: owners.iter().map(owner).collect(),
            ..Meta::default()
        }
    }

    #[tokio::test]
    async fn dependents_are_looked_at_when_their_owner_goes() {
        let (mut graph, queue) = (Graph::default(), Queue::new());
        graph.apply("apps/v1", "ReplicaSet", &meta("rs", &[]), &queue);
        assert!(queue.is_empty());
        graph.apply("v1", "Pod", &meta("pod", &["rs"]), &queue);
        assert_eq!(queue.get().await, "pod");
        queue.done(&"pod".to_owned());
        let (pod, object) = graph.object("pod").unwrap();
        assert_eq!(graph.owner(&pod, &object.owner_references[0]), Some(OwnerState::Solid));
        let elsewhere = Identity { namespace: "other".into(), ..pod };
        assert_eq!(graph.owner(&elsewhere, &object.owner_references[0]), None);
        // A change of something else wakes nobody.
        graph.apply("v1", "Pod", &meta("pod", &["rs"]), &queue);
        assert!(queue.is_empty());
        graph.remove("rs", &queue);
        assert_eq!(queue.get().await, "pod");
        graph.remove("pod", &queue);
        assert_eq!((graph.nodes.len(), graph.dependents.len()), (0, 0));
    }

    #[tokio::test]
    async fn an_owner_that_waits_is_woken_by_its_dependents() {
        let (mut graph, queue) = (Graph::default(), Queue::new());
        graph.apply("v1", "Pod", &meta("pod", &["rs"]), &queue);
        let mut owner = meta("rs", &[]);
        owner.finalizers = vec![FOREGROUND.into()];
        owner.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::UNIX_EPOCH));
        graph.apply("apps/v1", "ReplicaSet", &owner, &queue);
        assert_eq!((queue.get().await, queue.get().await), ("pod".to_owned(), "rs".to_owned()));
        queue.done(&"rs".to_owned());
        graph.remove("pod", &queue);
        assert_eq!(queue.get().await, "rs");
    }
}
