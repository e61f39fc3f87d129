//! From changed Services to changed rules.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use keelson_client::{Backoff, Informer, Key};
use keelson_host::conntrack::{Conntrack, Flows};
use keelson_host::nft::Nft;
use keelson_net_plan::planner::StaleFlow;
use keelson_net_plan::{Planner, ServiceName};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;
use tokio::sync::Notify;

use crate::BY_SERVICE;
use crate::views::{ServiceView, SliceView, plan_input};

/// Services that changed since they were last looked at.
#[derive(Default)]
pub struct Dirty {
    names: Mutex<BTreeSet<ServiceName>>,
    added: Notify,
}

impl Dirty {
    pub fn add(&self, name: ServiceName) {
        self.names.lock().unwrap_or_else(PoisonError::into_inner).insert(name);
        self.added.notify_one();
    }

    /// Waits for at least one. Changes that arrive while a transaction is under way are taken together by the next.
    pub async fn take(&self) -> BTreeSet<ServiceName> {
        loop {
            let names = std::mem::take(&mut *self.names.lock().unwrap_or_else(PoisonError::into_inner));
            if !names.is_empty() {
                return names;
            }
            self.added.notified().await;
        }
    }
}

#[derive(Clone)]
pub struct Metrics {
    seconds: Histogram,
    failures: Counter,
}

impl Metrics {
    pub fn new(metrics: &keelson_daemon::Metrics) -> Self {
        let seconds = Histogram::new((0..14).map(|i| 0.001 * f64::from(1 << i)));
        let new = Self { seconds, failures: Counter::default() };
        metrics.register(|registry| {
            let help = "Seconds from the first change to the changed rules";
            registry.register("kubeproxy_sync_proxy_rules_duration_seconds", help, new.seconds.clone());
            let help = "Scripts that the kernel refused";
            registry.register(
                "kubeproxy_sync_proxy_rules_nftables_sync_failures",
                help,
                new.failures.clone(),
            );
        });
        new
    }
}

pub struct Sync<N, C> {
    planner: Planner,
    node: String,
    nft: Arc<N>,
    conntrack: Arc<C>,
    /// What the planner has is what the kernel has. Otherwise the next script is the whole table.
    programmed: Arc<AtomicBool>,
    metrics: Metrics,
}

impl<N: Nft, C: Conntrack> Sync<N, C> {
    pub fn new(planner: Planner, node: String, nft: N, conntrack: C, metrics: Metrics) -> Self {
        let (nft, conntrack) = (Arc::new(nft), Arc::new(conntrack));
        Self { planner, node, nft, conntrack, programmed: Arc::default(), metrics }
    }

    pub fn programmed(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.programmed)
    }

    /// Brings the rules of these Services up to date; returns when the kernel has them.
    pub async fn change(
        &mut self,
        names: BTreeSet<ServiceName>,
        services: &Informer<ServiceView>,
        slices: &Informer<SliceView>,
    ) {
        let began = Instant::now();
        let mut script = String::new();
        let mut stale = BTreeSet::new();
        for name in names {
            let view = services.get(&Key::new(&name.namespace, &name.name));
            let slices = slices.by_index(BY_SERVICE, &name.to_string());
            let input = view.and_then(|v| plan_input(&v, slices.iter().map(AsRef::as_ref), &self.node));
            let change = self.planner.set(&name, input);
            script.push_str(&change.script);
            stale.extend(change.stale_flows);
        }
        self.apply(script).await;
        self.forget(stale).await;
        self.metrics.seconds.observe(began.elapsed().as_secs_f64());
    }

    /// Takes away what changes left before the last call.
    pub async fn sweep(&mut self) {
        let script = self.planner.sweep();
        self.apply(script).await;
    }

    /// Whether there is anything to sweep.
    pub fn has_leftovers(&self) -> bool {
        self.planner.has_leftovers()
    }

    /// Goes on until it is done: the smallest change first, and the whole table where the kernel does not take that
    /// (somebody else changed it) or nothing is there yet.
    async fn apply(&mut self, script: String) {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(30));
        let mut script = if self.programmed.load(Ordering::Relaxed) { script } else { self.planner.whole() };
        while !script.is_empty() {
            let nft = Arc::clone(&self.nft);
            let sent = script.clone();
            match tokio::task::spawn_blocking(move || nft.apply(&sent)).await {
                Ok(Ok(())) => break,
                Ok(Err(error)) => tracing::warn!("{}", chain(&error)),
                Err(error) => tracing::error!("apply rules: {error}"),
            }
            self.programmed.store(false, Ordering::Relaxed);
            self.metrics.failures.inc();
            script = self.planner.whole();
            tokio::time::sleep(backoff.pause()).await;
        }
        self.programmed.store(true, Ordering::Relaxed);
    }

    async fn forget(&self, stale: BTreeSet<StaleFlow>) {
        for StaleFlow { address, port, backend } in stale {
            let conntrack = Arc::clone(&self.conntrack);
            let forget = move || conntrack.forget_udp(&Flows { address, port, backend });
            if let Ok(Err(error)) = tokio::task::spawn_blocking(forget).await {
                tracing::warn!("{}", chain(&error));
            }
        }
    }
}

/// An error with all its sources in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
