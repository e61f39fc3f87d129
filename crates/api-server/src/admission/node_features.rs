//! NodeDeclaredFeatureValidator: a running pod is not changed to what its node does not say it can do.

use serde_json::Value;

use super::{Verdict, core, items, text};
use crate::types::{AdmissionRequest, Objects, Operation};

pub fn validate(objects: &dyn Objects, r: &AdmissionRequest<'_>) -> Verdict {
    if r.op != Operation::Update || !(r.is("", "pods", "") || r.is("", "pods", "resize")) {
        return Ok(());
    }
    let (Some(pod), Some(old)) = (r.object.as_deref(), r.old) else { return Ok(()) };
    let name = text(pod, "/spec/nodeName");
    if name.is_empty() || pod["metadata"]["generation"] == old["metadata"]["generation"] {
        return Ok(());
    }
    let mut missing = required(pod, old);
    if missing.is_empty() {
        return Ok(());
    }
    let Some(node) = objects.get(&core("nodes"), "", name) else {
        return Err(r.forbidden(format!("node {name:?} not found")));
    };
    missing.retain(|feature| !items(&node["status"]["declaredFeatures"]).iter().any(|f| f == feature));
    if missing.is_empty() {
        return Ok(());
    }
    let features = missing.join(", ");
    Err(r.forbidden(format!(
        "pod update requires features {features} which are not available on node {name:?}"
    )))
}

/// The node features that a change asks for, by name.
fn required(pod: &Value, old: &Value) -> Vec<&'static str> {
    let mut features = Vec::new();
    if pod["spec"]["resources"] != old["spec"]["resources"] {
        features.push("InPlacePodLevelResourcesVerticalScaling");
    }
    let pairs = items(&old["spec"]["initContainers"]).iter().zip(items(&pod["spec"]["initContainers"]));
    let mut plain = pairs.filter(|(o, _)| o["restartPolicy"] != "Always");
    if plain.any(|(o, n)| o["resources"] != n["resources"]) {
        features.push("InPlacePodVerticalScalingInitContainers");
    }
    features
}
