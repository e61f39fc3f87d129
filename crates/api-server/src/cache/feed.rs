//! Keeps all caches current from one watch of the store, and says how far they have come.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use keelson_api_types::StatusError;
use keelson_store::{Event, EventKind, KeyValue, RangeOptions, Store, WatchItem};
use parking_lot::RwLock;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::entry::{Entry, Head, Labels, splice_revision};
use super::json::{self, Json};
use super::resource::ResourceCache;
use super::sparse::Wanted;
use super::texts::Texts;

/// Everything that is an object lives below this.
pub const PREFIX: &str = "/registry/";
/// How long a read waits for the caches to become as fresh as it needs.
const FRESHNESS_WAIT: Duration = Duration::from_secs(3);
/// Objects read at once when everything is: more are no faster, and what they need of memory is kept for long.
const PAGE: usize = 1000;
const TRIM_EVERY: Duration = Duration::from_secs(15);
/// History older than this may be compacted: tokens and watches from before are told so.
const HISTORY: Duration = Duration::from_secs(300);

/// How a resource's selectable fields are read from an object.
pub trait Indexer: Send + Sync {
    /// Values in the order of the resource's names; empty if it has none.
    fn fields(&self, object: &Value) -> Texts;
    /// The paths that [`Self::fields`] looks at: an object is read without the rest.
    fn sources(&self) -> Vec<String>;

    /// Whether objects are read whole, to be shown otherwise than they are stored.
    fn renews(&self) -> bool {
        false
    }

    /// Makes a stored object what readers see of it. Returns whether that changed it.
    fn renew(&self, _object: &mut Value) -> bool {
        false
    }
}

/// What is read of every object of a resource.
pub struct Index {
    indexer: Arc<dyn Indexer>,
    wanted: Wanted,
}

impl Index {
    pub fn new(indexer: Arc<dyn Indexer>) -> Arc<Self> {
        let sources = indexer.sources();
        let wanted =
            Wanted::new(sources.iter().map(String::as_str).chain(["metadata.labels", "metadata.name"]));
        Arc::new(Self { indexer, wanted })
    }

    /// The selectable fields of an object.
    pub fn fields(&self, object: &Value) -> Texts {
        self.indexer.fields(object)
    }

    /// What the cache keeps of an encoded object with its revision.
    pub fn read(&self, key: Arc<str>, revision: u64, spliced: Bytes) -> serde_json::Result<Entry> {
        if !self.indexer.renews() {
            let object = self.wanted.read(&spliced)?;
            let (labels, fields) = (Labels::of(&object), self.indexer.fields(&object));
            return Ok(Entry::new(key, revision, Json::shared(spliced), labels, fields));
        }
        let mut object: Value = serde_json::from_slice(&spliced)?;
        let (bytes, raw) = match self.indexer.renew(&mut object) {
            true => (splice_revision(&crate::codec::encode(&object), revision), Some(spliced)),
            false => (spliced, None),
        };
        let (labels, fields) = (Labels::of(&object), self.indexer.fields(&object));
        Ok(Entry::new(key, revision, Json::shared(bytes), labels, fields).with_raw(raw))
    }
}

/// The caches of all resources, by storage name: `pods`, `stable.example.com/crontabs`.
pub struct Caches {
    store: Arc<dyn Store>,
    caches: RwLock<HashMap<Arc<str>, Slot>>,
    applied: watch::Sender<u64>,
    following: AtomicBool,
    /// Revisions reached at past times, oldest first.
    clock: RwLock<std::collections::VecDeque<(tokio::time::Instant, u64)>>,
}

#[derive(Clone)]
struct Slot {
    cache: Arc<ResourceCache>,
    index: Option<Arc<Index>>,
}

impl Caches {
    pub fn new(store: Arc<dyn Store>) -> Arc<Self> {
        Arc::new(Self {
            store,
            caches: RwLock::default(),
            applied: watch::Sender::new(0),
            following: AtomicBool::new(false),
            clock: RwLock::default(),
        })
    }

    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// The cache of a resource, made when first asked for.
    pub fn cache(&self, storage: &str) -> Arc<ResourceCache> {
        self.slot(storage).cache
    }

    fn slot(&self, storage: &str) -> Slot {
        if let Some(slot) = self.caches.read().get(storage) {
            return slot.clone();
        }
        let mut caches = self.caches.write();
        let new = || Slot { cache: Arc::new(ResourceCache::new(self.applied())), index: None };
        caches.entry(storage.into()).or_insert_with(new).clone()
    }

    /// Says how a resource's fields are read; entries from before are read anew.
    pub fn set_index(&self, storage: &str, index: Arc<Index>) {
        let cache = {
            self.slot(storage);
            let mut caches = self.caches.write();
            let Some(slot) = caches.get_mut(storage) else { return };
            slot.index = Some(index.clone());
            slot.cache.clone()
        };
        cache.reindex(|entry| {
            let read = index.read(entry.key.clone(), entry.revision, entry.raw()).ok()?;
            (read.fields != entry.fields || read.json != entry.json).then_some(read)
        });
    }

