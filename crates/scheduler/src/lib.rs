//! The scheduler daemon: it watches pods without a node, asks `sched-core` for the best one and binds through the API.
//!
//! - [`views`]: what it keeps of the API's objects.
//! - [`queue`]: which pod is next, and when a failed one is tried again.
//! - [`state`]: both fed by the informers, behind one lock.
//! - [`engine`]: the loop: take a pod, decide, assume, bind; report what does not fit, and make room for it.
//!
//! *Invariant:* decisions are made one after another from memory; only the bindings, which wait for the API, overlap.

pub mod config;
mod engine;
mod metrics;
mod queue;
mod report;
mod state;
mod views;

use std::sync::Arc;

use anyhow::Context;
use keelson_client::{Informer, LeaderElector, Outcome};
use keelson_daemon::Daemon;

use config::Config;
use engine::Engine;
use state::State;
use views::{BudgetView, NamespaceView, NodeView, PodView};

/// Runs until shutdown, or until the lease that made it the leader is lost.
pub async fn run(config: Config, daemon: Daemon) -> anyhow::Result<()> {
    let client = keelson_client::connect(&config.kubeconfig, "keelson-scheduler")
        .await
        .context("connect to the API server")?;
    let pods = Informer::<PodView>::new(&client).start();
    let nodes = Informer::<NodeView>::new(&client).start();
    let namespaces = Informer::<NamespaceView>::new(&client).start();
    let budgets = Informer::<BudgetView>::new(&client).start();

    let profiles = config.profiles().map_err(|problems| anyhow::anyhow!(problems.join("; ")))?;
    let names = profiles.iter().map(|p| p.scheduler_name.clone()).collect();
    let state = Arc::new(State::new(&config, names));
    state.watch(&pods, &nodes, &namespaces);

    let synced = (Arc::clone(&pods), Arc::clone(&nodes));
    daemon.health.add_ready("informers-synced", move || {
        if synced.0.has_synced() && synced.1.has_synced() {
            Ok(())
        } else {
            Err("informers not synced".into())
        }
    });
    let metrics = metrics::Metrics::new(&daemon.metrics, Arc::clone(&state));
    if let Some(serving) = &config.health {
        daemon.serve_health(serving).await?;
    }
    let engine = Engine::new(client.clone(), state, profiles, budgets.clone(), metrics, config.bind_workers);
    let work = async move {
        tokio::join!(pods.synced(), nodes.synced(), namespaces.synced(), budgets.synced());
        engine.run().await;
    };
    daemon.notify_ready();
    if !config.leader_election {
        tokio::select! {
            () = work => {}
            () = daemon.shutdown.cancelled() => {}
        }
        return Ok(());
    }
    let identity = format!("{}_{}", host_name(), std::process::id());
    let elector = LeaderElector::new("kube-system", "kube-scheduler", identity);
    match elector
        .run(&client, daemon.shutdown.clone(), |leader| async move {
            tokio::select! {
                () = work => {}
                () = leader.shutdown.cancelled() => {}
            }
        })
        .await
    {
        // Whoever restarts this daemon makes it a candidate again, with nothing left over from its time as leader.
        Outcome::Lost => anyhow::bail!("lost the lease kube-system/kube-scheduler"),
        Outcome::Finished | Outcome::NeverLed => Ok(()),
    }
}

fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim().to_owned())
        .unwrap_or_default()
}
