//! Revisioned key-value store with watch: where the API server keeps its objects.
//!
//! [`Store`] is what the API server needs and no more: read a key or a range at a revision,
//! compare-and-write, follow changes from a revision, forget old history, let keys expire.
//! Two backends stand behind it: [`embedded`] (redb, one machine) and [`etcd`] (several). The
//! contract suite under `tests/contract` runs against both, so that a caller cannot tell them apart.
//!
//! Rules that hold for every backend:
//! - A fresh store is at revision 1; each change of a key raises the revision, which never falls,
//!   not even over a restart.
//! - A write is acknowledged after it is durable, never before.
//! - A watcher sees every change after the revision it asked for, once, in revision order, or it is
//!   closed with an error. It is never skipped ahead.

pub mod copy;
mod delegate;
pub mod embedded;
mod error;
pub mod etcd;
mod retention;
mod types;

use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;
use serde::Deserialize;

pub use copy::copy;
pub use embedded::EmbeddedConfig;
pub use error::{Error, Result, Unavailable, WriteError};
pub use etcd::EtcdConfig;
pub use futures::future::BoxFuture;
pub use types::{
    Event, EventKind, Expect, Got, KeyValue, LeaseId, RangeOptions, Ranged, Revision, WatchItem, Write,
    Written,
};

/// Changes of a key range in revision order; ends after the first error.
pub type WatchStream = BoxStream<'static, Result<WatchItem>>;

/// A revisioned key-value store. Object-safe; used as `Arc<dyn Store>`.
pub trait Store: Send + Sync + 'static {
    /// The value of one key, from the latest committed state.
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Got>>;

    /// The keys with a prefix, in byte order, all from one revision.
    fn range<'a>(&'a self, prefix: &'a str, options: RangeOptions) -> BoxFuture<'a, Result<Ranged>>;

    /// Writes or deletes one key if it is as expected. Returns once the change is durable.
    ///
    /// [`WriteError::Unavailable`] leaves open whether the change happened, unless its message says
    /// otherwise: read before trying again.
    fn write(&self, write: Write) -> BoxFuture<'_, Result<Written, WriteError>>;

    /// Changes with a revision greater than `after` of the keys with a prefix.
    ///
    /// An `after` of the present revision follows what comes; one before the last compaction yields
    /// [`Error::Compacted`], as the call's error or as the stream's first item.
    fn watch<'a>(&'a self, prefix: &'a str, after: Revision) -> BoxFuture<'a, Result<WatchStream>>;

    /// The present revision; linearizable: no write acknowledged before the call has a greater one.
    fn revision(&self) -> BoxFuture<'_, Result<Revision>>;

    /// Asks every watch of this store to report how far it has come with a [`WatchItem::Progress`].
    /// `false` where the backend cannot do so reliably.
    fn request_progress(&self) -> BoxFuture<'_, Result<bool>>;

    /// Forgets what was replaced or deleted up to and including a revision. The state at that
    /// revision stays readable. An already compacted revision is no error.
    fn compact(&self, upto: Revision) -> BoxFuture<'_, Result<()>>;

    /// Raises the revision to at least `to` without changing a key, so that a store filled from
    /// another never names a revision that its clients know from there. etcd has no such operation:
    /// there it costs one small write for each revision.
    fn advance(&self, to: Revision) -> BoxFuture<'_, Result<Revision>>;

    /// Grants a lease: keys written with it are deleted when `ttl` has passed without a renewal.
    /// The backend may round `ttl` up to whole seconds.
    fn lease(&self, ttl: Duration) -> BoxFuture<'_, Result<LeaseId>>;

    /// Starts the time of a lease afresh.
    fn renew(&self, lease: LeaseId) -> BoxFuture<'_, Result<()>>;

    /// Ends a lease and deletes its keys.
    fn revoke(&self, lease: LeaseId) -> BoxFuture<'_, Result<()>>;
}

/// Which backend to open, as it stands in a daemon's configuration file.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum StoreConfig {
    /// A file on this machine and a write-ahead log beside it, used by one API server.
    Embedded(EmbeddedConfig),
    /// An etcd cluster.
    Etcd(EtcdConfig),
}

/// Opens the store and starts what it does in the background (expiry, compaction).
///
/// Must be called within a tokio runtime.
pub async fn open(config: StoreConfig) -> Result<Arc<dyn Store>> {
    let (store, keep): (Arc<dyn Store>, _) = match config {
        StoreConfig::Embedded(config) => {
            let keep = config.history_seconds;
            (Arc::new(embedded::Embedded::open(config).await?), keep)
        }
        StoreConfig::Etcd(config) => {
            let keep = config.history_seconds;
            (Arc::new(etcd::Etcd::connect(config).await?), keep)
        }
    };
    retention::start(Arc::downgrade(&store), keep);
    Ok(store)
}
