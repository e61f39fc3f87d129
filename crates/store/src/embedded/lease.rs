//! Leases in memory: when each ends.
//!
//! The file holds which leases exist and for how long they run, not until when: after a restart
//! each runs its whole time again, so that a stopped server does not expire what its clients could
//! not renew. etcd does the same when its leader changes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::types::LeaseId;

#[derive(Debug, Clone, Copy)]
pub(super) struct Lease {
    pub(super) ttl: Duration,
    pub(super) ends: Instant,
}

#[derive(Debug, Default)]
pub(super) struct Leases {
    leases: BTreeMap<LeaseId, Lease>,
}

impl Leases {
    pub(super) fn contains(&self, id: LeaseId) -> bool {
        self.leases.contains_key(&id)
    }

    /// Starts or restarts the time of a lease.
    pub(super) fn start(&mut self, id: LeaseId, ttl: Duration, now: Instant) {
        self.leases.insert(id, Lease { ttl, ends: now + ttl });
    }

    /// Takes over which leases the file has; those known before keep their time.
    pub(super) fn adopt(&mut self, ttls: &BTreeMap<LeaseId, Duration>, now: Instant) {
        self.leases.retain(|id, _| ttls.contains_key(id));
        for (id, ttl) in ttls {
            self.leases.entry(*id).or_insert(Lease { ttl: *ttl, ends: now + *ttl });
        }
    }

    /// `false` if there is no such lease, or its time is over.
    pub(super) fn renew(&mut self, id: LeaseId, now: Instant) -> bool {
        match self.leases.get_mut(&id) {
            Some(lease) if lease.ends > now => {
                lease.ends = now + lease.ttl;
                true
            }
            _ => false,
        }
    }

    pub(super) fn remove(&mut self, id: LeaseId) {
        self.leases.remove(&id);
    }

    /// Those whose time is over.
    pub(super) fn expired(&self, now: Instant) -> Vec<LeaseId> {
        self.leases.iter().filter(|(_, lease)| lease.ends <= now).map(|(id, _)| *id).collect()
    }

    /// When the next one ends.
    pub(super) fn next_end(&self) -> Option<Instant> {
        self.leases.values().map(|lease| lease.ends).min()
    }
}
