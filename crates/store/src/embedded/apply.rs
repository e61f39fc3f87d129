//! Changes within one write transaction.

use bytes::Bytes;
use redb::{ReadableTable, Table, WriteTransaction};

use super::format::{
    FIRST_REVISION, Head, KEYS, LEASE_KEYS, LEASES, LOG, META, META_COMPACTED, META_LEASE, META_SCRUBBED,
    Record,
};
use super::journal::{Journal, Op, ops};
use crate::error::WriteError;
use crate::types::{Event, EventKind, Expect, KeyValue, LeaseId, Revision, Write, Written};

/// The largest value taken; upstream's etcd stops at 1.5 MiB, the API server at 3 MiB.
pub(super) const VALUE_LIMIT: usize = 4 << 20;
/// How many records one step of [`Changes::scrub`] looks at.
const SCRUB_RECORDS: usize = 1024;

/// A transaction being filled: the tables, the revision reached and what watchers will see.
pub(super) struct Changes<'t> {
    transaction: &'t WriteTransaction,
    log: Table<'t, u64, &'static [u8]>,
    keys: Table<'t, &'static str, (u64, u64, u64)>,
    revision: Revision,
    events: Vec<Event>,
    journal: Journal,
    dirty: bool,
}

/// What a filled transaction leaves to do after its commit.
pub(super) struct Changed {
    pub(super) events: Vec<Event>,
    pub(super) revision: Revision,
    /// What a replay needs to come to the same state.
    pub(super) journal: Journal,
    /// Whether there is anything to commit.
    pub(super) dirty: bool,
}

impl<'t> Changes<'t> {
    pub(super) fn new(transaction: &'t WriteTransaction) -> Result<Self, redb::Error> {
        let log = transaction.open_table(LOG)?;
        let keys = transaction.open_table(KEYS)?;
        let revision = log.last()?.map_or(FIRST_REVISION, |(revision, _)| revision.value());
        Ok(Self {
            transaction,
            log,
            keys,
            revision,
            events: Vec::new(),
            journal: Journal::default(),
            dirty: false,
        })
    }

    /// The revision reached so far.
    pub(super) fn revision(&self) -> Revision {
        self.revision
    }

    pub(super) fn finish(self) -> Changed {
        Changed { events: self.events, revision: self.revision, journal: self.journal, dirty: self.dirty }
    }

    /// Compares and writes or deletes.
    pub(super) fn write(
        &mut self,
        write: &Write,
        lease_exists: impl Fn(LeaseId) -> bool,
    ) -> Result<Result<Written, WriteError>, redb::Error> {
        let head = self.keys.get(write.key.as_str())?.map(|head| Head::from(head.value()));
        let live = head.filter(Head::is_live);
        let current = match live {
            Some(head) => self.key_value(head.revision)?,
            None => None,
        };
        let as_expected = match write.expect {
            Expect::Any => true,
            Expect::Absent => live.is_none(),
            Expect::Revision(revision) => live.is_some_and(|head| head.revision == revision),
        };
        if !as_expected {
            return Ok(Err(WriteError::Conflict { current }));
        }
        match &write.value {
            Some(value) => {
                if value.len() > VALUE_LIMIT {
                    let (key, size) = (write.key.clone(), value.len());
                    return Ok(Err(WriteError::TooLarge { key, size, limit: VALUE_LIMIT }));
                }
                if let Some(lease) = write.lease.filter(|lease| !lease_exists(*lease)) {
                    return Ok(Err(WriteError::LeaseNotFound(lease)));
                }
                self.put(write.key.clone(), value.clone(), write.lease.unwrap_or(0), head, current.clone())?;
            }
            None => {
                if let (Some(head), Some(kv)) = (live, current.clone()) {
                    self.delete(head, kv)?;
                }
            }
        }
        Ok(Ok(Written { revision: self.revision, previous: current }))
    }

