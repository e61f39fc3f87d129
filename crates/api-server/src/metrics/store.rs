//! The store with a clock: how long its answers take, under the names that upstream has for etcd.

use std::sync::Arc;
use std::time::Instant;

use futures::FutureExt;
use futures::future::BoxFuture;
use keelson_daemon::Metrics;
use keelson_store::{Expect, Got, RangeOptions, Ranged, Result, Store, Write, WriteError, Written};
use keelson_traces::Span;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;

use super::DURATIONS;
use crate::cache::PREFIX;
use crate::spans;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    operation: &'static str,
    group: String,
    resource: String,
}

pub struct Metered {
    store: Arc<dyn Store>,
    duration: Family<Labels, Histogram, fn() -> Histogram>,
}

impl Metered {
    pub fn new(store: Arc<dyn Store>, metrics: &Metrics) -> Arc<Self> {
        let duration: Family<Labels, Histogram, fn() -> Histogram> =
            Family::new_with_constructor(|| Histogram::new(DURATIONS));
        let help = "Time that requests of the store took";
        metrics.register(|all| all.register("etcd_request_duration_seconds", help, duration.clone()));
        Arc::new(Self { store, duration })
    }

    fn note(&self, operation: &'static str, key: &str, since: Instant) {
        let mut parts = key.strip_prefix(PREFIX).unwrap_or_default().split('/');
        let first = parts.next().unwrap_or_default();
        // Custom resources lie below their group, which has a dot.
        let (group, resource) = match first.contains('.') {
            true => (first, parts.next().unwrap_or_default()),
            false => ("", first),
        };
        let labels = Labels { operation, group: group.into(), resource: resource.into() };
        self.duration.get_or_create(&labels).observe(since.elapsed().as_secs_f64());
    }
}

/// The span of one request of the store, within that of a request of the server.
fn begin(name: &str, key: &str) -> Option<Span> {
    let mut span = spans::child(name)?;
    span.set("key", key);
    Some(span)
}

impl Store for Metered {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Got>> {
        async move {
            let since = Instant::now();
            let _span = begin("Get store", key);
            let got = self.store.get(key).await;
            self.note("get", key, since);
            got
        }
        .boxed()
    }

    fn range<'a>(&'a self, prefix: &'a str, options: RangeOptions) -> BoxFuture<'a, Result<Ranged>> {
        async move {
            let since = Instant::now();
            let _span = begin("List store", prefix);
            let ranged = self.store.range(prefix, options).await;
            self.note("list", prefix, since);
            ranged
        }
        .boxed()
    }

    fn write(&self, write: Write) -> BoxFuture<'_, Result<Written, WriteError>> {
        async move {
            let since = Instant::now();
            let (operation, name) = match (&write.value, write.expect) {
                (None, _) => ("delete", "Delete store"),
                (Some(_), Expect::Absent) => ("create", "Create store"),
                (Some(_), _) => ("update", "Update store"),
            };
            let key = write.key.clone();
            let _span = begin(name, &key);
            let written = self.store.write(write).await;
            self.note(operation, &key, since);
            written
        }
        .boxed()
    }

    keelson_store::delegate!(store: watch, revision, request_progress, compact, advance, lease, renew, revoke);
}
