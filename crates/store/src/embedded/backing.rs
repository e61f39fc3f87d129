//! The file under redb: it has blocks for all its length, so that a full disk stops its growth and nothing else.
//!
//! redb writes pages long after it has taken a change; were these holes, a full disk would lose changes that readers have
//! seen, and the log could not be replayed into it.

use std::fs::File;
use std::io;
use std::ops::Bound;
use std::path::PathBuf;
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use parking_lot::MutexGuard;
use redb::backends::FileBackend;
use redb::{BackendError, DatabaseError, StorageBackend};

use super::fault::{Faults, Step};

#[derive(Debug)]
pub(super) struct Backing {
    backend: FileBackend,
    /// The same open file.
    file: File,
    path: PathBuf,
    faults: Option<Arc<Faults>>,
}

impl Backing {
    pub(super) fn new(file: File, path: PathBuf, faults: Option<Arc<Faults>>) -> Result<Self, DatabaseError> {
        let same = file.try_clone().map_err(|error| DatabaseError::Storage(error.into()))?;
        Ok(Self { backend: FileBackend::new(file)?, file: same, path, faults })
    }

    fn space(&self) -> io::Result<()> {
        self.faults.as_ref().map_or(Ok(()), |faults| faults.space())
    }

    /// To be held during a change of the file.
    fn moving(&self) -> Option<MutexGuard<'_, ()>> {
        self.faults.as_ref().map(|faults| faults.freeze())
    }
}

impl StorageBackend for Backing {
    fn len(&self) -> io::Result<u64> {
        self.backend.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.backend.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.space()?;
        let _moving = self.moving();
        let now = self.backend.len()?;
        if len > now {
            let (from, count) = (to_offset(now)?, to_offset(len - now)?);
            // The length changes in one step afterwards: redb knows files of certain lengths only.
            match fallocate(&self.file, FallocateFlags::FALLOC_FL_KEEP_SIZE, from, count) {
                Ok(()) | Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => {}
                Err(error) => {
                    // Gives back what was had of it.
                    drop(self.backend.set_len(now));
                    return Err(error.into());
                }
            }
        }
        self.backend.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        match &self.faults {
            Some(faults) => faults.sync(&self.path, Step::Checkpoint, || self.backend.sync_data()),
            None => self.backend.sync_data(),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        // A full disk still takes what overwrites allocated blocks, such as the file's header.
        if offset > 0 {
            self.space()?;
        }
        let _moving = self.moving();
        self.backend.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.backend.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.backend.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.backend.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.backend.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.backend.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.backend.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.backend.query_lock_range(start, end)
    }
}

fn to_offset(bytes: u64) -> io::Result<i64> {
    bytes.try_into().map_err(|_| io::ErrorKind::FileTooLarge.into())
}
