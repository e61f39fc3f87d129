//! Requests from many tasks at once, and how long each took.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use bytes::BytesMut;
use futures::StreamExt;
use http::Request;
use http_body_util::BodyExt;
use keelson_client::{Options, connect_with, rest};
use kube::client::Body;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use crate::servers::Servers;

/// What one step cost.
#[derive(Debug, Clone)]
pub struct Measured {
    pub operations: usize,
    pub wall: Duration,
    pub server_cpu: f64,
    /// Sorted.
    latencies: Vec<Duration>,
}

impl Measured {
    pub fn per_second(&self) -> f64 {
        self.operations as f64 / self.wall.as_secs_f64()
    }

    pub fn per_cpu_second(&self) -> f64 {
        // The kernel counts in hundredths: less than one of them cannot be told from none.
        self.operations as f64 / self.server_cpu.max(0.01)
    }

    pub fn percentile(&self, percent: usize) -> Duration {
        percentile(&self.latencies, percent)
    }
}

/// Of sorted times; nothing of none.
pub fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let last = sorted.len().saturating_sub(1);
    sorted.get(last * percent / 100).copied().unwrap_or_default()
}

/// Connections and the namespace that the objects go to.
pub struct Load {
    clients: Vec<kube::Client>,
    namespace: String,
    tasks: usize,
    turn: Arc<AtomicUsize>,
}

impl Load {
    /// `tasks` requests are under way at once, over at most eight connections.
    pub async fn connect(kubeconfig: &Path, tasks: usize) -> anyhow::Result<Self> {
        let clients = connections(kubeconfig, tasks.clamp(1, 8)).await?;
        let namespace = format!("bench-{}", std::process::id());
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
        rest::create::<IgnoredAny>(&clients[0], "/api/v1/namespaces", &object)
            .await
            .context("create a namespace")?;
        let load = Self { clients, namespace, tasks, turn: Arc::default() };
        load.wait_for_service_account().await?;
        Ok(load)
    }

    /// Pods are refused until their namespace has its account.
    async fn wait_for_service_account(&self) -> anyhow::Result<()> {
        let path = format!("/api/v1/namespaces/{}/serviceaccounts/default", self.namespace);
        for _ in 0..500 {
            if rest::get::<IgnoredAny>(&self.clients[0], &path).await.is_ok() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        anyhow::bail!(
            "the namespace's default service account does not appear; does the controller manager run?"
        )
    }

    pub async fn clean_up(&self) {
        let path = format!("/api/v1/namespaces/{}", self.namespace);
        let _ = rest::delete(&self.clients[0], &path, &json!({})).await;
    }

    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    pub fn pods(&self) -> String {
        format!("/api/v1/namespaces/{}/pods", self.namespace)
    }

    fn pod_path(&self, index: usize) -> String {
        format!("{}/pod-{index:06}", self.pods())
    }

    /// Creates this many pods, of about 2 KB, that no scheduler takes.
    pub async fn create(&self, count: usize, servers: &Servers) -> anyhow::Result<Measured> {
        let path = self.pods();
        self.run(count, servers, async |client, i| {
            rest::create::<IgnoredAny>(client, &path, &pod(i)).await.map(drop)
        })
        .await
    }

    pub async fn get(&self, count: usize, of: usize, servers: &Servers) -> anyhow::Result<Measured> {
        self.run(count, servers, async |client, i| {
            rest::get::<IgnoredAny>(client, &self.pod_path(i % of)).await.map(drop)
        })
        .await
    }

    pub async fn merge_patch(&self, count: usize, of: usize, servers: &Servers) -> anyhow::Result<Measured> {
        self.run(count, servers, async |client, i| {
            // A patch that changes nothing would be no write; watchers see how long it took to them.
            let turn = self.turn.fetch_add(1, Ordering::Relaxed);
            let patch = json!({"metadata": {"annotations": {SENT: format!("{}-{turn}", nanoseconds())}}});
            let path = self.pod_path(i % of);
            rest::patch::<IgnoredAny>(client, &path, rest::patch::MERGE, &patch).await.map(drop)
        })
        .await
    }

    pub async fn delete(&self, count: usize, servers: &Servers) -> anyhow::Result<Measured> {
        let now = json!({"gracePeriodSeconds": 0});
        self.run(count, servers, async |client, i| rest::delete(client, &self.pod_path(i), &now).await).await
    }

    /// Lists all pods of the namespace, reading the answer without decoding it.
    pub async fn list(&self, count: usize, at_once: usize, servers: &Servers) -> anyhow::Result<Measured> {
        let path = format!("{}?resourceVersion=0", self.pods());
        self.with_tasks(at_once).run(count, servers, async |client, _| read_all(client, &path).await).await
    }

    /// This many watchers see this many updates. Operations are the events that arrive, latencies the times from
    /// when a writer sent its patch. `at_once` patches are under way, so that few show the lag at part of the load.
    pub async fn watch(
        &self,
        watchers: usize,
        updates: usize,
        at_once: usize,
        servers: &Servers,
    ) -> anyhow::Result<Measured> {
        let pods: Value = rest::get(&self.clients[0], &format!("{}?limit=1", self.pods())).await?;
        let from = pods["metadata"]["resourceVersion"].as_str().context("a list has a resourceVersion")?;
        let path = format!("{}?watch=1&resourceVersion={from}", self.pods());
        let began = Instant::now();
        let cpu = servers.cpu_seconds();
        let watching = (0..watchers).map(|i| {
            let client = self.clients[i % self.clients.len()].clone();
            let path = path.clone();
            tokio::spawn(async move { follow(&client, &path, updates).await })
        });
        let watching: Vec<_> = watching.collect();
        self.with_tasks(at_once).merge_patch(updates, updates.min(100), servers).await?;
        let mut latencies = Vec::new();
        for watcher in watching {
            latencies.extend(watcher.await??);
        }
        let (wall, server_cpu) = (began.elapsed(), servers.cpu_seconds() - cpu);
        latencies.sort_unstable();
        Ok(Measured { operations: latencies.len(), wall, server_cpu, latencies })
    }

    fn with_tasks(&self, tasks: usize) -> Self {
        let (clients, namespace) = (self.clients.clone(), self.namespace.clone());
        Self { clients, namespace, tasks, turn: self.turn.clone() }
    }

    async fn run(
        &self,
        count: usize,
        servers: &Servers,
        operation: impl AsyncFn(&kube::Client, usize) -> Result<(), kube::Error>,
    ) -> anyhow::Result<Measured> {
        let next = Arc::new(AtomicUsize::new(0));
        let (began, cpu) = (Instant::now(), servers.cpu_seconds());
        let worker = async |task: usize| {
            let client = &self.clients[task % self.clients.len()];
            let mut latencies = Vec::new();
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                if i >= count {
                    return Ok::<_, kube::Error>(latencies);
                }
                let started = Instant::now();
                operation(client, i).await?;
                latencies.push(started.elapsed());
            }
        };
        let workers =
            futures::future::try_join_all((0..self.tasks).map(worker)).await.context("a request failed")?;
        let (wall, server_cpu) = (began.elapsed(), servers.cpu_seconds() - cpu);
        let mut latencies: Vec<Duration> = workers.into_iter().flatten().collect();
        latencies.sort_unstable();
        Ok(Measured { operations: latencies.len(), wall, server_cpu, latencies })
    }
}

