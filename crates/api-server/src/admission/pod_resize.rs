//! PodResizeValidator: a running pod's new requests must fit its node at all.

use keelson_api_types::{Cause, Quantity, Status, StatusError, meta};
use serde_json::Value;

use super::quantities::{amounts, pod_requests};
use super::{Verdict, core, text};
use crate::types::{AdmissionRequest, Objects, Operation};

pub fn validate(objects: &dyn Objects, r: &AdmissionRequest<'_>) -> Verdict {
    if r.op != Operation::Update || !r.is("", "pods", "resize") {
        return Ok(());
    }
    let (Some(pod), Some(old)) = (r.object.as_deref(), r.old) else { return Ok(()) };
    let name = text(pod, "/spec/nodeName");
    if name.is_empty() || pod["metadata"]["generation"] == old["metadata"]["generation"] {
        return Ok(());
    }
    let Some(node) = objects.get(&core("nodes"), "", name) else {
        return Err(r.forbidden(format!("node {name:?} not found")));
    };
    let os = meta::labels(&node).and_then(|l| l.get("kubernetes.io/os")).and_then(Value::as_str);
    if let Some(os) = os.filter(|os| *os != "linux") {
        let why = format!("pod resize is only supported on linux nodes, node {name:?} is {os:?}");
        return Err(refusal(r, why, "UnsupportedPlatform"));
    }
    let problems = shortages(pod, &node);
    if problems.is_empty() {
        return Ok(());
    }
    let why = format!("node didn't have enough allocatable resources: {}", problems.join("; "));
    Err(refusal(r, why, "NodeCapacity"))
}

fn shortages(pod: &Value, node: &Value) -> Vec<String> {
    let (requests, allocatable) = (pod_requests(pod), amounts(&node["status"]["allocatable"]));
    let of = |list: &super::quantities::Amounts, name| list.get(name).map_or(0, Quantity::nanos);
    let mut problems = Vec::new();
    for (name, unit) in [("cpu", 1_000_000), ("memory", 1_000_000_000)] {
        let (wanted, there) = (of(&requests, name), of(&allocatable, name));
        if wanted > there {
            let (wanted, there) = (wanted / unit, there / unit);
            problems.push(format!("{name}, requested: {wanted}, allocatable: {there}"));
        }
    }
    problems
}

fn refusal(r: &AdmissionRequest<'_>, why: String, reason: &str) -> StatusError {
    let Status { details, code, reason: kind, message, .. } = r.forbidden(why).into_status();
    let mut details = details.unwrap_or_default();
    details.causes.push(Cause { reason: reason.into(), ..Cause::default() });
    StatusError::new(code, kind, message).with_details(details)
}
