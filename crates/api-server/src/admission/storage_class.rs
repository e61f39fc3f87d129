//! DefaultStorageClass: a claim that names no class gets the one that is marked as the default.

use keelson_api_types::{Gvr, meta};
use serde_json::Value;

use super::{Verdict, default_class, has_annotation};
use crate::types::{AdmissionRequest, Objects};

pub fn admit(objects: &dyn Objects, r: &mut AdmissionRequest<'_>) -> Verdict {
    if !r.is_create("", "persistentvolumeclaims") {
        return Ok(());
    }
    let Some(claim) = r.object.as_deref_mut() else { return Ok(()) };
    let asked = has_annotation(claim, "volume.beta.kubernetes.io/storage-class")
        || meta::at(claim, "/spec/storageClassName").is_some_and(Value::is_string);
    if asked || !claim["spec"].is_object() {
        return Ok(());
    }
    let marks =
        ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
    if let Some(name) = default_class(objects, &Gvr::new("storage.k8s.io", "v1", "storageclasses"), &marks) {
        claim["spec"]["storageClassName"] = name.into();
    }
    Ok(())
}
