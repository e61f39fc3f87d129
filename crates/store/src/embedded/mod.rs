//! The embedded backend: a redb file and its write-ahead log, one writer thread, readers on snapshots.
//!
//! A write waits in a bounded queue; the writer takes all that waits into one transaction, appends
//! its changes to the log with one sync, commits to redb without one (see [`wal`]), then makes it
//! visible to watchers and answers the callers. Readers see the last committed state and never wait
//! for the writer.

mod apply;
mod backing;
mod database;
pub mod fault;
mod format;
mod hub;
mod journal;
mod lease;
mod queue;
mod read;
mod wal;
mod watch;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use serde::Deserialize;
use tokio::sync::oneshot;

use crate::error::{Error, Result, WriteError};
use crate::types::{Got, LeaseId, RangeOptions, Ranged, Revision, Write, Written};
use crate::{Store, WatchStream, retention};
use database::Handle;
use hub::Hub;
use queue::{Queue, Request};
use read::AtRevision;
use writer::Writer;

/// Where the file is and what it may cost.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EmbeddedConfig {
    /// The redb file; its write-ahead log is beside it, with `.wal` appended to the name.
    pub path: PathBuf,
    /// Memory for the file's pages; the kernel's page cache holds the rest.
    #[serde(default = "default_cache_bytes")]
    pub cache_bytes: usize,
    /// How long replaced and deleted values stay readable; 0 keeps them until compacted by hand.
    #[serde(default = "default_history_seconds")]
    pub history_seconds: u64,
    /// A disk that fails on demand; tests and measurements only.
    #[serde(skip)]
    pub faults: Option<Arc<fault::Faults>>,
}

/// The embedded store. Dropping it lets queued writes finish and closes the file.
pub struct Embedded {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

/// What callers, watchers and the writer share.
struct Shared {
    file: Handle,
    queue: Queue,
    hub: Hub,
    revision: AtomicU64,
}

fn default_cache_bytes() -> usize {
    8 << 20
}

fn default_history_seconds() -> u64 {
    retention::DEFAULT_SECONDS
}

impl EmbeddedConfig {
    /// A file with the default limits.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            cache_bytes: default_cache_bytes(),
            history_seconds: default_history_seconds(),
            faults: None,
        }
    }
}

impl Embedded {
    /// Opens the file, or creates it, and starts the writer. Only one process may have it open.
    pub async fn open(config: EmbeddedConfig) -> Result<Self> {
        let path = config.path.clone();
        match tokio::task::spawn_blocking(move || Self::open_blocking(&config)).await {
            Ok(result) => result,
            Err(_) => Err(queue::closed("open", &path.display().to_string()).into()),
        }
    }

    fn open_blocking(config: &EmbeddedConfig) -> Result<Self> {
        let file = Handle::open(&config.path, config.cache_bytes, config.faults.clone())?;
        let revision = file.revision().map_err(|error| file.explain_redb("open", error))?;
        let shared = Arc::new(Shared {
            file,
            queue: Queue::new(),
            hub: Hub::new(revision),
            revision: AtomicU64::new(revision),
        });
        let writer = Writer::new(shared.clone())?;
        let thread = std::thread::Builder::new().name("store-writer".to_owned()).spawn(move || writer.run());
        match thread {
            Ok(thread) => Ok(Self { shared, writer: Some(thread) }),
            Err(error) => Err(shared.file.explain_redb("start the writer of", redb::Error::Io(error))),
        }
    }

    /// Hands a request to the writer and waits for its answer.
    async fn ask<T, E: From<crate::Unavailable>>(
        &self,
        operation: &'static str,
        request: impl FnOnce(oneshot::Sender<Result<T, E>>) -> Request,
    ) -> Result<T, E> {
        let (reply, answer) = oneshot::channel();
        let queued = self.shared.queue.push(request(reply)).await;
        match answer.await {
            Ok(result) if queued => result,
            _ => Err(queue::closed(operation, &self.shared.file.path().display().to_string()).into()),
        }
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.shared.queue.close();
        if let Some(writer) = self.writer.take() {
            // A writer that panicked has closed the file on its way out.
            drop(writer.join());
        }
    }
}

