//! API Priority and Fairness (KEP-1040): which requests run, which wait, and which are refused when there are more
//! than the server has seats for.
//!
//! [`config`] says to which level a request belongs, [`estimate`] how many seats it takes, [`queueset`] whether it may
//! run, and [`keeper`] keeps all of it what the FlowSchemas and PriorityLevelConfigurations say. A request that need
//! not wait costs two short locks of its level and spawns nothing.

pub mod allocation;
pub mod config;
pub mod demand;
mod dump;
pub mod estimate;
mod keeper;
mod level;
mod metrics;
mod queue;
pub mod queueset;
mod retry;
pub mod seats;
mod shard;
mod watchers;

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::{HeaderValue, StatusCode};
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

pub use dump::serve as dump;
pub use keeper::run;
pub use level::Schema;
use level::{Details, Level, Set, Table, Tag};
use metrics::FlowMetrics;
use queueset::{Left, Mode, Refusal, Start};
use seats::Estimate;
pub use watchers::{Watchers, Watching};

use crate::body::Response;
use crate::request::RequestInfo;
use crate::response;
use crate::types::UserInfo;

/// The longest that a request waits for its turn: a quarter of the time that requests have.
const WAIT_LIMIT: Duration = Duration::from_secs(15);

const SCHEMA_HEADER: &str = "x-kubernetes-pf-flowschema-uid";
const LEVEL_HEADER: &str = "x-kubernetes-pf-prioritylevel-uid";

/// The server's seats and who may take them.
pub struct Fairness {
    table: ArcSwap<Table>,
    /// Seats of all limited levels together.
    seats: u64,
    start: Instant,
    /// Secret, so that nobody can choose names whose flows share queues with another's.
    hasher: RandomState,
    pub watchers: Watchers,
    metrics: FlowMetrics,
    /// Somebody waits for seats that are kept for a while.
    lingering: Notify,
}

/// A request's seats, given back when dropped.
pub struct Ticket {
    fairness: Arc<Fairness>,
    schema: Arc<Schema>,
    /// In the level's set; none once it has given up.
    key: Option<usize>,
    /// How many it has, which is known here so that few of a list's frames take the set's lock.
    seats: u32,
}

/// A request that is not served.
pub struct Refused {
    schema: Arc<Schema>,
}

impl Fairness {
    pub fn new(metrics: &keelson_daemon::Metrics, seats: usize) -> Arc<Self> {
        let fairness = Arc::new(Self {
            table: ArcSwap::default(),
            seats: seats as u64,
            start: Instant::now(),
            hasher: RandomState::new(),
            watchers: Watchers::default(),
            metrics: FlowMetrics::new(metrics),
            lingering: Notify::new(),
        });
        metrics::collect(metrics, &fairness);
        // Until the objects are read, what always exists serves.
        fairness.digest(&[], &[]);
        fairness
    }

    /// Waits until a request may run. `work` estimates what it takes of its schema's level.
    pub async fn enter(
        self: &Arc<Self>,
        info: &RequestInfo,
        user: &UserInfo,
        work: impl FnOnce(&Schema) -> Estimate,
    ) -> Result<Ticket, Refused> {
        let schema = self.table.load().classify(info, user);
        let level = &schema.level;
        let estimate = work(&schema);
        schema.stats.width.observe(f64::from(estimate.width()));
        let mut receiver = None;
        let waker = || {
            let (sender, waiting) = oneshot::channel();
            receiver = Some(waiting);
            sender
        };
        let now = self.now();
        let start = self.with(level, |set| {
            let many = matches!(set.mode(), Mode::Queue(queuing) if queuing.queues > 1);
            let method = schema.spec.distinguisher_method.filter(|_| many);
            let flow = method.map(|method| method.kind.of(info, user));
            let hash = if many { self.hasher.hash_one((&*schema.name, flow)) } else { 0 };
            let tag = Tag { schema: schema.clone(), flow: flow.map(Into::into), details: None };
            let start = set.start(now, hash, estimate, tag, waker);
            if let Start::Queued(key) = start {
                set.tag_mut(key).details = Some(Box::new(Details::of(info, user)));
                if set.next_release().is_some() {
                    self.lingering.notify_one();
                }
            }
            start
        });
        let ticket =
            |schema, key| Ticket { fairness: self.clone(), schema, key: Some(key), seats: estimate.seats };
        match (start, receiver) {
            (Start::Refused(refusal), _) => Err(self.refuse(schema, refusal, now)),
            (Start::Queued(key), Some(receiver)) => {
                let ticket = ticket(schema, key);
                self.wait(ticket, receiver, now).await
            }
            (Start::Executing(key) | Start::Queued(key), _) => {
                schema.began(Duration::ZERO);
                Ok(ticket(schema, key))
            }
        }
    }

