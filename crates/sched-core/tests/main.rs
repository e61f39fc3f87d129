//! Decisions as tables: a few nodes and pods in, the chosen node or the words of the refusal out.

use std::sync::Arc;

use keelson_sched_core::api::{Labels, NodeSpec, NodeStatus, PodSpec};
use keelson_sched_core::pod::Identity;
use keelson_sched_core::preempt::preempt;
use keelson_sched_core::{Cache, PodInfo, Profile, Scheduler};
use serde_json::{Value, json};

fn node(cache: &mut Cache, name: &str, cpu: &str, zone: &str, spec: Value) {
    let labels: Labels =
        [("kubernetes.io/hostname", name), ("zone", zone)].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    let spec: NodeSpec = serde_json::from_value(spec).unwrap();
    let status = json!({"allocatable": {"cpu": cpu, "memory": "8Gi", "pods": "110"}});
    let status: NodeStatus = serde_json::from_value(status).unwrap();
    cache.set_node(name, labels, &spec, &status);
}

fn pod(name: &str, labels: Value, spec: Value) -> PodInfo {
    let id = Identity { namespace: "default".into(), name: name.into(), uid: name.into() };
    let spec: PodSpec = serde_json::from_value(spec).unwrap();
    PodInfo::new(id, serde_json::from_value(labels).unwrap(), &spec)
}

/// Three nodes: `a` and `b` in zone 1, `c` in zone 2; 2, 4 and 4 cores.
fn three() -> Cache {
    let mut cache = Cache::default();
    node(&mut cache, "a", "2", "1", json!({}));
    node(&mut cache, "b", "4", "1", json!({}));
    node(&mut cache, "c", "4", "2", json!({}));
    cache
}

fn asking(cpu: &str) -> Value {
    json!({"containers": [{"resources": {"requests": {"cpu": cpu}}}]})
}

#[track_caller]
fn check(cache: &mut Cache, pod: &PodInfo, want: Result<&str, &str>) {
    let got = Scheduler::default().schedule(pod, &cache.snapshot(), &Profile::standard("default-scheduler"));
    let got = got.map(|p| p.node).map_err(|e| e.to_string());
    assert_eq!(got.as_deref().map_err(String::as_str), want);
}

#[test]
fn a_pod_goes_where_its_request_fits() {
    let mut cache = three();
    cache.assume(&pod("big", json!({}), asking("3")), "b");
    check(&mut cache, &pod("p", json!({}), asking("3")), Ok("c"));
    check(&mut cache, &pod("p", json!({}), asking("5")), Err("0/3 nodes are available: 3 Insufficient cpu."));
    let gpu = json!({"containers": [{"resources": {"requests": {"example.com/gpu": "1"}}}]});
    let message = "0/3 nodes are available: 3 Insufficient example.com/gpu.";
    check(&mut cache, &pod("p", json!({}), gpu), Err(message));
}

#[test]
fn taints_and_cordons_keep_pods_away_unless_tolerated() {
    let mut cache = Cache::default();
    node(&mut cache, "a", "4", "1", json!({"unschedulable": true}));
    node(
        &mut cache,
        "b",
        "4",
        "1",
        json!({"taints": [{"key": "gpu", "value": "yes", "effect": "NoSchedule"}]}),
    );
    let message = "0/2 nodes are available: 1 node(s) had untolerated taint(s) {gpu: yes}, 1 node(s) were unschedulable.";
    check(&mut cache, &pod("p", json!({}), asking("1")), Err(message));
    let mut tolerant = asking("1");
    tolerant["tolerations"] = json!([{"key": "gpu", "operator": "Exists"}]);
    check(&mut cache, &pod("p", json!({}), tolerant), Ok("b"));
}

#[test]
fn node_selector_and_affinity_choose_nodes() {
    let mut cache = three();
    let mut spec = asking("1");
    spec["nodeSelector"] = json!({"zone": "2"});
    check(&mut cache, &pod("p", json!({}), spec), Ok("c"));
    let term =
        |values: Value| json!({"matchExpressions": [{"key": "zone", "operator": "In", "values": values}]});
    let mut spec = asking("1");
    spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"] =
        json!([term(json!(["3"]))]);
    let message = "0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector.";
    check(&mut cache, &pod("p", json!({}), spec), Err(message));
    let mut spec = asking("1");
    spec["affinity"]["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"] =
        json!([{"weight": 100, "preference": term(json!(["2"]))}]);
    check(&mut cache, &pod("p", json!({}), spec), Ok("c"));
}

#[test]
fn a_host_port_is_taken_once() {
    let mut cache = Cache::default();
    node(&mut cache, "a", "4", "1", json!({}));
    let with_port = |ip: &str| json!({"containers": [{"ports": [{"hostPort": 80, "hostIP": ip}]}]});
    cache.assume(&pod("first", json!({}), with_port("127.0.0.1")), "a");
    let message = "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports.";
    check(&mut cache, &pod("p", json!({}), with_port("")), Err(message));
    check(&mut cache, &pod("p", json!({}), with_port("127.0.0.2")), Ok("a"));
}

