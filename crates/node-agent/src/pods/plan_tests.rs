use super::super::observe::Sandbox;
use super::*;
use serde_json::{Value, json};

const NOW: i64 = 1_000 * SECOND;

fn pod(spec: Value) -> Pod {
    serde_json::from_value(json!({ "metadata": { "name": "p", "namespace": "n", "uid": "u" }, "spec": spec }))
        .expect("a pod")
}

fn simple(restart_policy: &str) -> Pod {
    pod(json!({
        "restartPolicy": restart_policy,
        "containers": [{ "name": "a", "image": "i" }, { "name": "b", "image": "i" }],
    }))
}

fn with_sandbox() -> PodState {
    let sandbox = Sandbox { id: "s".into(), attempt: 0, ready: true, created_at: 1, ips: vec![] };
    PodState { sandboxes: vec![sandbox], ..Default::default() }
}

fn add(state: &mut PodState, name: &str, run: State, exit_code: i32) {
    let instance = Instance {
        id: format!("{name}-id"),
        sandbox: "s".into(),
        name: name.into(),
        attempt: 0,
        state: run,
        created_at: 1,
        started_at: 2,
        finished_at: if run == State::Exited { NOW - SECOND } else { 0 },
        exit_code,
        reason: String::new(),
        message: String::new(),
        image: "i".into(),
        image_id: "i".into(),
        hash: String::new(),
        log_path: String::new(),
        annotations: HashMap::new(),
        user: None,
    };
    state.containers.entry(name.into()).or_default().insert(0, instance);
}

fn started(memory: &mut Memory, name: &str) {
    let health = Health { started: true, ready: true, failed: None };
    memory.health.insert(format!("{name}-id"), health);
}

fn check(pod: &Pod, state: &PodState, memory: &Memory) -> Plan {
    plan(pod, state, memory, NOW)
}

#[test]
fn a_new_pod_gets_a_sandbox_first() {
    let plan = check(&simple("Always"), &PodState::default(), &Memory::default());
    assert_eq!(plan, Plan { new_sandbox: Some(0), ..Default::default() });
}

#[test]
fn a_dead_sandbox_is_replaced_by_the_next_attempt() {
    let mut state = with_sandbox();
    state.sandboxes[0].ready = false;
    add(&mut state, "a", State::Exited, 137);
    assert_eq!(check(&simple("Always"), &state, &Memory::default()).new_sandbox, Some(1));
}

#[test]
fn regular_containers_start_together() {
    let plan = check(&simple("Always"), &with_sandbox(), &Memory::default());
    assert_eq!(plan.start, [Start::Regular(0), Start::Regular(1)]);
}

#[test]
fn init_containers_run_one_after_another_and_hold_the_others_back() {
    let pod = pod(json!({
        "initContainers": [{ "name": "i0", "image": "i" }, { "name": "i1", "image": "i" }],
        "containers": [{ "name": "a", "image": "i" }],
    }));
    let mut state = with_sandbox();
    assert_eq!(check(&pod, &state, &Memory::default()).start, [Start::Init(0)]);
    add(&mut state, "i0", State::Running, 0);
    assert_eq!(check(&pod, &state, &Memory::default()).start, []);
    add(&mut state, "i0", State::Exited, 0);
    assert_eq!(check(&pod, &state, &Memory::default()).start, [Start::Init(1)]);
    add(&mut state, "i1", State::Exited, 0);
    assert_eq!(check(&pod, &state, &Memory::default()).start, [Start::Regular(0)]);
}

#[test]
fn a_sidecar_has_to_be_started_before_the_next_container_begins() {
    let pod = pod(json!({
        "initContainers": [{ "name": "side", "image": "i", "restartPolicy": "Always" }],
        "containers": [{ "name": "a", "image": "i" }],
    }));
    let (mut state, mut memory) = (with_sandbox(), Memory::default());
    assert_eq!(check(&pod, &state, &memory).start, [Start::Init(0)]);
    add(&mut state, "side", State::Running, 0);
    assert_eq!(check(&pod, &state, &memory).start, []);
    started(&mut memory, "side");
    assert_eq!(check(&pod, &state, &memory).start, [Start::Regular(0)]);
    add(&mut state, "a", State::Running, 0);
    add(&mut state, "side", State::Exited, 1);
    assert_eq!(check(&pod, &state, &memory).start, [Start::Init(0)]);
}

