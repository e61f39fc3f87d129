//! The agent's start: connections, shared state, and the tasks that run until shutdown.

use crate::api;
use crate::config::Config;
use crate::context::Context;
use crate::pods::images::Images;
use crate::pods::manager::{Feed, Manager, Wanted};
use crate::pods::spec;
use crate::{gc, logs, node, server, volumes};
use anyhow::Context as _;
use k8s_openapi::api::core::v1::Pod;
use keelson_client::{Change, EventRecorder, Informer, Whole};
use keelson_cri::{Client, Runtime};
use keelson_daemon::Daemon;
use keelson_host::{cgroup, mount, system};
use std::sync::Arc;
use std::time::Duration;

/// How long the runtime may take to come up beside us.
const RUNTIME_WITHIN: Duration = Duration::from_secs(60);

/// Runs the node agent until it is told to end. Containers go on without it.
pub async fn run(config: Config, daemon: Daemon) -> anyhow::Result<()> {
    let node_name = match &config.node_name {
        Some(name) => name.clone(),
        None => system::hostname()?,
    };
    let node_ip = config.node_ip.unwrap_or_else(system::primary_address);
    std::fs::create_dir_all(&config.state_dir)
        .with_context(|| format!("create {}", config.state_dir.display()))?;
    let client = keelson_client::connect(&config.kubeconfig, "keelson-node-agent").await?;
    let runtime = connect_runtime(&config).await?;
    let version = runtime.version().await?;
    let recorder = EventRecorder::new(client.clone(), "kubelet", node_name.clone());

    let wakers = Arc::default();
    let services = Informer::<api::Service>::new(&client).start();
    let pods = Informer::<Whole<Pod>>::new(&client).fields(format!("spec.nodeName={node_name}")).start();
    let api = api::Server::new(client.clone(), recorder, services.clone(), Manager::waker(&wakers));
    let ctx = Arc::new(Context {
        allocatable: node::allocatable(&config),
        node_name,
        node_ip,
        api: Arc::new(api),
        runtime: Arc::new(runtime),
        cgroups: cgroup::detect()?,
        mounts: Arc::new(mount::Kernel),
        images: Images::default(),
        runtime_name: version.runtime_name.clone(),
        config,
    });
    volumes::prepare(&ctx).context("prepare the directory of secrets")?;

    let manager = Manager::new(ctx.clone());
    let server = server::Server::new(ctx.clone(), manager.clone(), client.clone(), daemon.clone());
    let port = server.serve().await?;
    let registered = node::Registered { ctx: ctx.clone(), client, version, port, manager: manager.clone() };
    let connected = pods.clone();
    daemon.health.add_ready("api-server", move || match connected.connected() {
        true => Ok(()),
        false => Err("the watch of pods is not connected".into()),
    });
    let starts_pods = async {
        // Pods see the Services' variables; without the API neither would be known.
        services.synced().await;
        let (feed, changes) = tokio::sync::mpsc::unbounded_channel();
        pods.on_change(move |change| {
            let _ = feed.send(match change {
                Change::Added(pod) | Change::Updated { new: pod, .. } => {
                    Feed::Set(Arc::new(pod.object.clone()))
                }
                Change::Deleted(pod) => Feed::Gone(spec::uid(&pod.object).to_owned()),
            });
        });
        let wanted: Wanted = Arc::new(move || {
            let uids = || pods.list().iter().map(|p| spec::uid(&p.object).to_owned()).collect();
            pods.has_synced().then(uids)
        });
        manager.run(changes, wanted, wakers).await;
    };
    daemon.notify_ready();
    tokio::select! {
        () = daemon.shutdown.cancelled() => {}
        () = registered.run() => {}
        () = starts_pods => {}
        () = gc::run(ctx.clone()) => {}
        () = logs::rotate_forever(ctx.clone()) => {}
    }
    Ok(())
}

async fn connect_runtime(config: &Config) -> anyhow::Result<Client> {
    keelson_cri::containerd::wait_ready(&config.runtime_endpoint, RUNTIME_WITHIN).await.with_context(|| {
        format!("the container runtime at {} does not answer", config.runtime_endpoint.display())
    })
}
