//! Whether this node takes a pod that was bound to it: what the scheduler decided is checked once more, since
//! the two do not share a lock.

use super::plan::Waiting;
use super::{resources, sandbox, spec};
use crate::context::Allocatable;
use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm, Pod};
use std::collections::BTreeMap;
use std::sync::Arc;

const NANO: i128 = 1_000_000_000;

/// The node as admission sees it.
pub struct Node<'a> {
    pub name: &'a str,
    pub labels: &'a BTreeMap<String, String>,
    pub allocatable: Allocatable,
    pub allowed_sysctls: &'a [String],
}

/// Refuses a pod with the reason and message of its status. `others` are the pods that run here.
pub fn admit(pod: &Pod, node: &Node<'_>, others: &[Arc<Pod>]) -> Result<(), Waiting> {
    let refuse = |reason: String, message: String| Err(Waiting { reason, message });
    if let Some(name) = sandbox::forbidden_sysctl(pod, node.allowed_sysctls) {
        return refuse("SysctlForbidden".into(), format!("forbidden sysctl: {name:?} not allowlisted"));
    }
    if others.len() >= node.allocatable.pods as usize {
        let message = format!(
            "Pod was rejected: Node didn't have enough resource: pods, requested: 1, used: {}, capacity: {}",
            others.len(),
            node.allocatable.pods
        );
        return refuse("OutOfpods".into(), message);
    }
    if let Some((resource, message)) = shortage(pod, node, others) {
        return refuse(format!("OutOf{resource}"), format!("Pod was rejected: {message}"));
    }
    if !matches_node(pod, node) {
        let message = "Pod was rejected: Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector";
        return refuse("NodeAffinity".into(), message.into());
    }
    let taken: Vec<_> = others.iter().flat_map(|p| host_ports(p)).collect();
    if host_ports(pod).iter().any(|p| taken.iter().any(|t| conflicts(p, t))) {
        let message = "Pod was rejected: Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports";
        return refuse("NodePorts".into(), message.into());
    }
    Ok(())
}

/// The first resource of which too little is left for the pod beside the others, and how it is told.
pub fn shortage(pod: &Pod, node: &Node<'_>, others: &[Arc<Pod>]) -> Option<(&'static str, String)> {
    let there = [
        ("cpu", i128::from(node.allocatable.cpu_milli) * 1_000_000),
        ("memory", i128::from(node.allocatable.memory_bytes) * NANO),
        ("ephemeral-storage", i128::from(node.allocatable.ephemeral_bytes) * NANO),
    ];
    there.into_iter().find_map(|(resource, capacity)| {
        let wanted = resources::pod_request(pod, resource);
        let used: i128 = others.iter().map(|p| resources::pod_request(p, resource)).sum();
        let unit = if resource == "cpu" { 1_000_000 } else { NANO };
        let message = || {
            format!(
                "Node didn't have enough resource: {resource}, requested: {}, used: {}, capacity: {}",
                wanted / unit,
                used / unit,
                capacity / unit
            )
        };
        (wanted > 0 && used + wanted > capacity).then(|| (resource, message()))
    })
}

type HostPort = (String, String, i32);

fn host_ports(pod: &Pod) -> Vec<HostPort> {
    let ports = spec::containers(pod).iter().flat_map(|c| c.ports.as_deref().unwrap_or_default());
    ports
        .filter_map(|p| {
            let port = p.host_port.filter(|p| *p > 0)?;
            let ip = p.host_ip.clone().filter(|ip| !ip.is_empty()).unwrap_or_else(|| "0.0.0.0".into());
            Some((ip, p.protocol.clone().unwrap_or_else(|| "TCP".into()), port))
        })
        .collect()
}

fn conflicts(a: &HostPort, b: &HostPort) -> bool {
    a.1 == b.1 && a.2 == b.2 && (a.0 == b.0 || a.0 == "0.0.0.0" || b.0 == "0.0.0.0")
}

