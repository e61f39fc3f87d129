//! NodeRestriction: a node changes itself and the pods bound to it, and cannot use either to reach more.

use std::collections::BTreeSet;

use keelson_api_types::{StatusError, meta};
use serde_json::{Map, Value};

use super::{core, has_annotation, items, text};
use crate::authz::node::graph::references;
use crate::authz::node::node_name;
use crate::types::{AdmissionRequest, Attributes, Authorizer, Objects, Operation};

const MIRROR: &str = "kubernetes.io/config.mirror";

/// Labels of the `kubernetes.io` and `k8s.io` domains that a node may set on itself.
const NODE_LABELS: [&str; 12] = [
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "node.kubernetes.io/instance-type",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/windows-build",
];
const NODE_LABEL_DOMAINS: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];
const RESTRICTED_DOMAIN: &str = "node-restriction.kubernetes.io";

pub async fn check(
    objects: &dyn Objects,
    authorizer: &dyn Authorizer,
    r: &AdmissionRequest<'_>,
) -> Result<(), StatusError> {
    let Some(node) = node_name(r.user) else { return Ok(()) };
    if node.is_empty() {
        return Err(r.forbidden(format!("could not determine node from user {:?}", r.user.name)));
    }
    let verdict = match (r.gvr.group.as_str(), r.gvr.resource.as_str(), r.subresource) {
        ("", "pods", "") => return pod(objects, node, r),
        ("", "pods", "status") => pod_status(node, r),
        ("", "pods", "eviction") => return pod_eviction(objects, node, r),
        ("", "pods", other) => {
            Err(format!("unexpected pod subresource {other:?}, only 'status' and 'eviction' are allowed"))
        }
        ("", "nodes", _) => own_node(node, r),
        ("", "persistentvolumeclaims", "status") => claim_status(node, r),
        ("", "persistentvolumeclaims", _) => Err("may only update PVC status".to_owned()),
        ("", "serviceaccounts", "token") if r.op == Operation::Create => {
            return token(objects, authorizer, node, r).await;
        }
        ("coordination.k8s.io", "leases", _) => lease(node, r),
        ("storage.k8s.io", "csinodes", _) => csi_node(node, r),
        ("resource.k8s.io", "resourceslices", _) => resource_slice(node, r),
        ("certificates.k8s.io", "certificatesigningrequests", "") if r.op == Operation::Create => {
            signing_request(node, r)
        }
        _ => Ok(()),
    };
    verdict.map_err(|why| r.forbidden(why))
}

type Verdict = Result<(), String>;

fn pod(objects: &dyn Objects, node: &str, r: &AdmissionRequest<'_>) -> Result<(), StatusError> {
    match r.op {
        Operation::Create => mirror_pod(objects, node, r).map_err(|why| r.forbidden(why)),
        Operation::Delete => {
            let stored = r
                .old
                .cloned()
                .or_else(|| objects.get(&core("pods"), r.namespace, r.name).map(|p| Value::clone(&p)));
            let Some(stored) = stored else {
                return Err(StatusError::not_found(&core("pods").group_resource(), r.name));
            };
            if text(&stored, "/spec/nodeName") == node {
                return Ok(());
            }
            Err(r.forbidden(format!("node {node:?} can only delete pods with spec.nodeName set to itself")))
        }
        op => Err(r.forbidden(format!(
            "unexpected operation {:?}, node {node:?} can only create and delete mirror pods",
            op.as_str()
        ))),
    }
}

