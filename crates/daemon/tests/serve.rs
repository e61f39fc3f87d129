//! Health over TLS.

use keelson_daemon::tls::{ClientFiles, client_config};
use keelson_daemon::{Daemon, Serving};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

fn certificates(dir: &Path) -> (Serving, (PathBuf, PathBuf)) {
    let mut params = rcgen::CertificateParams::new(vec![]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = rcgen::CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate().unwrap()).unwrap();
    std::fs::write(dir.join("ca.crt"), ca.pem()).unwrap();
    let issue = |name: &str| {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let files = (dir.join(format!("{name}.crt")), dir.join(format!("{name}.key")));
        std::fs::write(&files.0, params.signed_by(&key, &ca).unwrap().pem()).unwrap();
        std::fs::write(&files.1, key.serialize_pem()).unwrap();
        files
    };
    let (cert_file, key_file) = issue("server");
    let listen = ([127, 0, 0, 1], 0).into();
    (Serving { listen, cert_file, key_file, client_ca_file: dir.join("ca.crt") }, issue("client"))
}

async fn get(address: SocketAddr, path: &str, files: &ClientFiles) -> std::io::Result<String> {
    let connector = tokio_rustls::TlsConnector::from(client_config(files).unwrap());
    let tcp = TcpStream::connect(address).await?;
    let mut stream = connector.connect("127.0.0.1".try_into().unwrap(), tcp).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

#[tokio::test]
async fn health_is_for_clients_with_a_certificate_until_shutdown() {
    let dir = tempfile::tempdir().unwrap();
    let (serving, identity) = certificates(dir.path());
    assert_eq!(serving.validate("serving"), Vec::<String>::new());
    let daemon = Daemon::new("keelson-test");
    let address = daemon.serve_health(&serving).await.unwrap();
    let known = ClientFiles { cas: vec![dir.path().join("ca.crt")], identity: Some(identity) };

    let live = get(address, "/livez?verbose", &known).await.unwrap();
    assert!(live.starts_with("HTTP/1.1 200 OK") && live.ends_with("livez check passed\n"), "{live}");
    let metrics = get(address, "/metrics", &known).await.unwrap();
    assert!(metrics.contains("process_resident_memory_bytes"), "{metrics}");
    assert!(get(address, "/else", &known).await.unwrap().starts_with("HTTP/1.1 404"));

    let nobody = ClientFiles { identity: None, ..known.clone() };
    assert!(get(address, "/livez", &nobody).await.is_err());

    daemon.shutdown.cancel();
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
    while get(address, "/livez", &known).await.is_ok() {
        assert!(tokio::time::Instant::now() < deadline, "it still serves");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let (serving, _) = certificates(dir.path());
    let daemon = Daemon::new("keelson-test");
    let address = daemon.serve_health(&serving).await.unwrap();
    let error = daemon.serve_health(&Serving { listen: address, ..serving }).await.unwrap_err();
    assert_eq!(error.to_string(), format!("listen on {address}"));
}

#[test]
fn missing_files_are_all_named() {
    let none = PathBuf::from("/nowhere/x");
    let serving = Serving {
        listen: ([127, 0, 0, 1], 0).into(),
        cert_file: none.clone(),
        key_file: none.clone(),
        client_ca_file: none,
    };
    assert_eq!(
        serving.validate("serving"),
        ["certFile", "keyFile", "clientCaFile"].map(|f| format!("serving.{f}: no file /nowhere/x"))
    );
}
