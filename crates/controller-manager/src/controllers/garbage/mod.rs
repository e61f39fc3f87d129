//! The garbage collector: an object goes when all its owners are gone.
//!
//! - [`graph`]: who owns whom, of all objects that can be deleted.
//! - [`monitor`]: feeds the graph, one metadata-only watch per resource.
//! - [`decide`]: what becomes of one object, as a pure function.

mod decide;
mod graph;
mod monitor;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use keelson_client::{Change, Informer, Meta, Projected, WorkQueue, rest};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::context::Context;
use crate::discovery::Resource;
use crate::kit::{Bare, During, Error, api_version, error::gone_is_fine, only_if};

use decide::{Action, OwnerState};
use graph::Identity;

pub use graph::Graph;

pub const FOREGROUND: &str = "foregroundDeletion";
pub const ORPHAN: &str = "orphan";
/// An owner that the API server did not have is not asked for again within this time.
const ABSENT_FOR: Duration = Duration::from_secs(30);
/// What refers to a kind that nobody serves (yet) is looked at again after this long.
const UNKNOWN_KIND: Duration = Duration::from_secs(30);

/// Keys are uids.
pub type Queue = WorkQueue<String>;

pub struct Collector {
    context: Arc<Context>,
    graph: Arc<Mutex<Graph>>,
    queue: Queue,
    monitors: monitor::Monitors,
    /// Uids of owners that were looked up and are not there.
    absent: Mutex<HashMap<String, Instant>>,
}

/// Runs the collector; `graph` is empty, and whoever else has it may count in it.
pub async fn run(context: Arc<Context>, graph: Arc<Mutex<Graph>>) {
    let queue = Queue::new();
    let monitors = monitor::Monitors::new(context.requests.client(), graph.clone(), queue.clone());
    follow_all(&context, &monitors);
    let this = Arc::new(Collector {
        context: context.clone(),
        graph,
        queue: queue.clone(),
        monitors,
        absent: Mutex::default(),
    });
    let (keeper, collector) = (this.clone(), this.clone());
    let reconcile = move |uid: String| {
        let this = this.clone();
        async move { this.sync(uid).await }
    };
    tokio::select! {
        () = context.work("garbage-collector", queue, 20, reconcile) => {}
        () = keeper.monitors.keep(&context) => {}
    }
    drop(collector);
}

/// Resources that have an informer already are not watched twice.
fn follow_all(context: &Context, monitors: &monitor::Monitors) {
    let informers = &context.informers;
    monitors.follow(&informers.pods);
    monitors.follow(&informers.nodes);
    monitors.follow(&informers.namespaces);
    monitors.follow(&informers.service_accounts);
    monitors.follow(&informers.services);
    monitors.follow(&informers.slices);
    monitors.follow(&informers.endpoints);
    monitors.follow(&informers.replica_sets);
    monitors.follow(&informers.replication_controllers);
    monitors.follow(&informers.deployments);
    monitors.follow(&informers.daemon_sets);
    monitors.follow(&informers.stateful_sets);
    monitors.follow(&informers.revisions);
    monitors.follow(&informers.jobs);
    monitors.follow(&informers.cron_jobs);
    monitors.follow(&informers.budgets);
    monitors.follow(&informers.quotas);
    monitors.follow(&informers.claims);
    monitors.follow(&informers.certificate_requests);
    monitors.follow(&informers.cluster_roles);
    monitors.follow(&informers.definitions);
    informers.migrations.iter().for_each(|migrations| monitors.follow(migrations));
}

impl Collector {
    async fn sync(&self, uid: String) -> Result<(), Error> {
        let Some((identity, meta)) = self.graph.lock().object(&uid) else { return Ok(()) };
        if meta.is_deleting() && meta.finalizers.iter().any(|f| f == ORPHAN) {
            return self.orphan_dependents(&identity, &meta).await;
        }
        if meta.is_deleting() && meta.finalizers.iter().any(|f| f == FOREGROUND) {
            return self.wait_for_dependents(&identity, &meta).await;
        }
        if meta.is_deleting() || meta.owner_references.is_empty() || self.all_known(&identity, &meta) {
            return Ok(());
        }
        self.attempt(&identity, &uid).await
    }

