//! Watchers: fed by the writer after each commit, in revision order.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::types::{Event, Revision, WatchItem};

/// What may wait for one reader before its watch is closed. The channel itself is unbounded, these
/// bound it: they count events and bytes rather than batches.
const PENDING_EVENTS: usize = 16 * 1024;
const PENDING_BYTES: usize = 32 << 20;

/// All watchers of a store.
pub(super) struct Hub {
    state: Mutex<State>,
}

struct State {
    published: Revision,
    watchers: Vec<Watcher>,
}

struct Watcher {
    prefix: String,
    items: UnboundedSender<WatchItem>,
    backlog: Arc<Backlog>,
}

/// What is sent and not yet taken.
#[derive(Default)]
pub(super) struct Backlog {
    events: AtomicUsize,
    bytes: AtomicUsize,
}

/// A watcher's end: changes after `from`, to be delivered after the history up to it.
pub(super) struct Subscription {
    pub(super) from: Revision,
    pub(super) items: UnboundedReceiver<WatchItem>,
    pub(super) backlog: Arc<Backlog>,
}

impl Hub {
    pub(super) fn new(published: Revision) -> Self {
        Self { state: Mutex::new(State { published, watchers: Vec::new() }) }
    }

    /// The last revision given to watchers.
    pub(super) fn published(&self) -> Revision {
        self.state.lock().published
    }

    /// Starts to collect the changes of keys with a prefix.
    pub(super) fn subscribe(&self, prefix: &str) -> Subscription {
        let (sender, items) = unbounded_channel();
        let backlog = Arc::new(Backlog::default());
        let mut state = self.state.lock();
        state.watchers.push(Watcher { prefix: prefix.to_owned(), items: sender, backlog: backlog.clone() });
        Subscription { from: state.published, items, backlog }
    }

    /// Gives committed changes to those who watch them. A watcher that is too far behind is dropped:
    /// it sees what it was sent, then the end of its channel.
    pub(super) fn publish(&self, events: &[Event], revision: Revision) {
        let mut state = self.state.lock();
        state.published = revision;
        state.watchers.retain(|watcher| watcher.offer(events));
    }

    /// Tells every watcher how far it has come.
    pub(super) fn report_progress(&self) {
        let mut state = self.state.lock();
        let published = state.published;
        state.watchers.retain(|watcher| watcher.items.send(WatchItem::Progress(published)).is_ok());
    }

    /// Ends all watches.
    pub(super) fn close(&self) {
        self.state.lock().watchers.clear();
    }
}

impl Watcher {
    /// Whether the watcher stays.
    fn offer(&self, events: &[Event]) -> bool {
        let wanted: Vec<Event> =
            events.iter().filter(|event| event.kv.key.starts_with(&self.prefix)).cloned().collect();
        if wanted.is_empty() {
            return !self.items.is_closed();
        }
        let bytes: usize = wanted.iter().map(size).sum();
        let count = wanted.len();
        let behind = self.backlog.events.fetch_add(count, Ordering::Relaxed);
        let behind_bytes = self.backlog.bytes.fetch_add(bytes, Ordering::Relaxed);
        // A batch larger than the bound may pass when nothing else waits.
        if behind > 0 && (behind + count > PENDING_EVENTS || behind_bytes + bytes > PENDING_BYTES) {
            return false;
        }
        self.items.send(WatchItem::Events(wanted)).is_ok()
    }
}

impl Backlog {
    /// Accounts for events that the reader took.
    pub(super) fn taken(&self, events: &[Event]) {
        self.events.fetch_sub(events.len(), Ordering::Relaxed);
        self.bytes.fetch_sub(events.iter().map(size).sum(), Ordering::Relaxed);
    }

    pub(super) fn events(&self) -> usize {
        self.events.load(Ordering::Relaxed)
    }
}

fn size(event: &Event) -> usize {
    let previous = event.previous.as_ref().map_or(0, |kv| kv.value.len());
    event.kv.key.len() + event.kv.value.len() + previous
}
