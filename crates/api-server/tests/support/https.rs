//! A service that the server asks: HTTPS with an authority of its own, which records what it is asked.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use keelson_daemon::Shutdown;
use keelson_daemon::serve::{listen, serve};
use keelson_daemon::tls::{ClientAuth, ServerFiles, server_config};
use keelson_pki::{Ca, Request as Certificate, Usage};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tempfile::TempDir;

/// One request: its path, headers and body (`Null` if it has none).
pub struct Asked {
    pub path: String,
    pub headers: HeaderMap,
    pub body: Value,
}

pub struct Https {
    pub url: String,
    dir: TempDir,
    asked: Arc<Mutex<Vec<Asked>>>,
    shutdown: Shutdown,
}

impl Https {
    /// A service that answers with a status and a body: JSON, or a string as it stands.
    pub async fn start(answer: impl Fn(&Asked) -> (u16, Value) + Send + Sync + 'static) -> Self {
        keelson_daemon::tls::provider();
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let ca = Ca::load_or_create(&path("ca.crt"), &path("ca.key"), "service").unwrap();
        let issued = ca
            .issue(&Certificate {
                cn: "service".into(),
                orgs: Vec::new(),
                sans: vec!["127.0.0.1".into()],
                usage: Usage::Server,
                ttl: Duration::from_secs(3600),
            })
            .unwrap();
        let (cert, key) = (path("tls.crt"), path("tls.key"));
        std::fs::write(&cert, issued.cert_pem).unwrap();
        std::fs::write(&key, issued.key_pem).unwrap();
        let files = ServerFiles { cert, key, client_cas: Vec::new(), client_auth: ClientAuth::None };
        let listener = listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let (asked, shutdown) = (Arc::new(Mutex::new(Vec::new())), Shutdown::new());
        let (record, answer) = (asked.clone(), Arc::new(answer));
        let handler = move |request: Request<Incoming>| {
            let (record, answer) = (record.clone(), answer.clone());
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect().await.map(|b| b.to_bytes()).unwrap_or_default();
                let body = serde_json::from_slice(&body).unwrap_or_default();
                let asked = Asked { path: parts.uri.path().to_owned(), headers: parts.headers, body };
                let (status, reply) = answer(&asked);
                record.lock().push(asked);
                let reply = reply.as_str().map_or_else(|| reply.to_string(), str::to_owned);
                Response::builder().status(status).body(Full::new(Bytes::from(reply))).unwrap()
            }
        };
        tokio::spawn(serve(listener, server_config(&files).unwrap(), shutdown.clone(), handler));
        Self { url, dir, asked, shutdown }
    }

    /// PEM of its authority.
    pub fn ca(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("ca.crt")).unwrap()
    }

    /// A kubeconfig that names it, with a token to show.
    pub fn kubeconfig(&self) -> PathBuf {
        let path = self.dir.path().join("kubeconfig");
        let text = json!({"apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "s", "cluster": {"server": self.url, "certificate-authority": "ca.crt"}}],
            "users": [{"name": "u", "user": {"token": "shown"}}],
            "contexts": [{"name": "c", "context": {"cluster": "s", "user": "u"}}]});
        std::fs::write(&path, text.to_string()).unwrap();
        path
    }

    pub fn count(&self) -> usize {
        self.asked.lock().len()
    }

    pub fn last(&self) -> Asked {
        self.asked.lock().pop().expect("it was asked")
    }
}

impl Drop for Https {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}
