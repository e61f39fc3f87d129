//! The net proxy daemon: Services into one nftables table, changed by the difference.
//!
//! - [`views`]: what it keeps of Services and EndpointSlices.
//! - [`sync`]: notes which Services changed, asks `net-plan` for the change, applies it.
//!
//! *Invariant:* it never removes rules on its way out or on an error: what is programmed goes on working.

pub mod config;
mod sync;
mod views;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use keelson_client::Informer;
use keelson_daemon::Daemon;
use keelson_host::{conntrack, nft};
use keelson_net_plan::{Options, Planner};
use tokio::time::MissedTickBehavior;

use config::Config;
use sync::{Dirty, Metrics, Sync};
use views::{ServiceView, SliceView};

/// Which slices a Service has.
const BY_SERVICE: &str = "service";
/// Between two removals of rules that nothing leads to any more.
const SWEEP: Duration = Duration::from_secs(1);

pub async fn run(config: Config, daemon: Daemon) -> anyhow::Result<()> {
    prepare_kernel();
    let client = keelson_client::connect(&config.kubeconfig, "keelson-net-proxy")
        .await
        .context("connect to the API server")?;
    let services = Informer::<ServiceView>::new(&client).start();
    let slices = Informer::<SliceView>::new(&client)
        .index(BY_SERVICE, |slice| slice.service().iter().map(ToString::to_string).collect())
        .start();

    let dirty = Arc::new(Dirty::default());
    let mark = Arc::clone(&dirty);
    services.on_change(move |change| mark.add(views::service_name(&change.object().metadata)));
    let mark = Arc::clone(&dirty);
    slices.on_change(move |change| change.object().service().into_iter().for_each(|name| mark.add(name)));

    let planner = Planner::new(Options {
        table: config.table.clone(),
        pod_cidr: config.pod_cidr,
        node_port_addresses: config.node_port_addresses.clone(),
    });
    let metrics = Metrics::new(&daemon.metrics);
    let mut sync = Sync::new(planner, config.node_name.clone(), nft::Kernel, conntrack::Kernel, metrics);
    let programmed = sync.programmed();
    daemon.health.add_ready("rules-programmed", move || {
        if programmed.load(std::sync::atomic::Ordering::Relaxed) { Ok(()) } else { Err("not yet".into()) }
    });
    if let Some(serving) = &config.health {
        daemon.serve_health(serving).await?;
    }
    daemon.notify_ready();
    let work = async {
        tokio::join!(services.synced(), slices.synced());
        let mut sweep = tokio::time::interval(SWEEP);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                names = dirty.take() => sync.change(names, &services, &slices).await,
                _ = sweep.tick(), if sync.has_leftovers() => sync.sweep().await,
            }
        }
    };
    tokio::select! {
        () = work => {}
        () = daemon.shutdown.cancelled() => {}
    }
    Ok(())
}

/// What routing to pods needs of the kernel. A setting that cannot be made is said, not fatal: a node may come with it.
fn prepare_kernel() {
    // Packets between pods of one bridge pass no routing; only so do they meet the rules and find their way back.
    let bridged = "/proc/sys/net/bridge/bridge-nf-call-iptables";
    for path in ["/proc/sys/net/ipv4/ip_forward", bridged] {
        let enabled = std::fs::read_to_string(path).is_ok_and(|value| value.trim() == "1");
        if !enabled && let Err(error) = std::fs::write(path, "1") {
            tracing::warn!("cannot set {path} to 1: {error}; traffic to Services may get lost");
        }
    }
}
