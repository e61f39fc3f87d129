//! Requests that go on to other servers: node agents, pods, Services' endpoints, extension API servers. Connections
//! are pooled, bodies relayed as they come, upgraded connections tunnelled byte by byte.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONNECTION, HOST, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, Version};
use hyper::body::{Body as _, Incoming};
use hyper::upgrade::OnUpgrade;
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use keelson_api_types::StatusError;
use keelson_daemon::tls::rustls::ClientConfig;
use keelson_daemon::tls::rustls::pki_types::ServerName;
use keelson_daemon::tls::{self, Trust};
use tokio::io::AsyncWriteExt;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::app::Call;
use crate::body::{Body, Response};
use crate::config::Config;

const CONNECT: Duration = Duration::from_secs(10);
/// Connections that nobody uses are closed after this time.
const IDLE: Duration = Duration::from_secs(90);
/// How long a tunnel's ends may take to be told of its end.
const FAREWELL: Duration = Duration::from_secs(2);
/// How often a silent HTTP/2 connection is asked whether it still lives.
const PING: Duration = Duration::from_secs(30);
/// WebSocket clients that can set no header carry their bearer token here.
const BEARER_PROTOCOL: &str = "base64url.bearer.authorization.k8s.io.";
/// What concerns one hop (RFC 9110, 7.6.1).
const HOP_BY_HOP: [&str; 8] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
];

/// Why a request did not reach the server that it was for, in the words that upstream's proxy has for it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("error trying to reach service: {0}")]
    Unreachable(String),
    #[error("error dialing backend: {0}")]
    Dial(String),
    #[error("invalid upgrade response: status code {}", .0.as_u16())]
    NotUpgraded(StatusCode),
    #[error("unable to upgrade: the connection is not HTTP/1.1")]
    NotUpgradable,
}

impl From<Error> for StatusError {
    fn from(error: Error) -> Self {
        match error {
            Error::Unreachable(_) => Self::service_unavailable(error.to_string()),
            error => Self::internal(error),
        }
    }
}

/// How servers of one kind are reached.
#[derive(Clone)]
pub struct Transport {
    pooled: Client<HttpsConnector<HttpConnector>, Body>,
    /// Upgrades are of HTTP/1.1 alone.
    upgrading: Client<HttpsConnector<HttpConnector>, Body>,
}

impl Transport {
    /// `name` is the one that certificates must have, where it is not the address's own.
    pub fn new(tls: &Arc<ClientConfig>, name: Option<ServerName<'static>>, http2: bool) -> Self {
        let client = |http2: bool| {
            let mut tcp = HttpConnector::new();
            tcp.enforce_http(false);
            tcp.set_nodelay(true);
            tcp.set_connect_timeout(Some(CONNECT));
            let https = HttpsConnectorBuilder::new().with_tls_config((**tls).clone()).https_or_http();
            let https = match &name {
                Some(name) => https.with_server_name_resolver(FixedServerNameResolver::new(name.clone())),
                None => https,
            };
            let connector = match http2 {
                true => https.enable_all_versions().wrap_connector(tcp),
                false => https.enable_http1().wrap_connector(tcp),
            };
            Client::builder(TokioExecutor::new())
                .pool_idle_timeout(IDLE)
                .pool_timer(TokioTimer::new())
                .timer(TokioTimer::new())
                .http2_keep_alive_interval(PING)
                .http2_keep_alive_while_idle(true)
                .build(connector)
        };
        Self { pooled: client(http2), upgrading: client(false) }
    }

    /// Sends a request whose URI is absolute; the error is what went wrong, in Go's words where it has some.
    pub async fn send(&self, request: Request<Body>) -> Result<http::Response<Incoming>, String> {
        let authority = request.uri().authority().map(ToString::to_string).unwrap_or_default();
        let client = if request.headers().contains_key(UPGRADE) { &self.upgrading } else { &self.pooled };
        let again = replay(&request);
        let mut answer = client.request(request).await;
        // The other side may close a connection just when it is used again.
        if let (Err(error), Some(again)) = (&answer, again)
            && !error.is_connect()
        {
            answer = client.request(again).await;
        }
        answer.map_err(|error| {
            let reason = reason(&error);
            if error.is_connect() { format!("dial tcp {authority}: {reason}") } else { reason }
        })
    }
}

