//! Jobs: pods that run to their end, each counted once, whatever is lost in between.

mod indexes;
mod plan;
mod policy;

use std::sync::Arc;
use std::time::Duration;

use keelson_client::{Change, EventRecorder, EventType, Key, Projected, WorkQueue, object_ref};
use serde_json::{Value, json};

use crate::context::{Context, enqueue};
use crate::kit::{
    Error, batch::slow_start, claim::claim, conditions, controller_key, error::gone_is_fine,
    expect::Expectations, now, pods,
};
use crate::views::{Job, Pod, selector};

pub use plan::is_finished;
use plan::{FINALIZER, INDEX, INDEX_FAILURES};

struct Controller {
    context: Arc<Context>,
    queue: WorkQueue<Key>,
    /// Pods whose job is gone.
    orphans: WorkQueue<Key>,
    events: EventRecorder,
    expectations: Expectations,
}

pub async fn run(context: Arc<Context>) {
    let this = Arc::new(Controller {
        context: context.clone(),
        queue: WorkQueue::new(),
        orphans: WorkQueue::new(),
        events: context.events("job-controller"),
        expectations: Expectations::default(),
    });
    let informers = &context.informers;
    enqueue(&informers.jobs, &this.queue);
    let (watcher, pods) = (this.clone(), Arc::downgrade(&informers.pods));
    informers.jobs.on_change(move |change| {
        if let (Change::Deleted(job), Some(pods)) = (change, pods.upgrade()) {
            for pod in pods.by_index(crate::kit::CONTROLLER, &job.metadata.uid) {
                watcher.orphans.add(pod.metadata.key());
            }
        }
    });
    let watcher = this.clone();
    informers.pods.on_change(move |change| watcher.pod_changed(change));
    let (jobs, freer) = (this.clone(), this.clone());
    let reconcile = move |key| {
        let this = jobs.clone();
        async move { this.sync(key).await }
    };
    let free = move |key| {
        let this = freer.clone();
        async move { this.free_orphan(key).await }
    };
    tokio::join!(
        context.work("job", this.queue.clone(), context.config.workers, reconcile),
        context.work("job-orphan", this.orphans.clone(), 1, free),
    );
}

/// A pod of a job: with its index, where it has one, and held until it is counted.
fn pod(job: &Job, index: Option<i32>, failures: i32) -> Value {
    let mut pod = pods::from_template(&job.spec.template, job);
    let mut finalizers: Vec<Value> =
        pod["metadata"].get("finalizers").and_then(Value::as_array).cloned().unwrap_or_default();
    finalizers.push(FINALIZER.into());
    pod["metadata"]["finalizers"] = finalizers.into();
    let Some(index) = index else { return pod };
    let name = &job.metadata.name;
    pod["metadata"]["generateName"] = format!("{name}-{index}-").into();
    pod["metadata"]["annotations"][INDEX] = index.to_string().into();
    pod["metadata"]["labels"][INDEX] = index.to_string().into();
    if job.spec.backoff_limit_per_index.is_some() {
        pod["metadata"]["annotations"][INDEX_FAILURES] = failures.to_string().into();
    }
    pod["spec"]["hostname"] = format!("{name}-{index}").into();
    let variable = json!({
        "name": "JOB_COMPLETION_INDEX",
        "valueFrom": { "fieldRef": { "fieldPath": format!("metadata.labels['{INDEX}']") } },
    });
    for list in ["initContainers", "containers"] {
        for container in pod["spec"].get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            let env = container.get("env").and_then(Value::as_array).cloned().unwrap_or_default();
            if env.iter().any(|v| v["name"] == "JOB_COMPLETION_INDEX") {
                continue;
            }
            let mut all = vec![variable.clone()];
            all.extend(env);
            container["env"] = all.into();
        }
    }
    pod
}

impl Controller {
    fn pod_changed(&self, change: &Change<Pod>) {
        let pod = change.object();
        let Some(key) = controller_key::<Job>(&pod.metadata) else {
            if pod.metadata.controller().is_none() && !matches!(change, Change::Deleted(_)) {
                for job in self.context.informers.jobs.list_namespace(pod.namespace()) {
                    if selector(&job.spec.selector).matches(&pod.metadata.labels) {
                        self.queue.add(job.key());
                    }
                }
                if pod.metadata.finalizers.iter().any(|f| f == FINALIZER) {
                    self.orphans.add(pod.metadata.key());
                }
            }
            return;
        };
        match change {
            Change::Added(_) => self.expectations.created(&key, 1),
            Change::Deleted(_) => self.expectations.deleted(&key, &pod.metadata.uid),
            Change::Updated { .. } if pod.metadata.is_deleting() => {
                self.expectations.deleted(&key, &pod.metadata.uid);
            }
            Change::Updated { .. } => {}
        }
        if self.context.informers.jobs.has_synced() && self.context.informers.jobs.get(&key).is_none() {
            self.orphans.add(pod.metadata.key());
        }
        self.queue.add(key);
    }

