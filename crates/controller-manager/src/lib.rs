//! The controllers: pure reconcile plans and the thin part that carries them out.
//!
//! - [`config`]: the configuration file.
//! - `views`: what is kept of the API's objects.
//! - `context`: what all controllers share: one informer per resource, the client, metrics.
//! - `kit`: ownership, expectations, conditions, pods from templates.
//! - `controllers`: one module per controller.
//!
//! *Invariant:* controllers act only while this process leads, and on the state that they read, never on the event
//! that woke them.

pub mod config;
mod context;
mod controllers;
mod discovery;
mod kit;
mod views;

use std::sync::Arc;

use anyhow::Context as _;
use keelson_client::{CancellationToken, LeaderElector, Outcome};
use keelson_daemon::Daemon;

use config::Config;
use context::{Context, Informers, Metrics};

/// Runs until shutdown, or until the lease that made it the leader is lost.
pub async fn run(config: Config, daemon: Daemon) -> anyhow::Result<()> {
    let client = keelson_client::connect(&config.kubeconfig, "keelson-controller-manager")
        .await
        .context("connect to the API server")?;
    let root_ca = controllers::root_ca::certificate(&config)?;
    let authority = controllers::csr::authority(&config)?;
    let metrics = Metrics::new(&daemon.metrics);
    // The caches of one that waits for the lease are warm, so that it takes over at once.
    let informers = Informers::start(&client, &config);
    let leader_election = config.leader_election;
    let serving = config.health.clone();
    let context = Arc::new(Context::new(config, &client, informers, metrics, CancellationToken::new()));
    let synced = Arc::downgrade(&context);
    daemon.health.add_ready("informers-synced", move || match synced.upgrade() {
        Some(context) => match context.informers.waiting_for() {
            Some(resource) => Err(format!("{resource} not listed yet")),
            None => Ok(()),
        },
        None => Err("ends".into()),
    });
    if let Some(serving) = &serving {
        daemon.serve_health(serving).await?;
    }
    daemon.notify_ready();
    let stop = context.shutdown.clone();
    let work = async move {
        context.informers.synced().await;
        controllers::run(context, root_ca, authority).await;
    };
    if !leader_election {
        tokio::select! {
            () = work => {}
            () = daemon.shutdown.cancelled() => {}
        }
        stop.cancel();
        return Ok(());
    }
    let identity = format!("{}_{}", host_name(), std::process::id());
    let elector = LeaderElector::new("kube-system", "kube-controller-manager", identity);
    let outcome = elector
        .run(&client, daemon.shutdown.clone(), |leader| async move {
            tokio::select! {
                () = work => {}
                () = leader.shutdown.cancelled() => {}
            }
        })
        .await;
    stop.cancel();
    match outcome {
        // Whoever restarts this daemon makes it a candidate again, with nothing left over from its time as leader.
        Outcome::Lost => anyhow::bail!("lost the lease kube-system/kube-controller-manager"),
        Outcome::Finished | Outcome::NeverLed => Ok(()),
    }
}

pub(crate) fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim().to_owned())
        .unwrap_or_default()
}
