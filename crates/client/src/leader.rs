//! Leader election over a Lease, with fencing: who lost the lease has stopped before another starts.

use crate::informer::chain;
use crate::{Backoff, rest};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use parking_lot::Mutex;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// A candidate for one lease. The times are upstream's; a holder renews less often than a candidate looks,
/// because each renewal is a write to disk.
#[derive(Clone, Debug)]
pub struct LeaderElector {
    pub namespace: String,
    pub name: String,
    /// Who this is. A process that starts with the identity of the present holder takes over at once, so
    /// it has to be one of a kind: the node's name, where a node has one such daemon.
    pub identity: String,
    /// How long others leave a lease alone that is not renewed.
    pub lease_duration: Duration,
    /// How long after its last renewal a holder stops; shorter than the lease.
    pub renew_deadline: Duration,
    /// How often a holder renews.
    pub renew_period: Duration,
    /// How often a candidate looks, and a holder whose renewal failed tries again.
    pub retry_period: Duration,
}

/// How a leader's time ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The work ended by itself or by shutdown; the lease was given back.
    Finished,
    /// The lease could not be renewed or was taken: the work was dropped.
    Lost,
    /// Shutdown came before leadership.
    NeverLed,
}

/// What a leader's work gets, to see whether it still leads.
#[derive(Clone)]
pub struct Leader {
    held: Arc<Mutex<Instant>>,
    /// Cancelled by shutdown: the work should end.
    pub shutdown: CancellationToken,
}

impl Leader {
    /// Whether the lease is still good by the clock. The work is dropped when it is not, but a process that
    /// was stopped for a while (a virtual machine's pause) may run on before it sees that: look here
    /// before what must not be done twice.
    pub fn is_leading(&self) -> bool {
        Instant::now() < *self.held.lock()
    }
}

/// A lease of another, and since when by our own clock it has not changed.
struct Observed {
    lease: LeaseSpec,
    since: Instant,
}

impl LeaderElector {
    /// With upstream's times: 15 s lease, 10 s deadline, 2 s retry.
    pub fn new(
        namespace: impl Into<String>,
        name: impl Into<String>,
        identity: impl Into<String>,
    ) -> LeaderElector {
        LeaderElector {
            namespace: namespace.into(),
            name: name.into(),
            identity: identity.into(),
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            renew_period: Duration::from_secs(4),
            retry_period: Duration::from_secs(2),
        }
    }

    /// Waits for the lease, then runs the work for as long as it is held. The work is dropped, wherever it
    /// waits, when the lease was not renewed within the deadline, which is before others may take it.
    pub async fn run<F, Fut>(&self, client: &kube::Client, shutdown: CancellationToken, work: F) -> Outcome
    where
        F: FnOnce(Leader) -> Fut,
        Fut: Future<Output = ()>,
    {
        let acquired = tokio::select! {
            acquired = self.acquire(client) => acquired,
            () = shutdown.cancelled() => return Outcome::NeverLed,
        };
        tracing::info!(lease = self.name, identity = self.identity, "leads");
        let held = Arc::new(Mutex::new(acquired + self.renew_deadline));
        let leader = Leader { held: held.clone(), shutdown };
        // The deadline is polled first: work that is never idle cannot run past it.
        let outcome = tokio::select! {
            biased;
            () = self.keep(client, &held) => Outcome::Lost,
            () = work(leader) => Outcome::Finished,
        };
        match outcome {
            Outcome::Lost => tracing::error!(lease = self.name, "lost the lease: stopped"),
            _ => self.release(client).await,
        }
        outcome
    }

    /// Returns the time just before the request that got the lease.
    async fn acquire(&self, client: &kube::Client) -> Instant {
        let mut observed = None;
        let mut backoff =
            Backoff::new(self.retry_period.min(Duration::from_millis(500)), self.retry_period * 2);
        loop {
            let started = Instant::now();
            match self.try_acquire(client, &mut observed).await {
                Ok(true) => return started,
                Ok(false) => {
                    backoff.reset();
                    tokio::time::sleep(self.retry_period).await;
                }
                Err(error) => {
                    tracing::warn!(lease = self.name, "could not try for the lease: {}", chain(&error));
                    tokio::time::sleep(backoff.pause()).await;
                }
            }
        }
    }

