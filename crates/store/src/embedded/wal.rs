//! The write-ahead log in front of the redb file: a batch is durable once appended here and synced.
//!
//! redb then takes the same batch without a sync. When the log is full, at the first batch after opening and at close, the
//! batch is committed to redb durably instead: a checkpoint. That commit also changes the *generation*, a random number in redb
//! that every entry of the log carries.
//!
//! - *Invariant:* redb's durable state, and after it the valid entries of its generation, are all that was acknowledged.
//! - A checkpoint is one atomic commit of redb: changing the generation voids the log without writing to it, so that no
//!   crash falls between the two. Entries of another generation, torn ones and the remains of longer ones end the log.
//! - Only the last entry can be unacknowledged: one writer, one sync for each. So an entry behind one that does not read is
//!   a damaged log, and no process starts on what is before it. After a failed write or sync nobody knows what
//!   reached the disk: the log takes nothing more until a checkpoint has voided it, and meanwhile stands for what was
//!   acknowledged and no more.
//! - The file grows by zeros written ahead and is then overwritten: a small append dirties one block and no metadata. They are
//!   written block by block, and reads fetch no more than they ask for: the kernel would otherwise cache the file in large
//!   units, and a small append dirties a whole one.
//!
//! An entry: generation (8), length of the payload (4), checksum of the entry's place and payload (8), payload.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memchr::memmem;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use xxhash_rust::xxh3::Xxh3;

use super::database::create_private;
use super::fault::{Faults, Step};

/// What the log holds before redb has to take it durably; also what a start after a crash reads at most.
const LIMIT: u64 = 16 << 20;
/// How much of the file is written ahead.
const AHEAD: u64 = 1 << 20;
const BLOCK: u64 = 4096;
const HEADER: usize = 20;

/// What became of a batch.
pub(super) enum Appended {
    Yes,
    /// It has to be committed with a checkpoint instead.
    Full,
    /// The file could not be made longer, and holds what it held.
    No(io::Error),
}

pub(super) struct Wal {
    path: PathBuf,
    faults: Option<Arc<Faults>>,
    file: Option<File>,
    /// The file's length; all of it has blocks.
    len: u64,
    /// Where the next entry goes: all before is synced and acknowledged.
    end: u64,
    /// What the entries before `end` belong to; `None` before the first one of this process.
    generation: Option<u64>,
    /// Whether entries may be appended.
    open: bool,
    buffer: Vec<u8>,
}

impl Wal {
    /// The log of a redb file, beside it.
    pub(super) fn beside(store: &Path, faults: Option<Arc<Faults>>) -> Self {
        let mut path = store.as_os_str().to_owned();
        path.push(".wal");
        let (file, generation, buffer) = (None, None, Vec::new());
        Self { path: path.into(), faults, file, len: 0, end: 0, generation, open: false, buffer }
    }

    pub(super) fn holds_entries(&self) -> bool {
        self.end > 0
    }

    /// Makes a batch durable. After an error nobody knows whether it is.
    pub(super) fn append(&mut self, payload: &[u8]) -> io::Result<Appended> {
        let end = self.end + (HEADER + payload.len()) as u64;
        let without = self.faults.as_ref().is_some_and(|faults| faults.without_log());
        let Some(generation) = self.generation.filter(|_| self.open && end <= LIMIT && !without) else {
            return Ok(Appended::Full);
        };
        if let Err(error) = self.reserve(end) {
            return Ok(Appended::No(error));
        }
        // Until it is known to be synced.
        self.open = false;
        let len = u32::try_from(payload.len()).map_err(io::Error::other)?.to_le_bytes();
        self.buffer.clear();
        self.buffer.extend_from_slice(&generation.to_le_bytes());
        self.buffer.extend_from_slice(&len);
        self.buffer.extend_from_slice(&checksum(generation, self.end, payload).to_le_bytes());
        self.buffer.extend_from_slice(payload);
        self.write(self.end, &self.buffer)?;
        self.sync()?;
        self.buffer.shrink_to(AHEAD as usize);
        (self.end, self.open) = (end, true);
        Ok(Appended::Yes)
    }

    /// Starts anew after a checkpoint: what the file holds is void.
    pub(super) fn restart(&mut self, generation: u64) {
        (self.end, self.generation, self.open) = (0, Some(generation), true);
    }

    /// After a checkpoint at close: the next start need not look through what is void.
    pub(super) fn empty(&mut self) {
        if let Some(Err(error)) = self.file.as_ref().map(|file| file.set_len(0)) {
            tracing::debug!(%error, "the void write-ahead log keeps its length");
        }
    }

    /// Reads the entries of a generation in order. The log takes new ones after a checkpoint only.
    pub(super) fn replay(
        &mut self,
        generation: u64,
        apply: impl FnMut(&[u8]) -> Result<(), redb::Error>,
    ) -> Result<(), redb::Error> {
        self.open = false;
        let known = (self.end, self.generation);
        let result = self.read(generation, apply);
        if result.is_err() {
            // The next attempt must not take how far this one came for all there is.
            (self.end, self.generation) = known;
        }
        result
    }

