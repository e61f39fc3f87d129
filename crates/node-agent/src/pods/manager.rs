//! All pods of this node: a worker per pod, fed by the API's changes and the runtime's events.

use super::admission::{self, Node};
use super::observe::observe;
use super::resize::{self, Resize};
use super::worker::{Desired, Index, Shared, Worker};
use super::{labels, spec, terminate};
use crate::context::Context;
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use keelson_client::EventType;
use keelson_cri::v1::PodSandboxFilter;
use keelson_cri::{Event, EventKind};
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// The safety net below the runtime's events.
const RELIST: Duration = Duration::from_secs(20);

struct Handle {
    desired: watch::Sender<Desired>,
    shared: Arc<Shared>,
}

impl Handle {
    /// The pod with the resources that it has, unless it has ended.
    fn active(&self) -> Option<Arc<Pod>> {
        let pod = self.desired.borrow().pod.clone();
        let phase = self.shared.reported.lock().as_ref().and_then(|s| s.phase.clone());
        let over = matches!(phase.as_deref(), Some("Succeeded" | "Failed")) || spec::is_terminal(&pod);
        (!over).then(|| self.shared.memory.lock().resize.apply(&pod))
    }
}

/// Reads of what runs here, for whoever holds one.
#[derive(Clone)]
pub struct Manager {
    ctx: Arc<Context>,
    workers: Arc<Mutex<HashMap<String, Handle>>>,
    index: Index,
    node_labels: Arc<Mutex<BTreeMap<String, String>>>,
}

/// Something happened to a pod's object.
#[derive(Debug)]
pub enum Feed {
    Set(Arc<Pod>),
    /// It is no longer there; by uid.
    Gone(String),
}

/// The uids of the pods that the API has for this node; `None` while they are not known yet.
pub type Wanted = Arc<dyn Fn() -> Option<HashSet<String>> + Send + Sync>;

/// What the API's reads wake when an object changes, by uid.
pub type Wakers = Arc<Mutex<HashMap<String, Arc<Shared>>>>;

impl Manager {
    pub fn new(ctx: Arc<Context>) -> Self {
        Self { ctx, workers: Arc::default(), index: Index::default(), node_labels: Arc::default() }
    }

    pub fn set_node_labels(&self, labels: BTreeMap<String, String>) {
        *self.node_labels.lock() = labels;
    }

    /// Wakes the worker of a pod.
    pub fn waker(workers: &Wakers) -> crate::api::Waker {
        let workers = workers.clone();
        Arc::new(move |uid| {
            if let Some(shared) = workers.lock().get(uid) {
                shared.memory.lock().containers.values_mut().for_each(|c| c.retry_at = 0);
                shared.wake.notify_one();
            }
        })
    }

    /// The pods here, each with the status that was reported last.
    pub fn pods(&self) -> Vec<Pod> {
        let workers = self.workers.lock();
        let with_status = |handle: &Handle| {
            let mut pod = (*handle.desired.borrow().pod).clone();
            if let Some(status) = handle.shared.reported.lock().clone() {
                pod.status = Some(status);
            }
            pod
        };
        workers.values().map(with_status).collect()
    }

    pub fn pod(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        let workers = self.workers.lock();
        let all = workers.values().map(|h| h.desired.borrow().pod.clone());
        all.into_iter().find(|p| spec::namespace(p) == namespace && spec::name(p) == name)
    }

    /// Follows the API's changes and the runtime's events until the changes end.
    pub async fn run(self, mut changes: mpsc::UnboundedReceiver<Feed>, wanted: Wanted, wakers: Wakers) {
        let events = tokio::spawn(self.clone().follow_events());
        let relist = tokio::spawn(self.clone().relist(wanted));
        let _guard = (AbortOnDrop(events.abort_handle()), AbortOnDrop(relist.abort_handle()));
        while let Some(change) = changes.recv().await {
            match change {
                Feed::Set(pod) => self.set(pod, &wakers),
                Feed::Gone(uid) => self.gone(&uid),
            }
        }
    }

