//! The daemons of a cluster: what each is called, where its binary is and how its configuration reads.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde_json::{Value, json};

use super::layout::Layout;
use super::settings::{Settings, write_if_changed};
use super::supervisor::Spec;

pub const CONTAINERD: &str = "containerd";
pub const API_SERVER: &str = "api-server";
pub const NODE_AGENT: &str = "node-agent";

/// The daemons in the order in which they are started; they are stopped in the opposite one.
pub const DAEMONS: [&str; 6] =
    [API_SERVER, "controller-manager", "scheduler", NODE_AGENT, "net-proxy", "dns"];

/// Programs of the distribution that a node needs, with the Debian package of each.
const NEEDED: [(&str, &str); 5] = [
    ("containerd", "containerd"),
    ("runc", "runc"),
    ("nft", "nftables"),
    ("ip", "iproute2"),
    ("conntrack", "conntrack"),
];
const CNI_PLUGINS: [&str; 2] = ["/usr/lib/cni", "/opt/cni/bin"];

/// Finds the distribution's programs, or says which packages bring them.
pub fn check_programs() -> anyhow::Result<()> {
    let mut missing: Vec<&str> = NEEDED
        .iter()
        .filter(|(program, _)| find_program(program).is_none())
        .map(|(_, package)| *package)
        .collect();
    if cni_plugin_dir().is_none() {
        missing.push("containernetworking-plugins");
    }
    if missing.is_empty() {
        return Ok(());
    }
    bail!("this machine lacks {}; install with: apt-get install {}", missing.join(", "), missing.join(" "))
}

pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // The system folders too: an unprivileged user's PATH lacks them.
    std::env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}

pub fn cni_plugin_dir() -> Option<&'static Path> {
    CNI_PLUGINS.iter().map(Path::new).find(|dir| dir.join("bridge").is_file())
}

/// The folder of Keelson's own binaries: where `ctl` itself is.
pub fn binary_dir() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("find where ctl itself is")?;
    Ok(own.parent().context("ctl is in a folder")?.to_owned())
}

/// What the supervisor runs for this cluster.
pub fn specs(layout: &Layout, settings: &Settings) -> anyhow::Result<Vec<Spec>> {
    let binaries = binary_dir()?;
    let spec = |name: &str, program: PathBuf, args: Vec<String>| Spec {
        name: name.to_owned(),
        program,
        args,
        log: layout.log_file(name),
        pid_file: layout.pid_file(name),
    };
    let mut specs = Vec::new();
    if settings.runtime_endpoint.is_none() {
        let program = find_program(CONTAINERD).context("containerd is not installed")?;
        let config = layout.containerd_config().display().to_string();
        specs.push(spec(CONTAINERD, program, vec!["--config".into(), config]));
    }
    for daemon in DAEMONS {
        let program = binaries.join(format!("keelson-{daemon}"));
        if !program.is_file() {
            bail!("{} is missing; `make build` makes it", program.display());
        }
        let config = layout.daemon_config(daemon).display().to_string();
        specs.push(spec(daemon, program, vec!["--config".into(), config]));
    }
    Ok(specs)
}

/// Writes every daemon's configuration and names the daemons whose file changed.
pub fn write_configs(layout: &Layout, settings: &Settings) -> anyhow::Result<Vec<String>> {
    let mut changed = Vec::new();
    for daemon in DAEMONS {
        let text =
            serde_saphyr::to_string(&config(daemon, layout, settings)?).context("encode a configuration")?;
        let text =
            format!("# Written by `ctl cluster up` from cluster.yaml; changes here do not last.\n{text}");
        if write_if_changed(&layout.daemon_config(daemon), text.as_bytes())? {
            changed.push(daemon.to_owned());
        }
    }
    Ok(changed)
}

fn config(daemon: &str, layout: &Layout, settings: &Settings) -> anyhow::Result<Value> {
    let ports = &settings.ports;
    // An embedded store serves one machine: there is no second candidate, and renewals are what an idle cluster writes.
    let leader_election = !settings.etcd_endpoints.is_empty();
    let mut config = match daemon {
        API_SERVER => return api_server(layout, settings),
        "scheduler" => json!({
            "health": health(layout, daemon, ports.scheduler),
            "leaderElection": leader_election,
        }),
        "controller-manager" => json!({
            "health": health(layout, daemon, ports.controller_manager),
            "leaderElection": leader_election,
            "pkiDir": layout.pki_dir(),
            "podCidr": settings.pod_cidr,
            "featureGates": settings.feature_gates,
        }),
        "net-proxy" => json!({
            "health": health(layout, daemon, ports.net_proxy),
            "nodeName": settings.node_name,
            "table": settings.nft_table(),
            "podCidr": settings.pod_cidr,
        }),
        "dns" => json!({
            "health": health(layout, daemon, ports.dns_health),
            "bind": {"address": settings.node_ip, "port": ports.dns},
            "clusterDomain": settings.cluster_domain,
        }),
        NODE_AGENT => node_agent(layout, settings)?,
        other => bail!("no daemon {other:?}"),
    };
    let fields = config.as_object_mut().context("a configuration is a map")?;
    fields.insert("kubeconfig".into(), json!(layout.kubeconfig(daemon)));
    fields.insert("log".into(), json!({"level": settings.log_level}));
    Ok(config)
}

fn health(layout: &Layout, daemon: &str, port: u16) -> Value {
    let pki = layout.pki_dir();
    json!({
        "listen": format!("127.0.0.1:{port}"),
        "certFile": pki.join(format!("{daemon}.crt")),
        "keyFile": pki.join(format!("{daemon}.key")),
        "clientCaFile": pki.join("ca.crt"),
    })
}

fn api_server(layout: &Layout, settings: &Settings) -> anyhow::Result<Value> {
    let store = if settings.etcd_endpoints.is_empty() {
        json!("embedded")
    } else {
        json!({"etcd": {"endpoints": settings.etcd_endpoints}})
    };
    Ok(json!({
        "bind": {"address": "0.0.0.0", "port": settings.ports.api_server},
        "advertiseAddress": settings.node_ip,
        "dataDir": layout.state_dir().join("api-server"),
        "store": store,
        "pkiDir": layout.pki_dir(),
        "serviceCidr": settings.service_cidr,
        "nodePortRange": settings.node_port_range,
        "clusterDomain": settings.cluster_domain,
        "runtimeConfig": settings.runtime_config,
        "components": {
            "controllerManager": format!("127.0.0.1:{}", settings.ports.controller_manager),
            "scheduler": format!("127.0.0.1:{}", settings.ports.scheduler),
        },
        "log": {"level": settings.log_level},
    }))
}

fn node_agent(layout: &Layout, settings: &Settings) -> anyhow::Result<Value> {
    Ok(json!({
        "nodeName": settings.node_name,
        "nodeIp": settings.node_ip,
        "bind": {"address": "0.0.0.0", "port": settings.ports.node_agent},
        "pkiDir": layout.pki_dir(),
        "stateDir": layout.state_dir().join("node-agent"),
        "runtimeEndpoint": settings.runtime_socket(layout),
        "cniConfigDir": layout.cni_config_dir(),
        "cniDataDir": layout.cni_data_dir(),
        "bridge": settings.bridge(),
        "cgroupRoot": settings.cgroup_root(),
        "clusterDns": [settings.cluster_dns],
        "clusterDomain": settings.cluster_domain,
    }))
}
