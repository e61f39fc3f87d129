//! What waits for the writer: bounded, so that callers slow down with the disk.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::{Semaphore, oneshot};

use crate::error::{Error, Result, WriteError};
use crate::types::{LeaseId, Revision, Write, Written};

/// Requests that may wait; more wait outside, without being queued.
const CAPACITY: usize = 4096;
/// The most one transaction takes, to bound its memory and everyone's waiting.
const BATCH_REQUESTS: usize = 1024;
const BATCH_BYTES: usize = 4 << 20;
/// How long the first of a batch waits for others who are at work: a commit costs the processor about as much for one
/// request as for ten.
const GATHER: Duration = Duration::from_millis(1);

/// Something for the writer to do, and where the answer goes.
pub(super) enum Request {
    Write(Write, oneshot::Sender<Result<Written, WriteError>>),
    Compact(Revision, oneshot::Sender<Result<()>>),
    Advance(Revision, oneshot::Sender<Result<Revision>>),
    Grant(Duration, oneshot::Sender<Result<LeaseId>>),
    Renew(LeaseId, oneshot::Sender<Result<()>>),
    Revoke(LeaseId, oneshot::Sender<Result<()>>),
    /// A reader met an I/O error: open the file anew.
    Reopen,
}

/// What [`Queue::take`] returns with.
pub(super) enum Taken {
    Batch(Vec<Request>),
    Timeout,
    Closed,
}

pub(super) struct Queue {
    state: Mutex<State>,
    filled: Condvar,
    room: Semaphore,
}

struct State {
    requests: VecDeque<Request>,
    closed: bool,
    /// How many were in the last batch: their callers may come back.
    served: usize,
    /// The length at which the writer wants to be woken.
    wanted: usize,
}

impl Queue {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::new(State { requests: VecDeque::new(), closed: false, served: 0, wanted: 1 }),
            filled: Condvar::new(),
            room: Semaphore::new(CAPACITY),
        }
    }

    /// Waits for room and adds a request. `false` if the queue is closed.
    pub(super) async fn push(&self, request: Request) -> bool {
        let Ok(permit) = self.room.acquire().await else { return false };
        permit.forget();
        let mut state = self.state.lock();
        if state.closed {
            return false;
        }
        state.requests.push_back(request);
        let enough = state.requests.len() == state.wanted;
        drop(state);
        if enough {
            self.filled.notify_one();
        }
        true
    }

    /// Adds a request that must not wait, beyond the bound if need be.
    pub(super) fn push_now(&self, request: Request) {
        let mut state = self.state.lock();
        // Taking gives a permit back for each request; this keeps the count right.
        if !state.closed && self.room.try_acquire().map(tokio::sync::SemaphorePermit::forget).is_ok() {
            state.requests.push_back(request);
            self.filled.notify_one();
        }
    }

    /// No more requests; the writer still takes what is there.
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.room.close();
        self.filled.notify_one();
    }

    /// Drops what is left, for a writer that ends.
    pub(super) fn abandon(&self) {
        self.close();
        self.state.lock().requests.clear();
    }

    /// The next batch in order, waiting for it until the deadline.
    pub(super) fn take(&self, deadline: Option<Instant>) -> Taken {
        let mut state = self.state.lock();
        let active = (state.served + state.requests.len()).min(BATCH_REQUESTS);
        state.wanted = 1;
        while state.requests.is_empty() {
            if state.closed {
                return Taken::Closed;
            }
            match deadline {
                None => self.filled.wait(&mut state),
                Some(deadline) => {
                    if self.filled.wait_until(&mut state, deadline).timed_out() && state.requests.is_empty() {
                        return Taken::Timeout;
                    }
                }
            }
        }
        state.wanted = active;
        let until = Instant::now() + GATHER;
        while state.requests.len() < active && !state.closed {
            if self.filled.wait_until(&mut state, until).timed_out() {
                break;
            }
        }
        let mut bytes = 0;
        let mut batch = Vec::with_capacity(state.requests.len().min(BATCH_REQUESTS));
        while batch.len() < BATCH_REQUESTS && bytes < BATCH_BYTES {
            let Some(request) = state.requests.pop_front() else { break };
            if let Request::Write(write, _) = &request {
                bytes += write.key.len() + write.value.as_ref().map_or(0, bytes::Bytes::len);
            }
            batch.push(request);
        }
        state.served = batch.len();
        drop(state);
        self.room.add_permits(batch.len());
        Taken::Batch(batch)
    }
}

/// The error of a store whose writer has ended.
pub(super) fn closed(operation: &'static str, subject: &str) -> crate::Unavailable {
    crate::Unavailable {
        operation,
        subject: subject.to_owned(),
        advice: "it is closed".to_owned(),
        source: None,
    }
}

impl Request {
    /// Tells the caller that nothing was done.
    pub(super) fn refuse(self, reason: impl Fn(&'static str) -> crate::Unavailable) {
        // A caller that is gone needs no answer.
        match self {
            Self::Write(_, reply) => drop(reply.send(Err(reason("write").into()))),
            Self::Compact(_, reply) => drop(reply.send(Err(Error::from(reason("compact"))))),
            Self::Advance(_, reply) => drop(reply.send(Err(Error::from(reason("advance"))))),
            Self::Grant(_, reply) => drop(reply.send(Err(Error::from(reason("grant lease"))))),
            Self::Renew(_, reply) => drop(reply.send(Err(Error::from(reason("renew lease"))))),
            Self::Revoke(_, reply) => drop(reply.send(Err(Error::from(reason("revoke lease"))))),
            Self::Reopen => {}
        }
    }
}
