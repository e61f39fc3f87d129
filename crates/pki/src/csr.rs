//! Certificate requests (PKCS#10), as the `certificates.k8s.io` API carries them.

use crate::authority::set_validity;
use crate::{Ca, Error};
use rcgen::{CertificateSigningRequestParams, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose};
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject;
use std::time::Duration;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

impl Ca {
    /// Signs a request: its subject and names, but the validity and usages given here, in the API's words
    /// (`digital signature`, `client auth`, …). It never makes an authority.
    pub fn sign_csr<S: AsRef<str>>(&self, pem: &str, ttl: Duration, usages: &[S]) -> Result<String, Error> {
        let refuse = |problem: String| Error::Request { problem };
        let der = CertificateSigningRequestDer::from_pem_slice(pem.as_bytes())
            .map_err(|e| refuse(e.to_string()))?;
        let (_, parsed) = X509CertificationRequest::from_der(&der).map_err(|e| refuse(e.to_string()))?;
        // rcgen keeps one value per attribute type, so it would drop groups: put them back from the request.
        let name = &parsed.certification_request_info.subject;
        let text =
            |parts: Vec<Result<&str, _>>| parts.into_iter().flatten().map(str::to_owned).collect::<Vec<_>>();
        let cn = text(name.iter_common_name().map(|a| a.as_str()).collect()).pop().unwrap_or_default();
        let orgs = text(name.iter_organization().map(|a| a.as_str()).collect());

        let mut request =
            CertificateSigningRequestParams::from_der(&der).map_err(|e| refuse(e.to_string()))?;
        if orgs.len() > 1 {
            request.params.distinguished_name = crate::authority::subject(&cn, &orgs)?;
        }
        let (key_usages, extended) = parse_usages(usages)?;
        request.params.key_usages = key_usages;
        request.params.extended_key_usages = extended;
        request.params.is_ca = IsCa::ExplicitNoCa;
        request.params.use_authority_key_identifier_extension = true;
        set_validity(&mut request.params, ttl, Some(self.info.not_after));
        let cert = request.signed_by(&self.issuer).map_err(|source| Error::Issue { subject: cn, source })?;
        Ok(cert.pem())
    }
}

type Usages = (Vec<KeyUsagePurpose>, Vec<ExtendedKeyUsagePurpose>);

/// The usages of `CertificateSigningRequestSpec.usages`.
fn parse_usages<S: AsRef<str>>(usages: &[S]) -> Result<Usages, Error> {
    let (mut key, mut extended) = (Vec::new(), Vec::new());
    for usage in usages {
        match usage.as_ref() {
            "signing" | "digital signature" => key.push(KeyUsagePurpose::DigitalSignature),
            "content commitment" => key.push(KeyUsagePurpose::ContentCommitment),
            "key encipherment" => key.push(KeyUsagePurpose::KeyEncipherment),
            "key agreement" => key.push(KeyUsagePurpose::KeyAgreement),
            "data encipherment" => key.push(KeyUsagePurpose::DataEncipherment),
            "crl sign" => key.push(KeyUsagePurpose::CrlSign),
            "encipher only" => key.push(KeyUsagePurpose::EncipherOnly),
            "decipher only" => key.push(KeyUsagePurpose::DecipherOnly),
            "any" => extended.push(ExtendedKeyUsagePurpose::Any),
            "server auth" => extended.push(ExtendedKeyUsagePurpose::ServerAuth),
            "client auth" => extended.push(ExtendedKeyUsagePurpose::ClientAuth),
            "code signing" => extended.push(ExtendedKeyUsagePurpose::CodeSigning),
            "email protection" | "s/mime" => extended.push(ExtendedKeyUsagePurpose::EmailProtection),
            "timestamping" => extended.push(ExtendedKeyUsagePurpose::TimeStamping),
            "ocsp signing" => extended.push(ExtendedKeyUsagePurpose::OcspSigning),
            other => return Err(Error::Request { problem: format!("the usage {other:?} is not supported") }),
        }
    }
    // RFC 5280 wants each once.
    key.dedup();
    extended.dedup();
    Ok((key, extended))
}
