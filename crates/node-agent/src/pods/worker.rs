//! One pod's worker: it looks, decides, acts and reports, until the pod is gone.

use super::observe::{PodState, State, observe};
use super::plan::{Memory, Waiting, plan};
use super::report::{self, Report, is_same};
use super::terminate::{Kill, Why, kill};
use super::{labels, spec, status};
use crate::api::reference;
use crate::context::Context;
use crate::logs;
use crate::volumes::{self, Volumes, tokens::Tokens};
use futures::future::join_all;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use keelson_client::EventType;
use keelson_host::cgroup::Limits;
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// Nanoseconds since 1970.
#[cfg(not(test))]
pub fn now() -> i64 {
    jiff::Timestamp::now().as_nanosecond() as i64
}

/// The clock of tests, which tokio can wind forward.
#[cfg(test)]
pub use tests::now;

fn timestamp() -> jiff::Timestamp {
    jiff::Timestamp::from_nanosecond(now().into()).unwrap_or_default()
}

/// What the API wants of a pod.
#[derive(Debug, Clone)]
pub struct Desired {
    pub pod: Arc<Pod>,
    /// The object itself is no longer there.
    pub gone: bool,
}

/// Shared by a worker, its probes and the manager.
#[derive(Default)]
pub struct Shared {
    pub memory: Mutex<Memory>,
    pub wake: Notify,
    pub terminating: AtomicBool,
    /// Containers whose end was told before the runtime's own status has it.
    pub exited: Mutex<HashSet<String>>,
    /// Seconds of grace after a failed probe that names its own, by container id.
    pub graces: Mutex<HashMap<String, i64>>,
    /// What was reported last: what `/pods` shows.
    pub reported: Mutex<Option<PodStatus>>,
}

/// Container and sandbox ids of all pods, so that the runtime's events find their worker.
pub type Index = Arc<Mutex<HashMap<String, Arc<Shared>>>>;

pub struct Worker {
    pub(super) ctx: Arc<Context>,
    pub(super) uid: String,
    pub(super) shared: Arc<Shared>,
    pub(super) state: PodState,
    pub(super) volumes: Volumes,
    pub(super) tokens: Tokens,
    pub(super) probes: HashMap<String, AbortHandle>,
    /// Containers whose postStart hook runs.
    pub(super) holding: HashSet<String>,
    /// Containers that ran before this agent did.
    pub(super) adopted: HashSet<String>,
    desired: watch::Receiver<Desired>,
    index: Index,
    registered: HashSet<String>,
    report: watch::Sender<Option<Report>>,
    paused: HashMap<String, i64>,
    /// Containers whose pause was told in an event already, by id of the ended instance.
    told: HashSet<String>,
    messages: HashMap<String, String>,
    start_time: jiff::Timestamp,
    /// What the pod's cgroup was last given.
    pub(super) cgroup: Option<Limits>,
    /// No further attempt to resize before this time.
    pub(super) resize_at: i64,
    verdict: Option<Waiting>,
    failures: u32,
}

enum Next {
    /// Nothing to do before this time, unless something happens.
    Wait(Option<Instant>),
    Ended,
}

impl Worker {
    /// `refused`: the node does not take the pod, and why.
    pub fn new(
        ctx: Arc<Context>,
        desired: watch::Receiver<Desired>,
        shared: Arc<Shared>,
        index: Index,
        refused: Option<Waiting>,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let pod = desired.borrow().pod.clone();
        let (report, reports) = watch::channel(None);
        let started = pod.status.as_ref().and_then(|s| s.start_time.as_ref()).map(|t| t.0);
        let reporter = report::send(ctx.clone(), reports);
        let worker = Self {
            uid: spec::uid(&pod).to_owned(),
            ctx,
            shared,
            state: PodState::default(),
            volumes: Volumes::default(),
            tokens: Tokens::default(),
            probes: HashMap::new(),
            holding: HashSet::new(),
            adopted: HashSet::new(),
            desired,
            index,
            registered: HashSet::new(),
            report,
            paused: HashMap::new(),
            told: HashSet::new(),
            messages: HashMap::new(),
            start_time: started.unwrap_or_else(timestamp),
            cgroup: None,
            resize_at: 0,
            verdict: refused,
            failures: 0,
        };
        (worker, reporter)
    }

    /// With the resources that the pod has been given, which may not be yet what the API asks for.
    fn desired(&self) -> Desired {
        let Desired { pod, gone } = self.desired.borrow().clone();
        Desired { pod: self.shared.memory.lock().resize.apply(&pod), gone }
    }

