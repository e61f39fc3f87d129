//! An extension API server: HTTPS on an address that endpoints may have, known to the API server by the front
//! proxy's certificate alone.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use keelson_daemon::serve::Peer;
use keelson_daemon::tls::{ClientAuth, ServerFiles, server_config};
use keelson_daemon::{Shutdown, serve};
use keelson_pki::{Ca, CertificateInfo, Request as Certificate, Usage};
use serde_json::{Value, json};

use super::{Client, Server, eventually};

pub const NAMESPACE: &str = "default";
pub const SERVICE: &str = "wardle";
pub const GROUP: &str = "wardle.example.com";
pub const API_SERVICE: &str = "/apis/apiregistration.k8s.io/v1/apiservices/v1alpha1.wardle.example.com";
pub const GROUP_VERSION: &str = "/apis/wardle.example.com/v1alpha1";

type Body = StreamBody<BoxStream<'static, Result<Frame<Bytes>, std::convert::Infallible>>>;

/// What the server is like.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Modern,
    /// Neither aggregated discovery nor OpenAPI v3.
    Old,
}

pub struct Extension {
    pub address: SocketAddr,
    ca: Ca,
    shutdown: Shutdown,
    seen: Arc<Mutex<Vec<Seen>>>,
}

/// A request, and the name on the certificate that it came with.
pub struct Seen {
    pub path: String,
    pub headers: http::HeaderMap,
    pub certificate: String,
}

/// An address of this machine that endpoints may have; `None` (and a word about it) where there is only the loopback.
pub fn address() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    // Sends nothing: it only asks the routing table.
    let routed = socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).and_then(|()| socket.local_addr());
    let found = routed.ok().map(|a| a.ip()).filter(|ip| !ip.is_loopback());
    if found.is_none() {
        eprintln!("skipped: this machine has no address but the loopback's");
    }
    found
}

impl Extension {
    pub async fn start(server: &Server, address: IpAddr, kind: Kind) -> Self {
        let _ = keelson_daemon::logging::init(&keelson_daemon::LogConfig {
            level: "warn".into(),
            ..Default::default()
        });
        let dir = server.path("extension");
        std::fs::create_dir_all(&dir).unwrap();
        let file = |name: &str| dir.join(name);
        let ca = Ca::load_or_create(&file("ca.crt"), &file("ca.key"), "wardle-ca").unwrap();
        let issued = ca
            .issue(&Certificate {
                cn: "wardle".into(),
                orgs: Vec::new(),
                sans: vec![format!("{SERVICE}.{NAMESPACE}.svc")],
                usage: Usage::Server,
                ttl: Duration::from_secs(3600),
            })
            .unwrap();
        std::fs::write(file("tls.crt"), issued.cert_pem).unwrap();
        std::fs::write(file("tls.key"), issued.key_pem).unwrap();
        let tls = server_config(&ServerFiles {
            cert: file("tls.crt"),
            key: file("tls.key"),
            client_cas: vec![server.path("pki/front-proxy-ca.crt")],
            client_auth: ClientAuth::Required,
        })
        .unwrap();
        let listener = serve::listen(SocketAddr::new(address, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (shutdown, seen) = (Shutdown::new(), Arc::new(Mutex::new(Vec::new())));
        let log = seen.clone();
        let handler = move |request: Request<Incoming>| {
            let log = log.clone();
            async move { answer(request, kind, &log).await }
        };
        tokio::spawn(serve::serve(listener, tls, shutdown.clone(), handler));
        Self { address, ca, shutdown, seen }
    }

    /// Goes down: nobody listens any more.
    pub fn stop(&self) {
        self.shutdown.cancel();
    }

    pub fn ca_bundle(&self) -> String {
        STANDARD.encode(self.ca.cert_pem())
    }

    /// The headers of the last request for a path, and the name on its certificate.
    pub fn last(&self, path: &str) -> (http::HeaderMap, String) {
        let seen = self.seen.lock().unwrap();
        let last = seen.iter().rev().find(|s| s.path == path).expect("a request");
        (last.headers.clone(), last.certificate.clone())
    }

    /// Service, endpoints and APIService; waits until the group is available.
    pub async fn register(&self, admin: &Client) {
        admin.post(SERVICES, &service()).await.expect(201);
        admin.post(SLICES, &slice(self.address)).await.expect(201);
        let object = api_service(json!({"caBundle": self.ca_bundle()}));
        admin.post(API_SERVICES, &object).await.expect(201);
        until(admin, "Passed").await;
        let document = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
        let reader = admin.with("accept", document);
        eventually("the group is discovered", || async {
            let groups = reader.get("/apis").await.json();
            match group(&groups)["versions"][0]["freshness"] == "Current" {
                true => Ok(()),
                false => Err(group(&groups).to_string()),
            }
        })
        .await;
    }
}

impl Drop for Extension {
    fn drop(&mut self) {
        self.stop();
    }
}

pub const SERVICES: &str = "/api/v1/namespaces/default/services";
pub const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
pub const API_SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";

/// The extension's group in an aggregated discovery document.
pub fn group(groups: &Value) -> Value {
    let found = groups["items"].as_array().unwrap().iter().find(|g| g["metadata"]["name"] == GROUP);
    found.cloned().unwrap_or_default()
}

pub fn service() -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": SERVICE},
        "spec": {"ports": [{"name": "https", "port": 443, "targetPort": 8443}]}})
}

pub fn slice(address: SocketAddr) -> Value {
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "wardle-1", "labels": {"kubernetes.io/service-name": SERVICE}},
        "endpoints": [{"addresses": [address.ip()], "conditions": {"ready": true}}],
        "ports": [{"name": "https", "port": address.port(), "protocol": "TCP"}]})
}

