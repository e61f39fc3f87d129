//! Reads of the committed state, past and present.

use std::ops::Bound;

use redb::{ReadOnlyTable, ReadTransaction};

use super::database::revision_in;
use super::format::{Head, KEYS, LOG, META, META_COMPACTED, Record};
use crate::types::{Event, EventKind, Got, KeyValue, RangeOptions, Ranged, Revision};

type Log = ReadOnlyTable<u64, &'static [u8]>;

/// What replaying one stretch of history yields.
pub(super) struct Chunk {
    pub(super) events: Vec<Event>,
    /// The last revision looked at.
    pub(super) upto: Revision,
    /// History before this is gone.
    pub(super) compacted: Revision,
}

/// How a read of the past can be impossible.
pub(super) enum AtRevision<T> {
    Read(T),
    Compacted(Revision),
    Future(Revision),
}

pub(super) fn get(transaction: &ReadTransaction, key: &str) -> Result<Got, redb::Error> {
    let revision = revision_in(transaction)?;
    let head = transaction.open_table(KEYS)?.get(key)?.map(|head| Head::from(head.value()));
    let kv = match head.filter(Head::is_live) {
        Some(head) => record_at(&transaction.open_table(LOG)?, head.revision)?,
        None => None,
    };
    Ok(Got { revision, kv })
}

pub(super) fn range(
    transaction: &ReadTransaction,
    prefix: &str,
    options: &RangeOptions,
) -> Result<AtRevision<Ranged>, redb::Error> {
    let now = revision_in(transaction)?;
    let revision = options.at.unwrap_or(now);
    let compacted = compacted_in(transaction)?;
    if revision > now {
        return Ok(AtRevision::Future(now));
    }
    if revision < compacted {
        return Ok(AtRevision::Compacted(compacted));
    }
    let keys = transaction.open_table(KEYS)?;
    let log = transaction.open_table(LOG)?;
    let mut kvs = Vec::new();
    let start = match options.start_after.as_deref() {
        Some(after) if after >= prefix => Bound::Excluded(after),
        _ => Bound::Included(prefix),
    };
    for entry in keys.range::<&str>((start, Bound::Unbounded))? {
        let (key, head) = entry?;
        if !key.value().starts_with(prefix) {
            break;
        }
        let Some(kv) = key_value_at(&log, Head::from(head.value()), revision)? else { continue };
        if options.limit > 0 && kvs.len() == options.limit {
            return Ok(AtRevision::Read(Ranged { revision, kvs, more: true }));
        }
        kvs.push(kv);
    }
    Ok(AtRevision::Read(Ranged { revision, kvs, more: false }))
}

/// Walks back from a key's newest record to the one that was in force at a revision.
fn key_value_at(log: &Log, head: Head, revision: Revision) -> Result<Option<KeyValue>, redb::Error> {
    if head.revision <= revision {
        return if head.is_live() { record_at(log, head.revision) } else { Ok(None) };
    }
    let mut at = head.revision;
    while at > revision {
        // A record that compaction removed was replaced or a deletion before `revision`.
        let Some(bytes) = log.get(at)? else { return Ok(None) };
        at = Record::decode(bytes.value())?.replaced;
    }
    if at == 0 { Ok(None) } else { record_at(log, at) }
}

fn record_at(log: &Log, revision: Revision) -> Result<Option<KeyValue>, redb::Error> {
    match log.get(revision)? {
        Some(bytes) => Ok(Record::decode(bytes.value())?.to_key_value(revision)),
        None => Ok(None),
    }
}

pub(super) fn compacted_in(transaction: &ReadTransaction) -> Result<Revision, redb::Error> {
    Ok(transaction.open_table(META)?.get(META_COMPACTED)?.map_or(0, |revision| revision.value()))
}

/// Changes after `after` and up to `upto` of keys with a prefix; as many as fit one helping.
pub(super) fn changes(
    transaction: &ReadTransaction,
    prefix: &str,
    after: Revision,
    upto: Revision,
) -> Result<Chunk, redb::Error> {
    const HELPING_RECORDS: usize = 4096;
    const HELPING_BYTES: usize = 1 << 20;
    let compacted = compacted_in(transaction)?;
    let mut chunk = Chunk { events: Vec::new(), upto, compacted };
    if after < compacted {
        return Ok(chunk);
    }
    let log = transaction.open_table(LOG)?;
    let mut bytes_read = 0;
    for (seen, entry) in log.range(after + 1..=upto)?.enumerate() {
        let (revision, bytes) = entry?;
        let (revision, bytes) = (revision.value(), bytes.value());
        bytes_read += bytes.len();
        let record = Record::decode(bytes)?;
        if record.key.starts_with(prefix) && !record.is_marker() {
            chunk.events.push(event(&log, record, revision)?);
        }
        if seen + 1 >= HELPING_RECORDS || bytes_read >= HELPING_BYTES {
            chunk.upto = revision;
            break;
        }
    }
    Ok(chunk)
}

fn event(log: &Log, record: Record<'_>, revision: Revision) -> Result<Event, redb::Error> {
    let previous = if record.replaced == 0 { None } else { record_at(log, record.replaced)? };
    Ok(match record.to_key_value(revision) {
        Some(kv) => Event { revision, kind: EventKind::Put, kv, previous },
        None => {
            let kv = previous.clone().unwrap_or_else(|| KeyValue {
                key: record.key.to_owned(),
                value: bytes::Bytes::new(),
                create_revision: record.create_revision,
                mod_revision: record.replaced,
            });
            Event { revision, kind: EventKind::Delete, kv, previous }
        }
    })
}