#[test]
fn an_init_container_that_fails_for_good_ends_the_pod() {
    let pod = pod(json!({
        "restartPolicy": "Never",
        "initContainers": [{ "name": "i0", "image": "i" }],
        "containers": [{ "name": "a", "image": "i" }],
    }));
    let mut state = with_sandbox();
    add(&mut state, "i0", State::Exited, 1);
    assert!(check(&pod, &state, &Memory::default()).ended);
}

#[test]
fn the_first_restart_is_immediate_and_the_next_waits() {
    let (pod, mut state, mut memory) = (simple("Always"), with_sandbox(), Memory::default());
    add(&mut state, "a", State::Exited, 1);
    add(&mut state, "b", State::Running, 0);
    assert_eq!(check(&pod, &state, &memory).start, [Start::Regular(0)]);
    memory.bump("a", NOW - 2 * SECOND);
    let plan = check(&pod, &state, &memory);
    assert_eq!(plan.start, []);
    assert_eq!(plan.paused["a"], FIRST_BACKOFF);
    assert_eq!(plan.wake_at, Some(NOW - SECOND + FIRST_BACKOFF));
}

#[test]
fn pauses_double_up_to_five_minutes_and_are_forgotten_after_ten() {
    let mut memory = Memory::default();
    let mut pauses = Vec::new();
    for i in 0..7 {
        memory.bump("a", NOW + i);
        pauses.push(memory.containers["a"].backoff.expect("bumped").0 / SECOND);
    }
    assert_eq!(pauses, [10, 20, 40, 80, 160, 300, 300]);
    memory.bump("a", NOW + FORGET_AFTER + 10);
    assert_eq!(memory.containers["a"].backoff.expect("bumped").0, FIRST_BACKOFF);
}

#[test]
fn restart_policies_decide_over_ended_containers() {
    for (policy, code, starts, ends) in [
        ("Always", 0, true, false),
        ("OnFailure", 1, true, false),
        ("OnFailure", 0, false, true),
        ("Never", 1, false, true),
    ] {
        let mut state = with_sandbox();
        add(&mut state, "a", State::Exited, code);
        add(&mut state, "b", State::Exited, code);
        let plan = check(&simple(policy), &state, &Memory::default());
        assert_eq!((!plan.start.is_empty(), plan.ended), (starts, ends), "{policy} {code}");
    }
}

#[test]
fn rules_of_a_container_go_before_the_pods_policy() {
    let pod = pod(json!({
        "restartPolicy": "Never",
        "containers": [{
            "name": "a", "image": "i", "restartPolicy": "Never",
            "restartPolicyRules": [{ "action": "Restart", "exitCodes": { "operator": "In", "values": [42] } }],
        }],
    }));
    let container = &spec::containers(&pod)[0];
    assert!(restarts(&pod, container, 42));
    assert!(!restarts(&pod, container, 1));
}

#[test]
fn a_failed_probe_kills_and_a_changed_image_too() {
    let (pod, mut state, mut memory) = (simple("Always"), with_sandbox(), Memory::default());
    add(&mut state, "a", State::Running, 0);
    add(&mut state, "b", State::Running, 0);
    state.containers.get_mut("b").expect("added")[0].hash = "other".into();
    let health = Health { started: true, ready: false, failed: Some("liveness".into()) };
    memory.health.insert("a-id".into(), health);
    let plan = check(&pod, &state, &memory);
    assert_eq!(plan.kill[0].message, "liveness");
    assert_eq!(plan.kill[1].message, "Container b definition changed, will be restarted");
    assert_eq!(plan.start, []);
}

#[test]
fn a_failed_start_is_tried_again_in_its_time() {
    let (pod, state, mut memory) = (simple("Always"), with_sandbox(), Memory::default());
    memory.containers.entry("a".into()).or_default().retry_at = NOW + 5 * SECOND;
    let plan = check(&pod, &state, &memory);
    assert_eq!((plan.start, plan.wake_at), (vec![Start::Regular(1)], Some(NOW + 5 * SECOND)));
}

#[test]
fn a_container_that_was_ended_to_start_anew_does_so_however_it_ended() {
    let (pod, mut state, mut memory) = (simple("Never"), with_sandbox(), Memory::default());
    add(&mut state, "a", State::Exited, 0);
    add(&mut state, "b", State::Exited, 0);
    assert!(check(&pod, &state, &memory).ended);
    memory.containers.entry("a".into()).or_default().again = true;
    assert_eq!(check(&pod, &state, &memory).start, [Start::Regular(0)]);
}
