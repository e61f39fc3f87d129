//! The Node object: registration, its status, its lease, and the pod network once its range is known.

mod status;

use crate::config::Config;
use crate::context::{Allocatable, Context};
use crate::pods::Manager;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Taint};
use keelson_api_types::quantity::Quantity;
use keelson_client::rest::{self, patch};
use keelson_client::{Change, Informer, Key, Whole};
use keelson_cri::cni;
use keelson_cri::v1::VersionResponse;
use keelson_host::system;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

const LEASE_EVERY: Duration = Duration::from_secs(10);
const LEASE_SECONDS: i32 = 40;
/// An unchanged status is reported this often.
const STATUS_EVERY: Duration = Duration::from_secs(300);
/// How often the runtime is asked for its network while it is not ready.
const NETWORK_POLL: Duration = Duration::from_millis(25);
/// Memory that pods do not get, so that the node itself survives.
const MEMORY_MARGIN: i64 = 100 << 20;

const NOT_READY: &str = "node.kubernetes.io/not-ready";

/// `key=value:Effect` or `key:Effect`.
pub fn parse_taint(text: &str) -> Option<Taint> {
    let (key, effect) = text.rsplit_once(':')?;
    let (key, value) = key.split_once('=').unwrap_or((key, ""));
    let known = ["NoSchedule", "PreferNoSchedule", "NoExecute"].contains(&effect);
    (known && !key.is_empty()).then(|| Taint {
        key: key.to_owned(),
        value: Some(value.to_owned()).filter(|v| !v.is_empty()),
        effect: effect.to_owned(),
        time_added: None,
    })
}

/// What pods can have of this machine.
pub fn allocatable(config: &Config) -> Allocatable {
    let reserved = |name: &str| config.reserved.get(name).and_then(|q| Quantity::parse(q).ok());
    let memory = system::meminfo().ok().and_then(|m| m.get("MemTotal").copied()).unwrap_or(0) as i64;
    let disk = system::space(&config.state_dir).map_or(0, |s| s.total_bytes) as i64;
    Allocatable {
        cpu_milli: system::cpus() as i64 * 1000 - reserved("cpu").map_or(0, |q| q.milli()),
        memory_bytes: memory - MEMORY_MARGIN - reserved("memory").map_or(0, |q| q.value()),
        ephemeral_bytes: disk / 10 * 9 - reserved("ephemeral-storage").map_or(0, |q| q.value()),
        pods: config.max_pods,
    }
}

/// This node in the API.
pub struct Registered {
    pub ctx: Arc<Context>,
    pub client: kube::Client,
    pub version: VersionResponse,
    /// Where the agent's own server listens.
    pub port: u16,
    pub manager: Manager,
}

impl Registered {
    /// Registers and keeps lease and status up to date for ever.
    pub async fn run(self) {
        self.until_done("register the node", || self.register()).await;
        let changed = Arc::new(Notify::new());
        let node = Informer::<Whole<Node>>::new(&self.client)
            .fields(format!("metadata.name={}", self.ctx.node_name))
            .start();
        let (notify, manager) = (changed.clone(), self.manager.clone());
        node.on_change(move |change| {
            if !matches!(change, Change::Deleted(_)) {
                manager.set_node_labels(change.object().meta_labels());
            }
            notify.notify_one();
        });
        tokio::join!(self.renew_lease(), self.keep_status(&node, &changed));
    }

