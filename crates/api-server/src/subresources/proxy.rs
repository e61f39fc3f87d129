//! HTTP through the API server to a pod, a Service or a node agent.

mod rewrite;

use std::net::IpAddr;
use std::sync::Arc;

use http::header::{HOST, LOCATION};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use keelson_api_types::StatusError;
use rand::seq::SliceRandom;
use serde_json::Value;

use super::streams::{agent_address, connect};
use crate::app::{App, Call};
use crate::body::{Body, Response};
use crate::endpoints;
use crate::meta::string;
use crate::registry::Resource;
use crate::verbs::get;

/// The methods that are passed on.
const METHODS: [Method; 7] =
    [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::HEAD, Method::OPTIONS];

pub async fn serve(
    app: &Arc<App>,
    call: &mut Call,
    resource: &Arc<Resource>,
) -> Result<Response, StatusError> {
    if !METHODS.contains(&call.method) {
        return Err(StatusError::method_not_supported(&resource.group_resource(), &call.info.verb));
    }
    let options = connect(app, call, resource).await?;
    let id = call.info.name.clone();
    let refused = || StatusError::bad_request(format!("invalid {} request {id:?}", resource.singular));
    let name = Name::parse(&id).ok_or_else(refused)?;
    let (base, agent) = match &*resource.storage {
        "nodes" => node(app, &name)?,
        "pods" => (pod(app, call, resource, &name).await?, false),
        _ => (service(app, call, resource, &name).await?, false),
    };
    let path = call.info.path.clone();
    // The proxied root has a slash, or relative links would lead astray.
    let at_root = call.info.rest.is_empty() && !path.ends_with('/');
    if at_root && matches!(call.method, Method::GET | Method::HEAD) && call.upgrade_wanted().is_none() {
        return Ok(redirect(&path, call.raw_query.as_deref()));
    }
    let own = format!("/{}", call.info.rest);
    let prefix = path.strip_suffix(&*own).unwrap_or(&path).to_owned();
    let query = call.raw_query.as_deref().map(|q| format!("?{q}")).unwrap_or_default();
    let target = string(&options, "path");
    let uri: Uri = format!("{base}/{}{query}", target.strip_prefix('/').unwrap_or(target))
        .parse()
        .map_err(|e| StatusError::bad_request(format!("invalid path {target:?}: {e}")))?;
    let links = rewrite::Links {
        prefix,
        backend: uri.authority().map(ToString::to_string).unwrap_or_default(),
        host: call.host().to_owned(),
    };
    let mut headers = HeaderMap::new();
    if let Ok(forwarded) = HeaderValue::from_str(&path) {
        headers.insert("x-forwarded-uri", forwarded);
    }
    if let Ok(host) = HeaderValue::from_str(&links.host) {
        headers.insert(HOST, host);
    }
    let transport = if agent { &app.backends.agents } else { &app.backends.anyone };
    let answer = app.backends.forward(transport, call, uri, headers).await?;
    rewrite::answer(answer, &links).await
}

fn redirect(path: &str, query: Option<&str>) -> Response {
    let query = query.map(|q| format!("?{q}")).unwrap_or_default();
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    if let Ok(location) = HeaderValue::from_str(&format!("{path}/{query}")) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

/// `name`, `name:port` or `scheme:name:port`; the port may be a name and may be empty.
#[derive(Debug, PartialEq, Eq)]
struct Name<'a> {
    scheme: &'a str,
    name: &'a str,
    port: &'a str,
}

impl<'a> Name<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let parts: Vec<&str> = text.split(':').collect();
        let (scheme, name, port) = match parts.as_slice() {
            [name] => ("", *name, ""),
            [name, port] => ("", *name, *port),
            [scheme @ ("" | "http" | "https"), name, port] => (*scheme, *name, *port),
            _ => return None,
        };
        let scheme = if scheme.is_empty() { "http" } else { scheme };
        (!name.is_empty()).then_some(Self { scheme, name, port })
    }
}

/// Addresses of the machine itself and of its links must not be reached through the server.
fn is_proxyable(address: IpAddr) -> bool {
    let local = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !(local || address.is_loopback() || address.is_multicast() || address.is_unspecified())
}

fn host(address: IpAddr) -> String {
    if address.is_ipv6() { format!("[{address}]") } else { address.to_string() }
}

async fn read(app: &App, call: &Call, resource: &Resource, name: &str) -> Result<Value, StatusError> {
    let entry = get::read(app, resource, &call.info.namespace, name, None).await?;
    entry.decode().map_err(StatusError::internal)
}

