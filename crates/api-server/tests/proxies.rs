//! HTTP to pods, Services and nodes through the server.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use keelson_daemon::tls::{ClientAuth, ServerFiles, server_config};
use keelson_daemon::{Shutdown, serve};
use keelson_pki::{Ca, Request as Certificate, Usage};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::extension::{self, SERVICES, SLICES};
use crate::support::{ACCOUNTS, Client, PODS, Server, default_account};

/// What a pod answers: a page for `/page`, a redirect for `/moved`, what it was asked for the rest.
async fn answer(mut request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let with = |status: u16, header: (&str, &str), body: String| {
        let response = Response::builder().status(status).header(header.0, header.1);
        Ok(response.body(Full::new(Bytes::from(body))).unwrap())
    };
    if request.headers().contains_key("upgrade") {
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let (mut read, mut write) = tokio::io::split(TokioIo::new(upgrade.await.unwrap()));
            let _ = tokio::io::copy(&mut read, &mut write).await;
        });
        let response =
            Response::builder().status(101).header("connection", "Upgrade").header("upgrade", "echo");
        return Ok(response.body(Full::default()).unwrap());
    }
    match request.uri().path() {
        "/page" => with(200, ("content-type", "text/html"), "<a href=\"/rewriteme\">test</a>".into()),
        "/moved" => with(302, ("location", "/elsewhere"), String::new()),
        _ => {
            let header = |name: &str| request.headers().get(name).map(|v| v.to_str().unwrap().to_owned());
            let mut seen = json!({
                "method": request.method().as_str(),
                "uri": request.uri().path_and_query().unwrap().as_str(),
                "authorization": header("authorization"),
                "forwarded": header("x-forwarded-uri"),
            });
            let body = request.into_body().collect().await.unwrap().to_bytes();
            seen["body"] = String::from_utf8_lossy(&body).into();
            with(200, ("content-type", "application/json"), seen.to_string())
        }
    }
}

/// An HTTP server on a free port.
async fn listen(address: IpAddr) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind((address, 0)).await.unwrap();
    let bound = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let served = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service_fn(answer))
                .with_upgrades();
            tokio::spawn(served);
        }
    });
    bound
}

/// The same over HTTPS, with a certificate that `ca` signed; `clients` are the authorities of who may come.
async fn listen_tls(server: &Server, address: IpAddr, ca: &Ca, clients: Option<&str>) -> SocketAddr {
    let issued = ca
        .issue(&Certificate {
            cn: "backend".into(),
            orgs: Vec::new(),
            sans: vec![address.to_string()],
            usage: Usage::Server,
            ttl: Duration::from_secs(3600),
        })
        .unwrap();
    let (cert, key) = (server.path("backend.crt"), server.path("backend.key"));
    std::fs::write(&cert, issued.cert_pem).unwrap();
    std::fs::write(&key, issued.key_pem).unwrap();
    let client_auth = if clients.is_some() { ClientAuth::Required } else { ClientAuth::None };
    let client_cas = clients.map(|c| server.path(c)).into_iter().collect();
    let tls = server_config(&ServerFiles { cert, key, client_cas, client_auth }).unwrap();
    let listener = serve::listen(SocketAddr::new(address, 0)).await.unwrap();
    let bound = listener.local_addr().unwrap();
    let handler = |request| async { answer(request).await.unwrap_or_else(|e| match e {}) };
    tokio::spawn(serve::serve(listener, tls, Shutdown::new(), handler));
    bound
}

/// A pod that runs at an address and declares a port by name.
async fn run_pod(admin: &Client, at: SocketAddr) {
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
        "spec": {"containers": [{"name": "c", "image": "i",
            "ports": [{"name": "web", "containerPort": at.port()}]}]}});
    admin.post(ACCOUNTS, &default_account()).await.expect(201);
    admin.post(PODS, &pod).await.expect(201);
    let status = json!({"status": {"podIP": at.ip(), "podIPs": [{"ip": at.ip()}]}});
    admin.patch(&format!("{PODS}/p/status"), "merge", &status).await.expect(200);
}

#[tokio::test]
async fn a_pod_is_reached_by_every_method_scheme_and_port() {
    let Some(address) = extension::address() else { return };
    let server = Server::start().await;
    let admin = server.admin();
    let at = listen(address).await;
    run_pod(&admin, at).await;
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let path = format!("{PODS}/p/proxy/some/%2Fpath/?a=b");
        let seen = admin.send(method.clone(), &path, "text/plain", "body").await.expect(200);
        assert_eq!((&seen["method"], &seen["body"]), (&json!(method.as_str()), &json!("body")));
        assert_eq!(seen["uri"], "/some/%2Fpath/?a=b");
        assert_eq!(seen["forwarded"], format!("{PODS}/p/proxy/some/%2Fpath/"));
    }
    for name in ["p:web".to_owned(), format!("p:{}", at.port()), format!("http:p:{}", at.port())] {
        admin.get(&format!("{PODS}/{name}/proxy/x")).await.expect(200);
    }
    let head = admin.send(Method::HEAD, &format!("{PODS}/p/proxy/x"), "", "").await;
    assert_eq!((head.status.as_u16(), head.bytes.len()), (200, 0));

    let https = listen_tls(&server, address, &Ca::create("nobody knows").unwrap(), None).await;
    admin.get(&format!("{PODS}/https:p:{}/proxy/x", https.port())).await.expect(200);
}

