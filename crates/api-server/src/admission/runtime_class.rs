//! RuntimeClass: a pod's overhead and placement come from its class.

use std::sync::Arc;

use keelson_api_types::{Gvr, Quantity, StatusError};
use serde_json::{Value, json};

use super::{items, lookup, push, text};
use crate::types::{AdmissionRequest, Objects};

async fn class(objects: &dyn Objects, r: &AdmissionRequest<'_>) -> Result<Option<Arc<Value>>, StatusError> {
    let name = r.object.as_deref().map(|p| text(p, "/spec/runtimeClassName")).unwrap_or_default();
    if name.is_empty() {
        return Ok(None);
    }
    match lookup(objects, &Gvr::new("node.k8s.io", "v1", "runtimeclasses"), "", name).await? {
        Some(found) => Ok(Some(found)),
        None => Err(r.forbidden(format!("pod rejected: RuntimeClass {name:?} not found"))),
    }
}

pub async fn admit(objects: &dyn Objects, r: &mut AdmissionRequest<'_>) -> Result<(), StatusError> {
    if !r.is_create("", "pods") {
        return Ok(());
    }
    let Some(class) = class(objects, r).await? else { return Ok(()) };
    if class["overhead"].is_object() {
        let fixed = &class["overhead"]["podFixed"];
        let given = r.object.as_deref().map(|p| p["spec"]["overhead"].clone()).unwrap_or_default();
        if given.as_object().is_some_and(|o| !o.is_empty()) && !same_quantities(&given, fixed) {
            return Err(mismatch(r));
        }
        if let Some(pod) = r.object.as_deref_mut() {
            pod["spec"]["overhead"] = fixed.clone();
        }
    }
    place(&class["scheduling"], r)
}

fn place(scheduling: &Value, r: &mut AdmissionRequest<'_>) -> Result<(), StatusError> {
    for (key, value) in scheduling["nodeSelector"].as_object().into_iter().flatten() {
        let Some(pod) = r.object.as_deref_mut() else { return Ok(()) };
        let own = &pod["spec"]["nodeSelector"][key.as_str()];
        if !own.is_null() && own != value {
            let (want, have) = (value.as_str().unwrap_or_default(), own.as_str().unwrap_or_default());
            let why = format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {want}; pod.spec.nodeSelector[{key}] = {have}"
            );
            return Err(r.forbidden(why));
        }
        if pod["spec"]["nodeSelector"].is_null() {
            pod["spec"]["nodeSelector"] = json!({});
        }
        pod["spec"]["nodeSelector"][key.as_str()] = value.clone();
    }
    let Some(pod) = r.object.as_deref_mut() else { return Ok(()) };
    for toleration in items(&scheduling["tolerations"]) {
        if !items(&pod["spec"]["tolerations"]).contains(toleration) {
            push(&mut pod["spec"], "tolerations", toleration.clone());
        }
    }
    Ok(())
}

pub async fn validate(objects: &dyn Objects, r: &AdmissionRequest<'_>) -> Result<(), StatusError> {
    if !r.is_create("", "pods") {
        return Ok(());
    }
    let given = r.object.as_deref().map(|p| p["spec"]["overhead"].clone()).unwrap_or_default();
    let class = class(objects, r).await?;
    match class.as_deref().map(|c| &c["overhead"]).filter(|o| o.is_object()) {
        Some(overhead) if !same_quantities(&overhead["podFixed"], &given) => Err(mismatch(r)),
        None if given.is_object() => Err(
            r.forbidden("pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead")
        ),
        _ => Ok(()),
    }
}

fn mismatch(r: &AdmissionRequest<'_>) -> StatusError {
    r.forbidden("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead")
}

fn same_quantities(a: &Value, b: &Value) -> bool {
    let parse = |v: &Value| -> Vec<(String, Option<i128>)> {
        let entries = v.as_object().into_iter().flatten();
        entries
            .map(|(k, v)| (k.clone(), v.as_str().and_then(|q| Quantity::parse(q).ok()).map(|q| q.nanos())))
            .collect()
    };
    parse(a) == parse(b)
}