    async fn wait(
        self: &Arc<Self>,
        mut ticket: Ticket,
        receiver: oneshot::Receiver<()>,
        since: Duration,
    ) -> Result<Ticket, Refused> {
        let told = tokio::time::timeout(WAIT_LIMIT, receiver).await.is_ok();
        // Its turn may have come just when it gave up.
        let executes = |key| ticket.schema.level.set.lock().is_executing(key);
        if told || ticket.key.is_some_and(executes) {
            ticket.schema.began(self.now() - since);
            return Ok(ticket);
        }
        ticket.leave(Refusal::TimeOut);
        Err(self.refuse(ticket.schema.clone(), Refusal::TimeOut, since))
    }

    fn refuse(&self, schema: Arc<Schema>, refusal: Refusal, since: Duration) -> Refused {
        self.metrics.rejected(&schema, refusal);
        let now = self.now();
        schema.stats.waited_in_vain.observe((now - since).as_secs_f64());
        schema.level.retry.lock().dropped(now.as_secs());
        Refused { schema }
    }

    /// Since the server's start: the time of all queues.
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Changes a level's queues, then tells those whose turn that has made it.
    fn with<T>(&self, level: &Level, change: impl FnOnce(&mut Set) -> T) -> T {
        let mut set = level.set.lock();
        let outcome = change(&mut set);
        let woken = set.take_woken();
        drop(set);
        for waiting in woken {
            // It may have given up just now, and then gives its seats back itself.
            let _ = waiting.send(());
        }
        outcome
    }

    fn leave(&self, schema: &Schema, key: usize, refusal: Refusal) {
        let left = self.with(&schema.level, |set| set.leave(self.now(), key, refusal));
        if let Left::Executed(took) = left {
            schema.stats.executed.observe(took.as_secs_f64());
        }
    }
}

impl Ticket {
    /// Gives back the seats beyond these.
    pub fn narrow(&mut self, seats: u32) {
        if let Some(key) = self.key.filter(|_| seats < self.seats) {
            self.seats = seats;
            self.fairness.with(&self.schema.level, |set| set.narrow(self.fairness.now(), key, seats));
        }
    }

    /// What it is served by, to [mark](Schema::mark) the response with.
    pub fn schema(&self) -> Arc<Schema> {
        self.schema.clone()
    }

    fn leave(&mut self, refusal: Refusal) {
        if let Some(key) = self.key.take() {
            self.fairness.leave(&self.schema, key, refusal);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.leave(Refusal::Cancelled);
    }
}

impl Refused {
    /// 429, as upstream answers it: text, with the seconds to wait.
    pub fn respond(&self) -> Response {
        let text = "Too many requests, please try again later.\n";
        let mut answer = response::text(StatusCode::TOO_MANY_REQUESTS, "text/plain; charset=utf-8", text);
        let headers = answer.headers_mut();
        headers.insert(http::header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        let seconds = self.schema.level.retry.lock().seconds();
        headers.insert(http::header::RETRY_AFTER, HeaderValue::from(seconds));
        self.schema.mark(&mut answer);
        answer
    }
}
