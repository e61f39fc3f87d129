//! The loop that places one pod after another.

use std::sync::Arc;
use std::time::Instant;

use keelson_api_types::selector::LabelSelector;
use keelson_client::{EventRecorder, EventType, Informer};
use keelson_sched_core::preempt::{Budget, Preemption, preempt};
use keelson_sched_core::{FitError, PodInfo, Profile, Scheduler, Snapshot};
use tokio::sync::Semaphore;

use crate::metrics::Metrics;
use crate::queue::Waiting;
use crate::report;
use crate::state::State;
use crate::views::BudgetView;

pub struct Engine {
    client: kube::Client,
    state: Arc<State>,
    profiles: Vec<Profile>,
    budgets: Arc<Informer<BudgetView>>,
    events: EventRecorder,
    metrics: Metrics,
    binding: Arc<Semaphore>,
}

impl Engine {
    pub fn new(
        client: kube::Client,
        state: Arc<State>,
        profiles: Vec<Profile>,
        budgets: Arc<Informer<BudgetView>>,
        metrics: Metrics,
        bind_workers: usize,
    ) -> Self {
        let events = EventRecorder::new(client.clone(), "default-scheduler", "");
        let binding = Arc::new(Semaphore::new(bind_workers));
        Self { client, state, profiles, budgets, events, metrics, binding }
    }

    pub async fn run(&self) {
        let mut scheduler = Scheduler::default();
        loop {
            let next = self.state.lock().queue.pop(Instant::now());
            match next {
                Some(waiting) => self.place(&mut scheduler, waiting).await,
                None => self.wait().await,
            }
        }
    }

    async fn wait(&self) {
        let timer = self.state.lock().queue.next_timer();
        let woken = self.state.wake.notified();
        match timer {
            Some(at) => drop(tokio::time::timeout_at(at.into(), woken).await),
            None => woken.await,
        }
    }

    async fn place(&self, scheduler: &mut Scheduler, waiting: Waiting) {
        let pod = waiting.pod;
        let Some(profile) = self.profiles.iter().find(|p| p.scheduler_name == waiting.scheduler_name) else {
            return self.state.lock().queue.remove(&pod.id.uid);
        };
        let began = Instant::now();
        let snapshot = self.state.lock().snapshot_for(&pod);
        let decision = scheduler.schedule(&pod, &snapshot, profile);
        let result = if decision.is_ok() { "scheduled" } else { "unschedulable" };
        self.metrics.attempt(result, &profile.scheduler_name, began.elapsed());
        match decision {
            Ok(placement) => self.bind(pod, placement.node).await,
            Err(misfit) => self.refuse(pod, &misfit, &snapshot, profile).await,
        }
    }

    /// Counts the pod on its node at once and tells the API server beside the next decisions.
    async fn bind(&self, pod: Arc<PodInfo>, node: String) {
        {
            let mut inner = self.state.lock();
            // Deleted, or bound by somebody else, while it was being placed.
            if !inner.queue.contains(&pod.id.uid) {
                return;
            }
            inner.cache.assume(&pod, &node);
        }
        let Ok(permit) = Arc::clone(&self.binding).acquire_owned().await else { return };
        let (client, state, events) = (self.client.clone(), Arc::clone(&self.state), self.events.clone());
        tokio::spawn(async move {
            let _permit = permit;
            match report::bind(&client, &pod, &node).await {
                Ok(()) => {
                    let id = &pod.id;
                    let message = format!("Successfully assigned {}/{} to {node}", id.namespace, id.name);
                    events.event(&report::reference(&pod), EventType::Normal, "Scheduled", message);
                }
                Err(error) => {
                    tracing::warn!(pod = %format_args!("{}/{}", pod.id.namespace, pod.id.name), node, "bind: {error}");
                    let mut inner = state.lock();
                    // Not when the informer has told meanwhile that it is bound after all, or gone.
                    if inner.queue.contains(&pod.id.uid) {
                        inner.cache.remove_pod(&pod.id.uid);
                        inner.queue.failed(&pod.id.uid, Instant::now());
                    }
                    drop(inner);
                    state.wake.notify_one();
                }
            }
        });
    }

    /// Says why, and makes room where less important pods can go.
    async fn refuse(&self, pod: Arc<PodInfo>, misfit: &FitError, snapshot: &Snapshot, profile: &Profile) {
        let message = misfit.to_string();
        let preemption = self.make_room(&pod, snapshot, profile);
        {
            let mut inner = self.state.lock();
            inner.queue.unschedulable(&pod.id.uid, Instant::now());
            if let Some(preemption) = &preemption {
                inner.nominated.insert(pod.id.uid.clone(), (Arc::clone(&pod), preemption.node.clone()));
            }
        }
        self.events.event(&report::reference(&pod), EventType::Warning, "FailedScheduling", message.as_str());
        let (client, events, metrics) = (self.client.clone(), self.events.clone(), self.metrics.clone());
        tokio::spawn(async move {
            let node = preemption.as_ref().map(|p| p.node.as_str());
            if let Err(error) = report::unschedulable(&client, &pod, &message, node).await {
                tracing::debug!(pod = pod.id.name, "status of an unschedulable pod: {error}");
            }
            let Some(Preemption { node, victims }) = preemption else { return };
            metrics.preempted();
            for victim in victims {
                if let Err(error) = report::displace(&client, &events, &victim, &pod, &node).await {
                    tracing::warn!(victim = victim.id.name, "preempt: {error}");
                }
            }
        });
    }

    fn make_room(&self, pod: &PodInfo, snapshot: &Snapshot, profile: &Profile) -> Option<Preemption> {
        // Room is being made already: wait for the victims to end.
        let nominated = self.state.lock().nominated.get(&pod.id.uid).map(|(_, node)| node.clone());
        let leaving = |node: &str| {
            let node = snapshot.nodes.iter().find(|n| n.name == node);
            node.is_some_and(|n| n.pods.iter().any(|p| p.terminating && p.priority < pod.priority))
        };
        if nominated.as_deref().is_some_and(leaving) {
            return None;
        }
        let budgets: Vec<Budget> = self
            .budgets
            .list()
            .iter()
            .map(|budget| Budget {
                namespace: budget.metadata.namespace.clone().unwrap_or_default(),
                selector: LabelSelector::from_object(budget.spec.selector.as_ref())
                    .unwrap_or_else(|_| LabelSelector::nothing()),
                allowed: budget.status.disruptions_allowed,
            })
            .collect();
        preempt(pod, snapshot, profile, &budgets)
    }
}
