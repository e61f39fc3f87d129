//! Failures of the disk on demand, and what it was asked to keep; for tests and measurements.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard};

/// Where a durable write can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Before anything is written to the log.
    LogWrite,
    /// Amid the write to the log.
    LogTorn,
    /// The log is written, its sync fails.
    LogSync,
    /// The log is synced, redb has nothing of it.
    Commit,
    /// Before redb takes a checkpoint.
    Checkpoint,
    /// redb has the checkpoint but reports an error.
    CheckpointDone,
}

impl Step {
    pub const ALL: [Self; 6] =
        [Self::LogWrite, Self::LogTorn, Self::LogSync, Self::Commit, Self::Checkpoint, Self::CheckpointDone];
}

/// Switches of a disk that fails. All off by default.
#[derive(Debug, Default)]
pub struct Faults {
    full: AtomicBool,
    sync_fails: AtomicBool,
    without_log: AtomicBool,
    fails_at: Mutex<Option<Step>>,
    images: Mutex<Option<PathBuf>>,
    disk: Mutex<()>,
    syncs: AtomicU64,
}

impl Faults {
    /// Whether the disk has no space: writes and growth fail as they then do.
    pub fn set_full(&self, full: bool) {
        self.full.store(full, Ordering::SeqCst);
    }

    /// Whether a sync fails although the data was taken.
    pub fn set_sync_fails(&self, fails: bool) {
        self.sync_fails.store(fails, Ordering::SeqCst);
    }

    /// Whether each batch is a checkpoint and the write-ahead log stays empty.
    pub fn set_without_log(&self, without: bool) {
        self.without_log.store(without, Ordering::SeqCst);
    }

    /// Fails once, when this step is reached.
    pub fn fail_at(&self, step: Step) {
        *self.fails_at.lock() = Some(step);
    }

    /// Whether the failure asked for is still to come.
    pub fn is_pending(&self) -> bool {
        self.fails_at.lock().is_some()
    }

    /// Copies each file to this folder whenever it is synced: what a power failure leaves at least.
    pub fn keep_images(&self, folder: PathBuf) {
        *self.images.lock() = Some(folder);
    }

    /// Holds every write and sync back while the guard lives: the files and their images can be copied as they are at
    /// one moment.
    pub fn freeze(&self) -> MutexGuard<'_, ()> {
        self.disk.lock()
    }

    /// How many syncs there were.
    pub fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::SeqCst)
    }

    pub(super) fn without_log(&self) -> bool {
        self.without_log.load(Ordering::SeqCst)
    }

    pub(super) fn space(&self) -> io::Result<()> {
        if self.full.load(Ordering::SeqCst) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    pub(super) fn step(&self, step: Step) -> io::Result<()> {
        let mut fails_at = self.fails_at.lock();
        if *fails_at != Some(step) {
            return Ok(());
        }
        *fails_at = None;
        Err(io::Error::other(format!("injected failure at {step:?}")))
    }

    /// Syncs a file, or fails.
    pub(super) fn sync(
        &self,
        path: &Path,
        step: Step,
        sync: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        self.syncs.fetch_add(1, Ordering::SeqCst);
        if self.sync_fails.load(Ordering::SeqCst) {
            return Err(io::Error::other("injected sync failure"));
        }
        self.step(step)?;
        let _moving = self.freeze();
        sync()?;
        match (&*self.images.lock(), path.file_name()) {
            (Some(folder), Some(name)) => std::fs::copy(path, folder.join(name)).map(drop),
            _ => Ok(()),
        }
    }
}
