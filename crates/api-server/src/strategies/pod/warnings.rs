//! Likely mistakes and deprecations in pod specs, told to the client without refusing anything.

use std::collections::HashMap;

use super::defaults::CONTAINERS;
use super::resources::is_whole;
use crate::strategies::check::{At, Path};
use crate::strategies::common::ip_warnings;

/// Deprecated annotations and what to say about them.
const ANNOTATIONS: &[(&str, &str)] = &[
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        "non-functional in v1.16+; use the \"priorityClassName\" field instead",
    ),
    ("security.alpha.kubernetes.io/sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
    (
        "security.alpha.kubernetes.io/unsafe-sysctls",
        "non-functional in v1.11+; use the \"sysctls\" field instead",
    ),
];
const VOLUMES: &[(&str, &str)] = &[
    ("photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"),
    ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("storageos", "deprecated in v1.22, non-functional in v1.25+"),
    ("quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("rbd", "deprecated in v1.28, non-functional in v1.31+"),
];
const NODE_LABELS: &[(&str, &str)] = &[
    ("beta.kubernetes.io/arch", "deprecated since v1.14; use \"kubernetes.io/arch\" instead"),
    ("beta.kubernetes.io/os", "deprecated since v1.14; use \"kubernetes.io/os\" instead"),
    (
        "beta.kubernetes.io/instance-type",
        "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead",
    ),
    (
        "failure-domain.beta.kubernetes.io/region",
        "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead",
    ),
    (
        "failure-domain.beta.kubernetes.io/zone",
        "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead",
    ),
    ("app.kubernetes.io/created-by", "deprecated since v1.9"),
    (
        "scheduler.alpha.kubernetes.io/preferAvoidPods",
        "deprecated since v1.22; use Taints and Tolerations instead",
    ),
    ("node-role.kubernetes.io/master", "use \"node-role.kubernetes.io/control-plane\" instead"),
];

/// What is wrong with a label of nodes that has a successor.
pub fn node_label(key: &str) -> Option<&'static str> {
    NODE_LABELS.iter().find(|(label, _)| *label == key).map(|(_, message)| *message)
}

/// Warnings about `metadata` and `spec` under `at`, which is a pod or a pod template.
pub fn of(at: &At<'_>) -> Vec<String> {
    let mut out = Vec::new();
    let spec = at.f("spec");
    annotations(&at.dig(&["metadata", "annotations"]), &mut out);
    scheduling(&spec, &mut out);
    for volume in spec.f("volumes").each() {
        for (kind, message) in VOLUMES {
            if let Some(found) = volume.get(kind) {
                out.push(format!("{}: {message}", found.path));
            }
        }
    }
    duplicates(&spec.f("hostAliases"), "ip", &mut out);
    duplicates(&spec.f("imagePullSecrets"), "name", &mut out);
    for secret in spec.f("imagePullSecrets").each().filter(|s| s.f("name").is_empty()) {
        out.push(format!("{}: invalid empty name \"\"", secret.path.field("name")));
    }
    fractions(&spec.f("overhead"), &mut out);
    for container in CONTAINERS.iter().flat_map(|list| spec.f(list).each()) {
        fractions(&container.dig(&["resources", "limits"]), &mut out);
        fractions(&container.dig(&["resources", "requests"]), &mut out);
        environment(&container.f("env"), &mut out);
    }
    ports(&spec, &mut out);
    if spec.f("terminationGracePeriodSeconds").i() < 0 {
        let path = spec.path.field("terminationGracePeriodSeconds");
        out.push(format!("{path}: must be >= 0; negative values are invalid and will be treated as 1"));
    }
    for server in spec.dig(&["dnsConfig", "nameservers"]).each() {
        out.extend(ip_warnings(&server.path, server.s()));
    }
    for alias in spec.f("hostAliases").each() {
        out.extend(ip_warnings(&alias.path.field("ip"), alias.f("ip").s()));
    }
    out
}

fn annotations(at: &At<'_>, out: &mut Vec<String>) {
    for (key, message) in ANNOTATIONS {
        if at.f(key).has() {
            out.push(format!("{}: {message}", at.path.key(key)));
        }
    }
    for (key, value) in at.entries() {
        if key == "seccomp.security.alpha.kubernetes.io/pod"
            || key.starts_with("container.seccomp.security.alpha.kubernetes.io/")
        {
            let message = "non-functional in v1.27+; use the \"seccompProfile\" field instead";
            out.push(format!("{}: {message}", value.path));
        }
        if key.starts_with("container.apparmor.security.beta.kubernetes.io/") {
            let message = "deprecated since v1.30; use the \"appArmorProfile\" field instead";
            out.push(format!("{}: {message}", value.path));
        }
    }
}

