//! Validation of containers: init, regular and ephemeral ones.

use keelson_api_types::names;
use serde_json::Value;

use super::resources::{self, Scope};
use super::spec::PodContext;
use super::{env, security};
use crate::strategies::check::{At, Errors};
use crate::strategies::common::PROTOCOLS;

const PULL_POLICIES: &[&str] = &["Always", "IfNotPresent", "Never"];
const NO_INIT: &str = "may not be set for init containers without restartPolicy=Always";
/// What an ephemeral container may not have: it shares a pod that is already running.
const NOT_EPHEMERAL: &[&str] = &[
    "ports",
    "resources",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
    "resizePolicy",
    "restartPolicy",
    "restartPolicyRules",
];

pub fn containers(at: &At<'_>, pod: &PodContext<'_>, e: &mut Errors) {
    if at.is_empty() {
        e.required(&at.path, "");
        return;
    }
    let mut seen = Vec::new();
    for container in at.each() {
        common(&container, pod, e);
        let name = container.f("name");
        if seen.contains(&name.s()) {
            e.duplicate(&name.path, name.s());
        }
        seen.push(name.s());
        lifecycle_and_probes(&container, pod, e);
        restart_policy(&container, e);
    }
    host_ports(&at.each().collect::<Vec<_>>(), e);
}

pub fn init_containers(at: &At<'_>, regular: &At<'_>, pod: &PodContext<'_>, e: &mut Errors) {
    let mut seen: Vec<&str> = regular.each().map(|c| c.f("name").s()).collect();
    for container in at.each() {
        common(&container, pod, e);
        restart_policy(&container, e);
        let name = container.f("name");
        if seen.contains(&name.s()) {
            e.duplicate(&name.path, name.s());
        } else if !name.s().is_empty() {
            seen.push(name.s());
        }
        host_ports(std::slice::from_ref(&container), e);
        let sidecar = container.f("restartPolicy").s() == "Always";
        if sidecar {
            lifecycle_and_probes(&container, pod, e);
        } else {
            for field in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
                if let Some(found) = container.get(field) {
                    e.forbidden(&found.path, NO_INIT);
                }
            }
            for policy in container.f("resizePolicy").each() {
                if policy.f("restartPolicy").s() == "RestartContainer" {
                    let detail = "must not be set to 'RestartContainer' for non-sidecar initContainers";
                    e.invalid(&policy.f("restartPolicy"), detail);
                }
            }
        }
    }
}

pub fn ephemeral_containers(at: &At<'_>, spec: &At<'_>, pod: &PodContext<'_>, e: &mut Errors) {
    let others: Vec<&str> = ["containers", "initContainers"]
        .iter()
        .flat_map(|list| spec.f(list).each().map(|c| c.f("name").s()))
        .collect();
    let mut seen = others.clone();
    for container in at.each() {
        common(&container, pod, e);
        image_padding(&container, e);
        let name = container.f("name");
        if seen.contains(&name.s()) {
            e.duplicate(&name.path, name.s());
        }
        seen.push(name.s());
        let target = container.f("targetContainerName");
        if !target.s().is_empty() && !others.contains(&target.s()) {
            e.not_found(&target.path, target.s());
        }
        for field in NOT_EPHEMERAL {
            if !crate::strategies::edit::is_zero(container.f(field).value) {
                e.forbidden(&container.f(field).path, "cannot be set for an Ephemeral Container");
            }
        }
        for mount in container.f("volumeMounts").each() {
            for field in ["subPath", "subPathExpr"] {
                if !mount.f(field).is_empty() {
                    e.forbidden(&mount.f(field).path, "cannot be set for an Ephemeral Container");
                }
            }
        }
    }
}

/// A pod's image, unlike a template's, is not about to be rewritten by anyone.
pub fn image_padding(container: &At<'_>, e: &mut Errors) {
    let image = container.f("image");
    if image.s().trim() != image.s() {
        e.invalid(&image, "must not have leading or trailing whitespace");
    }
}

fn common(container: &At<'_>, pod: &PodContext<'_>, e: &mut Errors) {
    if e.required_string(&container.f("name")) {
        e.dns_label(&container.f("name"));
    }
    e.required_string(&container.f("image"));
    e.one_of(&container.f("terminationMessagePolicy"), &["File", "FallbackToLogsOnError"]);
    ports(&container.f("ports"), e);
    env::variables(&container.f("env"), e);
    env::sources(&container.f("envFrom"), e);
    mounts(container, pod, e);
    devices(container, pod, e);
    e.one_of(&container.f("imagePullPolicy"), PULL_POLICIES);
    resources::requirements(&container.f("resources"), Scope::Container, &pod.claims, e);
    resize_policy(&container.f("resizePolicy"), pod, e);
    security::container(&container.f("securityContext"), pod.host_users, e);
}

