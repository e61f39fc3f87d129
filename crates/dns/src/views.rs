//! What the DNS daemon keeps of the API's objects, as a directory of names.

use std::net::IpAddr;
use std::sync::Arc;

use keelson_client::{Informer, Key, Meta, projection};
use serde::Deserialize;

use crate::zone::{Directory, Endpoint, Port, Service};

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct ServiceView {
    metadata: Meta,
    spec: ServiceSpec,
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
    external_name: String,
    ports: Vec<PortView>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct PortView {
    name: Option<String>,
    protocol: Option<String>,
    port: Option<u16>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct SliceView {
    metadata: Meta,
    endpoints: Vec<EndpointView>,
    ports: Vec<PortView>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct EndpointView {
    addresses: Vec<String>,
    hostname: Option<String>,
    conditions: Conditions,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Conditions {
    ready: Option<bool>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct NamespaceView {
    metadata: Meta,
}

projection!(ServiceView, "", "v1", "services", "Service", namespaced);
projection!(SliceView, "discovery.k8s.io", "v1", "endpointslices", "EndpointSlice", namespaced);
projection!(NamespaceView, "", "v1", "namespaces", "Namespace", cluster);

const BY_SERVICE: &str = "service";
const BY_ADDRESS: &str = "address";

impl From<&PortView> for Port {
    fn from(view: &PortView) -> Self {
        Self {
            name: view.name.clone().unwrap_or_default(),
            protocol: view.protocol.as_deref().unwrap_or("TCP").to_ascii_lowercase(),
            number: view.port.unwrap_or_default(),
        }
    }
}

impl ServiceView {
    fn addresses(&self) -> Vec<IpAddr> {
        let single = std::slice::from_ref(&self.spec.cluster_ip);
        let listed = if self.spec.cluster_ips.is_empty() { single } else { &self.spec.cluster_ips };
        listed.iter().filter_map(|text| text.parse().ok()).collect()
    }
}

impl SliceView {
    fn service(&self) -> Option<&String> {
        self.metadata.labels.get("kubernetes.io/service-name")
    }

    /// The slice's part of a Service's endpoints: the ready ones; an unknown state counts as ready.
    fn ready(&self) -> impl Iterator<Item = Endpoint> + '_ {
        let ready = self.endpoints.iter().filter(|e| e.conditions.ready.unwrap_or(true));
        ready.flat_map(|e| {
            let addresses = e.addresses.iter().filter_map(|a| a.parse().ok());
            addresses.map(|address| Endpoint {
                address,
                hostname: e.hostname.clone().filter(|h| !h.is_empty()),
                ports: self.ports.iter().map(Port::from).collect(),
            })
        })
    }
}

/// The informers behind the zone.
#[derive(Clone)]
pub struct Cluster {
    pub services: Arc<Informer<ServiceView>>,
    pub slices: Arc<Informer<SliceView>>,
    pub namespaces: Arc<Informer<NamespaceView>>,
}

impl Cluster {
    pub fn watch(client: &kube::Client) -> Self {
        let services = Informer::<ServiceView>::new(client)
            .index(BY_ADDRESS, |service| service.addresses().iter().map(ToString::to_string).collect())
            .start();
        let slices = Informer::<SliceView>::new(client)
            .index(BY_SERVICE, |slice| {
                let namespace = slice.metadata.namespace.as_deref().unwrap_or_default();
                slice.service().map(|name| format!("{namespace}/{name}")).into_iter().collect()
            })
            .index(BY_ADDRESS, |slice| slice.endpoints.iter().flat_map(|e| e.addresses.clone()).collect())
            .start();
        let namespaces = Informer::<NamespaceView>::new(client).start();
        Self { services, slices, namespaces }
    }

    pub async fn synced(&self) {
        tokio::join!(self.services.synced(), self.slices.synced(), self.namespaces.synced());
    }

    pub fn has_synced(&self) -> bool {
        self.services.has_synced() && self.slices.has_synced() && self.namespaces.has_synced()
    }
}

impl Directory for Cluster {
    fn has_namespace(&self, namespace: &str) -> bool {
        self.namespaces.get(&Key::cluster(namespace)).is_some()
    }

    fn service(&self, namespace: &str, name: &str) -> Option<Service> {
        let view = self.services.get(&Key::new(namespace, name))?;
        let external = view.spec.kind == "ExternalName";
        Some(Service {
            addresses: if external { Vec::new() } else { view.addresses() },
            external_name: external
                .then(|| view.spec.external_name.trim_end_matches('.').to_ascii_lowercase()),
            ports: view.spec.ports.iter().map(Port::from).collect(),
        })
    }

    fn endpoints(&self, namespace: &str, name: &str) -> Vec<Endpoint> {
        let slices = self.slices.by_index(BY_SERVICE, &format!("{namespace}/{name}"));
        let mut endpoints: Vec<Endpoint> =
            slices.iter().flat_map(|slice| slice.ready().collect::<Vec<_>>()).collect();
        endpoints.sort_by_key(|e| e.address);
        endpoints
    }

    fn service_at(&self, address: IpAddr) -> Option<(String, String)> {
        let service = self.services.by_index(BY_ADDRESS, &address.to_string()).into_iter().next()?;
        Some((service.metadata.namespace.clone().unwrap_or_default(), service.metadata.name.clone()))
    }

    fn endpoint_at(&self, address: IpAddr) -> Option<(String, String, Endpoint)> {
        self.slices.by_index(BY_ADDRESS, &address.to_string()).into_iter().find_map(|slice| {
            let endpoint = slice.ready().find(|e| e.address == address)?;
            let namespace = slice.metadata.namespace.clone().unwrap_or_default();
            Some((namespace, slice.service()?.clone(), endpoint))
        })
    }
}
