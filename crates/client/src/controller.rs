//! Workers that reconcile the keys of a queue.

use crate::WorkQueue;
use crate::informer::chain;
use futures::FutureExt;
use std::fmt::Display;
use std::future::Future;
use std::hash::Hash;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Runs `workers` tasks that call `reconcile` for each key of `queue`, until `shutdown`. A key whose
/// reconcile failed comes back after a growing pause; one that panicked too, and only that call is lost.
///
/// At shutdown a running reconcile is dropped at its next `.await`: reconcilers act on the state
/// that they read, so what was cut short is done by the next start.
pub async fn run<K, F, Fut, E>(
    name: &'static str,
    queue: WorkQueue<K>,
    workers: usize,
    reconcile: F,
    shutdown: CancellationToken,
) where
    K: Clone + Eq + Hash + Display + Send + Sync + 'static,
    F: Fn(K) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), E>> + Send + 'static,
    E: Into<BoxError> + Send + 'static,
{
    let reconcile = Arc::new(reconcile);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..workers {
        let (queue, reconcile) = (queue.clone(), reconcile.clone());
        tasks.spawn(async move {
            loop {
                let key = queue.get().await;
                work(name, &queue, &key, &*reconcile).await;
            }
        });
    }
    tracing::debug!(controller = name, workers, "runs");
    shutdown.cancelled().await;
    tasks.shutdown().await;
    tracing::debug!(controller = name, "stopped");
}

async fn work<K, F, Fut, E>(name: &str, queue: &WorkQueue<K>, key: &K, reconcile: &F)
where
    K: Clone + Eq + Hash + Display,
    F: Fn(K) -> Fut,
    Fut: Future<Output = Result<(), E>>,
    E: Into<BoxError>,
{
    let call = async { reconcile(key.clone()).await.map_err(Into::into) };
    match AssertUnwindSafe(call).catch_unwind().await {
        Ok(Ok(())) => queue.forget(key),
        Ok(Err(error)) => {
            let (error, failures) = (chain(&*error), queue.failures(key) + 1);
            // The first failure is mostly a conflict with another writer, and cured by the retry.
            if failures > 1 {
                tracing::warn!(controller = name, %key, failures, "reconcile failed: {error}");
            } else {
                tracing::debug!(controller = name, %key, "reconcile failed: {error}");
            }
            queue.add_rate_limited(key.clone());
        }
        Err(_panic) => {
            tracing::error!(controller = name, %key, "reconcile panicked");
            queue.add_rate_limited(key.clone());
        }
    }
    queue.done(key);
}
