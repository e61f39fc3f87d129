//! Certificate authority: issuing, rotation and service-account keys.
//!
//! All keys are ECDSA P-256; an authority lives ten years, what it issues one. [`ensure_all`] makes a
//! cluster's files what they should be, and is safe to repeat at any time.

mod authority;
mod cluster;
mod csr;
mod files;
mod info;
mod kubeconfig;
mod p521;
mod service_account;

pub use authority::{Ca, Issued, Request, Usage};
pub use cluster::{ClusterIdentity, Ensured, ensure_all, renew_task};
pub use files::write_file;
pub use info::CertificateInfo;
pub use p521::P521;
pub use service_account::ServiceAccountKeys;

use std::path::PathBuf;
use std::time::Duration;

/// How long an authority lives.
pub const CA_TTL: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// How long a certificate lives that an authority issues for a daemon or the admin.
pub const LEAF_TTL: Duration = Duration::from_secs(365 * 24 * 3600);

/// What can go wrong with certificates and keys.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("read {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("write {}", path.display())]
    Write { path: PathBuf, source: std::io::Error },
    #[error("use the certificate authority {subject}: its key is another's")]
    ForeignKey { subject: String },
    #[error("issue a certificate for {subject}")]
    Issue { subject: String, source: rcgen::Error },
    #[error("parse {what}")]
    Parse { what: String, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("sign the certificate request: {problem}")]
    Request { problem: String },
    #[error("sign a token")]
    Sign(#[source] jsonwebtoken::errors::Error),
    #[error("verify a token")]
    Verify(#[source] jsonwebtoken::errors::Error),
}

pub(crate) fn parse_error(
    what: impl Into<String>,
    source: impl std::error::Error + Send + Sync + 'static,
) -> Error {
    Error::Parse { what: what.into(), source: Box::new(source) }
}