/// With `trust`'s fields in the spec.
pub fn api_service(trust: Value) -> Value {
    let mut object = json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": {"name": "v1alpha1.wardle.example.com"},
        "spec": {"group": GROUP, "version": "v1alpha1", "groupPriorityMinimum": 2000, "versionPriority": 200,
            "service": {"namespace": NAMESPACE, "name": SERVICE, "port": 443}}});
    for (field, value) in trust.as_object().unwrap() {
        object["spec"][field] = value.clone();
    }
    object
}

/// Waits until the `Available` condition has a reason; returns its message.
pub async fn until(admin: &Client, reason: &str) -> String {
    eventually(&format!("the APIService says {reason}"), || async {
        let object = admin.get(API_SERVICE).await.json();
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let available = conditions.iter().find(|c| c["type"] == "Available").cloned().unwrap_or_default();
        match available["reason"] == reason {
            true => Ok(available["message"].as_str().unwrap().to_owned()),
            false => Err(object["status"].to_string()),
        }
    })
    .await
}

fn whole(status: u16, kind: &str, body: impl Into<Bytes>) -> Response<Body> {
    let frame = Frame::data(body.into());
    let body = StreamBody::new(futures::stream::iter([Ok(frame)]).boxed());
    Response::builder().status(status).header("content-type", kind).body(body).unwrap()
}

async fn answer(mut request: Request<Incoming>, kind: Kind, log: &Mutex<Vec<Seen>>) -> Response<Body> {
    let peer = request.extensions().get::<Peer>().unwrap().clone();
    let certificate = CertificateInfo::from_der(&peer.certificates.unwrap()[0]).unwrap().common_name;
    let (path, headers) = (request.uri().path().to_owned(), request.headers().clone());
    log.lock().unwrap().push(Seen { path: path.clone(), headers: headers.clone(), certificate });
    let accept = headers.get("accept").and_then(|v| v.to_str().ok()).unwrap_or_default();
    let aggregated = kind == Kind::Modern && accept.contains("as=APIGroupDiscoveryList");
    let json = |value: Value| whole(200, "application/json", value.to_string());
    match path.as_str() {
        "/apis" if aggregated => whole(
            200,
            "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
            json!({"kind": "APIGroupDiscoveryList", "items": [{"metadata": {"name": GROUP}, "versions": [
                {"version": "v1alpha1", "freshness": "Current", "resources": [{"resource": "flunders",
                    "singularResource": "flunder", "scope": "Namespaced", "verbs": ["get", "list"],
                    "responseKind": {"group": GROUP, "version": "v1alpha1", "kind": "Flunder"}}]}]}]})
            .to_string(),
        ),
        "/apis" => json(json!({"kind": "APIGroupList", "groups": []})),
        GROUP_VERSION => json(json!({"kind": "APIResourceList", "apiVersion": "v1",
            "groupVersion": "wardle.example.com/v1alpha1", "resources": [{"name": "flunders",
                "singularName": "flunder", "namespaced": true, "kind": "Flunder", "verbs": ["get", "list"]}]})),
        "/openapi/v2" => json(json!({"swagger": "2.0",
            "paths": {format!("{GROUP_VERSION}/namespaces/{{namespace}}/flunders"): {"get": {"responses":
                {"200": {"schema": {"$ref": "#/definitions/example.Flunder"}}}}}},
            "definitions": {"example.Flunder": {"type": "object"}, "example.Unused": {"type": "object"}}})),
        "/openapi/v3" if kind == Kind::Modern => json(json!({"paths": {
            "apis/wardle.example.com/v1alpha1": {"serverRelativeURL": format!("/openapi/v3{GROUP_VERSION}?hash=H")}}})),
        path if path == format!("/openapi/v3{GROUP_VERSION}") && kind == Kind::Modern => {
            json(json!({"openapi": "3.0.0", "components": {"schemas": {"example.Flunder": {}}}}))
        }
        path if path.ends_with("/moved") => {
            let mut moved = whole(302, "text/plain", "");
            moved.headers_mut().insert("location", "https://elsewhere.example.com/".parse().unwrap());
            moved
        }
        path if path.ends_with("/flunders")
            && request.uri().query().is_some_and(|q| q.contains("watch=true")) =>
        {
            let event = |name: &str| {
                format!("{{\"type\":\"ADDED\",\"object\":{{\"metadata\":{{\"name\":\"{name}\"}}}}}}\n")
            };
            let first =
                futures::stream::iter([event("a"), event("b")].map(|e| Ok(Frame::data(Bytes::from(e)))));
            // Stays open as long as anybody listens.
            let body = StreamBody::new(first.chain(futures::stream::pending()).boxed());
            Response::builder().header("content-type", "application/json").body(body).unwrap()
        }
        path if path.ends_with("/echo") && headers.contains_key("upgrade") => {
            let upgrade = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let (mut read, mut write) = tokio::io::split(TokioIo::new(upgrade.await.unwrap()));
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
            let mut switching = whole(101, "text/plain", "");
            switching.headers_mut().remove("content-type");
            switching.headers_mut().insert("connection", "Upgrade".parse().unwrap());
            switching.headers_mut().insert("upgrade", headers["upgrade"].clone());
            switching
        }
        path if path.starts_with(GROUP_VERSION) => {
            let method = request.method().to_string();
            let query = request.uri().query().unwrap_or_default().to_owned();
            let body = request.into_body().collect().await.unwrap().to_bytes();
            json(
                json!({"method": method, "path": path, "query": query, "body": String::from_utf8_lossy(&body)}),
            )
        }
        _ => whole(StatusCode::NOT_FOUND.as_u16(), "text/plain", "404 page not found"),
    }
}