    fn set(&self, pod: Arc<Pod>, wakers: &Wakers) {
        let uid = spec::uid(&pod).to_owned();
        let mut workers = self.workers.lock();
        if let Some(handle) = workers.get(&uid) {
            self.allocate(&workers, &uid, &pod);
            handle.desired.send_if_modified(|desired| {
                let wakes = !is_own_echo(&desired.pod, &pod);
                if wakes {
                    // What failed may go well with the new object.
                    handle.shared.memory.lock().containers.values_mut().for_each(|c| c.retry_at = 0);
                }
                desired.pod = pod;
                wakes
            });
            self.retry_deferred(&workers);
            return;
        }
        let shared = Arc::new(Shared::default());
        let resize = Resize::load(&self.ctx.resources_file(&uid), &pod);
        let refused = self.admit(&resize.apply(&pod), &workers);
        shared.memory.lock().resize = resize;
        let (desired, receiver) = watch::channel(Desired { pod: pod.clone(), gone: false });
        let (worker, reporter) =
            Worker::new(self.ctx.clone(), receiver, shared.clone(), self.index.clone(), refused);
        wakers.lock().insert(uid.clone(), shared.clone());
        workers.insert(uid.clone(), Handle { desired, shared });
        self.allocate(&workers, &uid, &pod);
        drop(workers);
        let (manager, wakers) = (self.clone(), wakers.clone());
        tokio::spawn(async move {
            let reporter = tokio::spawn(reporter);
            worker.run().await;
            // What is still on its way gets a moment.
            let _ = tokio::time::timeout(Duration::from_secs(5), reporter).await;
            let mut workers = manager.workers.lock();
            workers.remove(&uid);
            manager.retry_deferred(&workers);
            drop(workers);
            wakers.lock().remove(&uid);
        });
    }

    fn gone(&self, uid: &str) {
        if let Some(handle) = self.workers.lock().get(uid) {
            handle.desired.send_modify(|desired| desired.gone = true);
        }
    }

    /// Checks a pod that has not begun; one that runs already was admitted before.
    fn admit(&self, pod: &Pod, workers: &HashMap<String, Handle>) -> Option<super::plan::Waiting> {
        let begun = pod.status.as_ref().is_some_and(|s| s.start_time.is_some());
        if begun || spec::is_terminal(pod) || spec::is_deleted(pod) {
            return None;
        }
        let others: Vec<_> = workers.values().filter_map(Handle::active).collect();
        let labels = self.node_labels.lock().clone();
        let refusal = admission::admit(pod, &self.node(&labels), &others).err()?;
        let about = crate::api::reference(pod, None);
        self.ctx.api.event(about, EventType::Warning, &refusal.reason, &refusal.message);
        Some(refusal)
    }

    fn node<'a>(&'a self, labels: &'a BTreeMap<String, String>) -> Node<'a> {
        Node {
            name: &self.ctx.node_name,
            labels,
            allocatable: self.ctx.allocatable,
            allowed_sysctls: &self.ctx.config.allowed_unsafe_sysctls,
        }
    }

    /// Gives a running pod the resources that it asks for now, if the node has them.
    fn allocate(&self, workers: &HashMap<String, Handle>, uid: &str, pod: &Arc<Pod>) {
        let Some(handle) = workers.get(uid) else { return };
        if !handle.shared.memory.lock().resize.is_wanted(pod) {
            handle.shared.memory.lock().resize.deferred = None;
            return;
        }
        if spec::is_terminal(pod) || spec::is_deleted(pod) {
            return;
        }
        let others: Vec<_> =
            workers.iter().filter(|(other, _)| *other != uid).filter_map(|(_, h)| h.active()).collect();
        let shortage = admission::shortage(pod, &self.node(&BTreeMap::new()), &others);
        let mut memory = handle.shared.memory.lock();
        let resize = &mut memory.resize;
        let (kind, reason, message) = match shortage {
            None => {
                resize.allocate(pod);
                if let Err(error) = resize.save(&self.ctx.resources_file(uid)) {
                    tracing::warn!(pod = uid, %error, "could not keep a pod's resources");
                }
                (EventType::Normal, "ResizeStarted", resize::summary("Pod resize started", pod, None))
            }
            Some((_, why)) if resize.deferred.as_ref() != Some(&why) => {
                let told = resize::summary("Pod resize Deferred", pod, Some(&why));
                resize.deferred = Some(why);
                (EventType::Warning, "ResizeDeferred", told)
            }
            Some(_) => return,
        };
        drop(memory);
        self.ctx.api.event(crate::api::reference(pod, None), kind, reason, &message);
        handle.shared.wake.notify_one();
    }

    /// Looks whether there is room now for what had to wait: the most important first.
    fn retry_deferred(&self, workers: &HashMap<String, Handle>) {
        let deferred = |h: &&Handle| h.shared.memory.lock().resize.deferred.is_some();
        let mut pods: Vec<_> =
            workers.values().filter(deferred).map(|h| h.desired.borrow().pod.clone()).collect();
        pods.sort_by_key(|p| std::cmp::Reverse(spec::spec(p).priority.unwrap_or_default()));
        for pod in pods {
            self.allocate(workers, spec::uid(&pod), &pod);
        }
    }

