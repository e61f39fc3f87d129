use super::super::observe::Sandbox;
use super::super::plan::{ContainerMemory, Health};
use super::*;
use serde_json::{Value, json};

fn pod(value: Value) -> Pod {
    serde_json::from_value(value).expect("a pod")
}

fn one(policy: &str) -> Pod {
    pod(json!({
        "metadata": { "name": "p", "namespace": "n", "uid": "u", "generation": 3 },
        "spec": { "restartPolicy": policy, "containers": [{ "name": "a", "image": "img:v1" }] },
    }))
}

fn state(runs: &[(State, i32)]) -> PodState {
    let sandbox =
        Sandbox { id: "s".into(), attempt: 0, ready: true, created_at: 1, ips: vec!["10.244.0.5".into()] };
    let instance = |(attempt, (state, code)): (usize, &(State, i32))| Instance {
        id: format!("id{attempt}"),
        sandbox: "s".into(),
        name: "a".into(),
        attempt: attempt as u32,
        state: *state,
        created_at: 1,
        started_at: 2_000_000_000,
        finished_at: 3_000_000_000,
        exit_code: *code,
        reason: String::new(),
        message: String::new(),
        image: "img:v1".into(),
        image_id: "sha256:1".into(),
        hash: String::new(),
        log_path: String::new(),
        annotations: HashMap::new(),
        user: None,
    };
    let mut list: Vec<_> = runs.iter().enumerate().map(instance).collect();
    list.reverse();
    let containers = if list.is_empty() { Default::default() } else { [("a".to_owned(), list)].into() };
    PodState { sandboxes: vec![sandbox], containers }
}

struct Case {
    pod: Pod,
    state: PodState,
    memory: Memory,
    paused: HashMap<String, i64>,
    ended: bool,
}

impl Case {
    fn new(pod: Pod, state: PodState) -> Self {
        Self { pod, state, memory: Memory::default(), paused: HashMap::new(), ended: false }
    }

    fn status(&self) -> PodStatus {
        status(&Inputs {
            pod: &self.pod,
            state: &self.state,
            memory: &self.memory,
            paused: &self.paused,
            host_ip: IpAddr::from([192, 168, 1, 1]),
            runtime_name: "containerd",
            messages: &HashMap::new(),
            start_time: jiff::Timestamp::UNIX_EPOCH,
            now: jiff::Timestamp::UNIX_EPOCH,
            ended: self.ended,
            verdict: None,
        })
    }
}

fn condition<'a>(status: &'a PodStatus, name: &str) -> &'a PodCondition {
    status.conditions.iter().flatten().find(|c| c.type_ == name).expect("owned")
}

fn reason(status: &PodStatus) -> &str {
    let first = &status.container_statuses.as_ref().expect("one")[0];
    let state = first.state.as_ref().expect("set");
    let waiting = state.waiting.as_ref().and_then(|w| w.reason.as_deref());
    waiting.or(state.terminated.as_ref().and_then(|t| t.reason.as_deref())).unwrap_or("Running")
}

#[test]
fn a_pod_without_containers_yet_is_pending() {
    let status = Case::new(one("Always"), state(&[])).status();
    assert_eq!((status.phase.as_deref(), reason(&status)), (Some("Pending"), "ContainerCreating"));
    assert_eq!(condition(&status, "PodReadyToStartContainers").status, "True");
    let ready = condition(&status, "Ready");
    assert_eq!(ready.reason.as_deref(), Some("ContainersNotReady"));
    assert_eq!(ready.message.as_deref(), Some("containers with unready status: [a]"));
    assert_eq!(ready.observed_generation, Some(3));
}

#[test]
fn a_started_and_ready_container_makes_the_pod_ready() {
    let mut case = Case::new(one("Always"), state(&[(State::Running, 0)]));
    assert_eq!(condition(&case.status(), "Ready").status, "False");
    case.memory.health.insert("id0".into(), Health { started: true, ready: true, failed: None });
    let status = case.status();
    assert_eq!(status.phase.as_deref(), Some("Running"));
    assert_eq!(condition(&status, "Ready").status, "True");
    assert_eq!(status.pod_ip.as_deref(), Some("10.244.0.5"));
    let container = &status.container_statuses.as_ref().expect("one")[0];
    assert_eq!(container.container_id.as_deref(), Some("containerd://id0"));
    assert_eq!(container.started, Some(true));
}

