//! ReplicaSets and ReplicationControllers: as many pods as asked for.

mod plan;

use std::sync::Arc;
use std::time::Duration;

use keelson_client::{Change, EventRecorder, Informer, Key, WorkQueue};

use crate::context::{Context, enqueue};
use crate::kit::{
    Condition, Error, batch::slow_start, claim::claim, conditions, controller_key, expect::Expectations, now,
    pods,
};
use crate::views::{Pod, Replicated};

pub use plan::{Scale, calculate_status, scale};

struct Controller<R> {
    context: Arc<Context>,
    sets: Arc<Informer<R>>,
    queue: WorkQueue<Key>,
    events: EventRecorder,
    expectations: Expectations,
}

/// Runs the controller of one of the two kinds.
pub async fn run<R: Replicated>(context: Arc<Context>, name: &'static str, sets: Arc<Informer<R>>) {
    let queue = WorkQueue::new();
    let this = Arc::new(Controller {
        context: context.clone(),
        sets: sets.clone(),
        queue: queue.clone(),
        events: context.events(R::COMPONENT),
        expectations: Expectations::default(),
    });
    enqueue(&sets, &queue);
    let watcher = this.clone();
    context.informers.pods.on_change(move |change| watcher.pod_changed(change));
    let reconcile = move |key| {
        let this = this.clone();
        async move { this.sync(key).await }
    };
    context.work(name, queue, context.config.workers, reconcile).await;
}

impl<R: Replicated> Controller<R> {
    fn pod_changed(&self, change: &Change<Pod>) {
        let pod = change.object();
        let owner = controller_key::<R>(&pod.metadata);
        match change {
            Change::Added(pod) if !pod.metadata.is_deleting() => {
                if let Some(key) = &owner {
                    self.expectations.created(key, 1);
                }
            }
            Change::Added(pod) | Change::Deleted(pod) => {
                if let Some(key) = &owner {
                    self.expectations.deleted(key, &pod.metadata.uid);
                }
            }
            Change::Updated { old, new } => {
                let before = controller_key::<R>(&old.metadata);
                if new.metadata.is_deleting()
                    && let Some(key) = &owner
                {
                    self.expectations.deleted(key, &new.metadata.uid);
                }
                if before != owner
                    && let Some(key) = before
                {
                    self.queue.add(key);
                }
            }
        }
        match owner {
            Some(key) => self.queue.add(key),
            None if pod.metadata.controller().is_none() => self.wake_adopters(change),
            None => {}
        }
    }

    /// An orphan that appears or is labelled may be wanted.
    fn wake_adopters(&self, change: &Change<Pod>) {
        let pod = match change {
            Change::Deleted(_) => return,
            Change::Updated { old, new }
                if old.metadata.labels == new.metadata.labels
                    && old.metadata.owner_references == new.metadata.owner_references =>
            {
                return;
            }
            change => change.object(),
        };
        if pod.metadata.labels.is_empty() {
            return;
        }
        for set in self.sets.list_namespace(pod.namespace()) {
            if set.selector().matches(&pod.metadata.labels) {
                self.queue.add(set.key());
            }
        }
    }

    async fn sync(&self, key: Key) -> Result<(), Error> {
        let Some(set) = self.sets.get(&key) else {
            self.expectations.forget(&key);
            return Ok(());
        };
        let settled = self.expectations.satisfied(&key);
        let mut owned =
            claim(&self.context.requests, &*set, &set.selector(), &self.context.informers.pods).await?;
        owned.retain(|p| p.is_active());
        let failure = match settled && !set.meta().is_deleting() {
            true => self.manage(&key, &set, &owned).await.err(),
            false => None,
        };
        self.update_status(&set, &owned, failure.as_ref()).await?;
        let wait = plan::next_available(&*set, &owned, now());
        if let Some(seconds) = wait {
            self.queue.add_after(key, Duration::from_secs(seconds.unsigned_abs()));
        }
        match failure {
            Some((_, error)) if !error.is_namespace_terminating() => Err(error),
            _ => Ok(()),
        }
    }

    /// Creates what is missing or deletes what is too many. The error says which of both failed.
    async fn manage(&self, key: &Key, set: &Arc<R>, owned: &[Arc<Pod>]) -> Result<(), (&'static str, Error)> {
        let related = || self.related(set);
        match scale(&**set, owned, related, now()) {
            Scale::Keep => Ok(()),
            Scale::Create(count) => {
                self.expectations.expect_creations(key, count);
                let pod = pods::from_template(&set.spec().template, &**set);
                let create = |_| async {
                    let made = pods::create(&self.context.requests, &self.events, &**set, &pod).await;
                    made.map(drop).inspect_err(|_| self.expectations.created(key, 1))
                };
                let outcome = slow_start(count, create).await;
                self.expectations.created(key, outcome.skipped);
                outcome.error.map_or(Ok(()), |error| Err(("FailedCreate", error)))
            }
            Scale::Delete(doomed) => {
                let uids = doomed.iter().map(|p| p.metadata.uid.clone());
                self.expectations.expect_deletions(key, uids);
                let delete = |pod: Arc<Pod>| async move {
                    let deleted =
                        pods::delete(&self.context.requests, &self.events, &**set, &pod.metadata).await;
                    match deleted {
                        Ok(()) => Ok(()),
                        Err(error) => {
                            // What does not show as deleted must not be waited for.
                            self.expectations.deleted(key, &pod.metadata.uid);
                            if error.is_not_found() { Ok(()) } else { Err(error) }
                        }
                    }
                };
                let results = futures::future::join_all(doomed.into_iter().map(delete)).await;
                results.into_iter().find_map(Result::err).map_or(Ok(()), |e| Err(("FailedDelete", e)))
            }
        }
    }

    /// The active pods of all sets of the same owner: where a Deployment has many on a node, one goes there first.
    fn related(&self, set: &R) -> Vec<Arc<Pod>> {
        let pods = &self.context.informers.pods;
        let of = |uid: &str| pods.by_index(crate::kit::CONTROLLER, uid);
        let Some(owner) = set.meta().controller() else { return of(&set.meta().uid) };
        let siblings = self.sets.list_namespace(set.meta().namespace.as_deref().unwrap_or_default());
        siblings
            .iter()
            .filter(|s| s.meta().controller().is_some_and(|o| o.uid == owner.uid))
            .flat_map(|s| of(&s.meta().uid))
            .collect()
    }

    async fn update_status(
        &self,
        set: &Arc<R>,
        owned: &[Arc<Pod>],
        failure: Option<&(&'static str, Error)>,
    ) -> Result<(), Error> {
        let mut status = calculate_status(&**set, owned, now());
        match failure {
            Some((reason, error)) => {
                if conditions::find(&status.conditions, "ReplicaFailure").is_none() {
                    let condition = Condition::new("ReplicaFailure", true, reason, error.answer());
                    conditions::set(&mut status.conditions, condition);
                }
            }
            None => {
                conditions::remove(&mut status.conditions, "ReplicaFailure");
            }
        }
        if status == *set.status() {
            return Ok(());
        }
        let patched = self.context.requests.patch_status::<R>(set.meta(), &status).await;
        crate::kit::error::gone_is_fine(patched).map(drop)
    }
}
