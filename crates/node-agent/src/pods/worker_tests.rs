//! Whole lives of pods against the fake runtime, in virtual time.

use crate::config::Config;
use crate::context::{Allocatable, Context};
use crate::fake::FakeApi;
use crate::pods::images::Images;
use crate::pods::manager::{Feed, Manager};
use k8s_openapi::api::core::v1::ConfigMap;
use keelson_cri::fake::Fake;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// 2026-01-01 and what tokio's clock has moved since the first look. One test is one process.
pub fn now() -> i64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    1_767_225_600_000_000_000 + START.elapsed().as_nanos() as i64
}

struct World {
    runtime: Arc<Fake>,
    api: Arc<FakeApi>,
    feed: mpsc::UnboundedSender<Feed>,
    cgroups: Arc<keelson_host::cgroup::Fake>,
    mounts: Arc<keelson_host::mount::Fake>,
    state: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        now();
        let runtime = Arc::new(Fake::with_clock(now));
        runtime.add_image("img:v1");
        Self::over(runtime)
    }

    /// An agent that starts with what the runtime has.
    fn over(runtime: Arc<Fake>) -> Self {
        let state = tempfile::tempdir().expect("temporary directory");
        let config: Config = serde_json::from_value(json!({
            "kubeconfig": "none", "bind": { "address": "127.0.0.1", "port": 0 }, "pkiDir": "none",
            "stateDir": state.path(), "runtimeEndpoint": "none", "cniConfigDir": "none", "cniDataDir": "none",
        }))
        .expect("a configuration");
        let api = Arc::new(FakeApi::default());
        let cgroups = Arc::new(keelson_host::cgroup::Fake::default());
        let mounts = Arc::new(keelson_host::mount::Fake::default());
        let ctx = Arc::new(Context {
            config,
            node_name: "n".into(),
            node_ip: IpAddr::from([192, 168, 0, 1]),
            api: api.clone(),
            runtime: runtime.clone(),
            cgroups: cgroups.clone(),
            mounts: mounts.clone(),
            images: Images::default(),
            allocatable: Allocatable {
                cpu_milli: 4000,
                memory_bytes: 8 << 30,
                ephemeral_bytes: 8 << 30,
                pods: 10,
            },
            runtime_name: "fake".into(),
        });
        let (feed, changes) = mpsc::unbounded_channel();
        *api.feed.lock() = Some(feed.clone());
        let wanted = Arc::new(|| Some(HashSet::from(["u".to_owned()])));
        tokio::spawn(Manager::new(ctx).run(changes, wanted, Arc::default()));
        Self { runtime, api, feed, cgroups, mounts, state }
    }

    fn set(&self, pod: &Value) {
        let pod = serde_json::from_value(pod.clone()).expect("a pod");
        self.feed.send(Feed::Set(Arc::new(pod))).expect("the manager runs");
    }

    /// Waits, in virtual time, until the reported status is as wanted.
    async fn until(&self, what: &str, good: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + Duration::from_secs(3600);
        loop {
            let status = self.api.status.lock().clone();
            if good(&status) {
                return status;
            }
            assert!(Instant::now() < deadline, "{what} did not come; last: {status:#}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn has_event(&self, reason: &str) -> bool {
        self.api.events.lock().iter().any(|(r, _)| r == reason)
    }
}

fn pod(spec: Value) -> Value {
    json!({ "metadata": { "name": "p", "namespace": "ns", "uid": "u", "generation": 1 }, "spec": spec })
}

fn one() -> Value {
    pod(json!({ "containers": [{ "name": "a", "image": "img:v1" }], "terminationGracePeriodSeconds": 5 }))
}

fn waiting(status: &Value) -> &str {
    status["containerStatuses"][0]["state"]["waiting"]["reason"].as_str().unwrap_or_default()
}

fn restarts(status: &Value) -> i64 {
    status["containerStatuses"][0]["restartCount"].as_i64().unwrap_or_default()
}

fn is_ready(status: &Value) -> bool {
    let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
}

#[tokio::test(start_paused = true)]
async fn a_pod_comes_up_and_is_taken_down_with_its_grace() {
    let world = World::new();
    world.set(&one());
    let status = world.until("ready", is_ready).await;
    assert_eq!((status["phase"].as_str(), status["podIP"].as_str()), (Some("Running"), Some("10.244.0.1")));
    for reason in ["Pulled", "Created", "Started"] {
        assert!(world.has_event(reason), "{reason}");
    }
    assert!(world.cgroups.groups().contains_key("/kubepods/besteffort/podu"));
    let mut deleted = one();
    deleted["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    deleted["metadata"]["deletionGracePeriodSeconds"] = json!(5);
    world.set(&deleted);
    let deadline = Instant::now() + Duration::from_secs(60);
    while world.api.deleted.lock().is_empty() {
        assert!(Instant::now() < deadline, "the object was not removed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(world.runtime.take_calls().contains(&"stop_container a 5s".to_owned()));
    assert_eq!(world.runtime.sandbox_count(), 0);
    assert_eq!(world.api.status.lock()["phase"], "Failed");
    assert!(!world.state.path().join("pods/u").exists());
    assert!(!world.cgroups.groups().contains_key("/kubepods/besteffort/podu"));
}

#[tokio::test(start_paused = true)]
async fn a_killed_container_is_back_at_once_and_then_after_a_pause() {
    let world = World::new();
    world.set(&one());
    world.until("ready", is_ready).await;
    let begun = Instant::now();
    assert!(world.runtime.exit("a", 1));
    world.until("one restart", |s| restarts(s) == 1 && is_ready(s)).await;
    assert!(begun.elapsed() < Duration::from_secs(1));
    assert!(world.runtime.exit("a", 1));
    let status = world.until("a pause", |s| waiting(s) == "CrashLoopBackOff").await;
    assert_eq!(status["containerStatuses"][0]["lastState"]["terminated"]["exitCode"], 1);
    assert!(world.has_event("BackOff"));
    let begun = Instant::now();
    world.until("two restarts", |s| restarts(s) == 2 && is_ready(s)).await;
    assert!((9..12).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_never_restarts_ends_with_its_container() {
    let world = World::new();
    world.runtime.exit_on_start("a", 0);
    let mut pod = one();
    pod["spec"]["restartPolicy"] = json!("Never");
    world.set(&pod);
    let status = world.until("the end", |s| s["phase"] == "Succeeded").await;
    assert_eq!(status["containerStatuses"][0]["state"]["terminated"]["reason"], "Completed");
    assert!(world.runtime.take_calls().iter().any(|c| c.starts_with("stop_pod_sandbox")));
}

#[tokio::test(start_paused = true)]
async fn init_containers_run_first() {
    let world = World::new();
    world.runtime.exit_on_start("i", 0);
    let mut pod = one();
    pod["spec"]["initContainers"] = json!([{ "name": "i", "image": "img:v1" }]);
    world.set(&pod);
    world.until("ready", is_ready).await;
    let starts: Vec<_> =
        world.runtime.take_calls().into_iter().filter(|c| c.starts_with("start_container")).collect();
    assert_eq!(starts, ["start_container i", "start_container a"]);
}

#[tokio::test(start_paused = true)]
async fn an_image_that_cannot_be_pulled_backs_off_and_comes_later() {
    let world = World::new();
    for _ in 0..2 {
        world.runtime.fail_next("pull_image", "no such image");
    }
    let mut pod = one();
    pod["spec"]["containers"][0]["image"] = json!("other:v1");
    world.set(&pod);
    world.until("an error", |s| waiting(s) == "ErrImagePull").await;
    world.until("a pause", |s| waiting(s) == "ImagePullBackOff").await;
    world.until("ready", is_ready).await;
}

#[tokio::test(start_paused = true)]
async fn a_failing_liveness_probe_restarts_the_container() {
    let world = World::new();
    world.runtime.on_exec("check", 1, "bad");
    let mut pod = one();
    pod["spec"]["containers"][0]["livenessProbe"] =
        json!({ "exec": { "command": ["check"] }, "periodSeconds": 1, "failureThreshold": 2 });
    world.set(&pod);
    world.until("a restart", |s| restarts(s) >= 1).await;
    assert!(world.has_event("Unhealthy") && world.has_event("Killing"));
}

#[tokio::test(start_paused = true)]
async fn readiness_follows_its_probe() {
    let world = World::new();
    world.runtime.on_exec("check", 1, "not yet");
    let mut pod = one();
    pod["spec"]["containers"][0]["readinessProbe"] =
        json!({ "exec": { "command": ["check"] }, "periodSeconds": 1, "failureThreshold": 1 });
    world.set(&pod);
    let status = world.until("running", |s| s["phase"] == "Running").await;
    assert!(!is_ready(&status));
    world.runtime.on_exec("check", 0, "");
    world.until("ready", is_ready).await;
    world.runtime.on_exec("check", 1, "");
    world.until("unready", |s| !is_ready(s)).await;
}

#[tokio::test(start_paused = true)]
async fn what_was_ready_stays_so_when_the_agent_starts_again() {
    let before = World::new();
    before.runtime.on_exec("check", 0, "");
    let mut pod = one();
    for probe in ["startupProbe", "readinessProbe"] {
        pod["spec"]["containers"][0][probe] = json!({ "exec": { "command": ["check"] }, "periodSeconds": 1 });
    }
    before.set(&pod);
    pod["status"] = before.until("ready", is_ready).await;
    let world = World::over(before.runtime.clone());
    world.set(&pod);
    world.until("a status", |s| !s.is_null()).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let statuses = world.api.statuses.lock();
    assert!(statuses.iter().all(is_ready), "{statuses:#?}");
}

#[tokio::test(start_paused = true)]
async fn a_pod_waits_for_its_config_map() {
    let world = World::new();
    let mut pod = one();
    pod["spec"]["volumes"] = json!([{ "name": "v", "configMap": { "name": "cm" } }]);
    pod["spec"]["containers"][0]["volumeMounts"] = json!([{ "name": "v", "mountPath": "/v" }]);
    world.set(&pod);
    let deadline = Instant::now() + Duration::from_secs(60);
    while !world.has_event("FailedMount") {
        assert!(Instant::now() < deadline, "no event tells of it");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(world.runtime.sandbox_count(), 0);
    let data = BTreeMap::from([("k".to_owned(), "v".to_owned())]);
    let map = ConfigMap { data: Some(data), ..Default::default() };
    world.api.config_maps.lock().insert("cm".into(), map);
    world.until("ready", is_ready).await;
    let id = world.runtime.running("a").expect("running");
    let config = world.runtime.config(&id).expect("created");
    let mount = config.mounts.iter().find(|m| m.container_path == "/v").expect("mounted");
    assert!(mount.readonly);
    let file = std::path::Path::new(&mount.host_path).join("k");
    assert_eq!(std::fs::read_to_string(file).expect("written"), "v");
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_does_not_fit_is_refused() {
    let world = World::new();
    let mut pod = one();
    pod["spec"]["containers"][0]["resources"] = json!({ "requests": { "cpu": "64" } });
    world.set(&pod);
    let status = world.until("a refusal", |s| s["phase"] == "Failed").await;
    assert_eq!(status["reason"], "OutOfcpu");
    assert_eq!(world.runtime.sandbox_count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_pod_past_its_deadline_fails() {
    let world = World::new();
    let mut pod = one();
    pod["spec"]["activeDeadlineSeconds"] = json!(30);
    world.set(&pod);
    world.until("ready", is_ready).await;
    let status = world.until("the end", |s| s["phase"] == "Failed").await;
    assert_eq!(status["reason"], "DeadlineExceeded");
}

#[tokio::test(start_paused = true)]
async fn a_dead_sandbox_is_replaced_with_its_containers() {
    let world = World::new();
    world.set(&one());
    world.until("ready", is_ready).await;
    let _ = keelson_cri::Runtime::stop_pod_sandbox(world.runtime.as_ref(), "sandbox-1").await;
    let status = world.until("a restart", |s| restarts(s) == 1 && is_ready(s)).await;
    assert_eq!(status["podIP"], "10.244.0.3");
    assert!(world.has_event("SandboxChanged"));
}

fn sized(generation: i64, cpu: &str, policy: &str) -> Value {
    let mut pod = one();
    pod["metadata"]["generation"] = json!(generation);
    pod["spec"]["restartPolicy"] = json!("OnFailure");
    pod["spec"]["containers"][0]["resources"] =
        json!({ "requests": { "cpu": cpu }, "limits": { "cpu": cpu, "memory": "1Gi" } });
    pod["spec"]["containers"][0]["resizePolicy"] =
        json!([{ "resourceName": "cpu", "restartPolicy": policy }]);
    pod
}

fn condition<'a>(status: &'a Value, name: &str) -> Option<&'a Value> {
    status["conditions"].as_array()?.iter().find(|c| c["type"] == name && c["status"] == "True")
}

/// Whether the container runs with so many CPUs and nothing is left to do.
fn has_cpus(status: &Value, cpu: &str) -> bool {
    let container = &status["containerStatuses"][0];
    is_ready(status)
        && container["resources"]["limits"]["cpu"] == cpu
        && container["allocatedResources"]["cpu"] == cpu
        && condition(status, "PodResizeInProgress").or(condition(status, "PodResizePending")).is_none()
}

#[tokio::test(start_paused = true)]
async fn a_running_container_gets_more_and_less_without_a_restart() {
    let world = World::new();
    world.set(&sized(1, "1", "NotRequired"));
    world.until("ready", is_ready).await;
    for (generation, cpu, quota) in [(2, "2", 200_000), (3, "500m", 50_000)] {
        world.runtime.take_calls();
        world.set(&sized(generation, cpu, "NotRequired"));
        let status = world.until(cpu, |s| has_cpus(s, cpu) && s["observedGeneration"] == generation).await;
        assert_eq!(restarts(&status), 0);
        let updates = world.runtime.take_calls();
        assert_eq!(updates.iter().filter(|c| c.starts_with("update_container_resources")).count(), 1);
        let cgroup = world.cgroups.groups()["/kubepods/podu"];
        assert_eq!(cgroup.cpu_quota_us, Some(quota));
    }
    assert!(world.has_event("ResizeStarted") && world.has_event("ResizeCompleted"));
}

#[tokio::test(start_paused = true)]
async fn a_resize_that_asks_for_a_restart_gets_one() {
    let world = World::new();
    world.set(&sized(1, "1", "RestartContainer"));
    world.until("ready", is_ready).await;
    world.set(&sized(2, "2", "RestartContainer"));
    let status = world.until("resized", |s| has_cpus(s, "2")).await;
    assert_eq!(restarts(&status), 1);
}

#[tokio::test(start_paused = true)]
async fn a_resize_that_does_not_fit_waits_and_changes_nothing() {
    let world = World::new();
    world.set(&sized(1, "1", "NotRequired"));
    world.until("ready", is_ready).await;
    world.set(&sized(2, "64", "NotRequired"));
    let status = world.until("deferred", |s| condition(s, "PodResizePending").is_some()).await;
    assert_eq!(condition(&status, "PodResizePending").expect("there")["reason"], "Deferred");
    assert_eq!(status["containerStatuses"][0]["allocatedResources"]["cpu"], "1");
    world.set(&sized(3, "2", "NotRequired"));
    world.until("resized", |s| has_cpus(s, "2")).await;
}

#[tokio::test(start_paused = true)]
async fn a_resize_that_the_runtime_refuses_is_told_and_tried_again() {
    let world = World::new();
    world.set(&sized(1, "1", "NotRequired"));
    world.until("ready", is_ready).await;
    world.runtime.fail_next("update_container_resources", "not now");
    world.set(&sized(2, "2", "NotRequired"));
    let failed = |s: &Value| condition(s, "PodResizeInProgress").is_some_and(|c| c["reason"] == "Error");
    let status = world.until("an error", failed).await;
    assert_eq!(status["containerStatuses"][0]["resources"]["limits"]["cpu"], "1");
    world.until("resized", |s| has_cpus(s, "2")).await;
}

#[tokio::test(start_paused = true)]
async fn a_volume_made_of_an_image_is_mounted_read_only_and_goes_with_the_pod() {
    let world = World::new();
    let mut pod = one();
    pod["spec"]["volumes"] = json!([{ "name": "v", "image": { "reference": "data:v1" } }]);
    pod["spec"]["containers"][0]["volumeMounts"] = json!([{ "name": "v", "mountPath": "/v" }]);
    world.runtime.fail_next("pull_image", "no such image");
    world.set(&pod);
    world.until("an error", |s| waiting(s) == "ErrImagePull").await;
    world.until("ready", is_ready).await;
    let config = world.runtime.config(&world.runtime.running("a").expect("running")).expect("created");
    let mount = config.mounts.iter().find(|m| m.container_path == "/v").expect("mounted");
    assert!(mount.readonly);
    let mounted = world.mounts.mounted();
    assert_eq!(
        mounted[std::path::Path::new(&mount.host_path)],
        "overlay layers of docker.io/library/data:v1 ro"
    );
    pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    world.runtime.take_calls();
    world.set(&pod);
    let deadline = Instant::now() + Duration::from_secs(60);
    while world.api.deleted.lock().is_empty() {
        assert!(Instant::now() < deadline, "the object was not removed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(world.runtime.take_calls().contains(&"release_views u".to_owned()));
    assert!(world.mounts.mounted().is_empty());
}
