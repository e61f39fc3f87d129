//! A shared informer: the present state of a resource in memory, and every change of it in order.

use crate::index::{IndexFn, Objects};
use crate::watch::{self, Event, Selection};
use crate::{Backoff, Key, Projected, rest};
use parking_lot::{Mutex, RwLock};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::watch as latch;
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// A watch that lasted this long was in order: what ends it is no reason to wait.
const STEADY: std::time::Duration = std::time::Duration::from_secs(5);

/// What happened to an object.
#[derive(Debug)]
pub enum Change<P> {
    Added(Arc<P>),
    Updated { old: Arc<P>, new: Arc<P> },
    Deleted(Arc<P>),
}

impl<P> Change<P> {
    /// The object as it is, or as it last was.
    pub fn object(&self) -> &Arc<P> {
        match self {
            Change::Added(object) | Change::Updated { new: object, .. } | Change::Deleted(object) => object,
        }
    }
}

type Subscriber<P> = Box<dyn FnMut(&Change<P>) + Send>;

/// The objects of one resource, as the API server told them last. It keeps what it knows while the server
/// cannot be reached, and goes on where it stopped. It ends with its last [`Arc`].
pub struct Informer<P> {
    shared: Arc<Shared<P>>,
    task: AbortHandle,
}

struct Shared<P> {
    objects: RwLock<Objects<P>>,
    /// Held while a change is made and told, so that all subscribers see one order.
    subscribers: Mutex<Vec<Subscriber<P>>>,
    synced: latch::Sender<bool>,
    connected: AtomicBool,
}

/// What an informer holds; see [`Informer::new`].
pub struct Builder<P> {
    client: kube::Client,
    selection: Selection,
    indexes: Vec<(&'static str, IndexFn<P>)>,
}

impl<P: Projected> Builder<P> {
    /// Only this namespace.
    pub fn namespace(mut self, namespace: impl Into<String>) -> Builder<P> {
        self.selection.namespace = namespace.into();
        self
    }

    /// Only what this label selector matches.
    pub fn labels(mut self, selector: impl Into<String>) -> Builder<P> {
        self.selection.labels = selector.into();
        self
    }

    /// Only what this field selector matches, such as `spec.nodeName=node-1`.
    pub fn fields(mut self, selector: impl Into<String>) -> Builder<P> {
        self.selection.fields = selector.into();
        self
    }

    /// An index for [`Informer::by_index`]: `values` says under which values an object is found.
    pub fn index(
        mut self,
        name: &'static str,
        values: impl Fn(&P) -> Vec<String> + Send + Sync + 'static,
    ) -> Builder<P> {
        self.indexes.push((name, Box::new(values)));
        self
    }

    /// Starts to list and watch, on the current tokio runtime.
    pub fn start(self) -> Arc<Informer<P>> {
        let shared = Arc::new(Shared {
            objects: RwLock::new(Objects::new(self.indexes)),
            subscribers: Mutex::new(Vec::new()),
            synced: latch::Sender::new(false),
            connected: AtomicBool::new(false),
        });
        let reflector = Reflector { client: self.client, selection: self.selection, shared: shared.clone() };
        let task = tokio::spawn(reflector.run()).abort_handle();
        Arc::new(Informer { shared, task })
    }
}

impl<P: Projected> Informer<P> {
    /// An informer to be configured and started. A daemon has one per resource.
    #[allow(clippy::new_ret_no_self)]
    pub fn new(client: &kube::Client) -> Builder<P> {
        Builder { client: client.clone(), selection: Selection::default(), indexes: Vec::new() }
    }

    /// Waits until the first list is known.
    pub async fn synced(&self) {
        let mut synced = self.shared.synced.subscribe();
        // The sender lives as long as `self`.
        let _ = synced.wait_for(|done| *done).await;
    }

    pub fn has_synced(&self) -> bool {
        *self.shared.synced.borrow()
    }

