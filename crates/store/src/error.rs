//! What can go wrong with a store, told by operation, subject and what to do.

use std::path::PathBuf;

use crate::types::{KeyValue, LeaseId, Revision};

pub type Result<T, E = Error> = std::result::Result<T, E>;

pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The backend cannot serve for now; the same call may succeed later.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {subject}: the store is unavailable: {advice}")]
pub struct Unavailable {
    pub operation: &'static str,
    pub subject: String,
    /// What is wrong in the operator's words, and what to do about it.
    pub advice: String,
    #[source]
    pub source: Option<BoxError>,
}

/// A failed read, watch, compaction or lease operation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// `compacted` is 0 where the backend does not tell.
    #[error("revision {requested} is compacted: history starts at revision {compacted}")]
    Compacted { requested: Revision, compacted: Revision },
    #[error("revision {requested} is in the future: the store is at revision {current}")]
    FutureRevision { requested: Revision, current: Revision },
    #[error("watch of {prefix:?} closed: its reader fell {pending} events behind")]
    SlowWatcher { prefix: String, pending: usize },
    #[error("lease {0} does not exist or has expired")]
    LeaseNotFound(LeaseId),
    #[error("{} is in use by another process: stop it or choose another path", path.display())]
    AlreadyOpen { path: PathBuf },
    #[error("store configuration: {0}")]
    Config(String),
    #[error("{} is damaged: restore it from a backup", path.display())]
    Damaged { path: PathBuf, source: BoxError },
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// A write that did not happen or, with [`WriteError::Unavailable`], may not have happened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    #[error("{}", conflict_text(current.as_ref()))]
    Conflict { current: Option<KeyValue> },
    #[error("revision {requested} is compacted: history starts at revision {compacted}")]
    Compacted { requested: Revision, compacted: Revision },
    #[error("the value of {key:?} has {size} bytes, more than the limit of {limit}")]
    TooLarge { key: String, size: usize, limit: usize },
    #[error("lease {0} does not exist or has expired")]
    LeaseNotFound(LeaseId),
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

fn conflict_text(current: Option<&KeyValue>) -> String {
    match current {
        Some(kv) => format!("{:?} is at revision {}, not as expected", kv.key, kv.mod_revision),
        None => "the key does not exist".to_owned(),
    }
}
