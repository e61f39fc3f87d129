//! Endpoints objects, as they were before slices.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{HEADLESS, pods};
use crate::views::{Address, Pod, Service, Subset, SubsetPort, TargetRef};

/// The label of the Endpoints that this controller keeps.
pub const MANAGED_BY: (&str, &str) = ("endpoints.kubernetes.io/managed-by", "endpoint-controller");
/// Addresses in one object at most.
const CAPACITY: usize = 1000;

pub fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone();
    labels.remove(HEADLESS);
    labels.insert(MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned());
    if service.is_headless() {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels
}

/// The addresses of a port.
#[derive(Default, PartialEq)]
struct Behind {
    ready: Vec<Address>,
    not_ready: Vec<Address>,
}

/// Addresses by their ports: ports that lead to the same addresses share a subset.
pub fn subsets(service: &Service, pods: &[Arc<Pod>]) -> Vec<Subset> {
    // `None` stands for a headless Service without ports.
    let mut by_port: BTreeMap<Option<SubsetPort>, Behind> = BTreeMap::new();
    let reachable = pods.iter().filter(|p| {
        let leaves = p.metadata.is_deleting() && !service.spec.publish_not_ready_addresses;
        pods::has_endpoint(p) && !leaves
    });
    for pod in reachable.take(CAPACITY) {
        let ready = service.spec.publish_not_ready_addresses || pod.is_ready();
        let mut add = |port: Option<SubsetPort>| {
            let behind = by_port.entry(port).or_default();
            if ready { &mut behind.ready } else { &mut behind.not_ready }.push(address(service, pod));
        };
        if service.spec.ports.is_empty() && service.is_headless() {
            add(None);
        }
        for port in &service.spec.ports {
            if let Some(number) = pods::target_port(pod, port) {
                let protocol = if port.protocol.is_empty() { "TCP" } else { &port.protocol };
                add(Some(SubsetPort {
                    name: port.name.clone(),
                    port: number,
                    protocol: protocol.to_owned(),
                    app_protocol: port.app_protocol.clone(),
                }));
            }
        }
    }
    let mut groups: Vec<(Behind, Vec<SubsetPort>)> = Vec::new();
    for (port, behind) in by_port {
        match groups.iter_mut().find(|(known, _)| *known == behind) {
            Some((_, ports)) => ports.extend(port),
            None => groups.push((behind, port.into_iter().collect())),
        }
    }
    let subset = |(behind, ports): (Behind, _)| Subset {
        addresses: behind.ready,
        not_ready_addresses: behind.not_ready,
        ports,
    };
    groups.into_iter().map(subset).collect()
}

fn address(service: &Service, pod: &Pod) -> Address {
    let named = pod.spec.subdomain == service.metadata.name;
    Address {
        ip: pod.status.pod_ip.clone(),
        hostname: if named { pod.spec.hostname.clone() } else { String::new() },
        node_name: Some(pod.spec.node_name.clone()).filter(|n| !n.is_empty()),
        target_ref: Some(TargetRef {
            kind: "Pod".to_owned(),
            namespace: pod.namespace().to_owned(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn ports_with_the_same_addresses_share_a_subset() {
        let service: Service = serde_json::from_value(json!({"metadata": {"name": "s"}, "spec": {"selector": {"a": "b"}, "ports": [
            {"name": "x", "port": 1, "targetPort": 10}, {"name": "y", "port": 2, "targetPort": 20}, {"name": "z", "port": 3, "targetPort": "z"}]}}))
        .unwrap();
        let pod = |name: &str, ip: &str, ready: &str, ports: serde_json::Value| -> Arc<Pod> {
            Arc::new(serde_json::from_value(json!({"metadata": {"name": name, "uid": name}, "spec": {"containers": [{"name": "c", "ports": ports}]},
                "status": {"podIP": ip, "conditions": [{"type": "Ready", "status": ready}]}})).unwrap())
        };
        let pods = [
            pod("a", "10.0.0.1", "True", json!([{"name": "z", "containerPort": 30}])),
            pod("b", "10.0.0.2", "False", json!([])),
            pod("none", "", "True", json!([])),
        ];
        let subsets = subsets(&service, &pods);
        let summary: Vec<(Vec<i32>, usize, usize)> = subsets
            .iter()
            .map(|s| {
                (s.ports.iter().map(|p| p.port).collect(), s.addresses.len(), s.not_ready_addresses.len())
            })
            .collect();
        assert_eq!(summary, [(vec![10, 20], 1, 1), (vec![30], 1, 0)]);
    }
}