    /// Whether the last list or watch is in order: false while the API server cannot be reached.
    pub fn connected(&self) -> bool {
        self.shared.connected.load(Ordering::Relaxed)
    }

    pub fn get(&self, key: &Key) -> Option<Arc<P>> {
        self.shared.objects.read().get(key).cloned()
    }

    pub fn len(&self) -> usize {
        self.shared.objects.read().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All objects, by namespace and name.
    pub fn list(&self) -> Vec<Arc<P>> {
        self.shared.objects.read().iter().map(|(_, object)| object.clone()).collect()
    }

    /// The objects of a namespace, by name.
    pub fn list_namespace(&self, namespace: &str) -> Vec<Arc<P>> {
        self.shared.objects.read().namespace(namespace).cloned().collect()
    }

    /// The objects that an index of the builder has under `value`, in no order.
    pub fn by_index(&self, index: &str, value: &str) -> Vec<Arc<P>> {
        self.shared.objects.read().by_index(index, value).cloned().collect()
    }

    /// Tells `subscriber` the present state as [`Change::Added`], then every change, in order. It runs
    /// on the informer's task: it may read this informer and must neither block nor subscribe again.
    pub fn on_change(&self, mut subscriber: impl FnMut(&Change<P>) + Send + 'static) {
        let mut subscribers = self.shared.subscribers.lock();
        for object in self.list() {
            subscriber(&Change::Added(object));
        }
        subscribers.push(Box::new(subscriber));
    }
}

impl<P> Drop for Informer<P> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<P: Projected> Shared<P> {
    fn apply(&self, object: Arc<P>) {
        let mut subscribers = self.subscribers.lock();
        self.apply_locked(&mut subscribers, object);
    }

    fn apply_locked(&self, subscribers: &mut [Subscriber<P>], object: Arc<P>) {
        let key = object.key();
        let old = {
            let mut objects = self.objects.write();
            let same = |old: &Arc<P>| old.meta().resource_version == object.meta().resource_version;
            if objects.get(&key).is_some_and(same) {
                return;
            }
            objects.insert(key, object.clone())
        };
        let change = match old {
            // Deleted and made again while nobody looked: both have to be told.
            Some(old) if old.meta().uid != object.meta().uid => {
                tell(subscribers, &Change::Deleted(old));
                Change::Added(object)
            }
            Some(old) => Change::Updated { old, new: object },
            None => Change::Added(object),
        };
        tell(subscribers, &change);
    }

    /// `last` is the object as it was when it was deleted, where that is known.
    fn delete(&self, key: &Key, last: Option<Arc<P>>) {
        let mut subscribers = self.subscribers.lock();
        let old = self.objects.write().remove(key);
        if let Some(old) = old {
            tell(&mut subscribers, &Change::Deleted(last.unwrap_or(old)));
        }
    }

