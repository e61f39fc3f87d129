//! What the net proxy keeps of the API's objects, and how it becomes the planner's input.

use std::net::Ipv4Addr;
use std::time::Duration;

use keelson_client::{Meta, projection};
use keelson_net_plan::{Endpoint, Protocol, Service, ServiceName, ServicePort};
use serde::Deserialize;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct ServiceView {
    pub metadata: Meta,
    spec: ServiceSpec,
    status: ServiceStatus,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ServiceSpec {
    #[serde(rename = "type")]
    kind: String,
    #[serde(rename = "clusterIP")]
    cluster_ip: String,
    #[serde(rename = "clusterIPs")]
    cluster_ips: Vec<String>,
    #[serde(rename = "externalIPs")]
    external_ips: Vec<String>,
    load_balancer_source_ranges: Vec<String>,
    ports: Vec<Port>,
    session_affinity: String,
    session_affinity_config: Option<AffinityConfig>,
    internal_traffic_policy: String,
    external_traffic_policy: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Port {
    name: String,
    protocol: String,
    port: u16,
    node_port: u16,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct AffinityConfig {
    #[serde(rename = "clientIP")]
    client_ip: ClientIp,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ClientIp {
    timeout_seconds: Option<u64>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ServiceStatus {
    load_balancer: LoadBalancer,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct LoadBalancer {
    ingress: Vec<Ingress>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Ingress {
    ip: String,
    ip_mode: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SliceView {
    pub metadata: Meta,
    address_type: String,
    endpoints: Vec<SliceEndpoint>,
    ports: Vec<SlicePort>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SliceEndpoint {
    addresses: Vec<String>,
    conditions: Conditions,
    node_name: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Conditions {
    ready: Option<bool>,
    serving: Option<bool>,
    terminating: Option<bool>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct SlicePort {
    name: Option<String>,
    protocol: Option<String>,
    port: Option<u16>,
}

projection!(ServiceView, "", "v1", "services", "Service", namespaced);
projection!(SliceView, "discovery.k8s.io", "v1", "endpointslices", "EndpointSlice", namespaced);

/// Names the proxy that a Service is for, when it is not for this one.
const OTHER_PROXY: &str = "service.kubernetes.io/service-proxy-name";
/// What upstream uses where no time is given: three hours.
const AFFINITY: u64 = 10_800;

impl SliceView {
    /// The Service that the slice belongs to.
    pub fn service(&self) -> Option<ServiceName> {
        let name = self.metadata.labels.get("kubernetes.io/service-name")?.clone();
        Some(ServiceName { namespace: self.metadata.namespace.clone().unwrap_or_default(), name })
    }
}

pub fn service_name(meta: &Meta) -> ServiceName {
    ServiceName { namespace: meta.namespace.clone().unwrap_or_default(), name: meta.name.clone() }
}

/// The planner's view of a Service with its slices; None when it has no address that a packet could go to.
pub fn plan_input<'a>(
    view: &ServiceView,
    slices: impl Iterator<Item = &'a SliceView> + Clone,
    node: &str,
) -> Option<Service> {
    let spec = &view.spec;
    if spec.kind == "ExternalName" || view.metadata.labels.contains_key(OTHER_PROXY) {
        return None;
    }
    let addresses =
        |list: &[String]| -> Vec<Ipv4Addr> { list.iter().filter_map(|a| a.parse().ok()).collect() };
    let mut cluster_ips = addresses(&spec.cluster_ips);
    if cluster_ips.is_empty() {
        // "None" (headless) does not parse either.
        cluster_ips.extend(spec.cluster_ip.parse::<Ipv4Addr>());
    }
    if cluster_ips.is_empty() {
        return None;
    }
    let timeout = spec.session_affinity_config.as_ref().and_then(|c| c.client_ip.timeout_seconds);
    let ports = spec.ports.iter().filter_map(|port| {
        Some(ServicePort {
            name: port.name.clone(),
            protocol: Protocol::parse(&port.protocol)?,
            port: port.port,
            node_port: (port.node_port != 0).then_some(port.node_port),
            endpoints: endpoints(port, slices.clone(), node),
        })
    });
    let vip = |ingress: &&Ingress| ingress.ip_mode != "Proxy";
    Some(Service {
        cluster_ips,
        external_ips: addresses(&spec.external_ips),
        load_balancer_ips: view
            .status
            .load_balancer
            .ingress
            .iter()
            .filter(vip)
            .filter_map(|ingress| ingress.ip.parse().ok())
            .collect(),
        source_ranges: spec
            .load_balancer_source_ranges
            .iter()
            .filter_map(|r| r.trim().parse().ok())
            .collect(),
        ports: ports.collect(),
        affinity: (spec.session_affinity == "ClientIP")
            .then(|| Duration::from_secs(timeout.unwrap_or(AFFINITY))),
        internal_local: spec.internal_traffic_policy == "Local",
        external_local: spec.external_traffic_policy == "Local",
    })
}

/// A slice's port belongs to the Service's port of the same name and protocol.
fn endpoints<'a>(port: &Port, slices: impl Iterator<Item = &'a SliceView>, node: &str) -> Vec<Endpoint> {
    let protocol = Protocol::parse(&port.protocol);
    let mut found = Vec::new();
    for slice in slices.filter(|s| s.address_type == "IPv4") {
        let same = |p: &&SlicePort| {
            p.name.as_deref().unwrap_or_default() == port.name
                && Protocol::parse(p.protocol.as_deref().unwrap_or_default()) == protocol
        };
        let Some(number) = slice.ports.iter().find(same).and_then(|p| p.port) else { continue };
        for endpoint in &slice.endpoints {
            // An unknown state counts as ready, and what is ready serves.
            let ready = endpoint.conditions.ready.unwrap_or(true);
            let address = endpoint.addresses.first().and_then(|a| a.parse().ok());
            found.extend(address.map(|address| Endpoint {
                address,
                port: number,
                ready,
                serving: endpoint.conditions.serving.unwrap_or(ready),
                terminating: endpoint.conditions.terminating.unwrap_or(false),
                local: endpoint.node_name == node,
            }));
        }
    }
    found.sort();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn service(spec: Value) -> ServiceView {
        serde_json::from_value(json!({"metadata": {"name": "s", "namespace": "n"}, "spec": spec})).unwrap()
    }

    #[test]
    fn endpoints_are_found_by_port_name_and_marked_local_by_node() {
        let slice: SliceView = serde_json::from_value(json!({
            "metadata": {"name": "s-1", "namespace": "n", "labels": {"kubernetes.io/service-name": "s"}},
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}, {"name": "dns", "port": 53, "protocol": "UDP"}],
            "endpoints": [
                {"addresses": ["10.0.0.1"], "nodeName": "here", "conditions": {"ready": true}},
                {"addresses": ["10.0.0.2"], "nodeName": "there", "conditions": {}},
                {"addresses": ["10.0.0.3"], "conditions": {"ready": false, "serving": true, "terminating": true}}]}))
        .unwrap();
        let view = service(json!({"clusterIP": "10.96.0.5", "clusterIPs": ["10.96.0.5"],
            "ports": [{"name": "http", "port": 80, "nodePort": 30000}]}));
        let planned = plan_input(&view, [&slice].into_iter(), "here").unwrap();
        let port = &planned.ports[0];
        assert_eq!((port.node_port, port.endpoints.len()), (Some(30000), 3));
        let flags: Vec<_> = port.endpoints.iter().map(|e| (e.port, e.ready, e.serving, e.local)).collect();
        assert_eq!(flags, [(8080, true, true, true), (8080, true, true, false), (8080, false, true, false)]);
    }

    #[test]
    fn services_without_an_address_are_left_out() {
        let none = |spec| plan_input(&service(spec), std::iter::empty(), "here").is_none();
        assert!(none(json!({"clusterIP": "None", "clusterIPs": ["None"], "ports": [{"port": 80}]})));
        assert!(none(json!({"type": "ExternalName", "externalName": "example.com"})));
        assert!(!none(json!({"clusterIP": "10.96.0.5", "ports": [{"port": 80}]})));
    }

    #[test]
    fn affinity_has_upstreams_default_time() {
        let view = service(
            json!({"clusterIP": "10.96.0.5", "sessionAffinity": "ClientIP", "ports": [{"port": 80}]}),
        );
        let planned = plan_input(&view, std::iter::empty(), "here").unwrap();
        assert_eq!(planned.affinity, Some(Duration::from_secs(10_800)));
    }
}
