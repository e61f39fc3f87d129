//! What the scheduler writes back about a pod besides its binding: why it does not fit, and whom it displaces.

use keelson_client::{EventRecorder, EventType, ObjectRef, rest};
use keelson_sched_core::PodInfo;
use kube::Error;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use crate::views::PodView;

pub fn reference(pod: &PodInfo) -> ObjectRef {
    ObjectRef {
        api_version: Some("v1".into()),
        kind: Some("Pod".into()),
        namespace: Some(pod.id.namespace.clone()),
        name: Some(pod.id.name.clone()),
        uid: Some(pod.id.uid.clone()),
        ..ObjectRef::default()
    }
}

pub async fn bind(client: &kube::Client, pod: &PodInfo, node: &str) -> Result<(), Error> {
    let binding = json!({
        "apiVersion": "v1", "kind": "Binding",
        "metadata": {"name": pod.id.name, "namespace": pod.id.namespace, "uid": pod.id.uid},
        "target": {"apiVersion": "v1", "kind": "Node", "name": node},
    });
    rest::create::<IgnoredAny>(client, &path(pod, Some("binding")), &binding).await.map(drop)
}

/// Sets the `PodScheduled` condition to False, and the nominated node where there is one.
pub async fn unschedulable(
    client: &kube::Client,
    pod: &PodInfo,
    message: &str,
    nominated: Option<&str>,
) -> Result<(), Error> {
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
) -> Result<(), Error> {
    let message = "preempting to accommodate a higher priority pod";
    let condition = condition("DisruptionTarget", "True", "PreemptionByScheduler", message);
    patch_status(client, victim, json!({"conditions": [condition]})).await?;
    let options = json!({"preconditions": {"uid": victim.id.uid}});
    match rest::delete(client, &path(victim, None), &options).await {
        // Gone already, or replaced by another of its name: there is room either way.
        Err(error) if matches!(rest::code(&error), Some(404 | 409)) => return Ok(()),
        outcome => outcome?,
    }
    let message = format!("Preempted by pod {} on node {node}", by.id.uid);
    events.event(&reference(victim), EventType::Normal, "Preempted", message);
    Ok(())
}

fn condition(kind: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({
        "type": kind, "status": status, "reason": reason, "message": message,
        "lastProbeTime": null, "lastTransitionTime": keelson_api_types::meta::now_rfc3339(),
    })
}

async fn patch_status(client: &kube::Client, pod: &PodInfo, status: Value) -> Result<(), Error> {
    let patch = json!({"metadata": {"uid": pod.id.uid}, "status": status});
    let path = path(pod, Some("status"));
    rest::patch::<IgnoredAny>(client, &path, rest::patch::STRATEGIC, &patch).await.map(drop)
}

fn path(pod: &PodInfo, subresource: Option<&str>) -> String {
    rest::path::<PodView>(&pod.id.namespace, Some(&pod.id.name), subresource)
}
