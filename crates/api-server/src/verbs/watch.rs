//! Watches: a cursor in the cache's history, and the lines that a client sees of it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, StatusCode};
use keelson_api_types::StatusError;
use prometheus_client::metrics::counter::Counter;
use rand::RngExt;
use tokio::sync::watch;
use tokio::time::{Instant, Interval};
use tokio_util::sync::CancellationToken;

use super::list;
use crate::app::{App, Call};
use crate::body::{Body, Response};
use crate::cache::{CacheEvent, Entry, Selection};
use crate::convert;
use crate::fairness::Ticket;
use crate::negotiate::{CBOR_SEQUENCE, Encoding};
use crate::options::ListOptions;
use crate::presenter::Presenter;
use crate::registry::Resource;
use crate::slices::{Data, Frames};

const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// Events taken from the history at a time.
const BATCH: usize = 256;
/// Lines are sent together up to this size.
const CHUNK: usize = 64 << 10;

pub async fn serve(
    app: &Arc<App>,
    call: &mut Call,
    resource: &Arc<Resource>,
) -> Result<Response, StatusError> {
    let presenter = call.presenter(resource)?;
    let options = ListOptions::parse(&call.query, &call.info)?;
    let selection = list::selection(resource, &call.info.namespace, &options)?;
    let start = Start::of(&options)?;
    let timeout = options.timeout_seconds.map_or_else(|| default_timeout(app), Duration::from_secs);
    if start.fresh {
        app.caches.fresh().await?;
    }
    let kind = match presenter.accepted.encoding {
        Encoding::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
        Encoding::Cbor => CBOR_SEQUENCE,
        other => other.media_type(),
    };
    let watcher = Watcher {
        changed: resource.cache.changed(),
        app: app.clone(),
        presenter,
        selection,
        closed: resource.custom.as_ref().map(|c| c.versions.closed.clone()).unwrap_or_default(),
        cursor: start.after,
        initial: Vec::new().into_iter(),
        end_mark: None,
        bookmarks: options
            .bookmarks
            .then(|| tokio::time::interval_at(Instant::now() + BOOKMARK_EVERY, BOOKMARK_EVERY)),
        first: true,
        unsent: None,
        done: false,
        ticket: call.ticket.take(),
        sent: app.requests.watch_events(&resource.gvr.group, &resource.gvr.version, &resource.gvr.resource),
    };
    let lines = watcher.begin(&start).await?;
    let deadline = tokio::time::sleep(timeout);
    let shutdown = app.shutdown.clone();
    let end = async move {
        tokio::select! {
            () = deadline => {}
            () = shutdown.cancelled_owned() => {}
        }
    };
    let stream = futures::stream::unfold(lines, Watcher::next).take_until(Box::pin(end)).map(Ok);
    let mut response = Response::new(Body::Stream(stream.boxed()));
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    Ok(response)
}

/// Between once and twice the configured least, so that clients do not come back all at once.
fn default_timeout(app: &App) -> Duration {
    let least = app.config.min_request_timeout.max(1);
    Duration::from_secs(rand::rng().random_range(least..least * 2))
}

/// Where a watch begins.
#[derive(Debug)]
struct Start {
    /// Changes after this revision.
    after: u64,
    /// What exists comes first, as ADDED.
    initial: bool,
    /// That state must be the present one.
    fresh: bool,
    /// A bookmark tells where the initial events end.
    mark: bool,
}

impl Start {
    fn of(options: &ListOptions) -> Result<Self, StatusError> {
        let revision = options.revision()?;
        let send = options.send_initial_events;
        Ok(Self {
            after: revision.unwrap_or(0),
            initial: send.unwrap_or(revision.unwrap_or(0) == 0),
            fresh: revision.is_none(),
            mark: send == Some(true),
        })
    }
}

struct Watcher {
    app: Arc<App>,
    changed: watch::Receiver<u64>,
    presenter: Presenter,
    selection: Selection,
    /// Who watches a custom resource starts over when its definition has changed or is gone.
    closed: CancellationToken,
    cursor: u64,
    initial: std::vec::IntoIter<Arc<Entry>>,
    /// The revision that the bookmark after the initial events carries.
    end_mark: Option<u64>,
    bookmarks: Option<Interval>,
    /// Nothing was sent yet (of a table, the first object carries the columns).
    first: bool,
    /// The rest of lines that go out together.
    unsent: Option<Frames>,
    done: bool,
    /// The seats that the initial events take.
    ticket: Option<Ticket>,
    sent: Counter,
}

impl Watcher {
    async fn begin(mut self, start: &Start) -> Result<Self, StatusError> {
        if start.initial {
            // The progress is read first: the state may then be newer, never older than it.
            let applied = self.app.caches.applied();
            let resource = &self.presenter.resource;
            let matches = |e: &Entry| self.selection.matches_in_scope(e);
            let custom = resource.custom.is_some();
            let mut snapshot =
                resource.cache.list(&self.selection.prefix(), None, 0, |e| custom || matches(e));
            if custom {
                snapshot.entries = convert::shown(&*self.app, resource, snapshot.entries).await?;
                snapshot.narrow(0, matches);
            }
            self.cursor = applied.max(snapshot.last_change);
            self.initial = snapshot.entries.into_iter();
            self.end_mark = start.mark.then_some(self.cursor);
        } else if start.after == 0 {
            self.cursor = self.app.caches.applied();
        }
        Ok(self)
    }