    /// Renews until that fails for too long or another holds the lease.
    async fn keep(&self, client: &kube::Client, held: &Mutex<Instant>) {
        let mut pause = self.renew_period;
        loop {
            let deadline = *held.lock();
            let attempt = async {
                tokio::time::sleep(pause).await;
                let started = Instant::now();
                (started, self.try_acquire(client, &mut None).await)
            };
            match tokio::time::timeout_at(deadline, attempt).await {
                Ok((started, Ok(true))) => {
                    *held.lock() = started + self.renew_deadline;
                    pause = self.renew_period;
                }
                Ok((_, Ok(false))) => return,
                Ok((_, Err(error))) => {
                    tracing::warn!(lease = self.name, "could not renew the lease: {}", chain(&error));
                    pause = self.retry_period;
                }
                Err(_late) => return,
            }
        }
    }

    /// Makes, takes over or renews the lease. False when another holds it, or was faster.
    async fn try_acquire(
        &self,
        client: &kube::Client,
        observed: &mut Option<Observed>,
    ) -> Result<bool, kube::Error> {
        let found = match rest::get::<Lease>(client, &self.path(true)).await {
            Ok(lease) => lease,
            Err(error) if rest::code(&error) == Some(404) => {
                let lease = self.next(&Lease::default());
                return won(rest::create::<Lease>(client, &self.path(false), &lease).await);
            }
            Err(error) => return Err(error),
        };
        let spec = found.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        if !holder.is_empty() && holder != self.identity && !self.is_over(&spec, observed) {
            return Ok(false);
        }
        won(rest::replace::<Lease>(client, &self.path(true), &self.next(&found)).await)
    }

    /// Whether another's lease has not been renewed for its whole duration, by our own clock: the times in
    /// the lease are of the other's clock.
    fn is_over(&self, spec: &LeaseSpec, observed: &mut Option<Observed>) -> bool {
        let seen = observed.take().filter(|o| o.lease == *spec);
        let seen =
            observed.insert(seen.unwrap_or_else(|| Observed { lease: spec.clone(), since: Instant::now() }));
        let seconds = spec.lease_duration_seconds.and_then(|s| u64::try_from(s).ok()).filter(|s| *s > 0);
        let duration = seconds.map_or(self.lease_duration, Duration::from_secs);
        seen.since.elapsed() >= duration
    }

    /// The lease as it is when this candidate holds it from now on.
    fn next(&self, found: &Lease) -> Lease {
        let old = found.spec.clone().unwrap_or_default();
        let now = MicroTime(jiff::Timestamp::now());
        let mine = old.holder_identity.as_deref() == Some(&self.identity);
        let transitions = old.lease_transitions.unwrap_or(0) + i32::from(!mine && found.spec.is_some());
        Lease {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                namespace: Some(self.namespace.clone()),
                ..found.metadata.clone()
            },
            spec: Some(LeaseSpec {
                acquire_time: if mine { old.acquire_time.clone() } else { Some(now.clone()) },
                holder_identity: Some(self.identity.clone()),
                lease_duration_seconds: i32::try_from(self.lease_duration.as_secs()).ok(),
                lease_transitions: Some(transitions),
                renew_time: Some(now),
                ..old
            }),
        }
    }

    /// Lets the next candidate in at once.
    async fn release(&self, client: &kube::Client) {
        let give_back = async {
            let mut lease = rest::get::<Lease>(client, &self.path(true)).await?;
            let Some(spec) = &mut lease.spec else { return Ok(()) };
            if spec.holder_identity.as_deref() == Some(&self.identity) {
                spec.holder_identity = Some(String::new());
                spec.lease_duration_seconds = Some(1);
                rest::replace::<Lease>(client, &self.path(true), &lease).await?;
            }
            Ok::<_, kube::Error>(())
        };
        match tokio::time::timeout(self.retry_period, give_back).await {
            Ok(Ok(())) => tracing::info!(lease = self.name, "gave the lease back"),
            Ok(Err(error)) => {
                tracing::warn!(lease = self.name, "could not give the lease back: {}", chain(&error))
            }
            Err(_late) => tracing::warn!(lease = self.name, "could not give the lease back in time"),
        }
    }

    fn path(&self, named: bool) -> String {
        rest::path::<crate::Whole<Lease>>(&self.namespace, named.then_some(&*self.name), None)
    }
}

/// Whether a write was the first: 409 says that another's came before.
fn won(result: Result<Lease, kube::Error>) -> Result<bool, kube::Error> {
    match result {
        Ok(_) => Ok(true),
        Err(error) if rest::code(&error) == Some(409) => Ok(false),
        Err(error) => Err(error),
    }
}
