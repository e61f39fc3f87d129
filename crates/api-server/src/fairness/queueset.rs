//! Fair queuing of the requests of one priority level, in virtual time (KEP-1040). Pure: time is an argument.
//!
//! Each queue carries the virtual time at which its next request may start. A dispatch takes the request that
//! would finish first in virtual time, so that queues get equal shares of the level's seats whatever they ask for.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use slab::Slab;

use super::demand::{Demand, DemandSeen};
use super::queue::{Queue, QueueView, Request};
use super::seats::{Estimate, GUESS, Work, work};
use super::shard::deal;

/// What happens to requests that do not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// All fit.
    Exempt,
    Reject,
    Queue(Queuing),
}

/// Of a `PriorityLevelConfiguration`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queuing {
    pub queues: usize,
    /// Requests that may wait in one queue.
    pub length: usize,
    /// Queues that a flow may use.
    pub hand: usize,
}

/// Why a request was not served; upstream's label values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    ConcurrencyLimit,
    QueueFull,
    TimeOut,
    Cancelled,
}

impl Refusal {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ConcurrencyLimit => "concurrency-limit",
            Self::QueueFull => "queue-full",
            Self::TimeOut => "time-out",
            Self::Cancelled => "cancelled",
        }
    }
}

/// How a request begins; the number names it until it leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    Executing(usize),
    /// To be told when it may execute.
    Queued(usize),
    Refused(Refusal),
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    Executed(Duration),
    /// It had waited in vain.
    Waiting,
}

/// Seats that are kept by a request that has ended.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Lingering {
    until: Duration,
    queue: Option<usize>,
    seats: u32,
}

/// Totals since the start.
#[derive(Debug, Default, Clone, Copy)]
pub struct Totals {
    pub dispatched: u64,
    pub rejected: u64,
    pub timed_out: u64,
    pub cancelled: u64,
}

/// The requests of one level. `W` tells a waiting request that it may execute.
#[derive(Debug)]
pub struct QueueSet<T, W> {
    mode: Mode,
    /// Seats that may be occupied; not for [`Mode::Exempt`].
    limit: u64,
    queues: Vec<Queue>,
    requests: Slab<Request<T, W>>,
    lingering: BinaryHeap<Reverse<Lingering>>,
    woken: Vec<W>,
    r: Work,
    synced: Duration,
    /// The queue dispatched from last.
    robin: usize,
    enqueued: usize,
    /// Queues with requests, waiting or executing.
    active: u32,
    waiting: usize,
    waiting_seats: u64,
    executing: usize,
    seats: u64,
    demand: Demand,
    pub totals: Totals,
}

impl<T, W> QueueSet<T, W> {
    pub fn new(now: Duration, mode: Mode, limit: u64) -> Self {
        let mut set = Self {
            mode,
            limit,
            queues: Vec::new(),
            requests: Slab::new(),
            lingering: BinaryHeap::new(),
            woken: Vec::new(),
            r: 0,
            synced: now,
            robin: 0,
            enqueued: 0,
            active: 0,
            waiting: 0,
            waiting_seats: 0,
            executing: 0,
            seats: 0,
            demand: Demand::default(),
            totals: Totals::default(),
        };
        set.configure(now, mode, limit);
        set
    }

    /// Takes another configuration; queues that are too many go once they are empty.
    pub fn configure(&mut self, now: Duration, mode: Mode, limit: u64) {
        self.sync(now);
        (self.mode, self.limit) = (mode, limit);
        if let Mode::Queue(queuing) = mode
            && self.queues.len() < queuing.queues
        {
            self.queues.resize_with(queuing.queues, Queue::new);
        }
        self.trim();
        self.dispatch();
    }

    pub fn mode(&self) -> Mode {
        self.mode
    }

    pub fn limit(&self) -> u64 {
        self.limit
    }

    pub fn is_idle(&self) -> bool {
        self.waiting == 0 && self.executing == 0
    }

    pub fn waiting(&self) -> usize {
        self.waiting
    }

    pub fn executing(&self) -> usize {
        self.executing
    }

    pub fn seats(&self) -> u64 {
        self.seats
    }

    pub fn active_queues(&self) -> u32 {
        self.active
    }

    pub fn is_executing(&self, key: usize) -> bool {
        self.requests.get(key).is_some_and(|r| r.started.is_some())
    }

    pub fn tag_mut(&mut self, key: usize) -> &mut T {
        &mut self.requests[key].tag
    }

    pub fn request(&self, key: usize) -> Option<&Request<T, W>> {
        self.requests.get(key)
    }

    pub fn requests(&self) -> impl Iterator<Item = (usize, &Request<T, W>)> {
        self.requests.iter()
    }