    fn read(
        &mut self,
        generation: u64,
        mut apply: impl FnMut(&[u8]) -> Result<(), redb::Error>,
    ) -> Result<(), redb::Error> {
        // What this process did not acknowledge is left out, even if it reads back.
        let known = (self.generation == Some(generation)).then_some(self.end);
        (self.end, self.generation) = (0, Some(generation));
        self.file = None;
        if !self.path.try_exists()? && known.is_none_or(|known| known == 0) {
            return Ok(());
        }
        self.open_file()?;
        while known.is_none_or(|known| self.end < known)
            && let Some(entry) = self.entry(generation, self.end)?
        {
            self.end += entry.len() as u64;
            self.buffer = entry;
            apply(&self.buffer[HEADER..])?;
        }
        match known {
            Some(known) if self.end < known => {
                let (end, path) = (self.end, self.path.display());
                return Err(redb::Error::Corrupted(format!(
                    "{path} ends at {end}, {known} bytes were synced"
                )));
            }
            None => {
                self.refuse_later_entries(generation)?;
                if self.end > 0 {
                    // The last one may never have reached the disk; a write makes sure that this sync takes it there.
                    self.write(self.end - self.buffer.len() as u64, &self.buffer)?;
                    self.sync()?;
                }
            }
            Some(_) => {}
        }
        self.buffer = Vec::new();
        Ok(())
    }

    /// The entry at a place, header and all, if there is a whole one of this generation.
    fn entry(&self, generation: u64, at: u64) -> io::Result<Option<Vec<u8>>> {
        let mut header = [0; HEADER];
        if at + HEADER as u64 > self.len {
            return Ok(None);
        }
        self.file()?.read_exact_at(&mut header, at)?;
        let [g0, g1, g2, g3, g4, g5, g6, g7, l0, l1, l2, l3, sum @ ..] = header;
        let tag = u64::from_le_bytes([g0, g1, g2, g3, g4, g5, g6, g7]);
        let size = HEADER + u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        if tag != generation || at + size as u64 > self.len.min(LIMIT) {
            return Ok(None);
        }
        let mut entry = vec![0; size];
        self.file()?.read_exact_at(&mut entry, at)?;
        let sound = checksum(generation, at, &entry[HEADER..]) == u64::from_le_bytes(sum);
        Ok(sound.then_some(entry))
    }

    /// Makes sure that the log really ends at `end`.
    fn refuse_later_entries(&self, generation: u64) -> Result<(), redb::Error> {
        let tag = generation.to_le_bytes();
        let mut window = vec![0; 64 << 10];
        let mut from = self.end;
        while from + HEADER as u64 <= self.len {
            let size = (self.len - from).min(window.len() as u64) as usize;
            self.file()?.read_exact_at(&mut window[..size], from)?;
            for place in memmem::find_iter(&window[..size], &tag) {
                let at = from + place as u64;
                if self.entry(generation, at)?.is_some() {
                    let (path, end) = (self.path.display(), self.end);
                    return Err(redb::Error::Corrupted(format!(
                        "{path} does not read at {end}, but has acknowledged changes at {at}; if there is no backup, \
                         `truncate -s {end} {path}` makes it usable without the changes from there on"
                    )));
                }
            }
            // A tag may lie across two windows.
            from += (size + 1 - tag.len()) as u64;
        }
        Ok(())
    }

    /// Opens the file or creates it.
    fn open_file(&mut self) -> io::Result<()> {
        let file = create_private(&self.path)?;
        if let Some(folder) = self.path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            File::open(folder)?.sync_all()?;
        }
        // Advice: a kernel that does not take it costs more writing, nothing else.
        let _ = posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_RANDOM);
        self.len = file.metadata()?.len();
        self.file = Some(file);
        Ok(())
    }

    /// Makes sure that the file has blocks up to `end`.
    fn reserve(&mut self, end: u64) -> io::Result<()> {
        if self.file.is_none() {
            self.open_file()?;
        }
        let ahead = if end > self.len { end.next_multiple_of(AHEAD) } else { self.len };
        while self.len < ahead {
            let to_boundary = BLOCK - self.len % BLOCK;
            self.write(self.len, &[0; BLOCK as usize][..to_boundary as usize])?;
            self.len += to_boundary;
        }
        Ok(())
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if let Some(faults) = &self.faults {
            faults.space()?;
            faults.step(Step::LogWrite)?;
            let _moving = faults.freeze();
            if faults.step(Step::LogTorn).is_err() {
                self.file()?.write_all_at(&bytes[..bytes.len() / 2], offset)?;
                return Err(io::Error::other("injected torn write"));
            }
            return self.file()?.write_all_at(bytes, offset);
        }
        self.file()?.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        match &self.faults {
            Some(faults) => faults.sync(&self.path, Step::LogSync, || self.file()?.sync_data()),
            None => self.file()?.sync_data(),
        }
    }

    fn file(&self) -> io::Result<&File> {
        self.file.as_ref().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

fn checksum(generation: u64, place: u64, payload: &[u8]) -> u64 {
    let mut hash = Xxh3::with_seed(generation);
    hash.update(&place.to_le_bytes());
    hash.update(payload);
    hash.digest()
}
