//! PersistentVolumeClaimResize: a bound claim may grow if its class says so.

use keelson_api_types::{Gvr, Quantity, StatusError, meta};
use serde_json::Value;

use super::text;
use crate::types::{AdmissionRequest, Objects, Operation};

pub fn validate(objects: &dyn Objects, r: &AdmissionRequest<'_>) -> Result<(), StatusError> {
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