    /// Lets a pod go that no job counts.
    async fn free_orphan(&self, key: Key) -> Result<(), Error> {
        let informers = &self.context.informers;
        let Some(pod) = informers.pods.get(&key) else { return Ok(()) };
        let held = pod.metadata.finalizers.iter().any(|f| f == FINALIZER);
        let job = controller_key::<Job>(&pod.metadata).and_then(|key| informers.jobs.get(&key));
        let counted = job.is_some_and(|j| pod.metadata.controller().is_some_and(|o| o.uid == j.metadata.uid));
        if !held || counted {
            return Ok(());
        }
        gone_is_fine(self.context.requests.remove_finalizer::<Pod>(&pod.metadata, FINALIZER).await).map(drop)
    }

    async fn sync(&self, key: Key) -> Result<(), Error> {
        let informers = &self.context.informers;
        let Some(job) = informers.jobs.get(&key) else {
            self.expectations.forget(&key);
            return Ok(());
        };
        if job.spec.managed_by.as_ref().is_some_and(|m| m != "kubernetes.io/job-controller") {
            return Ok(());
        }
        if self.expire(&job).await? {
            return Ok(());
        }
        let requests = &self.context.requests;
        let owned = claim(requests, &*job, &selector(&job.spec.selector), &informers.pods).await?;
        let plan = plan::plan(&job, &owned, now());
        if plan.status != job.status {
            let patched = requests.patch_status::<Job>(&job.metadata, &plan.status).await;
            if gone_is_fine(patched)?.is_none() {
                return Ok(());
            }
        }
        for (reason, message, trouble) in plan.events {
            let kind = if trouble { EventType::Warning } else { EventType::Normal };
            self.events.event(&object_ref(&*job), kind, &reason, message);
        }
        for pod in &plan.release {
            gone_is_fine(requests.remove_finalizer::<Pod>(&pod.metadata, FINALIZER).await)?;
        }
        if let Some(seconds) = plan.check_in {
            self.queue.add_after(key.clone(), Duration::from_secs(seconds.unsigned_abs()));
        }
        if !self.expectations.satisfied(&key) {
            return Ok(());
        }
        match self.scale(&key, &job, plan.delete, plan.create).await {
            Err(error) if error.is_namespace_terminating() => Ok(()),
            result => result,
        }
    }

    async fn scale(
        &self,
        key: &Key,
        job: &Arc<Job>,
        delete: Vec<Arc<Pod>>,
        create: Vec<(Option<i32>, i32)>,
    ) -> Result<(), Error> {
        if delete.is_empty() && create.is_empty() {
            return Ok(());
        }
        let requests = &self.context.requests;
        self.expectations.expect(key, create.len(), delete.iter().map(|p| p.metadata.uid.clone()));
        let mut failure = None;
        for pod in delete {
            // What is deleted on purpose counts neither as success nor as failure.
            let freed = requests.remove_finalizer::<Pod>(&pod.metadata, FINALIZER).await;
            let deleted = match gone_is_fine(freed) {
                Ok(_) => pods::delete(requests, &self.events, &**job, &pod.metadata).await,
                Err(error) => Err(error),
            };
            if let Err(error) = deleted {
                self.expectations.deleted(key, &pod.metadata.uid);
                if !error.is_not_found() {
                    failure.get_or_insert(error);
                }
            }
        }
        let make = |i: usize| {
            let (index, failures) = create[i];
            let pod = pod(job, index, failures);
            async move {
                let made = pods::create(requests, &self.events, &**job, &pod).await;
                made.map(drop).inspect_err(|_| self.expectations.created(key, 1))
            }
        };
        let outcome = slow_start(create.len(), make).await;
        self.expectations.created(key, outcome.skipped);
        failure.or(outcome.error).map_or(Ok(()), Err)
    }

    /// Deletes a finished job whose time is over. Says whether it did.
    async fn expire(&self, job: &Job) -> Result<bool, Error> {
        let Some(ttl) = job.spec.ttl_seconds_after_finished else { return Ok(false) };
        if !is_finished(&job.status) || job.metadata.is_deleting() {
            return Ok(false);
        }
        let ends = ["Complete", "Failed"].iter().filter_map(|k| conditions::find(&job.status.conditions, k));
        let ended = ends.filter_map(|c| c.last_transition_time).max().unwrap_or_else(now);
        let left = ended.as_second() + ttl - now().as_second();
        if left > 0 {
            self.queue.add_after(job.key(), Duration::from_secs(left.unsigned_abs()));
            return Ok(false);
        }
        let options = json!({ "propagationPolicy": "Foreground" });
        gone_is_fine(self.context.requests.delete_with::<Job>(&job.metadata, options).await)?;
        Ok(true)
    }
}