impl Shared {
    fn revision(&self) -> Revision {
        self.revision.load(Ordering::Acquire)
    }

    fn set_revision(&self, revision: Revision) {
        self.revision.store(revision, Ordering::Release);
    }

    /// Reads from a snapshot. After an I/O error the writer is asked to open the file anew.
    fn read<T>(
        &self,
        operation: &'static str,
        read: impl Fn(&redb::ReadTransaction) -> Result<T, redb::Error>,
    ) -> Result<T> {
        self.file.read(read).map_err(|error| {
            if matches!(error, redb::Error::Io(_) | redb::Error::PreviousIo) {
                self.queue.push_now(Request::Reopen);
            }
            self.file.explain_redb(operation, error)
        })
    }
}

/// Reads that may take long stay off the runtime's threads.
async fn blocking<T: Send + 'static>(
    shared: Arc<Shared>,
    operation: &'static str,
    work: impl FnOnce(&Arc<Shared>) -> Result<T> + Send + 'static,
) -> Result<T> {
    let subject = shared.file.path().to_owned();
    match tokio::task::spawn_blocking(move || work(&shared)).await {
        Ok(result) => result,
        Err(_) => Err(queue::closed(operation, &subject.display().to_string()).into()),
    }
}

impl Store for Embedded {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Got>> {
        // One key is a few pages, most likely in memory: not worth another thread.
        async move { self.shared.read("read", |transaction| read::get(transaction, key)) }.boxed()
    }

    fn range<'a>(&'a self, prefix: &'a str, options: RangeOptions) -> BoxFuture<'a, Result<Ranged>> {
        let prefix = prefix.to_owned();
        blocking(self.shared.clone(), "read", move |shared| {
            match shared.read("read", |transaction| read::range(transaction, &prefix, &options))? {
                AtRevision::Read(ranged) => Ok(ranged),
                AtRevision::Compacted(compacted) => {
                    Err(Error::Compacted { requested: options.at.unwrap_or(0), compacted })
                }
                AtRevision::Future(current) => {
                    Err(Error::FutureRevision { requested: options.at.unwrap_or(0), current })
                }
            }
        })
        .boxed()
    }

    fn write(&self, write: Write) -> BoxFuture<'_, Result<Written, WriteError>> {
        self.ask("write", |reply| Request::Write(write, reply)).boxed()
    }

    fn watch<'a>(&'a self, prefix: &'a str, after: Revision) -> BoxFuture<'a, Result<WatchStream>> {
        async move { watch::start(self.shared.clone(), prefix, after) }.boxed()
    }

    fn revision(&self) -> BoxFuture<'_, Result<Revision>> {
        futures::future::ready(Ok(self.shared.revision())).boxed()
    }

    fn request_progress(&self) -> BoxFuture<'_, Result<bool>> {
        self.shared.hub.report_progress();
        futures::future::ready(Ok(true)).boxed()
    }

    fn compact(&self, upto: Revision) -> BoxFuture<'_, Result<()>> {
        self.ask("compact", move |reply| Request::Compact(upto, reply)).boxed()
    }

    fn advance(&self, to: Revision) -> BoxFuture<'_, Result<Revision>> {
        self.ask("advance", move |reply| Request::Advance(to, reply)).boxed()
    }

    fn lease(&self, ttl: Duration) -> BoxFuture<'_, Result<LeaseId>> {
        self.ask("grant lease", move |reply| Request::Grant(ttl, reply)).boxed()
    }

    fn renew(&self, lease: LeaseId) -> BoxFuture<'_, Result<()>> {
        self.ask("renew lease", move |reply| Request::Renew(lease, reply)).boxed()
    }

    fn revoke(&self, lease: LeaseId) -> BoxFuture<'_, Result<()>> {
        self.ask("revoke lease", move |reply| Request::Revoke(lease, reply)).boxed()
    }
}