#[test]
fn a_crash_loop_is_waiting_with_its_last_end() {
    let mut case = Case::new(one("Always"), state(&[(State::Exited, 1), (State::Exited, 2)]));
    case.paused.insert("a".into(), 80_000_000_000);
    let status = case.status();
    assert_eq!((status.phase.as_deref(), reason(&status)), (Some("Running"), "CrashLoopBackOff"));
    let container = &status.container_statuses.as_ref().expect("one")[0];
    assert_eq!(container.restart_count, 1);
    let last = container.last_state.as_ref().and_then(|s| s.terminated.as_ref()).expect("an end");
    assert_eq!(last.exit_code, 2);
    let message = container.state.as_ref().and_then(|s| s.waiting.as_ref()?.message.as_deref());
    assert_eq!(message, Some("back-off 1m20s restarting failed container=a pod=p_n(u)"));
}

#[test]
fn ends_decide_the_phase_by_restart_policy() {
    for (policy, code, ended, phase) in [
        ("Never", 0, false, "Succeeded"),
        ("Never", 1, false, "Failed"),
        ("OnFailure", 0, false, "Succeeded"),
        ("OnFailure", 1, false, "Running"),
        ("Always", 0, false, "Running"),
        ("Always", 0, true, "Succeeded"),
        ("Always", 137, true, "Failed"),
    ] {
        let mut case = Case::new(one(policy), state(&[(State::Exited, code)]));
        case.ended = ended;
        assert_eq!(case.status().phase.as_deref(), Some(phase), "{policy} {code} {ended}");
    }
}

#[test]
fn why_a_start_failed_is_shown_as_waiting() {
    let mut case = Case::new(one("Always"), state(&[]));
    let waiting = Waiting { reason: "ErrImagePull".into(), message: "no such image".into() };
    case.memory
        .containers
        .insert("a".into(), ContainerMemory { waiting: Some(waiting), ..Default::default() });
    assert_eq!(reason(&case.status()), "ErrImagePull");
}

#[test]
fn a_transition_keeps_its_time_until_the_status_changes() {
    let mut case = Case::new(one("Always"), state(&[]));
    case.pod.status = Some(PodStatus {
        conditions: Some(vec![PodCondition {
            type_: "Ready".into(),
            status: "False".into(),
            last_transition_time: Some(Time(jiff::Timestamp::from_second(77).expect("in range"))),
            ..Default::default()
        }]),
        ..Default::default()
    });
    let status = case.status();
    let at = |name: &str| condition(&status, name).last_transition_time.as_ref().map(|t| t.0.as_second());
    assert_eq!((at("Ready"), at("Initialized")), (Some(77), Some(0)));
}

#[test]
fn readiness_gates_hold_readiness_back() {
    let mut case = Case::new(one("Always"), state(&[(State::Running, 0)]));
    case.memory.health.insert("id0".into(), Health { started: true, ready: true, failed: None });
    let gate = json!([{ "conditionType": "example.com/gate" }]);
    case.pod.spec.as_mut().expect("set").readiness_gates = serde_json::from_value(gate).expect("gates");
    let status = case.status();
    assert_eq!(condition(&status, "ContainersReady").status, "True");
    assert_eq!(condition(&status, "Ready").reason.as_deref(), Some("ReadinessGatesNotReady"));
}

#[test]
fn the_patch_takes_away_what_no_longer_holds() {
    let mut case = Case::new(one("Always"), state(&[]));
    case.pod.status =
        Some(PodStatus { pod_ips: Some(vec![PodIP { ip: "old".into() }]), ..Default::default() });
    let patch = patch(&case.pod, &case.status());
    assert_eq!(patch["status"]["podIPs"][1]["$patch"], "replace");
    assert_eq!(patch["metadata"]["uid"], "u");
    let conditions = patch["status"]["conditions"].as_array().expect("a list");
    let (gone, told): (Vec<_>, Vec<_>) = conditions.iter().partition(|c| c["$patch"] == "delete");
    assert!(told.iter().all(|c| c.get("reason").is_some()));
    assert_eq!(
        gone.iter().map(|c| &c["type"]).collect::<Vec<_>>(),
        ["PodResizePending", "PodResizeInProgress"]
    );
}
