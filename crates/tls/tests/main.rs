//! Handshakes in memory between configurations made from files that change.

use keelson_tls::{ClientAuth, ClientFiles, ServerFiles, Trust, client_config, server_config, trusting};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

struct Authority(rcgen::CertifiedIssuer<'static, rcgen::KeyPair>);

impl Authority {
    fn new(name: &str) -> Authority {
        let mut params = rcgen::CertificateParams::new(vec![]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        Authority(rcgen::CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate().unwrap()).unwrap())
    }

    fn write(&self, path: &Path) -> PathBuf {
        replace(path, &self.0.pem());
        path.to_owned()
    }

    fn issue(&self, dir: &Path, name: &str) -> (PathBuf, PathBuf) {
        let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = rcgen::KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.0).unwrap();
        let files = (dir.join(format!("{name}.crt")), dir.join(format!("{name}.key")));
        replace(&files.0, &cert.pem());
        replace(&files.1, &key.serialize_pem());
        files
    }
}

fn replace(path: &Path, content: &str) {
    let next = path.with_extension("next");
    std::fs::write(&next, content).unwrap();
    std::fs::rename(next, path).unwrap();
}

/// Runs a handshake; the server's certificate as the client saw it, and the client's as the server did.
fn handshake(
    client: &Arc<rustls::ClientConfig>,
    server: &Arc<rustls::ServerConfig>,
) -> Result<(Vec<u8>, Option<Vec<u8>>), rustls::Error> {
    let mut c = rustls::ClientConnection::new(client.clone(), "localhost".try_into().unwrap())?;
    let mut s = rustls::ServerConnection::new(server.clone())?;
    while c.is_handshaking() || s.is_handshaking() {
        let mut wire = Vec::new();
        while c.wants_write() {
            c.write_tls(&mut wire).unwrap();
        }
        let mut rest = wire.as_slice();
        while !rest.is_empty() {
            s.read_tls(&mut rest).unwrap();
            s.process_new_packets()?;
        }
        let mut wire = Vec::new();
        while s.wants_write() {
            s.write_tls(&mut wire).unwrap();
        }
        let mut rest = wire.as_slice();
        while !rest.is_empty() {
            c.read_tls(&mut rest).unwrap();
            c.process_new_packets()?;
        }
    }
    let leaf = |certs: Option<&[rustls_pki_types::CertificateDer<'_>]>| certs.map(|c| c[0].as_ref().to_vec());
    Ok((leaf(c.peer_certificates()).unwrap(), leaf(s.peer_certificates())))
}

struct Setup {
    dir: tempfile::TempDir,
    ca: Authority,
    server: ServerFiles,
    client: ClientFiles,
}

fn setup(client_auth: ClientAuth) -> Setup {
    let dir = tempfile::tempdir().unwrap();
    let ca = Authority::new("cluster");
    let ca_file = ca.write(&dir.path().join("ca.crt"));
    let (cert, key) = ca.issue(dir.path(), "server");
    let identity = Some(ca.issue(dir.path(), "client"));
    let server = ServerFiles { cert, key, client_cas: vec![ca_file.clone()], client_auth };
    Setup { dir, ca, server, client: ClientFiles { cas: vec![ca_file], identity } }
}

#[test]
fn a_new_certificate_is_served_without_a_new_config() {
    let s = setup(ClientAuth::None);
    let (server, client) = (server_config(&s.server).unwrap(), client_config(&s.client).unwrap());
    let (first, _) = handshake(&client, &server).unwrap();
    s.ca.issue(s.dir.path(), "server");
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        // A fresh client: a resumed session would repeat the old certificate.
        let client = client_config(&s.client).unwrap();
        if handshake(&client, &server).unwrap().0 != first {
            return;
        }
        assert!(Instant::now() < deadline, "the old certificate is still served");
        std::thread::yield_now();
    }
}

#[test]
fn a_required_client_certificate_is_demanded_and_checked() {
    let s = setup(ClientAuth::Required);
    let server = server_config(&s.server).unwrap();
    let seen = handshake(&client_config(&s.client).unwrap(), &server).unwrap().1;
    assert!(seen.is_some());

    let nobody = ClientFiles { identity: None, ..s.client.clone() };
    assert!(handshake(&client_config(&nobody).unwrap(), &server).is_err());

    let other = tempfile::tempdir().unwrap();
    let stranger = Authority::new("other").issue(other.path(), "client");
    let stranger = ClientFiles { identity: Some(stranger), ..s.client.clone() };
    assert!(handshake(&client_config(&stranger).unwrap(), &server).is_err());
}

#[test]
fn a_requested_certificate_is_let_through_and_judged_later() {
    let s = setup(ClientAuth::Requested);
    let server = server_config(&s.server).unwrap();
    let verifier = keelson_tls::ClientVerifier::new(s.server.client_cas.clone()).unwrap();

    let known = handshake(&client_config(&s.client).unwrap(), &server).unwrap().1.unwrap();
    verifier.verify(&[known.into()]).unwrap();

    let other = tempfile::tempdir().unwrap();
    let stranger = Authority::new("other").issue(other.path(), "client");
    let stranger = ClientFiles { identity: Some(stranger), ..s.client.clone() };
    let unknown = handshake(&client_config(&stranger).unwrap(), &server).unwrap().1.unwrap();
    assert!(verifier.verify(&[unknown.into()]).is_err());

    let nobody = ClientFiles { identity: None, ..s.client.clone() };
    assert_eq!(handshake(&client_config(&nobody).unwrap(), &server).unwrap().1, None);
}

#[test]
fn a_broken_file_keeps_the_last_good_certificate() {
    let s = setup(ClientAuth::None);
    let load = {
        let path = s.server.cert.clone();
        move || keelson_tls::load_certificates(&path)
    };
    let files = keelson_tls::Files::with_interval(vec![s.server.cert.clone()], Duration::ZERO, load).unwrap();
    let good = files.current();
    replace(&s.server.cert, "not a certificate");
    assert_eq!(*files.current(), *good);
    s.ca.issue(s.dir.path(), "server");
    assert_ne!(*files.current(), *good);
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let s = setup(ClientAuth::None);
    let (_, other) = s.client.identity.clone().unwrap();
    let error = server_config(&ServerFiles { key: other, ..s.server }).unwrap_err();
    assert!(error.to_string().contains("server.crt"), "{error}");
}

#[test]
fn trust_may_be_in_a_bundle_in_everyone_or_in_no_one() {
    let s = setup(ClientAuth::None);
    let server = server_config(&s.server).unwrap();
    let trusts = |trust: Trust| handshake(&trusting(&trust, None).unwrap(), &server).is_ok();
    assert!(trusts(Trust::Pem(s.ca.0.pem().into_bytes())));
    assert!(!trusts(Trust::Pem(Authority::new("other").0.pem().into_bytes())));
    assert!(!trusts(Trust::Pem(Vec::new())));
    assert!(trusts(Trust::Anyone));
}