fn ports(at: &At<'_>, e: &mut Errors) {
    let mut seen = Vec::new();
    for port in at.each() {
        let name = port.f("name");
        if !name.s().is_empty() {
            let messages = names::port_name(name.s());
            if messages.is_empty() && seen.contains(&name.s()) {
                e.duplicate(&name.path, name.s());
            }
            if messages.is_empty() {
                seen.push(name.s());
            }
            e.messages(&name, messages);
        }
        if port.f("containerPort").i() == 0 {
            e.required(&port.f("containerPort").path, "");
        } else {
            e.port_number(&port.f("containerPort"));
        }
        if port.f("hostPort").i() != 0 {
            e.port_number(&port.f("hostPort"));
        }
        e.one_of(&port.f("protocol"), PROTOCOLS);
    }
}

fn host_ports(containers: &[At<'_>], e: &mut Errors) {
    let mut seen = Vec::new();
    for port in containers.iter().flat_map(|c| c.f("ports").each()) {
        let number = port.f("hostPort");
        if number.i() == 0 {
            continue;
        }
        let key = format!("{}/{}/{}", port.f("protocol").s(), port.f("hostIP").s(), number.i());
        if seen.contains(&key) {
            e.duplicate(&number.path, key.as_str());
        }
        seen.push(key);
    }
}

fn mounts(container: &At<'_>, pod: &PodContext<'_>, e: &mut Errors) {
    let at = container.f("volumeMounts");
    let devices = container.f("volumeDevices");
    let device = |field: &'static str, value: &str| devices.each().any(|d| d.f(field).s() == value);
    let mut seen = Vec::new();
    for mount in at.each() {
        let (name, path) = (mount.f("name"), mount.f("mountPath"));
        e.required_string(&name);
        if pod.volume(name.s()).is_none() {
            e.not_found(&name.path, name.s());
        }
        e.required_string(&path);
        if seen.contains(&path.s()) {
            e.invalid_value(&path.path, path.s(), "must be unique");
        }
        seen.push(path.s());
        if device("name", name.s()) {
            e.invalid(&name, "must not already exist in volumeDevices");
        }
        if device("devicePath", path.s()) {
            e.invalid(&path, "must not already exist as a path in volumeDevices");
        }
        let (sub, expression) = (mount.f("subPath"), mount.f("subPathExpr"));
        if !sub.s().is_empty() {
            // Upstream reports the path without the index of the mount.
            e.local_path(&sub.under(at.path.field("subPath")));
        }
        if !expression.s().is_empty() {
            if !sub.s().is_empty() {
                e.invalid(&expression, "subPathExpr and subPath are mutually exclusive");
            }
            e.local_path(&expression.under(at.path.field("subPathExpr")));
        }
        propagation(&mount, &at, container, e);
    }
}

fn propagation(mount: &At<'_>, list: &At<'_>, container: &At<'_>, e: &mut Errors) {
    if let Some(mode) = mount.get("mountPropagation") {
        let mode = mode.under(list.path.field("mountPropagation"));
        e.optional_one_of(&mode, &["Bidirectional", "HostToContainer", "None"]);
        if mode.s() == "Bidirectional" && !container.dig(&["securityContext", "privileged"]).b() {
            let detail = "Bidirectional mount propagation is available only to privileged containers";
            e.forbidden(&mode.path, detail);
        }
    }
    let Some(recursive) = mount.get("recursiveReadOnly") else { return };
    let recursive = recursive.under(list.path.field("recursiveReadOnly"));
    e.optional_one_of(&recursive, &["Disabled", "Enabled", "IfPossible"]);
    if ["Enabled", "IfPossible"].contains(&recursive.s()) {
        if !mount.f("readOnly").b() {
            e.forbidden(&recursive.path, "may only be specified when readOnly is true");
        }
        if mount.get("mountPropagation").is_some_and(|p| p.s() != "None") {
            let detail = "may only be specified when mountPropagation is None or not specified";
            e.forbidden(&recursive.path, detail);
        }
    }
}

fn devices(container: &At<'_>, pod: &PodContext<'_>, e: &mut Errors) {
    let mounts = container.f("volumeMounts");
    let mounted = |field: &'static str, value: &str| mounts.each().any(|m| m.f(field).s() == value);
    let (mut names, mut paths) = (Vec::new(), Vec::new());
    for device in container.f("volumeDevices").each() {
        let (name, path) = (device.f("name"), device.f("devicePath"));
        e.required_string(&name);
        if names.contains(&name.s()) {
            e.invalid(&name, "must be unique");
        }
        match pod.volume(name.s()) {
            None => e.not_found(&name.path, name.s()),
            Some(volume) if !volume.has_any(&["persistentVolumeClaim", "ephemeral"]) => {
                let detail =
                    "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                e.invalid(&name, detail);
            }
            Some(_) => {}
        }
        e.required_string(&path);
        if paths.contains(&path.s()) {
            e.invalid(&path, "must be unique");
        }
        if path.s().split('/').any(|part| part == "..") {
            e.invalid(&path, "can not contain backsteps ('..')");
        } else {
            paths.push(path.s());
        }
        if mounted("name", name.s()) {
            e.invalid(&name, "must not already exist in volumeMounts");
        }
        if mounted("mountPath", path.s()) {
            e.invalid(&path, "must not already exist as a path in volumeMounts");
        }
        names.push(name.s());
    }
}

fn lifecycle_and_probes(container: &At<'_>, pod: &PodContext<'_>, e: &mut Errors) {
    if let Some(lifecycle) = container.get("lifecycle") {
        for hook in ["postStart", "preStop"] {
            if let Some(at) = lifecycle.get(hook) {
                handler(&at, &["exec", "httpGet", "tcpSocket", "sleep"], pod.grace, e);
            }
        }
        if let Some(signal) = lifecycle.get("stopSignal")
            && pod.os.is_empty()
        {
            e.forbidden(&signal.path, "may not be set for containers with empty `spec.os.name`");
        }
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let Some(at) = container.get(name) else { continue };
        probe(&at, e);
        if name == "readinessProbe" {
            if let Some(grace) = at.get("terminationGracePeriodSeconds") {
                e.invalid(&grace, "must not be set for readinessProbes");
            }
        } else if at.f("successThreshold").i() != 1 {
            e.invalid_value(&at.f("successThreshold").path, at.f("successThreshold").i(), "must be 1");
        }
    }
}

fn probe(at: &At<'_>, e: &mut Errors) {
    handler(at, &["exec", "httpGet", "tcpSocket", "grpc"], None, e);
    e.nonnegative_all(
        at,
        &["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"],
    );
    if let Some(grace) = at.get("terminationGracePeriodSeconds")
        && grace.i() <= 0
    {
        e.invalid(&grace, "must be greater than 0");
    }
}

/// What a probe or a hook does: exactly one of `kinds`.
fn handler(at: &At<'_>, kinds: &[&'static str], grace: Option<i64>, e: &mut Errors) {
    let mut found = false;
    for kind in kinds {
        let Some(action) = at.get(kind) else { continue };
        if found {
            e.forbidden(&action.path, "may not specify more than 1 handler type");
            continue;
        }
        found = true;
        match *kind {
            "exec" if action.f("command").is_empty() => e.required(&action.f("command").path, ""),
            "exec" => {}
            "httpGet" => http_get(&action, e),
            "sleep" => {
                let seconds = action.f("seconds").i();
                if let Some(grace) = grace.filter(|grace| !(0..=*grace).contains(&seconds)) {
                    let detail =
                        format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
                    e.invalid_value(&action.path, seconds, detail);
                }
            }
            _ => e.port_number_or_name(&action.f("port")),
        }
    }
    if !found {
        e.required(&at.path, "must specify a handler type");
    }
}