/// The node's agent, with the API server's certificate; on another port whoever listens there.
fn node(app: &App, name: &Name<'_>) -> Result<(String, bool), StatusError> {
    let agent = agent_address(app, name.name)?;
    if !is_proxyable(agent.ip()) {
        return Err(StatusError::bad_request("address not allowed"));
    }
    if name.port.is_empty() || name.port == agent.port().to_string() {
        return Ok((format!("https://{agent}"), true));
    }
    Ok((format!("{}://{}:{}", name.scheme, host(agent.ip()), name.port), false))
}

async fn pod(app: &App, call: &Call, pods: &Resource, name: &Name<'_>) -> Result<String, StatusError> {
    let pod = read(app, call, pods, name.name).await?;
    let ip: Option<IpAddr> = string(&pod["status"], "podIP").parse().ok();
    let ip = ip.filter(|ip| is_proxyable(*ip));
    let ip = host(ip.ok_or_else(|| StatusError::bad_request("address not allowed"))?);
    let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
    let mut ports = containers.flat_map(|c| c["ports"].as_array().into_iter().flatten());
    let port = if name.port.is_empty() {
        ports.next().map(|p| p["containerPort"].to_string())
    } else if name.port.parse::<u16>().is_ok() {
        Some(name.port.to_owned())
    } else {
        let named = ports.find(|p| string(p, "name") == name.port);
        let unknown =
            || crate::backend::Error::Unreachable(format!("lookup tcp/{}: unknown port", name.port));
        Some(named.ok_or_else(unknown)?["containerPort"].to_string())
    };
    Ok(format!("{}://{ip}{}", name.scheme, port.map(|p| format!(":{p}")).unwrap_or_default()))
}

async fn service(
    app: &App,
    call: &Call,
    services: &Resource,
    name: &Name<'_>,
) -> Result<String, StatusError> {
    let service = read(app, call, services, name.name).await?;
    let port_name = match name.port.parse::<i64>() {
        Ok(number) => endpoints::named_port(&service, number).ok_or_else(|| {
            let message = format!("no service port {number} found for service {:?}", name.name);
            StatusError::service_unavailable(message)
        })?,
        Err(_) => name.port,
    };
    let none =
        |of: &str| StatusError::service_unavailable(format!("no endpoints available for service {of:?}"));
    let slices = endpoints::slices(app, &call.info.namespace, name.name);
    if slices.is_empty() {
        return Err(none(name.name));
    }
    let mut backends: Vec<_> = slices.iter().flat_map(|s| endpoints::ready(s, port_name)).collect();
    backends.shuffle(&mut rand::rng());
    let pods = app.registry.find("", "v1", "pods").ok_or_else(|| StatusError::internal("no pods"))?;
    for (address, endpoint) in backends {
        if is_pods_own(app, call, &pods, &address.ip().to_string(), &endpoint["targetRef"]).await {
            return Ok(format!("{}://{address}", name.scheme));
        }
    }
    Err(none(&call.info.name))
}

/// Whoever may write endpoints must not reach other hosts through the server: only a pod's own addresses count.
async fn is_pods_own(app: &App, call: &Call, pods: &Resource, ip: &str, target: &Value) -> bool {
    if string(target, "kind") != "Pod" || string(target, "namespace") != call.info.namespace {
        return false;
    }
    let pod = read(app, call, pods, string(target, "name")).await;
    pod.is_ok_and(|pod| {
        let ips = pod["status"]["podIPs"].as_array().into_iter().flatten();
        ips.into_iter().any(|p| p["ip"] == ip)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_carry_scheme_and_port() {
        let check = |text, expected: Option<(&str, &str, &str)>| {
            let got = Name::parse(text).map(|n| (n.scheme, n.name, n.port));
            assert_eq!(got, expected, "{text}");
        };
        check("a", Some(("http", "a", "")));
        check("a:80", Some(("http", "a", "80")));
        check("https:a:web", Some(("https", "a", "web")));
        check("https:a:", Some(("https", "a", "")));
        check(":a:1", Some(("http", "a", "1")));
        check("ftp:a:1", None);
        check(":80", None);
        check("http:a:1:2", None);
    }

    #[test]
    fn the_machines_own_addresses_are_not_proxied() {
        for (address, proxied) in [
            ("10.0.0.1", true),
            ("2001:db8::1", true),
            ("127.0.0.1", false),
            ("169.254.169.254", false),
            ("::1", false),
            ("fe80::1", false),
            ("224.0.0.1", false),
            ("0.0.0.0", false),
        ] {
            assert_eq!(is_proxyable(address.parse().expect("an address")), proxied, "{address}");
        }
    }
}
