//! A client over real TLS whose certificate files are replaced.

use http::Response;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use keelson_client::{connect, rest};
use keelson_tls::{ClientAuth, ServerFiles};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

type Authority = rcgen::CertifiedIssuer<'static, rcgen::KeyPair>;

fn authority(dir: &Path) -> (Authority, PathBuf) {
    let mut params = rcgen::CertificateParams::new(vec![]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = Authority::self_signed(params, rcgen::KeyPair::generate().unwrap()).unwrap();
    replace(&dir.join("ca.crt"), &ca.pem());
    (ca, dir.join("ca.crt"))
}

fn issue(ca: &Authority, dir: &Path, name: &str) -> (PathBuf, PathBuf) {
    let params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let files = (dir.join(format!("{name}.crt")), dir.join(format!("{name}.key")));
    replace(&files.1, &key.serialize_pem());
    replace(&files.0, &params.signed_by(&key, ca).unwrap().pem());
    files
}

fn replace(path: &Path, content: &str) {
    std::fs::write(path.with_extension("next"), content).unwrap();
    std::fs::rename(path.with_extension("next"), path).unwrap();
}

/// Answers every request with the client's certificate, HTTP version and user agent.
async fn serve(files: ServerFiles) -> u16 {
    let acceptor = tokio_rustls::TlsAcceptor::from(keelson_tls::server_config(&files).unwrap());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let peer = stream.get_ref().1.peer_certificates().unwrap()[0].to_vec();
                let service = hyper::service::service_fn(move |request: http::Request<_>| {
                    let agent = request.headers()["user-agent"].to_str().unwrap().to_owned();
                    let version = format!("{:?}", request.version());
                    let _: &hyper::body::Incoming = request.body();
                    let answer = json!({ "certificate": peer, "version": version, "agent": agent });
                    async move { Ok::<_, std::io::Error>(Response::new(Full::<Bytes>::from(answer.to_string()))) }
                });
                let _ = auto::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    port
}

#[tokio::test]
async fn a_renewed_certificate_is_used_without_a_new_client() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let (ca, ca_file) = authority(dir);
    let (cert, key) = issue(&ca, dir, "server");
    let files = ServerFiles { cert, key, client_cas: vec![ca_file], client_auth: ClientAuth::Required };
    let port = serve(files).await;
    issue(&ca, dir, "client");
    // Paths in a kubeconfig are relative to it.
    let kubeconfig = json!({
        "clusters": [{ "name": "c", "cluster": { "server": format!("https://127.0.0.1:{port}"), "certificate-authority": "ca.crt" } }],
        "users": [{ "name": "u", "user": { "client-certificate": "client.crt", "client-key": "client.key" } }],
        "contexts": [{ "name": "x", "context": { "cluster": "c", "user": "u" } }],
        "current-context": "x",
    });
    let path = dir.join("test.kubeconfig");
    std::fs::write(&path, kubeconfig.to_string()).unwrap();

    let client = connect(&path, "keelson-test/1").await.unwrap();
    let first: Value = rest::get(&client, "/").await.unwrap();
    assert_eq!((&first["version"], &first["agent"]), (&"HTTP/2.0".into(), &"keelson-test/1".into()));
    issue(&ca, dir, "client");
    let deadline = Instant::now() + Duration::from_secs(10);
    while rest::get::<Value>(&client, "/").await.unwrap()["certificate"] == first["certificate"] {
        assert!(Instant::now() < deadline, "the old certificate is still shown");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_missing_kubeconfig_is_named() {
    let error = connect(Path::new("/nowhere/x.kubeconfig"), "a").await.err().unwrap();
    assert_eq!(error.to_string(), "read the kubeconfig /nowhere/x.kubeconfig");
}