    /// Whether all owners are there and stay: the common case, answered from memory.
    fn all_known(&self, identity: &Identity, meta: &Meta) -> bool {
        let graph = self.graph.lock();
        meta.owner_references.iter().all(|o| graph.owner(identity, o) == Some(OwnerState::Solid))
    }

    /// Deletes an object whose owners are gone, or takes those that are gone off it.
    async fn attempt(&self, identity: &Identity, uid: &str) -> Result<(), Error> {
        let resource = self.resource(identity).await?;
        let path = resource.path(&identity.namespace, Some(&identity.name));
        let Some(live) = gone_is_fine(self.get(&path).await)? else {
            // The informer will tell; should it have told before, nothing is left to do.
            return Ok(());
        };
        let live = live.metadata;
        if live.uid != uid || live.is_deleting() {
            return Ok(());
        }
        let mut states = Vec::new();
        for owner in &live.owner_references {
            states.push(self.owner_state(identity, &resource, owner).await?);
        }
        let dependents = self.graph.lock().dependents(uid);
        let action = decide::decide(&live, &states, !dependents.is_empty());
        tracing::debug!(object = %identity, ?action, "garbage");
        match action {
            Action::Keep => Ok(()),
            Action::Disown(owners) => self.write_owners(&path, &live, &owners).await,
            Action::Delete(policy) => {
                if policy == decide::FOREGROUND {
                    self.unblock_circles(&live, &dependents).await?;
                }
                let options = json!({
                    "kind": "DeleteOptions",
                    "apiVersion": "v1",
                    "preconditions": { "uid": live.uid, "resourceVersion": live.resource_version },
                    "propagationPolicy": policy,
                });
                let client = self.context.requests.client();
                let deleted = rest::delete(client, &path, &options).await.during(|| format!("delete {path}"));
                gone_is_fine(deleted).map(drop)
            }
        }
    }

    /// Where a dependent of an object waits in the foreground itself, the object must not wait for it: both would
    /// for ever.
    async fn unblock_circles(&self, live: &Meta, dependents: &[String]) -> Result<(), Error> {
        let circular = {
            let graph = self.graph.lock();
            dependents.iter().filter_map(|d| graph.object(d)).any(|(_, dependent)| {
                dependent.is_deleting() && dependent.finalizers.iter().any(|f| f == FOREGROUND)
            })
        };
        if !circular {
            return Ok(());
        }
        let Some((identity, _)) = self.graph.lock().object(&live.uid) else { return Ok(()) };
        let path = self.resource(&identity).await?.path(&identity.namespace, Some(&identity.name));
        let mut owners = live.owner_references.clone();
        owners.iter_mut().for_each(|o| o.block_owner_deletion = Some(false));
        self.write_owners(&path, live, &owners).await
    }

    async fn owner_state(
        &self,
        dependent: &Identity,
        resource: &Resource,
        owner: &OwnerReference,
    ) -> Result<OwnerState, Error> {
        if let Some(state) = self.graph.lock().owner(dependent, owner) {
            return Ok(state);
        }
        let key = format!("{}/{}", dependent.namespace, owner.uid);
        if self.absent.lock().get(&key).is_some_and(|at| at.elapsed() < ABSENT_FOR) {
            return Ok(OwnerState::Absent);
        }
        let resources = self.context.discovery.resources().await?;
        let Some(kind) = resources.find(&owner.api_version, &owner.kind) else {
            self.queue.add_after(dependent.uid.clone(), UNKNOWN_KIND);
            return Ok(OwnerState::Unknown);
        };
        // A cluster-wide object cannot be owned by one of a namespace: which one is not said.
        if kind.namespaced && !resource.namespaced {
            return Ok(OwnerState::Unknown);
        }
        let path = kind.path(&dependent.namespace, Some(&owner.name));
        match gone_is_fine(self.get(&path).await)? {
            Some(found) if found.metadata.uid == owner.uid => Ok(OwnerState::of(&found.metadata)),
            _ => {
                let mut absent = self.absent.lock();
                absent.retain(|_, at| at.elapsed() < ABSENT_FOR);
                absent.insert(key, Instant::now());
                Ok(OwnerState::Absent)
            }
        }
    }

