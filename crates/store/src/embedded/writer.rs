//! The only thread that changes the file: one transaction, one durable append to the log for all that waits.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use redb::ReadableTable;

use super::Shared;
use super::apply::{Changed, Changes};
use super::database::Committed;
use super::format::LEASES;
use super::lease::Leases;
use super::queue::{Request, Taken};
use super::read;
use crate::error::{Error, Result, Unavailable, WriteError};
use crate::types::{LeaseId, Revision, Written};

/// How long the writer waits before it tries again to open a file that failed.
const RETRY: Duration = Duration::from_secs(1);

/// The state of the writer thread.
pub(super) struct Writer {
    shared: Arc<Shared>,
    leases: Leases,
    /// Whether compaction has left records to remove.
    scrubbing: bool,
    /// Why the file is not open.
    broken: Option<String>,
}

/// What a request comes to if the commit succeeds.
enum Outcome {
    Write(Result<Written, WriteError>),
    Unit(Result<()>),
    Revision(Revision),
    Lease(LeaseId, Duration),
    Nothing,
}

/// What a transaction does, request by request, and besides.
#[derive(Default)]
struct Batch {
    outcomes: Vec<Outcome>,
    ended: Vec<LeaseId>,
    compacted: bool,
}

/// Ends the store whichever way the thread ends, so that no caller waits for ever.
struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.queue.abandon();
        self.0.hub.close();
        self.0.file.close();
    }
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>) -> Result<Self> {
        let mut writer = Self { shared, leases: Leases::default(), scrubbing: true, broken: None };
        writer.adopt_leases()?;
        Ok(writer)
    }

    fn adopt_leases(&mut self) -> Result<()> {
        let ttls = self.shared.read("read leases", |transaction| {
            let mut ttls = BTreeMap::new();
            for entry in transaction.open_table(LEASES)?.iter()? {
                let (id, millis) = entry?;
                ttls.insert(id.value(), Duration::from_millis(millis.value()));
            }
            Ok(ttls)
        })?;
        self.leases.adopt(&ttls, Instant::now());
        Ok(())
    }

    /// Serves until the queue is closed and empty.
    pub(super) fn run(mut self) {
        let ending = Ending(self.shared.clone());
        loop {
            match self.shared.queue.take(self.wake_at()) {
                Taken::Batch(requests) => self.serve(requests),
                Taken::Timeout => self.serve(Vec::new()),
                Taken::Closed => break,
            }
        }
        drop(ending);
    }

    /// When there is something to do without being asked.
    fn wake_at(&self) -> Option<Instant> {
        if self.broken.is_some() {
            return Some(Instant::now() + RETRY);
        }
        if self.scrubbing {
            return Some(Instant::now());
        }
        self.leases.next_end()
    }

    fn serve(&mut self, requests: Vec<Request>) {
        if requests.iter().any(|request| matches!(request, Request::Reopen)) {
            self.reopen("a read failed");
        }
        if let Some(reason) = self.broken.take() {
            self.reopen(&reason);
        }
        if let Some(reason) = &self.broken {
            return self.refuse(requests, reason);
        }
        match self.commit(&requests) {
            Ok((changed, batch, Committed::Yes)) => self.committed(requests, &changed, batch),
            Ok((_, _, Committed::No(error))) => {
                self.scrubbing = true;
                let advice = self.explain(error.into());
                self.refuse(requests, &advice);
            }
            Err(error) => self.failed(requests, error),
        }
    }

    /// Fills one transaction with the requests and what is due, and makes it durable.
    fn commit(&mut self, requests: &[Request]) -> Result<(Changed, Batch, Committed), redb::Error> {
        let transaction = self.shared.file.begin_write()?;
        let mut batch = Batch { outcomes: Vec::with_capacity(requests.len()), ..Batch::default() };
        let changed = self.fill(&transaction, requests, &mut batch)?;
        let committed = if changed.dirty {
            self.shared.file.commit(transaction, changed.journal.bytes())?
        } else {
            transaction.abort()?;
            Committed::Yes
        };
        Ok((changed, batch, committed))
    }

    fn fill(
        &mut self,
        transaction: &redb::WriteTransaction,
        requests: &[Request],
        batch: &mut Batch,
    ) -> Result<Changed, redb::Error> {
        let mut changes = Changes::new(transaction)?;
        for lease in self.leases.expired(Instant::now()) {
            changes.end_lease(lease)?;
            batch.ended.push(lease);
        }
        for request in requests {
            let outcome = self.apply(&mut changes, request, batch)?;
            batch.outcomes.push(outcome);
        }
        if self.scrubbing || batch.compacted {
            self.scrubbing = changes.scrub()?;
        }
        Ok(changes.finish())
    }

    fn apply(
        &mut self,
        changes: &mut Changes<'_>,
        request: &Request,
        batch: &mut Batch,
    ) -> Result<Outcome, redb::Error> {
        Ok(match request {
            Request::Write(write, _) => {
                let known = |lease| self.leases.contains(lease) && !batch.ended.contains(&lease);
                Outcome::Write(changes.write(write, known)?)
            }
            Request::Compact(upto, _) => Outcome::Unit(compact(changes, *upto, batch)?),
            Request::Advance(to, _) => Outcome::Revision(changes.advance(*to)?),
            Request::Grant(ttl, _) => {
                let millis = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
                Outcome::Lease(changes.grant(millis)?, *ttl)
            }
            Request::Renew(lease, _) if self.leases.renew(*lease, Instant::now()) => Outcome::Unit(Ok(())),
            Request::Revoke(lease, _) if self.leases.contains(*lease) && !batch.ended.contains(lease) => {
                changes.end_lease(*lease)?;
                batch.ended.push(*lease);
                Outcome::Unit(Ok(()))
            }
            Request::Renew(lease, _) | Request::Revoke(lease, _) => {
                Outcome::Unit(Err(Error::LeaseNotFound(*lease)))
            }
            Request::Reopen => Outcome::Nothing,
        })
    }

    /// What is durable becomes visible: revision first, then watchers, then the callers.
    fn committed(&mut self, requests: Vec<Request>, changed: &Changed, batch: Batch) {
        self.shared.set_revision(changed.revision);
        self.shared.hub.publish(&changed.events, changed.revision);
        for lease in batch.ended {
            self.leases.remove(lease);
        }
        // A caller that is gone needs no answer.
        for (request, outcome) in requests.into_iter().zip(batch.outcomes) {
            match (request, outcome) {
                (Request::Write(_, reply), Outcome::Write(result)) => drop(reply.send(result)),
                (
                    Request::Compact(_, reply) | Request::Renew(_, reply) | Request::Revoke(_, reply),
                    Outcome::Unit(result),
                ) => drop(reply.send(result)),
                (Request::Advance(_, reply), Outcome::Revision(revision)) => drop(reply.send(Ok(revision))),
                (Request::Grant(_, reply), Outcome::Lease(id, ttl)) => {
                    self.leases.start(id, ttl, Instant::now());
                    drop(reply.send(Ok(id)));
                }
                _ => {}
            }
        }
    }

    /// Nobody in the batch is acknowledged; the file is opened anew at its last committed state.
    fn failed(&mut self, requests: Vec<Request>, error: redb::Error) {
        let advice = self.explain(error);
        self.refuse(requests, &advice);
        self.reopen(&advice);
    }

    fn explain(&self, error: redb::Error) -> String {
        let unavailable = self.shared.file.unavailable("write", error);
        let source = unavailable.source.as_deref().map(tracing::field::display);
        tracing::error!(source, "{unavailable}");
        unavailable.advice
    }

    fn refuse(&self, requests: Vec<Request>, advice: &str) {
        for request in requests {
            request.refuse(|operation| Unavailable {
                operation,
                subject: self.shared.file.path().display().to_string(),
                advice: advice.to_owned(),
                source: None,
            });
        }
    }

    fn reopen(&mut self, reason: &str) {
        self.broken = match self.shared.file.reopen().and_then(|()| self.catch_up()) {
            Ok(()) => None,
            Err(error) => {
                tracing::error!(%error, reason, "cannot open the store's file again");
                Some(reason.to_owned())
            }
        };
        self.scrubbing = self.broken.is_none();
    }

    /// A commit that reported an error may have reached the disk all the same: watchers get what
    /// the file holds beyond what they have seen, and its leases run.
    fn catch_up(&mut self) -> Result<()> {
        let revision =
            self.shared.file.revision().map_err(|error| self.shared.file.explain_redb("open", error))?;
        let mut seen = self.shared.hub.published();
        while seen < revision {
            let chunk =
                self.shared.read("read", |transaction| read::changes(transaction, "", seen, revision))?;
            self.shared.set_revision(chunk.upto);
            self.shared.hub.publish(&chunk.events, chunk.upto);
            seen = chunk.upto;
        }
        self.adopt_leases()
    }
}

fn compact(changes: &mut Changes<'_>, upto: Revision, batch: &mut Batch) -> Result<Result<()>, redb::Error> {
    let current = changes.revision();
    if upto > current {
        return Ok(Err(Error::FutureRevision { requested: upto, current }));
    }
    batch.compacted |= changes.compact(upto)?;
    Ok(Ok(()))
}
