//! What a certificate says.

use crate::{Error, parse_error};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate};

/// The parts of a certificate that decide whether it still serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateInfo {
    pub common_name: String,
    pub organizations: Vec<String>,
    /// DNS names and IP addresses as text, sorted.
    pub sans: BTreeSet<String>,
    pub not_before: SystemTime,
    pub not_after: SystemTime,
    /// Serial number in hexadecimal.
    pub serial: String,
    pub(crate) subject_key_id: Option<Vec<u8>>,
    pub(crate) authority_key_id: Option<Vec<u8>>,
    pub(crate) public_key: Vec<u8>,
}

impl CertificateInfo {
    /// Of the first certificate in a PEM document.
    pub fn from_pem(pem: &str) -> Result<CertificateInfo, Error> {
        let der = CertificateDer::from_pem_slice(pem.as_bytes())
            .map_err(|e| parse_error("a certificate's PEM", e))?;
        CertificateInfo::from_der(&der)
    }

    pub fn from_der(der: &[u8]) -> Result<CertificateInfo, Error> {
        let (_, cert) = X509Certificate::from_der(der).map_err(|e| parse_error("a certificate", e))?;
        let text =
            |parts: Vec<Result<&str, _>>| parts.into_iter().flatten().map(str::to_owned).collect::<Vec<_>>();
        let subject = cert.subject();
        let mut info = CertificateInfo {
            common_name: text(subject.iter_common_name().map(|a| a.as_str()).collect())
                .pop()
                .unwrap_or_default(),
            organizations: text(subject.iter_organization().map(|a| a.as_str()).collect()),
            sans: BTreeSet::new(),
            not_before: time(cert.validity().not_before.timestamp()),
            not_after: time(cert.validity().not_after.timestamp()),
            serial: cert.serial.to_str_radix(16),
            subject_key_id: None,
            authority_key_id: None,
            public_key: cert.public_key().subject_public_key.data.to_vec(),
        };
        for extension in cert.extensions() {
            match extension.parsed_extension() {
                ParsedExtension::SubjectAlternativeName(san) => {
                    info.sans = san.general_names.iter().filter_map(name).collect();
                }
                ParsedExtension::SubjectKeyIdentifier(id) => info.subject_key_id = Some(id.0.to_vec()),
                ParsedExtension::AuthorityKeyIdentifier(id) => {
                    info.authority_key_id = id.key_identifier.as_ref().map(|k| k.0.to_vec());
                }
                _ => {}
            }
        }
        Ok(info)
    }

    /// When less than a third of its life is left.
    pub fn renew_at(&self) -> SystemTime {
        let life = self.not_after.duration_since(self.not_before).unwrap_or_default();
        self.not_after - life / 3
    }
}

fn time(unix: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(unix.try_into().unwrap_or(0))
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(dns) => Some((*dns).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => Some(IpAddr::from(<[u8; 4]>::try_from(*bytes).ok()?).to_string()),
            16 => Some(IpAddr::from(<[u8; 16]>::try_from(*bytes).ok()?).to_string()),
            _ => None,
        },
        _ => None,
    }
}