/// The same request once more, if it changes nothing and has no body.
fn replay(request: &Request<Body>) -> Option<Request<Body>> {
    let safe = matches!(*request.method(), Method::GET | Method::HEAD) && request.body().is_end_stream();
    if !safe || request.headers().contains_key(UPGRADE) {
        return None;
    }
    let mut again = Request::new(Body::empty());
    *again.method_mut() = request.method().clone();
    *again.uri_mut() = request.uri().clone();
    *again.headers_mut() = request.headers().clone();
    Some(again)
}

/// What is at the bottom of an error.
fn reason(error: &(dyn std::error::Error + 'static)) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        if let Some(hyper) = source.downcast_ref::<hyper::Error>()
            && hyper.is_incomplete_message()
        {
            return "EOF".to_owned();
        }
        last = source;
    }
    let io = last.downcast_ref::<std::io::Error>();
    // An error may be wrapped in one of I/O without being its source.
    if let Some(inner) = io.and_then(std::io::Error::get_ref) {
        return reason(inner);
    }
    match io.map(std::io::Error::kind) {
        Some(std::io::ErrorKind::ConnectionRefused) => "connect: connection refused".to_owned(),
        Some(std::io::ErrorKind::HostUnreachable) => "connect: no route to host".to_owned(),
        Some(std::io::ErrorKind::NetworkUnreachable) => "connect: network is unreachable".to_owned(),
        Some(std::io::ErrorKind::ConnectionReset) => "read: connection reset by peer".to_owned(),
        Some(std::io::ErrorKind::TimedOut) => "i/o timeout".to_owned(),
        _ => last.to_string(),
    }
}

/// All servers behind this one, and the tunnels to them.
pub struct Backends {
    /// Node agents, which are asked with the API server's certificate and must show theirs.
    pub agents: Transport,
    /// Node agents whose certificate does not matter (`insecureSkipTLSVerifyBackend`).
    pub unverified_agents: Transport,
    /// Pods and what else is proxied: nobody knows their certificates.
    pub anyone: Transport,
    tunnels: TaskTracker,
    end: CancellationToken,
}

impl Backends {
    pub fn new(config: &Config) -> Result<Self, tls::Error> {
        let identity = tls::client_identity(&config.kubelet_client_cert(), &config.kubelet_client_key())?;
        let agents = tls::trusting(&Trust::Files(vec![config.kubelet_ca()]), Some(identity.clone()))?;
        let unverified = tls::trusting(&Trust::Anyone, Some(identity))?;
        Ok(Self {
            agents: Transport::new(&agents, None, true),
            unverified_agents: Transport::new(&unverified, None, true),
            anyone: Transport::new(&tls::trusting(&Trust::Anyone, None)?, None, false),
            tunnels: TaskTracker::new(),
            end: CancellationToken::new(),
        })
    }

    /// Sends a client's request on and relays the answer; an accepted upgrade becomes a tunnel. `headers` go with
    /// the client's own and replace those of the same name.
    pub async fn forward(
        &self,
        transport: &Transport,
        call: &mut Call,
        uri: Uri,
        headers: HeaderMap,
    ) -> Result<Response, Error> {
        let upgrade = call.headers.get(UPGRADE).cloned();
        let mut request = Request::new(call.body.take().map_or_else(Body::empty, Body::Relayed));
        *request.method_mut() = call.method.clone();
        *request.uri_mut() = uri;
        *request.version_mut() = Version::HTTP_11;
        *request.headers_mut() = onward(&call.headers, call.peer.address.ip());
        for name in headers.keys() {
            request.headers_mut().remove(name);
        }
        request.headers_mut().extend(headers);
        let Some(protocol) = upgrade else {
            let answer = transport.send(request).await.map_err(Error::Unreachable)?;
            return Ok(relayed(answer));
        };
        let client = call.upgrade.take().ok_or(Error::NotUpgradable)?;
        request.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        request.headers_mut().insert(UPGRADE, protocol);
        let mut answer = transport.send(request).await.map_err(Error::Dial)?;
        match answer.status() {
            StatusCode::SWITCHING_PROTOCOLS => {
                let backend = hyper::upgrade::on(&mut answer);
                self.tunnels.spawn(tunnel(client, backend, self.end.clone()));
                Ok(answer.map(|_| Body::empty()))
            }
            status if status.as_u16() < 400 => Err(Error::NotUpgraded(status)),
            _ => Ok(relayed(answer)),
        }
    }

