//! From pods to endpoints.

use std::net::IpAddr;
use std::sync::Arc;

use serde_json::Value;

use super::slices::Desired;
use crate::views::{Endpoint, EndpointConditions, EndpointPort, Pod, Service, ServicePort, TargetRef};

/// Whether two states of a pod make the same endpoint.
pub fn same(old: &Pod, new: &Pod) -> bool {
    old.metadata.labels == new.metadata.labels
        && old.metadata.is_deleting() == new.metadata.is_deleting()
        && old.is_ready() == new.is_ready()
        && old.is_finished() == new.is_finished()
        && old.status.pod_ip == new.status.pod_ip
        && old.status.pod_ips.len() == new.status.pod_ips.len()
        && old.spec.node_name == new.spec.node_name
}

/// Whether a pod can be reached at all.
pub fn has_endpoint(pod: &Pod) -> bool {
    !pod.is_finished() && !pod.status.pod_ip.is_empty()
}

/// The pod's address of a family (`IPv4` or `IPv6`).
fn address(pod: &Pod, family: &str) -> Option<String> {
    let addresses = pod.status.pod_ips.iter().map(|ip| &ip.ip).chain([&pod.status.pod_ip]);
    let of_family = |ip: &&String| match ip.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => family == "IPv4",
        Ok(IpAddr::V6(_)) => family == "IPv6",
        Err(_) => false,
    };
    addresses.filter(|ip| !ip.is_empty()).find(of_family).cloned()
}

/// The number that a Service's port leads to in a pod; a name is looked up in its containers.
pub fn target_port(pod: &Pod, port: &ServicePort) -> Option<i32> {
    match &port.target_port {
        Some(Value::Number(number)) if number.as_i64() != Some(0) => {
            number.as_i64().and_then(|n| i32::try_from(n).ok())
        }
        Some(Value::String(name)) if !name.is_empty() => {
            let sidecars = pod.spec.init_containers.iter().filter(|c| c.restart_policy == "Always");
            let ports = pod.spec.containers.iter().chain(sidecars).flat_map(|c| &c.ports);
            let protocol = |p: &str| if p.is_empty() { "TCP".to_owned() } else { p.to_owned() };
            ports
                .filter(|p| p.name == *name && protocol(&p.protocol) == protocol(&port.protocol))
                .map(|p| p.container_port)
                .next()
        }
        _ => Some(port.port),
    }
}

fn ports(service: &Service, pod: &Pod) -> Vec<EndpointPort> {
    let resolved = service.spec.ports.iter().filter_map(|port| {
        Some(EndpointPort {
            name: port.name.clone(),
            port: Some(target_port(pod, port)?),
            protocol: if port.protocol.is_empty() { "TCP".to_owned() } else { port.protocol.clone() },
            app_protocol: port.app_protocol.clone(),
        })
    });
    let mut ports: Vec<_> = resolved.collect();
    ports.sort();
    ports
}

fn endpoint(service: &Service, pod: &Pod, address: String, zone: Option<String>) -> Endpoint {
    let serving = pod.is_ready();
    let terminating = pod.metadata.is_deleting();
    let ready = service.spec.publish_not_ready_addresses || (serving && !terminating);
    let named = !pod.spec.hostname.is_empty() && pod.spec.subdomain == service.metadata.name;
    Endpoint {
        addresses: vec![address],
        conditions: EndpointConditions {
            ready: Some(ready),
            serving: Some(serving),
            terminating: Some(terminating),
        },
        hostname: named.then(|| pod.spec.hostname.clone()),
        target_ref: Some(TargetRef {
            kind: "Pod".to_owned(),
            namespace: pod.namespace().to_owned(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
        }),
        node_name: Some(pod.spec.node_name.clone()).filter(|n| !n.is_empty()),
        zone,
    }
}

/// The endpoints of a Service's pods: one group per address family and set of ports, empty groups for families without
/// any pod.
pub fn desired(service: &Service, pods: &[Arc<Pod>], zone: impl Fn(&str) -> Option<String>) -> Vec<Desired> {
    let families = match service.spec.ip_families.as_slice() {
        [] => vec!["IPv4".to_owned()],
        families => families.to_vec(),
    };
    let mut groups = Vec::new();
    for family in families {
        let first = groups.len();
        for pod in pods.iter().filter(|p| has_endpoint(p)) {
            let Some(address) = address(pod, &family) else { continue };
            let ports = ports(service, pod);
            let endpoint = endpoint(service, pod, address, zone(&pod.spec.node_name));
            let known = groups[first..].iter_mut().find(|g: &&mut Desired| g.ports == ports);
            match known {
                Some(group) => group.endpoints.push(endpoint),
                None => {
                    groups.push(Desired { address_type: family.clone(), ports, endpoints: vec![endpoint] })
                }
            }
        }
        if groups.len() == first {
            groups.push(Desired { address_type: family, ports: Vec::new(), endpoints: Vec::new() });
        }
    }
    groups
}
