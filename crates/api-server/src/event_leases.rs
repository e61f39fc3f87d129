//! Leases on which Events hang, so that the store forgets them in time. Neighbours in time share one.

use std::sync::Arc;
use std::time::Duration;

use keelson_api_types::StatusError;
use keelson_store::{LeaseId, Store};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::cache::storage_error;

/// A lease takes events for a twentieth of their life, at most so long, and at most so many.
const SHARED: Duration = Duration::from_secs(60);
const MOST: usize = 1000;

pub struct EventLeases {
    store: Arc<dyn Store>,
    ttl: Duration,
    current: Mutex<Option<Current>>,
}

struct Current {
    lease: LeaseId,
    since: Instant,
    events: usize,
}

impl EventLeases {
    pub fn new(store: Arc<dyn Store>, ttl: Duration) -> Self {
        Self { store, ttl, current: Mutex::default() }
    }

    /// The lease that an event written now hangs on: it lives as long as is configured, or a little longer.
    pub async fn get(&self) -> Result<LeaseId, StatusError> {
        let shared = (self.ttl / 20).min(SHARED);
        let mut current = self.current.lock().await;
        if let Some(current) = current.as_mut().filter(|c| c.since.elapsed() < shared && c.events < MOST) {
            current.events += 1;
            return Ok(current.lease);
        }
        let lease = self.store.lease(self.ttl + shared).await.map_err(|e| storage_error(&e))?;
        *current = Some(Current { lease, since: Instant::now(), events: 1 });
        Ok(lease)
    }
}