fn scheduling(spec: &At<'_>, out: &mut Vec<String>) {
    for (key, value) in spec.f("nodeSelector").entries() {
        if let Some(message) = node_label(key) {
            out.push(format!("{}: {message}", value.path));
        }
    }
    let affinity = spec.dig(&["affinity", "nodeAffinity"]);
    let required = affinity.dig(&["requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms"]);
    let preferred = affinity.f("preferredDuringSchedulingIgnoredDuringExecution");
    let terms = required.each().chain(preferred.each().map(|term| term.f("preference")));
    for requirement in terms.flat_map(|term| term.f("matchExpressions").each()) {
        let key = requirement.f("key");
        if let Some(message) = node_label(key.s()) {
            out.push(format!("{}: {} is {message}", key.path, key.s()));
        }
    }
    for constraint in spec.f("topologySpreadConstraints").each() {
        let (key, selector) = (constraint.f("topologyKey"), constraint.f("labelSelector"));
        if let Some(message) = node_label(key.s()) {
            out.push(format!("{}: {} is {message}", key.path, key.s()));
        }
        if !selector.has() {
            out.push(format!("{}: a null labelSelector results in matching no pod", selector.path));
        }
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let at = spec.dig(&["affinity", kind]);
        let preferred = at.f("preferredDuringSchedulingIgnoredDuringExecution");
        let terms = at
            .f("requiredDuringSchedulingIgnoredDuringExecution")
            .each()
            .chain(preferred.each().map(|term| term.f("podAffinityTerm")));
        for selector in terms.map(|term| term.f("labelSelector")).filter(|s| !s.has()) {
            out.push(format!("{}: a null labelSelector results in matching no pod", selector.path));
        }
    }
}

fn duplicates(at: &At<'_>, field: &'static str, out: &mut Vec<String>) {
    let mut seen = Vec::new();
    for value in at.each().map(|item| item.f(field)) {
        if seen.contains(&value.s()) {
            out.push(format!("{}: duplicate {field} {:?}", value.path, value.s()));
        }
        seen.push(value.s());
    }
}

fn fractions(at: &At<'_>, out: &mut Vec<String>) {
    for (name, value) in at.entries().filter(|(name, _)| ["memory", "ephemeral-storage"].contains(name)) {
        if let Some(quantity) = value.quantity().filter(|q| !is_whole(q)) {
            let path = at.path.key(name);
            out.push(format!("{path}: fractional byte value \"{quantity}\" is invalid, must be an integer"));
        }
    }
}

fn environment(at: &At<'_>, out: &mut Vec<String>) {
    let mut seen = Vec::new();
    for variable in at.each() {
        let (name, value) = (variable.f("name").s(), variable.f("value").s());
        if !seen.contains(&name) {
            seen.push(name);
            continue;
        }
        let reference = format!("$({name})");
        if variable.f("valueFrom").has() || value == reference || !value.contains(&reference) {
            let path = &variable.path;
            out.push(format!(
                "{path}: hides previous definition of {name:?}, which may be dropped when using apply"
            ));
        }
    }
}

fn ports(spec: &At<'_>, out: &mut Vec<String>) {
    let all: Vec<At<'_>> =
        CONTAINERS.iter().flat_map(|l| spec.f(l).each()).flat_map(|c| c.f("ports").each()).collect();
    for (i, port) in all.iter().enumerate() {
        let path = &port.path;
        for other in &all[..i] {
            let same = |field: &'static str| {
                port.f(field).s() == other.f(field).s() && port.f(field).i() == other.f(field).i()
            };
            if !same("containerPort") || !same("protocol") {
                continue;
            }
            let ambiguous = port.f("hostIP").is_empty() != other.f("hostIP").is_empty();
            let what = if same("hostIP") && same("hostPort") {
                "duplicate"
            } else if port.f("hostPort").i() == 0 || other.f("hostPort").i() == 0 {
                "overlapping"
            } else if same("hostPort") && ambiguous {
                "dangerously ambiguous"
            } else {
                continue;
            };
            out.push(format!("{path}: {what} port definition with {}", other.path));
        }
    }
    let mut names: HashMap<&str, &Path<'_>> = HashMap::new();
    for port in &all {
        let name = port.f("name").s();
        match names.get(name) {
            _ if name.is_empty() => {}
            Some(first) => out.push(format!(
                "{}: duplicate port name {name:?} with {first}, services and probes that select ports by name \
                 will use {first}",
                port.path
            )),
            None => {
                names.insert(name, &port.path);
            }
        }
    }
}
