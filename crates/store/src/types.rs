//! What goes into a store and comes out of it.

use bytes::Bytes;

/// A point in the store's history; each change of a key has one of its own.
pub type Revision = u64;

/// Names a lease of one store.
pub type LeaseId = u64;

/// A key with its value and the revisions that made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValue {
    pub key: String,
    pub value: Bytes,
    /// When the key came into being (anew after a deletion).
    pub create_revision: Revision,
    /// When the value was last written.
    pub mod_revision: Revision,
}

/// One change to make.
#[derive(Debug, Clone)]
pub struct Write {
    pub key: String,
    pub expect: Expect,
    /// `None` deletes.
    pub value: Option<Bytes>,
    /// The lease the key hangs on from now on; `None` detaches it from the one it had.
    pub lease: Option<LeaseId>,
}

/// What must hold for a write to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// The key does not exist.
    Absent,
    /// The key exists and was last written at this revision.
    Revision(Revision),
    /// Nothing. Deleting a key that does not exist then changes nothing and raises no revision.
    Any,
}

/// What a write did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    pub revision: Revision,
    pub previous: Option<KeyValue>,
}

/// The answer to a read of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Got {
    /// The store's revision at which the key was read.
    pub revision: Revision,
    pub kv: Option<KeyValue>,
}

/// Which part of a range to read, and as of when.
#[derive(Debug, Clone, Default)]
pub struct RangeOptions {
    /// Only keys greater than this one.
    pub start_after: Option<String>,
    /// At most so many keys; 0 for all.
    pub limit: usize,
    /// The revision to read at; `None` for the latest.
    pub at: Option<Revision>,
}

/// The answer to a read of a range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ranged {
    /// The revision that was read: `at` where it was given.
    pub revision: Revision,
    pub kvs: Vec<KeyValue>,
    /// Whether the limit cut the range short.
    pub more: bool,
}

/// What happened to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    Put,
    Delete,
}

/// A change that a watcher sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub revision: Revision,
    pub kind: EventKind,
    /// The new value; on deletion the last one with the revisions it had. Where that was already
    /// compacted away, the value is empty.
    pub kv: KeyValue,
    /// The value before, unless the key was new or history no longer has it.
    pub previous: Option<KeyValue>,
}

/// An item of a watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchItem {
    /// Changes in revision order; those of one revision always come together.
    Events(Vec<Event>),
    /// Everything up to and including this revision has been delivered.
    Progress(Revision),
}

impl Write {
    /// Creates a key that must not exist.
    pub fn create(key: impl Into<String>, value: impl Into<Bytes>) -> Self {
        Self { key: key.into(), expect: Expect::Absent, value: Some(value.into()), lease: None }
    }

    /// Replaces the value last written at `revision`.
    pub fn update(key: impl Into<String>, revision: Revision, value: impl Into<Bytes>) -> Self {
        Self { key: key.into(), expect: Expect::Revision(revision), value: Some(value.into()), lease: None }
    }

    /// Writes whatever was there.
    pub fn put(key: impl Into<String>, value: impl Into<Bytes>) -> Self {
        Self { key: key.into(), expect: Expect::Any, value: Some(value.into()), lease: None }
    }

    /// Deletes if the key is as expected.
    pub fn delete(key: impl Into<String>, expect: Expect) -> Self {
        Self { key: key.into(), expect, value: None, lease: None }
    }

    /// Hangs the key on a lease.
    pub fn with_lease(mut self, lease: LeaseId) -> Self {
        self.lease = Some(lease);
        self
    }
}
