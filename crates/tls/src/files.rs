//! Certificate and key files, read again when their modification time or inode changes.

use parking_lot::RwLock;
use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a loaded state is used before the files are looked at again. A look is a `stat` per file.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Why a TLS configuration could not be made from its files.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("read {what} from {}", path.display())]
    Read { what: &'static str, path: PathBuf, source: pem::Error },
    #[error("{} holds no certificate", path.display())]
    NoCertificate { path: PathBuf },
    #[error("use the key {} with the certificate {}", key.display(), cert.display())]
    Identity { cert: PathBuf, key: PathBuf, source: rustls::Error },
    #[error("trust the certificate authorities in {paths}")]
    Roots { paths: String, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("set up TLS")]
    Setup(#[source] rustls::Error),
}

/// All certificates of a PEM file.
pub fn load_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let read = |source| Error::Read { what: "certificates", path: path.to_owned(), source };
    let certs =
        CertificateDer::pem_file_iter(path).map_err(read)?.collect::<Result<Vec<_>, _>>().map_err(read)?;
    if certs.is_empty() {
        return Err(Error::NoCertificate { path: path.to_owned() });
    }
    Ok(certs)
}

/// A certificate chain with its private key; refuses a key that does not belong to the certificate.
pub fn load_identity(cert: &Path, key: &Path, provider: &CryptoProvider) -> Result<CertifiedKey, Error> {
    let chain = load_certificates(cert)?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|source| Error::Read {
        what: "a private key",
        path: key.to_owned(),
        source,
    })?;
    CertifiedKey::from_der(chain, private, provider).map_err(|source| Error::Identity {
        cert: cert.to_owned(),
        key: key.to_owned(),
        source,
    })
}

/// What tells one version of a file from the next; a rename over it changes the inode.
type Stamp = Option<(u64, i64, i64, u64)>;

fn stamp(path: &Path) -> Stamp {
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.size()))
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Load<T> = dyn Fn() -> Result<T, BoxError> + Send + Sync;

/// A value made from files, remade when one of them changes.
pub struct Files<T> {
    paths: Vec<PathBuf>,
    load: Box<Load<T>>,
    interval: Duration,
    state: RwLock<State<T>>,
}

struct State<T> {
    value: Arc<T>,
    stamps: Vec<Stamp>,
    checked: Instant,
}

impl<T> Files<T> {
    /// Loads for the first time; fails where later loads would keep the last good value.
    pub fn new<E: std::error::Error + Send + Sync + 'static>(
        paths: Vec<PathBuf>,
        load: impl Fn() -> Result<T, E> + Send + Sync + 'static,
    ) -> Result<Files<T>, E> {
        Files::with_interval(paths, CHECK_INTERVAL, load)
    }

    /// As [`Files::new`], looking at the files no more often than every `interval`.
    pub fn with_interval<E: std::error::Error + Send + Sync + 'static>(
        paths: Vec<PathBuf>,
        interval: Duration,
        load: impl Fn() -> Result<T, E> + Send + Sync + 'static,
    ) -> Result<Files<T>, E> {
        // Stamps are taken before the content: a change in between is then seen at the next look.
        let stamps = paths.iter().map(|p| stamp(p)).collect();
        let value = Arc::new(load()?);
        let state = RwLock::new(State { value, stamps, checked: Instant::now() });
        let load = Box::new(move || load().map_err(BoxError::from));
        Ok(Files { paths, load, interval, state })
    }

    /// The value of the files as they are now, or as they last were when they could be used.
    pub fn current(&self) -> Arc<T> {
        {
            let state = self.state.read();
            if state.checked.elapsed() < self.interval {
                return state.value.clone();
            }
        }
        let mut state = self.state.write();
        let stamps: Vec<Stamp> = self.paths.iter().map(|p| stamp(p)).collect();
        state.checked = Instant::now();
        if stamps != state.stamps {
            match (self.load)() {
                Ok(value) => {
                    tracing::info!(files = %self.names(), "certificate files changed: loaded");
                    state.value = Arc::new(value);
                    state.stamps = stamps;
                }
                // The stamps stay old, so that the next look tries again: certificate and key are two
                // files, and between their renames they do not fit.
                Err(error) => {
                    let error: &dyn std::error::Error = &*error;
                    tracing::warn!(files = %self.names(), error, "certificate files changed: not usable, kept the old");
                }
            }
        }
        state.value.clone()
    }

    fn names(&self) -> String {
        names(&self.paths)
    }
}

impl<T> fmt::Debug for Files<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Files").field("paths", &self.paths).finish_non_exhaustive()
    }
}

pub(crate) fn names(paths: &[PathBuf]) -> String {
    paths.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ")
}
