//! Shorthands on pod specs.

use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod, PodSpec};
use std::sync::LazyLock;

static EMPTY: LazyLock<PodSpec> = LazyLock::new(PodSpec::default);

pub fn spec(pod: &Pod) -> &PodSpec {
    pod.spec.as_ref().unwrap_or(&EMPTY)
}

pub fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

pub fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

pub fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or_default()
}

/// `name_namespace(uid)`, as kubelets write a pod into messages.
pub fn full_name(pod: &Pod) -> String {
    format!("{}_{}({})", name(pod), namespace(pod), uid(pod))
}

pub fn init_containers(pod: &Pod) -> &[Container] {
    spec(pod).init_containers.as_deref().unwrap_or_default()
}

pub fn containers(pod: &Pod) -> &[Container] {
    &spec(pod).containers
}

/// Ephemeral containers with the fields that containers share.
pub fn ephemeral_containers(pod: &Pod) -> Vec<(Container, Option<String>)> {
    let list = spec(pod).ephemeral_containers.as_deref().unwrap_or_default();
    list.iter().map(|e| (as_container(e), e.target_container_name.clone())).collect()
}

fn as_container(e: &EphemeralContainer) -> Container {
    Container {
        args: e.args.clone(),
        command: e.command.clone(),
        env: e.env.clone(),
        env_from: e.env_from.clone(),
        image: e.image.clone(),
        image_pull_policy: e.image_pull_policy.clone(),
        name: e.name.clone(),
        resources: e.resources.clone(),
        security_context: e.security_context.clone(),
        stdin: e.stdin,
        stdin_once: e.stdin_once,
        termination_message_path: e.termination_message_path.clone(),
        termination_message_policy: e.termination_message_policy.clone(),
        tty: e.tty,
        volume_mounts: e.volume_mounts.clone(),
        working_dir: e.working_dir.clone(),
        ..Default::default()
    }
}

/// An init container that runs beside the others for the pod's whole life.
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

pub fn restart_policy(pod: &Pod) -> &str {
    spec(pod).restart_policy.as_deref().unwrap_or("Always")
}

pub fn is_host_network(pod: &Pod) -> bool {
    spec(pod).host_network == Some(true)
}

/// The path of a container in its pod's spec, as events name it.
pub fn field_path(pod: &Pod, container: &str) -> Option<String> {
    let spec = spec(pod);
    let has = |list: &[Container]| list.iter().any(|c| c.name == container);
    let field = if has(&spec.containers) {
        "spec.containers"
    } else if has(spec.init_containers.as_deref().unwrap_or_default()) {
        "spec.initContainers"
    } else {
        "spec.ephemeralContainers"
    };
    Some(format!("{field}{{{container}}}"))
}

/// Whether the API says that the pod has ended for good.
pub fn is_terminal(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

pub fn is_deleted(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Seconds between the request to end and the kill.
pub fn grace_seconds(pod: &Pod) -> i64 {
    let own = spec(pod).termination_grace_period_seconds.unwrap_or(30);
    pod.metadata.deletion_grace_period_seconds.unwrap_or(own).max(0)
}

/// What of a container's spec makes a running instance obsolete when it changes.
pub fn container_hash(container: &Container) -> String {
    let mut hash: u32 = 0x811c_9dc5;
    let image = container.image.as_deref().unwrap_or_default();
    for byte in container.name.bytes().chain([0]).chain(image.bytes()) {
        hash = (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    }
    format!("{hash:x}")
}