fn near(kind: &str, app: &str, key: &str) -> Value {
    let mut spec = asking("1");
    spec["affinity"][kind]["requiredDuringSchedulingIgnoredDuringExecution"] =
        json!([{"topologyKey": key, "labelSelector": {"matchLabels": {"app": app}}}]);
    spec
}

#[test]
fn pods_go_near_some_and_away_from_others() {
    let mut cache = three();
    cache.assume(&pod("db", json!({"app": "db"}), asking("1")), "c");
    check(&mut cache, &pod("p", json!({}), near("podAffinity", "db", "zone")), Ok("c"));
    let alone = pod("p", json!({}), near("podAntiAffinity", "db", "zone"));
    check(&mut cache, &alone, Ok("b"));
    let message = "0/3 nodes are available: 3 node(s) didn't match pod affinity rules.";
    check(&mut cache, &pod("p", json!({}), near("podAffinity", "none", "zone")), Err(message));
}

#[test]
fn the_first_of_a_group_that_wants_its_own_kind_may_go_anywhere() {
    let mut cache = three();
    let first = pod("p", json!({"app": "x"}), near("podAffinity", "x", "zone"));
    check(&mut cache, &first, Ok("b"));
    cache.assume(&first, "a");
    check(
        &mut cache,
        &pod("q", json!({"app": "x"}), near("podAffinity", "x", "kubernetes.io/hostname")),
        Ok("a"),
    );
}

#[test]
fn a_running_pod_keeps_those_away_that_it_does_not_want() {
    let mut cache = three();
    let loner = near("podAntiAffinity", "web", "zone");
    cache.assume(&pod("l1", json!({}), loner.clone()), "a");
    cache.assume(&pod("l2", json!({}), loner), "c");
    let message = "0/3 nodes are available: 3 node(s) didn't satisfy existing pods anti-affinity rules.";
    check(&mut cache, &pod("p", json!({"app": "web"}), asking("1")), Err(message));
}

#[test]
fn pods_spread_over_zones() {
    let mut cache = three();
    let spread = |when: &str| {
        let mut spec = asking("100m");
        spec["topologySpreadConstraints"] = json!([{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": when,
            "labelSelector": {"matchLabels": {"app": "x"}}}]);
        spec
    };
    cache.assume(&pod("x1", json!({"app": "x"}), asking("100m")), "a");
    check(&mut cache, &pod("p", json!({"app": "x"}), spread("DoNotSchedule")), Ok("c"));
    check(&mut cache, &pod("p", json!({"app": "x"}), spread("ScheduleAnyway")), Ok("c"));
}

#[test]
fn room_is_made_where_it_costs_least() {
    let mut cache = three();
    let of_priority = |name: &str, cpu: &str, priority: i32| {
        let mut spec = asking(cpu);
        spec["priority"] = json!(priority);
        pod(name, json!({}), spec)
    };
    cache.assume(&of_priority("important", "2", 50), "a");
    cache.assume(&of_priority("middling", "4", 20), "b");
    cache.assume(&of_priority("small", "1", 10), "c");
    cache.assume(&of_priority("smaller", "3", 5), "c");
    let profile = Profile::standard("default-scheduler");
    let snapshot = cache.snapshot();
    let victims = |pod: &PodInfo| {
        preempt(pod, &snapshot, &profile, &[]).map(|p| {
            let names: Vec<String> = p.victims.iter().map(|v| v.id.name.clone()).collect();
            format!("{}: {}", p.node, names.join(" "))
        })
    };
    assert_eq!(victims(&of_priority("p", "2", 100)).as_deref(), Some("c: smaller"));
    assert_eq!(victims(&of_priority("p", "4", 100)).as_deref(), Some("c: small smaller"));
    assert_eq!(victims(&of_priority("p", "2", 5)), None, "nothing is below it");
    assert_eq!(victims(&of_priority("p", "9", 100)), None, "no eviction makes a node larger");
}

#[test]
fn a_pod_that_is_gone_leaves_its_room() {
    let mut cache = Cache::default();
    node(&mut cache, "a", "2", "1", json!({}));
    cache.assume(&pod("first", json!({}), asking("2")), "a");
    check(&mut cache, &pod("p", json!({}), asking("2")), Err("0/1 nodes are available: 1 Insufficient cpu."));
    cache.remove_pod("first");
    check(&mut cache, &pod("p", json!({}), asking("2")), Ok("a"));
    cache.remove_node("a");
    check(&mut cache, &pod("p", json!({}), asking("2")), Err("0/0 nodes are available."));
}

#[test]
fn snapshots_do_not_change() {
    let mut cache = three();
    let before = cache.snapshot();
    cache.set_pod(Arc::new(PodInfo { node_name: "a".into(), ..pod("p", json!({}), asking("1")) }));
    assert!(before.nodes.iter().all(|n| n.pods.is_empty()));
    assert_eq!(cache.snapshot().nodes[0].pods.len(), 1);
}
