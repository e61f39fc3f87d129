//! A node of its own: containerd, the agent's manager, an API in memory.

use keelson_cri::scratch::Containerd;
use keelson_host::{cgroup, mount};
use keelson_node_agent::Config;
use keelson_node_agent::context::{Allocatable, Context};
use keelson_node_agent::fake::FakeApi;
use keelson_node_agent::pods::images::Images;
use keelson_node_agent::pods::manager::{Feed, Manager};
use keelson_node_agent::volumes;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

pub struct World {
    pub api: Arc<FakeApi>,
    pub ctx: Arc<Context>,
    feed: mpsc::UnboundedSender<Feed>,
    task: tokio::task::JoinHandle<()>,
    cgroup: String,
    pub containerd: Containerd,
}

impl World {
    pub async fn start(name: &str, number: u8) -> Self {
        let containerd = Containerd::start(name, number).await.expect("containerd");
        let state = containerd.dir.join("node-agent");
        let cgroup = format!("/kltest-{name}-{}", std::process::id());
        let config: Config = serde_json::from_value(json!({
            "kubeconfig": "none", "bind": { "address": "127.0.0.1", "port": 0 }, "pkiDir": "none",
            "stateDir": state, "runtimeEndpoint": containerd.socket(), "cniConfigDir": "none",
            "cniDataDir": "none", "cgroupRoot": cgroup,
        }))
        .expect("a configuration");
        let api = Arc::new(FakeApi::default());
        let ctx = Arc::new(Context {
            config,
            node_name: "n".into(),
            node_ip: IpAddr::from([127, 0, 0, 1]),
            api: api.clone(),
            runtime: Arc::new(containerd.client().await.expect("connects")),
            cgroups: cgroup::detect().expect("cgroups"),
            mounts: Arc::new(mount::Kernel),
            images: Images::default(),
            allocatable: Allocatable {
                cpu_milli: 4000,
                memory_bytes: 8 << 30,
                ephemeral_bytes: 8 << 30,
                pods: 10,
            },
            runtime_name: "containerd".into(),
        });
        volumes::prepare(&ctx).expect("a tmpfs");
        let (feed, task) = manage(&ctx, &api);
        Self { api, ctx, feed, task, cgroup, containerd }
    }

    /// A new agent over the same runtime, as after a crash.
    pub fn restart_agent(&mut self) {
        self.task.abort();
        (self.feed, self.task) = manage(&self.ctx, &self.api);
    }

    pub fn set(&self, pod: &Value) {
        let pod = serde_json::from_value(pod.clone()).expect("a pod");
        self.feed.send(Feed::Set(Arc::new(pod))).expect("the manager runs");
    }

    pub async fn until(&self, what: &str, good: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let status = self.api.status.lock().clone();
            if good(&status) {
                return status;
            }
            let events = self.api.events.lock().clone();
            assert!(Instant::now() < deadline, "{what} did not come; last: {status:#} {events:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub async fn until_removed(&self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.api.deleted.lock().is_empty() {
            assert!(Instant::now() < deadline, "the object was not removed");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.task.abort();
        let _ = self.ctx.cgroups.remove(&self.cgroup);
    }
}

fn manage(
    ctx: &Arc<Context>,
    api: &Arc<FakeApi>,
) -> (mpsc::UnboundedSender<Feed>, tokio::task::JoinHandle<()>) {
    let (feed, changes) = mpsc::unbounded_channel();
    *api.feed.lock() = Some(feed.clone());
    let wanted = Arc::new(|| Some(HashSet::from(["u".to_owned()])));
    (feed, tokio::spawn(Manager::new(ctx.clone()).run(changes, wanted, Arc::default())))
}
