//! Cluster DNS: the names of Services and pods answered from memory, the rest passed on.
//!
//! - [`zone`]: which name has which records, as a pure function.
//! - [`views`]: the informers behind it.
//! - [`server`]: UDP, TCP and the upstream servers.

pub mod config;
mod metrics;
mod server;
mod views;
mod zone;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use keelson_daemon::Daemon;
use tokio::net::{TcpListener, UdpSocket};

use config::Config;
use metrics::Metrics;
use server::Resolver;
use views::Cluster;

pub async fn run(config: Config, daemon: Daemon) -> anyhow::Result<()> {
    let client = keelson_client::connect(&config.kubeconfig, "keelson-dns")
        .await
        .context("connect to the API server")?;
    let cluster = Cluster::watch(&client);
    let ready = cluster.clone();
    daemon.health.add_ready("informers-synced", move || {
        if ready.has_synced() { Ok(()) } else { Err("informers not synced".into()) }
    });
    if let Some(serving) = &config.health {
        daemon.serve_health(serving).await?;
    }
    // Before that, every name would seem not to exist. Clients ask again; a wrong answer they would keep.
    tokio::select! {
        () = cluster.synced() => {}
        () = daemon.shutdown.cancelled() => return Ok(()),
    }
    let address = SocketAddr::new(config.bind.address, config.bind.port);
    let udp = UdpSocket::bind(address).await.with_context(|| format!("listen on UDP {address}"))?;
    let tcp = TcpListener::bind(address).await.with_context(|| format!("listen on TCP {address}"))?;
    let upstreams = config.upstream_servers();
    if upstreams.is_empty() {
        tracing::warn!("no upstream name server: only the cluster's own names resolve");
    }
    let domain = config.cluster_domain.to_ascii_lowercase();
    let resolver = Resolver::new(domain, config.ttl, upstreams, cluster, Metrics::new(&daemon.metrics));
    daemon.notify_ready();
    tokio::select! {
        () = Arc::clone(&resolver).serve_udp(udp) => {}
        () = resolver.serve_tcp(tcp) => {}
        () = daemon.shutdown.cancelled() => {}
    }
    Ok(())
}