fn mirror_pod(objects: &dyn Objects, node: &str, r: &AdmissionRequest<'_>) -> Verdict {
    let Some(pod) = r.object.as_deref() else { return Ok(()) };
    if !has_annotation(pod, MIRROR) {
        return Err(format!(
            "pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods"
        ));
    }
    if text(pod, "/spec/nodeName") != node {
        return Err(format!("node {node:?} can only create pods with spec.nodeName set to itself"));
    }
    let owner = match items(&pod["metadata"]["ownerReferences"]) {
        [owner] => owner,
        [] => {
            return Err(format!("node {node:?} can only create pods with an owner reference set to itself"));
        }
        _ => {
            return Err(format!(
                "node {node:?} can only create pods with a single owner reference set to itself"
            ));
        }
    };
    if owner["apiVersion"] != "v1" || owner["kind"] != "Node" || owner["name"] != node {
        return Err(format!("node {node:?} can only create pods with an owner reference set to itself"));
    }
    if owner["controller"] != true {
        return Err(format!(
            "node {node:?} can only create pods with a controller owner reference set to itself"
        ));
    }
    if owner["blockOwnerDeletion"] == true {
        return Err(format!("node {node:?} must not set blockOwnerDeletion on an owner reference"));
    }
    let stored = objects.get(&core("nodes"), "", node).ok_or(format!("nodes {node:?} not found"))?;
    let (have, want) = (text(owner, "/uid"), meta::uid(&stored));
    if have != want {
        return Err(format!("node {node} UID mismatch: expected {have} got {want}"));
    }
    if let Some((target, _)) = references(pod).into_iter().next() {
        return Err(format!("node {node:?} can not create pods that reference {target:?}").to_lowercase());
    }
    Ok(())
}

fn pod_status(node: &str, r: &AdmissionRequest<'_>) -> Verdict {
    let (Operation::Update, Some(new), Some(old)) = (r.op, r.object.as_deref(), r.old) else {
        return Err(format!("unexpected operation {:?}", r.op.as_str()));
    };
    if text(old, "/spec/nodeName") != node {
        return Err(format!(
            "node {node:?} can only update pod status for pods with spec.nodeName set to itself"
        ));
    }
    if labels(old) != labels(new) {
        return Err(format!("node {node:?} cannot update labels through pod status"));
    }
    if old["status"]["resourceClaimStatuses"] != new["status"]["resourceClaimStatuses"] {
        return Err(format!("node {node:?} cannot update resource claim statues"));
    }
    if old["status"]["extendedResourceClaimStatus"] != new["status"]["extendedResourceClaimStatus"] {
        return Err(format!("node {node:?} cannot update extended resource claim status"));
    }
    Ok(())
}

fn pod_eviction(objects: &dyn Objects, node: &str, r: &AdmissionRequest<'_>) -> Result<(), StatusError> {
    let named = r.object.as_deref().map(meta::name).unwrap_or_default();
    let name = if r.name.is_empty() { named } else { r.name };
    let Some(pod) = objects.get(&core("pods"), r.namespace, name) else {
        return Err(StatusError::not_found(&core("pods").group_resource(), name));
    };
    if text(&pod, "/spec/nodeName") == node {
        return Ok(());
    }
    Err(r.forbidden(format!("node {node} can only evict pods with spec.nodeName set to itself")))
}

fn own_node(node: &str, r: &AdmissionRequest<'_>) -> Verdict {
    let named = r.object.as_deref().map(meta::name).unwrap_or_default();
    let name = if r.name.is_empty() { named } else { r.name };
    if name != node {
        return Err(format!("node {node:?} is not allowed to modify node {name:?}"));
    }
    let Some(new) = r.object.as_deref() else { return Ok(()) };
    match (r.op, r.old) {
        (Operation::Create, _) => {
            let forbidden = forbidden_labels(&labels(new), &Map::new());
            if forbidden.is_empty() {
                return Ok(());
            }
            Err(format!("node {node:?} is not allowed to set the following labels: {}", forbidden.join(", ")))
        }
        (Operation::Update, Some(old)) => {
            if items(&new["spec"]["taints"]) != items(&old["spec"]["taints"]) {
                return Err(format!("node {node:?} is not allowed to modify taints"));
            }
            if items(&new["metadata"]["ownerReferences"]) != items(&old["metadata"]["ownerReferences"]) {
                return Err(format!("node {node:?} is not allowed to modify ownerReferences"));
            }
            let forbidden = forbidden_labels(&labels(new), &labels(old));
            if forbidden.is_empty() {
                return Ok(());
            }
            Err(format!("is not allowed to modify labels: {}", forbidden.join(", ")))
        }
        _ => Ok(()),
    }
}

