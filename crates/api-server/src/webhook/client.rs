//! One call of a webhook: HTTPS to a URL or to a Service of the cluster.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, Uri, header, response};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use keelson_api_types::Gvr;
use keelson_api_types::gofmt::quote;
use keelson_daemon::tls;
use rustls::{CertificateError, ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::pool::{self, Key, Sender};
use crate::admission::{core, items, text};
use crate::metrics::x509::WEBHOOKS;
use crate::spans;
use crate::types::Objects;

const SYSTEM_ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";
const MAX_ANSWER: usize = 8 << 20;
/// How much of a refusal's text is told.
const MAX_TEXT: usize = 2048;

#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error("{0}")]
    Config(String),
    #[error("Post \"{url}\": {reason}")]
    Failed { url: String, reason: String },
    /// An answer, but none of success.
    #[error("{reason}")]
    Refused { code: u16, reason: String },
}

impl CallError {
    /// The HTTP status that the failure counts as.
    pub fn code(&self) -> u16 {
        match self {
            Self::Config(_) => 500,
            Self::Failed { .. } => 503,
            Self::Refused { code, .. } => *code,
        }
    }
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
    let timed =
        |url: &str| format!("{}timeout={}s", if url.contains('?') { '&' } else { '?' }, timeout.as_secs());
    let target = target(objects, config).map_err(|error| match error {
        CallError::Failed { url, reason } => {
            CallError::Failed { url: format!("{url}{}", timed(&url)), reason }
        }
        other => other,
    })?;
    let query = timed(&target.path);
    let failed = |reason: String| CallError::Failed { url: format!("{}{query}", target.url), reason };
    // Boxed: every write and read might come to ask a webhook, and few do.
    let answer = Box::pin(async {
        let bundle = text(config, "/caBundle");
        let (parts, answer) = exchange(&target, bundle, &query, body.into()).await.map_err(&failed)?;
        if parts.status.is_success() {
            return Ok(answer);
        }
        Err(CallError::Refused { code: parts.status.as_u16(), reason: refusal(&parts, &answer) })
    });
    match tokio::time::timeout(timeout, answer).await {
        Ok(answer) => answer,
        Err(_) => Err(failed("context deadline exceeded".into())),
    }
}

async fn exchange(
    target: &Target,
    bundle: &str,
    query: &str,
    body: Bytes,
) -> Result<(response::Parts, Bytes), String> {
    let key = Key { host: target.host.clone(), port: target.port, bundle: bundle.to_owned() };
    let mut request = Request::post(format!("{}{query}", target.path))
        .header(header::HOST, format!("{}:{}", target.host, target.port))
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::ACCEPT, "application/json")
        .header(header::USER_AGENT, "kube-apiserver-admission")
        .body(Full::new(body))
        .map_err(|e| e.to_string())?;
    spans::tell(request.headers_mut());
    let (mut sender, answer) = loop {
        let idle = pool::take(&key);
        let fresh = idle.is_none();
        let mut sender = match idle {
            Some(sender) => sender,
            None => connect(target, bundle).await?,
        };
        match sender.try_send_request(request).await {
            Ok(answer) => break (sender, answer),
            // The other end has closed an idle connection: what was not sent can be sent anew.
            Err(mut error) => match error.take_message().filter(|_| !fresh) {
                Some(unsent) => request = unsent,
                None => return Err(error.into_error().to_string()),
            },
        }
    };
    let (parts, body) = answer.into_parts();
    let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(|e| e.to_string())?;
    if sender.ready().await.is_ok() {
        pool::put(key, sender);
    }
    Ok((parts, body.to_bytes()))
}

async fn connect(target: &Target, bundle: &str) -> Result<Sender, String> {
    let tls = trusting(bundle)?;
    let stream = match target.addresses.as_slice() {
        [] => TcpStream::connect((target.host.as_str(), target.port)).await,
        addresses => TcpStream::connect(addresses).await,
    };
    let at = target
        .addresses
        .first()
        .map_or_else(|| format!("{}:{}", target.host, target.port), |a| a.to_string());
    let stream = stream.map_err(|e| match e.kind() {
        ErrorKind::ConnectionRefused => format!("dial tcp {at}: connect: connection refused"),
        _ => format!("dial tcp {at}: {e}"),
    })?;
    let name = ServerName::try_from(target.host.clone()).map_err(|e| e.to_string())?;
    let stream = TlsConnector::from(tls).connect(name, stream).await.map_err(|e| tls_error(&e))?;
    let (sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    tokio::spawn(connection);
    Ok(sender)
}

/// A failed handshake in the words that upstream's users search for.
fn tls_error(error: &std::io::Error) -> String {
    let certificate = match error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(certificate)) => certificate,
        _ => return format!("remote error: tls: {error}"),
    };
    let why = match certificate {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "certificate signed by unknown authority".to_owned()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "certificate has expired or is not yet valid".to_owned()
        }
        other => other.to_string(),
    };
    format!("tls: failed to verify certificate: x509: {why}")
}

/// What upstream's client makes of an answer that is no success: the `Status` it may be, or a text by its code.
fn refusal(parts: &response::Parts, body: &[u8]) -> String {
    if let Ok(status) = serde_json::from_slice::<Value>(body)
        && status["kind"] == "Status"
        && let Some(message) = status["message"].as_str()
    {
        return message.to_owned();
    }
    let kind = parts.headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("text/plain");
    let said = match kind.starts_with("text/") {
        true => String::from_utf8_lossy(&body[..body.len().min(MAX_TEXT)]).trim().to_owned(),
        false => "unknown".to_owned(),
    };
    match parts.status.as_u16() {
        400 => "the server rejected our request for an unknown reason".into(),
        401 => "the server has asked for the client to provide credentials".into(),
        403 | 415 => said,
        404 => "the server could not find the requested resource".into(),
        405 => "the server does not allow this method on the requested resource".into(),
        409 => "the server reported a conflict".into(),
        422 => "the server rejected our request due to an error in our request".into(),
        429 => "the server has received too many requests and has asked us to try again later".into(),
        503 => "the server is currently unable to handle the request".into(),
        504 => "the server was unable to return a response in the time allotted, but may still be processing the request".into(),
        500.. => format!("an error on the server ({}) has prevented the request from succeeding", quote(&said)),
        code => format!("the server responded with the status code {code} but did not return more information"),
    }
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
        // An empty path is the root.
        url: if parsed.path() == "/" && !url.ends_with('/') { format!("{url}/") } else { url.to_owned() },
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
fn trusting(bundle: &str) -> Result<Arc<ClientConfig>, String> {
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
    let verifier = tls::verifier_of(roots);
    let config = verifier.and_then(|verifier| tls::verified_by(WEBHOOKS.counting(verifier), None));
    config.map_err(|e| format!("unable to load root certificates: {e}"))
}
