//! One call of a webhook: HTTPS to a URL or to a Service of the cluster.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use keelson_api_types::Gvr;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::admission::{core, items, text};
use crate::types::Objects;

const SYSTEM_ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";
const MAX_ANSWER: usize = 8 << 20;

#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error("{0}")]
    Config(String),
    #[error("Post \"{url}\": {reason}")]
    Failed { url: String, reason: String },
}

/// Where a webhook listens.
struct Target {
    /// As upstream shows it in errors, without the timeout.
    url: String,
    host: String,
    port: u16,
    path: String,
    /// Addresses to try instead of resolving the host.
    addresses: Vec<SocketAddr>,
}

/// Posts the review; `Ok` is the body of a 2xx answer.
pub async fn post(
    objects: &dyn Objects,
    config: &Value,
    timeout: Duration,
    body: Vec<u8>,
) -> Result<Bytes, CallError> {
    let target = target(objects, config)?;
    let separator = if target.path.contains('?') { '&' } else { '?' };
    let query = format!("{separator}timeout={}s", timeout.as_secs());
    let url = format!("{}{query}", target.url);
    let failed = |reason: String| CallError::Failed { url: url.clone(), reason };
    let tls = tls(config).map_err(&failed)?;
    match tokio::time::timeout(timeout, exchange(&target, &query, tls, body)).await {
        Ok(answer) => answer.map_err(failed),
        Err(_) => Err(failed("context deadline exceeded".into())),
    }
}

async fn exchange(
    target: &Target,
    query: &str,
    tls: Arc<ClientConfig>,
    body: Vec<u8>,
) -> Result<Bytes, String> {
    let text = |e: &dyn std::error::Error| e.to_string();
    let stream = if target.addresses.is_empty() {
        TcpStream::connect((target.host.as_str(), target.port)).await
    } else {
        TcpStream::connect(target.addresses.as_slice()).await
    };
    let stream = stream.map_err(|e| format!("dial tcp: {e}"))?;
    let name = ServerName::try_from(target.host.clone()).map_err(|e| text(&e))?;
    let stream = TlsConnector::from(tls).connect(name, stream).await.map_err(|e| format!("tls: {e}"))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| text(&e))?;
    let driver = tokio::spawn(connection);
    let request = Request::post(format!("{}{query}", target.path))
        .header(header::HOST, format!("{}:{}", target.host, target.port))
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::ACCEPT, "application/json")
        .header(header::USER_AGENT, "kube-apiserver-admission")
        .body(Full::new(Bytes::from(body)))
        .map_err(|e| text(&e))?;
    let answer = sender.send_request(request).await.map_err(|e| text(&e))?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await.map_err(|e| e.to_string())?;
    driver.abort();
    if status.is_success() {
        return Ok(body.to_bytes());
    }
    Err(format!("the server answered {status}"))
}

fn target(objects: &dyn Objects, config: &Value) -> Result<Target, CallError> {
    let service = &config["service"];
    if service.is_object() {
        return service_target(objects, service);
    }
    let url = text(config, "/url");
    if url.is_empty() {
        return Err(CallError::Config("webhook configuration must have either service or URL".into()));
    }
    let parsed: Uri = url.parse().map_err(|e| CallError::Config(format!("Unparsable URL: {e}")))?;
    let host = parsed.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    Ok(Target {
        url: url.to_owned(),
        host,
        port: parsed.port_u16().unwrap_or(443),
        path: parsed.path_and_query().map(|p| p.as_str().to_owned()).unwrap_or_else(|| "/".into()),
        addresses: Vec::new(),
    })
}

/// A Service's ready endpoints; its cluster address where no endpoint is known.
fn service_target(objects: &dyn Objects, service: &Value) -> Result<Target, CallError> {
    let (namespace, name) = (text(service, "/namespace"), text(service, "/name"));
    let port = service["port"].as_u64().unwrap_or(443) as u16;
    let path = match text(service, "/path") {
        "" => "/".to_owned(),
        path if path.starts_with('/') => path.to_owned(),
        path => format!("/{path}"),
    };
    let host = format!("{name}.{namespace}.svc");
    let url = format!("https://{host}:{port}{path}");
    let Some(stored) = objects.get(&core("services"), namespace, name) else {
        return Err(CallError::Failed { url, reason: format!("service {name:?} not found") });
    };
    let Some(named) = items(&stored["spec"]["ports"]).iter().find(|p| p["port"] == port) else {
        let reason = format!("no service port {port} found for service {name:?}");
        return Err(CallError::Failed { url, reason });
    };
    let mut addresses = endpoints(objects, namespace, name, text(named, "/name"));
    if addresses.is_empty()
        && let Ok(ip) = text(&stored, "/spec/clusterIP").parse()
    {
        addresses.push(SocketAddr::new(ip, port));
    }
    if addresses.is_empty() {
        let reason = format!("no endpoints available for service {name:?}");
        return Err(CallError::Failed { url, reason });
    }
    Ok(Target { url, host, port, path, addresses })
}

fn endpoints(objects: &dyn Objects, namespace: &str, service: &str, port_name: &str) -> Vec<SocketAddr> {
    let gvr = Gvr::new("discovery.k8s.io", "v1", "endpointslices");
    let mut found = Vec::new();
    for slice in objects.list(&gvr, namespace) {
        if text(&slice, "/metadata/labels/kubernetes.io~1service-name") != service {
            continue;
        }
        let port = items(&slice["ports"]).iter().find(|p| text(p, "/name") == port_name);
        let Some(port) = port.and_then(|p| p["port"].as_u64()) else { continue };
        for endpoint in items(&slice["endpoints"]) {
            let ready = endpoint["conditions"]["ready"] != false;
            let ip = text(endpoint, "/addresses/0").parse();
            if let (true, Ok(ip)) = (ready, ip) {
                found.push(SocketAddr::new(ip, port as u16));
            }
        }
    }
    let start = if found.is_empty() { 0 } else { rand::random::<u32>() as usize % found.len() };
    found.rotate_left(start);
    found
}

/// Trusts the configuration's own bundle, or what the system trusts when it has none.
fn tls(config: &Value) -> Result<Arc<ClientConfig>, String> {
    let bundle = text(config, "/caBundle");
    let pem = if bundle.is_empty() {
        std::fs::read(SYSTEM_ROOTS).unwrap_or_default()
    } else {
        STANDARD.decode(bundle).map_err(|e| format!("unable to load root certificates: {e}"))?
    };
    let mut roots = RootCertStore::empty();
    for block in pem::parse_many(pem).map_err(|e| format!("unable to load root certificates: {e}"))? {
        // A system's bundle may hold certificates that no verifier takes.
        let _ = roots.add(block.into_contents().into());
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}
