//! `ctl cluster up`.
//!
//! Every step looks first at what is there, so that a second `up`, or one after a crash, does only what is missing.

use std::time::Duration;

use anyhow::{Context, bail};
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use keelson_cri::Runtime;
use keelson_cri::image::ImageConfig;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

use keelson_cri::containerd;

use super::components::{self, API_SERVER, CONTAINERD, NODE_AGENT};
use super::keeper::Keeper;
use super::layout::{Layout, failed};
use super::progress::step;
use super::settings::{Settings, write_if_changed};

/// How long each part may take to come up before the user is told where to look.
const PATIENCE: Duration = Duration::from_secs(60);

pub async fn up(layout: &Layout, settings: &Settings) -> anyhow::Result<()> {
    super::require_root()?;
    components::check_programs()?;
    let changed =
        step("Certificates and configuration", async { write_everything(layout, settings) }).await?;
    let keeper = &Keeper::of(layout, settings)?;
    step("Daemons", keeper.start(&changed)).await?;
    let pause = keeper.while_it_lasts(CONTAINERD, provide_pause_image(layout, settings));
    let api = keeper.while_it_lasts(API_SERVER, api_ready(layout, keeper));
    let (pause, api) =
        tokio::join!(step("Container runtime and pause image", pause), step("API server", api));
    pause?;
    let client = api?;
    step("Cluster DNS", publish_dns(&client, settings)).await?;
    let node = keeper.while_it_lasts(NODE_AGENT, node_ready(&client, keeper, &settings.node_name));
    step(&format!("Node {}", settings.node_name), node).await?;
    eprintln!("\nexport KUBECONFIG={}", layout.kubeconfig("admin").display());
    Ok(())
}

/// Writes certificates, kubeconfigs and configurations; names the components that must restart for theirs.
fn write_everything(layout: &Layout, settings: &Settings) -> anyhow::Result<Vec<String>> {
    for dir in [layout.config_dir(), layout.state_dir(), layout.run_dir(), layout.cni_config_dir()] {
        std::fs::create_dir_all(&dir).with_context(|| failed("create", &dir))?;
    }
    settings.store(layout)?;
    keelson_pki::ensure_all(&layout.config_dir(), &settings.identity()?).context("issue certificates")?;
    let mut changed = components::write_configs(layout, settings)?;
    if settings.runtime_endpoint.is_none() {
        let config = containerd::render_config(&runtime_options(layout));
        if write_if_changed(&layout.containerd_config(), config.as_bytes())? {
            changed.push(components::CONTAINERD.into());
        }
    }
    Ok(changed)
}

/// Asks again, at short intervals, until the answer is yes. An error ends the wait.
pub async fn wait_for(
    what: &str,
    mut ready: impl AsyncFnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let asking = async {
        while !ready().await? {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    };
    tokio::time::timeout(PATIENCE, asking)
        .await
        .unwrap_or_else(|_| bail!("{what}: not ready after {PATIENCE:?}"))
}

async fn api_ready(layout: &Layout, keeper: &Keeper) -> anyhow::Result<kube::Client> {
    let client =
        keelson_client::connect(&layout.kubeconfig("admin"), "ctl").await.context("read admin.kubeconfig")?;
    let mut last = String::new();
    let ready = wait_for("the API server", async || {
        let request = http::Request::get("/readyz").body(Vec::new())?;
        match client.request_text(request).await {
            Ok(_) => Ok(true),
            Err(error) => {
                last = error.to_string();
                Ok(false)
            }
        }
    })
    .await;
    ready.with_context(|| format!("last answer: {last}; see {}", keeper.log_of(API_SERVER)))?;
    Ok(client)
}

async fn node_ready(client: &kube::Client, keeper: &Keeper, name: &str) -> anyhow::Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    let ready = kube::runtime::wait::await_condition(nodes, name, |node: Option<&Node>| {
        let conditions = node.and_then(|n| n.status.as_ref()).and_then(|s| s.conditions.as_ref());
        conditions.is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
    });
    match tokio::time::timeout(PATIENCE, ready).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error).context("watch the node"),
        Err(_) => bail!(
            "the node is not Ready after {PATIENCE:?}; `ctl describe node {name}` and {} say why",
            keeper.log_of(NODE_AGENT)
        ),
    }
}

/// The containerd of this cluster. Its configuration is written by [`up`]; the supervisor starts it.
pub fn runtime_options(layout: &Layout) -> containerd::Options {
    let mut options =
        containerd::Options::for_cluster(&layout.config_dir(), &layout.state_dir(), &layout.run_dir());
    options.cni_conf_dir = layout.cni_config_dir();
    if let Some(dir) = components::cni_plugin_dir() {
        options.cni_bin_dir = dir.to_owned();
    }
    let registries = layout.config_dir().join("registries");
    options.registries = registries.is_dir().then_some(registries);
    options
}

/// Every sandbox runs the pause image; it is made here from our own static binary, since a new machine has no
/// registry to ask.
async fn provide_pause_image(layout: &Layout, settings: &Settings) -> anyhow::Result<()> {
    let socket = settings.runtime_socket(layout);
    let runtime = containerd::wait_ready(&socket, PATIENCE)
        .await
        .with_context(|| format!("the container runtime at {}", socket.display()))?;
    let image = containerd::SANDBOX_IMAGE;
    if runtime.image_status(image).await.context("look for the pause image")?.is_some() {
        return Ok(());
    }
    let folder = tempfile::tempdir().context("a folder for the pause image")?;
    let binary = components::binary_dir()?.join("keelson-pause");
    std::fs::copy(&binary, folder.path().join("pause"))
        .with_context(|| format!("{} is missing; `make guest` makes it", binary.display()))?;
    let config =
        ImageConfig { name: image.into(), entrypoint: vec!["/pause".into()], ..ImageConfig::default() };
    crate::image::build_and_import(folder.path(), &config, &socket).await
}

/// The Service `kube-dns` at its fixed address. Its one endpoint is the node's DNS daemon, which is no pod.
async fn publish_dns(client: &kube::Client, settings: &Settings) -> anyhow::Result<()> {
    let ports = |extra: &str| {
        let port = |name: &str, protocol: &str, port: u16| {
            let mut value = json!({"name": name, "protocol": protocol, "port": port});
            if !extra.is_empty() {
                value[extra] = json!(settings.ports.dns);
            }
            value
        };
        let number = if extra.is_empty() { settings.ports.dns } else { 53 };
        json!([port("dns", "UDP", number), port("dns-tcp", "TCP", number)])
    };
    let labels = json!({"k8s-app": "kube-dns", "kubernetes.io/name": "CoreDNS"});
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "kube-dns", "namespace": "kube-system", "labels": labels},
        "spec": {"clusterIP": settings.cluster_dns, "ports": ports("targetPort")},
    });
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "kube-dns", "namespace": "kube-system",
                     "labels": {"kubernetes.io/service-name": "kube-dns"}},
        "addressType": if settings.node_ip.is_ipv4() { "IPv4" } else { "IPv6" },
        "endpoints": [{"addresses": [settings.node_ip], "conditions": {"ready": true}}],
        "ports": ports(""),
    });
    let apply = PatchParams::apply("ctl-cluster-up").force();
    Api::<Service>::namespaced(client.clone(), "kube-system")
        .patch("kube-dns", &apply, &Patch::Apply(service))
        .await
        .context("apply Service kube-dns")?;
    Api::<EndpointSlice>::namespaced(client.clone(), "kube-system")
        .patch("kube-dns", &apply, &Patch::Apply(slice))
        .await
        .context("apply EndpointSlice kube-dns")?;
    Ok(())
}
