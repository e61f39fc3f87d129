//! Defaults of pods and of the pod templates inside workloads.

use serde_json::{Value, json};

use super::resources;
use crate::strategies::edit::{self, default, default_zero};
use crate::strategies::storage;

/// The three lists of containers in a pod spec.
pub const CONTAINERS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];

/// Defaults of a whole pod: those of its spec, and what only a running pod needs spelt out.
pub fn pod(pod: &mut Value) {
    spec(pod, "spec");
    let Some(spec) = edit::some(pod, "spec") else { return };
    for list in ["containers", "initContainers"] {
        for container in edit::each(spec, list) {
            requests_from_limits(container);
        }
    }
    resources::default_pod_level(spec);
    default(spec, "enableServiceLinks", true);
    if spec.get("hostNetwork").and_then(Value::as_bool) == Some(true) {
        for list in ["containers", "initContainers"] {
            for port in edit::each(spec, list).flat_map(|c| edit::each(c, "ports")) {
                if let Some(number) = port.get("containerPort").cloned() {
                    default_zero(port, "hostPort", number);
                }
            }
        }
    }
}

/// Defaults of a `PodTemplateSpec` in the member `name`.
pub fn template(parent: &mut Value, name: &str) {
    if let Some(template) = edit::ensure(parent, name) {
        edit::ensure(template, "metadata");
        spec(template, "spec");
    }
}

fn spec(parent: &mut Value, name: &str) {
    let Some(spec) = edit::ensure(parent, name) else { return };
    for volume in edit::each(spec, "volumes") {
        storage::defaults::volume(volume);
    }
    for list in CONTAINERS {
        for item in edit::each(spec, list) {
            container(item);
        }
    }
    default_zero(spec, "dnsPolicy", "ClusterFirst");
    default_zero(spec, "restartPolicy", "Always");
    default(spec, "securityContext", json!({}));
    default(spec, "terminationGracePeriodSeconds", 30);
    default_zero(spec, "schedulerName", "default-scheduler");
    edit::omit_zero(
        spec,
        &["hostNetwork", "hostPID", "hostIPC", "nodeName", "hostname", "subdomain", "priorityClassName"],
    );
    service_account(spec);
}

/// `serviceAccount` is the old name of `serviceAccountName` and always repeats it.
fn service_account(spec: &mut Value) {
    let text = |name: &str| spec.get(name).and_then(Value::as_str).filter(|s| !s.is_empty());
    match text("serviceAccountName").or_else(|| text("serviceAccount")).map(str::to_owned) {
        Some(account) => {
            edit::set(spec, "serviceAccountName", account.as_str());
            edit::set(spec, "serviceAccount", account);
        }
        None => edit::omit_zero(spec, &["serviceAccountName", "serviceAccount"]),
    }
}

fn container(container: &mut Value) {
    let image = container.get("image").and_then(Value::as_str).unwrap_or_default();
    let policy = pull_policy(image);
    default_zero(container, "imagePullPolicy", policy);
    default_zero(container, "terminationMessagePath", "/dev/termination-log");
    default_zero(container, "terminationMessagePolicy", "File");
    default(container, "resources", json!({}));
    for port in edit::each(container, "ports") {
        default_zero(port, "protocol", "TCP");
        edit::omit_zero(port, &["hostPort", "name", "hostIP"]);
    }
    for source in edit::each(container, "env").filter_map(|env| {
        edit::omit_zero(env, &["value"]);
        edit::some(env, "valueFrom")
    }) {
        field_ref(source);
        if let Some(file) = edit::some(source, "fileKeyRef") {
            default(file, "optional", false);
        }
    }
    for mount in edit::each(container, "volumeMounts") {
        edit::omit_zero(mount, &["readOnly", "subPath", "subPathExpr"]);
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(item) = edit::some(container, name) {
            probe(item);
        }
    }
    for hook in ["postStart", "preStop"] {
        if let Some(action) = edit::dig(container, &["lifecycle", hook, "httpGet"]) {
            http_get(action);
        }
    }
    edit::omit_zero(container, &["stdin", "stdinOnce", "tty", "workingDir"]);
}

fn probe(probe: &mut Value) {
    default_zero(probe, "timeoutSeconds", 1);
    default_zero(probe, "periodSeconds", 10);
    default_zero(probe, "successThreshold", 1);
    default_zero(probe, "failureThreshold", 3);
    edit::omit_zero(probe, &["initialDelaySeconds"]);
    if let Some(action) = edit::some(probe, "httpGet") {
        http_get(action);
    }
    if let Some(action) = edit::some(probe, "grpc") {
        default(action, "service", "");
    }
}

fn http_get(action: &mut Value) {
    default_zero(action, "path", "/");
    default_zero(action, "scheme", "HTTP");
}

/// A downward API reference names the version its path belongs to.
pub fn field_ref(parent: &mut Value) {
    if let Some(reference) = edit::some(parent, "fieldRef") {
        default_zero(reference, "apiVersion", "v1");
    }
}

fn requests_from_limits(container: &mut Value) {
    let Some(resources) = edit::some(container, "resources") else { return };
    let Some(limits) = resources.get("limits").and_then(Value::as_object).cloned() else { return };
    let Some(requests) = edit::map(resources, "requests") else { return };
    for (name, limit) in limits {
        requests.entry(name).or_insert(limit);
    }
}

/// `Always` for images whose tag is, or defaults to, `latest`.
pub fn pull_policy(image: &str) -> &'static str {
    if image.is_empty() {
        return "IfNotPresent";
    }
    let (name, digest) = image.split_once('@').map_or((image, None), |(n, d)| (n, Some(d)));
    let last = name.rsplit('/').next().unwrap_or(name);
    match (last.split_once(':'), digest) {
        (Some((_, "latest")), _) | (None, None) => "Always",
        _ => "IfNotPresent",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pull_policy_follows_the_tag() {
        for (image, policy) in [
            ("nginx", "Always"),
            ("nginx:latest", "Always"),
            ("registry:5000/nginx", "Always"),
            ("registry:5000/nginx:1.2", "IfNotPresent"),
            ("nginx@sha256:abc", "IfNotPresent"),
            ("nginx:latest@sha256:abc", "Always"),
        ] {
            assert_eq!(pull_policy(image), policy, "{image}");
        }
    }
}
