//! What a batch changes, as it stands in the write-ahead log: results, not requests, so that a replay needs neither clock nor checks.
//!
//! Removing superfluous records is not in it: that is found anew in whatever state there is.

use super::format::Record;
use crate::types::{LeaseId, Revision};

/// One change of the state.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Op<'a> {
    /// An encoded [`Record`] and the lease its key hangs on from now on; 0 is none.
    Change { revision: Revision, lease: LeaseId, record: &'a [u8] },
    /// A lease and its time to live in milliseconds.
    Grant { lease: LeaseId, ttl: u64 },
    /// A lease's end; what hung on it is deleted by changes of their own.
    End { lease: LeaseId },
    /// History up to here is no longer wanted.
    Compact { upto: Revision },
}

/// kind (1) + two numbers (8 each) + record length (4)
const HEADER: usize = 21;
const CHANGE: u8 = 1;
const GRANT: u8 = 2;
const END: u8 = 3;
const COMPACT: u8 = 4;

/// Encoded [`Op`]s, one after another.
#[derive(Debug, Default)]
pub(super) struct Journal(Vec<u8>);

impl Journal {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn change(&mut self, revision: Revision, lease: LeaseId, record: Record<'_>) {
        record.encode_into(self.push(CHANGE, revision, lease, record.encoded_len()));
    }

    pub(super) fn grant(&mut self, lease: LeaseId, ttl: u64) {
        self.push(GRANT, lease, ttl, 0);
    }

    pub(super) fn end(&mut self, lease: LeaseId) {
        self.push(END, lease, 0, 0);
    }

    pub(super) fn compact(&mut self, upto: Revision) {
        self.push(COMPACT, upto, 0, 0);
    }

    fn push(&mut self, kind: u8, first: u64, second: u64, len: usize) -> &mut [u8] {
        self.0.push(kind);
        self.0.extend_from_slice(&first.to_le_bytes());
        self.0.extend_from_slice(&second.to_le_bytes());
        self.0.extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes());
        let start = self.0.len();
        self.0.resize(start + len, 0);
        &mut self.0[start..]
    }
}

/// The changes of a batch in order; an impossible one is a damaged file.
pub(super) fn ops(mut bytes: &[u8]) -> impl Iterator<Item = Result<Op<'_>, redb::Error>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        match take(&mut bytes) {
            Some(op) => Some(Ok(op)),
            None => {
                bytes = &[];
                Some(Err(redb::Error::Corrupted("malformed change in the write-ahead log".to_owned())))
            }
        }
    })
}

fn take<'a>(bytes: &mut &'a [u8]) -> Option<Op<'a>> {
    let (header, rest) = bytes.split_at_checked(HEADER)?;
    let number = |at: usize| Some(u64::from_le_bytes(header.get(at..at + 8)?.try_into().ok()?));
    let (first, second) = (number(1)?, number(9)?);
    let len = u32::from_le_bytes(header[17..21].try_into().ok()?) as usize;
    let (record, rest) = rest.split_at_checked(len)?;
    *bytes = rest;
    Some(match header[0] {
        CHANGE => Op::Change { revision: first, lease: second, record },
        GRANT => Op::Grant { lease: first, ttl: second },
        END => Op::End { lease: first },
        COMPACT => Op::Compact { upto: first },
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_reads_back_in_order_and_a_cut_one_is_refused() {
        let mut journal = Journal::default();
        journal.grant(3, 500);
        journal.change(7, 3, Record { value: Some(b"v"), key: "/a", create_revision: 7, replaced: 0 });
        journal.end(3);
        journal.compact(6);
        let ops: Vec<_> = ops(journal.bytes()).collect::<Result<_, _>>().unwrap();
        let [grant, Op::Change { revision: 7, lease: 3, record }, end, compact] = &ops[..] else {
            panic!("{ops:?}")
        };
        assert_eq!(Record::decode(record).unwrap().key, "/a");
        assert_eq!(
            [grant, end, compact],
            [&Op::Grant { lease: 3, ttl: 500 }, &Op::End { lease: 3 }, &Op::Compact { upto: 6 }]
        );
        let cut = &journal.bytes()[..journal.bytes().len() - 1];
        assert!(super::ops(cut).last().unwrap().is_err());
    }
}