fn labels(object: &Value) -> Map<String, Value> {
    meta::labels(object).cloned().unwrap_or_default()
}

/// Changed labels that would let a node attract what was not meant for it.
fn forbidden_labels(new: &Map<String, Value>, old: &Map<String, Value>) -> Vec<String> {
    let keys: BTreeSet<&String> = new.keys().chain(old.keys()).collect();
    let changed = keys.into_iter().filter(|k| new.get(*k) != old.get(*k));
    changed.filter(|k| is_forbidden_label(k)).cloned().collect()
}

fn is_forbidden_label(key: &str) -> bool {
    let Some((domain, _)) = key.split_once('/') else { return false };
    let within = |parent: &str| {
        domain == parent || domain.strip_suffix(parent).is_some_and(|rest| rest.ends_with('.'))
    };
    let kubernetes = within("kubernetes.io") || within("k8s.io");
    let own = NODE_LABELS.contains(&key) || NODE_LABEL_DOMAINS.iter().any(|d| within(d));
    within(RESTRICTED_DOMAIN) || (kubernetes && !own)
}

fn claim_status(node: &str, r: &AdmissionRequest<'_>) -> Verdict {
    let (Operation::Update, Some(new), Some(old)) = (r.op, r.object.as_deref(), r.old) else {
        return Err(format!("unexpected operation {:?}", r.op.as_str()));
    };
    let strip = |claim: &Value| {
        let mut claim = claim.clone();
        if let Some(meta) = claim["metadata"].as_object_mut() {
            meta.remove("resourceVersion");
            meta.remove("managedFields");
        }
        if let Some(status) = claim["status"].as_object_mut() {
            for key in ["capacity", "conditions", "allocatedResourceStatuses", "allocatedResources"] {
                status.remove(key);
            }
        }
        claim
    };
    if strip(new) == strip(old) {
        return Ok(());
    }
    Err(format!(
        "node {node:?} is not allowed to update fields other than status.quantity and status.conditions"
    ))
}

/// A node asks for tokens of the pods that run on it, for the audiences that they name.
async fn token(
    objects: &dyn Objects,
    authorizer: &dyn Authorizer,
    node: &str,
    r: &AdmissionRequest<'_>,
) -> Result<(), StatusError> {
    let Some(request) = r.object.as_deref() else { return Ok(()) };
    let reference = &request["spec"]["boundObjectRef"];
    let name = text(reference, "/name");
    if reference["apiVersion"] != "v1" || reference["kind"] != "Pod" || name.is_empty() {
        return Err(r.forbidden("node requested token not bound to a pod"));
    }
    let uid = text(reference, "/uid");
    if uid.is_empty() {
        return Err(r.forbidden("node requested token with a pod binding without a uid"));
    }
    let Some(pod) = objects.get(&core("pods"), r.namespace, name) else {
        return Err(StatusError::not_found(&core("pods").group_resource(), name));
    };
    if meta::uid(&pod) != uid {
        return Err(r.forbidden(format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
        )));
    }
    if text(&pod, "/spec/nodeName") != node {
        return Err(r.forbidden("node requested token bound to a pod scheduled on a different node"));
    }
    audience(objects, authorizer, r, request, &pod).await.map_err(|why| r.forbidden(why))
}

async fn audience(
    objects: &dyn Objects,
    authorizer: &dyn Authorizer,
    r: &AdmissionRequest<'_>,
    request: &Value,
    pod: &Value,
) -> Verdict {
    let wanted = match items(&request["spec"]["audiences"]) {
        [] => "",
        [one] => one.as_str().unwrap_or_default(),
        _ => return Err("node may only request 0 or 1 audiences".to_owned()),
    };
    if items(&pod["spec"]["volumes"]).iter().any(|v| volume_names(objects, r.namespace, pod, v, wanted)) {
        return Ok(());
    }
    let question = Attributes {
        namespace: r.namespace,
        name: r.name,
        ..Attributes::resource(r.user, "request-serviceaccounts-token-audience", "", "v1", wanted)
    };
    if authorizer.decide(&question).await.is_allowed() {
        return Ok(());
    }
    Err(format!(
        "audience {wanted:?} not found in pod spec volume, {} is not authorized to request tokens for this audience",
        r.user.name
    ))
}

