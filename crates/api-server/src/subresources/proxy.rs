//! HTTP through the API server to a pod, a Service or a node agent.

mod rewrite;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::meta::string;
use http::StatusCode;
use http::header::LOCATION;
use keelson_api_types::{Gvr, StatusError};
use rand::seq::IndexedRandom;
use serde_json::Value;

use super::streams::{admit, agent_address};
use crate::app::{App, Call};
use crate::body::{Body, Response};
use crate::node::{Forward, Target};
use crate::registry::Resource;
use crate::verbs::get;

pub async fn serve(
    app: &Arc<App>,
    call: &mut Call,
    resource: &Arc<Resource>,
) -> Result<Response, StatusError> {
    let path = call.info.path.clone();
    // The proxied root has a slash, or relative links would lead astray.
    if call.info.rest.is_empty()
        && !path.ends_with('/')
        && call.method == http::Method::GET
        && call.upgrade_wanted().is_none()
    {
        return Ok(redirect(&path, call.raw_query.as_deref()));
    }
    admit(app, call, resource).await?;
    let name = Name::parse(&call.info.name);
    let (address, node_agent) = match &*resource.storage {
        "nodes" => (agent_address(app, &name.name)?, true),
        "pods" => (pod_address(app, call, resource, &name).await?, false),
        _ => (service_address(app, call, resource, &name).await?, false),
    };
    let own = format!("/{}", call.info.rest);
    let query = call.raw_query.as_deref().map(|q| format!("?{q}")).unwrap_or_default();
    let target = Target { address, node_agent, path: format!("{own}{query}") };
    let prefix = path.strip_suffix(&*own).unwrap_or(&path).trim_end_matches('/').to_owned();
    let forward = Forward {
        method: call.method.clone(),
        headers: &call.headers,
        body: call.body.take(),
        upgrade: call.upgrade.take(),
        prefix: Some(&path),
    };
    let answer = app.node.forward(&target, forward).await?;
    rewrite::answer(answer, &prefix, &address.to_string()).await
}

fn redirect(path: &str, query: Option<&str>) -> Response {
    let query = query.map(|q| format!("?{q}")).unwrap_or_default();
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    if let Ok(location) = http::HeaderValue::from_str(&format!("{path}/{query}")) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

/// `[scheme:]name[:port]`.
struct Name {
    name: String,
    port: String,
}

impl Name {
    fn parse(text: &str) -> Self {
        let parts: Vec<&str> = text.split(':').collect();
        let (name, port) = match parts.as_slice() {
            [name] => (*name, ""),
            [scheme, name] if matches!(*scheme, "http" | "https") => (*name, ""),
            [name, port] => (*name, *port),
            [_, name, port, ..] => (*name, *port),
            [] => ("", ""),
        };
        Self { name: name.to_owned(), port: port.to_owned() }
    }
}

async fn read(app: &App, call: &Call, resource: &Resource, name: &str) -> Result<Value, StatusError> {
    let entry = get::read(app, resource, &call.info.namespace, name, None).await?;
    serde_json::from_slice(&entry.bytes).map_err(StatusError::internal)
}

fn address_error(name: &str) -> StatusError {
    StatusError::service_unavailable(format!("no endpoints available for service {name:?}"))
}

async fn pod_address(
    app: &App,
    call: &Call,
    pods: &Resource,
    name: &Name,
) -> Result<SocketAddr, StatusError> {
    let pod = read(app, call, pods, &name.name).await?;
    let ip: IpAddr = string(&pod["status"], "podIP")
        .parse()
        .map_err(|_| StatusError::bad_request("address not allowed"))?;
    let ports = || {
        let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
        containers.flat_map(|c| c["ports"].as_array().into_iter().flatten())
    };
    let port = if name.port.is_empty() {
        ports().next().and_then(|p| p["containerPort"].as_u64()).unwrap_or(80)
    } else if let Ok(port) = name.port.parse::<u64>() {
        port
    } else {
        let named = ports().find(|p| string(p, "name") == name.port);
        named
            .and_then(|p| p["containerPort"].as_u64())
            .ok_or_else(|| StatusError::bad_request("invalid port"))?
    };
    Ok(SocketAddr::new(ip, port as u16))
}

async fn service_address(
    app: &App,
    call: &Call,
    services: &Resource,
    name: &Name,
) -> Result<SocketAddr, StatusError> {
    let service = read(app, call, services, &name.name).await?;
    let ports = service["spec"]["ports"].as_array().cloned().unwrap_or_default();
    let wanted = ports.iter().find(|p| {
        let number = p["port"].as_u64().map(|n| n.to_string()).unwrap_or_default();
        name.port == string(p, "name") && !name.port.is_empty() || name.port == number
    });
    let port = match (wanted, name.port.as_str(), ports.as_slice()) {
        (Some(port), _, _) => port,
        (None, "", [one]) => one,
        (None, "", many) if !many.is_empty() => {
            many.iter().find(|p| string(p, "name").is_empty()).unwrap_or(&many[0])
        }
        _ => {
            return Err(StatusError::service_unavailable(format!(
                "no service port {:?} found for service {:?}",
                name.port, name.name
            )));
        }
    };
    let port_name = string(port, "name");
    let gvr = Gvr::new("discovery.k8s.io", "v1", "endpointslices");
    let slices = app.registry.get(&gvr).ok_or_else(|| StatusError::internal("no endpointslices"))?;
    let of_service =
        |entry: &crate::cache::Entry| entry.labels.get("kubernetes.io/service-name") == Some(&name.name);
    let found = slices.cache.list(&format!("{}/", call.info.namespace), None, 0, of_service);
    let mut backends = Vec::new();
    for entry in &found.entries {
        let Ok(slice) = serde_json::from_slice::<Value>(&entry.bytes) else { continue };
        backends.extend(ready_backends(&slice, port_name));
    }
    backends.choose(&mut rand::rng()).copied().ok_or_else(|| address_error(&name.name))
}

/// The addresses of a slice that serve a port.
fn ready_backends(slice: &Value, port_name: &str) -> Vec<SocketAddr> {
    let ports = slice["ports"].as_array().into_iter().flatten();
    let port = ports.filter(|p| string(p, "name") == port_name).find_map(|p| p["port"].as_u64());
    let Some(port) = port else { return Vec::new() };
    let endpoints = slice["endpoints"].as_array().into_iter().flatten();
    endpoints
        .filter(|e| e["conditions"]["ready"].as_bool().unwrap_or(true))
        .flat_map(|e| e["addresses"].as_array().into_iter().flatten())
        .filter_map(|a| Some(SocketAddr::new(a.as_str()?.parse().ok()?, port as u16)))
        .collect()
}
