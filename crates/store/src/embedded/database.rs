//! The redb file: opened, shared by readers, closed and opened again after an I/O error.
//!
//! After a failed write or sync redb refuses everything until the file is opened anew, which brings
//! back the last durable state; what the write-ahead log holds beyond it is then replayed. The writer
//! does that; readers meanwhile wait at the lock.

use std::fs::{DirBuilder, File, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use redb::{
    Database, DatabaseError, Durability, ReadTransaction, ReadableDatabase, ReadableTable, WriteTransaction,
};

use super::apply::Changes;
use super::backing::Backing;
use super::fault::{Faults, Step};
use super::format::{
    FIRST_REVISION, FORMAT, FORMAT_WITHOUT_WAL, KEYS, LEASE_KEYS, LEASES, LOG, META, META_FORMAT,
    META_GENERATION,
};
use super::wal::{Appended, Wal};
use crate::error::Error;
use crate::types::Revision;

/// Whether a transaction is in force.
pub(super) enum Committed {
    Yes,
    /// Nothing was done, and the file is as good as before.
    No(io::Error),
}

/// A file that may be closed for a moment.
pub(super) struct Handle {
    path: PathBuf,
    cache_bytes: usize,
    faults: Option<Arc<Faults>>,
    database: RwLock<Option<Database>>,
    /// Used by the writer only.
    wal: Mutex<Wal>,
}

impl Handle {
    /// Opens the file, creating it and its folder if need be.
    pub(super) fn open(path: &Path, cache_bytes: usize, faults: Option<Arc<Faults>>) -> Result<Self, Error> {
        let wal = Mutex::new(Wal::beside(path, faults.clone()));
        let handle = Self { path: path.to_owned(), cache_bytes, faults, database: RwLock::new(None), wal };
        handle.reopen()?;
        Ok(handle)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Closes the file if it is open, then opens it. Readers wait.
    pub(super) fn reopen(&self) -> Result<(), Error> {
        let mut slot = self.database.write();
        drop(slot.take());
        let database = self.open_file().map_err(|error| self.explain(error))?;
        prepare(&database)
            .and_then(|()| self.replay(&database))
            .map_err(|error| self.explain_redb("open", error))?;
        *slot = Some(database);
        Ok(())
    }

    /// Brings redb to where the log is. Readers come after this.
    fn replay(&self, database: &Database) -> Result<(), redb::Error> {
        let generation = database.begin_read()?.open_table(META)?.get(META_GENERATION)?.map(|n| n.value());
        // Without one the file is new, or older than the log.
        let Some(generation) = generation else { return Ok(()) };
        let transaction = begin(database)?;
        let mut changes = Changes::new(&transaction)?;
        self.wal.lock().replay(generation, |entry| changes.replay(entry))?;
        if changes.finish().dirty { Ok(transaction.commit()?) } else { Ok(transaction.abort()?) }
    }

    /// Closes the file for good; reads in progress fail.
    pub(super) fn close(&self) {
        let Some(database) = self.database.write().take() else { return };
        let mut wal = self.wal.lock();
        if !wal.holds_entries() {
            return;
        }
        match begin(&database).and_then(|transaction| self.checkpoint(transaction, &mut wal)) {
            Ok(()) => wal.empty(),
            // It is replayed at the next start.
            Err(error) => {
                tracing::warn!(%error, "the write-ahead log stays in force: no checkpoint at close")
            }
        }
    }

    fn open_file(&self) -> Result<Database, DatabaseError> {
        let file = create_private(&self.path)?;
        let mut builder = Database::builder();
        builder.set_cache_size(self.cache_bytes);
        builder.create_with_backend(Backing::new(file, self.path.clone(), self.faults.clone())?)
    }

    /// Runs a read on a snapshot of the committed state. Tries again if the file was reopened
    /// meanwhile.
    pub(super) fn read<T>(
        &self,
        read: impl Fn(&ReadTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, redb::Error> {
        const ATTEMPTS: usize = 3;
        let mut attempt = 1;
        loop {
            match self.begin_read().and_then(|transaction| read(&transaction)) {
                Err(redb::Error::DatabaseClosed | redb::Error::PreviousIo) if attempt < ATTEMPTS => {
                    attempt += 1
                }
                result => return result,
            }
        }
    }

    fn begin_read(&self) -> Result<ReadTransaction, redb::Error> {
        match &*self.database.read() {
            Some(database) => Ok(database.begin_read()?),
            None => Err(redb::Error::DatabaseClosed),
        }
    }

    /// A transaction for [`Self::commit`].
    pub(super) fn begin_write(&self) -> Result<WriteTransaction, redb::Error> {
        match &*self.database.read() {
            Some(database) => begin(database),
            None => Err(redb::Error::DatabaseClosed),
        }
    }

    /// Makes a transaction durable, through the log if that has room for its changes, and visible. One without
    /// changes for the log may be lost. After an error the file has to be opened anew.
    pub(super) fn commit(
        &self,
        transaction: WriteTransaction,
        changes: &[u8],
    ) -> Result<Committed, redb::Error> {
        let mut wal = self.wal.lock();
        let appended = if changes.is_empty() { Appended::Yes } else { wal.append(changes)? };
        match appended {
            Appended::Yes => {
                self.fault(Step::Commit)?;
                transaction.commit()?;
            }
            Appended::Full => self.checkpoint(transaction, &mut wal)?,
            Appended::No(error) => {
                transaction.abort()?;
                return Ok(Committed::No(error));
            }
        }
        Ok(Committed::Yes)
    }

    /// Commits so that a crash needs neither repair nor the log.
    fn checkpoint(&self, mut transaction: WriteTransaction, wal: &mut Wal) -> Result<(), redb::Error> {
        let generation = RandomState::new().hash_one(());
        {
            let mut meta = transaction.open_table(META)?;
            meta.insert(META_FORMAT, FORMAT)?;
            meta.insert(META_GENERATION, generation)?;
        }
        make_durable(&mut transaction)?;
        transaction.commit()?;
        self.fault(Step::CheckpointDone)?;
        wal.restart(generation);
        Ok(())
    }

    fn fault(&self, step: Step) -> io::Result<()> {
        self.faults.as_ref().map_or(Ok(()), |faults| faults.step(step))
    }

    /// The revision of the committed state.
    pub(super) fn revision(&self) -> Result<Revision, redb::Error> {
        self.read(revision_in)
    }

    fn explain(&self, error: DatabaseError) -> Error {
        match error {
            DatabaseError::DatabaseAlreadyOpen => Error::AlreadyOpen { path: self.path.clone() },
            error => self.explain_redb("open", error.into()),
        }
    }

    /// An error of the file in terms of what its owner can do.
    pub(super) fn explain_redb(&self, operation: &'static str, error: redb::Error) -> Error {
        match error {
            redb::Error::Corrupted(_)
            | redb::Error::UpgradeRequired(_)
            | redb::Error::TableTypeMismatch { .. } => {
                Error::Damaged { path: self.path.clone(), source: error.into() }
            }
            error => Error::Unavailable(self.unavailable(operation, error)),
        }
    }

    pub(super) fn unavailable(&self, operation: &'static str, error: redb::Error) -> crate::Unavailable {
        let advice = match &error {
            redb::Error::Io(error) => io_advice(error),
            redb::Error::PreviousIo => "an earlier read or write of its file failed".to_owned(),
            redb::Error::DatabaseClosed => "it is closed".to_owned(),
            _ => "its file could not be used".to_owned(),
        };
        crate::Unavailable {
            operation,
            subject: self.path.display().to_string(),
            advice,
            source: Some(error.into()),
        }
    }
}

pub(super) fn revision_in(transaction: &ReadTransaction) -> Result<Revision, redb::Error> {
    let log = transaction.open_table(LOG)?;
    Ok(log.last()?.map_or(FIRST_REVISION, |(revision, _)| revision.value()))
}

fn begin(database: &Database) -> Result<WriteTransaction, redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::None)?;
    Ok(transaction)
}

fn make_durable(transaction: &mut WriteTransaction) -> Result<(), redb::Error> {
    transaction.set_durability(Durability::Immediate)?;
    transaction.set_quick_repair(true);
    Ok(())
}

/// Makes sure that all tables exist in a layout this code knows. Writes nothing if they do.
fn prepare(database: &Database) -> Result<(), redb::Error> {
    if let Ok(meta) = database.begin_read()?.open_table(META) {
        return match meta.get(META_FORMAT)?.map(|format| format.value()) {
            Some(FORMAT | FORMAT_WITHOUT_WAL) => Ok(()),
            Some(other) => {
                Err(redb::Error::Corrupted(format!("it has format {other}, this version reads {FORMAT}")))
            }
            None => Err(redb::Error::Corrupted("it does not say its format".to_owned())),
        };
    }
    let mut transaction = database.begin_write()?;
    make_durable(&mut transaction)?;
    transaction.open_table(LOG)?;
    transaction.open_table(KEYS)?;
    transaction.open_table(LEASES)?;
    transaction.open_table(LEASE_KEYS)?;
    transaction.open_table(META)?.insert(META_FORMAT, FORMAT)?;
    transaction.commit()?;
    Ok(())
}

/// Opens or creates a file that only its owner may read: it holds Secrets.
pub(super) fn create_private(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

fn io_advice(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "the disk is full: free some space, writes then go on by themselves".to_owned()
        }
        io::ErrorKind::FileTooLarge => {
            "its file reached the size limit of the process or file system".to_owned()
        }
        io::ErrorKind::PermissionDenied => "its file may not be opened: check owner and mode".to_owned(),
        io::ErrorKind::ReadOnlyFilesystem => {
            "the file system is read-only: check the disk and remount it".to_owned()
        }
        _ => "reading or writing its file failed: check the disk and the kernel log".to_owned(),
    }
}