/// Whether a volume, or the CSI driver behind it, wants a token for the audience.
fn volume_names(objects: &dyn Objects, namespace: &str, pod: &Value, volume: &Value, wanted: &str) -> bool {
    let projected = items(&volume["projected"]["sources"]).iter().any(|source| {
        let token = &source["serviceAccountToken"];
        token.is_object() && text(token, "/audience") == wanted
    });
    if projected {
        return true;
    }
    let claim = if volume["ephemeral"].is_object() {
        format!("{}-{}", meta::name(pod), text(volume, "/name"))
    } else {
        text(volume, "/persistentVolumeClaim/claimName").to_owned()
    };
    let driver = if claim.is_empty() {
        text(volume, "/csi/driver").to_owned()
    } else {
        let claim = objects.get(&core("persistentvolumeclaims"), namespace, &claim);
        let volume =
            claim.and_then(|c| objects.get(&core("persistentvolumes"), "", text(&c, "/spec/volumeName")));
        volume.map(|v| text(&v, "/spec/csi/driver").to_owned()).unwrap_or_default()
    };
    let drivers = keelson_api_types::Gvr::new("storage.k8s.io", "v1", "csidrivers");
    !driver.is_empty()
        && objects.get(&drivers, "", &driver).is_some_and(|d| {
            items(&d["spec"]["tokenRequests"]).iter().any(|t| text(t, "/audience") == wanted)
        })
}

fn lease(node: &str, r: &AdmissionRequest<'_>) -> Verdict {
    if r.namespace != "kube-node-lease" {
        return Err("can only access leases in the \"kube-node-lease\" system namespace".to_owned());
    }
    let named = r.object.as_deref().map(meta::name).unwrap_or_default();
    let name = if r.op == Operation::Create { named } else { r.name };
    if name == node {
        return Ok(());
    }
    Err("can only access node lease with the same name as the requesting node".to_owned())
}

fn csi_node(node: &str, r: &AdmissionRequest<'_>) -> Verdict {
    let named = r.object.as_deref().map(meta::name).unwrap_or_default();
    let name = if r.op == Operation::Create { named } else { r.name };
    if name == node {
        return Ok(());
    }
    Err("can only access CSINode with the same name as the requesting node".to_owned())
}

fn resource_slice(node: &str, r: &AdmissionRequest<'_>) -> Verdict {
    let (object, verb) = match r.op {
        Operation::Delete => (r.old, "delete"),
        Operation::Create => (r.object.as_deref(), "create"),
        _ => return Ok(()),
    };
    if object.is_none_or(|o| text(o, "/spec/nodeName") == node) {
        return Ok(());
    }
    Err(format!("can only {verb} ResourceSlice with the same NodeName as the requesting node"))
}

/// A node asks for certificates in its own name only.
fn signing_request(node: &str, r: &AdmissionRequest<'_>) -> Verdict {
    let Some(csr) = r.object.as_deref() else { return Ok(()) };
    let signer = text(csr, "/spec/signerName");
    if !matches!(signer, "kubernetes.io/kubelet-serving" | "kubernetes.io/kube-apiserver-client-kubelet") {
        return Ok(());
    }
    let subject = super::certificates::subject(text(csr, "/spec/request"));
    let wanted = format!("system:node:{node}");
    match subject {
        Some((name, _)) if name == wanted => Ok(()),
        Some(_) => Err(format!("can only create a node CSR with CN={wanted}")),
        None => Err("unable to parse csr: PEM block type must be CERTIFICATE REQUEST".to_owned()),
    }
}
