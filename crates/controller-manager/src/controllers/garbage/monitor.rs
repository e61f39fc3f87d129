//! One watch of metadata for each resource that no informer covers.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::TryStreamExt;
use http::{Request, header};
use keelson_client::{Backoff, Informer, Meta, Projected, rest};
use kube::core::WatchEvent;
use parking_lot::Mutex;
use tokio::task::AbortHandle;

use super::Queue;
use super::graph::Graph;
use crate::context::Context;
use crate::discovery::Resource;
use crate::kit::Bare;

const WATCH: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";
/// How long after a definition changed the resources are looked at again: its API comes up within this time.
const SETTLE: Duration = Duration::from_millis(500);
/// For aggregated APIs, which come and go without a definition.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
const WATCH_SECONDS: &str = "540";

type HasSynced = Box<dyn Fn() -> bool + Send + Sync>;

/// The watches that run.
pub struct Monitors {
    client: kube::Client,
    graph: Arc<Mutex<Graph>>,
    queue: Queue,
    /// Group and plural of what informers cover, and whether each has listed.
    followed: Mutex<HashMap<(String, String), HasSynced>>,
    running: Mutex<HashMap<(String, String), Running>>,
    /// The resources have been discovered once.
    started: AtomicBool,
}

struct Running {
    resource: Resource,
    synced: Arc<AtomicBool>,
    task: AbortHandle,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Monitors {
    pub fn new(client: &kube::Client, graph: Arc<Mutex<Graph>>, queue: Queue) -> Monitors {
        Monitors {
            client: client.clone(),
            graph,
            queue,
            followed: Mutex::default(),
            running: Mutex::default(),
            started: AtomicBool::new(false),
        }
    }

    /// Takes a resource from its informer instead of from a watch of its own.
    pub fn follow<P: Projected>(&self, informer: &Arc<Informer<P>>) {
        super::follow(informer, self.graph.clone(), self.queue.clone());
        let informer = informer.clone();
        let key = (P::GROUP.to_owned(), P::PLURAL.to_owned());
        self.followed.lock().insert(key, Box::new(move || informer.has_synced()));
    }

    /// Whether the graph has all objects that there were at the start.
    pub fn all_synced(&self) -> bool {
        let optional =
            |plural: &str| matches!(plural, "customresourcedefinitions" | "storageversionmigrations");
        self.started.load(Ordering::Acquire)
            && self.followed.lock().iter().all(|((_, plural), synced)| optional(plural) || synced())
            && self.running.lock().values().all(|r| r.synced.load(Ordering::Acquire))
    }

    /// Starts and ends watches as resources come and go.
    pub async fn keep(&self, context: &Context) {
        let changed = Arc::new(tokio::sync::Notify::new());
        let notify = changed.clone();
        context.informers.definitions.on_change(move |_| notify.notify_one());
        loop {
            let pause = match context.discovery.resources().await {
                Ok(found) => {
                    let wanted = found.preferred.iter().filter(|r| {
                        // Events come in numbers, own nothing and expire.
                        r.has("list") && r.has("watch") && r.has("delete") && r.plural != "events"
                    });
                    let keep_failed = !found.failed.is_empty();
                    self.adjust(wanted.cloned().collect(), keep_failed);
                    self.started.store(true, Ordering::Release);
                    LOOK_AGAIN
                }
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "discovery failed");
                    Duration::from_secs(1)
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = changed.notified() => tokio::time::sleep(SETTLE).await,
            }
            context.discovery.forget();
        }
    }

    fn adjust(&self, wanted: Vec<Resource>, keep_others: bool) {
        let followed = self.followed.lock();
        let mut running = self.running.lock();
        let mut keys = HashSet::new();
        for resource in wanted {
            let key = (resource.group.clone(), resource.plural.clone());
            if followed.contains_key(&key) {
                continue;
            }
            let same = running.get(&key).is_some_and(|r| r.resource == resource);
            if !same {
                running.insert(key.clone(), self.start(resource));
            }
            keys.insert(key);
        }
        if !keep_others {
            running.retain(|key, _| keys.contains(key));
        }
    }

