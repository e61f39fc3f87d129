use crate::world::World;
use k8s_openapi::api::core::v1::ConfigMap;
use keelson_cri::scratch::{IMAGE, unavailable};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

macro_rules! needs_containerd {
    () => {
        if let Some(why) = unavailable() {
            eprintln!("skipped: {why}");
            return;
        }
    };
}

fn pod(command: &str) -> Value {
    json!({
        "metadata": { "name": "p", "namespace": "ns", "uid": "u", "generation": 1, "labels": { "app": "x" } },
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [{ "name": "a", "image": IMAGE, "command": ["sh", "-c", command] }],
        },
    })
}

fn is_ready(status: &Value) -> bool {
    let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
}

fn deleted(mut pod: Value) -> Value {
    pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    pod["metadata"]["deletionGracePeriodSeconds"] = json!(1);
    pod
}

#[tokio::test]
async fn a_pod_runs_survives_a_kill_and_an_agents_restart_and_goes_without_a_trace() {
    needs_containerd!();
    let mut world = World::start("life", 210).await;
    let pod = pod("sleep 1000");
    let begun = Instant::now();
    world.set(&pod);
    let status = world.until("ready", is_ready).await;
    eprintln!("running after {:?}", begun.elapsed());
    assert!(status["podIP"].as_str().expect("an address").starts_with("10.213.210."));
    let id = status["containerStatuses"][0]["containerID"].as_str().expect("an id").to_owned();
    assert!(id.starts_with("containerd://"));

    // The agent comes back and changes nothing.
    world.restart_agent();
    let mut known = pod.clone();
    known["status"] = status;
    world.set(&known);
    *world.api.status.lock() = Value::Null;
    let status = world.until("ready again", is_ready).await;
    assert_eq!(status["containerStatuses"][0]["containerID"], id);

    // The container's process dies: its event, not the relist of every 20 s, brings another. On an idle machine
    // that takes a tenth of a second; the bound leaves room for a busy one.
    let runtime = world.ctx.runtime.clone();
    let begun = Instant::now();
    runtime.stop_container(id.trim_start_matches("containerd://"), Duration::ZERO).await.expect("stops");
    let status =
        world.until("a restart", |s| s["containerStatuses"][0]["restartCount"] == 1 && is_ready(s)).await;
    eprintln!("back after {:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(status["containerStatuses"][0]["lastState"]["terminated"]["exitCode"], 137);

    world.set(&deleted(known));
    world.until_removed().await;
    assert!(!world.containerd.dir.join("node-agent/pods/u").exists());
    let deadline = Instant::now() + Duration::from_secs(10);
    while !runtime.list_pod_sandboxes(Default::default()).await.expect("lists").is_empty() {
        assert!(Instant::now() < deadline, "a sandbox is left");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn environment_volumes_and_identity_are_what_the_spec_says() {
    needs_containerd!();
    let world = World::start("spec", 211).await;
    let data = BTreeMap::from([("key".to_owned(), "from the map".to_owned())]);
    let map = ConfigMap { data: Some(data), ..Default::default() };
    world.api.config_maps.lock().insert("cm".into(), map);
    let mut pod = pod(
        "echo $GREETING; cat /cm/key; echo; cat /down/labels; echo; id -u; id -G; touch /mem/x && echo writes; \
         touch /ro 2>/dev/null || echo sealed; hostname; echo last > /dev/termination-log; exit 3",
    );
    pod["spec"]["restartPolicy"] = json!("Never");
    pod["spec"]["hostname"] = json!("named");
    pod["spec"]["securityContext"] = json!({ "runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 2000 });
    pod["spec"]["volumes"] = json!([
        { "name": "cm", "configMap": { "name": "cm" } },
        { "name": "mem", "emptyDir": { "medium": "Memory" } },
        { "name": "down", "downwardAPI": { "items": [{ "path": "labels", "fieldRef": { "fieldPath": "metadata.labels" } }] } },
    ]);
    let container = &mut pod["spec"]["containers"][0];
    container["env"] = json!([
        { "name": "WHO", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } },
        { "name": "GREETING", "value": "hello $(WHO) $$(WHO)" },
    ]);
    container["securityContext"] =
        json!({ "readOnlyRootFilesystem": true, "allowPrivilegeEscalation": false });
    container["resources"] = json!({ "limits": { "memory": "64Mi", "cpu": "500m" } });
    container["volumeMounts"] = json!([
        { "name": "cm", "mountPath": "/cm" },
        { "name": "mem", "mountPath": "/mem" },
        { "name": "down", "mountPath": "/down" },
    ]);
    world.set(&pod);
    let status = world.until("the end", |s| s["phase"] == "Failed").await;
    let ended = &status["containerStatuses"][0]["state"]["terminated"];
    assert_eq!((&ended["exitCode"], &ended["message"]), (&json!(3), &json!("last\n")));
    assert_eq!(status["qosClass"], "Guaranteed");
    let log = world.ctx.pod_log_dir("ns", "p", "u").join("a/0.log");
    let log = std::fs::read_to_string(log).expect("a log");
    let lines: Vec<&str> = log.lines().filter_map(|l| l.splitn(4, ' ').nth(3)).collect();
    let groups: Vec<&str> = lines[4].split(' ').collect();
    assert_eq!(lines[0], "hello p $(WHO)");
    assert_eq!(lines[1], "from the map");
    assert_eq!(lines[2], "app=\"x\"");
    assert_eq!(lines[3], "1000");
    assert!(groups.contains(&"1000") && groups.contains(&"2000"), "{groups:?}");
    assert_eq!(&lines[5..], ["writes", "sealed", "named"]);
    world.set(&deleted(pod));
    world.until_removed().await;
}

#[tokio::test]
async fn probes_hooks_and_grace_work_in_real_containers() {
    needs_containerd!();
    let world = World::start("probes", 212).await;
    let mut pod = pod("trap 'exit 0' TERM; touch /tmp/up; while true; do sleep 0.05; done");
    pod["spec"]["terminationGracePeriodSeconds"] = json!(20);
    let container = &mut pod["spec"]["containers"][0];
    container["startupProbe"] =
        json!({ "exec": { "command": ["test", "-f", "/tmp/hooked"] }, "periodSeconds": 1 });
    container["readinessProbe"] = json!({ "exec": { "command": ["cat", "/tmp/up"] }, "periodSeconds": 1 });
    container["lifecycle"] = json!({
        "postStart": { "exec": { "command": ["touch", "/tmp/hooked"] } },
        "preStop": { "exec": { "command": ["sh", "-c", "echo bye > /proc/1/fd/1"] } },
    });
    world.set(&pod);
    world.until("ready", is_ready).await;
    let begun = Instant::now();
    let mut going = deleted(pod);
    going["metadata"]["deletionGracePeriodSeconds"] = json!(20);
    world.set(&going);
    world.until_removed().await;
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!(world.api.status.lock()["phase"], "Succeeded");
}
