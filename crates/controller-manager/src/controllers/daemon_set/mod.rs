//! DaemonSets: one pod on every node that takes it.

mod plan;

use std::sync::Arc;
use std::time::Duration;

use keelson_client::{Change, EventRecorder, EventType, Key, Projected, WorkQueue, object_ref};

use crate::context::{Context, enqueue};
use crate::kit::{
    Error, batch::slow_start, claim::claim, controller_key, error::gone_is_fine, expect::Expectations,
    history, now, pods,
};
use crate::views::{DaemonSet, Node, Pod, selector};

struct Controller {
    context: Arc<Context>,
    queue: WorkQueue<Key>,
    events: EventRecorder,
    expectations: Expectations,
}

pub async fn run(context: Arc<Context>) {
    let queue = WorkQueue::new();
    let this = Arc::new(Controller {
        context: context.clone(),
        queue: queue.clone(),
        events: context.events("daemonset-controller"),
        expectations: Expectations::default(),
    });
    let informers = &context.informers;
    enqueue(&informers.daemon_sets, &queue);
    let watcher = this.clone();
    informers.pods.on_change(move |change| watcher.pod_changed(change));
    let (sets, all) = (informers.daemon_sets.clone(), queue.clone());
    informers.nodes.on_change(move |change| {
        let matters = |old: &Node, new: &Node| {
            old.metadata.labels != new.metadata.labels || old.spec.taints != new.spec.taints
        };
        if !matches!(change, Change::Updated { old, new } if !matters(old, new)) {
            sets.list().iter().for_each(|set| all.add(set.key()));
        }
    });
    let (changed, sets) = (queue.clone(), informers.daemon_sets.clone());
    informers.revisions.on_change(move |change| {
        if let Some(key) = controller_key::<DaemonSet>(&change.object().metadata) {
            changed.add(key);
        } else if change.object().metadata.controller().is_none() {
            let namespace = change.object().metadata.namespace.clone().unwrap_or_default();
            sets.list_namespace(&namespace).iter().for_each(|set| changed.add(set.key()));
        }
    });
    let reconcile = move |key| {
        let this = this.clone();
        async move { this.sync(key).await }
    };
    context.work("daemonset", queue, context.config.workers, reconcile).await;
}

impl Controller {
    fn pod_changed(&self, change: &Change<Pod>) {
        let pod = change.object();
        let Some(key) = controller_key::<DaemonSet>(&pod.metadata) else {
            if pod.metadata.controller().is_none() && !matches!(change, Change::Deleted(_)) {
                for set in self.context.informers.daemon_sets.list_namespace(pod.namespace()) {
                    if selector(&set.spec.selector).matches(&pod.metadata.labels) {
                        self.queue.add(set.key());
                    }
                }
            }
            return;
        };
        if let Change::Added(pod) = change
            && !pod.metadata.is_deleting()
        {
            self.expectations.created(&key, 1);
        }
        if matches!(change, Change::Deleted(_)) || pod.metadata.is_deleting() {
            self.expectations.deleted(&key, &pod.metadata.uid);
        }
        self.queue.add(key);
    }

    async fn sync(&self, key: Key) -> Result<(), Error> {
        let informers = &self.context.informers;
        let Some(set) = informers.daemon_sets.get(&key) else {
            self.expectations.forget(&key);
            return Ok(());
        };
        let selector = selector(&set.spec.selector);
        if set.metadata.is_deleting() || selector == keelson_api_types::LabelSelector::nothing() {
            return Ok(());
        }
        let requests = &self.context.requests;
        let template = &set.spec.template;
        let history = history::sync(requests, &*set, &selector, &informers.revisions, template).await?;
        let owned = claim(requests, &*set, &selector, &informers.pods).await?;
        let nodes = informers.nodes.list();
        let state =
            plan::State { set: &set, nodes: &nodes, pods: &owned, hash: &history.update.hash, now: now() };
        let mut failure = None;
        if self.expectations.satisfied(&key) {
            let actions = state.actions();
            failure = self.execute(&key, &set, &history.update.hash, actions).await.err();
        }
        let status = state.status();
        if status != set.status {
            gone_is_fine(requests.patch_status::<DaemonSet>(&set.metadata, &status).await)?;
        }
        if let Some(seconds) = state.check_in() {
            self.queue.add_after(key, Duration::from_secs(seconds.unsigned_abs()));
        }
        if let Some(error) = failure {
            return if error.is_namespace_terminating() { Ok(()) } else { Err(error) };
        }
        let in_use = |revision: &history::Revision| {
            let label = |p: &Arc<Pod>| p.metadata.labels.get(history::REVISION_LABEL).cloned();
            owned.iter().filter_map(label).any(|hash| hash == revision.hash)
        };
        history::truncate(requests, &history.old, set.spec.revision_history_limit, in_use).await
    }

    async fn execute(
        &self,
        key: &Key,
        set: &Arc<DaemonSet>,
        hash: &str,
        actions: plan::Actions,
    ) -> Result<(), Error> {
        let doomed = actions.delete.iter().map(|p| p.metadata.uid.clone());
        self.expectations.expect(key, actions.create.len(), doomed);
        for pod in &actions.failed {
            let message = format!(
                "Found failed daemon pod {} on node {}, will try to kill it",
                pod.metadata.key(),
                pod.spec.node_name
            );
            self.events.event(&object_ref(&**set), EventType::Warning, "FailedDaemonPod", message);
        }
        let create = |index: usize| {
            let pod = plan::pod(set, &actions.create[index], hash);
            async move {
                let made = pods::create(&self.context.requests, &self.events, &**set, &pod).await;
                made.map(drop).inspect_err(|_| self.expectations.created(key, 1))
            }
        };
        let outcome = slow_start(actions.create.len(), create).await;
        self.expectations.created(key, outcome.skipped);
        let mut error = outcome.error;
        for pod in &actions.delete {
            let deleted = pods::delete(&self.context.requests, &self.events, &**set, &pod.metadata).await;
            if let Err(failed) = deleted {
                self.expectations.deleted(key, &pod.metadata.uid);
                if !failed.is_not_found() {
                    error.get_or_insert(failed);
                }
            }
        }
        error.map_or(Ok(()), Err)
    }
}
