//! The watch cache of one resource: what exists now, and the recent changes that watchers resume from.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use tokio::sync::watch;

use super::entry::{CacheEvent, ChangeKind, Entry};

/// How long a change stays available to watchers that resume, if memory allows.
const FRESH: Duration = Duration::from_secs(75);
/// Changes kept whatever their age.
const KEEP_MIN: usize = 100;
const KEEP_MAX: usize = 100_000;
/// Bytes of objects that the history may hold on to.
const KEEP_BYTES: usize = 96 << 20;

/// Bytes of objects, the last to change, whose events stay encoded: those who follow are no farther behind, and for who is
/// an event is encoded again.
const ENCODED_BYTES: usize = 8 << 20;

/// The revision asked for is older than the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooOld {
    pub oldest: u64,
}

pub struct ResourceCache {
    inner: RwLock<Inner>,
    /// The revision of the last change; watchers sleep on it.
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct Inner {
    entries: BTreeMap<Arc<str>, Arc<Entry>>,
    /// Of all entries.
    bytes: usize,
    history: VecDeque<Arc<CacheEvent>>,
    history_bytes: usize,
    /// From where on in the history events may be encoded, and the bytes of their objects.
    encoded: usize,
    encoded_bytes: usize,
    /// The greatest revision whose change the history no longer has (or never had).
    forgotten: u64,
    last_change: u64,
}

/// Entries of one moment, in key order.
pub struct Snapshot {
    pub entries: Vec<Arc<Entry>>,
    /// The revision of the last change it contains; the state is the same up to the feed's progress.
    pub last_change: u64,
    /// How many entries follow after the last one taken.
    pub remaining: usize,
}

impl Snapshot {
    /// Keeps what matches, at most `limit` (0: all).
    pub fn narrow(&mut self, limit: usize, matches: impl Fn(&Entry) -> bool) {
        self.entries.retain(|e| matches(e));
        if limit > 0 && self.entries.len() > limit {
            self.remaining = self.entries.len() - limit;
            self.entries.truncate(limit);
        }
    }
}

impl ResourceCache {
    /// A cache that knows nothing of the time up to `revision`.
    pub fn new(revision: u64) -> Self {
        let inner = Inner { forgotten: revision, last_change: revision, ..Inner::default() };
        Self { inner: RwLock::new(inner), changed: watch::Sender::new(revision) }
    }

    pub fn get(&self, key: &str) -> Option<Arc<Entry>> {
        self.inner.read().entries.get(key).cloned()
    }

    pub fn len(&self) -> usize {
        self.inner.read().entries.len()
    }

    /// How many objects there are, and their bytes.
    pub fn size(&self) -> (usize, usize) {
        let inner = self.inner.read();
        (inner.entries.len(), inner.bytes)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn last_change(&self) -> u64 {
        self.inner.read().last_change
    }

    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Reads all entries anew; `None` for those that stay as they are.
    pub(super) fn reindex(&self, read: impl Fn(&Entry) -> Option<Entry>) {
        let mut inner = self.inner.write();
        for slot in inner.entries.values_mut() {
            if let Some(entry) = read(slot) {
                *slot = Arc::new(entry);
            }
        }
        inner.bytes = inner.entries.values().map(|entry| entry.json.len()).sum();
    }

    /// What matches below `prefix` (`namespace/`, or empty) after the key `after`, at most `limit` (0: all).
    pub fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        matches: impl Fn(&Entry) -> bool,
    ) -> Snapshot {
        let inner = self.inner.read();
        collect(inner.last_change, inner.range(prefix, after), limit, matches)
    }

    /// The same as of a past revision, as long as the history reaches back to it.
    pub fn list_at(
        &self,
        revision: u64,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        matches: impl Fn(&Entry) -> bool,
    ) -> Result<Snapshot, TooOld> {
        let inner = self.inner.read();
        if inner.last_change <= revision {
            return Ok(collect(revision, inner.range(prefix, after), limit, matches));
        }
        if revision < inner.forgotten {
            return Err(TooOld { oldest: inner.forgotten });
        }
        // What the keys that have changed since were at that revision: the state before their first change.
        let mut then: BTreeMap<&str, Option<&Arc<Entry>>> = BTreeMap::new();
        for event in inner.history.range(inner.position(revision)..) {
            then.entry(&event.entry.key).or_insert(event.previous.as_ref());
        }
        let mut all: Vec<&Arc<Entry>> =
            inner.range(prefix, after).filter(|e| !then.contains_key(&*e.key)).collect();
        let in_range = |key: &str| key.starts_with(prefix) && after.is_none_or(|after| key > after);
        all.extend(then.into_values().flatten().filter(|e| in_range(&e.key)));
        all.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(collect(revision, all.into_iter(), limit, matches))
    }

