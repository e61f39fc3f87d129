//! StorageObjectInUseProtection: volumes, claims and attribute classes go only when nothing uses them.

use super::{Verdict, items, push};
use crate::types::{AdmissionRequest, Operation};

pub fn admit(r: &mut AdmissionRequest<'_>) -> Verdict {
    if r.op != Operation::Create || !r.subresource.is_empty() {
        return Ok(());
    }
    let finalizer = match (r.gvr.group.as_str(), r.gvr.resource.as_str()) {
        ("", "persistentvolumes") => "kubernetes.io/pv-protection",
        ("", "persistentvolumeclaims") => "kubernetes.io/pvc-protection",
        ("storage.k8s.io", "volumeattributesclasses") => "kubernetes.io/vac-protection",
        _ => return Ok(()),
    };
    let Some(object) = r.object.as_deref_mut() else { return Ok(()) };
    if !items(&object["metadata"]["finalizers"]).iter().any(|f| f == finalizer) {
        push(&mut object["metadata"], "finalizers", finalizer.into());
    }
    Ok(())
}
