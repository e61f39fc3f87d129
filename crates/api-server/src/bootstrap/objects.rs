//! The objects besides RBAC that a cluster starts with.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::LazyLock;

use ipnet::IpNet;
use keelson_api_types::{Gvr, meta};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::authn::config::RequestHeader;

static FLOW_CONTROL: &str = include_str!("../../data/flowcontrol.jsonl");

/// What a cluster's own configuration puts into its objects.
#[derive(Debug, Clone)]
pub struct Settings {
    pub service_cidr: IpNet,
    /// Where clients in the cluster reach this server.
    pub advertise: SocketAddr,
    /// PEM of the authority of client certificates.
    pub client_ca: String,
    /// PEM of the front proxy's authority, if there is one.
    pub front_proxy_ca: Option<String>,
    /// How that proxy says who the caller is.
    pub request_header: RequestHeader,
}

/// How a stored object is compared with the wanted one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Only created.
    Create,
    FlowControl,
    TokenTracking,
    Fields(&'static [&'static str]),
}

/// An object to hold up.
#[derive(Debug, Clone)]
pub struct Wanted {
    pub gvr: Gvr,
    pub object: Value,
    pub policy: Policy,
}

impl Wanted {
    fn new(group: &str, version: &str, resource: &str, policy: Policy, object: Value) -> Self {
        Self { gvr: Gvr::new(group, version, resource), object, policy }
    }
}

pub fn namespaces() -> Vec<Wanted> {
    ["default", "kube-system", "kube-public", "kube-node-lease"]
        .map(|name| {
            let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {
                "name": name, "labels": {"kubernetes.io/metadata.name": name}}});
            Wanted::new("", "v1", "namespaces", Policy::Create, object)
        })
        .into()
}

#[derive(Deserialize)]
struct FlowRow {
    kind: String,
    name: String,
    spec: Value,
}

static FLOW_ROWS: LazyLock<Vec<FlowRow>> = LazyLock::new(|| {
    FLOW_CONTROL
        .lines()
        .map(|line| serde_json::from_str(line).expect("flowcontrol.jsonl holds one object a line"))
        .collect()
});

pub const FLOW_GROUP: &str = "flowcontrol.apiserver.k8s.io";

pub fn flow_control() -> Vec<Wanted> {
    FLOW_ROWS
        .iter()
        .map(|row| {
            let resource = match row.kind.as_str() {
                "FlowSchema" => "flowschemas",
                _ => "prioritylevelconfigurations",
            };
            let object = json!({
                "apiVersion": format!("{FLOW_GROUP}/v1"), "kind": row.kind,
                "metadata": {"name": row.name, "annotations": {"apf.kubernetes.io/autoupdate-spec": "true"}},
                "spec": row.spec,
            });
            Wanted::new(FLOW_GROUP, "v1", resource, Policy::FlowControl, object)
        })
        .collect()
}

pub fn priority_classes() -> Vec<Wanted> {
    [
        ("system-cluster-critical", 2_000_000_000, "For pods that the cluster needs on whichever node."),
        ("system-node-critical", 2_000_001_000, "For pods that their node needs and that must stay on it."),
    ]
    .map(|(name, value, description)| {
        let object = json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass",
            "metadata": {"name": name}, "value": value, "description": description,
            "preemptionPolicy": "PreemptLowerPriority"});
        Wanted::new("scheduling.k8s.io", "v1", "priorityclasses", Policy::Create, object)
    })
    .into()
}

/// The first address of the Service range: the `kubernetes` Service's own.
pub fn kubernetes_address(service_cidr: &IpNet) -> Option<IpAddr> {
    service_cidr.hosts().next()
}

fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

pub fn service_cidr(settings: &Settings) -> Wanted {
    let object = json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR",
        "metadata": {"name": "kubernetes"},
        "spec": {"cidrs": [settings.service_cidr.to_string()]}});
    Wanted::new("networking.k8s.io", "v1", "servicecidrs", Policy::Create, object)
}

/// How applications find what they need to trust this server's clients.
pub fn authentication_config(settings: &Settings) -> Wanted {
    let mut data = json!({"client-ca-file": settings.client_ca});
    if let Some(ca) = &settings.front_proxy_ca {
        data["requestheader-client-ca-file"] = ca.clone().into();
        let header = &settings.request_header;
        for (key, names) in [
            ("allowed-names", &header.allowed_names),
            ("username-headers", &header.username_headers),
            ("uid-headers", &header.uid_headers),
            ("group-headers", &header.group_headers),
            ("extra-headers-prefix", &header.extra_header_prefixes),
        ] {
            data[format!("requestheader-{key}")] = json!(names).to_string().into();
        }
    }
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": data,
        "metadata": {"namespace": "kube-system", "name": "extension-apiserver-authentication"}});
    Wanted::new("", "v1", "configmaps", Policy::Fields(&["data"]), object)
}

/// Since when the last use of tokens in Secrets is noted: none that was not used since then is known to be unused before.
pub fn token_tracking() -> Wanted {
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"since": &meta::now_rfc3339()[..10]},
        "metadata": {"namespace": "kube-system", "name": "kube-apiserver-legacy-service-account-token-tracking"}});
    Wanted::new("", "v1", "configmaps", Policy::TokenTracking, object)
}

/// The Service `default/kubernetes`, by which pods reach the API servers.
pub fn kubernetes_service(settings: &Settings) -> Option<Wanted> {
    let cluster_ip = kubernetes_address(&settings.service_cidr)?;
    let port = settings.advertise.port();
    let service = json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": "default", "name": "kubernetes",
            "labels": {"component": "apiserver", "provider": "kubernetes"}},
        "spec": {"type": "ClusterIP", "clusterIP": cluster_ip, "clusterIPs": [cluster_ip],
            "ipFamilies": [family(cluster_ip)], "ipFamilyPolicy": "SingleStack", "sessionAffinity": "None",
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": port}]}});
    Some(Wanted::new("", "v1", "services", Policy::Fields(&["spec"]), service))
}

/// The Endpoints and the EndpointSlice of that Service, with the API servers of the cluster.
pub fn kubernetes_endpoints(servers: &[IpAddr], port: u16) -> [Wanted; 2] {
    let addresses: Vec<Value> = servers.iter().map(|ip| json!({"ip": ip})).collect();
    let family = family(servers.first().copied().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)));
    let sliced: Vec<Value> =
        servers.iter().map(|ip| json!({"addresses": [ip], "conditions": {"ready": true}})).collect();
    let endpoints = json!({"apiVersion": "v1", "kind": "Endpoints",
        "metadata": {"namespace": "default", "name": "kubernetes",
            "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
        "subsets": [{"addresses": addresses, "ports": [{"name": "https", "port": port, "protocol": "TCP"}]}]});
    let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"namespace": "default", "name": "kubernetes",
            "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "addressType": family,
        "endpoints": sliced,
        "ports": [{"name": "https", "port": port, "protocol": "TCP"}]});
    [
        Wanted::new("", "v1", "endpoints", Policy::Fields(&["subsets"]), endpoints),
        Wanted::new(
            "discovery.k8s.io",
            "v1",
            "endpointslices",
            Policy::Fields(&["addressType", "endpoints", "ports"]),
            slice,
        ),
    ]
}
