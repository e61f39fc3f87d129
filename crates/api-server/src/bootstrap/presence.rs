//! Which API servers there are. Each has a key in the store that goes with its lease; their addresses are the
//! endpoints of the `kubernetes` Service. Who ends takes its key away, who dies loses it within [`TTL`].

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use keelson_api_types::StatusError;
use keelson_store::{LeaseId, RangeOptions, Store, Write};
use tokio_util::sync::CancellationToken;

use super::objects::kubernetes_endpoints;
use super::{hold, touches};
use crate::cache::storage_error;
use crate::types::Objects;
use crate::verbs::write::write_error;

/// Where upstream's servers have theirs.
const PREFIX: &str = "/registry/masterleases/";
/// Upstream's.
const TTL: Duration = Duration::from_secs(15);
const RENEW: Duration = Duration::from_secs(5);
const FAREWELL: Duration = Duration::from_secs(5);

pub struct Presence {
    objects: Arc<dyn Objects>,
    store: Arc<dyn Store>,
    own: SocketAddr,
    lease: parking_lot::Mutex<Option<LeaseId>>,
}

impl Presence {
    /// `own` is where the cluster reaches this server.
    pub fn new(objects: Arc<dyn Objects>, store: Arc<dyn Store>, own: SocketAddr) -> Self {
        Self { objects, store, own, lease: Default::default() }
    }

    /// Renews this server's key, or writes it, and makes the endpoints what the keys say.
    pub async fn announce(&self) -> Result<(), StatusError> {
        let held = *self.lease.lock();
        let alive = match held {
            Some(lease) => self.store.renew(lease).await.is_ok(),
            None => false,
        };
        if !alive {
            let lease = self.store.lease(TTL).await.map_err(|e| storage_error(&e))?;
            let key = Write::put(format!("{PREFIX}{}", self.own.ip()), "{}").with_lease(lease);
            self.store.write(key).await.map_err(|e| write_error(&e))?;
            *self.lease.lock() = Some(lease);
        }
        self.reconcile().await
    }

    /// Follows the other servers' keys, and whoever changes the endpoints, until `ended`.
    pub async fn run(&self, ended: CancellationToken) {
        let mut changes = kubernetes_endpoints(&[], 0).map(|w| (self.objects.subscribe(&w.gvr), w));
        let mut renewal = tokio::time::interval(RENEW);
        loop {
            let since = self.store.revision().await.unwrap_or_default();
            let mut keys = match self.store.watch(PREFIX, since).await {
                Ok(keys) => keys,
                Err(_) => futures::stream::empty().boxed(),
            };
            loop {
                let [(endpoints, first), (slices, second)] = &mut changes;
                let outcome = tokio::select! {
                    () = ended.cancelled() => return,
                    _ = renewal.tick() => self.announce().await,
                    change = endpoints.recv() => match change {
                        Some(change) if touches(&change, first) => self.reconcile().await,
                        Some(_) => continue,
                        None => return,
                    },
                    change = slices.recv() => match change {
                        Some(change) if touches(&change, second) => self.reconcile().await,
                        Some(_) => continue,
                        None => return,
                    },
                    item = keys.next() => match item {
                        Some(Ok(_)) => self.reconcile().await,
                        _ => break,
                    },
                };
                if let Err(error) = outcome {
                    tracing::warn!(
                        error = error.message(),
                        "cannot keep up the kubernetes Service's endpoints"
                    );
                }
            }
            // A watch that broke starts over with the next renewal.
            tokio::select! {
                () = ended.cancelled() => return,
                _ = renewal.tick() => {}
            }
        }
    }

    /// Takes this server from the endpoints. The last one stays: nobody could answer in its place.
    pub async fn withdraw(&self) {
        let leave = async {
            let others = self.addresses().await?.iter().any(|ip| *ip != self.own.ip());
            let Some(lease) = self.lease.lock().take().filter(|_| others) else { return Ok(()) };
            self.store.revoke(lease).await.map_err(|e| storage_error(&e))?;
            self.reconcile().await
        };
        if !matches!(tokio::time::timeout(FAREWELL, leave).await, Ok(Ok(()))) {
            tracing::warn!("could not leave the kubernetes Service's endpoints; the others see it in time");
        }
    }

    async fn addresses(&self) -> Result<Vec<IpAddr>, StatusError> {
        let found = self.store.range(PREFIX, RangeOptions::default()).await.map_err(|e| storage_error(&e))?;
        let ip = |key: &str| key.strip_prefix(PREFIX)?.parse().ok();
        Ok(found.kvs.iter().filter_map(|kv| ip(&kv.key)).collect())
    }

    async fn reconcile(&self) -> Result<(), StatusError> {
        let mut addresses = self.addresses().await?;
        addresses.sort_unstable();
        if addresses.is_empty() {
            return Ok(());
        }
        for wanted in kubernetes_endpoints(&addresses, self.own.port()) {
            hold(self.objects.as_ref(), &wanted).await?;
        }
        Ok(())
    }
}
