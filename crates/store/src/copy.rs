//! Moves everything from one store to another: between embedded and etcd, either way.

use crate::error::{Error, WriteError};
use crate::types::{RangeOptions, Write};
use crate::{Revision, Store};

/// What a copy did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copied {
    pub keys: usize,
    /// The revision of the source that was copied.
    pub source_revision: Revision,
    /// The revision of the destination afterwards; never lower than the source's.
    pub revision: Revision,
}

/// A copy that did not succeed. What was written so far stays; copying again completes it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CopyError {
    #[error("read the source store")]
    Read(#[source] Error),
    #[error("the destination already holds {key:?} with another value: choose an empty one")]
    NotEmpty { key: String },
    #[error("write {key:?} to the destination store")]
    Write { key: String, source: WriteError },
    #[error("raise the destination's revision to the source's")]
    Advance(#[source] Error),
}

/// Copies one consistent state of all keys. Values stay as they are; revisions start anew above the
/// source's, so that no client mistakes an old resource version for a new one. Leases are not
/// carried over: keys that hung on one stay until their owner writes or deletes them. Nobody may
/// write to the source meanwhile.
pub async fn copy(from: &dyn Store, to: &dyn Store) -> Result<Copied, CopyError> {
    let source_revision = from.revision().await.map_err(CopyError::Read)?;
    to.advance(source_revision).await.map_err(CopyError::Advance)?;
    let mut options = RangeOptions { start_after: None, limit: 500, at: Some(source_revision) };
    let mut keys = 0;
    loop {
        let page = from.range("", options.clone()).await.map_err(CopyError::Read)?;
        keys += page.kvs.len();
        options.start_after = page.kvs.last().map(|kv| kv.key.clone());
        futures::future::try_join_all(page.kvs.into_iter().map(|kv| write(to, kv))).await?;
        if !page.more {
            break;
        }
    }
    let revision = to.revision().await.map_err(CopyError::Read)?;
    Ok(Copied { keys, source_revision, revision })
}

async fn write(to: &dyn Store, kv: crate::KeyValue) -> Result<(), CopyError> {
    let write = Write::create(kv.key.clone(), kv.value.clone());
    match to.write(write).await {
        Ok(_) => Ok(()),
        Err(WriteError::Conflict { current: Some(current) }) if current.value == kv.value => Ok(()),
        Err(WriteError::Conflict { .. }) => Err(CopyError::NotEmpty { key: kv.key }),
        Err(source) => Err(CopyError::Write { key: kv.key, source }),
    }
}
