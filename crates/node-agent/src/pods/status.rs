//! The status of a pod: a pure function of spec, runtime state and memory, in the words that kubelets use.

use super::observe::{Instance, PodState, State};
use super::plan::{Memory, Waiting, initialized};
use super::resources;
use super::spec::{self, is_sidecar};
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
    ContainerStatus, ContainerUser, HostIP, LinuxContainerUser, Pod, PodCondition, PodIP, PodStatus,
    ResourceRequirements, VolumeMountStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::collections::HashMap;
use std::net::IpAddr;

/// What the status is made of.
pub struct Inputs<'a> {
    pub pod: &'a Pod,
    pub state: &'a PodState,
    pub memory: &'a Memory,
    /// Containers in their pause before a restart: its length in nanoseconds.
    pub paused: &'a HashMap<String, i64>,
    pub host_ip: IpAddr,
    pub runtime_name: &'a str,
    /// Termination messages by container id.
    pub messages: &'a HashMap<String, String>,
    pub start_time: jiff::Timestamp,
    pub now: jiff::Timestamp,
    /// The pod is being taken down for good and all of its containers have ended.
    pub ended: bool,
    /// A verdict that overrides what the containers say: phase `Failed` with reason and message.
    pub verdict: Option<&'a Waiting>,
}

/// The conditions that this agent owns; others are left to their owners.
const OWNED: [&str; 5] =
    ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"];

/// Conditions that are there while they hold.
const RESIZING: [&str; 2] = ["PodResizePending", "PodResizeInProgress"];

pub fn status(inputs: &Inputs<'_>) -> PodStatus {
    let pod = inputs.pod;
    let all = |list: &[Container], init: bool| -> Vec<ContainerStatus> {
        list.iter().map(|c| container_status(inputs, c, init)).collect()
    };
    let regular = all(spec::containers(pod), false);
    let init = all(spec::init_containers(pod), true);
    let ephemeral: Vec<_> =
        spec::ephemeral_containers(pod).iter().map(|(c, _)| container_status(inputs, c, false)).collect();
    let phase = match inputs.verdict {
        Some(_) => "Failed",
        None => phase(inputs, &regular),
    };
    let ips = addresses(inputs);
    let before = pod.status.clone().unwrap_or_default();
    // The class is fixed when the pod is made.
    let qos_class = before.qos_class.or_else(|| Some(resources::qos(pod).as_str().to_owned()));
    PodStatus {
        conditions: Some(conditions(inputs, phase, &init, &regular)),
        phase: Some(phase.to_owned()),
        reason: inputs.verdict.map(|v| v.reason.clone()),
        message: inputs.verdict.map(|v| v.message.clone()).filter(|m| !m.is_empty()),
        host_ip: Some(inputs.host_ip.to_string()),
        host_ips: Some(vec![HostIP { ip: inputs.host_ip.to_string() }]),
        pod_ip: ips.first().cloned(),
        pod_ips: (!ips.is_empty()).then(|| ips.into_iter().map(|ip| PodIP { ip }).collect()),
        qos_class,
        start_time: Some(Time(inputs.start_time)),
        observed_generation: pod.metadata.generation,
        container_statuses: (!regular.is_empty()).then_some(regular),
        init_container_statuses: (!init.is_empty()).then_some(init),
        ephemeral_container_statuses: (!ephemeral.is_empty()).then_some(ephemeral),
        ..Default::default()
    }
}

fn addresses(inputs: &Inputs<'_>) -> Vec<String> {
    if spec::is_host_network(inputs.pod) {
        return if inputs.state.sandboxes.is_empty() { vec![] } else { vec![inputs.host_ip.to_string()] };
    }
    inputs.state.sandboxes.first().map(|s| s.ips.clone()).unwrap_or_default()
}

pub fn time(nanos: i64) -> Option<Time> {
    // The wire has whole seconds.
    (nanos > 0).then(|| Time(jiff::Timestamp::from_second(nanos / 1_000_000_000).unwrap_or_default()))
}

