//! PodDisruptionBudgets: how many pods may be evicted now.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use keelson_api_types::LabelSelector;
use keelson_client::{Key, Projected, WorkQueue};

use crate::context::{Context, enqueue};
use crate::kit::{Condition, Error, conditions, controller_key, error::gone_is_fine, now, scaled};
use crate::views::{
    Deployment, DisruptionBudget, DisruptionBudgetStatus, Pod, ReplicaSet, ReplicationController, StatefulSet,
};

/// An eviction that was granted is in effect by then, or has failed.
const EVICTION_SECONDS: i64 = 120;

/// The budget's selector: none selects nothing, an empty one everything.
fn selector(budget: &DisruptionBudget) -> LabelSelector {
    LabelSelector::from_object(budget.spec.selector.as_ref()).unwrap_or_else(|_| LabelSelector::nothing())
}

/// The status of a budget; `expected` is how many pods the controllers of its pods want.
fn status(
    budget: &DisruptionBudget,
    pods: &[Arc<Pod>],
    expected: i32,
    now: Timestamp,
) -> DisruptionBudgetStatus {
    let by_name = |name: &String| pods.iter().find(|p| p.metadata.name == *name);
    let disrupted: BTreeMap<String, Timestamp> = budget
        .status
        .disrupted_pods
        .iter()
        .filter(|(name, at)| {
            let fresh = now.as_second() - at.as_second() < EVICTION_SECONDS;
            fresh && by_name(name).is_some_and(|p| !p.metadata.is_deleting())
        })
        .map(|(name, at)| (name.clone(), *at))
        .collect();
    let counts = |p: &&Arc<Pod>| p.is_ready() && p.is_active() && !disrupted.contains_key(&p.metadata.name);
    let healthy = pods.iter().filter(counts).count() as i32;
    let (expected, desired) = match (&budget.spec.max_unavailable, &budget.spec.min_available) {
        (Some(max), _) => (expected, (expected - scaled(Some(max), expected, true)).max(0)),
        (None, Some(min)) if min.is_string() => (expected, scaled(Some(min), expected, true)),
        (None, Some(min)) => (pods.len() as i32, scaled(Some(min), 0, true)),
        (None, None) => (expected, 0),
    };
    let allowed = if expected <= 0 { 0 } else { (healthy - desired).max(0) };
    let mut all = budget.status.conditions.clone();
    let (good, reason) = if allowed > 0 { (true, "SufficientPods") } else { (false, "InsufficientPods") };
    let mut condition = Condition::new("DisruptionAllowed", good, reason, "");
    condition.more.insert("observedGeneration".to_owned(), budget.metadata.generation.into());
    condition.more.insert("message".to_owned(), "".into());
    conditions::set(&mut all, condition);
    DisruptionBudgetStatus {
        observed_generation: budget.metadata.generation,
        disrupted_pods: disrupted,
        disruptions_allowed: allowed,
        current_healthy: healthy,
        desired_healthy: desired,
        expected_pods: expected,
        conditions: all,
    }
}

pub async fn run(context: Arc<Context>) {
    let queue = WorkQueue::<Key>::new();
    let informers = &context.informers;
    enqueue(&informers.budgets, &queue);
    let (budgets, changed) = (informers.budgets.clone(), queue.clone());
    informers.pods.on_change(move |change| {
        let pod = change.object();
        for budget in budgets.list_namespace(pod.namespace()) {
            if selector(&budget).matches(&pod.metadata.labels) {
                changed.add(budget.key());
            }
        }
    });
    wake_by_scale(&context, &queue, &informers.replica_sets);
    wake_by_scale(&context, &queue, &informers.replication_controllers);
    wake_by_scale(&context, &queue, &informers.stateful_sets);
    wake_by_scale(&context, &queue, &informers.deployments);
    let (this, again) = (context.clone(), queue.clone());
    let reconcile = move |key: Key| {
        let (context, queue) = (this.clone(), again.clone());
        async move { sync(&context, &queue, key).await }
    };
    context.work("disruption", queue, 2, reconcile).await;
}

/// What controllers want is part of what budgets allow.
fn wake_by_scale<P: Projected>(
    context: &Context,
    queue: &WorkQueue<Key>,
    informer: &keelson_client::Informer<P>,
) {
    let (budgets, queue) = (context.informers.budgets.clone(), queue.clone());
    informer.on_change(move |change| {
        let meta = change.object().meta();
        for budget in budgets.list_namespace(meta.namespace.as_deref().unwrap_or_default()) {
            queue.add(budget.key());
        }
    });
}

