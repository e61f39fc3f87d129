//! Accepting connections: TLS with optional client certificates, HTTP/1.1 and HTTP/2, graceful end.

mod cork;
mod handler;
mod sending;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use keelson_daemon::tls::rustls::ServerConfig;
use keelson_daemon::tls::{ClientAuth, ClientVerifier, ServerFiles, server_config};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::cork::Cork;
use self::sending::{Sending, Streams};
use crate::app::App;
use crate::config::Config;
use crate::types::{Peer, PeerCert};

const HANDSHAKE: Duration = Duration::from_secs(10);
/// Clients that vanish without a word are noticed after a few silent probes of this interval.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// What the headers of a request may take.
const HEADER_LIMIT: usize = 1 << 20;
/// How long requests under way may take to end at shutdown; watches are closed at once.
const DRAIN: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("could not listen on {address}")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("could not set up TLS")]
    Tls(#[source] keelson_daemon::tls::Error),
    #[error("could not open the store")]
    Store(#[source] keelson_store::Error),
    #[error("could not load the store's objects")]
    Load(#[source] keelson_store::Error),
    #[error("could not set up audit")]
    Audit(#[source] crate::audit::Error),
    #[error("could not set up tracing")]
    Tracing(#[source] crate::body::BoxError),
    #[error("could not set up encryption at rest")]
    Encryption(#[source] crate::encrypt::StartError),
    #[error("could not set up authentication and authorization")]
    Security(#[source] crate::body::BoxError),
}

/// A listener with its TLS, ready to serve.
pub struct Listener {
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    verifier: ClientVerifier,
}

impl Listener {
    pub async fn bind(config: &Config) -> Result<Self, Error> {
        let files = ServerFiles {
            cert: config.serving_cert(),
            key: config.serving_key(),
            client_cas: Vec::new(),
            client_auth: ClientAuth::Requested,
        };
        let tls = server_config(&files).map_err(Error::Tls)?;
        let mut authorities = vec![config.client_ca()];
        authorities.extend(Some(config.front_proxy_ca()).filter(|p| p.exists()));
        let verifier = ClientVerifier::new(authorities).map_err(Error::Tls)?;
        let address = config.listen_address();
        let listener =
            TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source })?;
        Ok(Self { listener, tls, verifier })
    }

    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until shutdown, then lets the requests under way end, and at last the tunnels.
    pub async fn serve(self, app: Arc<App>) {
        let acceptor = TlsAcceptor::from(self.tls);
        let connections = TaskTracker::new();
        let mut http = auto::Builder::new(Streams);
        http.http1()
            .timer(TokioTimer::new())
            .header_read_timeout(Duration::from_secs(30))
            .max_buf_size(HEADER_LIMIT);
        http.http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(1000)
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(4 << 20)
            .keep_alive_interval(Duration::from_secs(30))
            .max_header_list_size(HEADER_LIMIT as u32);
        let http = Arc::new(http);
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = app.shutdown.cancelled() => break,
            };
            let (stream, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "could not accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let connection = Connection {
                app: app.clone(),
                acceptor: acceptor.clone(),
                verifier: self.verifier.clone(),
                http: http.clone(),
                ending: app.shutdown.child_token(),
                address,
            };
            connections.spawn(connection.run(stream));
        }
        drop(self.listener);
        connections.close();
        if tokio::time::timeout(DRAIN, connections.wait()).await.is_err() {
            tracing::warn!("some requests did not end in time");
        }
        app.backends.end_tunnels().await;
        app.ended.cancel();
    }
}

struct Connection {
    app: Arc<App>,
    acceptor: TlsAcceptor,
    verifier: ClientVerifier,
    http: Arc<auto::Builder<Streams>>,
    /// Cancelled when no further requests are to come: at shutdown, or to send the client elsewhere.
    ending: CancellationToken,
    address: SocketAddr,
}

impl Connection {
    async fn run(self, stream: TcpStream) {
        let _ = stream.set_nodelay(true);
        let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE);
        let _ = SockRef::from(&stream).set_tcp_keepalive(&keepalive);
        let tls = match tokio::time::timeout(HANDSHAKE, self.acceptor.accept(stream)).await {
            Ok(Ok(tls)) => tls,
            Ok(Err(error)) => {
                tracing::debug!(peer = %self.address, %error, "TLS handshake failed");
                return;
            }
            Err(_) => return,
        };
        let chain = tls.get_ref().1.peer_certificates().map(<[_]>::to_vec);
        // A certificate that our authorities did not sign is a wrong credential, answered with 401.
        let (certificate, refused) = match chain {
            None => (None, false),
            Some(chain) => match self.verifier.verify(&chain) {
                Ok(()) => {
                    let chain = chain.into_iter().map(|c| c.into_owned()).collect();
                    (Some(Arc::new(PeerCert::new(chain))), false)
                }
                Err(error) => {
                    tracing::info!(peer = %self.address, %error, "refused a client certificate");
                    (None, true)
                }
            },
        };
        let peer = Peer { address: self.address, certificate };
        let (app, ending) = (self.app, self.ending.clone());
        let service = hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
            let (app, peer) = (app.clone(), peer.clone());
            // A client that keeps one connection for ever never meets another server of the cluster.
            if request.version() == http::Version::HTTP_2 && rand::random_bool(app.config.goaway_chance) {
                ending.cancel();
            }
            // Boxed, since HTTP/2 keeps the room for it as long as the answer is under way: a watch, for hours.
            Box::pin(async move {
                Ok::<_, std::convert::Infallible>(handler::handle(app, peer, refused, request).await)
            })
        });
        let is_http2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
        let (stream, cork) = Cork::new(tls);
        // What HTTP/1.1 upgrades leaves this task, and its writes are few.
        if is_http2 {
            cork.cork();
        }
        let served = self.http.serve_connection_with_upgrades(TokioIo::new(stream), service);
        let ended = cork.drive(async {
            let mut served = std::pin::pin!(served);
            tokio::select! {
                ended = served.as_mut() => ended,
                () = self.ending.cancelled() => {
                    served.as_mut().graceful_shutdown();
                    served.await
                }
            }
        });
        // HTTP/1.1's answers are sent by this task.
        let ended = Sending::new(ended).await;
        if let Some(Err(error)) = ended {
            tracing::debug!(peer = %self.address, error, "connection ended");
        }
    }
}
