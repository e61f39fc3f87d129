//! One server per test, on a port of its own with a store in a temporary folder.

pub mod extension;
pub mod https;
pub mod webhook;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, BodyStream, Full};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use keelson_api_server::config::{Bind, Config};
use keelson_api_server::run::{Running, product_security, start};
use keelson_daemon::tls::rustls::ClientConfig;
use keelson_daemon::tls::{ClientFiles, client_config};
use keelson_daemon::{Daemon, Validate};
use keelson_pki::{Ca, ClusterIdentity, Request as Certificate, Usage, ensure_all};
use keelson_store::{EmbeddedConfig, Store, StoreConfig};
use rustls_pki_types::ServerName;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub const WAIT: Duration = Duration::from_secs(20);

pub struct Server {
    dir: TempDir,
    daemon: Daemon,
    /// Outlives the server, which only one process may have open.
    store: Arc<dyn Store>,
    tune: Tune,
    running: Option<Running>,
}

type Tune = Box<dyn Fn(&mut Config, &Path) + Send + Sync>;

impl Server {
    /// A server that is ready.
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// One whose configuration is another than usual.
    pub async fn with(tune: impl Fn(&mut Config) + Send + Sync + 'static) -> Self {
        Self::start_with(move |config, _| tune(config)).await
    }

    /// The same, told the server's folder as well.
    pub async fn start_with(tune: impl Fn(&mut Config, &Path) + Send + Sync + 'static) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let embedded = EmbeddedConfig::new(dir.path().join("store.redb"));
        let store = keelson_store::open(StoreConfig::Embedded(embedded)).await.unwrap();
        Self::build(dir, store, Box::new(tune)).await
    }

    /// One of several over a store.
    pub async fn over(store: Arc<dyn Store>, tune: impl Fn(&mut Config) + Send + Sync + 'static) -> Self {
        let tune = Box::new(move |config: &mut Config, _: &Path| tune(config));
        Self::build(tempfile::tempdir().unwrap(), store, tune).await
    }

    async fn build(dir: TempDir, store: Arc<dyn Store>, tune: Tune) -> Self {
        keelson_daemon::tls::provider();
        let identity = ClusterIdentity {
            name: "test".into(),
            server: "https://127.0.0.1:6443".into(),
            node_name: "node-1".into(),
            node_ips: vec!["127.0.0.1".parse().unwrap()],
            service_ip: "10.96.0.1".parse().unwrap(),
            cluster_domain: "cluster.local".into(),
            extra_sans: Vec::new(),
        };
        ensure_all(dir.path(), &identity).unwrap();
        let daemon = Daemon::new("keelson-api-server");
        let mut server = Self { dir, daemon, store, tune, running: None };
        server.open().await;
        server
    }

    async fn open(&mut self) {
        let mut config = Config {
            bind: Bind { address: "127.0.0.1".parse().unwrap(), port: 0 },
            data_dir: self.dir.path().to_owned(),
            pki_dir: self.dir.path().join("pki"),
            ..Config::default()
        };
        (self.tune)(&mut config, self.dir.path());
        assert_eq!(config.validate(), Vec::<String>::new());
        self.daemon = Daemon::new("keelson-api-server");
        let running =
            start(config, self.daemon.clone(), self.store.clone(), product_security()).await.unwrap();
        self.running = Some(running);
        let admin = self.admin();
        eventually("the server is ready", || async {
            let reply = admin.get("/readyz?verbose").await;
            if reply.status == 200 { Ok(()) } else { Err(reply.text()) }
        })
        .await;
    }

    /// Tells the server to end, as a signal does.
    pub fn shut_down(&self) {
        self.daemon.shutdown.cancel();
    }

    /// Waits until the server has ended.
    pub async fn stopped(&mut self) {
        tokio::time::timeout(WAIT, self.running.take().unwrap().wait()).await.expect("the server should end");
    }

    /// Stops the server as a signal does, and starts it again over the same store.
    pub async fn restart(&mut self) {
        self.daemon.shutdown.cancel();
        self.running.take().unwrap().wait().await;
        self.open().await;
    }

    /// The server's folder, with its `pki`.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// What the store holds under a key.
    pub async fn raw(&self, key: &str) -> Bytes {
        self.store.get(key).await.unwrap().kv.expect("the key exists").value
    }

