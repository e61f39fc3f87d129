//! A webhook: an HTTPS server of its own that records what it is asked and answers as it is told.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use keelson_pki::{Ca, Request as Certificate, Usage};
use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

type Answer = dyn Fn(&Value) -> Value + Send + Sync;

pub struct Webhook {
    pub address: SocketAddr,
    /// Base64 of the PEM of the authority that vouches for the server.
    pub ca_bundle: String,
    asked: Arc<Mutex<Vec<(HeaderMap, Value)>>>,
    task: JoinHandle<()>,
}

impl Webhook {
    /// A server that answers each review's `request` with a `response`, whose uid is filled in.
    pub async fn start(answer: impl Fn(&Value) -> Value + Send + Sync + 'static) -> Self {
        Self::raw(move |review| {
            let mut response = answer(&review["request"]);
            response["uid"] = review["request"]["uid"].clone();
            json!({"apiVersion": review["apiVersion"], "kind": "AdmissionReview", "response": response})
        })
        .await
    }

    /// A server that answers with whole bodies; `Null` is never answered.
    pub async fn raw(answer: impl Fn(&Value) -> Value + Send + Sync + 'static) -> Self {
        Self::named("hook", &["127.0.0.1", "localhost", "hook.default.svc"], answer).await
    }

    /// As `raw`, with a certificate of this common name and these alternative names.
    pub async fn named(
        common_name: &str,
        names: &[&str],
        answer: impl Fn(&Value) -> Value + Send + Sync + 'static,
    ) -> Self {
        keelson_daemon::tls::provider();
        let ca = Ca::create("webhooks").unwrap();
        let issued = ca
            .issue(&Certificate {
                cn: common_name.into(),
                orgs: Vec::new(),
                sans: names.iter().map(|name| (*name).to_owned()).collect(),
                usage: Usage::Server,
                ttl: Duration::from_secs(3600),
            })
            .unwrap();
        let chain =
            CertificateDer::pem_slice_iter(issued.cert_pem.as_bytes()).collect::<Result<_, _>>().unwrap();
        let key = PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes()).unwrap();
        let tls = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
        // On every address, as endpoints of a Service may not be loopback ones.
        let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
        let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), listener.local_addr().unwrap().port());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let answer: Arc<Answer> = Arc::new(answer);
        let task = tokio::spawn(serve(listener, TlsAcceptor::from(Arc::new(tls)), asked.clone(), answer));
        Self { address, ca_bundle: STANDARD.encode(ca.cert_pem()), asked, task }
    }

    /// The `request` of every review so far.
    pub fn asked(&self) -> Vec<Value> {
        self.asked.lock().iter().map(|(_, review)| review["request"].clone()).collect()
    }

    /// A header of the last one.
    pub fn told(&self, header: &str) -> Option<String> {
        let asked = self.asked.lock();
        Some(asked.last()?.0.get(header)?.to_str().ok()?.to_owned())
    }

    /// A webhook of a configuration that calls this server, with the usual fields.
    pub fn hook(&self, name: &str, rules: Value) -> Value {
        json!({
            "name": name,
            "clientConfig": {"url": format!("https://{}/review", self.address), "caBundle": self.ca_bundle},
            "rules": rules,
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
        })
    }
}

impl Drop for Webhook {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    listener: TcpListener,
    tls: TlsAcceptor,
    asked: Arc<Mutex<Vec<(HeaderMap, Value)>>>,
    answer: Arc<Answer>,
) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        let (tls, asked, answer) = (tls.clone(), asked.clone(), answer.clone());
        tokio::spawn(async move {
            let Ok(stream) = tls.accept(stream).await else { return };
            let service = service_fn(|request| respond(request, &asked, &answer));
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn respond(
    request: Request<Incoming>,
    asked: &Mutex<Vec<(HeaderMap, Value)>>,
    answer: &Arc<Answer>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let review: Value = serde_json::from_slice(&body).unwrap_or_default();
    asked.lock().push((head.headers, review.clone()));
    let reply = answer(&review);
    if reply.is_null() {
        std::future::pending::<()>().await;
    }
    let status = reply["httpStatus"].as_u64().unwrap_or(200) as u16;
    let response = Response::builder().status(status).header("content-type", "application/json");
    Ok(response.body(Full::new(Bytes::from(reply.to_string()))).unwrap())
}