    /// Changes after `revision`, at most `limit`.
    pub fn changes_after(&self, revision: u64, limit: usize) -> Result<Vec<Arc<CacheEvent>>, TooOld> {
        let inner = self.inner.read();
        if revision < inner.forgotten {
            return Err(TooOld { oldest: inner.forgotten });
        }
        Ok(inner.history.range(inner.position(revision)..).take(limit).cloned().collect())
    }

    /// Puts a new state in, or with `None` takes the object away. Changes come in revision order.
    pub(super) fn apply(&self, key: &str, revision: u64, new: Option<Entry>) {
        {
            let mut inner = self.inner.write();
            inner.apply(key, revision, new);
            inner.trim();
        }
        self.changed.send_replace(revision);
    }

    /// Lets go of old changes of a resource that has gone quiet.
    pub(super) fn trim(&self) {
        self.inner.write().trim();
    }

    /// Starts over from what the store holds now: watchers from before are told to list again.
    pub(super) fn reset(&self, revision: u64, entries: Vec<Entry>) {
        {
            let mut inner = self.inner.write();
            *inner = Inner { forgotten: revision, last_change: revision, ..Inner::default() };
            inner.bytes = entries.iter().map(|e| e.json.len()).sum();
            inner.entries = entries.into_iter().map(|e| (e.key.clone(), Arc::new(e))).collect();
        }
        self.changed.send_replace(revision);
    }
}

impl Inner {
    fn range<'a>(&'a self, prefix: &'a str, after: Option<&'a str>) -> impl Iterator<Item = &'a Arc<Entry>> {
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        self.entries
            .range::<str, _>((start, Bound::Unbounded))
            .take_while(move |(key, _)| key.starts_with(prefix))
            .map(|(_, entry)| entry)
    }

    /// Where in the history the changes after `revision` begin.
    fn position(&self, revision: u64) -> usize {
        self.history.partition_point(|event| event.revision <= revision)
    }

    fn apply(&mut self, key: &str, revision: u64, new: Option<Entry>) {
        let event = match new {
            Some(entry) => {
                let entry = Arc::new(entry);
                let previous = self.entries.insert(entry.key.clone(), entry.clone());
                self.bytes += entry.json.len();
                self.bytes -= previous.as_ref().map_or(0, |p| p.json.len());
                let kind = if previous.is_some() { ChangeKind::Modified } else { ChangeKind::Added };
                CacheEvent::new(kind, revision, entry, previous)
            }
            None => {
                let Some(last) = self.entries.remove(key) else { return };
                self.bytes -= last.json.len();
                let gone = Arc::new(last.at_revision(revision));
                CacheEvent::new(ChangeKind::Deleted, revision, gone, Some(last))
            }
        };
        self.last_change = revision;
        self.history_bytes += event.entry.json.held();
        self.encoded_bytes += event.entry.json.len();
        self.history.push_back(Arc::new(event));
        while self.encoded_bytes > ENCODED_BYTES && self.encoded + 1 < self.history.len() {
            let event = &mut self.history[self.encoded];
            self.encoded_bytes -= event.entry.json.len();
            self.encoded += 1;
            if let Some(bare) = event.without_encodings() {
                *event = Arc::new(bare);
            }
        }
    }

    fn trim(&mut self) {
        let now = Instant::now();
        while self.history.len() > KEEP_MIN {
            let Some(oldest) = self.history.front() else { break };
            let stale = now.duration_since(oldest.at) > FRESH;
            if !stale && self.history.len() <= KEEP_MAX && self.history_bytes <= KEEP_BYTES {
                break;
            }
            self.forgotten = oldest.revision;
            self.history_bytes -= oldest.entry.json.held();
            match self.encoded.checked_sub(1) {
                Some(encoded) => self.encoded = encoded,
                None => self.encoded_bytes -= oldest.entry.json.len(),
            }
            self.history.pop_front();
        }
    }
}