    /// Wakes workers as the runtime tells what happens; subscribes again when the stream breaks.
    async fn follow_events(self) {
        loop {
            match self.ctx.runtime.events().await {
                Ok(mut events) => {
                    // What happened in between is unknown: everybody looks.
                    self.wake_all();
                    while let Some(event) = events.next().await {
                        self.on_event(&event);
                    }
                    tracing::warn!("the runtime's event stream ended");
                }
                Err(e) => tracing::warn!(error = e.user_message(), "could not follow the runtime's events"),
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    fn on_event(&self, event: &Event) {
        let Some(shared) = self.index.lock().get(&event.id).cloned() else { return };
        match event.kind {
            EventKind::Exited { .. } => {
                shared.exited.lock().insert(event.id.clone());
                shared.wake.notify_one();
            }
            EventKind::OutOfMemory => shared.wake.notify_one(),
            // A start is this worker's own doing; the deletion follows the exit.
            EventKind::Started | EventKind::Deleted => {}
        }
    }

    fn wake_all(&self) {
        for handle in self.workers.lock().values() {
            handle.shared.wake.notify_one();
        }
    }

    /// Looks now and then for what no event told: sandboxes whose pod is gone, workers that sleep on news.
    async fn relist(self, wanted: Wanted) {
        let mut known: HashMap<String, Vec<(String, i32)>> = HashMap::new();
        loop {
            tokio::time::sleep(RELIST).await;
            let Some(wanted) = wanted() else { continue };
            if let Err(e) = self.relist_once(&wanted, &mut known).await {
                tracing::warn!(error = e.user_message(), "could not list the runtime's sandboxes");
            }
        }
    }

    async fn relist_once(
        &self,
        wanted: &HashSet<String>,
        known: &mut HashMap<String, Vec<(String, i32)>>,
    ) -> keelson_cri::Result<()> {
        let own = HashMap::from([(labels::NODE.to_owned(), self.ctx.node_name.clone())]);
        let filter = PodSandboxFilter { label_selector: own, ..Default::default() };
        let mut present: HashMap<String, Vec<(String, i32)>> = HashMap::new();
        for sandbox in self.ctx.runtime.list_pod_sandboxes(filter).await? {
            let uid = sandbox.labels.get(labels::POD_UID).cloned().unwrap_or_default();
            present.entry(uid).or_default().push((sandbox.id, sandbox.state));
        }
        for container in self.ctx.runtime.list_containers(Default::default()).await? {
            if let Some(entry) = container.labels.get(labels::POD_UID).and_then(|uid| present.get_mut(uid)) {
                entry.push((container.id, container.state));
            }
        }
        present.values_mut().for_each(|v| v.sort());
        for uid in present.keys().filter(|uid| !wanted.contains(*uid)) {
            if !self.workers.lock().contains_key(uid) {
                tracing::info!(pod = uid, "removing what is left of a pod that is gone");
                self.remove_orphan(uid).await;
            }
        }
        self.remove_orphaned_directories(wanted).await;
        for (uid, handle) in self.workers.lock().iter() {
            if known.get(uid) != present.get(uid) {
                handle.shared.wake.notify_one();
            }
        }
        self.retry_deferred(&self.workers.lock());
        *known = present;
        Ok(())
    }

    async fn remove_orphan(&self, uid: &str) {
        if let Ok(state) = observe(self.ctx.runtime.as_ref(), uid, &Default::default()).await {
            terminate::remove(&self.ctx, uid, &state).await;
        }
        for class in ["", "/burstable", "/besteffort"] {
            let cgroup = format!("{}{class}/pod{uid}", self.ctx.config.cgroup_root);
            let _ = self.ctx.cgroups.remove(&cgroup);
        }
    }

    async fn remove_orphaned_directories(&self, wanted: &HashSet<String>) {
        let Ok(entries) = std::fs::read_dir(self.ctx.config.state_dir.join("pods")) else { return };
        for entry in entries.flatten() {
            let uid = entry.file_name().to_string_lossy().into_owned();
            if !wanted.contains(&uid) && !self.workers.lock().contains_key(&uid) {
                self.remove_orphan(&uid).await;
            }
        }
    }
}

/// Whether an update brings nothing but the status that this agent wrote.
fn is_own_echo(old: &Pod, new: &Pod) -> bool {
    let gated = spec::spec(new).readiness_gates.as_ref().is_some_and(|g| !g.is_empty());
    !gated
        && old.metadata.generation == new.metadata.generation
        && old.metadata.deletion_timestamp == new.metadata.deletion_timestamp
        && old.metadata.deletion_grace_period_seconds == new.metadata.deletion_grace_period_seconds
        && old.metadata.labels == new.metadata.labels
        && old.metadata.annotations == new.metadata.annotations
        && old.spec == new.spec
}

struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