/// Clients with a connection each.
pub async fn connections(kubeconfig: &Path, count: usize) -> anyhow::Result<Vec<kube::Client>> {
    let options = Options { user_agent: "keelson-bench".into(), http2: true };
    let connect = (0..count).map(|_| connect_with(kubeconfig, &options));
    futures::future::try_join_all(connect).await.context("connect")
}

async fn read_all(client: &kube::Client, path: &str) -> Result<(), kube::Error> {
    let request = Request::get(path).body(Body::empty()).map_err(kube::Error::HttpError)?;
    let mut body = client.send(request).await?.into_body().into_data_stream();
    while let Some(part) = body.next().await {
        part?;
    }
    Ok(())
}

/// The annotation that says when a patch was sent.
const SENT: &str = "bench/sent";

fn nanoseconds() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

/// Waits for this many modifications; returns how long after their patch was sent each arrived.
async fn follow(client: &kube::Client, path: &str, wanted: usize) -> anyhow::Result<Vec<Duration>> {
    let request = Request::get(path).body(Body::empty())?;
    let mut body = client.send(request).await?.into_body().into_data_stream();
    let (mut lags, mut rest) = (Vec::with_capacity(wanted), BytesMut::new());
    while lags.len() < wanted {
        let part = body.next().await.context("the watch ended early")??;
        let arrived = nanoseconds();
        // Where it was looked already there is no end of a line.
        let mut looked = rest.len();
        rest.extend_from_slice(&part);
        while let Some(end) = memchr::memchr(b'\n', &rest[looked..]) {
            let line = rest.split_to(looked + end + 1);
            looked = 0;
            // Clients and servers share the machine: an event is searched for what is wanted of it, not decoded.
            anyhow::ensure!(
                !line.starts_with(br#"{"type":"ERROR""#),
                "the watch failed: {}",
                String::from_utf8_lossy(&line)
            );
            if line.starts_with(br#"{"type":"MODIFIED""#) {
                let sent = sent(&line).context("an event that no writer of this run caused")?;
                lags.push(Duration::from_nanos(arrived.saturating_sub(sent)));
            }
        }
    }
    Ok(lags)
}

/// When the patch was sent that caused an event.
fn sent(event: &[u8]) -> Option<u64> {
    let at = memchr::memmem::find(event, SENT.as_bytes())? + SENT.len();
    let digits = event[at..].iter().skip_while(|b| !b.is_ascii_digit()).take_while(|b| b.is_ascii_digit());
    String::from_utf8(digits.copied().collect()).ok()?.parse().ok()
}

/// A pod of about 2 KB for a scheduler that does not exist.
fn pod(index: usize) -> Value {
    let env: Vec<Value> =
        (0..16).map(|i| json!({"name": format!("VARIABLE_{i:02}"), "value": "x".repeat(48)})).collect();
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("pod-{index:06}"), "labels": {"app": "bench", "shard": (index % 100).to_string()}},
        "spec": {
            "schedulerName": "none",
            "containers": [{
                "name": "main", "image": "registry.example/bench:1", "env": env,
                "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "64Mi"}},
            }],
        },
    })
}