    /// Every cache holds the state at this revision (and may be past it).
    pub fn applied(&self) -> u64 {
        *self.applied.borrow()
    }

    pub fn applied_changes(&self) -> watch::Receiver<u64> {
        self.applied.subscribe()
    }

    /// The state of now: returns once the caches have reached the store's present revision.
    pub async fn fresh(&self) -> Result<u64, StatusError> {
        let revision = self.store.revision().await.map_err(|e| storage_error(&e))?;
        self.wait_for(revision).await
    }

    /// Returns the revision reached, at least the one asked for.
    pub async fn wait_for(&self, revision: u64) -> Result<u64, StatusError> {
        let now = self.applied();
        if now >= revision {
            return Ok(now);
        }
        let mut applied = self.applied.subscribe();
        let reached = async {
            loop {
                let wait =
                    tokio::time::timeout(Duration::from_millis(50), applied.wait_for(|at| *at >= revision));
                if let Ok(reached) = wait.await {
                    return reached.map(|at| *at).unwrap_or_default();
                }
                // Changes outside our prefix raise the revision without an event.
                let _ = self.store.request_progress().await;
            }
        };
        match tokio::time::timeout(FRESHNESS_WAIT, reached).await {
            Ok(at) => Ok(at),
            Err(_) => Err(too_large(revision, self.applied())),
        }
    }

    /// Whether the history at `revision` may be gone from the store.
    pub fn is_expired(&self, revision: u64) -> bool {
        let clock = self.clock.read();
        let old = clock.iter().take_while(|(at, _)| at.elapsed() > HISTORY).last();
        old.is_some_and(|(_, then)| revision < *then)
    }

    /// Loads everything, then follows the store until shutdown. Returns once loaded.
    pub async fn start(self: &Arc<Self>, shutdown: CancellationToken) -> Result<(), keelson_store::Error> {
        let revision = self.load().await?;
        self.applied.send_replace(revision);
        let caches = self.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = caches.follow_on() => {}
                () = shutdown.cancelled() => {}
            }
        });
        Ok(())
    }

    /// Whether the watch of the store is up.
    pub fn is_following(&self) -> bool {
        self.following.load(Ordering::Acquire)
    }

    async fn load(self: &Arc<Self>) -> Result<u64, keelson_store::Error> {
        let mut per_storage: HashMap<String, Vec<Entry>> = HashMap::new();
        let mut options = RangeOptions { limit: PAGE, ..RangeOptions::default() };
        // A page is understood while the next is read.
        let mut understood = JoinSet::new();
        let revision = loop {
            let page = self.store.range(PREFIX, options.clone()).await?;
            options.at = Some(page.revision);
            options.start_after = page.kvs.last().map(|kv| kv.key.clone());
            take_page(&mut per_storage, understood.join_next().await);
            let caches = self.clone();
            understood.spawn_blocking(move || caches.entries(&page.kvs));
            if !page.more {
                break page.revision;
            }
        };
        take_page(&mut per_storage, understood.join_next().await);
        let known: Vec<(Arc<str>, Slot)> =
            self.caches.read().iter().map(|(name, slot)| (name.clone(), slot.clone())).collect();
        for (name, slot) in known {
            slot.cache.reset(revision, per_storage.remove(&*name).unwrap_or_default());
        }
        Ok(revision)
    }

    /// With the storage that each is of.
    fn entries(&self, values: &[KeyValue]) -> Vec<(String, Entry)> {
        let entries = values.iter().filter_map(|kv| {
            let (storage, key) = split_key(&kv.key)?;
            let index = self.slot(&storage).index;
            let entry = entry_of(index.as_deref(), key, kv)?;
            Some((storage, entry))
        });
        entries.collect()
    }

    /// Follows for good: a fault on the way ends in a fresh start, not in caches that stand still.
    async fn follow_on(self: &Arc<Self>) {
        while AssertUnwindSafe(self.follow()).catch_unwind().await.is_err() {
            tracing::error!("following the store failed on a fault of the server's own; starting over");
            self.following.store(false, Ordering::Release);
            match self.load().await {
                Ok(revision) => drop(self.applied.send_replace(revision)),
                Err(error) => self.recover(error).await,
            }
        }
    }

    async fn follow(self: &Arc<Self>) {
        let mut tick = tokio::time::interval(TRIM_EVERY);
        loop {
            match self.store.watch(PREFIX, self.applied()).await {
                Ok(mut stream) => {
                    self.following.store(true, Ordering::Release);
                    let ended = loop {
                        tokio::select! {
                            item = stream.next() => match item {
                                Some(Ok(item)) => self.take(item),
                                Some(Err(error)) => break Some(error),
                                None => break None,
                            },
                            _ = tick.tick() => self.trim(),
                        }
                    };
                    self.following.store(false, Ordering::Release);
                    if let Some(error) = ended {
                        self.recover(error).await;
                    }
                }
                Err(error) => self.recover(error).await,
            }
        }
    }

    /// After a lost watch: start over if its history is gone, else try again shortly.
    async fn recover(self: &Arc<Self>, error: keelson_store::Error) {
        tracing::warn!(error = &error as &dyn std::error::Error, "the watch of the store ended");
        if matches!(
            error,
            keelson_store::Error::Compacted { .. } | keelson_store::Error::FutureRevision { .. }
        ) {
            match self.load().await {
                Ok(revision) => {
                    self.applied.send_replace(revision);
                    return;
                }
                Err(error) => {
                    tracing::error!(error = &error as &dyn std::error::Error, "could not list the store");
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }

    fn take(&self, item: WatchItem) {
        let upto = match item {
            WatchItem::Events(events) => {
                let upto = events.last().map(|e| e.revision);
                for event in events {
                    self.apply(event);
                }
                upto
            }
            WatchItem::Progress(revision) => Some(revision),
        };
        if let Some(upto) = upto.filter(|upto| *upto > self.applied()) {
            self.applied.send_replace(upto);
        }
    }

    fn apply(&self, event: Event) {
        let Some((storage, key)) = split_key(&event.kv.key) else { return };
        self.slot(&storage);
        // Whoever replaces the indexer waits, and then reads this entry anew as well.
        let caches = self.caches.read();
        let Some(slot) = caches.get(&*storage) else { return };
        match event.kind {
            EventKind::Put => {
                if let Some(entry) = entry_of(slot.index.as_deref(), key, &event.kv) {
                    slot.cache.apply(key, event.revision, Some(entry));
                }
            }
            EventKind::Delete => slot.cache.apply(key, event.revision, None),
        }
    }

    fn trim(&self) {
        let slots: Vec<Slot> = self.caches.read().values().cloned().collect();
        for slot in slots {
            slot.cache.trim();
        }
        json::prune();
        let mut clock = self.clock.write();
        clock.push_back((tokio::time::Instant::now(), self.applied()));
        // One mark older than the history is enough.
        while clock.get(1).is_some_and(|(at, _)| at.elapsed() > HISTORY) {
            clock.pop_front();
        }
    }
}

/// `/registry/pods/ns/name` is `ns/name` of `pods`; a dotted first part is a group: its resource follows.
pub fn split_key(key: &str) -> Option<(String, &str)> {
    let rest = key.strip_prefix(PREFIX)?;
    let (first, tail) = rest.split_once('/')?;
    if !first.contains('.') {
        return Some((first.to_owned(), tail));
    }
    let (resource, tail) = tail.split_once('/')?;
    Some((format!("{first}/{resource}"), tail))
}

fn take_page(
    per_storage: &mut HashMap<String, Vec<Entry>>,
    page: Option<Result<Vec<(String, Entry)>, JoinError>>,
) {
    // A fault goes on in the task that wanted the page.
    let page = page.map(|page| page.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic())));
    for (storage, entry) in page.into_iter().flatten() {
        per_storage.entry(storage).or_default().push(entry);
    }
}