    pub(super) fn pod_ip(&self, pod: &Pod) -> String {
        match spec::is_host_network(pod) {
            true => self.ctx.node_ip.to_string(),
            false => self.state.sandboxes.first().and_then(|s| s.ips.first().cloned()).unwrap_or_default(),
        }
    }

    /// Events of this container or sandbox are this worker's.
    pub(super) fn register(&mut self, id: &str) {
        if self.registered.insert(id.to_owned()) {
            self.index.lock().insert(id.to_owned(), self.shared.clone());
        }
    }

    /// The whole life of the pod on this node.
    pub async fn run(mut self) {
        self.look().await;
        self.adopted = self.state.running().map(|i| i.id.clone()).collect();
        let pod = self.desired().pod;
        for running in self.state.running() {
            self.shared.memory.lock().resize.adopt(&running.id, &pod, &running.name);
        }
        let why = self.live().await;
        let why = match why {
            Why::Ended => {
                self.wind_up().await;
                self.deleted().await;
                Why::Deleted
            }
            why => why,
        };
        debug_assert_eq!(why, Why::Deleted);
        self.take_down().await;
        let mut index = self.index.lock();
        for id in &self.registered {
            index.remove(id);
        }
    }

    /// Keeps the pod running until it has ended or shall be gone.
    async fn live(&mut self) -> Why {
        let shared = self.shared.clone();
        let mut changes = self.desired.clone();
        loop {
            let desired = self.desired();
            changes.borrow_and_update();
            if desired.gone || spec::is_deleted(&desired.pod) {
                return Why::Deleted;
            }
            if self.verdict.is_some() || spec::is_terminal(&desired.pod) {
                return Why::Ended;
            }
            let mut deletion = self.desired.clone();
            let next = tokio::select! {
                biased;
                _ = deletion.wait_for(|d| d.gone || spec::is_deleted(&d.pod)) => continue,
                next = self.sync(&desired.pod) => next,
            };
            let until = match next {
                Next::Ended => return Why::Ended,
                Next::Wait(until) => until,
            };
            let timer = async {
                match until {
                    Some(until) => tokio::time::sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = shared.wake.notified() => {}
                changed = changes.changed() => if changed.is_err() { return Why::Deleted },
                () = timer => {}
            }
        }
    }

    /// Acts until nothing is left to do.
    async fn sync(&mut self, pod: &Arc<Pod>) -> Next {
        if self.deadline(pod).is_some_and(|deadline| Instant::now() >= deadline) {
            self.verdict = Some(Waiting {
                reason: "DeadlineExceeded".into(),
                message: "Pod was active on the node longer than the specified deadline".into(),
            });
            return Next::Ended;
        }
        let mut prepared = false;
        loop {
            if !self.look().await {
                return Next::Wait(Some(Instant::now() + Duration::from_secs(1)));
            }
            self.tend_probes(pod);
            self.collect_messages();
            let plan = {
                let memory = self.shared.memory.lock();
                plan(pod, &self.state, &memory, now())
            };
            self.tell_pauses(pod, &plan.paused);
            self.paused = plan.paused.clone();
            if plan.ended {
                return Next::Ended;
            }
            self.send(pod, false, false);
            if !prepared {
                if let Err(problem) = self.prepare(pod).await {
                    return self.try_again(pod, "volumes", &problem);
                }
                prepared = true;
            }
            if let Some(attempt) = plan.new_sandbox {
                if let Err(problem) = self.new_sandbox(pod, attempt).await {
                    return self.try_again(pod, "sandbox", &problem);
                }
                continue;
            }
            if !plan.kill.is_empty() {
                self.kill_some(pod, &plan.kill).await;
                continue;
            }
            if now() >= self.resize_at && self.resize(pod, &plan.resize).await {
                continue;
            }
            if plan.start.is_empty() {
                self.failures = 0;
                let at = |at: i64| Instant::now() + Duration::from_nanos((at - now()).max(0) as u64);
                let resize = (self.resize_at > 0).then(|| at(self.resize_at));
                let times = [plan.wake_at.map(at), resize, self.volumes.refresh_at, self.deadline(pod)];
                return Next::Wait(times.into_iter().flatten().min());
            }
            for start in plan.start {
                self.start(pod, start).await;
                self.clean_up(pod, start).await;
            }
        }
    }

    fn try_again(&mut self, pod: &Arc<Pod>, what: &str, problem: &str) -> Next {
        let pause = Duration::from_millis(500 << self.failures.min(5));
        self.failures += 1;
        tracing::info!(pod = spec::full_name(pod), ?pause, "{what}: {problem}");
        self.send(pod, false, false);
        Next::Wait(Some(Instant::now() + pause))
    }

    fn deadline(&self, pod: &Pod) -> Option<Instant> {
        let seconds = spec::spec(pod).active_deadline_seconds?;
        let age = now() - self.start_time.as_nanosecond() as i64;
        let left = seconds * 1_000_000_000 - age;
        Some(Instant::now() + Duration::from_nanos(left.max(0) as u64))
    }

    /// Reads the runtime's state; false where it cannot be read now.
    async fn look(&mut self) -> bool {
        let waiting: Vec<String> = self.shared.exited.lock().drain().collect();
        match observe(self.ctx.runtime.as_ref(), &self.uid, &self.state).await {
            Ok(state) => self.state = state,
            Err(e) => {
                tracing::warn!(pod = self.uid, error = e.user_message(), "could not read a pod's state");
                return false;
            }
        }
        if !waiting.is_empty() {
            self.shared.exited.lock().extend(waiting);
            self.state = observe_after_exit(&self.ctx, &self.uid, &self.state, &self.shared).await;
        }
        let ids: Vec<String> = self
            .state
            .containers
            .values()
            .flatten()
            .map(|i| i.id.clone())
            .chain(self.state.sandboxes.iter().map(|s| s.id.clone()))
            .collect();
        for id in ids {
            self.register(&id);
        }
        true
    }

    async fn kill_some(&mut self, pod: &Arc<Pod>, kills: &[super::plan::Kill]) {
        for kill in kills.iter().filter(|k| k.again) {
            self.shared.memory.lock().containers.entry(kill.name.clone()).or_default().again = true;
        }
        let ip = self.pod_ip(pod);
        let ctx = self.ctx.clone();
        let all: Vec<_> = spec::containers(pod).iter().chain(spec::init_containers(pod)).collect();
        let graces = self.shared.graces.lock().clone();
        let own = spec::spec(pod).termination_grace_period_seconds.unwrap_or(30);
        let kills = kills.iter().map(|k| {
            let container = all.iter().find(|c| c.name == k.name).copied();
            let grace = graces.get(&k.id).copied().unwrap_or(own);
            kill(&ctx, Kill { pod, container, id: &k.id, message: k.message.clone(), grace, pod_ip: &ip })
        });
        join_all(kills).await;
    }

    fn tell_pauses(&mut self, pod: &Pod, paused: &HashMap<String, i64>) {
        for name in paused.keys() {
            let Some(instance) = self.state.latest(name) else { continue };
            if self.told.insert(instance.id.clone()) {
                let message =
                    format!("Back-off restarting failed container {name} in pod {}", spec::full_name(pod));
                let about = reference(pod, spec::field_path(pod, name));
                self.ctx.api.event(about, EventType::Warning, "BackOff", &message);
            }
        }
    }

    /// Of the runs of a container that has started again, the one before is kept for `--previous`.
    async fn clean_up(&mut self, pod: &Pod, start: super::plan::Start) {
        let name = match start {
            super::plan::Start::Init(i) => &spec::init_containers(pod)[i].name,
            super::plan::Start::Regular(i) => &spec::containers(pod)[i].name,
            super::plan::Start::Ephemeral(_) => return,
        };
        let Some(instances) = self.state.containers.get(name) else { return };
        for old in instances.iter().skip(1).filter(|i| i.state != State::Running) {
            if self.ctx.runtime.remove_container(&old.id).await.is_ok() {
                let _ = std::fs::remove_file(&old.log_path);
                if let Some(file) = old.annotations.get(labels::MESSAGE_FILE) {
                    let _ = std::fs::remove_file(file);
                }
            }
        }
    }

    /// Reads the last words of containers that have ended.
    pub(super) fn collect_messages(&mut self) {
        for instance in self.state.containers.values().flatten().filter(|i| i.state == State::Exited) {
            if self.messages.contains_key(&instance.id) {
                continue;
            }
            let file = instance.annotations.get(labels::MESSAGE_FILE);
            let mut text = file.and_then(|f| read_start(f)).unwrap_or_default();
            let policy = instance.annotations.get(labels::MESSAGE_POLICY).map(String::as_str);
            let failed = instance.exit_code != 0;
            if text.is_empty() && failed && policy == Some("FallbackToLogsOnError") {
                text = logs::tail(&instance.log_path, 80, 2048);
            }
            self.messages.insert(instance.id.clone(), text);
        }
    }

    /// Hands a status to the reporter.
    pub(super) fn send(&mut self, pod: &Arc<Pod>, ended: bool, last: bool) {
        let new = {
            let memory = self.shared.memory.lock();
            status::status(&status::Inputs {
                pod,
                state: &self.state,
                memory: &memory,
                paused: &self.paused,
                host_ip: self.ctx.node_ip,
                runtime_name: &self.ctx.runtime_name,
                messages: &self.messages,
                start_time: self.start_time,
                now: timestamp(),
                ended,
                verdict: self.verdict.as_ref(),
            })
        };
        // Of a pod that ended before this agent started, the runtime may hold nothing any more.
        let kept = pod.status.clone().filter(|_| spec::is_terminal(pod) && self.state.containers.is_empty());
        let new = kept.unwrap_or(new);
        *self.shared.reported.lock() = Some(new.clone());
        self.report.send_if_modified(|report| {
            let same = report.as_ref().is_some_and(|r| is_same(&r.status, &new) && r.last == last);
            if !same {
                *report = Some(Report { pod: pod.clone(), status: new, last });
            }
            !same
        });
    }

    /// The pod has ended by itself: its sandbox goes, its object and its logs stay.
    async fn wind_up(&mut self) {
        let pod = self.desired().pod;
        let grace = spec::spec(&pod).termination_grace_period_seconds.unwrap_or(30);
        if self.verdict.is_some() && self.state.sandboxes.is_empty() {
            // Refused: there is nothing to end.
            self.send(&pod, true, false);
            return;
        }
        let mut deletion = self.desired.clone();
        tokio::select! {
            () = self.end_containers(&pod, grace) => {}
            // Its own, perhaps shorter, grace applies from here on.
            _ = deletion.wait_for(|d| d.gone || spec::is_deleted(&d.pod)) => return,
        }
        self.end_sandbox().await;
        self.send(&pod, true, false);
        if let Err(error) = volumes::tear_down(&self.ctx, &self.uid).await {
            tracing::warn!(pod = self.uid, "could not remove a pod's volumes: {error:#}");
        }
        self.ctx.api.release(&self.uid);
    }

    async fn deleted(&mut self) {
        let _ = self.desired.wait_for(|d| d.gone || spec::is_deleted(&d.pod)).await;
    }

    /// The pod shall be gone: containers, sandbox, everything, and last its object.
    async fn take_down(&mut self) {
        let mut changes = self.desired.clone();
        loop {
            let desired = self.desired();
            let grace = spec::grace_seconds(&desired.pod);
            let shorter =
                changes.wait_for(|d| d.gone && !desired.gone || spec::grace_seconds(&d.pod) < grace);
            tokio::select! {
                biased;
                () = self.end_containers(&desired.pod, grace) => break,
                changed = shorter => if changed.is_err() { break },
            }
        }
        let Desired { pod, gone } = self.desired();
        self.end_sandbox().await;
        if !gone {
            self.send(&pod, true, false);
        }
        self.remove_all(&pod).await;
        if gone {
            return;
        }
        self.send(&pod, true, true);
        // Ends when the reporter has removed the object, or the object has gone otherwise.
        let mut object = self.desired.clone();
        tokio::select! {
            () = self.report.closed() => {}
            _ = object.wait_for(|d| d.gone) => {}
        }
    }
}

fn read_start(file: &str) -> Option<String> {
    use std::io::Read;
    let mut bytes = Vec::new();
    std::fs::File::open(file).ok()?.take(4096).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Reads the state once the runtime's own record has caught up with the exits that were told.
pub async fn observe_after_exit(ctx: &Context, uid: &str, before: &PodState, shared: &Shared) -> PodState {
    let exited: Vec<String> = shared.exited.lock().drain().collect();
    let mut state = before.clone();
    for attempt in 0..100 {
        match observe(ctx.runtime.as_ref(), uid, &state).await {
            Ok(next) => state = next,
            Err(e) => {
                tracing::warn!(pod = uid, error = e.user_message(), "could not read a pod's state");
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            }
        }
        if !state.running().any(|i| exited.contains(&i.id)) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(if attempt < 20 { 4 } else { 20 })).await;
    }
    state
}

#[cfg(test)]
#[path = "worker_tests.rs"]
mod tests;
