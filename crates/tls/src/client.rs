//! The client's side: which servers it trusts, and the certificate that it shows.

use crate::files::{Error, Files, load_identity, names};
use crate::provider;
use crate::server::load_roots;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConfig, ResolvesClientCert, Resumption, WebPkiServerVerifier};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, SignatureScheme};
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

/// A client configuration that follows its files. It offers no protocol by ALPN: the HTTP client adds its own.
pub fn client_config(files: &ClientFiles) -> Result<Arc<ClientConfig>, Error> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(Error::Setup)?
        .dangerous()
        .with_custom_certificate_verifier(server_verifier(files.cas.clone())?);
    let mut config = match &files.identity {
        Some((cert, key)) => builder.with_client_cert_resolver(client_identity(cert, key)?),
        None => builder.with_no_client_auth(),
    };
    config.resumption = Resumption::in_memory_sessions(16);
    Ok(Arc::new(config))
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

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.current().verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.current().verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.current().supported_verify_schemes()
    }
}
