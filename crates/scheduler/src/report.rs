//! What the scheduler writes back about a pod besides its binding: why it does not fit, and whom it displaces.

use keelson_client::{EventRecorder, EventType, ObjectRef};
use keelson_sched_core::PodInfo;
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

pub fn reference(pod: &PodInfo) -> ObjectRef {
    ObjectRef {
        api_version: "v1".into(),
        kind: "Pod".into(),
        namespace: pod.id.namespace.clone(),
        name: pod.id.name.clone(),
        uid: pod.id.uid.clone(),
        ..ObjectRef::default()
    }
}

/// Sets the `PodScheduled` condition to False, and the nominated node where there is one.
pub async fn unschedulable(
    client: &kube::Client,
    pod: &PodInfo,
    message: &str,
    nominated: Option<&str>,
) -> Result<(), kube::Error> {
    let mut status = json!({"conditions": [condition("PodScheduled", "False", "Unschedulable", message)]});
    if let Some(node) = nominated {
        status["nominatedNodeName"] = json!(node);
    }
    patch_status(client, pod, status).await
}

/// Evicts a pod to make room: says so in its status and an event, then deletes it with its grace period.
pub async fn displace(
    client: &kube::Client,
    events: &EventRecorder,
    victim: &PodInfo,
    by: &PodInfo,
    node: &str,
) -> Result<(), kube::Error> {
    let message = "preempting to accommodate a higher priority pod";
    let condition = condition("DisruptionTarget", "True", "PreemptionByScheduler", message);
    patch_status(client, victim, json!({"conditions": [condition]})).await?;
    let preconditions = Preconditions { uid: Some(victim.id.uid.clone()), resource_version: None };
    let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
    match api(client, victim).delete(&victim.id.name, &params).await {
        Ok(_) => {}
        // Gone already, or replaced by another of its name: there is room either way.
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => return Ok(()),
        Err(error) => return Err(error),
    }
    let message = format!("Preempted by pod {} on node {node}", by.id.uid);
    events.event(&reference(victim), EventType::Normal, "Preempted", &message);
    Ok(())
}

fn condition(kind: &str, status: &str, reason: &str, message: &str) -> serde_json::Value {
    json!({
        "type": kind, "status": status, "reason": reason, "message": message,
        "lastProbeTime": null, "lastTransitionTime": keelson_api_types::meta::now_rfc3339(),
    })
}

async fn patch_status(client: &kube::Client, pod: &PodInfo, status: serde_json::Value) -> Result<(), kube::Error> {
    let patch = json!({"metadata": {"uid": pod.id.uid}, "status": status});
    api(client, pod)
        .patch_status(&pod.id.name, &PatchParams::default(), &Patch::Strategic(patch))
        .await
        .map(drop)
}

pub fn api(client: &kube::Client, pod: &PodInfo) -> Api<Pod> {
    Api::namespaced(client.clone(), &pod.id.namespace)
}
