//! Deployments: one ReplicaSet per template, and the way from one to the next.

mod history;
mod plan;
mod progress;
mod rollout;

use std::sync::Arc;
use std::time::Duration;

use keelson_client::{EventRecorder, EventType, Key, Projected, WorkQueue, object_ref};
use serde_json::json;

use crate::context::{Context, enqueue};
use crate::kit::{
    Condition, Error, claim::claim, conditions, controller_key, error::gone_is_fine, now, only_if,
};
use crate::views::{Deployment, Pod, ReplicaSet, selector};

use plan::{Op, Plan};

struct Controller {
    context: Arc<Context>,
    queue: WorkQueue<Key>,
    events: EventRecorder,
}

pub async fn run(context: Arc<Context>) {
    let queue = WorkQueue::new();
    let informers = &context.informers;
    enqueue(&informers.deployments, &queue);
    let (changed, deployments) = (queue.clone(), informers.deployments.clone());
    informers.replica_sets.on_change(move |change| {
        if let keelson_client::Change::Updated { old, .. } = change
            && let Some(key) = controller_key::<Deployment>(&old.metadata)
        {
            changed.add(key);
        }
        let set = change.object();
        match controller_key::<Deployment>(&set.metadata) {
            Some(key) => changed.add(key),
            None => {
                let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
                for deployment in deployments.list_namespace(namespace) {
                    if selector(&deployment.spec.selector).matches(&set.metadata.labels) {
                        changed.add(deployment.key());
                    }
                }
            }
        }
    });
    // A Recreate rollout goes on when the last old pod is gone.
    let (changed, sets) = (queue.clone(), informers.replica_sets.clone());
    informers.pods.on_change(move |change| {
        if let keelson_client::Change::Deleted(pod) = change
            && let Some(set) = controller_key::<ReplicaSet>(&pod.metadata).and_then(|key| sets.get(&key))
            && let Some(key) = controller_key::<Deployment>(&set.metadata)
        {
            changed.add(key);
        }
    });
    let this = Arc::new(Controller {
        context: context.clone(),
        queue: queue.clone(),
        events: context.events("deployment-controller"),
    });
    let reconcile = move |key| {
        let this = this.clone();
        async move { this.sync(key).await }
    };
    context.work("deployment", queue, context.config.workers, reconcile).await;
}

impl Controller {
    async fn sync(&self, key: Key) -> Result<(), Error> {
        let informers = &self.context.informers;
        let Some(deployment) = informers.deployments.get(&key) else { return Ok(()) };
        let selector = selector(&deployment.spec.selector);
        let sets = claim(&self.context.requests, &*deployment, &selector, &informers.replica_sets).await?;
        let running = |set: &ReplicaSet| {
            let pods = informers.pods.by_index(crate::kit::CONTROLLER, &set.metadata.uid);
            pods.iter().any(|p: &Arc<Pod>| !p.is_finished())
        };
        let running: Vec<String> =
            sets.iter().filter(|s| running(s)).map(|s| s.metadata.uid.clone()).collect();
        let plan = plan::plan(&deployment, &sets, &running, now());
        self.execute(&deployment, plan).await
    }

    async fn execute(&self, deployment: &Deployment, plan: Plan) -> Result<(), Error> {
        let mut meta = deployment.metadata.clone();
        let mut status = plan.status;
        for op in plan.ops {
            match op {
                Op::Create { set, from_zero_to } => match self.create(deployment, &set).await? {
                    Made::New(name) => {
                        if from_zero_to > 0 {
                            let message = format!("Scaled up replica set {name} from 0 to {from_zero_to}");
                            self.event(deployment, EventType::Normal, "ScalingReplicaSet", message);
                        }
                    }
                    Made::Known => {}
                    Made::Collision => {
                        status = deployment.status.clone();
                        status.collision_count = Some(status.collision_count.unwrap_or(0) + 1);
                        self.context.requests.patch_status::<Deployment>(&meta, &status).await?;
                        return Err(Error::NotYet("another ReplicaSet has the name".to_owned()));
                    }
                },
                Op::Scale { set, from, to, annotations } => {
                    let metadata = json!({
                        "uid": set.uid, "resourceVersion": set.resource_version, "annotations": annotations,
                    });
                    let mut patch = json!({ "metadata": metadata });
                    if from != to {
                        patch["spec"]["replicas"] = to.into();
                    }
                    self.context.requests.patch::<ReplicaSet>(&set, None, &patch).await?;
                    if from != to {
                        let way = if from < to { "up" } else { "down" };
                        let message = format!("Scaled {way} replica set {} from {from} to {to}", set.name);
                        self.event(deployment, EventType::Normal, "ScalingReplicaSet", message);
                    }
                }
                Op::Update { set, annotations, min_ready_seconds } => {
                    let mut metadata = only_if(&set);
                    metadata["annotations"] = json!(annotations);
                    let patch =
                        json!({ "metadata": metadata, "spec": { "minReadySeconds": min_ready_seconds } });
                    self.context.requests.patch::<ReplicaSet>(&set, None, &patch).await?;
                }
                Op::Delete(set) => {
                    gone_is_fine(self.context.requests.delete::<ReplicaSet>(&set).await)?;
                }
                Op::Revision(revision) => {
                    let annotations = json!({ history::REVISION: revision });
                    let patch = json!({ "metadata": { "annotations": annotations } });
                    meta = self.context.requests.patch::<Deployment>(&meta, None, &patch).await?.metadata;
                }
            }
        }
        if status != deployment.status {
            let patched = self.context.requests.patch_status::<Deployment>(&meta, &status).await;
            gone_is_fine(patched)?;
        }
        if let Some(seconds) = plan.check_in {
            self.queue.add_after(deployment.key(), Duration::from_secs(seconds));
        }
        Ok(())
    }

    async fn create(&self, deployment: &Deployment, set: &serde_json::Value) -> Result<Made, Error> {
        let namespace = deployment.metadata.namespace.as_deref().unwrap_or_default();
        let name = set["metadata"]["name"].as_str().unwrap_or_default();
        match self.context.requests.create::<ReplicaSet>(namespace, set).await {
            Ok(made) => Ok(Made::New(made.metadata.name)),
            Err(error) if error.is_conflict() => {
                let known = self.context.requests.get::<ReplicaSet>(namespace, name).await?;
                let ours = known.metadata.controller().is_some_and(|o| o.uid == deployment.metadata.uid);
                let same = ours && history::same_template(&deployment.spec.template, &known.spec.template);
                Ok(if same { Made::Known } else { Made::Collision })
            }
            Err(error) if error.is_namespace_terminating() => Err(error),
            Err(error) => {
                let message = format!("Failed to create new replica set {name:?}: {}", error.answer());
                self.event(deployment, EventType::Warning, "ReplicaSetCreateError", message.clone());
                if deployment.spec.progress_deadline_seconds.is_some_and(|s| s < i32::MAX) {
                    let mut status = deployment.status.clone();
                    let condition = Condition {
                        last_update_time: Some(now()),
                        ..Condition::new("Progressing", false, "ReplicaSetCreateError", message)
                    };
                    if conditions::set(&mut status.conditions, condition) {
                        let meta = &deployment.metadata;
                        self.context.requests.patch_status::<Deployment>(meta, &status).await?;
                    }
                }
                Err(error)
            }
        }
    }

    fn event(&self, deployment: &Deployment, kind: EventType, reason: &str, message: String) {
        self.events.event(&object_ref(deployment), kind, reason, message);
    }
}

enum Made {
    New(String),
    /// It was there already.
    Known,
    /// Another template's has the name.
    Collision,
}