async fn sync(context: &Context, queue: &WorkQueue<Key>, key: Key) -> Result<(), Error> {
    let Some(budget) = context.informers.budgets.get(&key) else { return Ok(()) };
    if budget.metadata.is_deleting() {
        return Ok(());
    }
    let selector = selector(&budget);
    let mut pods = context.informers.pods.list_namespace(&key.namespace);
    pods.retain(|p| selector.matches(&p.metadata.labels) && !p.is_finished());
    let new = status(&budget, &pods, expected(context, &pods), now());
    if !new.disrupted_pods.is_empty() {
        queue.add_after(key, Duration::from_secs(EVICTION_SECONDS.unsigned_abs()));
    }
    if new == budget.status {
        return Ok(());
    }
    // A merge leaves entries that the patch does not name: those that are over are named with null.
    let mut value = serde_json::to_value(&new).unwrap_or_default();
    for gone in budget.status.disrupted_pods.keys().filter(|n| !new.disrupted_pods.contains_key(*n)) {
        value["disruptedPods"][gone] = serde_json::Value::Null;
    }
    gone_is_fine(context.requests.patch_status::<DisruptionBudget>(&budget.metadata, &value).await).map(drop)
}

/// How many pods the controllers of these pods want in all; those without a controller count as themselves.
fn expected(context: &Context, pods: &[Arc<Pod>]) -> i32 {
    let informers = &context.informers;
    let mut seen = HashSet::new();
    let mut sum = 0;
    for pod in pods {
        let Some(owner) = pod.metadata.controller() else {
            sum += 1;
            continue;
        };
        let meta = &pod.metadata;
        let set = controller_key::<ReplicaSet>(meta).and_then(|k| informers.replica_sets.get(&k));
        let deployment = set
            .as_ref()
            .and_then(|s| controller_key::<Deployment>(&s.metadata))
            .and_then(|k| informers.deployments.get(&k));
        let controller = controller_key::<ReplicationController>(meta)
            .and_then(|k| informers.replication_controllers.get(&k));
        let stateful = controller_key::<StatefulSet>(meta).and_then(|k| informers.stateful_sets.get(&k));
        let (uid, replicas) = if let Some(d) = &deployment {
            (d.metadata.uid.clone(), d.spec.replicas.unwrap_or(1))
        } else if let Some(s) = &set {
            (s.metadata.uid.clone(), s.spec.replicas())
        } else if let Some(c) = &controller {
            (c.metadata.uid.clone(), c.spec.replicas())
        } else if let Some(s) = &stateful {
            (s.metadata.uid.clone(), s.spec.replicas.unwrap_or(1))
        } else {
            let same = pods.iter().filter(|p| p.metadata.controller().is_some_and(|o| o.uid == owner.uid));
            (owner.uid.clone(), same.count() as i32)
        };
        if seen.insert(uid) {
            sum += replicas;
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn check(spec: Value, ready: usize, expected: i32, result: (i32, i32)) {
        let budget: DisruptionBudget =
            serde_json::from_value(json!({"metadata": {"name": "b"}, "spec": spec})).unwrap();
        let pod = |i: usize| -> Arc<Pod> {
            Arc::new(
                serde_json::from_value(
                    json!({"metadata": {"name": format!("p{i}")}, "status": {"phase": "Running",
                "conditions": [{"type": "Ready", "status": "True"}]}}),
                )
                .unwrap(),
            )
        };
        let pods: Vec<_> = (0..ready).map(pod).collect();
        let status = status(&budget, &pods, expected, Timestamp::UNIX_EPOCH);
        assert_eq!((status.desired_healthy, status.disruptions_allowed), result, "{spec}");
    }

    #[test]
    fn budgets_count_from_what_is_wanted() {
        check(json!({"minAvailable": 2}), 3, 3, (2, 1));
        check(json!({"minAvailable": "50%"}), 3, 3, (2, 1));
        check(json!({"maxUnavailable": 1}), 3, 3, (2, 1));
        check(json!({"maxUnavailable": "30%"}), 9, 10, (7, 2));
        check(json!({"minAvailable": 2}), 1, 3, (2, 0));
        check(json!({"minAvailable": 0}), 0, 0, (0, 0));
    }
}
