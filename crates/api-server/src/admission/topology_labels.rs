//! PodTopologyLabels: a pod bears the zone and region of the node that it is bound to.

use keelson_api_types::meta;
use serde_json::{Value, json};

use super::{Verdict, core, text};
use crate::types::{AdmissionRequest, Objects, Operation};

const LABELS: [&str; 2] = ["topology.kubernetes.io/zone", "topology.kubernetes.io/region"];

pub fn admit(objects: &dyn Objects, r: &mut AdmissionRequest<'_>) -> Verdict {
    let binding = r.is("", "pods", "binding");
    if r.op != Operation::Create || !(binding || r.is("", "pods", "")) {
        return Ok(());
    }
    let Some(object) = r.object.as_deref_mut() else { return Ok(()) };
    let node = match binding {
        true if text(object, "/target/kind") == "Node" => text(object, "/target/name"),
        true => "",
        false => text(object, "/spec/nodeName"),
    };
    let Some(node) = Some(node).filter(|n| !n.is_empty()).and_then(|n| objects.get(&core("nodes"), "", n))
    else {
        return Ok(());
    };
    let Some(labels) = meta::labels(&node) else { return Ok(()) };
    for (key, value) in LABELS.iter().filter_map(|key| labels.get(*key).map(|value| (*key, value))) {
        let metadata = &mut object["metadata"];
        if !metadata["labels"].is_object() {
            metadata["labels"] = json!({});
        }
        metadata["labels"][key] = Value::clone(value);
    }
    Ok(())
}
