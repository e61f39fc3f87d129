//! Endpoints and EndpointSlices.

use keelson_api_types::FieldError;
use serde_json::Value;

use crate::strategies::Strategy;
use crate::strategies::check::{At, Errors};
use crate::strategies::common::{PROTOCOLS, ip_warnings};
use crate::strategies::edit::{self, default, default_zero, same};

pub struct Endpoints;

impl Strategy for Endpoints {
    fn default(&self, object: &mut Value) {
        for subset in edit::each(object, "subsets") {
            for port in edit::each(subset, "ports") {
                default_zero(port, "protocol", "TCP");
            }
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut e = Errors::new();
        let at = At::root(object);
        for subset in at.f("subsets").each() {
            subset_errors(&subset, is_own(&at), &mut e);
        }
        e.into_vec()
    }

    fn validate_update(&self, object: &Value, old: &Value) -> Vec<FieldError> {
        if same(At::root(object).f("subsets").value, At::root(old).f("subsets").value) {
            return Vec::new();
        }
        self.validate(object)
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>) -> Vec<String> {
        let at = At::root(object);
        let manager = at.dig(&["metadata", "labels", "endpoints.kubernetes.io/managed-by"]);
        if manager.s() == "endpoint-controller" {
            return Vec::new();
        }
        at.f("subsets")
            .each()
            .flat_map(|subset| subset.f("addresses").each().chain(subset.f("notReadyAddresses").each()))
            .filter_map(|address| ip_warnings(&address.path.field("ip"), address.f("ip").s()))
            .collect()
    }
}

fn subset_errors(at: &At<'_>, own: bool, e: &mut Errors) {
    let (ready, waiting) = (at.f("addresses"), at.f("notReadyAddresses"));
    if ready.is_empty() && waiting.is_empty() {
        e.required(&at.path, "must specify `addresses` or `notReadyAddresses`");
    }
    for address in ready.each().chain(waiting.each()) {
        let ip = address.f("ip");
        let before = e.len();
        e.ip(&ip, &[]);
        if !address.f("hostname").is_empty() {
            e.dns_label(&address.f("hostname"));
        }
        if let Some(node) = address.get("nodeName") {
            e.dns_subdomain(&node);
        }
        if e.len() == before && !own {
            e.endpoint_ip(&ip);
        }
    }
    let ports = at.f("ports");
    for port in ports.each() {
        port_errors(&port, ports.len() > 1, e);
    }
}

fn port_errors(port: &At<'_>, needs_name: bool, e: &mut Errors) {
    let name = port.f("name");
    if !name.is_empty() {
        e.dns_label(&name);
    } else if needs_name {
        e.required(&name.path, "");
    }
    e.port_number(&port.f("port"));
    e.one_of(&port.f("protocol"), PROTOCOLS);
    if let Some(protocol) = port.get("appProtocol") {
        e.qualified_name(&protocol);
    }
}

/// The API server's own endpoints: one that serves loopback alone says so, on one machine and in tests.
fn is_own(object: &At<'_>) -> bool {
    let meta = object.f("metadata");
    let slice = meta.dig(&["labels", "kubernetes.io/service-name"]).s();
    meta.f("namespace").s() == "default" && [slice, meta.f("name").s()].contains(&"kubernetes")
}

const ADDRESS_TYPES: &[&str] = &["FQDN", "IPv4", "IPv6"];
const MAX_ENDPOINTS: usize = 1000;
const MAX_PORTS: usize = 20000;

pub struct EndpointSlice;

impl Strategy for EndpointSlice {
    fn default(&self, object: &mut Value) {
        for port in edit::each(object, "ports") {
            default(port, "name", "");
            default(port, "protocol", "TCP");
        }
        default(object, "endpoints", serde_json::json!([]));
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let (at, mut e) = (At::root(object), Errors::new());
        e.one_of(&at.f("addressType"), ADDRESS_TYPES);
        slice(&at, &mut e);
        e.into_vec()
    }

    fn validate_update(&self, object: &Value, old: &Value) -> Vec<FieldError> {
        let (at, mut e) = (At::root(object), Errors::new());
        slice(&at, &mut e);
        e.immutable(&at.f("addressType"), &At::root(old).f("addressType"));
        e.into_vec()
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        let at = At::root(object);
        let kind = at.f("addressType").s();
        let fqdn = (old.is_none() && kind == "FQDN")
            .then(|| "spec.addressType: FQDN endpoints are deprecated".to_owned());
        // Upstream's controllers spell addresses well whatever they are given.
        let manager = at.dig(&["metadata", "labels", "endpointslice.kubernetes.io/managed-by"]).s();
        if ["endpointslice-controller.k8s.io", "endpointslicemirroring-controller.k8s.io"].contains(&manager)
        {
            return fqdn.into_iter().collect();
        }
        let addresses = at.f("endpoints").each().flat_map(|endpoint| endpoint.f("addresses").each());
        let odd = addresses.filter_map(|address| ip_warnings(&address.path, address.s()));
        fqdn.into_iter().chain(odd).collect()
    }

    fn also_changes_generation(&self, object: &Value, old: &Value) -> bool {
        let labels = |object| At::root(object).dig(&["metadata", "labels"]);
        !same(labels(object).value, labels(old).value)
    }
}

fn slice(at: &At<'_>, e: &mut Errors) {
    let (kind, endpoints, ports) = (at.f("addressType").s(), at.f("endpoints"), at.f("ports"));
    if endpoints.len() > MAX_ENDPOINTS {
        e.too_many(&endpoints.path, endpoints.len(), MAX_ENDPOINTS);
        return;
    }
    for endpoint in endpoints.each() {
        let addresses = endpoint.f("addresses");
        if addresses.is_empty() {
            e.required(&addresses.path, "must contain at least 1 address");
        } else if addresses.len() > 100 {
            e.too_many(&addresses.path, addresses.len(), 100);
        }
        for address in addresses.each() {
            match kind {
                "FQDN" => e.dns_subdomain(&address),
                "IPv4" | "IPv6" => slice_address(&address, kind, is_own(at), e),
                _ => {}
            }
        }
        if let Some(node) = endpoint.get("nodeName") {
            e.dns_subdomain(&node);
        }
        if let Some(host) = endpoint.get("hostname") {
            e.dns_label(&host);
        }
        e.labels(&endpoint.f("deprecatedTopology"));
    }
    if ports.len() > MAX_PORTS {
        e.too_many(&ports.path, ports.len(), MAX_PORTS);
        return;
    }
    let mut seen = Vec::new();
    for port in ports.each() {
        let name = port.f("name");
        if !name.is_empty() {
            e.dns_label(&name);
        }
        if seen.contains(&name.s()) {
            e.duplicate(&name.path, name.s());
        }
        seen.push(name.s());
        e.one_of(&port.f("protocol"), PROTOCOLS);
        if port.f("port").has() {
            e.port_number(&port.f("port"));
        }
        if let Some(protocol) = port.get("appProtocol") {
            e.qualified_name(&protocol);
        }
    }
}

fn slice_address(at: &At<'_>, kind: &str, own: bool, e: &mut Errors) {
    let before = e.len();
    e.ip(at, &[]);
    if e.len() > before {
        return;
    }
    if (kind == "IPv4") == at.s().contains(':') {
        e.invalid(at, format!("must be an {kind} address"));
    }
    if !own {
        e.endpoint_ip(at);
    }
}