fn container_status(inputs: &Inputs<'_>, container: &Container, init: bool) -> ContainerStatus {
    let name = &container.name;
    let instances = inputs.state.containers.get(name).map(Vec::as_slice).unwrap_or_default();
    let latest = instances.first().filter(|i| i.state != State::Created || instances.len() == 1);
    let latest = latest.or_else(|| instances.iter().find(|i| i.state != State::Created));
    let previous = instances
        .iter()
        .find(|i| i.state == State::Exited && latest.is_some_and(|l| l.id != i.id))
        .map(|i| terminated(inputs, i));
    let remembered = inputs.memory.containers.get(name);
    let waiting = remembered.and_then(|m| m.waiting.clone());
    let (state, last_state) = match latest {
        None => (self::waiting(waiting.unwrap_or_else(|| default_waiting(inputs, init))), None),
        Some(i) => match i.state {
            State::Running => {
                let started_at = time(i.started_at);
                let running = ContainerStateRunning { started_at };
                (ContainerState { running: Some(running), ..Default::default() }, previous)
            }
            State::Exited => match (inputs.paused.get(name), waiting) {
                (_, Some(why)) if !inputs.ended => (self::waiting(why), Some(terminated(inputs, i))),
                (Some(pause), _) if !inputs.ended => {
                    (self::waiting(crash_loop(inputs.pod, name, *pause)), Some(terminated(inputs, i)))
                }
                _ => (terminated(inputs, i), previous),
            },
            State::Created => {
                (self::waiting(waiting.unwrap_or_else(|| default_waiting(inputs, init))), previous)
            }
            State::Unknown => {
                let lost = ContainerStateTerminated {
                    reason: Some("ContainerStatusUnknown".into()),
                    message: Some("The container could not be located when the pod was terminated".into()),
                    exit_code: 137,
                    ..Default::default()
                };
                (ContainerState { terminated: Some(lost), ..Default::default() }, previous)
            }
        },
    };
    let running = latest.filter(|i| i.state == State::Running);
    let health = running.and_then(|i| inputs.memory.health.get(&i.id));
    let completed = state.terminated.as_ref().is_some_and(|t| t.exit_code == 0);
    let ready = match init && !is_sidecar(container) {
        true => completed,
        false => health.is_some_and(|h| h.started && h.ready),
    };
    let started = match init && !is_sidecar(container) {
        true => running.is_some(),
        false => health.is_some_and(|h| h.started),
    };
    ContainerStatus {
        name: name.clone(),
        container_id: latest.map(|i| format!("{}://{}", inputs.runtime_name, i.id)),
        image: latest
            .map(|i| i.image.clone())
            .filter(|i| !i.is_empty() && !i.starts_with("sha256:"))
            .or_else(|| container.image.clone())
            .unwrap_or_default(),
        image_id: latest.map(|i| i.image_id.clone()).unwrap_or_default(),
        ready,
        started: Some(started),
        restart_count: latest.map_or(0, |i| i.attempt as i32),
        state: Some(state),
        last_state: Some(last_state.unwrap_or_default()),
        allocated_resources: latest.and(container.resources.as_ref()).and_then(|r| r.requests.clone()),
        resources: latest.and(container.resources.clone()).map(|allocated| {
            let now = running.and_then(|i| inputs.memory.resize.running(&i.id));
            now.map_or(allocated.clone(), |now| in_force(allocated, now))
        }),
        user: running.and_then(|i| i.user.clone()).map(|(uid, gid, groups)| ContainerUser {
            linux: Some(LinuxContainerUser { uid, gid, supplemental_groups: Some(groups) }),
        }),
        volume_mounts: volume_mounts(container),
        ..Default::default()
    }
}

/// The allocation with the amounts that are in force where they differ.
fn in_force(mut allocated: ResourceRequirements, now: &ResourceRequirements) -> ResourceRequirements {
    for (list, now) in [(&mut allocated.requests, &now.requests), (&mut allocated.limits, &now.limits)] {
        let amounts = now.iter().flatten().filter(|(name, _)| ["cpu", "memory"].contains(&name.as_str()));
        if let Some(list) = list {
            list.extend(amounts.map(|(name, amount)| (name.clone(), amount.clone())));
        }
    }
    allocated
}

