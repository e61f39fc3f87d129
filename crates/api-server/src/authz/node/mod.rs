//! What node agents may do: their own Node, Lease and CSINode, the pods bound to them, and only those
//! secrets, config maps, claims and volumes that these pods refer to.

pub mod graph;

use std::sync::Arc;

use keelson_api_types::{Gvr, meta};
use parking_lot::RwLock;
use serde_json::Value;

use super::rbac::rule::Rule;
use crate::bootstrap::rbac::node_rules;
use crate::types::{Attributes, Change, Decision, Object, Objects, UserInfo};
use graph::{Graph, Owned, Target};

const USER_PREFIX: &str = "system:node:";
const GROUP: &str = "system:nodes";

/// The node that a user is: `system:node:NAME` in the group `system:nodes`. An empty name is a node
/// that cannot be told.
pub fn node_name(user: &UserInfo) -> Option<&str> {
    let name = user.name.strip_prefix(USER_PREFIX)?;
    user.in_group(GROUP).then_some(name)
}

/// How every pod's JSON goes on that has a node.
const ON_NODE: &[u8] = br#""nodeName":""#;

/// The Node authorizer. Cheap to clone; all clones share the graph.
#[derive(Clone)]
pub struct NodeAuthorizer {
    graph: Arc<RwLock<Graph>>,
    rules: Arc<[Rule]>,
}

impl Default for NodeAuthorizer {
    fn default() -> Self {
        Self { graph: Arc::default(), rules: node_rules().into() }
    }
}

#[derive(Clone, Copy)]
enum Feed {
    Pods,
    Volumes,
    /// With the place of the node's name in the object.
    Owned(Owned, &'static str),
}

const FEEDS: [(&str, &str, &str, Feed); 5] = [
    ("", "v1", "pods", Feed::Pods),
    ("", "v1", "persistentvolumes", Feed::Volumes),
    ("storage.k8s.io", "v1", "volumeattachments", Feed::Owned(Owned::VolumeAttachment, "/spec/nodeName")),
    ("resource.k8s.io", "v1", "resourceslices", Feed::Owned(Owned::ResourceSlice, "/spec/nodeName")),
    (
        "certificates.k8s.io",
        "v1beta1",
        "podcertificaterequests",
        Feed::Owned(Owned::PodCertificateRequest, "/spec/nodeName"),
    ),
];

impl NodeAuthorizer {
    /// An authorizer that follows pods, volumes and attachments; must run inside a tokio runtime.
    pub fn start(objects: &Arc<dyn Objects>) -> Self {
        let authorizer = Self::default();
        for (group, version, resource, feed) in FEEDS {
            let mut changes = objects.subscribe(&Gvr::new(group, version, resource));
            let graph = authorizer.graph.clone();
            tokio::spawn(async move {
                while let Some(change) = changes.recv().await {
                    apply(&graph, feed, &change);
                }
            });
        }
        authorizer
    }