    fn put(
        &mut self,
        key: String,
        value: Bytes,
        lease: LeaseId,
        head: Option<Head>,
        previous: Option<KeyValue>,
    ) -> Result<(), redb::Error> {
        self.revision += 1;
        let revision = self.revision;
        let live = head.filter(Head::is_live);
        let create_revision = live.map_or(revision, |head| head.create_revision);
        let replaced = head.map_or(0, |head| head.revision);
        let record = Record { value: Some(&value), key: &key, create_revision, replaced };
        self.settle(record, live.map_or(0, |head| head.lease), lease)?;
        let kv = KeyValue { key, value, create_revision, mod_revision: revision };
        self.events.push(Event { revision, kind: EventKind::Put, kv, previous });
        Ok(())
    }

    fn delete(&mut self, head: Head, kv: KeyValue) -> Result<(), redb::Error> {
        self.revision += 1;
        let revision = self.revision;
        let create_revision = head.create_revision;
        self.settle(
            Record { value: None, key: &kv.key, create_revision, replaced: head.revision },
            head.lease,
            0,
        )?;
        self.events.push(Event { revision, kind: EventKind::Delete, previous: Some(kv.clone()), kv });
        Ok(())
    }

    /// Makes a record, at the revision reached, the newest of its key and moves that from its lease to another.
    fn settle(&mut self, record: Record<'_>, from: LeaseId, lease: LeaseId) -> Result<(), redb::Error> {
        self.dirty = true;
        let revision = self.revision;
        self.journal.change(revision, lease, record);
        record.encode_into(self.log.insert_reserve(revision, record.encoded_len())?.as_mut());
        if record.is_marker() {
            return Ok(());
        }
        let create_revision = if record.value.is_some() { record.create_revision } else { 0 };
        self.keys.insert(record.key, Head { revision, create_revision, lease }.encode())?;
        self.attach(record.key, from, lease)
    }

    /// Does what a journal says, as far as it is not done.
    pub(super) fn replay(&mut self, journal: &[u8]) -> Result<(), redb::Error> {
        for op in ops(journal) {
            match op? {
                Op::Change { revision, lease, record } if revision > self.revision => {
                    self.revision = revision;
                    let record = Record::decode(record)?;
                    let head = self.keys.get(record.key)?.map(|head| Head::from(head.value()));
                    self.settle(record, head.filter(Head::is_live).map_or(0, |head| head.lease), lease)?;
                }
                Op::Change { .. } => {}
                Op::Grant { lease, ttl } => self.insert_lease(lease, ttl)?,
                Op::End { lease } => self.remove_lease(lease)?,
                Op::Compact { upto } => drop(self.compact(upto)?),
            }
        }
        self.journal.clear();
        Ok(())
    }

    fn key_value(&self, revision: Revision) -> Result<Option<KeyValue>, redb::Error> {
        match self.log.get(revision)? {
            Some(bytes) => Ok(Record::decode(bytes.value())?.to_key_value(revision)),
            None => Err(redb::Error::Corrupted(format!("no record of live revision {revision}"))),
        }
    }

    /// Moves a key from one lease to another; 0 is none.
    fn attach(&mut self, key: &str, from: LeaseId, to: LeaseId) -> Result<(), redb::Error> {
        if from == to {
            return Ok(());
        }
        let mut table = self.transaction.open_table(LEASE_KEYS)?;
        if from != 0 {
            table.remove((from, key))?;
        }
        if to != 0 {
            table.insert((to, key), ())?;
        }
        Ok(())
    }

    /// Raises the revision without a change.
    pub(super) fn advance(&mut self, to: Revision) -> Result<Revision, redb::Error> {
        if to > self.revision {
            self.revision = to;
            self.settle(Record::MARKER, 0, 0)?;
        }
        Ok(self.revision)
    }

    /// Names and stores a new lease.
    pub(super) fn grant(&mut self, ttl_millis: u64) -> Result<LeaseId, redb::Error> {
        let last = self.transaction.open_table(META)?.get(META_LEASE)?.map_or(0, |last| last.value());
        self.insert_lease(last + 1, ttl_millis)?;
        Ok(last + 1)
    }