fn collect<'a>(
    last_change: u64,
    entries: impl Iterator<Item = &'a Arc<Entry>>,
    limit: usize,
    matches: impl Fn(&Entry) -> bool,
) -> Snapshot {
    let mut snapshot = Snapshot { entries: Vec::new(), last_change, remaining: 0 };
    for entry in entries.filter(|e| matches(e)) {
        if limit > 0 && snapshot.entries.len() == limit {
            snapshot.remaining += 1;
        } else {
            snapshot.entries.push(entry.clone());
        }
    }
    snapshot
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn entry(key: &str, revision: u64) -> Entry {
        let bytes = Bytes::from(format!(r#"{{"metadata":{{"resourceVersion":"{revision}"}}}}"#));
        Entry::new(key.into(), revision, bytes.into(), Default::default(), Default::default())
    }

    fn keys(snapshot: &Snapshot) -> Vec<String> {
        snapshot.entries.iter().map(|e| format!("{}@{}", e.key, e.revision)).collect()
    }

    #[test]
    fn the_past_is_rebuilt_from_the_history() {
        let cache = ResourceCache::new(1);
        cache.apply("a/x", 2, Some(entry("a/x", 2)));
        cache.apply("a/y", 3, Some(entry("a/y", 3)));
        cache.apply("b/z", 4, Some(entry("b/z", 4)));
        cache.apply("a/x", 5, Some(entry("a/x", 5)));
        cache.apply("a/y", 6, None);
        let all = |_: &Entry| true;
        assert_eq!(keys(&cache.list("a/", None, 0, all)), ["a/x@5"]);
        assert_eq!(keys(&cache.list_at(4, "", None, 0, all).unwrap()), ["a/x@2", "a/y@3", "b/z@4"]);
        assert_eq!(keys(&cache.list_at(5, "a/", None, 0, all).unwrap()), ["a/x@5", "a/y@3"]);
        let page = cache.list_at(4, "", Some("a/x"), 1, all).unwrap();
        assert_eq!((keys(&page), page.remaining), (vec!["a/y@3".to_owned()], 1));
        assert_eq!(cache.list_at(0, "", None, 0, all).err(), Some(TooOld { oldest: 1 }));
    }

    #[test]
    fn only_the_last_events_stay_encoded() {
        let cache = ResourceCache::new(0);
        let big = |revision: u64| {
            let bytes = Bytes::from(format!("{{\"a\":\"{}\"}}", "x".repeat(1 << 20)));
            Entry::new("a".into(), revision, bytes.into(), Default::default(), Default::default())
        };
        for revision in 1..=200 {
            cache.apply("a", revision, Some(big(revision)));
            let events = cache.changes_after(revision - 1, 1).unwrap();
            assert!(events[0].line(events[0].kind).len() > 1 << 20);
        }
        let events = cache.changes_after(100, usize::MAX).unwrap();
        let encoded = events.iter().filter(|event| event.without_encodings().is_some());
        assert!(encoded.map(|event| event.revision).eq(194..=200));
        let inner = cache.inner.read();
        let bytes: usize = inner.history.range(inner.encoded..).map(|event| event.entry.json.len()).sum();
        assert_eq!((inner.encoded_bytes, inner.history.len() - inner.encoded), (bytes, 7));
    }

    #[test]
    fn the_size_follows_what_is_read_anew() {
        let cache = ResourceCache::new(1);
        cache.apply("a", 2, Some(entry("a", 2)));
        let longer = |old: &Entry| {
            let bytes = Bytes::from([&old.bytes()[..], b"        "].concat());
            Some(Entry::new(
                old.key.clone(),
                old.revision,
                bytes.into(),
                Default::default(),
                Default::default(),
            ))
        };
        cache.reindex(longer);
        assert_eq!(cache.size(), (1, entry("a", 2).json.len() + 8));
        cache.apply("a", 3, None);
        assert_eq!(cache.size(), (0, 0));
    }

    #[test]
    fn watchers_resume_after_their_revision_or_hear_that_it_is_too_old() {
        let cache = ResourceCache::new(10);
        cache.apply("a", 11, Some(entry("a", 11)));
        cache.apply("a", 12, None);
        let kinds =
            |after| -> Vec<_> { cache.changes_after(after, 9).unwrap().iter().map(|e| e.kind).collect() };
        assert_eq!(kinds(10), [ChangeKind::Added, ChangeKind::Deleted]);
        assert_eq!(kinds(11), [ChangeKind::Deleted]);
        assert_eq!(kinds(99), []);
        assert!(cache.changes_after(9, 9).is_err());
    }
}
