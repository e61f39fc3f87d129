//! What is counted of the certificates of servers that this one calls, under upstream's names: those without names of
//! their own but the subject's, and those signed over SHA-1. Neither is accepted where certificates are verified.

use std::sync::{Arc, LazyLock};

use keelson_daemon::Metrics;
use keelson_daemon::tls::rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use keelson_daemon::tls::rustls::{CertificateError, Error};
use prometheus_client::metrics::counter::Counter;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use x509_parser::der_parser::{Oid, oid};
use x509_parser::oid_registry::OID_PKCS1_SHA1WITHRSA;
use x509_parser::prelude::{FromDer, X509Certificate};

/// RFC 3279, 2.2.3.
const ECDSA_WITH_SHA1: Oid<'static> = oid!(1.2.840.10045.4.1);

/// Of webhooks, whoever asks them: one for the process, as upstream has it.
pub static WEBHOOKS: LazyLock<Certificates> = LazyLock::new(Certificates::default);
/// Of extension API servers.
pub static AGGREGATED: LazyLock<Certificates> = LazyLock::new(Certificates::default);

/// Cheap to clone: all clones count together.
#[derive(Clone, Debug, Default)]
pub struct Certificates {
    missing_san: Counter,
    insecure_sha1: Counter,
}

/// Registers the counters.
pub fn register(metrics: &Metrics) {
    metrics.register(|all| {
        for (prefix, counted) in [("webhooks", &*WEBHOOKS), ("kube_aggregator", &*AGGREGATED)] {
            let registry = all.sub_registry_with_prefix("apiserver").sub_registry_with_prefix(prefix);
            let help = "Connections to servers whose certificate has no subject alternative name";
            registry.register("x509_missing_san", help, counted.missing_san.clone());
            let help = "Connections to servers with a certificate that is signed over SHA-1";
            registry.register("x509_insecure_sha1", help, counted.insecure_sha1.clone());
        }
    });
}

impl Certificates {
    /// Verifies as the inner one does, and counts.
    pub fn counting(&self, inner: Arc<dyn ServerCertVerifier>) -> Arc<dyn ServerCertVerifier> {
        Arc::new(Counting { inner, counted: self.clone() })
    }

    /// As upstream: what was refused is counted if this is why, what was accepted by whoever does not verify always.
    fn note(&self, chain: &[&CertificateDer<'_>], name: &ServerName<'_>, refused: Option<&Error>) {
        let chain: Vec<_> =
            chain.iter().filter_map(|der| Some(X509Certificate::from_der(der).ok()?.1)).collect();
        let Some(leaf) = chain.first() else { return };
        let named = matches!(leaf.subject_alternative_name(), Ok(Some(_)));
        if !named && (refused.is_none() || common_name_is(leaf, &name.to_str())) {
            tracing::warn!(server = %name.to_str(), "a server's certificate has no subject alternative name");
            self.missing_san.inc();
        }
        let sha1 = |cert: &X509Certificate<'_>| {
            let algorithm = &cert.signature_algorithm.algorithm;
            [OID_PKCS1_SHA1WITHRSA, ECDSA_WITH_SHA1].contains(algorithm) && cert.issuer() != cert.subject()
        };
        if refused.is_none_or(is_of_algorithm) && chain.iter().any(sha1) {
            tracing::warn!(server = %name.to_str(), "a server's certificate is signed over SHA-1");
            self.insecure_sha1.inc();
        }
    }
}

fn is_of_algorithm(error: &Error) -> bool {
    matches!(
        error,
        Error::InvalidCertificate(
            CertificateError::UnsupportedSignatureAlgorithmContext { .. }
                | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. }
        )
    )
}

/// Whether the subject's name would do, by the rules for DNS names (RFC 6125), if it still counted.
fn common_name_is(cert: &X509Certificate<'_>, host: &str) -> bool {
    let Some(name) = cert.subject().iter_common_name().next().and_then(|name| name.as_str().ok()) else {
        return false;
    };
    let beyond_the_first_label = |name: &str| name.split_once('.').map(|(_, rest)| rest.to_ascii_lowercase());
    match name.strip_prefix("*.") {
        Some(rest) => beyond_the_first_label(host).is_some_and(|host| host == rest.to_ascii_lowercase()),
        None => name.eq_ignore_ascii_case(host),
    }
}

#[derive(Debug)]
struct Counting {
    inner: Arc<dyn ServerCertVerifier>,
    counted: Certificates,
}

impl ServerCertVerifier for Counting {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self.inner.verify_server_cert(leaf, intermediates, name, ocsp, now);
        let chain: Vec<_> = std::iter::once(leaf).chain(intermediates).collect();
        self.counted.note(&chain, name, verified.as_ref().err());
        verified
    }

    keelson_daemon::tls::proof_of_key!();
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use rcgen::{CertificateParams, DnType, KeyPair};

    use super::*;

    /// Of `hook.test`, which is its alternative name as well, signed over SHA-1 by another certificate.
    const SHA1: &str = "MIIBaTCCAQ+gAwIBAgIBATAJBgcqhkjOPQQBMA0xCzAJBgNVBAMMAmNhMCAXDTI2MTEyNzIxMDAzMFoYDzIxMjYxMTAzMjEw\
        MDMwWjAUMRIwEAYDVQQDDAlob29rLnRlc3QwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAAQBPQNzHGAUg88u0L9DCjS61TIz\
        4qRlAuJbfufk1Wzo1JKtoNVXg8VS5ipAQmsHyUhkFo8FtsMouoSQjsMdawZuo1gwVjAUBgNVHREEDTALgglob29rLnRlc3Qw\
        HQYDVR0OBBYEFPdvOXMpVkH545ekAOAMwVctluZiMB8GA1UdIwQYMBaAFIKUmoJvRSA896fWUIh8EGv1JnpKMAkGByqGSM49\
        BAEDSQAwRgIhALeD1mDx9VlK7PBwBqDVZ7/73eZGmg2bSKORM4Ie4RyvAiEAqOWqudp9/+FhXykmKs59amM6apE1HcnSLwjq\
        EIJWuYA=";

    fn issued(common_name: &str, names: &[&str]) -> CertificateDer<'static> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().into()
    }

    #[test]
    fn what_upstream_counts_is_counted() {
        let sha1 = CertificateDer::from(STANDARD.decode(SHA1).unwrap());
        let untrusted = Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let of_sha1 = Error::InvalidCertificate(CertificateError::UnsupportedSignatureAlgorithmContext {
            signature_algorithm_id: Vec::new(),
            supported_algorithms: Vec::new(),
        });
        for (what, cert, refused, missing_san, insecure_sha1) in [
            ("a named one", issued("hook.test", &["hook.test"]), Some(&untrusted), 0, 0),
            ("the subject's name alone", issued("hook.test", &[]), Some(&untrusted), 1, 0),
            ("a pattern", issued("*.test", &[]), Some(&untrusted), 1, 0),
            ("another's", issued("hook.other", &[]), Some(&untrusted), 0, 0),
            ("another's, unverified", issued("hook.other", &[]), None, 1, 0),
            ("over SHA-1", sha1.clone(), Some(&of_sha1), 0, 1),
            ("over SHA-1, unverified", sha1.clone(), None, 0, 1),
            ("over SHA-1, refused before", sha1, Some(&untrusted), 0, 0),
        ] {
            let counted = Certificates::default();
            counted.note(&[&cert], &"hook.test".try_into().unwrap(), refused);
            assert_eq!(
                (counted.missing_san.get(), counted.insecure_sha1.get()),
                (missing_san, insecure_sha1),
                "{what}"
            );
        }
    }
}
