//! What clients did and saw, as data.

use uuid::Uuid;

pub type Revision = u64;
/// Microseconds since the round began.
pub type Time = u64;
/// Objects are few, and known by number.
pub type Key = u8;

/// An object as a client saw it. Every write has a value of its own, so that a value names its write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Object {
    pub key: Key,
    pub uid: Uuid,
    pub revision: Revision,
    pub value: u64,
}

/// How fresh a read has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fresh {
    /// No `resourceVersion`: as new as whatever was acknowledged or seen before the read began.
    Consistent,
    /// `resourceVersion=0`
    Any,
    AtLeast(Revision),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    Create {
        value: u64,
    },
    Update {
        value: u64,
        expected: Revision,
    },
    /// Without precondition.
    Patch {
        value: u64,
    },
    Delete {
        expected: Option<Revision>,
    },
    Get(Fresh),
    List(Fresh),
    /// A watch that did not begin, or ended with an error.
    Watch,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Wrote(Object),
    Deleted(Uuid),
    Found(Object),
    Absent,
    Listed {
        revision: Revision,
        objects: Vec<Object>,
    },
    /// The pages of one list were of different revisions.
    Torn,
    /// It certainly did not happen, says this code.
    Refused(u16),
    /// It may or may not have happened; the code if there was an answer.
    Unknown(Option<u16>),
}

/// A request with its answer.
#[derive(Debug, Clone)]
pub struct Operation {
    pub client: usize,
    pub server: usize,
    pub begin: Time,
    pub end: Time,
    /// Without meaning for lists.
    pub key: Key,
    pub call: Call,
    pub answer: Answer,
}

/// What a watch asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    All,
    /// `metadata.name=`
    Key(Key),
    /// `side=`, a label: values are on a side by their lowest bit.
    Side(u64),
}

impl Filter {
    pub fn takes(self, key: Key, value: u64) -> bool {
        match self {
            Self::All => true,
            Self::Key(only) => only == key,
            Self::Side(side) => value & 1 == side,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    Added(Object),
    Modified(Object),
    Deleted(Object),
    Bookmark(Revision),
}

impl Notice {
    pub fn revision(self) -> Revision {
        match self {
            Self::Added(object) | Self::Modified(object) | Self::Deleted(object) => object.revision,
            Self::Bookmark(revision) => revision,
        }
    }

    pub fn object(self) -> Option<Object> {
        match self {
            Self::Added(object) | Self::Modified(object) | Self::Deleted(object) => Some(object),
            Self::Bookmark(_) => None,
        }
    }
}

/// One watch, from a revision until its end.
#[derive(Debug, Clone)]
pub struct Session {
    pub watcher: usize,
    pub server: usize,
    pub filter: Filter,
    pub after: Revision,
    pub notices: Vec<(Time, Notice)>,
}

impl Session {
    /// How far the watch has come.
    pub fn reached(&self) -> Revision {
        self.notices.iter().map(|(_, notice)| notice.revision()).max().unwrap_or(0).max(self.after)
    }
}

/// A time in which a server ran but its store could not be used.
#[derive(Debug, Clone, Copy)]
pub struct Outage {
    pub server: usize,
    pub begin: Time,
    pub end: Time,
}

#[derive(Debug, Clone, Default)]
pub struct History {
    /// There was nothing up to here.
    pub empty_at: Revision,
    pub operations: Vec<Operation>,
    pub sessions: Vec<Session>,
    pub outages: Vec<Outage>,
}
