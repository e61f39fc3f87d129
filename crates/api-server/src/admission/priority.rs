//! Priority: a pod's priority and preemption policy come from its PriorityClass.

use std::sync::Arc;

use keelson_api_types::{Gvr, StatusError, meta};
use serde_json::Value;

use super::{lookup, text};
use crate::types::{AdmissionRequest, Objects, Operation};

fn classes() -> Gvr {
    Gvr::new("scheduling.k8s.io", "v1", "priorityclasses")
}

pub async fn admit(objects: &dyn Objects, r: &mut AdmissionRequest<'_>) -> Result<(), StatusError> {
    if !r.is("", "pods", "") {
        return Ok(());
    }
    match r.op {
        Operation::Create => resolve(objects, r).await,
        Operation::Update => {
            keep(r);
            Ok(())
        }
        _ => Ok(()),
    }
}

/// An update that leaves the resolved fields out does not mean to change them.
fn keep(r: &mut AdmissionRequest<'_>) {
    let (Some(pod), Some(old)) = (r.object.as_deref_mut(), r.old) else { return };
    for field in ["priority", "preemptionPolicy"] {
        let before = &old["spec"][field];
        if pod["spec"][field].is_null() && !before.is_null() {
            pod["spec"][field] = before.clone();
        }
    }
}

async fn resolve(objects: &dyn Objects, r: &mut AdmissionRequest<'_>) -> Result<(), StatusError> {
    let Some(pod) = r.object.as_deref() else { return Ok(()) };
    let asked = text(pod, "/spec/priorityClassName");
    let class = if asked.is_empty() {
        default_class(objects)
    } else {
        let found = lookup(objects, &classes(), "", asked).await?;
        Some(found.ok_or_else(|| r.forbidden(format!("no PriorityClass with name {asked} was found")))?)
    };
    let (name, value, policy) = match &class {
        Some(class) => (
            meta::name(class).to_owned(),
            class["value"].as_i64().unwrap_or_default(),
            class["preemptionPolicy"].as_str().unwrap_or("PreemptLowerPriority").to_owned(),
        ),
        None => (String::new(), 0, "PreemptLowerPriority".to_owned()),
    };
    if let Some(given) = pod["spec"]["priority"].as_i64().filter(|p| *p != value) {
        return Err(r.forbidden(format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller computed {value} from the given PriorityClass name"
        )));
    }
    if let Some(given) = pod["spec"]["preemptionPolicy"].as_str().filter(|p| *p != policy) {
        return Err(r.forbidden(format!(
            "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission controller computed {policy} from the given PriorityClass name"
        )));
    }
    if let Some(spec) = r.object.as_deref_mut().and_then(|p| p.get_mut("spec"))
        && spec.is_object()
    {
        if !name.is_empty() {
            spec["priorityClassName"] = name.into();
        }
        spec["priority"] = value.into();
        spec["preemptionPolicy"] = policy.into();
    }
    Ok(())
}

/// The class marked `globalDefault`; the lowest one should there be several.
fn default_class(objects: &dyn Objects) -> Option<Arc<Value>> {
    let all = objects.list(&classes(), "");
    all.into_iter().filter(|c| c["globalDefault"] == true).min_by_key(|c| c["value"].as_i64())
}

pub fn validate(objects: &dyn Objects, r: &AdmissionRequest<'_>) -> Result<(), StatusError> {
    let writes = matches!(r.op, Operation::Create | Operation::Update);
    if !writes || !r.is("scheduling.k8s.io", "priorityclasses", "") {
        return Ok(());
    }
    let Some(class) = r.object.as_deref().filter(|c| c["globalDefault"] == true) else { return Ok(()) };
    match default_class(objects) {
        Some(other) if r.op == Operation::Create || meta::name(&other) != meta::name(class) => Err(r
            .forbidden(format!(
                "PriorityClass {} is already marked as default. Only one default can exist",
                meta::name(&other)
            ))),
        _ => Ok(()),
    }
}