    /// A file of the server's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn admin(&self) -> Client {
        self.client("kubernetes-admin", &["system:masters"])
    }

    fn ca(&self) -> Ca {
        let pki = self.dir.path().join("pki");
        Ca::load(&pki.join("ca.crt"), &pki.join("ca.key")).unwrap()
    }

    /// Someone with a certificate of the cluster's authority.
    pub fn client(&self, user: &str, groups: &[&str]) -> Client {
        self.client_of(&self.ca(), user, groups)
    }

    /// Someone whose certificate ends soon.
    pub fn client_for(&self, user: &str, ttl: Duration) -> Client {
        self.client_until(&self.ca(), user, &[], ttl)
    }

    /// Someone with a certificate of any authority.
    pub fn client_of(&self, ca: &Ca, user: &str, groups: &[&str]) -> Client {
        self.client_until(ca, user, groups, Duration::from_secs(3600))
    }

    fn client_until(&self, ca: &Ca, user: &str, groups: &[&str], ttl: Duration) -> Client {
        let issued = ca
            .issue(&Certificate {
                cn: user.into(),
                orgs: groups.iter().map(|g| (*g).to_owned()).collect(),
                sans: Vec::new(),
                usage: Usage::Client,
                ttl,
            })
            .unwrap();
        let path = |kind: &str| self.dir.path().join(format!("{user}.{kind}"));
        std::fs::write(path("crt"), issued.cert_pem).unwrap();
        std::fs::write(path("key"), issued.key_pem).unwrap();
        self.connect(Some((path("crt"), path("key"))))
    }

    /// Someone without a certificate.
    pub fn nobody(&self) -> Client {
        self.connect(None)
    }

    fn connect(&self, identity: Option<(std::path::PathBuf, std::path::PathBuf)>) -> Client {
        let files = ClientFiles { cas: vec![self.dir.path().join("pki/ca.crt")], identity };
        let tls = client_config(&files).unwrap();
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config((*tls).clone())
            .https_only()
            .enable_http1()
            .build();
        let http = HttpClient::builder(TokioExecutor::new()).build(connector);
        let address = self.running.as_ref().unwrap().address;
        Client { http, base: format!("https://{address}"), headers: Vec::new(), tls, address }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.daemon.shutdown.cancel();
    }
}

/// A connection on which a test writes what it likes.
pub type Raw = TlsStream<TcpStream>;

#[derive(Clone)]
pub struct Client {
    http: HttpClient<HttpsConnector<HttpConnector>, Full<Bytes>>,
    base: String,
    headers: Vec<(&'static str, String)>,
    tls: Arc<ClientConfig>,
    address: std::net::SocketAddr,
}

pub struct Reply {
    pub status: StatusCode,
    pub headers: http::HeaderMap,
    pub bytes: Bytes,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    /// The body of an answer that must have this status.
    #[track_caller]
    pub fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.text());
        self.json()
    }

    /// A refusal: code, reason and a part of the message.
    #[track_caller]
    pub fn refused(&self, code: u16, reason: &str, part: &str) -> Value {
        let status = self.expect(code);
        assert_eq!(
            (&status["kind"], &status["status"], &status["code"]),
            (&json!("Status"), &json!("Failure"), &json!(code))
        );
        assert_eq!(status["reason"], reason, "{status}");
        let message = status["message"].as_str().unwrap();
        assert!(message.contains(part), "{message:?} should contain {part:?}");
        status
    }
}

impl Client {
    pub fn with(&self, header: &'static str, value: impl Into<String>) -> Self {
        let mut client = self.clone();
        client.headers.push((header, value.into()));
        client
    }