fn http_get(action: &At<'_>, e: &mut Errors) {
    e.required_string(&action.f("path"));
    e.port_number_or_name(&action.f("port"));
    if !["HTTP", "HTTPS"].contains(&action.f("scheme").s()) {
        e.not_supported(&action.f("scheme"), &["HTTP", "HTTPS"]);
    }
    let headers = action.f("httpHeaders");
    for header in headers.each() {
        let name = header.f("name").s();
        for message in names::http_header_name(name) {
            e.invalid_value(&headers.path, name, message);
        }
    }
}

fn resize_policy(at: &At<'_>, pod: &PodContext<'_>, e: &mut Errors) {
    let mut seen = Vec::new();
    for policy in at.each() {
        let (resource, restart) = (policy.f("resourceName"), policy.f("restartPolicy"));
        if seen.contains(&resource.s()) {
            e.duplicate(&policy.path, resource.s());
        }
        seen.push(resource.s());
        e.one_of(&resource.under(at.path.clone()), &["cpu", "memory"]);
        e.one_of(&restart.under(at.path.clone()), &["NotRequired", "RestartContainer"]);
        if pod.restart_policy == "Never" && restart.s() != "NotRequired" {
            let detail = "must be 'NotRequired' when pod `restartPolicy` is 'Never'";
            e.invalid(&restart.under(at.path.clone()), detail);
        }
    }
}

fn restart_policy(container: &At<'_>, e: &mut Errors) {
    let (policy, rules) = (container.f("restartPolicy"), container.f("restartPolicyRules"));
    if policy.has() {
        e.optional_one_of(&policy, &["Always", "Never", "OnFailure"]);
    } else if !rules.is_empty() {
        e.required(&policy.path, "must specify restartPolicy when restart rules are used");
    }
    if rules.len() > 20 {
        e.too_many(&rules.path, rules.len(), 20);
    }
    for rule in rules.each() {
        if !["Restart", "RestartAllContainers"].contains(&rule.f("action").s()) {
            e.not_supported(&rule.f("action"), &["Restart", "RestartAllContainers"]);
        }
        let Some(codes) = rule.get("exitCodes") else {
            e.required(&rule.f("exitCodes").path, "must be specified");
            continue;
        };
        if !["In", "NotIn"].contains(&codes.f("operator").s()) {
            e.not_supported(&codes.f("operator"), &["In", "NotIn"]);
        }
        if codes.f("values").len() > 255 {
            e.too_many(&codes.f("values").path, codes.f("values").len(), 255);
        }
    }
}

impl At<'_> {
    /// Whether one of these members is there.
    pub fn has_any(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.value.get(name).is_some_and(|v| !matches!(v, Value::Null)))
    }
}