    fn start(&self, resource: Resource) -> Running {
        let synced = Arc::new(AtomicBool::new(false));
        let watch = Watch {
            client: self.client.clone(),
            resource: resource.clone(),
            graph: self.graph.clone(),
            queue: self.queue.clone(),
            synced: synced.clone(),
            known: HashSet::new(),
        };
        Running { resource, synced, task: tokio::spawn(watch.run()).abort_handle() }
    }
}

/// Follows one resource.
struct Watch {
    client: kube::Client,
    resource: Resource,
    graph: Arc<Mutex<Graph>>,
    queue: Queue,
    synced: Arc<AtomicBool>,
    /// Uids of the objects that are there.
    known: HashSet<String>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        // The resource is no more: neither are its objects.
        let mut graph = self.graph.lock();
        for uid in self.known.drain() {
            graph.remove(&uid, &self.queue);
        }
    }
}

impl Watch {
    async fn run(mut self) {
        let mut backoff = Backoff::default();
        let mut version = None;
        loop {
            let result = match version.take() {
                None => self.list().await,
                Some(at) => self.watch(at).await,
            };
            match result {
                Ok(at) => {
                    version = at;
                    backoff.reset();
                }
                Err(error) => {
                    // A definition that was just made or removed answers 404 for a while.
                    tracing::debug!(
                        resource = self.resource.plural,
                        error = &error as &dyn std::error::Error,
                        "list or watch failed"
                    );
                    tokio::time::sleep(backoff.pause()).await;
                }
            }
        }
    }

    fn apply(&mut self, meta: &Meta) {
        self.known.insert(meta.uid.clone());
        let version = self.resource.api_version();
        self.graph.lock().apply(&version, &self.resource.kind, meta, &self.queue);
    }

    fn remove(&mut self, uid: &str) {
        self.known.remove(uid);
        self.graph.lock().remove(uid, &self.queue);
    }

    /// Makes the graph agree with a list; returns the list's version.
    async fn list(&mut self) -> Result<Option<String>, kube::Error> {
        let mut seen = HashSet::new();
        let mut next = String::new();
        let version = loop {
            let page = self.resource.page(&self.client, 500, &next).await?;
            for item in page.items.unwrap_or_default() {
                seen.insert(item.metadata.uid.clone());
                self.apply(&item.metadata);
            }
            if page.metadata.r#continue.is_empty() {
                break page.metadata.resource_version;
            }
            next = page.metadata.r#continue;
        };
        let gone: Vec<String> = self.known.difference(&seen).cloned().collect();
        gone.iter().for_each(|uid| self.remove(uid));
        self.synced.store(true, Ordering::Release);
        Ok(Some(version))
    }

    /// Follows the changes after a version. Returns where to go on, or `None` to list again.
    async fn watch(&mut self, mut version: String) -> Result<Option<String>, kube::Error> {
        let query = format!(
            "watch=true&allowWatchBookmarks=true&timeoutSeconds={WATCH_SECONDS}&resourceVersion={version}"
        );
        let request = Request::get(format!("{}?{query}", self.resource.path("", None)))
            .header(header::ACCEPT, WATCH)
            .body(Vec::new())
            .map_err(kube::Error::HttpError)?;
        let events = self.client.request_events::<Bare>(request).await?;
        let mut events = std::pin::pin!(events);
        loop {
            let event = match events.try_next().await {
                Ok(Some(event)) => event,
                Ok(None) => return Ok(Some(version)),
                Err(error) if rest::code(&error) == Some(410) => return Ok(None),
                Err(error) => return Err(error),
            };
            match event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                    version.clone_from(&object.metadata.resource_version);
                    self.apply(&object.metadata);
                }
                WatchEvent::Deleted(object) => {
                    version.clone_from(&object.metadata.resource_version);
                    self.remove(&object.metadata.uid);
                }
                WatchEvent::Bookmark(bookmark) => version = bookmark.metadata.resource_version,
                // Mostly 410: history does not reach back far enough.
                WatchEvent::Error(_) => return Ok(None),
            }
        }
    }
}
