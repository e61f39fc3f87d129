//! StatefulSets: pods with names, claims and an order.

mod identity;
mod plan;

use std::sync::Arc;
use std::time::Duration;

use keelson_api_types::LabelSelector;
use keelson_client::{Change, EventRecorder, EventType, Key, Projected, WorkQueue, object_ref};
use serde_json::Value;

use crate::context::{Context, enqueue};
use crate::kit::{Error, claim::claim, controller_key, error::gone_is_fine, history, now};
use crate::views::{PersistentVolumeClaim, Pod, StatefulSet, selector};

use plan::{Op, State};

struct Controller {
    context: Arc<Context>,
    queue: WorkQueue<Key>,
    events: EventRecorder,
}

pub async fn run(context: Arc<Context>) {
    let queue = WorkQueue::new();
    let informers = &context.informers;
    enqueue(&informers.stateful_sets, &queue);
    let (changed, sets) = (queue.clone(), informers.stateful_sets.clone());
    informers.pods.on_change(move |change| {
        let pod = change.object();
        if let Change::Updated { old, .. } = change
            && let Some(key) = controller_key::<StatefulSet>(&old.metadata)
        {
            changed.add(key);
        }
        match controller_key::<StatefulSet>(&pod.metadata) {
            Some(key) => changed.add(key),
            None if pod.metadata.controller().is_none() => {
                for set in sets.list_namespace(pod.namespace()) {
                    if selector(&set.spec.selector).matches(&pod.metadata.labels) {
                        changed.add(set.key());
                    }
                }
            }
            None => {}
        }
    });
    let changed = queue.clone();
    informers.revisions.on_change(move |change| {
        changed.add_maybe(controller_key::<StatefulSet>(&change.object().metadata));
    });
    let this = Arc::new(Controller {
        context: context.clone(),
        queue: queue.clone(),
        events: context.events("statefulset-controller"),
    });
    let reconcile = move |key| {
        let this = this.clone();
        async move { this.sync(key).await }
    };
    context.work("statefulset", queue, context.config.workers, reconcile).await;
}

trait AddMaybe {
    fn add_maybe(&self, key: Option<Key>);
}

impl AddMaybe for WorkQueue<Key> {
    fn add_maybe(&self, key: Option<Key>) {
        if let Some(key) = key {
            self.add(key);
        }
    }
}

impl Controller {
    async fn sync(&self, key: Key) -> Result<(), Error> {
        let informers = &self.context.informers;
        let Some(set) = informers.stateful_sets.get(&key) else { return Ok(()) };
        let selector = selector(&set.spec.selector);
        if set.metadata.is_deleting() || selector == LabelSelector::nothing() {
            return Ok(());
        }
        let requests = &self.context.requests;
        let template = &set.spec.template;
        let history = history::sync(requests, &*set, &selector, &informers.revisions, template).await?;
        let mut owned = claim(requests, &*set, &selector, &informers.pods).await?;
        owned.retain(|p| identity::ordinal(&set.metadata.name, &p.metadata.name).is_some());
        let known = |name: &String| {
            let found = history.old.iter().find(|r| r.metadata.name == *name);
            found.map(|r| history::Revision::of(r))
        };
        let current = known(&set.status.current_revision).unwrap_or_else(|| history.update.clone());
        let state = State { set: &set, pods: &owned, current: &current, update: &history.update, now: now() };
        let plan = state.plan();
        let result = self.execute(&set, plan.ops).await;
        if plan.status != set.status {
            gone_is_fine(requests.patch_status::<StatefulSet>(&set.metadata, &plan.status).await)?;
        }
        if let Some(seconds) = plan.check_in {
            self.queue.add_after(key, Duration::from_secs(seconds.unsigned_abs()));
        }
        match result {
            Err(error) if error.is_namespace_terminating() => return Ok(()),
            result => result?,
        }
        let in_use = |revision: &history::Revision| {
            revision.name == current.name
                || owned
                    .iter()
                    .any(|p| p.metadata.labels.get(history::REVISION_LABEL) == Some(&revision.name))
        };
        history::truncate(requests, &history.old, set.spec.revision_history_limit, in_use).await
    }

    async fn execute(&self, set: &Arc<StatefulSet>, ops: Vec<Op>) -> Result<(), Error> {
        for op in ops {
            match op {
                Op::Create { pod, claims } => self.create(set, &pod, &claims).await?,
                Op::Delete(pod) => {
                    let message =
                        format!("delete Pod {} in StatefulSet {} successful", pod.name, set.metadata.name);
                    match self.context.requests.delete::<Pod>(&pod).await {
                        Ok(()) => self.event(set, EventType::Normal, "SuccessfulDelete", message),
                        Err(error) if error.is_not_found() => {}
                        Err(error) => return Err(error),
                    }
                }
                Op::Patch { pod, patch } => {
                    gone_is_fine(self.context.requests.patch::<Pod>(&pod, None, &patch).await)?;
                }
                Op::DeleteClaims(names) => self.delete_claims(set, names).await?,
            }
        }
        Ok(())
    }

    async fn create(&self, set: &Arc<StatefulSet>, pod: &Value, claims: &[Value]) -> Result<(), Error> {
        let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        for claim in claims {
            let claim_name = claim["metadata"]["name"].as_str().unwrap_or_default();
            let known = self.context.informers.claims.get(&Key::new(namespace, claim_name));
            if let Some(known) = known {
                if known.metadata.is_deleting() {
                    return Err(Error::NotYet(format!("the claim {claim_name} is being deleted")));
                }
                continue;
            }
            let subject =
                format!("create Claim {claim_name} Pod {name} in StatefulSet {}", set.metadata.name);
            match self.context.requests.create::<PersistentVolumeClaim>(namespace, claim).await {
                Ok(_) => {
                    self.event(set, EventType::Normal, "SuccessfulCreate", format!("{subject} success"));
                }
                Err(error) if error.is_conflict() => {}
                Err(error) => {
                    let message = format!("{subject} failed error: {}", error.answer());
                    self.event(set, EventType::Warning, "FailedCreate", message);
                    return Err(error);
                }
            }
        }
        let subject = format!("create Pod {name} in StatefulSet {}", set.metadata.name);
        match self.context.requests.create::<Pod>(namespace, pod).await {
            Ok(_) => {
                self.event(set, EventType::Normal, "SuccessfulCreate", format!("{subject} successful"));
                Ok(())
            }
            Err(error) => {
                if !error.is_namespace_terminating() {
                    let message = format!("{subject} failed error: {}", error.answer());
                    self.event(set, EventType::Warning, "FailedCreate", message);
                }
                Err(error)
            }
        }
    }

    /// Claims of pods that were scaled away, where the set says so.
    async fn delete_claims(&self, set: &StatefulSet, names: Vec<String>) -> Result<(), Error> {
        let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
        for name in names {
            if let Some(claim) = self.context.informers.claims.get(&Key::new(namespace, name)) {
                gone_is_fine(self.context.requests.delete::<PersistentVolumeClaim>(&claim.metadata).await)?;
            }
        }
        Ok(())
    }

    fn event(&self, set: &Arc<StatefulSet>, kind: EventType, reason: &str, message: String) {
        self.events.event(&object_ref(&**set), kind, reason, message);
    }
}
