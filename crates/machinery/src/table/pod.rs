//! Pods: what READY, STATUS and RESTARTS say.

use super::object::Obj;
use serde_json::{Value, json};

/// What the containers' statuses add up to.
#[derive(Default)]
struct Summary {
    ready: usize,
    restarts: i64,
    /// When a container last ended before its present run (RFC 3339 in UTC, so texts compare).
    last_restart: String,
    reason: String,
}

pub(super) fn pod(o: &Obj) -> Vec<Value> {
    let restartable = |name: &str| {
        o.list("spec.initContainers").any(|c| c.text("name") == name && c.text("restartPolicy") == "Always")
    };
    let sidecars = o.list("spec.initContainers").filter(|c| c.text("restartPolicy") == "Always").count();
    let total = o.len("spec.containers") + sidecars;
    let mut sum = Summary { reason: phase_reason(o), ..Summary::default() };
    let (initializing, side) = init_containers(o, &mut sum, &restartable);
    if !initializing || o.has_true_condition("Initialized") {
        sum.restarts = side.restarts;
        sum.last_restart = side.last_restart;
        containers(o, &mut sum);
    }
    if o.has("metadata.deletionTimestamp") {
        if o.text("status.reason") == "NodeLost" {
            sum.reason = "Unknown".to_owned();
        } else if !matches!(o.text("status.phase"), "Failed" | "Succeeded") {
            sum.reason = "Terminating".to_owned();
        }
    }
    let restarts = if sum.restarts != 0 && !sum.last_restart.is_empty() {
        let last = json!({"at": sum.last_restart});
        format!("{} ({} ago)", sum.restarts, o.with(&last).since("at"))
    } else {
        sum.restarts.to_string()
    };
    vec![
        o.name(),
        json!(format!("{}/{total}", sum.ready)),
        json!(sum.reason),
        json!(restarts),
        o.age(),
        json!(o.list("status.podIPs").next().map_or("<none>".to_owned(), |ip| ip.or("ip", "<none>"))),
        json!(o.or("spec.nodeName", "<none>")),
        json!(o.or("status.nominatedNodeName", "<none>")),
        json!(readiness_gates(o)),
    ]
}

fn phase_reason(o: &Obj) -> String {
    let gated = o.condition("PodScheduled").is_some_and(|c| c.text("reason") == "SchedulingGated");
    if gated {
        return "SchedulingGated".to_owned();
    }
    let reason = o.text("status.reason");
    if reason.is_empty() { o.text("status.phase").to_owned() } else { reason.to_owned() }
}

/// Whether the pod is still initialising, and what its sidecars add.
fn init_containers(o: &Obj, sum: &mut Summary, restartable: &dyn Fn(&str) -> bool) -> (bool, Summary) {
    let mut side = Summary::default();
    let count = o.len("spec.initContainers");
    for (i, status) in o.list("status.initContainerStatuses").enumerate() {
        let sidecar = restartable(status.text("name"));
        count_restarts(&status, sum);
        if sidecar {
            count_restarts(&status, &mut side);
        }
        let ended = status.has("state.terminated");
        if ended && status.int("state.terminated.exitCode") == 0 {
            continue;
        }
        if sidecar && status.flag("started") {
            sum.ready += usize::from(status.flag("ready"));
            continue;
        }
        let waiting = status.text("state.waiting.reason");
        sum.reason = if ended {
            format!("Init:{}", end_reason(&status))
        } else if !waiting.is_empty() && waiting != "PodInitializing" {
            format!("Init:{waiting}")
        } else {
            format!("Init:{i}/{count}")
        };
        return (true, side);
    }
    (false, side)
}

fn containers(o: &Obj, sum: &mut Summary) {
    let (mut running, mut failed) = (false, String::new());
    for status in o.list("status.containerStatuses").rev() {
        count_restarts(&status, sum);
        let waiting = status.text("state.waiting.reason");
        if !waiting.is_empty() {
            sum.reason = waiting.to_owned();
        } else if status.has("state.terminated") {
            sum.reason = end_reason(&status);
            if status.int("state.terminated.exitCode") != 0 {
                failed = sum.reason.clone();
            }
        } else if status.flag("ready") && status.has("state.running") {
            running = true;
            sum.ready += 1;
        }
    }
    // A pod of which some containers completed is judged by the others.
    if sum.reason == "Completed" {
        if running && o.has_true_condition("Ready") {
            sum.reason = "Running".to_owned();
        } else if !failed.is_empty() {
            sum.reason = failed;
        } else if running {
            sum.reason = "NotReady".to_owned();
        }
    }
}

fn count_restarts(status: &Obj, sum: &mut Summary) {
    sum.restarts += status.int("restartCount");
    let ended = status.text("lastState.terminated.finishedAt");
    if ended > sum.last_restart.as_str() {
        sum.last_restart = ended.to_owned();
    }
}

fn end_reason(status: &Obj) -> String {
    let reason = status.text("state.terminated.reason");
    let signal = status.int("state.terminated.signal");
    if !reason.is_empty() {
        reason.to_owned()
    } else if signal != 0 {
        format!("Signal:{signal}")
    } else {
        format!("ExitCode:{}", status.int("state.terminated.exitCode"))
    }
}

fn readiness_gates(o: &Obj) -> String {
    let gates = o.len("spec.readinessGates");
    if gates == 0 {
        return "<none>".to_owned();
    }
    let met = o.list("spec.readinessGates").filter(|g| o.has_true_condition(g.text("conditionType"))).count();
    format!("{met}/{gates}")
}