fn matches_node(pod: &Pod, node: &Node<'_>) -> bool {
    let spec = spec::spec(pod);
    let selected = spec.node_selector.iter().flatten().all(|(k, v)| node.labels.get(k) == Some(v));
    let required = spec
        .affinity
        .as_ref()
        .and_then(|a| a.node_affinity.as_ref())
        .and_then(|n| n.required_during_scheduling_ignored_during_execution.as_ref());
    selected && required.is_none_or(|r| r.node_selector_terms.iter().any(|t| term_matches(t, node)))
}

fn term_matches(term: &NodeSelectorTerm, node: &Node<'_>) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    expressions.iter().all(|r| requirement_matches(r, node.labels.get(&r.key).map(String::as_str)))
        && fields.iter().all(|r| {
            let value = (r.key == "metadata.name").then_some(node.name);
            requirement_matches(r, value)
        })
}

fn requirement_matches(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let listed = value.is_some_and(|v| values.iter().any(|w| w == v));
    let compare = |greater: bool| {
        let own: Option<i64> = value.and_then(|v| v.parse().ok());
        let bound: Option<i64> = values.first().and_then(|v| v.parse().ok());
        own.zip(bound).is_some_and(|(own, bound)| if greater { own > bound } else { own < bound })
    };
    match requirement.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compare(true),
        "Lt" => compare(false),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(spec: Value) -> Pod {
        serde_json::from_value(json!({ "metadata": { "name": "p" }, "spec": spec })).expect("a pod")
    }

    fn check(spec: Value, others: &[Value]) -> String {
        let labels = BTreeMap::from([("zone".to_owned(), "a".to_owned())]);
        let allocatable =
            Allocatable { cpu_milli: 1000, memory_bytes: 1 << 30, ephemeral_bytes: 1 << 30, pods: 3 };
        let node = Node { name: "n", labels: &labels, allocatable, allowed_sysctls: &[] };
        let others: Vec<_> = others.iter().map(|o| Arc::new(pod(o.clone()))).collect();
        match admit(&pod(spec), &node, &others) {
            Ok(()) => "admitted".into(),
            Err(refusal) => refusal.reason,
        }
    }

    fn cpu(amount: &str) -> Value {
        json!({ "containers": [{ "name": "c", "resources": { "requests": { "cpu": amount } } }] })
    }

    #[test]
    fn resources_of_all_pods_have_to_fit() {
        assert_eq!(check(cpu("600m"), &[cpu("400m")]), "admitted");
        assert_eq!(check(cpu("601m"), &[cpu("400m")]), "OutOfcpu");
        assert_eq!(check(cpu("0"), &[cpu("0"), cpu("0"), cpu("0")]), "OutOfpods");
    }

    #[test]
    fn selectors_and_affinity_have_to_match_the_node() {
        let select = |zone: &str| json!({ "containers": [], "nodeSelector": { "zone": zone } });
        assert_eq!(check(select("a"), &[]), "admitted");
        assert_eq!(check(select("b"), &[]), "NodeAffinity");
        let affinity = json!({ "containers": [], "affinity": { "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": [
                { "matchExpressions": [{ "key": "zone", "operator": "NotIn", "values": ["a"] }] },
                { "matchFields": [{ "key": "metadata.name", "operator": "In", "values": ["n"] }] },
            ] },
        } } });
        assert_eq!(check(affinity, &[]), "admitted");
    }

    #[test]
    fn host_ports_conflict_by_address_and_protocol() {
        let port = |ip: &str, protocol: &str| {
            json!({ "containers": [{ "name": "c", "ports": [
                { "containerPort": 80, "hostPort": 8080, "hostIP": ip, "protocol": protocol },
            ] }] })
        };
        assert_eq!(check(port("127.0.0.1", "TCP"), &[port("", "TCP")]), "NodePorts");
        assert_eq!(check(port("127.0.0.1", "TCP"), &[port("127.0.0.2", "TCP")]), "admitted");
        assert_eq!(check(port("", "UDP"), &[port("", "TCP")]), "admitted");
    }
}
