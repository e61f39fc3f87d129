//! The client's side: which servers it trusts, and the certificate that it shows.

use crate::files::{Error, Files, load_identity, names};
use crate::provider;
use crate::server::load_roots;
use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConfig, ResolvesClientCert, Resumption, WebPkiServerVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The files of a client.
#[derive(Clone, Debug)]
pub struct ClientFiles {
    /// Authorities of server certificates.
    pub cas: Vec<PathBuf>,
    /// Certificate and key that the client shows, where a server asks.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// Which servers a client trusts.
#[derive(Clone, Debug)]
pub enum Trust {
    /// Those of the authorities in these files, which are followed.
    Files(Vec<PathBuf>),
    /// Those of these authorities, in PEM. None of them: no server at all.
    Pem(Vec<u8>),
    /// Every server, whoever vouches for it: `insecureSkipTLSVerify`, and HTTPS of pods.
    Anyone,
}

/// A client configuration that follows its files. It offers no protocol by ALPN: the HTTP client adds its own.
pub fn client_config(files: &ClientFiles) -> Result<Arc<ClientConfig>, Error> {
    let identity = files.identity.as_ref().map(|(cert, key)| client_identity(cert, key)).transpose()?;
    trusting(&Trust::Files(files.cas.clone()), identity)
}

/// A client configuration with the trust that is asked for, showing `identity` where a server asks.
pub fn trusting(
    trust: &Trust,
    identity: Option<Arc<dyn ResolvesClientCert>>,
) -> Result<Arc<ClientConfig>, Error> {
    verified_by(verifier(trust)?, identity)
}

/// What checks servers by the trust that is asked for.
pub fn verifier(trust: &Trust) -> Result<Arc<dyn ServerCertVerifier>, Error> {
    Ok(match trust {
        Trust::Files(cas) => server_verifier(cas.clone())?,
        Trust::Pem(pem) => authorities(pem)?,
        Trust::Anyone => Arc::new(Blanket { trusts: true }),
    })
}

/// As [`trusting`], with one's own check of servers.
pub fn verified_by(
    verifier: Arc<dyn ServerCertVerifier>,
    identity: Option<Arc<dyn ResolvesClientCert>>,
) -> Result<Arc<ClientConfig>, Error> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(Error::Setup)?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match identity {
        Some(identity) => builder.with_client_cert_resolver(identity),
        None => builder.with_no_client_auth(),
    };
    config.resumption = Resumption::in_memory_sessions(16);
    Ok(Arc::new(config))
}

fn authorities(pem: &[u8]) -> Result<Arc<dyn ServerCertVerifier>, Error> {
    let refused = |source| Error::Roots { paths: "a bundle".to_owned(), source };
    let mut roots = RootCertStore::empty();
    for cert in CertificateDer::pem_slice_iter(pem) {
        let cert = cert.map_err(|e| refused(Box::new(e)))?;
        roots.add(cert).map_err(|e| refused(Box::new(e)))?;
    }
    verifier_of(roots)
}

/// What checks servers by these authorities; it trusts none where there are none.
pub fn verifier_of(roots: RootCertStore) -> Result<Arc<dyn ServerCertVerifier>, Error> {
    if roots.is_empty() {
        return Ok(Arc::new(Blanket { trusts: false }));
    }
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .map(|verifier| verifier as Arc<dyn ServerCertVerifier>)
        .map_err(|e| Error::Roots { paths: "a bundle".to_owned(), source: Box::new(e) })
}

/// The certificate that a client shows, from files that it follows.
pub fn client_identity(cert: &Path, key: &Path) -> Result<Arc<dyn ResolvesClientCert>, Error> {
    let (cert, key, provider) = (cert.to_owned(), key.to_owned(), provider());
    let files = Files::new(vec![cert.clone(), key.clone()], move || {
        load_identity(&cert, &key, &provider).map(Arc::new)
    })?;
    Ok(Arc::new(Identity(files)))
}

/// Checks servers against the authorities in files that it follows.
pub fn server_verifier(cas: Vec<PathBuf>) -> Result<Arc<dyn ServerCertVerifier>, Error> {
    let provider = provider();
    let paths = cas.clone();
    let load = move || {
        let roots = load_roots(&cas)?;
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .build()
            .map_err(|source| Error::Roots { paths: names(&cas), source: Box::new(source) })
    };
    Ok(Arc::new(Servers(Files::new(paths, load)?)))
}

#[derive(Debug)]
struct Identity(Files<Arc<CertifiedKey>>);

impl ResolvesClientCert for Identity {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&*self.0.current()))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[derive(Debug)]
struct Servers(Files<Arc<WebPkiServerVerifier>>);

impl ServerCertVerifier for Servers {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.0.current().verify_server_cert(leaf, intermediates, name, ocsp, now)
    }

    crate::proof_of_key!();
}

/// Asks nobody: trusts every server, or none. Either way the server proves that it holds its certificate's key.
#[derive(Debug)]
struct Blanket {
    trusts: bool,
}

impl ServerCertVerifier for Blanket {
    fn verify_server_cert(
        &self,
        _leaf: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.trusts {
            true => Ok(ServerCertVerified::assertion()),
            false => Err(rustls::CertificateError::UnknownIssuer.into()),
        }
    }

    crate::proof_of_key!();
}