    async fn open(
        &self,
        method: Method,
        path: &str,
        kind: &str,
        body: impl Into<Bytes>,
    ) -> http::Response<Incoming> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        if !kind.is_empty() {
            request = request.header("content-type", kind);
        }
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        let request = request.body(Full::new(body.into())).unwrap();
        self.http.request(request).await.unwrap()
    }

    pub async fn send(&self, method: Method, path: &str, kind: &str, body: impl Into<Bytes>) -> Reply {
        let response = self.open(method, path, kind, body).await;
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        Reply { status: parts.status, headers: parts.headers, bytes }
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.send(Method::GET, path, "", "").await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Reply {
        self.send(Method::POST, path, "application/json", body.to_string()).await
    }

    pub async fn put(&self, path: &str, body: &Value) -> Reply {
        self.send(Method::PUT, path, "application/json", body.to_string()).await
    }

    pub async fn delete(&self, path: &str, options: Option<Value>) -> Reply {
        let body = options.map(|o| o.to_string()).unwrap_or_default();
        self.send(Method::DELETE, path, "application/json", body).await
    }

    /// `kind` is the short name of the patch: `json`, `merge`, `strategic-merge` or `apply`.
    pub async fn patch(&self, path: &str, kind: &str, body: &Value) -> Reply {
        let kind = match kind {
            "apply" => "application/apply-patch+yaml".to_owned(),
            other => format!("application/{other}-patch+json"),
        };
        self.send(Method::PATCH, path, &kind, body.to_string()).await
    }

    /// A connection to speak by hand on.
    pub async fn stream(&self) -> TlsStream<TcpStream> {
        let tcp = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::from(self.address.ip());
        TlsConnector::from(self.tls.clone()).connect(name, tcp).await.unwrap()
    }

    /// A connection of its own, for HTTP/2 or HTTP/1.1.
    pub async fn raw(&self, http2: bool) -> Raw {
        let mut tls = (*self.tls).clone();
        tls.alpn_protocols = vec![if http2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
        let tcp = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::from(self.address.ip());
        TlsConnector::from(Arc::new(tls)).connect(name, tcp).await.unwrap()
    }

    /// Whether somebody listens.
    pub async fn try_connect(&self) -> bool {
        TcpStream::connect(self.address).await.is_ok()
    }

    /// Asks to switch to a protocol; the stream that then follows.
    pub async fn upgrade(&self, path: &str, protocol: &str) -> TokioIo<hyper::upgrade::Upgraded> {
        let client = self.with("connection", "Upgrade").with("upgrade", protocol);
        let response = client.open(Method::GET, path, "", "").await;
        let status = response.status();
        if status != 101 {
            let body = response.into_body().collect().await.unwrap().to_bytes();
            panic!("{status}: {}", String::from_utf8_lossy(&body));
        }
        TokioIo::new(hyper::upgrade::on(response).await.unwrap())
    }

    pub async fn watch(&self, path: &str) -> Watch {
        let response = self.open(Method::GET, path, "", "").await;
        assert_eq!(response.status(), 200);
        Watch { body: Box::pin(BodyStream::new(response.into_body())), buffer: Vec::new() }
    }
}

/// A watch's lines.
pub struct Watch {
    body: std::pin::Pin<Box<BodyStream<Incoming>>>,
    buffer: Vec<u8>,
}

impl Watch {
    /// The next event; `None` when the watch has ended.
    pub async fn next(&mut self) -> Option<Value> {
        tokio::time::timeout(WAIT, self.line()).await.expect("an event should come")
    }

    async fn line(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let frame = self.body.next().await?.ok()?;
            self.buffer.extend_from_slice(&frame.into_data().unwrap_or_default());
        }
    }

    /// Type and name of the next event.
    pub async fn seen(&mut self) -> String {
        match self.next().await {
            Some(event) => {
                let name = event["object"]["metadata"]["name"].as_str().unwrap_or_default();
                format!("{} {name}", event["type"].as_str().unwrap())
            }
            None => "the end".into(),
        }
    }
}

/// Waits until a state holds; fails with the last one seen.
pub async fn eventually<F, T>(what: &str, mut check: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, String>>,
{
    let deadline = tokio::time::Instant::now() + WAIT;
    loop {
        let last = match check().await {
            Ok(done) => return done,
            Err(last) => last,
        };
        assert!(tokio::time::Instant::now() < deadline, "{what}: {last}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
pub const PODS: &str = "/api/v1/namespaces/default/pods";
pub const ACCOUNTS: &str = "/api/v1/namespaces/default/serviceaccounts";
pub const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

pub fn config_map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "1"}})
}

/// The account that pods of a namespace run as; a controller makes it where there is one.
pub fn default_account() -> Value {
    json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}})
}

pub fn deployment(name: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "c", "image": "i"}]}
            }
        }
    })
}
