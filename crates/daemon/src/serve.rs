//! A small HTTPS server: HTTP/1.1 and HTTP/2 with upgrades, the peer's certificates in the request.

use crate::config::Serving;
use crate::tls::{self, ClientAuth, ServerFiles};
use crate::{Daemon, Shutdown};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls_pki_types::CertificateDer;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// A handshake that takes longer is given up.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long requests may take to finish after shutdown.
const DRAIN: Duration = Duration::from_secs(5);

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Who sent a request; found in its extensions.
#[derive(Clone, Debug)]
pub struct Peer {
    pub address: SocketAddr,
    /// The client's chain, its leaf first; `None` when it showed none.
    pub certificates: Option<Arc<[CertificateDer<'static>]>>,
}

/// Why a port could not be served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("listen on {address}")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("set up TLS for {address}")]
    Tls { address: SocketAddr, source: tls::Error },
}

/// Listens with `SO_REUSEADDR`, so that a restarted daemon gets its port back at once.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source })
}

/// Serves `handler` on `listener` until `shutdown`, then lets open requests finish for a few seconds.
pub async fn serve<H, F, B>(
    listener: TcpListener,
    tls: Arc<tls::rustls::ServerConfig>,
    shutdown: Shutdown,
    handler: H,
) where
    H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let acceptor = TlsAcceptor::from(tls);
    let connections = tokio_util::task::TaskTracker::new();
    loop {
        let (stream, address) = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors, mostly: pause, or the loop would spin.
                    tracing::warn!(error = &error as &dyn std::error::Error, "accept failed");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
        };
        let (acceptor, handler, shutdown) = (acceptor.clone(), handler.clone(), shutdown.clone());
        connections.spawn(async move {
            if let Err(error) = connection(stream, address, acceptor, shutdown, handler).await {
                tracing::debug!(%address, error = &*error as &dyn std::error::Error, "connection ended");
            }
        });
    }
    drop(listener);
    connections.close();
    let _ = tokio::time::timeout(DRAIN, connections.wait()).await;
}

async fn connection<H, F, B>(
    stream: TcpStream,
    address: SocketAddr,
    acceptor: TlsAcceptor,
    shutdown: Shutdown,
    handler: H,
) -> Result<(), BoxError>
where
    H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    stream.set_nodelay(true)?;
    let stream = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await??;
    let certificates = stream
        .get_ref()
        .1
        .peer_certificates()
        .map(|chain| chain.iter().map(|c| c.clone().into_owned()).collect::<Vec<_>>().into());
    let peer = Peer { address, certificates };
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        let response = handler(request);
        async move { Ok::<_, std::convert::Infallible>(response.await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HANDSHAKE_TIMEOUT);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(Duration::from_secs(30));
    let served = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    let mut served = std::pin::pin!(served);
    tokio::select! {
        result = served.as_mut() => return result,
        () = shutdown.cancelled() => served.as_mut().graceful_shutdown(),
    }
    served.await
}

impl Daemon {
    /// Serves `/healthz`, `/livez`, `/readyz` and `/metrics` in the background, to clients with a
    /// certificate of the cluster's authority. Returns the address, whose port was free if 0 was asked for.
    pub async fn serve_health(&self, serving: &Serving) -> Result<SocketAddr, Error> {
        let address = serving.listen;
        let files = ServerFiles {
            cert: serving.cert_file.clone(),
            key: serving.key_file.clone(),
            client_cas: vec![serving.client_ca_file.clone()],
            client_auth: ClientAuth::Required,
        };
        let tls = tls::server_config(&files).map_err(|source| Error::Tls { address, source })?;
        let listener = listen(address).await?;
        let bound = listener.local_addr().map_err(|source| Error::Listen { address, source })?;
        let daemon = self.clone();
        let handler = move |request: Request<Incoming>| std::future::ready(daemon.respond(&request));
        tokio::spawn(serve(listener, tls, self.shutdown.clone(), handler));
        tracing::info!(address = %bound, "health and metrics are served");
        Ok(bound)
    }

    /// Answers a request for health or metrics, 404 for any other path.
    pub fn respond<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return status(StatusCode::METHOD_NOT_ALLOWED);
        }
        let path = request.uri().path();
        if path == "/metrics" {
            return self.metrics.respond(request.headers());
        }
        self.health.respond(path, request.uri().query()).unwrap_or_else(|| status(StatusCode::NOT_FOUND))
    }
}

fn status(code: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(format!("{code}\n")));
    *response.status_mut() = code;
    response
}
