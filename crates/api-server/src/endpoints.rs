//! Where a Service's requests go: the ready endpoints of its EndpointSlices.

use std::net::SocketAddr;

use keelson_api_types::Gvr;
use serde_json::Value;

use crate::app::App;
use crate::meta::string;

/// A Service's port whose slices carry a name.
pub fn named_port(service: &Value, number: i64) -> Option<&str> {
    let ports = service["spec"]["ports"].as_array().into_iter().flatten();
    ports.into_iter().find(|p| p["port"].as_i64() == Some(number)).map(|p| string(p, "name"))
}

/// The EndpointSlices of a Service, from memory.
pub fn slices(app: &App, namespace: &str, service: &str) -> Vec<Value> {
    let Some(slices) = app.registry.get(&Gvr::new("discovery.k8s.io", "v1", "endpointslices")) else {
        return Vec::new();
    };
    let belongs = |entry: &crate::cache::Entry| {
        entry.labels.get("kubernetes.io/service-name").is_some_and(|n| n == service)
    };
    let found = slices.cache.list(&format!("{namespace}/"), None, 0, belongs);
    found.entries.iter().filter_map(|entry| entry.decode().ok()).collect()
}

/// The addresses of a slice that are ready on a port, each with its endpoint.
pub fn ready<'a>(slice: &'a Value, port_name: &str) -> Vec<(SocketAddr, &'a Value)> {
    let mut ports = slice["ports"].as_array().into_iter().flatten();
    let port = ports.find(|p| string(p, "name") == port_name).and_then(|p| p["port"].as_u64());
    let Some(port) = port.and_then(|p| u16::try_from(p).ok()) else { return Vec::new() };
    let endpoints = slice["endpoints"].as_array().into_iter().flatten();
    endpoints
        .filter(|e| e["conditions"]["ready"] != false)
        .filter_map(|e| Some((SocketAddr::new(e["addresses"][0].as_str()?.parse().ok()?, port), e)))
        .collect()
}