    /// Changes the graph directly, for tests.
    pub fn write<T>(&self, f: impl FnOnce(&mut Graph) -> T) -> T {
        f(&mut self.graph.write())
    }
}

fn apply(graph: &RwLock<Graph>, feed: Feed, change: &Change) {
    match change {
        Change::Snapshot(all) => {
            let mut graph = graph.write();
            match feed {
                Feed::Pods => graph.clear_pods(),
                Feed::Volumes => graph.clear_volumes(),
                Feed::Owned(kind, _) => graph.clear_owned(kind),
            }
            all.iter().for_each(|o| put(&mut graph, feed, o));
        }
        Change::Put(o) => put(&mut graph.write(), feed, o),
        Change::Delete(o) => match feed {
            Feed::Pods => graph.write().remove_pod(&o.namespace, &o.name),
            Feed::Volumes => graph.write().remove_volume(&o.name),
            Feed::Owned(kind, _) => graph.write().put_owned(kind, &o.namespace, &o.name, ""),
        },
    }
}

fn put(graph: &mut Graph, feed: Feed, object: &Object) {
    // Most changes to pods come before they have a node, and nobody may read anything for those.
    if let Feed::Pods = feed
        && !object.json.mentions(ON_NODE)
    {
        return graph.remove_pod(&object.namespace, &object.name);
    }
    let Ok(value) = object.parse::<Value>() else { return };
    match feed {
        Feed::Pods => graph.put_pod(&value),
        Feed::Volumes => graph.put_volume(&value),
        Feed::Owned(kind, pointer) => {
            let node = meta::at(&value, pointer).and_then(Value::as_str).unwrap_or_default();
            graph.put_owned(kind, &object.namespace, &object.name, node);
        }
    }
}

impl NodeAuthorizer {
    pub fn authorize(&self, a: &Attributes<'_>) -> Decision {
        let verdict = match node_name(a.user) {
            None => Err(String::new()),
            Some("") => Err(format!("unknown node for user {:?}", a.user.name)),
            Some(node) => self.decide(node, a),
        };
        match verdict {
            Ok(()) => Decision::Allow(String::new()),
            Err(reason) => Decision::NoOpinion(reason),
        }
    }
}

type Verdict = Result<(), String>;

fn no(reason: &str) -> Verdict {
    Err(reason.to_owned())
}

impl NodeAuthorizer {
    fn decide(&self, node: &str, a: &Attributes<'_>) -> Verdict {
        let by_rules = || {
            if self.rules.iter().any(|r| r.allows(a)) { Ok(()) } else { no("") }
        };
        if !a.is_resource {
            return by_rules();
        }
        match (a.group, a.resource) {
            ("", "secrets") => self.read_namespaced(node, Target::Secret, a),
            ("", "configmaps") => self.read_namespaced(node, Target::ConfigMap, a),
            ("", "persistentvolumeclaims") if a.subresource == "status" => {
                if !matches!(a.verb, "update" | "patch") {
                    return no("can only get/update/patch this type");
                }
                self.related(node, a, |g| g.reaches(node, Target::Claim, a.namespace, a.name))
            }
            ("", "persistentvolumeclaims") => {
                self.get(node, a, |g| g.reaches(node, Target::Claim, a.namespace, a.name))
            }
            ("", "persistentvolumes") => self.get(node, a, |g| g.volume_on(node, a.name)),
            ("resource.k8s.io", "resourceclaims") => {
                self.get(node, a, |g| g.reaches(node, Target::ResourceClaim, a.namespace, a.name))
            }
            ("storage.k8s.io", "volumeattachments") => {
                self.get(node, a, |g| g.owns(node, Owned::VolumeAttachment, "", a.name))
            }
            ("", "serviceaccounts") => self.service_account(node, a),
            ("coordination.k8s.io", "leases") => lease(node, a),
            ("storage.k8s.io", "csinodes") => csi_node(node, a),
            ("resource.k8s.io", "resourceslices") => self.slice(node, a),
            ("", "nodes") => own_node(node, a),
            ("", "pods") => self.pod(node, a),
            ("certificates.k8s.io", "podcertificaterequests") => self.certificate_request(node, a),
            _ => by_rules(),
        }
    }

    /// Allows when the graph ties the named object to the node.
    fn related(&self, node: &str, a: &Attributes<'_>, tied: impl FnOnce(&Graph) -> bool) -> Verdict {
        if a.name.is_empty() {
            return no("No Object name found");
        }
        if tied(&self.graph.read()) {
            return Ok(());
        }
        Err(format!("no relationship found between node '{node}' and this object"))
    }

    fn get(&self, node: &str, a: &Attributes<'_>, tied: impl FnOnce(&Graph) -> bool) -> Verdict {
        if a.verb != "get" {
            return no("can only get individual resources of this type");
        }
        if !a.subresource.is_empty() {
            return no("cannot get subresource");
        }
        self.related(node, a, tied)
    }

    /// Also lists and watches, which carry a name when they select a single object.
    fn read_namespaced(&self, node: &str, target: Target, a: &Attributes<'_>) -> Verdict {
        if !matches!(a.verb, "get" | "list" | "watch") {
            return no("can only read resources of this type");
        }
        if !a.subresource.is_empty() {
            return no("cannot read subresource");
        }
        if a.namespace.is_empty() {
            return no("can only read namespaced object of this type");
        }
        self.related(node, a, |g| g.reaches(node, target, a.namespace, a.name))
    }

