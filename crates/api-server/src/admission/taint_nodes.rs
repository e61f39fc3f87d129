//! TaintNodesByCondition: a new node takes no pods before a controller has seen it ready.

use serde_json::json;

use super::{Verdict, items, push};
use crate::types::AdmissionRequest;

const NOT_READY: &str = "node.kubernetes.io/not-ready";

pub fn admit(r: &mut AdmissionRequest<'_>) -> Verdict {
    if !r.is_create("", "nodes") {
        return Ok(());
    }
    let Some(node) = r.object.as_deref_mut() else { return Ok(()) };
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
    Ok(())
}
