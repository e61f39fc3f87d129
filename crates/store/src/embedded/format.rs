//! How the file is laid out.
//!
//! `log` holds one record per revision, the value included; a value is stored once. `keys` points
//! from a key to its newest record. A record names the revision it replaced, so that the state of a
//! key at an older revision is found by walking back. The greatest key of `log` is the revision of
//! the store: ordinary writes touch these two tables and nothing else.

use bytes::Bytes;
use redb::TableDefinition;

use crate::types::{KeyValue, Revision};

/// revision → [`Record`].
pub(super) const LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("log");
/// key → [`Head`]: newest revision, create revision (0 for a deleted key), lease (0 for none).
pub(super) const KEYS: TableDefinition<&str, (u64, u64, u64)> = TableDefinition::new("keys");
/// lease → time to live in milliseconds.
pub(super) const LEASES: TableDefinition<u64, u64> = TableDefinition::new("leases");
/// (lease, key) of the keys that hang on a lease.
pub(super) const LEASE_KEYS: TableDefinition<(u64, &str), ()> = TableDefinition::new("lease-keys");
/// The few numbers below.
pub(super) const META: TableDefinition<&str, u64> = TableDefinition::new("meta");

/// The layout's number in [`META`].
pub(super) const META_FORMAT: &str = "format";
/// History before this revision is gone.
pub(super) const META_COMPACTED: &str = "compacted";
/// Up to this revision the records that compaction made superfluous are removed.
pub(super) const META_SCRUBBED: &str = "scrubbed";
/// The last lease granted.
pub(super) const META_LEASE: &str = "lease";

/// What the write-ahead log's entries belong to; none in a file that never had one.
pub(super) const META_GENERATION: &str = "generation";

pub(super) const FORMAT: u64 = 3;
/// Written by versions without a write-ahead log; the first change makes it [`FORMAT`], which they refuse.
pub(super) const FORMAT_WITHOUT_WAL: u64 = 1;

/// The revision of a store without any change, as in etcd.
pub(super) const FIRST_REVISION: Revision = 1;

/// kind (1) + create revision (8) + replaced revision (8) + key length (4)
const HEADER: usize = 21;
const PUT: u8 = 1;
const DELETE: u8 = 2;

/// The newest state of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) revision: Revision,
    /// 0: the key is deleted and the entry stays for readers of the past.
    pub(super) create_revision: Revision,
    /// 0: none.
    pub(super) lease: u64,
}

impl From<(u64, u64, u64)> for Head {
    fn from((revision, create_revision, lease): (u64, u64, u64)) -> Self {
        Self { revision, create_revision, lease }
    }
}

impl Head {
    pub(super) fn encode(self) -> (u64, u64, u64) {
        (self.revision, self.create_revision, self.lease)
    }

    pub(super) fn is_live(&self) -> bool {
        self.create_revision != 0
    }
}

/// One change, borrowed from the file or about to be written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Record<'a> {
    /// `None` for a deletion.
    pub(super) value: Option<&'a [u8]>,
    pub(super) key: &'a str,
    pub(super) create_revision: Revision,
    /// The record this one replaced, a deletion included; 0 for none.
    pub(super) replaced: Revision,
}

impl<'a> Record<'a> {
    /// Stands for a revision at which no key changed.
    pub(super) const MARKER: Self = Record { value: None, key: "", create_revision: 0, replaced: 0 };

    pub(super) fn is_marker(&self) -> bool {
        self.value.is_none() && self.replaced == 0
    }

    pub(super) fn encoded_len(&self) -> usize {
        HEADER + self.key.len() + self.value.map_or(0, <[u8]>::len)
    }

    /// Fills a buffer of [`Self::encoded_len`] bytes.
    pub(super) fn encode_into(&self, buffer: &mut [u8]) {
        let (header, rest) = buffer.split_at_mut(HEADER);
        header[0] = if self.value.is_some() { PUT } else { DELETE };
        header[1..9].copy_from_slice(&self.create_revision.to_le_bytes());
        header[9..17].copy_from_slice(&self.replaced.to_le_bytes());
        let key_len = u32::try_from(self.key.len()).unwrap_or(u32::MAX);
        header[17..21].copy_from_slice(&key_len.to_le_bytes());
        let (key, value) = rest.split_at_mut(self.key.len());
        key.copy_from_slice(self.key.as_bytes());
        value.copy_from_slice(self.value.unwrap_or_default());
    }

    /// Reads a record; an impossible one is a damaged file.
    pub(super) fn decode(bytes: &'a [u8]) -> Result<Self, redb::Error> {
        Self::parse(bytes).ok_or_else(|| redb::Error::Corrupted("malformed record in the log".to_owned()))
    }

    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (header, rest) = bytes.split_at_checked(HEADER)?;
        let number = |at: usize| Some(u64::from_le_bytes(header.get(at..at + 8)?.try_into().ok()?));
        let key_len = u32::from_le_bytes(header[17..21].try_into().ok()?) as usize;
        let (key, value) = rest.split_at_checked(key_len)?;
        let value = match header[0] {
            PUT => Some(value),
            DELETE => None,
            _ => return None,
        };
        let key = std::str::from_utf8(key).ok()?;
        Some(Self { value, key, create_revision: number(1)?, replaced: number(9)? })
    }

    /// The key and value as of `revision`; `None` for a deletion.
    pub(super) fn to_key_value(self, revision: Revision) -> Option<KeyValue> {
        self.value.map(|value| KeyValue {
            key: self.key.to_owned(),
            value: Bytes::copy_from_slice(value),
            create_revision: self.create_revision,
            mod_revision: revision,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(record: Record<'_>) -> Vec<u8> {
        let mut buffer = vec![0; record.encoded_len()];
        record.encode_into(&mut buffer);
        buffer
    }

    #[test]
    fn a_record_reads_back_as_it_was_written() {
        let bytes = encode(Record { value: Some(b"v"), key: "/a", create_revision: 7, replaced: 6 });
        let back = Record::decode(&bytes).unwrap();
        assert_eq!(
            (back.value, back.key, back.create_revision, back.replaced),
            (Some(&b"v"[..]), "/a", 7, 6)
        );
    }

    #[test]
    fn a_deletion_has_no_value() {
        let bytes = encode(Record { value: None, key: "/a", create_revision: 7, replaced: 6 });
        assert!(Record::decode(&bytes).unwrap().to_key_value(9).is_none());
    }

    #[test]
    fn a_torn_record_is_refused() {
        let bytes = encode(Record { value: Some(b"v"), key: "/abc", create_revision: 7, replaced: 6 });
        for end in 0..HEADER + 4 {
            assert!(Record::decode(&bytes[..end]).is_err(), "{end} bytes");
        }
    }
}