#[tokio::test]
async fn the_proxied_root_has_a_slash_and_links_lead_through_the_proxy() {
    let Some(address) = extension::address() else { return };
    let server = Server::start().await;
    let admin = server.admin();
    run_pod(&admin, listen(address).await).await;
    for method in [Method::GET, Method::HEAD] {
        let moved = admin.send(method, &format!("{PODS}/p/proxy?a=b"), "", "").await;
        assert_eq!(moved.status, 301);
        assert_eq!(moved.headers["location"], format!("{PODS}/p/proxy/?a=b"));
    }
    let seen = admin.send(Method::DELETE, &format!("{PODS}/p/proxy?a=b"), "", "").await.expect(200);
    assert_eq!(seen["uri"], "/?a=b");
    let page = admin.get(&format!("{PODS}/p/proxy/page")).await;
    assert_eq!(page.text(), format!("<a href=\"{PODS}/p/proxy/rewriteme\">test</a>"));
    let moved = admin.get(&format!("{PODS}/p/proxy/moved")).await;
    assert_eq!(moved.headers["location"], format!("{PODS}/p/proxy/elsewhere"));
    let mut stream = admin.upgrade(&format!("{PODS}/p/proxy/ws"), "echo").await;
    stream.write_all(b"hello").await.unwrap();
    let mut back = [0; 5];
    stream.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"hello");
}

#[tokio::test]
async fn a_service_is_reached_through_its_pods_alone() {
    let Some(address) = extension::address() else { return };
    let server = Server::start().await;
    let admin = server.admin();
    let at = listen(address).await;
    run_pod(&admin, at).await;
    admin.post(SERVICES, &extension::service()).await.expect(201);
    let path = |name: &str| format!("{SERVICES}/{name}/proxy/x");
    let none = "no endpoints available for service \"wardle\"";
    admin.get(&path("wardle:https")).await.refused(503, "ServiceUnavailable", none);
    let mut slice = extension::slice(at);
    admin.post(SLICES, &slice).await.expect(201);
    // Whoever wrote the slice may name any address; only a pod's own is believed.
    let none = "no endpoints available for service \"wardle:https\"";
    admin.get(&path("wardle:https")).await.refused(503, "ServiceUnavailable", none);
    slice["endpoints"][0]["targetRef"] = json!({"kind": "Pod", "namespace": "default", "name": "p"});
    admin
        .patch(&format!("{SLICES}/wardle-1"), "merge", &json!({"endpoints": slice["endpoints"]}))
        .await
        .expect(200);
    for name in ["wardle:https", "wardle:443", "http:wardle:443"] {
        let seen: Value = admin.get(&path(name)).await.expect(200);
        assert_eq!(seen["uri"], "/x", "{name}");
    }
    let none = "no service port 80 found for service \"wardle\"";
    admin.get(&path("wardle:80")).await.refused(503, "ServiceUnavailable", none);
    admin.get(&path("ftp:wardle:80")).await.refused(
        400,
        "BadRequest",
        "invalid service request \"ftp:wardle:80\"",
    );
    admin.get(&path("other")).await.refused(404, "NotFound", "services \"other\" not found");
}

#[tokio::test]
async fn what_cannot_be_reached_is_named() {
    let Some(address) = extension::address() else { return };
    let server = Server::start().await;
    let admin = server.admin();
    let at = listen(address).await;
    run_pod(&admin, at).await;
    // Bound and released: nobody listens.
    let free = tokio::net::TcpListener::bind((address, 0)).await.unwrap().local_addr().unwrap().port();
    let refused = admin.get(&format!("{PODS}/p:{free}/proxy/x")).await;
    let message =
        format!("error trying to reach service: dial tcp {address}:{free}: connect: connection refused");
    refused.refused(503, "ServiceUnavailable", &message);
    let status = json!({"status": {"podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}]}});
    admin.patch(&format!("{PODS}/p/status"), "merge", &status).await.expect(200);
    admin.get(&format!("{PODS}/p/proxy/x")).await.refused(400, "BadRequest", "address not allowed");
}

#[tokio::test]
async fn a_nodes_agent_is_asked_with_the_servers_certificate() {
    let Some(address) = extension::address() else { return };
    let server = Server::start().await;
    let admin = server.admin();
    let ca = Ca::load(&server.path("pki/ca.crt"), &server.path("pki/ca.key")).unwrap();
    let agent = listen_tls(&server, address, &ca, Some("pki/ca.crt")).await;
    let other = listen(address).await;
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}});
    admin.post("/api/v1/nodes", &node).await.expect(201);
    let status = json!({"status": {
        "addresses": [{"type": "InternalIP", "address": address}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": agent.port()}}}});
    admin.patch("/api/v1/nodes/n/status", "merge", &status).await.expect(200);
    for name in ["n".to_owned(), format!("n:{}", agent.port()), format!("n:{}", other.port())] {
        let seen = admin.get(&format!("/api/v1/nodes/{name}/proxy/logs/")).await.expect(200);
        assert_eq!((&seen["uri"], &seen["authorization"]), (&json!("/logs/"), &Value::Null), "{name}");
    }
    admin.get("/api/v1/nodes/m/proxy/logs/").await.refused(404, "NotFound", "nodes \"m\" not found");
}