    /// Foreground deletion: the owner goes when nothing that blocks it is left.
    async fn wait_for_dependents(&self, identity: &Identity, meta: &Meta) -> Result<(), Error> {
        if !self.monitors.all_synced() {
            self.queue.add_after(identity.uid.clone(), Duration::from_millis(200));
            return Ok(());
        }
        let dependents = self.graph.lock().dependents(&identity.uid);
        let mut blocked = false;
        for uid in dependents {
            let Some((_, dependent)) = self.graph.lock().object(&uid) else { continue };
            let blocks = |o: &OwnerReference| o.uid == identity.uid && o.block_owner_deletion == Some(true);
            blocked |= dependent.owner_references.iter().any(blocks);
            if !dependent.is_deleting() {
                self.queue.add(uid);
            }
        }
        if blocked { Ok(()) } else { self.remove_finalizer(identity, meta, FOREGROUND).await }
    }

    /// Orphaning deletion: the dependents forget their owner first.
    async fn orphan_dependents(&self, identity: &Identity, meta: &Meta) -> Result<(), Error> {
        if !self.monitors.all_synced() {
            self.queue.add_after(identity.uid.clone(), Duration::from_millis(200));
            return Ok(());
        }
        let dependents = self.graph.lock().dependents(&identity.uid);
        for uid in dependents {
            let Some((dependent, _)) = self.graph.lock().object(&uid) else { continue };
            let path = self.resource(&dependent).await?.path(&dependent.namespace, Some(&dependent.name));
            let Some(live) = gone_is_fine(self.get(&path).await)? else { continue };
            let live = live.metadata;
            let owners: Vec<_> =
                live.owner_references.iter().filter(|o| o.uid != identity.uid).cloned().collect();
            if live.uid == uid && owners.len() != live.owner_references.len() {
                self.write_owners(&path, &live, &owners).await?;
            }
        }
        self.remove_finalizer(identity, meta, ORPHAN).await
    }

    async fn remove_finalizer(&self, identity: &Identity, meta: &Meta, finalizer: &str) -> Result<(), Error> {
        let path = self.resource(identity).await?.path(&identity.namespace, Some(&identity.name));
        let Some(live) = gone_is_fine(self.get(&path).await)? else { return Ok(()) };
        let live = live.metadata;
        if live.uid != meta.uid || !live.finalizers.iter().any(|f| f == finalizer) {
            return Ok(());
        }
        let rest_of: Vec<&String> = live.finalizers.iter().filter(|f| *f != finalizer).collect();
        let mut metadata = only_if(&live);
        metadata["finalizers"] = json!(rest_of);
        self.patch(&path, &json!({ "metadata": metadata })).await
    }

    async fn write_owners(&self, path: &str, live: &Meta, owners: &[OwnerReference]) -> Result<(), Error> {
        let mut metadata = only_if(live);
        metadata["ownerReferences"] = json!(owners);
        self.patch(path, &json!({ "metadata": metadata })).await
    }

    async fn patch(&self, path: &str, patch: &Value) -> Result<(), Error> {
        let client = self.context.requests.client();
        let patched = rest::patch::<Bare>(client, path, rest::patch::MERGE, patch).await;
        gone_is_fine(patched.during(|| format!("patch {path}"))).map(drop)
    }

    async fn get(&self, path: &str) -> Result<Bare, Error> {
        rest::get(self.context.requests.client(), path).await.during(|| format!("get {path}"))
    }

    async fn resource(&self, identity: &Identity) -> Result<Resource, Error> {
        let resources = self.context.discovery.resources().await?;
        let found = resources.find(&identity.api_version, &identity.kind).cloned();
        found.ok_or_else(|| Error::NotYet(format!("nobody serves the kind of {identity}")))
    }
}

/// Tells the graph of every change of an informer's objects.
pub fn follow<P: Projected>(informer: &Informer<P>, graph: Arc<Mutex<Graph>>, queue: Queue) {
    let version = api_version::<P>();
    informer.on_change(move |change| {
        let mut graph = graph.lock();
        match change {
            Change::Added(object) | Change::Updated { new: object, .. } => {
                graph.apply(&version, P::KIND, object.meta(), &queue);
            }
            Change::Deleted(object) => graph.remove(&object.meta().uid, &queue),
        }
    });
}
