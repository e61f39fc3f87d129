//! DefaultTolerationSeconds: how long pods stay on a node that went away.

use serde_json::json;

use super::{Verdict, items, push, text};
use crate::types::{AdmissionRequest, Operation};

const TAINTS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];
const SECONDS: i64 = 300;

pub fn admit(r: &mut AdmissionRequest<'_>) -> Verdict {
    if !r.is("", "pods", "") || !matches!(r.op, Operation::Create | Operation::Update) {
        return Ok(());
    }
    let Some(pod) = r.object.as_deref_mut() else { return Ok(()) };
    for key in TAINTS {
        let tolerated = items(&pod["spec"]["tolerations"]).iter().any(|t| {
            let (own, effect) = (text(t, "/key"), text(t, "/effect"));
            (own.is_empty() || own == key) && (effect.is_empty() || effect == "NoExecute")
        });
        if !tolerated {
            let toleration = json!({"key": key, "operator": "Exists", "effect": "NoExecute",
                "tolerationSeconds": SECONDS});
            push(&mut pod["spec"], "tolerations", toleration);
        }
    }
    Ok(())
}
