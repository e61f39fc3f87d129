//! TLS configurations that re-read their certificate files when these change.
//!
//! Certificates are rotated in place (see the `pki` crate), so whoever holds a [`rustls`] configuration
//! built here keeps it for the life of the process: new handshakes use the new files, connections that
//! stand are left alone. A file that is missing or broken for a moment leaves the last good state in use.

mod client;
mod files;
mod server;

pub use client::{
    ClientFiles, Trust, client_config, client_identity, server_verifier, trusting, verified_by, verifier,
    verifier_of,
};
pub use files::{Error, Files, load_certificates, load_identity};
pub use server::{ClientAuth, ClientVerifier, ServerFiles, server_config};

pub use rustls;

use rustls::CipherSuite;
use rustls::crypto::CryptoProvider;
use std::sync::Arc;

/// The one crypto provider of the workspace (aws-lc-rs), installed as the process default as well, for
/// libraries that look there.
///
/// Its clients would rather have AES-128 than AES-256, like Go's: ten rounds for each block and not fourteen.
pub fn provider() -> Arc<CryptoProvider> {
    if CryptoProvider::get_default().is_none() {
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
        // Fails only when another thread was faster, and then with the same provider.
        let _ = provider.install_default();
    }
    CryptoProvider::get_default().expect("a default crypto provider was just installed").clone()
}

/// What a verifier of certificates has no say in: whether who shows one proves to hold its key.
#[macro_export]
macro_rules! proof_of_key {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            cert: &$crate::rustls::pki_types::CertificateDer<'_>,
            dss: &$crate::rustls::DigitallySignedStruct,
        ) -> Result<$crate::rustls::client::danger::HandshakeSignatureValid, $crate::rustls::Error> {
            let known = $crate::provider().signature_verification_algorithms;
            $crate::rustls::crypto::verify_tls12_signature(message, cert, dss, &known)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &$crate::rustls::pki_types::CertificateDer<'_>,
            dss: &$crate::rustls::DigitallySignedStruct,
        ) -> Result<$crate::rustls::client::danger::HandshakeSignatureValid, $crate::rustls::Error> {
            let known = $crate::provider().signature_verification_algorithms;
            $crate::rustls::crypto::verify_tls13_signature(message, cert, dss, &known)
        }

        fn supported_verify_schemes(&self) -> Vec<$crate::rustls::SignatureScheme> {
            $crate::provider().signature_verification_algorithms.supported_schemes()
        }
    };
}
