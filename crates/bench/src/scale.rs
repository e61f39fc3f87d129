//! What many objects, many watchers and a greedy user do to a server.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use futures::future::try_join_all;
use http::Request;
use http_body_util::BodyExt;
use keelson_client::rest;
use kube::client::Body;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use crate::load::{Load, connections};
use crate::servers::Servers;

/// Watches that share a connection: as many streams as clients in Go open on one.
const PER_CONNECTION: usize = 100;
const GREEDY: &str = "bench-greedy";
const MODEST: &str = "bench-modest";

/// Opens this many watches on which nothing happens; returns how much the server's memory grew by each, in bytes.
pub async fn idle_watchers(
    kubeconfig: &Path,
    load: &Load,
    count: usize,
    servers: &Servers,
) -> anyhow::Result<f64> {
    let path = format!("/api/v1/namespaces/{}/configmaps?watch=1", load.namespace());
    let clients = connections(kubeconfig, count.div_ceil(PER_CONNECTION)).await?;
    let before = servers.resident_mb();
    let open = clients.iter().enumerate().map(async |(i, client)| {
        let mine = PER_CONNECTION.min(count - i * PER_CONNECTION);
        let mut streams = Vec::with_capacity(mine);
        for _ in 0..mine {
            let answer = client.send(Request::get(&path).body(Body::empty())?).await?;
            anyhow::ensure!(answer.status().is_success(), "a watch was answered {}", answer.status());
            streams.push(answer);
        }
        Ok(streams)
    });
    let streams = try_join_all(open).await.context("open watches")?;
    // What a connection needs only while it begins has gone by then.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let grown = servers.resident_mb() - before;
    drop(streams);
    Ok(grown * 1e6 / count as f64)
}

/// Ends the servers by SIGKILL and waits for whoever starts them again; returns the time to readiness from then.
pub async fn restart(kubeconfig: &Path, servers: &Servers) -> anyhow::Result<(Duration, Servers)> {
    servers.kill()?;
    let began = Instant::now();
    loop {
        anyhow::ensure!(
            began.elapsed() < Duration::from_secs(120),
            "the server did not come back within two minutes"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
        let Ok(clients) = connections(kubeconfig, 1).await else { continue };
        let request = Request::get("/readyz").body(Body::empty())?;
        if let Ok(answer) = clients[0].send(request).await
            && answer.status().is_success()
        {
            return Ok((began.elapsed(), servers.again()?));
        }
    }
}

/// How long a modest user's gets take while a greedy one has `at_once` lists under way; sorted.
pub async fn flood(
    kubeconfig: &Path,
    load: &Load,
    at_once: usize,
    seconds: u64,
) -> anyhow::Result<(Vec<Duration>, usize)> {
    allow_reading(&connections(kubeconfig, 1).await?[0], load.namespace()).await?;
    let stop = Arc::new(AtomicBool::new(false));
    let lists = Arc::new(AtomicUsize::new(0));
    let modest =
        modest(kubeconfig.to_owned(), format!("{}/pod-000000", load.pods()), Duration::from_secs(seconds));
    // A thread of its own: what the greedy user's answers cost this program is not the server's doing.
    let modest = std::thread::spawn(move || {
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(modest)
    });
    let path = format!("{}?limit=500", load.pods());
    let clients = connections(kubeconfig, 8).await?;
    let greedy = (0..at_once).map(|i| {
        let (client, path, stop, lists) =
            (clients[i % clients.len()].clone(), path.clone(), stop.clone(), lists.clone());
        tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                if read(&client, &path, GREEDY).await.is_ok() {
                    lists.fetch_add(1, Ordering::Relaxed);
                }
            }
        })
    });
    let greedy: Vec<_> = greedy.collect();
    while !modest.is_finished() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    stop.store(true, Ordering::Relaxed);
    greedy.iter().for_each(tokio::task::JoinHandle::abort);
    let latencies: anyhow::Result<Vec<Duration>> =
        modest.join().map_err(|_| anyhow::anyhow!("the modest user panicked"))?;
    Ok((latencies?, lists.load(Ordering::Relaxed)))
}

async fn modest(kubeconfig: PathBuf, path: String, time: Duration) -> anyhow::Result<Vec<Duration>> {
    let client = connections(&kubeconfig, 1).await?.remove(0);
    let (began, mut latencies) = (Instant::now(), Vec::new());
    while began.elapsed() < time {
        let started = Instant::now();
        read(&client, &path, MODEST).await.context("the modest user's get")?;
        latencies.push(started.elapsed());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    latencies.sort_unstable();
    Ok(latencies)
}

/// A GET in another user's name.
async fn read(client: &kube::Client, path: &str, user: &str) -> anyhow::Result<()> {
    let request = Request::get(path).header("Impersonate-User", user).body(Body::empty())?;
    let answer = client.send(request).await?;
    anyhow::ensure!(answer.status().is_success(), "{path} was answered {}", answer.status());
    answer.into_body().collect().await?;
    Ok(())
}

async fn allow_reading(client: &kube::Client, namespace: &str) -> anyhow::Result<()> {
    let group = "rbac.authorization.k8s.io";
    let version = format!("{group}/v1");
    let user = |name: &str| json!({"kind": "User", "apiGroup": group, "name": name});
    let rules = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}]);
    let role: Value =
        json!({"apiVersion": version, "kind": "Role", "metadata": {"name": "bench"}, "rules": rules});
    let binding = json!({
        "apiVersion": version, "kind": "RoleBinding", "metadata": {"name": "bench"},
        "roleRef": {"apiGroup": group, "kind": "Role", "name": "bench"}, "subjects": [user(GREEDY), user(MODEST)],
    });
    for (resource, object) in [("roles", role), ("rolebindings", binding)] {
        let path = format!("/apis/{version}/namespaces/{namespace}/{resource}");
        rest::create::<IgnoredAny>(client, &path, &object)
            .await
            .with_context(|| format!("create {resource}"))?;
    }
    Ok(())
}