fn volume_mounts(container: &Container) -> Option<Vec<VolumeMountStatus>> {
    let mounts = container.volume_mounts.as_deref().filter(|m| !m.is_empty())?;
    let status = |m: &k8s_openapi::api::core::v1::VolumeMount| VolumeMountStatus {
        name: m.name.clone(),
        mount_path: m.mount_path.clone(),
        read_only: m.read_only,
        recursive_read_only: m.read_only.filter(|r| *r).map(|_| "Disabled".to_owned()),
        ..Default::default()
    };
    Some(mounts.iter().map(status).collect())
}

fn waiting(why: Waiting) -> ContainerState {
    let Waiting { reason, message } = why;
    let waiting =
        ContainerStateWaiting { reason: Some(reason), message: Some(message).filter(|m| !m.is_empty()) };
    ContainerState { waiting: Some(waiting), ..Default::default() }
}

fn default_waiting(inputs: &Inputs<'_>, init: bool) -> Waiting {
    let has_init = !spec::init_containers(inputs.pod).is_empty();
    let initializing = has_init && (init || !initialized(inputs.pod, inputs.state, inputs.memory));
    let reason = if initializing { "PodInitializing" } else { "ContainerCreating" };
    Waiting { reason: reason.into(), message: String::new() }
}

fn crash_loop(pod: &Pod, container: &str, pause: i64) -> Waiting {
    let seconds = pause / 1_000_000_000;
    let length = match (seconds / 60, seconds % 60) {
        (0, s) => format!("{s}s"),
        (m, s) => format!("{m}m{s}s"),
    };
    Waiting {
        reason: "CrashLoopBackOff".into(),
        message: format!(
            "back-off {length} restarting failed container={container} pod={}",
            spec::full_name(pod)
        ),
    }
}

fn terminated(inputs: &Inputs<'_>, i: &Instance) -> ContainerState {
    let reason = match (i.reason.as_str(), i.exit_code) {
        ("", 0) => "Completed",
        ("", _) => "Error",
        (reason, _) => reason,
    };
    let message = inputs.messages.get(&i.id).filter(|m| !m.is_empty()).cloned();
    let terminated = ContainerStateTerminated {
        container_id: Some(format!("{}://{}", inputs.runtime_name, i.id)),
        exit_code: i.exit_code,
        reason: Some(reason.to_owned()),
        message: message.or_else(|| Some(i.message.clone()).filter(|m| !m.is_empty())),
        started_at: time(i.started_at),
        finished_at: time(i.finished_at),
        signal: None,
    };
    ContainerState { terminated: Some(terminated), ..Default::default() }
}

