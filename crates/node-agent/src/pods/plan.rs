//! What to do next for a pod: a pure function of its spec, of what the runtime has, and of what its worker
//! remembers. The worker does it, looks again, and asks again, until there is nothing left to do.

use super::observe::{Instance, PodState, State};
use super::resize::{Change, Resize};
use super::spec::{self, is_sidecar};
use k8s_openapi::api::core::v1::{Container, Pod};
use std::collections::{HashMap, HashSet};

const SECOND: i64 = 1_000_000_000;
/// The pause before the second restart; it doubles with every further one.
const FIRST_BACKOFF: i64 = 10 * SECOND;
const LONGEST_BACKOFF: i64 = 300 * SECOND;
/// A container that stayed up this long starts again without a pause.
const FORGET_AFTER: i64 = 600 * SECOND;

/// What a worker knows beyond spec and runtime. Gone with the agent: a restart begins with no backoffs.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    /// By container name.
    pub containers: HashMap<String, ContainerMemory>,
    /// By container id.
    pub health: HashMap<String, Health>,
    pub resize: Resize,
}

#[derive(Debug, Clone, Default)]
pub struct ContainerMemory {
    /// Pause before the next restart, and when it was last lengthened.
    pub backoff: Option<(i64, i64)>,
    /// Why the last attempt to start did not get as far as a running container.
    pub waiting: Option<Waiting>,
    /// No attempt before this time.
    pub retry_at: i64,
    /// Failed attempts in a row.
    pub failures: u32,
    /// It was ended to be started anew, however it ends and whatever its restart policy.
    pub again: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Waiting {
    pub reason: String,
    pub message: String,
}

/// What probes and hooks say of a running container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Health {
    /// The postStart hook and the startup probe have passed.
    pub started: bool,
    pub ready: bool,
    /// Why it has to be killed.
    pub failed: Option<String>,
}

impl Memory {
    /// Notes a restart and lengthens the pause before the next.
    pub fn bump(&mut self, name: &str, now: i64) {
        let entry = self.containers.entry(name.to_owned()).or_default();
        entry.backoff = Some(match entry.backoff {
            Some((pause, since)) if now - since < FORGET_AFTER => ((pause * 2).min(LONGEST_BACKOFF), now),
            _ => (FIRST_BACKOFF, now),
        });
    }

    /// The running pause of a container that ended at `finished`, as its length and end.
    pub fn backoff(&self, name: &str, finished: i64, now: i64) -> Option<(i64, i64)> {
        let (pause, since) = self.containers.get(name)?.backoff?;
        let end = finished + pause;
        (now < end && now - since < FORGET_AFTER).then_some((pause, end))
    }

    pub fn is_started(&self, id: &str) -> bool {
        self.health.get(id).is_some_and(|h| h.started)
    }

    /// Whether a container that ended like this starts again.
    pub fn restarts(&self, pod: &Pod, container: &Container, exit_code: i32) -> bool {
        self.containers.get(&container.name).is_some_and(|c| c.again) || restarts(pod, container, exit_code)
    }