    async fn until_done<F>(&self, what: &str, attempt: impl Fn() -> F)
    where
        F: Future<Output = Result<(), kube::Error>>,
    {
        let mut pause = Duration::from_millis(50);
        while let Err(error) = attempt().await {
            tracing::warn!(?pause, "could not {what}: {}", crate::volumes::chain(&error));
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(5));
        }
    }

    fn path(&self, subresource: Option<&str>) -> String {
        rest::path::<Whole<Node>>("", Some(&self.ctx.node_name), subresource)
    }

    async fn register(&self) -> Result<(), kube::Error> {
        let labels = self.labels();
        let body = json!({ "metadata": { "labels": labels } });
        match rest::patch::<Value>(&self.client, &self.path(None), patch::STRATEGIC, &body).await {
            Err(e) if rest::code(&e) == Some(404) => {}
            other => return other.map(drop),
        }
        let mut taints: Vec<Taint> =
            self.ctx.config.register_with_taints.iter().filter_map(|t| parse_taint(t)).collect();
        taints.push(Taint { key: NOT_READY.into(), effect: "NoSchedule".into(), ..Default::default() });
        let node = json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {
                "name": self.ctx.node_name,
                "labels": labels,
                "annotations": { "volumes.kubernetes.io/controller-managed-attach-detach": "true" },
            },
            "spec": { "taints": taints },
            "status": self.status(None, None).await,
        });
        let path = rest::path::<Whole<Node>>("", None, None);
        match rest::create::<Value>(&self.client, &path, &node).await {
            Err(e) if rest::code(&e) == Some(409) => Ok(()),
            other => {
                tracing::info!(node = self.ctx.node_name, "registered");
                other.map(drop)
            }
        }
    }

    fn labels(&self) -> Value {
        let arch = system::architecture();
        let mut labels = json!({
            "kubernetes.io/hostname": self.ctx.node_name,
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": arch,
            "beta.kubernetes.io/os": "linux",
            "beta.kubernetes.io/arch": arch,
        });
        for (key, value) in &self.ctx.config.node_labels {
            labels[key] = json!(value);
        }
        labels
    }

    async fn renew_lease(&self) {
        let path = rest::path::<Whole<Lease>>("kube-node-lease", Some(&self.ctx.node_name), None);
        let collection = rest::path::<Whole<Lease>>("kube-node-lease", None, None);
        let mut ticks = tokio::time::interval(LEASE_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut owner = Value::Null;
        loop {
            ticks.tick().await;
            if owner.is_null()
                && let Ok(node) = rest::get::<Value>(&self.client, &self.path(None)).await
            {
                owner = json!([{
                    "apiVersion": "v1", "kind": "Node",
                    "name": self.ctx.node_name, "uid": node["metadata"]["uid"],
                }]);
            }
            let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string();
            let spec = json!({
                "holderIdentity": self.ctx.node_name,
                "leaseDurationSeconds": LEASE_SECONDS,
                "renewTime": now,
            });
            let renewed =
                rest::patch::<Value>(&self.client, &path, patch::MERGE, &json!({ "spec": spec })).await;
            let outcome = match renewed {
                Err(e) if rest::code(&e) == Some(404) => {
                    let lease = json!({
                        "apiVersion": "coordination.k8s.io/v1",
                        "kind": "Lease",
                        "metadata": { "name": self.ctx.node_name, "ownerReferences": owner },
                        "spec": spec,
                    });
                    rest::create::<Value>(&self.client, &collection, &lease).await
                }
                other => other,
            };
            if let Err(error) = outcome {
                tracing::warn!("could not renew the node's lease: {}", crate::volumes::chain(&error));
            }
        }
    }

    /// Configures the network when the node's range comes, and reports what changes.
    async fn keep_status(&self, node: &Informer<Whole<Node>>, changed: &Notify) {
        let key = Key::cluster(&self.ctx.node_name);
        let mut reported: Option<Value> = None;
        let mut at = Instant::now();
        let mut network = None;
        node.synced().await;
        loop {
            let object = node.get(&key);
            if object.is_none() && node.has_synced() {
                // Somebody removed it while we run.
                self.until_done("register the node", || self.register()).await;
            }
            if let Some(node) = &object {
                self.configure_network(&node.object);
            }
            let (ready, problem) = self.network_problem().await;
            network = Some(problem.clone()).or(network);
            let status = self.status(object.as_deref().map(|n| &n.object), problem).await;
            let due = at.elapsed() >= STATUS_EVERY;
            if due || reported.as_ref().is_none_or(|r| !status::is_same(r, &status)) {
                let body = json!({ "status": status });
                match rest::patch::<Value>(&self.client, &self.path(Some("status")), patch::STRATEGIC, &body)
                    .await
                {
                    Ok(_) => {
                        reported = Some(status);
                        at = Instant::now();
                    }
                    Err(error) => {
                        tracing::warn!(
                            "could not report the node's status: {}",
                            crate::volumes::chain(&error)
                        );
                        tokio::time::sleep(Duration::from_millis(500)).await;
                        continue;
                    }
                }
            }
            let pause = if ready { LEASE_EVERY } else { NETWORK_POLL };
            let has_range = object.as_ref().is_some_and(|n| !pod_cidrs(&n.object).is_empty());
            // Without a range nothing can become ready by waiting.
            let pause = if ready || has_range { pause } else { LEASE_EVERY };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = changed.notified() => {}
            }
        }
    }

    fn configure_network(&self, node: &Node) {
        let cidrs = pod_cidrs(node);
        if cidrs.is_empty() {
            return;
        }
        let config = &self.ctx.config;
        let network = cni::Network {
            name: config.bridge.clone(),
            bridge: config.bridge.clone(),
            pod_cidrs: cidrs,
            masquerade: config.cni_masquerade,
            mtu: config.pod_mtu,
            data_dir: config.cni_data_dir.clone(),
        };
        match cni::install(&config.cni_config_dir, &network) {
            Ok(true) => tracing::info!(cidrs = ?network.pod_cidrs, "pod network configured"),
            Ok(false) => {}
            Err(error) => {
                tracing::error!("could not configure the pod network: {}", crate::volumes::chain(&error))
            }
        }
    }

    /// Whether the runtime has its network, and what it says if not.
    async fn network_problem(&self) -> (bool, Option<String>) {
        let status = match self.ctx.runtime.status().await {
            Ok(status) => status.status.unwrap_or_default(),
            Err(e) => return (false, Some(format!("container runtime is down: {}", e.user_message()))),
        };
        let bad = status.conditions.iter().find(|c| !c.status);
        match bad {
            None => (true, None),
            Some(c) => {
                let what = if c.r#type == "NetworkReady" {
                    "container runtime network"
                } else {
                    "container runtime"
                };
                let message =
                    format!("{what} not ready: {}=false reason:{} message:{}", c.r#type, c.reason, c.message);
                (false, Some(message))
            }
        }
    }
}

fn pod_cidrs(node: &Node) -> Vec<String> {
    let Some(spec) = &node.spec else { return Vec::new() };
    match &spec.pod_cidrs {
        Some(list) if !list.is_empty() => list.clone(),
        _ => spec.pod_cidr.clone().filter(|c| !c.is_empty()).into_iter().collect(),
    }
}

/// Labels of a whole object.
trait MetaLabels {
    fn meta_labels(&self) -> std::collections::BTreeMap<String, String>;
}

impl MetaLabels for Whole<Node> {
    fn meta_labels(&self) -> std::collections::BTreeMap<String, String> {
        self.object.metadata.labels.clone().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taints_are_read_from_text() {
        let taint = parse_taint("dedicated=gpu:NoSchedule").expect("a taint");
        assert_eq!((taint.key.as_str(), taint.value.as_deref()), ("dedicated", Some("gpu")));
        assert!(parse_taint("key:NoExecute").is_some());
        assert!(parse_taint("key:Sometimes").is_none());
        assert!(parse_taint("key").is_none());
    }
}
