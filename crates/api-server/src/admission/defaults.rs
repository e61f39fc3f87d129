//! The small plug-ins: TaintNodesByCondition, DefaultTolerationSeconds, DefaultStorageClass,
//! StorageObjectInUseProtection, PersistentVolumeClaimResize and DefaultIngressClass.

use std::sync::Arc;

use keelson_api_types::{Gvr, Quantity, StatusError, meta};
use serde_json::{Value, json};

use super::{has_annotation, items, push, text};
use crate::types::{AdmissionRequest, Objects, Operation};

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
/// How long pods stay on a node that went away, in seconds.
const TOLERATION_SECONDS: i64 = 300;

/// A new node takes no pods before a controller has seen it ready.
pub fn taint_new_node(r: &mut AdmissionRequest<'_>) {
    if !r.is_create("", "nodes") {
        return;
    }
    let Some(node) = r.object.as_deref_mut() else { return };
    let taint = json!({"key": NOT_READY, "effect": "NoSchedule"});
    let present = items(&node["spec"]["taints"])
        .iter()
        .any(|t| t["key"] == taint["key"] && t["effect"] == taint["effect"]);
    if !present {
        if !node["spec"].is_object() {
            node["spec"] = json!({});
        }
        push(&mut node["spec"], "taints", taint);
    }
}

pub fn tolerations(r: &mut AdmissionRequest<'_>) {
    if !r.is("", "pods", "") || !matches!(r.op, Operation::Create | Operation::Update) {
        return;
    }
    let Some(pod) = r.object.as_deref_mut() else { return };
    for key in [NOT_READY, UNREACHABLE] {
        let tolerated = items(&pod["spec"]["tolerations"]).iter().any(|t| {
            let (own, effect) = (text(t, "/key"), text(t, "/effect"));
            (own.is_empty() || own == key) && (effect.is_empty() || effect == "NoExecute")
        });
        if !tolerated {
            let toleration = json!({"key": key, "operator": "Exists", "effect": "NoExecute",
                "tolerationSeconds": TOLERATION_SECONDS});
            push(&mut pod["spec"], "tolerations", toleration);
        }
    }
}

/// The newest object that an annotation marks as the default.
fn default_class(objects: &dyn Objects, gvr: &Gvr, marks: &[&str]) -> Option<String> {
    let marked = |o: &&Arc<Value>| marks.iter().any(|m| meta::annotation(o, m) == Some("true"));
    let all = objects.list(gvr, "");
    let newest = all.iter().filter(marked).min_by(|a, b| {
        let created = |o: &Value| meta::parse_time(meta::string(o, "creationTimestamp"));
        created(b).cmp(&created(a)).then_with(|| meta::name(a).cmp(meta::name(b)))
    })?;
    Some(meta::name(newest).to_owned())
}

pub fn storage_class(objects: &dyn Objects, r: &mut AdmissionRequest<'_>) {
    if !r.is_create("", "persistentvolumeclaims") {
        return;
    }
    let Some(claim) = r.object.as_deref_mut() else { return };
    let asked = has_annotation(claim, "volume.beta.kubernetes.io/storage-class")
        || claim.pointer("/spec/storageClassName").is_some_and(Value::is_string);
    if asked || !claim["spec"].is_object() {
        return;
    }
    let marks =
        ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
    if let Some(name) = default_class(objects, &Gvr::new("storage.k8s.io", "v1", "storageclasses"), &marks) {
        claim["spec"]["storageClassName"] = name.into();
    }
}

pub fn ingress_class(objects: &dyn Objects, r: &mut AdmissionRequest<'_>) {
    if !r.is_create("networking.k8s.io", "ingresses") {
        return;
    }
    let Some(ingress) = r.object.as_deref_mut() else { return };
    let asked = has_annotation(ingress, "kubernetes.io/ingress.class")
        || ingress.pointer("/spec/ingressClassName").is_some_and(Value::is_string);
    if asked || !ingress["spec"].is_object() {
        return;
    }
    let gvr = Gvr::new("networking.k8s.io", "v1", "ingressclasses");
    if let Some(name) = default_class(objects, &gvr, &["ingressclass.kubernetes.io/is-default-class"]) {
        ingress["spec"]["ingressClassName"] = name.into();
    }
}

/// Volumes, claims and attribute classes go only when nothing uses them.
pub fn protection_finalizers(r: &mut AdmissionRequest<'_>) {
    if r.op != Operation::Create || !r.subresource.is_empty() {
        return;
    }
    let finalizer = match (r.gvr.group.as_str(), r.gvr.resource.as_str()) {
        ("", "persistentvolumes") => "kubernetes.io/pv-protection",
        ("", "persistentvolumeclaims") => "kubernetes.io/pvc-protection",
        ("storage.k8s.io", "volumeattributesclasses") => "kubernetes.io/vac-protection",
        _ => return,
    };
    let Some(object) = r.object.as_deref_mut() else { return };
    if !items(&object["metadata"]["finalizers"]).iter().any(|f| f == finalizer) {
        push(&mut object["metadata"], "finalizers", finalizer.into());
    }
}

/// A bound claim may grow if its class says so.
pub fn claim_resize(objects: &dyn Objects, r: &AdmissionRequest<'_>) -> Result<(), StatusError> {
    if r.op != Operation::Update || !r.is("", "persistentvolumeclaims", "") {
        return Ok(());
    }
    let (Some(claim), Some(old)) = (r.object.as_deref(), r.old) else { return Ok(()) };
    let size = |c: &Value| Quantity::parse(text(c, "/spec/resources/requests/storage")).ok();
    let (Some(new_size), Some(old_size)) = (size(claim), size(old)) else { return Ok(()) };
    if new_size.nanos() <= old_size.nanos() {
        return Ok(());
    }
    if text(old, "/status/phase") != "Bound" {
        return Err(r.forbidden("Only bound persistent volume claims can be expanded"));
    }
    let class = |c: &Value| {
        let beta = meta::annotation(c, "volume.beta.kubernetes.io/storage-class");
        beta.unwrap_or(text(c, "/spec/storageClassName")).to_owned()
    };
    let name = class(claim);
    let expandable = !name.is_empty()
        && name == class(old)
        && objects
            .get(&Gvr::new("storage.k8s.io", "v1", "storageclasses"), "", &name)
            .is_some_and(|c| c["allowVolumeExpansion"] == true);
    if expandable {
        return Ok(());
    }
    Err(r.forbidden(
        "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize",
    ))
}