/// Reads what the cache keeps of a stored value; `None`, and a log line, for what is no object.
pub fn entry_of(index: Option<&Index>, key: &str, kv: &KeyValue) -> Option<Entry> {
    let (revision, spliced) = (kv.mod_revision, splice_revision(&kv.value, kv.mod_revision));
    let read = match index {
        None => serde_json::from_slice::<Head>(&spliced).map(|head| {
            Entry::new(key.into(), revision, Json::shared(spliced), head.metadata.labels, Texts::default())
        }),
        Some(index) => index.read(key.into(), revision, spliced),
    };
    match read {
        Ok(entry) => Some(entry),
        Err(error) => {
            tracing::error!(key = kv.key, %error, "a stored value is no object");
            None
        }
    }
}

/// The store's failures as a client sees them.
pub fn storage_error(error: &keelson_store::Error) -> StatusError {
    match error {
        keelson_store::Error::Compacted { .. } => {
            StatusError::expired("The resourceVersion for the provided list is too old.")
        }
        keelson_store::Error::FutureRevision { requested, current } => too_large(*requested, *current),
        other => {
            tracing::error!(error = other as &dyn std::error::Error, "the store failed");
            match other {
                keelson_store::Error::Unavailable(_) => StatusError::service_unavailable(other.to_string()),
                _ => StatusError::internal(other),
            }
        }
    }
}

/// A revision this server has not reached in time: the client may ask again.
fn too_large(revision: u64, current: u64) -> StatusError {
    let error =
        StatusError::timeout(format!("Too large resource version: {revision}, current: {current}"), 1);
    let mut status = error.into_status();
    if let Some(details) = &mut status.details {
        details.causes.push(keelson_api_types::Cause {
            reason: "ResourceVersionTooLarge".into(),
            message: "Too large resource version".into(),
            field: String::new(),
        });
    }
    StatusError::from(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_name_their_resource() {
        let split = |key| split_key(key).map(|(s, k)| (s, k.to_owned()));
        assert_eq!(split("/registry/pods/a/b"), Some(("pods".into(), "a/b".into())));
        assert_eq!(split("/registry/nodes/n"), Some(("nodes".into(), "n".into())));
        assert_eq!(split("/registry/x.io/foos/a/b"), Some(("x.io/foos".into(), "a/b".into())));
        assert_eq!(split("/other/a"), None);
    }
}