    fn failed(&self, id: &str) -> Option<&str> {
        self.health.get(id)?.failed.as_deref()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Start {
    Init(usize),
    Regular(usize),
    Ephemeral(usize),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kill {
    pub id: String,
    pub name: String,
    pub message: String,
    /// A new instance takes its place whatever the restart policy says.
    pub again: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Stop the present sandbox, if any, and run a new one with this attempt number.
    pub new_sandbox: Option<u32>,
    pub kill: Vec<Kill>,
    /// Running containers that are to get other resources: id and name.
    pub resize: Vec<(String, String)>,
    pub start: Vec<Start>,
    /// Containers in their pause, by name: its length.
    pub paused: HashMap<String, i64>,
    /// When something is due even if nothing happens.
    pub wake_at: Option<i64>,
    /// All has run that should: the pod can be taken down.
    pub ended: bool,
}

impl Plan {
    fn wake(&mut self, at: i64) {
        self.wake_at = Some(self.wake_at.map_or(at, |w| w.min(at)));
    }
}

struct Planner<'a> {
    pod: &'a Pod,
    state: &'a PodState,
    memory: &'a Memory,
    now: i64,
    plan: Plan,
}

/// The next step.
pub fn plan(pod: &Pod, state: &PodState, memory: &Memory, now: i64) -> Plan {
    let mut planner = Planner { pod, state, memory, now, plan: Plan::default() };
    planner.run();
    planner.plan
}

/// Whether its restart policy starts a container that ended like this again.
fn restarts(pod: &Pod, container: &Container, exit_code: i32) -> bool {
    for rule in container.restart_policy_rules.as_deref().unwrap_or_default() {
        let Some(codes) = &rule.exit_codes else { continue };
        let listed = codes.values.as_deref().unwrap_or_default().contains(&exit_code);
        if rule.action == "Restart" && (listed == (codes.operator == "In")) {
            return true;
        }
    }
    match container.restart_policy.as_deref().unwrap_or_else(|| spec::restart_policy(pod)) {
        "Never" => false,
        "OnFailure" => exit_code != 0,
        _ => true,
    }
}

/// Whether init containers are over: each has succeeded, or a regular container has been created already.
pub fn initialized(pod: &Pod, state: &PodState, memory: &Memory) -> bool {
    if spec::containers(pod).iter().any(|c| state.current(&c.name).is_some()) {
        return true;
    }
    spec::init_containers(pod).iter().all(|c| match state.current(&c.name) {
        Some(i) if is_sidecar(c) => i.state == State::Running && memory.is_started(&i.id),
        Some(i) => i.state == State::Exited && i.exit_code == 0,
        None => false,
    })
}

impl Planner<'_> {
    fn run(&mut self) {
        if self.over() {
            self.plan.ended = true;
            return;
        }
        if self.state.sandbox().is_none() {
            self.plan.new_sandbox = Some(self.state.sandboxes.first().map_or(0, |s| s.attempt + 1));
            return;
        }
        self.duplicates();
        for (index, (container, _)) in spec::ephemeral_containers(self.pod).iter().enumerate() {
            // They run once.
            if self.state.latest(&container.name).is_none() && self.may_start(&container.name, None) {
                self.plan.start.push(Start::Ephemeral(index));
            }
        }
        let initialized = self.init_containers();
        if initialized {
            for (index, container) in spec::containers(self.pod).iter().enumerate() {
                self.keep(container, Start::Regular(index));
            }
        }
    }

    /// Whether nothing is left to run: all regular containers have ended for good, or an init container has
    /// failed for good.
    fn over(&self) -> bool {
        let ended = |c: &Container, i: Option<&Instance>| {
            i.is_some_and(|i| i.state == State::Exited && !self.memory.restarts(self.pod, c, i.exit_code))
        };
        let failed_init = spec::init_containers(self.pod).iter().any(|c| {
            let instance = self.state.latest(&c.name);
            !is_sidecar(c) && ended(c, instance) && instance.is_some_and(|i| i.exit_code != 0)
        });
        let regular = spec::containers(self.pod);
        let begun = regular.iter().any(|c| self.state.latest(&c.name).is_some());
        failed_init && !begun
            || !regular.is_empty() && regular.iter().all(|c| ended(c, self.state.latest(&c.name)))
    }

    /// Runs of a container beside its newest one, left by a change that was cut off.
    fn duplicates(&mut self) {
        let mut seen = HashSet::new();
        for instance in self.state.containers.values().flatten() {
            if !seen.insert(&instance.name) && instance.state == State::Running {
                self.kill(instance, "Container is superseded by a newer instance".into(), false);
            }
        }
    }

    /// Walks the init containers in order; says whether the regular ones may run.
    fn init_containers(&mut self) -> bool {
        let initialized = initialized(self.pod, self.state, self.memory);
        for (index, container) in spec::init_containers(self.pod).iter().enumerate() {
            let instance = self.state.current(&container.name);
            if is_sidecar(container) {
                self.keep(container, Start::Init(index));
                let up = instance.is_some_and(|i| i.state == State::Running && self.memory.is_started(&i.id));
                if !up && !initialized {
                    return false;
                }
                continue;
            }
            if initialized {
                continue;
            }
            match instance {
                Some(i) if i.state == State::Exited && i.exit_code == 0 => {}
                _ => {
                    self.keep(container, Start::Init(index));
                    return false;
                }
            }
        }
        initialized
    }

    /// Starts a container that should run and does not; kills one that must not go on as it is.
    fn keep(&mut self, container: &Container, start: Start) {
        let Some(instance) = self.state.current(&container.name) else {
            // Of an earlier sandbox only the outcome counts.
            let earlier = self.state.latest(&container.name);
            let done = earlier.is_some_and(|i| {
                i.state == State::Exited && !self.memory.restarts(self.pod, container, i.exit_code)
            });
            if !(done && matches!(start, Start::Regular(_))) && self.may_start(&container.name, None) {
                self.plan.start.push(start);
            }
            return;
        };
        match instance.state {
            State::Running => {
                if let Some(why) = self.memory.failed(&instance.id) {
                    self.kill(instance, why.to_owned(), false);
                } else if !instance.hash.is_empty() && instance.hash != spec::container_hash(container) {
                    let message =
                        format!("Container {} definition changed, will be restarted", container.name);
                    self.kill(instance, message, true);
                } else {
                    match self.memory.resize.change(&instance.id, container) {
                        Some(Change::Restart) => {
                            let message = format!("Container {} resize requires restart", container.name);
                            self.kill(instance, message, true);
                        }
                        Some(Change::Update) => {
                            self.plan.resize.push((instance.id.clone(), container.name.clone()));
                        }
                        None => {}
                    }
                }
            }
            State::Exited => {
                if self.memory.restarts(self.pod, container, instance.exit_code)
                    && self.may_start(&container.name, Some(instance.finished_at))
                {
                    self.plan.start.push(start);
                }
            }
            // Created but never started: the start was cut off.
            State::Created | State::Unknown => {
                if self.may_start(&container.name, None) {
                    self.plan.start.push(start);
                }
            }
        }
    }

    fn kill(&mut self, instance: &Instance, message: String, again: bool) {
        self.plan.kill.push(Kill { id: instance.id.clone(), name: instance.name.clone(), message, again });
    }

    fn may_start(&mut self, name: &str, finished: Option<i64>) -> bool {
        let retry_at = self.memory.containers.get(name).map_or(0, |m| m.retry_at);
        if self.now < retry_at {
            self.plan.wake(retry_at);
            return false;
        }
        let pause = finished.and_then(|finished| self.memory.backoff(name, finished, self.now));
        if let Some((length, end)) = pause {
            self.plan.paused.insert(name.to_owned(), length);
            self.plan.wake(end);
            return false;
        }
        true
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