fn phase(inputs: &Inputs<'_>, regular: &[ContainerStatus]) -> &'static str {
    let pod = inputs.pod;
    let before = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    // An end is for good.
    match before {
        Some("Succeeded") => return "Succeeded",
        Some("Failed") => return "Failed",
        _ => {}
    }
    let failed_init = spec::init_containers(pod).iter().any(|c| {
        let i = inputs.state.latest(&c.name);
        !is_sidecar(c)
            && i.is_some_and(|i| {
                i.state == State::Exited && i.exit_code != 0 && !inputs.memory.restarts(pod, c, i.exit_code)
            })
    });
    let (mut waiting, mut running, mut stopped, mut succeeded) = (0, 0, 0, 0);
    let mut restart = false;
    for (status, container) in regular.iter().zip(spec::containers(pod)) {
        let state = status.state.clone().unwrap_or_default();
        let last = status.last_state.as_ref().and_then(|s| s.terminated.as_ref());
        match (state.running, state.terminated.as_ref().or(last)) {
            (Some(_), _) => running += 1,
            (None, Some(end)) => {
                stopped += 1;
                succeeded += usize::from(end.exit_code == 0);
                restart |= inputs.memory.restarts(pod, container, end.exit_code);
            }
            (None, None) => waiting += 1,
        }
    }
    if inputs.ended {
        return if stopped > 0 && stopped == succeeded && waiting == 0 && !failed_init {
            "Succeeded"
        } else {
            "Failed"
        };
    }
    if failed_init && running + stopped == 0 {
        return "Failed";
    }
    match (waiting, running, stopped) {
        (1.., _, _) => "Pending",
        (_, 1.., _) => "Running",
        (_, _, 1..) if restart => "Running",
        (_, _, 1..) if stopped == succeeded => "Succeeded",
        (_, _, 1..) => "Failed",
        _ => "Pending",
    }
}

struct Verdict {
    good: bool,
    reason: &'static str,
    message: String,
}

impl Verdict {
    fn good() -> Self {
        Self { good: true, reason: "", message: String::new() }
    }

    fn bad(reason: &'static str, message: impl Into<String>) -> Self {
        Self { good: false, reason, message: message.into() }
    }
}

fn conditions(
    inputs: &Inputs<'_>,
    phase: &str,
    init: &[ContainerStatus],
    regular: &[ContainerStatus],
) -> Vec<PodCondition> {
    let pod = inputs.pod;
    let sandbox = inputs.state.sandbox().is_some();
    let host = spec::is_host_network(pod);
    let networked = sandbox && (host || inputs.state.sandbox().is_some_and(|s| !s.ips.is_empty()));
    let containers = containers_ready(inputs, phase, init, regular);
    let gates = spec::spec(pod).readiness_gates.as_deref().unwrap_or_default();
    let given = pod.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    let unmet: Vec<_> = gates
        .iter()
        .filter(|g| !given.iter().any(|c| c.type_ == g.condition_type && c.status == "True"))
        .collect();
    let ready = if !containers.good {
        Verdict::bad(containers.reason, containers.message.clone())
    } else if let Some(gate) = unmet.first() {
        let known = given.iter().any(|c| c.type_ == gate.condition_type);
        let message = match known {
            true => format!(
                "the status of pod readiness gate \"{}\" is not \"True\", but False",
                gate.condition_type
            ),
            false => format!(
                "corresponding condition of pod readiness gate \"{}\" does not exist.",
                gate.condition_type
            ),
        };
        Verdict::bad("ReadinessGatesNotReady", message)
    } else {
        Verdict::good()
    };
    let start = if networked { Verdict::good() } else { Verdict::bad("", "") };
    let verdicts = [start, init_done(inputs, phase, init), ready, containers, Verdict::good()];
    let resizing = match phase {
        "Succeeded" | "Failed" => [None, None],
        _ => resizing(inputs),
    };
    let all =
        OWNED.iter().zip(verdicts).chain(RESIZING.iter().zip(resizing).filter_map(|(n, v)| Some((n, v?))));
    all.map(|(name, verdict)| condition(inputs, given, name, verdict)).collect()
}

/// What holds up a resize: the node's lack of room, and its own acting on what it gave.
fn resizing(inputs: &Inputs<'_>) -> [Option<Verdict>; 2] {
    let resize = &inputs.memory.resize;
    let told = |reason, message: &String| Verdict { good: true, reason, message: message.clone() };
    let acting = spec::containers(inputs.pod).iter().chain(spec::init_containers(inputs.pod)).any(|c| {
        let running = inputs.state.current(&c.name).filter(|i| i.state == State::Running);
        running.is_some_and(|i| resize.change(&i.id, c).is_some())
    });
    let failed = resize.failed.as_ref().map(|why| told("Error", why));
    [
        resize.deferred.as_ref().map(|why| told("Deferred", why)),
        acting.then(|| failed.unwrap_or_else(Verdict::good)),
    ]
}

fn condition(inputs: &Inputs<'_>, given: &[PodCondition], name: &str, verdict: Verdict) -> PodCondition {
    let status = if verdict.good { "True" } else { "False" };
    let before = given.iter().find(|c| c.type_ == name);
    let unchanged = before.filter(|c| c.status == status).and_then(|c| c.last_transition_time.clone());
    let now = jiff::Timestamp::from_second(inputs.now.as_second()).unwrap_or(inputs.now);
    PodCondition {
        type_: name.to_owned(),
        status: status.to_owned(),
        reason: Some(verdict.reason.to_owned()).filter(|r| !r.is_empty()),
        message: Some(verdict.message).filter(|m| !m.is_empty()),
        last_transition_time: Some(unchanged.unwrap_or(Time(now))),
        observed_generation: inputs.pod.metadata.generation,
        last_probe_time: None,
    }
}

fn init_done(inputs: &Inputs<'_>, phase: &str, init: &[ContainerStatus]) -> Verdict {
    if init.is_empty() || initialized(inputs.pod, inputs.state, inputs.memory) {
        return Verdict::good();
    }
    if phase == "Succeeded" {
        return Verdict { good: true, reason: "PodCompleted", message: String::new() };
    }
    let missing: Vec<_> = init.iter().filter(|s| !s.ready).map(|s| s.name.as_str()).collect();
    if missing.is_empty() {
        return Verdict::good();
    }
    Verdict::bad(
        "ContainersNotInitialized",
        format!("containers with incomplete status: [{}]", missing.join(" ")),
    )
}

fn containers_ready(
    inputs: &Inputs<'_>,
    phase: &str,
    init: &[ContainerStatus],
    regular: &[ContainerStatus],
) -> Verdict {
    if phase == "Succeeded" {
        return Verdict::bad("PodCompleted", "");
    }
    if phase == "Failed" {
        return Verdict::bad("PodFailed", "");
    }
    let sidecars =
        init.iter().zip(spec::init_containers(inputs.pod)).filter(|(_, c)| is_sidecar(c)).map(|(s, _)| s);
    let unready: Vec<_> = sidecars.chain(regular).filter(|s| !s.ready).map(|s| s.name.as_str()).collect();
    if unready.is_empty() {
        return Verdict::good();
    }
    Verdict::bad("ContainersNotReady", format!("containers with unready status: [{}]", unready.join(" ")))
}

/// The patch that brings the API's status to this one: conditions of others stay, addresses are replaced.
pub fn patch(pod: &Pod, status: &PodStatus) -> serde_json::Value {
    let mut value = serde_json::to_value(status).unwrap_or_default();
    let before = pod.status.clone().unwrap_or_default();
    let gone = |set: bool| if set { None } else { Some(serde_json::Value::Null) };
    for (field, null) in [
        ("reason", gone(status.reason.is_some() || before.reason.is_none())),
        ("message", gone(status.message.is_some() || before.message.is_none())),
        ("podIP", gone(status.pod_ip.is_some() || before.pod_ip.is_none())),
    ] {
        if let Some(null) = null {
            value[field] = null;
        }
    }
    let moved = before.pod_ips.is_some_and(|b| !b.is_empty() && Some(&b) != status.pod_ips.as_ref());
    if moved {
        let mut list = value["podIPs"].as_array().cloned().unwrap_or_default();
        list.push(serde_json::json!({ "$patch": "replace" }));
        value["podIPs"] = list.into();
    }
    let conditions = status.conditions.as_deref().unwrap_or_default();
    let over = RESIZING.iter().filter(|name| !conditions.iter().any(|c| c.type_ == **name));
    if let Some(list) = value["conditions"].as_array_mut() {
        list.extend(over.map(|name| serde_json::json!({ "$patch": "delete", "type": name })));
    }
    // A reason that no longer holds has to be taken away by name: lists of conditions merge.
    for condition in value["conditions"].as_array_mut().into_iter().flatten() {
        for field in ["reason", "message"] {
            if condition.get(field).is_none() && condition.get("$patch").is_none() {
                condition[field] = serde_json::Value::Null;
            }
        }
    }
    serde_json::json!({
        "metadata": { "uid": pod.metadata.uid },
        "status": value,
    })
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
