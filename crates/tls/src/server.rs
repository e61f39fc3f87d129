//! The server's side: its own certificate, and what it asks of a client's.

use crate::files::{Error, Files, load_certificates, load_identity, names};
use crate::provider;
use rustls::crypto::CryptoProvider;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert, ServerConfig, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{DistinguishedName, RootCertStore};
use rustls_pki_types::{CertificateDer, UnixTime};
use std::path::PathBuf;
use std::sync::Arc;

/// What a server asks of its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// No certificate is asked for.
    None,
    /// A certificate may be shown, and any is let through the handshake: the server checks it with
    /// [`ClientVerifier::verify`] and answers a bad one in HTTP, as the API server must.
    Requested,
    /// A certificate may be shown; one that the authorities did not sign ends the handshake.
    Optional,
    /// No handshake without a certificate that the authorities signed.
    Required,
}

/// The files of a server.
#[derive(Clone, Debug)]
pub struct ServerFiles {
    pub cert: PathBuf,
    pub key: PathBuf,
    /// Authorities of client certificates; needed unless `client_auth` is `None` or `Requested`.
    pub client_cas: Vec<PathBuf>,
    pub client_auth: ClientAuth,
}

/// A server configuration offering HTTP/2 and HTTP/1.1, TLS 1.2 and 1.3, that follows its files.
pub fn server_config(files: &ServerFiles) -> Result<Arc<ServerConfig>, Error> {
    let provider = provider();
    let (cert, key) = (files.cert.clone(), files.key.clone());
    let signer = provider.clone();
    let identity = Files::new(vec![cert.clone(), key.clone()], move || {
        load_identity(&cert, &key, &signer).map(Arc::new)
    })?;
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(Error::Setup)?;
    let builder = match files.client_auth {
        ClientAuth::None => builder.with_no_client_auth(),
        ClientAuth::Requested => {
            builder.with_client_cert_verifier(Arc::new(Handshake { verifier: None, mandatory: false }))
        }
        ClientAuth::Optional | ClientAuth::Required => {
            builder.with_client_cert_verifier(Arc::new(Handshake {
                verifier: Some(ClientVerifier::new(files.client_cas.clone())?),
                mandatory: files.client_auth == ClientAuth::Required,
            }))
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(Resolver(identity)));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // Resumption state is kept for few clients: a daemon talks to a handful, and each entry is memory.
    config.session_storage = rustls::server::ServerSessionMemoryCache::new(64);
    config.send_tls13_tickets = 1;
    Ok(Arc::new(config))
}

#[derive(Debug)]
struct Resolver(Files<Arc<CertifiedKey>>);

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&*self.0.current()))
    }
}

/// Checks chains of client certificates against authorities in files. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ClientVerifier(Arc<Files<Arc<dyn ClientCertVerifier>>>);

impl ClientVerifier {
    /// Trusts all certificates in `cas`, and follows these files.
    pub fn new(cas: Vec<PathBuf>) -> Result<ClientVerifier, Error> {
        let provider = provider();
        let paths = cas.clone();
        let load = move || load_verifier(&cas, &provider);
        Ok(ClientVerifier(Arc::new(Files::new(paths, load)?)))
    }

    /// Whether the chain, its leaf first, is one of the authorities', in time and meant for clients.
    pub fn verify(&self, chain: &[CertificateDer<'_>]) -> Result<(), rustls::Error> {
        let (leaf, intermediates) = chain.split_first().ok_or(rustls::Error::NoCertificatesPresented)?;
        self.0.current().verify_client_cert(leaf, intermediates, UnixTime::now()).map(drop)
    }
}

fn load_verifier(
    cas: &[PathBuf],
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, Error> {
    let roots = load_roots(cas)?;
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map(|v| v as Arc<dyn ClientCertVerifier>)
        .map_err(|source| Error::Roots { paths: names(cas), source: Box::new(source) })
}

pub(crate) fn load_roots(cas: &[PathBuf]) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for path in cas {
        for cert in load_certificates(path)? {
            roots.add(cert).map_err(|source| Error::Roots {
                paths: path.display().to_string(),
                source: Box::new(source),
            })?;
        }
    }
    Ok(roots)
}

/// The verifier that rustls asks during a handshake.
#[derive(Debug)]
struct Handshake {
    /// `None` lets every certificate through, with proof that the client holds its key.
    verifier: Option<ClientVerifier>,
    mandatory: bool,
}

impl ClientCertVerifier for Handshake {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    /// No hints: they would have to live as long as the configuration, which outlives the files' state.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        match &self.verifier {
            Some(verifier) => verifier.0.current().verify_client_cert(leaf, intermediates, now),
            None => Ok(ClientCertVerified::assertion()),
        }
    }

    crate::proof_of_key!();
}