    /// A task that carries an upgraded connection, ended with the tunnels.
    pub fn carry(&self, task: impl Future<Output = ()> + Send + 'static) {
        let end = self.end.clone();
        self.tunnels.spawn(async move {
            tokio::select! {
                () = task => {}
                () = end.cancelled() => {}
            }
        });
    }

    /// Ends all tunnels: what comes last when the server goes down.
    pub async fn end_tunnels(&self) {
        self.tunnels.close();
        self.end.cancel();
        if tokio::time::timeout(FAREWELL, self.tunnels.wait()).await.is_err() {
            tracing::warn!("some tunnels did not close in time");
        }
    }
}

/// The client's headers as they go on: without what concerns this hop or says who the client is.
fn onward(headers: &HeaderMap, client: IpAddr) -> HeaderMap {
    let named: Vec<String> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(',').map(|name| name.trim().to_ascii_lowercase()))
        .collect();
    let stays = |name: &HeaderName| {
        HOP_BY_HOP.contains(&name.as_str())
            || is_credential(name)
            || name == HOST
            || named.iter().any(|n| n == name.as_str())
    };
    let mut out = HeaderMap::with_capacity(headers.len() + 4);
    for (name, value) in headers.iter().filter(|(name, _)| !stays(name)) {
        match name == SEC_WEBSOCKET_PROTOCOL {
            true => out.extend(without_token(value).map(|v| (name.clone(), v))),
            false => drop(out.append(name, value.clone())),
        }
    }
    let before = headers.get("x-forwarded-for").and_then(|v| v.to_str().ok());
    let hops = before.map_or_else(|| client.to_string(), |before| format!("{before}, {client}"));
    if let Ok(hops) = HeaderValue::from_str(&hops) {
        out.insert("x-forwarded-for", hops);
    }
    out
}

/// What says who the client is concerns nobody behind us.
fn is_credential(name: &HeaderName) -> bool {
    let name = name.as_str();
    name == "authorization" || name.starts_with("impersonate-") || name.starts_with("x-remote-")
}

fn without_token(protocols: &HeaderValue) -> Option<HeaderValue> {
    let all = protocols.to_str().ok()?.split(',').map(str::trim);
    let rest: Vec<&str> = all.filter(|p| !p.starts_with(BEARER_PROTOCOL)).collect();
    HeaderValue::from_str(&rest.join(", ")).ok().filter(|v| !v.is_empty())
}

fn relayed(answer: http::Response<Incoming>) -> Response {
    let (mut parts, body) = answer.into_parts();
    for header in HOP_BY_HOP {
        parts.headers.remove(header);
    }
    parts.version = Version::HTTP_11;
    http::Response::from_parts(parts, Body::Relayed(body))
}

/// Copies both ways until either side ends, or the server does.
async fn tunnel(client: OnUpgrade, backend: OnUpgrade, end: CancellationToken) {
    let (client, backend) = match tokio::try_join!(client, backend) {
        Ok(both) => both,
        Err(error) => {
            tracing::debug!(%error, "an upgrade failed");
            return;
        }
    };
    let (mut from_client, mut to_client) = tokio::io::split(TokioIo::new(client));
    let (mut from_backend, mut to_backend) = tokio::io::split(TokioIo::new(backend));
    let ended = tokio::select! {
        ended = tokio::io::copy(&mut from_client, &mut to_backend) => ended,
        ended = tokio::io::copy(&mut from_backend, &mut to_client) => ended,
        () = end.cancelled() => Ok(0),
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a tunnel broke");
    }
    let _ = tokio::join!(to_client.shutdown(), to_backend.shutdown());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_credentials_nor_this_hops_headers_go_on() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("authorization", "Bearer x"),
            ("impersonate-user", "x"),
            ("x-remote-group", "x"),
            ("connection", "keep-alive, X-Mine"),
            ("x-mine", "x"),
            ("host", "api"),
            ("cookie", "a=b"),
            ("x-forwarded-for", "10.0.0.9"),
            ("sec-websocket-protocol", "v5.channel.k8s.io, base64url.bearer.authorization.k8s.io.eA"),
        ] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let out = onward(&headers, IpAddr::from([10, 0, 0, 1]));
        let mut seen: Vec<String> =
            out.iter().map(|(n, v)| format!("{n}: {}", v.to_str().expect("text"))).collect();
        seen.sort();
        assert_eq!(
            seen,
            [
                "cookie: a=b",
                "sec-websocket-protocol: v5.channel.k8s.io",
                "x-forwarded-for: 10.0.0.9, 10.0.0.1"
            ]
        );
    }
}