    fn service_account(&self, node: &str, a: &Attributes<'_>) -> Verdict {
        if a.verb == "get" && a.subresource.is_empty() {
            return self.read_namespaced(node, Target::ServiceAccount, a);
        }
        if a.verb != "create" || a.name.is_empty() {
            return no("can only create tokens for individual service accounts");
        }
        if a.subresource != "token" {
            return no("can only create token subresource of serviceaccount");
        }
        self.related(node, a, |g| g.reaches(node, Target::ServiceAccount, a.namespace, a.name))
    }

    fn slice(&self, node: &str, a: &Attributes<'_>) -> Verdict {
        if !a.subresource.is_empty() {
            return no("cannot authorize ResourceSlice subresources");
        }
        match a.verb {
            // NodeRestriction compares the node that the new object names.
            "create" => Ok(()),
            "get" | "update" | "patch" | "delete" => {
                self.related(node, a, |g| g.owns(node, Owned::ResourceSlice, "", a.name))
            }
            "watch" | "list" | "deletecollection" => {
                if selects(a, "spec.nodeName", node) {
                    return Ok(());
                }
                no("can only list/watch/deletecollection resourceslices with nodeName field selector")
            }
            _ => no(
                "only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, patch, delete, deletecollection",
            ),
        }
    }

    fn certificate_request(&self, node: &str, a: &Attributes<'_>) -> Verdict {
        if !a.subresource.is_empty() {
            return no("nodes may not access the status subresource of PodCertificateRequests");
        }
        match a.verb {
            "create" => Ok(()),
            "get" => {
                self.related(node, a, |g| g.owns(node, Owned::PodCertificateRequest, a.namespace, a.name))
            }
            "list" | "watch" if selects(a, "spec.nodeName", node) => Ok(()),
            "list" | "watch" => no("can only list/watch podcertificaterequests with nodeName field selector"),
            verb => Err(format!("nodes may not {verb} podcertificaterequests")),
        }
    }

    fn pod(&self, node: &str, a: &Attributes<'_>) -> Verdict {
        match (a.subresource, a.verb) {
            ("", "get") => self.get(node, a, |g| g.pod_on(node, a.namespace, a.name)),
            ("", "list" | "watch") => {
                if selects(a, "spec.nodeName", node) {
                    return Ok(());
                }
                if a.name.is_empty() {
                    return no("can only list/watch pods with spec.nodeName field selector");
                }
                self.related(node, a, |g| g.pod_on(node, a.namespace, a.name))
            }
            // NodeRestriction holds these to mirror pods and to pods that are bound to the node.
            ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => Ok(()),
            _ => no(""),
        }
    }
}

fn own_node(node: &str, a: &Attributes<'_>) -> Verdict {
    match (a.subresource, a.verb) {
        // NodeRestriction holds these to the node's own object.
        ("", "create" | "update" | "patch") | ("status", "update" | "patch") => Ok(()),
        ("", "get" | "list" | "watch") => match a.name {
            name if name == node => Ok(()),
            "" => Err(format!("node '{node}' cannot read all nodes, only its own Node object")),
            name => Err(format!("node '{node}' cannot read '{name}', only its own Node object")),
        },
        _ => no(""),
    }
}

fn lease(node: &str, a: &Attributes<'_>) -> Verdict {
    if !matches!(a.verb, "get" | "create" | "update" | "patch" | "delete") {
        return no("can only get, create, update, patch, or delete a node lease");
    }
    if a.namespace != "kube-node-lease" {
        return no("can only access leases in the \"kube-node-lease\" system namespace");
    }
    if a.verb != "create" && a.name != node {
        return no("can only access node lease with the same name as the requesting node");
    }
    Ok(())
}

fn csi_node(node: &str, a: &Attributes<'_>) -> Verdict {
    if !matches!(a.verb, "get" | "create" | "update" | "patch" | "delete") {
        return no("can only get, create, update, patch, or delete a CSINode");
    }
    if !a.subresource.is_empty() {
        return no("cannot authorize CSINode subresources");
    }
    if a.verb != "create" && a.name != node {
        return no("can only access CSINode with the same name as the requesting node");
    }
    Ok(())
}

/// Whether the field selector requires `field` to be `value`.
fn selects(a: &Attributes<'_>, field: &str, value: &str) -> bool {
    a.field_selector.is_some_and(|selector| {
        selector.split(',').any(|term| {
            term.split_once('=')
                .is_some_and(|(f, v)| f.trim() == field && v.trim_start_matches('=').trim() == value)
        })
    })
}

#[cfg(test)]
mod tests;