    pub fn queues(&self) -> impl Iterator<Item = QueueView<'_>> {
        self.queues.iter().map(Queue::view)
    }

    /// Virtual time in seat-seconds per queue.
    pub fn current_r(&self) -> f64 {
        self.r as f64 / 1e9
    }

    /// When somebody has to call [`Self::sync`] lest a waiting request wait too long.
    pub fn next_release(&self) -> Option<Duration> {
        let Reverse(next) = self.lingering.peek().filter(|_| self.waiting > 0)?;
        Some(next.until)
    }

    /// Those who may execute now; to be told outside of any lock.
    pub fn take_woken(&mut self) -> Vec<W> {
        std::mem::take(&mut self.woken)
    }

    /// Demand for seats since the last call.
    pub fn take_demand(&mut self, now: Duration) -> DemandSeen {
        self.sync(now);
        self.demand.take()
    }

    /// Begins a request of the flow with this hash; `waker` is asked only if it has to wait.
    pub fn start(
        &mut self,
        now: Duration,
        hash: u64,
        estimate: Estimate,
        tag: T,
        waker: impl FnOnce() -> W,
    ) -> Start {
        self.sync(now);
        let fits = self.fits(estimate.width());
        let arrived_r = self.r;
        let mut request = Request::new(tag, estimate, now, arrived_r);
        let Mode::Queue(queuing) = self.mode else {
            if !fits {
                self.totals.rejected += 1;
                return Start::Refused(Refusal::ConcurrencyLimit);
            }
            let key = self.requests.insert(request);
            self.execute(key);
            return Start::Executing(key);
        };
        let index = self.choose(hash, queuing);
        let queue = &mut self.queues[index];
        if self.seats >= self.limit && queue.waiting.len() >= queuing.length {
            self.totals.rejected += 1;
            return Start::Refused(Refusal::QueueFull);
        }
        if !queue.is_active() {
            queue.next_r = self.r;
            self.active += 1;
        }
        request.queue = Some(index);
        if self.waiting == 0 && fits && self.seats < self.limit {
            // Nobody waits, so that there is nothing to choose among.
            queue.next_r = queue.next_r.max(arrived_r);
            self.robin = index;
            let key = self.requests.insert(request);
            self.execute(key);
            return Start::Executing(key);
        }
        request.waker = Some(waker());
        queue.waiting_seats += u64::from(estimate.width());
        queue.waiting_work += estimate.work(GUESS);
        self.waiting_seats += u64::from(estimate.width());
        self.waiting += 1;
        let key = self.requests.insert(request);
        self.queues[index].waiting.push_back(key);
        self.bound(index);
        self.note_demand();
        self.dispatch();
        match self.requests[key].started {
            Some(_) => Start::Executing(key),
            None => Start::Queued(key),
        }
    }

    /// Takes from an executing request the seats that it needs no longer.
    pub fn narrow(&mut self, now: Duration, key: usize, seats: u32) {
        self.sync(now);
        let request = &mut self.requests[key];
        if request.started.is_none() || seats >= request.estimate.seats {
            return;
        }
        let width = request.estimate.width();
        let owed = request.owes(now);
        (request.used, request.since) = (request.used(now), now);
        request.paid += owed;
        request.estimate.seats = seats;
        let (queue, freed) = (request.queue, width - request.estimate.width());
        if let Some(index) = queue {
            self.queues[index].next_r += owed;
            self.bound(index);
        }
        self.release(queue, freed);
        self.dispatch();
    }

    /// Ends a request, whether it executes or still waits (`refusal` says why it no longer does).
    pub fn leave(&mut self, now: Duration, key: usize, refusal: Refusal) -> Left {
        self.sync(now);
        let Some(started) = self.requests[key].started else {
            self.unqueue(key);
            let request = self.requests.remove(key);
            request.queue.into_iter().for_each(|index| self.bound(index));
            self.totals.rejected += 1;
            match refusal {
                Refusal::TimeOut => self.totals.timed_out += 1,
                _ => self.totals.cancelled += 1,
            }
            self.note_demand();
            self.dispatch();
            return Left::Waiting;
        };
        let request = self.requests.remove(key);
        let (estimate, took) = (request.estimate, now.saturating_sub(started));
        self.executing -= 1;
        if let Some(index) = request.queue {
            let queue = &mut self.queues[index];
            queue.running.retain(|k| *k != key);
            // The guess is replaced by the truth.
            queue.next_r += request.used(now) - request.paid;
            queue.usual = (queue.usual * 3 + took) / 4;
            if !queue.is_active() {
                self.active -= 1;
            }
            self.bound(index);
        }
        let seats = estimate.width();
        if estimate.lingering.is_zero() {
            self.release(request.queue, seats);
        } else {
            let lingering = Lingering { until: now + estimate.lingering, queue: request.queue, seats };
            self.lingering.push(Reverse(lingering));
        }
        self.dispatch();
        Left::Executed(took)
    }

    /// Brings virtual time up to now, and gives back the seats whose time is over.
    pub fn sync(&mut self, now: Duration) {
        while self.lingering.peek().is_some_and(|Reverse(next)| next.until <= now)
            && let Some(Reverse(next)) = self.lingering.pop()
        {
            self.advance(next.until);
            self.release(next.queue, next.seats);
            self.dispatch();
        }
        self.advance(now);
    }

    fn advance(&mut self, now: Duration) {
        let Some(passed) = now.checked_sub(self.synced).filter(|d| !d.is_zero()) else { return };
        self.synced = now;
        self.demand.pass(passed);
        if self.active > 0 {
            let rate = (self.seats + self.waiting_seats).min(self.limit);
            self.r += passed.as_nanos() as Work * Work::from(rate) / Work::from(self.active);
        }
    }

    fn release(&mut self, queue: Option<usize>, seats: u32) {
        self.seats -= u64::from(seats);
        if let Some(index) = queue {
            self.queues[index].seats -= u64::from(seats);
            self.trim();
        }
        self.note_demand();
    }

    /// Lets go of empty queues beyond the wanted number: the last ones, which get no new requests.
    fn trim(&mut self) {
        let wanted = match self.mode {
            Mode::Queue(queuing) => queuing.queues,
            _ => 0,
        };
        while self.queues.len() > wanted
            && self.queues.last().is_some_and(|last| !last.is_active() && last.seats == 0)
        {
            self.queues.pop();
        }
        self.robin = self.robin.min(self.queues.len().saturating_sub(1));
    }

    fn note_demand(&mut self) {
        self.demand.set(self.seats + self.waiting_seats);
    }

    /// The queue of the flow's hand with the least work waiting. The start rotates, so that flows with
    /// overlapping hands share evenly.
    fn choose(&mut self, hash: u64, queuing: Queuing) -> usize {
        let (hand, size) = deal(hash, queuing.queues, queuing.hand);
        let offset = self.enqueued % size;
        self.enqueued = self.enqueued.wrapping_add(1);
        let in_turn = (0..size).map(|i| hand[(offset + i) % size]);
        in_turn.min_by_key(|i| self.queues[*i].waiting_work).unwrap_or_default()
    }

    fn fits(&self, seats: u32) -> bool {
        match self.mode {
            Mode::Exempt => true,
            // Wider than the level itself: it goes alone.
            _ if u64::from(seats) > self.limit => self.executing == 0,
            _ => self.seats + u64::from(seats) <= self.limit,
        }
    }

    fn dispatch(&mut self) {
        while self.waiting > 0 && self.seats < self.limit && self.dispatch_one() {}
    }

    /// Starts the request that would be the first to finish in virtual time; `false` if it does not fit yet.
    fn dispatch_one(&mut self) -> bool {
        let count = self.queues.len();
        let best = (1..=count)
            .map(|i| (self.robin + i) % count)
            .filter_map(|i| Some((i, *self.queues[i].waiting.front()?)))
            .min_by_key(|(i, key)| {
                self.next_r(*i) + self.requests[*key].estimate.work(self.queues[*i].usual)
            });
        let Some((index, key)) = best else { return false };
        if !self.fits(self.requests[key].estimate.width()) {
            return false;
        }
        self.robin = index;
        self.unqueue(key);
        self.active += u32::from(!self.queues[index].is_active());
        self.execute(key);
        self.bound(index);
        let waker = self.requests[key].waker.take();
        self.woken.extend(waker);
        true
    }

    /// Where in virtual time a queue's next request may start, seen from now: what executes may have used more than is paid
    /// for.
    fn next_r(&self, index: usize) -> Work {
        let queue = &self.queues[index];
        let owed = queue.running.iter().map(|key| self.requests[*key].owes(self.synced));
        queue.next_r + owed.sum::<Work>()
    }

    /// Takes a request out of its queue.
    fn unqueue(&mut self, key: usize) {
        let request = &self.requests[key];
        let (estimate, Some(index)) = (request.estimate, request.queue) else { return };
        let queue = &mut self.queues[index];
        queue.waiting.retain(|k| *k != key);
        queue.waiting_seats -= u64::from(estimate.width());
        queue.waiting_work -= estimate.work(GUESS);
        self.waiting_seats -= u64::from(estimate.width());
        self.waiting -= 1;
        if !queue.is_active() {
            self.active -= 1;
        }
    }

    fn execute(&mut self, key: usize) {
        let request = &mut self.requests[key];
        let estimate = &mut request.estimate;
        if self.mode != Mode::Exempt && u64::from(estimate.final_seats) > self.limit && self.limit > 0 {
            // The same work, by fewer seats for longer.
            let total = estimate.lingering * estimate.final_seats;
            estimate.final_seats = self.limit as u32;
            estimate.lingering = total / estimate.final_seats;
        }
        let estimate = *estimate;
        request.started = Some(self.synced);
        request.since = self.synced;
        self.executing += 1;
        self.totals.dispatched += 1;
        self.seats += u64::from(estimate.width());
        if let Some(index) = request.queue {
            let queue = &mut self.queues[index];
            queue.running.push(key);
            queue.seats += u64::from(estimate.width());
            queue.next_r += estimate.work(queue.usual);
            request.paid = work(estimate.seats, queue.usual);
        }
        self.note_demand();
    }

    /// A queue that could not use its share must not save it up: nothing starts before it arrived.
    fn bound(&mut self, index: usize) {
        let queue = &mut self.queues[index];
        if let Some(oldest) = queue.waiting.front() {
            queue.next_r = queue.next_r.max(self.requests[*oldest].arrived_r);
        }
    }
}

#[cfg(test)]
#[path = "queueset_tests.rs"]
mod tests;