    /// Makes `objects` the whole state.
    fn replace(&self, objects: BTreeMap<Key, Arc<P>>) {
        let gone: Vec<Key> = self
            .objects
            .read()
            .iter()
            .filter(|(key, _)| !objects.contains_key(key))
            .map(|(k, _)| k.clone())
            .collect();
        for key in gone {
            self.delete(&key, None);
        }
        let mut subscribers = self.subscribers.lock();
        for object in objects.into_values() {
            self.apply_locked(&mut subscribers, object);
        }
    }
}

fn tell<P>(subscribers: &mut [Subscriber<P>], change: &Change<P>) {
    for subscriber in subscribers {
        subscriber(change);
    }
}

/// Where a reflector stands.
enum State {
    /// Nothing is known, or the server's history does not reach back to what is: list at this version.
    List(&'static str),
    /// Everything up to this version is known.
    Watch(String),
}

/// Keeps [`Shared`] equal to what the API server has.
struct Reflector<P> {
    client: kube::Client,
    selection: Selection,
    shared: Arc<Shared<P>>,
}

impl<P: Projected> Reflector<P> {
    async fn run(self) {
        let mut backoff = Backoff::default();
        // The first list may be of any age: what it misses, the watch brings.
        let mut state = State::List("0");
        loop {
            let started = Instant::now();
            let (next, result) = self.step(state).await;
            state = next;
            let pause = match result {
                Ok(()) => {
                    if started.elapsed() > STEADY {
                        backoff.reset();
                    }
                    continue;
                }
                Err(Trouble::Ended) if started.elapsed() > STEADY => {
                    backoff.reset();
                    continue;
                }
                Err(Trouble::Ended) => backoff.pause(),
                Err(Trouble::Failed(error)) => {
                    self.shared.connected.store(false, Ordering::Relaxed);
                    if started.elapsed() > STEADY {
                        backoff.reset();
                    }
                    let pause = backoff.pause();
                    tracing::warn!(
                        resource = P::PLURAL,
                        ?pause,
                        "list or watch failed, trying again: {}",
                        chain(&error)
                    );
                    pause
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    async fn step(&self, state: State) -> (State, Result<(), Trouble>) {
        match state {
            State::List(version) => match self.list(version).await {
                Ok(version) => (State::Watch(version), Ok(())),
                Err(error) if matches!(rest::code(&error), Some(410 | 504)) => {
                    (State::List(""), Err(Trouble::Failed(error)))
                }
                Err(error) => (State::List(version), Err(Trouble::Failed(error))),
            },
            State::Watch(mut version) => match self.watch(&mut version).await {
                Trouble::Failed(error) if rest::code(&error) == Some(410) => {
                    tracing::info!(
                        resource = P::PLURAL,
                        version,
                        "the server's history is shorter: listing again"
                    );
                    (State::List(""), Ok(()))
                }
                trouble => (State::Watch(version), Err(trouble)),
            },
        }
    }

    /// Reads all pages and makes them the state; returns the version that they are of.
    async fn list(&self, version: &str) -> Result<String, kube::Error> {
        let mut objects = BTreeMap::new();
        let mut start = String::new();
        let version = loop {
            let page = watch::list_page::<P>(&self.client, &self.selection, version, &start).await?;
            for object in page.items {
                let key = object.key();
                // What has not changed keeps its place in memory; the copy goes at once.
                let known = self.shared.objects.read().get(&key).cloned();
                let same = known.filter(|o| o.meta().resource_version == object.meta().resource_version);
                objects.insert(key, same.unwrap_or(object));
            }
            if page.next.is_empty() {
                break page.resource_version;
            }
            start = page.next;
        };
        self.shared.replace(objects);
        self.shared.connected.store(true, Ordering::Relaxed);
        self.shared.synced.send_replace(true);
        Ok(version)
    }

    /// Follows changes from `version` on, which it moves along.
    async fn watch(&self, version: &mut String) -> Trouble {
        let mut watch = match watch::watch::<P>(&self.client, &self.selection, version).await {
            Ok(watch) => watch,
            Err(error) => return Trouble::Failed(error),
        };
        self.shared.connected.store(true, Ordering::Relaxed);
        loop {
            let event = match watch.next::<P>().await {
                Ok(Some(event)) => event,
                Ok(None) => return Trouble::Ended,
                Err(error) => return Trouble::Failed(error),
            };
            match event {
                Event::Applied(object) => {
                    version.clone_from(&object.meta().resource_version);
                    self.shared.apply(object);
                }
                Event::Deleted(object) => {
                    version.clone_from(&object.meta().resource_version);
                    self.shared.delete(&object.key(), Some(Arc::new(object)));
                }
                Event::Bookmark(at) | Event::Skipped(at) => {
                    if !at.is_empty() {
                        *version = at;
                    }
                }
                Event::Error(status) => return Trouble::Failed(kube::Error::Api(status)),
            }
        }
    }
}

/// Why a step did not go on.
enum Trouble {
    /// The server ended a watch in order.
    Ended,
    Failed(kube::Error),
}

/// An error with what caused it, each once: `kube`'s own messages repeat their sources.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