    fn insert_lease(&mut self, lease: LeaseId, ttl_millis: u64) -> Result<(), redb::Error> {
        self.dirty = true;
        self.journal.grant(lease, ttl_millis);
        self.transaction.open_table(META)?.insert(META_LEASE, lease)?;
        self.transaction.open_table(LEASES)?.insert(lease, ttl_millis)?;
        Ok(())
    }

    fn remove_lease(&mut self, lease: LeaseId) -> Result<(), redb::Error> {
        self.dirty = true;
        self.journal.end(lease);
        self.transaction.open_table(LEASES)?.remove(lease)?;
        Ok(())
    }

    /// Ends a lease: deletes the keys that hang on it.
    pub(super) fn end_lease(&mut self, lease: LeaseId) -> Result<(), redb::Error> {
        self.remove_lease(lease)?;
        let mut attached = Vec::new();
        for entry in self.transaction.open_table(LEASE_KEYS)?.range((lease, "")..(lease + 1, ""))? {
            attached.push(entry?.0.value().1.to_owned());
        }
        for key in attached {
            let head = self.keys.get(key.as_str())?.map(|head| Head::from(head.value()));
            let Some(head) = head.filter(|head| head.is_live() && head.lease == lease) else { continue };
            if let Some(kv) = self.key_value(head.revision)? {
                self.delete(head, kv)?;
            }
        }
        Ok(())
    }

    /// Notes that history up to a revision is no longer wanted. `false` if that was known.
    pub(super) fn compact(&mut self, upto: Revision) -> Result<bool, redb::Error> {
        let mut meta = self.transaction.open_table(META)?;
        if meta.get(META_COMPACTED)?.is_some_and(|compacted| compacted.value() >= upto) {
            return Ok(false);
        }
        meta.insert(META_COMPACTED, upto)?;
        self.journal.compact(upto);
        self.dirty = true;
        Ok(true)
    }

    /// Removes some of the records that the last compaction made superfluous: those replaced up to
    /// the compacted revision, and deletions. Returns whether there may be more.
    pub(super) fn scrub(&mut self) -> Result<bool, redb::Error> {
        let mut meta = self.transaction.open_table(META)?;
        let number = |name| Ok::<_, redb::Error>(meta.get(name)?.map_or(0, |n| n.value()));
        let (compacted, scrubbed) = (number(META_COMPACTED)?, number(META_SCRUBBED)?);
        let mut superfluous = Superfluous { upto: compacted, ..Superfluous::default() };
        for (seen, entry) in self.log.range(scrubbed + 1..=compacted)?.enumerate() {
            let (revision, bytes) = entry?;
            superfluous.note(Record::decode(bytes.value())?, revision.value());
            if seen + 1 >= SCRUB_RECORDS {
                superfluous.upto = revision.value();
                break;
            }
        }
        let more = superfluous.upto < compacted;
        // The log's last record carries the store's revision: a deletion there waits its turn.
        if superfluous.deleted.last().is_some_and(|(revision, _)| *revision == self.revision) {
            superfluous.deleted.pop();
            superfluous.upto = self.revision - 1;
        }
        if superfluous.upto > scrubbed {
            meta.insert(META_SCRUBBED, superfluous.upto)?;
            drop(meta);
            self.remove(superfluous)?;
        }
        Ok(more)
    }

    fn remove(&mut self, superfluous: Superfluous) -> Result<(), redb::Error> {
        self.dirty = true;
        for revision in superfluous.replaced {
            self.log.remove(revision)?;
        }
        for (revision, key) in superfluous.deleted {
            self.log.remove(revision)?;
            let newest = self.keys.get(key.as_str())?.map(|head| head.value().0);
            if newest == Some(revision) {
                self.keys.remove(key.as_str())?;
            }
        }
        Ok(())
    }
}

/// Records that may go, found in one stretch of the log.
#[derive(Default)]
struct Superfluous {
    upto: Revision,
    replaced: Vec<Revision>,
    deleted: Vec<(Revision, String)>,
}

impl Superfluous {
    fn note(&mut self, record: Record<'_>, revision: Revision) {
        if record.replaced != 0 {
            self.replaced.push(record.replaced);
        }
        if record.value.is_none() {
            self.deleted.push((revision, record.key.to_owned()));
        }
    }
}
