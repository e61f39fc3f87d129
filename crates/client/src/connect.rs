//! A `kube` client from a kubeconfig, whose certificates may be replaced while it lives.

use crate::retry::Safe;
use http::header::{HeaderValue, USER_AGENT};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::{self, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use keelson_tls::Files;
use kube::client::{Body, ClientBuilder, ConfigExt};
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tower::retry::RetryLayer;
use tower::util::option_layer;
use tower::{BoxError, ServiceBuilder, service_fn};

/// A connection that does not answer for this long is given up.
const DEAD_AFTER: Duration = Duration::from_secs(10);

/// Why no client could be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("read the kubeconfig {}", path.display())]
    Kubeconfig { path: PathBuf, source: KubeconfigError },
    #[error("make a client from the kubeconfig {}", path.display())]
    Client { path: PathBuf, source: Box<kube::Error> },
    #[error("use {value:?} as a user agent")]
    UserAgent { value: String },
}

/// How a client talks.
#[derive(Clone, Debug)]
pub struct Options {
    /// `daemon/version`, as the API server's logs and `managedFields` show it.
    pub user_agent: String,
    /// Whether all requests share one HTTP/2 connection, where the server offers it. It saves the
    /// server a TLS session per watch; only WebSockets need HTTP/1.1.
    pub http2: bool,
}

/// A client for a daemon. When the kubeconfig's certificate files change, requests after that use
/// a new connection with the new ones; watches that run stay on theirs until they end.
pub async fn connect(kubeconfig: &Path, user_agent: &str) -> Result<kube::Client, Error> {
    connect_with(kubeconfig, &Options { user_agent: user_agent.to_owned(), http2: true }).await
}

/// As [`connect`], with more to choose.
pub async fn connect_with(kubeconfig: &Path, options: &Options) -> Result<kube::Client, Error> {
    keelson_tls::provider();
    let unreadable = |source| Error::Kubeconfig { path: kubeconfig.to_owned(), source };
    let unusable = |source| Error::Client { path: kubeconfig.to_owned(), source: Box::new(source) };
    let file = Kubeconfig::read_from(kubeconfig).map_err(unreadable)?;
    let ca = certificate_authority(&file);
    let mut config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
        .await
        .map_err(unreadable)?;
    config.root_cert_file = ca;
    config.headers.push((USER_AGENT, user_agent(options)?));
    build(config, options.http2).map_err(unusable)
}

/// A client from a configuration that the caller has put together, for tools that choose contexts and users.
pub fn connect_config(mut config: kube::Config, options: &Options) -> Result<kube::Client, Error> {
    keelson_tls::provider();
    config.headers.push((USER_AGENT, user_agent(options)?));
    let path = PathBuf::from(config.cluster_url.to_string());
    build(config, options.http2).map_err(|source| Error::Client { path, source: Box::new(source) })
}

fn user_agent(options: &Options) -> Result<HeaderValue, Error> {
    HeaderValue::from_str(&options.user_agent)
        .map_err(|_| Error::UserAgent { value: options.user_agent.clone() })
}

/// The authority's file of the kubeconfig's current context: `kube` reads it once, so it is named again.
fn certificate_authority(file: &Kubeconfig) -> Option<PathBuf> {
    let current = file.current_context.as_deref()?;
    let context = file.contexts.iter().find(|c| c.name == current)?.context.as_ref()?;
    let cluster = file.clusters.iter().find(|c| c.name == context.cluster)?.cluster.as_ref()?;
    cluster.certificate_authority.as_ref().map(PathBuf::from)
}

type HyperClient = legacy::Client<HttpsConnector<HttpConnector>, Body>;

fn build(config: kube::Config, http2: bool) -> Result<kube::Client, kube::Error> {
    let auth = config.auth_layer()?;
    let headers = config.extra_headers_layer()?;
    let base = config.base_uri_layer();
    let namespace = config.default_namespace.clone();
    let user = &config.auth_info;
    let watched = [user.client_certificate.as_ref(), user.client_key.as_ref()];
    let paths =
        watched.into_iter().flatten().map(PathBuf::from).chain(config.root_cert_file.clone()).collect();
    let clients = Arc::new(Files::new(paths, move || hyper_client(&config, http2))?);
    let send = service_fn(move |request: Request<Body>| {
        let response = clients.current().request(request);
        async move { response.await.map_err(BoxError::from) as Result<Response<Incoming>, BoxError> }
    });
    let service = ServiceBuilder::new()
        .layer(base)
        .layer(RetryLayer::new(Safe::default()))
        .layer(option_layer(auth))
        .layer(headers)
        .map_err(BoxError::from)
        .service(send);
    Ok(ClientBuilder::new(service, namespace).build())
}

fn hyper_client(config: &kube::Config, http2: bool) -> Result<HyperClient, kube::Error> {
    let mut tls = config.rustls_client_config()?;
    tls.resumption = keelson_tls::rustls::client::Resumption::in_memory_sessions(4);
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_keepalive(Some(Duration::from_secs(15)));
    tcp.set_connect_timeout(Some(DEAD_AFTER));
    let mut builder = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
    if let Some(name) = &config.tls_server_name {
        let name = name.clone().try_into().map_err(|e| kube::Error::Service(BoxError::from(e)))?;
        builder = builder.with_server_name_resolver(FixedServerNameResolver::new(name));
    }
    let connector = match http2 {
        true => builder.enable_all_versions().wrap_connector(tcp),
        false => builder.enable_http1().wrap_connector(tcp),
    };
    Ok(legacy::Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(Duration::from_secs(60))
        .pool_max_idle_per_host(4)
        // Large lists pass in few round trips, while what a slow reader can pile up stays bounded.
        .http2_initial_stream_window_size(1 << 20)
        .http2_initial_connection_window_size(4 << 20)
        .http2_keep_alive_interval(Duration::from_secs(15))
        .http2_keep_alive_timeout(DEAD_AFTER)
        .build(connector))
}
