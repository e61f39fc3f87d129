//! DefaultIngressClass: an Ingress that names no class gets the one that is marked as the default.

use keelson_api_types::{Gvr, meta};
use serde_json::Value;

use super::{Verdict, default_class, has_annotation};
use crate::types::{AdmissionRequest, Objects};

pub fn admit(objects: &dyn Objects, r: &mut AdmissionRequest<'_>) -> Verdict {
    if !r.is_create("networking.k8s.io", "ingresses") {
        return Ok(());
    }
    let Some(ingress) = r.object.as_deref_mut() else { return Ok(()) };
    let asked = has_annotation(ingress, "kubernetes.io/ingress.class")
        || meta::at(ingress, "/spec/ingressClassName").is_some_and(Value::is_string);
    if asked || !ingress["spec"].is_object() {
        return Ok(());
    }
    let gvr = Gvr::new("networking.k8s.io", "v1", "ingressclasses");
    if let Some(name) = default_class(objects, &gvr, &["ingressclass.kubernetes.io/is-default-class"]) {
        ingress["spec"]["ingressClassName"] = name.into();
    }
    Ok(())
}
