//! A request of a priority level, and a queue of them.

use std::collections::VecDeque;
use std::time::Duration;

use super::seats::{Estimate, GUESS, Work, work};

/// A request under way. `T` is whatever the caller wants to know of it.
#[derive(Debug)]
pub struct Request<T, W> {
    pub tag: T,
    pub estimate: Estimate,
    pub queue: Option<usize>,
    pub arrived: Duration,
    pub started: Option<Duration>,
    /// Since when it has as many seats as now, and what it used before.
    pub(super) since: Duration,
    pub(super) used: Work,
    /// How much of that its queue has paid.
    pub(super) paid: Work,
    pub(super) arrived_r: Work,
    pub(super) waker: Option<W>,
}

impl<T, W> Request<T, W> {
    pub(super) fn new(tag: T, estimate: Estimate, arrived: Duration, arrived_r: Work) -> Self {
        let (queue, started, waker) = (None, None, None);
        Self { tag, estimate, queue, arrived, started, since: arrived, used: 0, paid: 0, arrived_r, waker }
    }

    /// What it has used of seats by then.
    pub(super) fn used(&self, now: Duration) -> Work {
        self.used + work(self.estimate.seats, now.saturating_sub(self.since))
    }

    /// What that is beyond what is paid. A guess that was more is given back at the end.
    pub(super) fn owes(&self, now: Duration) -> Work {
        (self.used(now) - self.paid).max(0)
    }
}

#[derive(Debug)]
pub struct Queue {
    pub(super) waiting: VecDeque<usize>,
    /// Those that execute.
    pub(super) running: Vec<usize>,
    /// Of what executes and what lingers.
    pub seats: u64,
    pub(super) waiting_seats: u64,
    pub(super) waiting_work: Work,
    /// Where in virtual time the next request may start.
    pub(super) next_r: Work,
    /// How long its requests have lasted of late, which those that begin pay for in advance. Upstream guesses the same of
    /// all, and who asks for long ones gets many before any has paid.
    pub(super) usual: Duration,
}

/// What a queue shows to who debugs.
#[derive(Debug)]
pub struct QueueView<'a> {
    pub waiting: &'a VecDeque<usize>,
    pub executing: usize,
    pub seats: u64,
    pub waiting_seats: u64,
    /// Seat-seconds.
    pub waiting_work: f64,
    pub next_r: f64,
}

impl Queue {
    pub(super) fn new() -> Self {
        let (waiting, running) = Default::default();
        Self { waiting, running, seats: 0, waiting_seats: 0, waiting_work: 0, next_r: 0, usual: GUESS }
    }

    pub(super) fn view(&self) -> QueueView<'_> {
        let seconds = |work: Work| work as f64 / 1e9;
        QueueView {
            waiting: &self.waiting,
            executing: self.running.len(),
            seats: self.seats,
            waiting_seats: self.waiting_seats,
            waiting_work: seconds(self.waiting_work),
            next_r: seconds(self.next_r),
        }
    }

    pub(super) fn is_active(&self) -> bool {
        !self.waiting.is_empty() || !self.running.is_empty()
    }
}
