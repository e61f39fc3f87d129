//! A certificate authority and what it issues.

use crate::files::{read, write_file};
use crate::{CA_TTL, CertificateInfo, Error, parse_error};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Certificates are valid from a little before now, for clocks that lag.
const BACKDATE: Duration = Duration::from_secs(300);
/// The organization attribute by number. rcgen holds one value per attribute *type*; this second spelling of
/// the same type makes room for a second organization.
const ORGANIZATION_OID: &[u64] = &[2, 5, 4, 10];

/// What a certificate may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    Client,
    Server,
    Both,
}

/// A certificate that is wanted.
#[derive(Clone, Debug)]
pub struct Request {
    /// Common name: Kubernetes reads it as the user.
    pub cn: String,
    /// Organizations, two at most: Kubernetes reads them as groups.
    pub orgs: Vec<String>,
    /// DNS names and IP addresses.
    pub sans: Vec<String>,
    pub usage: Usage,
    pub ttl: Duration,
}

/// A certificate and its private key.
#[derive(Clone, Debug)]
pub struct Issued {
    pub cert_pem: String,
    /// PKCS#8.
    pub key_pem: String,
}

/// A certificate authority: its certificate and its private key.
pub struct Ca {
    pub(crate) cert_pem: String,
    pub(crate) info: CertificateInfo,
    pub(crate) issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    /// A new self-signed authority.
    pub fn create(cn: &str) -> Result<Ca, Error> {
        let issue = |source| Error::Issue { subject: cn.to_owned(), source };
        let key = KeyPair::generate().map_err(issue)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = subject(cn, &[])?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.use_authority_key_identifier_extension = true;
        set_validity(&mut params, CA_TTL, None);
        let cert_pem = params.self_signed(&key).map_err(issue)?.pem();
        Ca::new(cert_pem, key)
    }

    /// An authority from its files.
    pub fn load(cert: &Path, key: &Path) -> Result<Ca, Error> {
        Ca::from_pem(read(cert)?, &read(key)?)
    }

    pub fn from_pem(cert_pem: String, key_pem: &str) -> Result<Ca, Error> {
        let key =
            KeyPair::from_pem(key_pem).map_err(|e| parse_error("the key of a certificate authority", e))?;
        Ca::new(cert_pem, key)
    }

    /// The authority in these files, made now where there is none. Half of a pair is an error: a new
    /// authority would silently disown every certificate that the old one issued.
    pub fn load_or_create(cert: &Path, key: &Path, cn: &str) -> Result<Ca, Error> {
        if cert.exists() || key.exists() {
            return Ca::load(cert, key);
        }
        let ca = Ca::create(cn)?;
        write_file(key, ca.issuer.key().serialize_pem().as_bytes(), 0o600)?;
        write_file(cert, ca.cert_pem.as_bytes(), 0o644)?;
        Ok(ca)
    }

    fn new(cert_pem: String, key: KeyPair) -> Result<Ca, Error> {
        let info = CertificateInfo::from_pem(&cert_pem)?;
        if info.public_key != key.public_key_raw() {
            return Err(Error::ForeignKey { subject: info.common_name });
        }
        let issuer = Issuer::from_ca_cert_pem(&cert_pem, key)
            .map_err(|e| parse_error("a certificate authority", e))?;
        Ok(Ca { cert_pem, info, issuer })
    }

    /// The authority's certificate, for those who shall trust it.
    pub fn cert_pem(&self) -> &str {
        &self.cert_pem
    }

    pub fn info(&self) -> &CertificateInfo {
        &self.info
    }

    /// A new key and a certificate for it.
    pub fn issue(&self, request: &Request) -> Result<Issued, Error> {
        let issue = |source| Error::Issue { subject: request.cn.clone(), source };
        let key = KeyPair::generate().map_err(issue)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = subject(&request.cn, &request.orgs)?;
        params.subject_alt_names =
            request.sans.iter().map(|s| san(s)).collect::<Result<_, _>>().map_err(issue)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = match request.usage {
            Usage::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
            Usage::Server => vec![ExtendedKeyUsagePurpose::ServerAuth],
            Usage::Both => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
        };
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        set_validity(&mut params, request.ttl, Some(self.info.not_after));
        let cert = params.signed_by(&key, &self.issuer).map_err(issue)?;
        Ok(Issued { cert_pem: cert.pem(), key_pem: key.serialize_pem() })
    }

    /// Whether this authority's key signed a certificate, by the key identifiers that the two carry.
    pub(crate) fn signed(&self, cert: &CertificateInfo) -> bool {
        self.info.subject_key_id.is_some() && cert.authority_key_id == self.info.subject_key_id
    }
}

pub(crate) fn subject(cn: &str, orgs: &[String]) -> Result<DistinguishedName, Error> {
    let mut name = DistinguishedName::new();
    let mut orgs = orgs.iter();
    if let Some(first) = orgs.next() {
        name.push(DnType::OrganizationName, first.as_str());
    }
    if let Some(second) = orgs.next() {
        name.push(DnType::CustomDnType(ORGANIZATION_OID.to_vec()), second.as_str());
    }
    if orgs.next().is_some() {
        return Err(Error::Request { problem: format!("{cn} has more than two organizations") });
    }
    if !cn.is_empty() {
        name.push(DnType::CommonName, cn);
    }
    Ok(name)
}

fn san(text: &str) -> Result<SanType, rcgen::Error> {
    match text.parse::<IpAddr>() {
        Ok(ip) => Ok(SanType::IpAddress(ip)),
        Err(_) => Ok(SanType::DnsName(text.try_into()?)),
    }
}

/// From a little before now for `ttl`, but not beyond `limit`, the end of the issuer.
pub(crate) fn set_validity(params: &mut CertificateParams, ttl: Duration, limit: Option<SystemTime>) {
    let now = SystemTime::now();
    let end = limit.map_or(now + ttl, |limit| limit.min(now + ttl));
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let since =
        |t: SystemTime| Duration::from_secs(t.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs());
    params.not_before = epoch + since(now - BACKDATE);
    params.not_after = epoch + since(end);
}