    /// The next lines, waiting for them if there are none.
    async fn next(mut self) -> Option<(Data, Self)> {
        loop {
            if let Some(frame) = self.unsent.as_mut().and_then(Iterator::next) {
                return Some((frame, self));
            }
            self.unsent = None;
            if self.done {
                return None;
            }
            let mut out = Lines::default();
            self.take_initial(&mut out);
            if out.is_empty() {
                self.take_changes(&mut out).await;
            }
            self.sent.inc_by(out.lines.len() as u64);
            match out.lines.len() {
                // One alone is sent as the shared bytes it is.
                0 | 1 => {
                    let line = match out.lines.pop() {
                        Some(line) => Some(line),
                        None => self.wait().await,
                    };
                    if let Some(line) = line {
                        return Some((line.into(), self));
                    }
                }
                _ => self.unsent = Some(Frames::new(out.lines)),
            }
        }
    }

    fn take_initial(&mut self, out: &mut Lines) {
        while out.size < CHUNK {
            let Some(entry) = self.initial.next() else { break };
            out.push(self.presenter.event("ADDED", &entry, std::mem::take(&mut self.first)));
        }
        if self.initial.len() > 0 {
            return;
        }
        self.ticket = None;
        if let Some(revision) = self.end_mark.take() {
            let line = self.bookmark(revision, true);
            out.push(line);
        }
    }

    async fn take_changes(&mut self, out: &mut Lines) {
        let resource = self.presenter.resource.clone();
        while out.size < CHUNK {
            self.changed.mark_unchanged();
            // All changes up to here are in the history already.
            let applied = self.app.caches.applied();
            match resource.cache.changes_after(self.cursor, BATCH) {
                Ok(changes) if changes.is_empty() => {
                    self.cursor = self.cursor.max(applied);
                    return;
                }
                Ok(changes) => {
                    let changes = match self.shown(changes).await {
                        Ok(changes) => changes,
                        Err(error) => {
                            out.push(self.presenter.failure(&error));
                            self.done = true;
                            return;
                        }
                    };
                    for change in &changes {
                        self.cursor = change.revision;
                        if let Some(line) = self.line(change) {
                            out.push(line);
                        }
                    }
                }
                Err(too_old) => {
                    let message =
                        format!("too old resource version: {} ({})", self.cursor, too_old.oldest + 1);
                    out.push(self.presenter.failure(&StatusError::expired(message)));
                    self.done = true;
                    return;
                }
            }
        }
    }

    /// Changes as the version watched shows them.
    async fn shown(&self, changes: Vec<Arc<CacheEvent>>) -> Result<Vec<Arc<CacheEvent>>, StatusError> {
        let resource = &self.presenter.resource;
        let sides = |c: &Arc<CacheEvent>| c.previous.iter().chain([&c.entry]).cloned().collect::<Vec<_>>();
        let all: Vec<Arc<Entry>> = changes.iter().flat_map(sides).collect();
        let foreign = |e: &Arc<Entry>| resource.custom.as_ref().is_some_and(|c| !c.is_own(&e.json));
        if !all.iter().any(foreign) {
            return Ok(changes);
        }
        let mut shown = convert::shown(&*self.app, resource, all).await?.into_iter();
        let one = |change: Arc<CacheEvent>| {
            let previous = change.previous.as_ref().and_then(|_| shown.next());
            let entry = shown.next().unwrap_or_else(|| change.entry.clone());
            Arc::new(CacheEvent::new(change.kind, change.revision, entry, previous))
        };
        Ok(changes.into_iter().map(one).collect())
    }

    fn line(&mut self, change: &CacheEvent) -> Option<Bytes> {
        let seen = change.seen(|entry| self.selection.matches(entry))?;
        Some(self.presenter.change(change, seen, std::mem::take(&mut self.first)))
    }

    /// Sleeps until something may have changed; returns a bookmark if one is due.
    async fn wait(&mut self) -> Option<Bytes> {
        let tick = async {
            match &mut self.bookmarks {
                Some(interval) => drop(interval.tick().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = self.changed.changed() => {
                self.done = changed.is_err();
                None
            }
            () = self.closed.cancelled() => {
                self.done = true;
                None
            }
            () = tick => Some(self.bookmark(self.cursor, false)),
        }
    }

    fn bookmark(&mut self, revision: u64, end_of_initial: bool) -> Bytes {
        self.presenter.bookmark(revision, end_of_initial, std::mem::take(&mut self.first))
    }
}

/// Lines that go out together.
#[derive(Default)]
struct Lines {
    lines: Vec<Bytes>,
    size: usize,
}

impl Lines {
    fn push(&mut self, line: Bytes) {
        self.size += line.len();
        self.lines.push(line);
    }

    fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }
}
