//! Requests that go on to node agents and pods: one connection each, bodies relayed as they come, upgraded
//! connections tunnelled byte by byte.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONNECTION, HOST, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use hyper::Request;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use keelson_api_types::StatusError;
use keelson_daemon::tls::rustls::ClientConfig;
use keelson_daemon::tls::rustls::pki_types::ServerName;
use keelson_daemon::tls::{ClientFiles, Error, client_config};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::body::{Body, Response};
use crate::config::Config;

const CONNECT: Duration = Duration::from_secs(10);

/// Connects to node agents as the API server.
pub struct NodeClient {
    tls: Arc<ClientConfig>,
}

/// Where a request goes on to.
#[derive(Debug, Clone)]
pub struct Target {
    pub address: SocketAddr,
    /// TLS with our certificate, for node agents.
    pub node_agent: bool,
    /// Path and query.
    pub path: String,
}

/// What of the client's request goes with it.
pub struct Forward<'a> {
    pub method: Method,
    pub headers: &'a HeaderMap,
    pub body: Option<Incoming>,
    pub upgrade: Option<OnUpgrade>,
    /// Whether the client's `Host` is told in `X-Forwarded-Host`.
    pub prefix: Option<&'a str>,
}

trait Stream: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send {}
impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send> Stream for T {}

impl NodeClient {
    pub fn new(config: &Config) -> Result<Self, Error> {
        let identity = (config.kubelet_client_cert(), config.kubelet_client_key());
        let files = ClientFiles { cas: vec![config.kubelet_ca()], identity: Some(identity) };
        Ok(Self { tls: client_config(&files)? })
    }

    async fn connect(&self, target: &Target) -> Result<Box<dyn Stream>, StatusError> {
        let dial = async {
            let stream = TcpStream::connect(target.address).await?;
            let _ = stream.set_nodelay(true);
            if !target.node_agent {
                return Ok::<Box<dyn Stream>, std::io::Error>(Box::new(stream));
            }
            let name = ServerName::IpAddress(target.address.ip().into());
            let tls = TlsConnector::from(self.tls.clone()).connect(name, stream).await?;
            Ok(Box::new(tls))
        };
        let failed = |why: String| {
            StatusError::service_unavailable(format!(
                "error trying to reach service: dial tcp {}: {why}",
                target.address
            ))
        };
        match tokio::time::timeout(CONNECT, dial).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(failed(error.to_string())),
            Err(_) => Err(failed("i/o timeout".into())),
        }
    }

    /// Sends a request on and relays the answer; an accepted upgrade becomes a tunnel.
    pub async fn forward(&self, target: &Target, forward: Forward<'_>) -> Result<Response, StatusError> {
        let stream = self.connect(target).await?;
        let broken =
            |e: hyper::Error| StatusError::service_unavailable(format!("error trying to reach service: {e}"));
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        tokio::spawn(connection.with_upgrades());
        let request = request(target, forward.method, forward.headers, forward.body, forward.prefix)?;
        let mut answer = sender.send_request(request).await.map_err(broken)?;
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            let backend = hyper::upgrade::on(&mut answer);
            let client =
                forward.upgrade.ok_or_else(|| StatusError::bad_request("upgrade request required"))?;
            tokio::spawn(tunnel(client, backend));
            let (parts, _) = answer.into_parts();
            return Ok(http::Response::from_parts(parts, Body::empty()));
        }
        let (mut parts, body) = answer.into_parts();
        for header in HOP_BY_HOP {
            parts.headers.remove(header);
        }
        Ok(http::Response::from_parts(parts, Body::Relayed(body)))
    }
}

const HOP_BY_HOP: [&str; 6] =
    ["connection", "keep-alive", "proxy-authenticate", "proxy-connection", "te", "transfer-encoding"];

fn request(
    target: &Target,
    method: Method,
    headers: &HeaderMap,
    body: Option<Incoming>,
    prefix: Option<&str>,
) -> Result<Request<Body>, StatusError> {
    let uri: Uri = target.path.parse().map_err(|e| StatusError::bad_request(format!("invalid path: {e}")))?;
    let upgrade = headers.get(UPGRADE).cloned();
    let mut request = Request::new(body.map_or_else(Body::empty, Body::Relayed));
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    let out = request.headers_mut();
    for (name, value) in headers {
        if !HOP_BY_HOP.contains(&name.as_str()) && !is_credential(name) && name != UPGRADE && name != HOST {
            out.append(name, value.clone());
        }
    }
    if let Some(upgrade) = upgrade {
        out.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        out.insert(UPGRADE, upgrade);
    }
    let host = target.address.to_string();
    if let Ok(host) = HeaderValue::from_str(&host) {
        out.insert(HOST, host);
    }
    if let Some(Ok(prefix)) = prefix.map(HeaderValue::from_str) {
        out.insert("X-Forwarded-Uri", prefix);
    }
    Ok(request)
}

/// What says who the client is concerns nobody behind us.
fn is_credential(name: &HeaderName) -> bool {
    let name = name.as_str();
    matches!(name, "authorization" | "cookie")
        || name.starts_with("impersonate-")
        || name.starts_with("x-remote-")
}

/// Copies both ways until either side ends.
async fn tunnel(client: OnUpgrade, backend: OnUpgrade) {
    let (client, backend) = match tokio::try_join!(client, backend) {
        Ok(both) => both,
        Err(error) => {
            tracing::debug!(%error, "an upgrade failed");
            return;
        }
    };
    let (mut client, mut backend) = (TokioIo::new(client), TokioIo::new(backend));
    if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut backend).await {
        tracing::debug!(%error, "a tunnel ended");
    }
}
