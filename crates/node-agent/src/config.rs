//! The node agent's configuration file.

use keelson_api_types::quantity::Quantity;
use keelson_daemon::{LogConfig, Problems, Validate};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    pub kubeconfig: PathBuf,
    /// Name of the Node object; the host's name where absent.
    #[serde(default)]
    pub node_name: Option<String>,
    /// Address that others reach this node by; the default route's where absent.
    #[serde(default)]
    pub node_ip: Option<IpAddr>,
    pub bind: Bind,
    /// Holds `node-agent.crt`, `node-agent.key` and `ca.crt`.
    pub pki_dir: PathBuf,
    /// Pods' volumes, logs and the like.
    pub state_dir: PathBuf,
    /// Containers' logs; below the state where absent.
    #[serde(default)]
    pub pod_logs_dir: Option<PathBuf>,
    /// Socket of the container runtime.
    pub runtime_endpoint: PathBuf,
    pub cni_config_dir: PathBuf,
    pub cni_data_dir: PathBuf,
    /// Interface that the pods' addresses hang on.
    #[serde(default = "default_bridge")]
    pub bridge: String,
    /// Leave masquerading to the network plugin, where no service proxy does it.
    #[serde(default)]
    pub cni_masquerade: bool,
    #[serde(default)]
    pub pod_mtu: u32,
    #[serde(default)]
    pub cluster_dns: Vec<IpAddr>,
    #[serde(default = "default_domain")]
    pub cluster_domain: String,
    /// The resolver file that pods with `dnsPolicy: Default` inherit.
    #[serde(default = "default_resolv_conf")]
    pub resolv_conf: PathBuf,
    /// The cgroup below which all pods stand.
    #[serde(default = "default_cgroup")]
    pub cgroup_root: String,
    #[serde(default = "default_max_pods")]
    pub max_pods: u32,
    /// Taken off the capacity: `cpu`, `memory`, `ephemeral-storage`.
    #[serde(default)]
    pub reserved: BTreeMap<String, String>,
    #[serde(default)]
    pub node_labels: BTreeMap<String, String>,
    /// `key=value:Effect`, set when the node registers.
    #[serde(default)]
    pub register_with_taints: Vec<String>,
    #[serde(default)]
    pub allowed_unsafe_sysctls: Vec<String>,
    #[serde(default)]
    pub image_gc: ImageGc,
    #[serde(default)]
    pub container_log: ContainerLog,
    #[serde(default)]
    pub log: LogConfig,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Bind {
    pub address: IpAddr,
    pub port: u16,
}

/// When images that nothing uses are removed, in percent of the images' file system.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ImageGc {
    pub high_percent: u8,
    pub low_percent: u8,
}

impl Default for ImageGc {
    fn default() -> Self {
        Self { high_percent: 85, low_percent: 80 }
    }
}

/// Rotation of containers' logs.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ContainerLog {
    pub max_size: String,
    pub max_files: u32,
}

impl Default for ContainerLog {
    fn default() -> Self {
        Self { max_size: "10Mi".into(), max_files: 5 }
    }
}

impl ContainerLog {
    pub fn max_bytes(&self) -> u64 {
        Quantity::parse(&self.max_size).map_or(10 << 20, |q| q.value().max(1) as u64)
    }
}

fn default_bridge() -> String {
    "kl-keelson".into()
}

fn default_domain() -> String {
    "cluster.local".into()
}

fn default_resolv_conf() -> PathBuf {
    "/etc/resolv.conf".into()
}

fn default_cgroup() -> String {
    "/kubepods".into()
}

fn default_max_pods() -> u32 {
    110
}

impl Config {
    pub fn listen(&self) -> SocketAddr {
        SocketAddr::new(self.bind.address, self.bind.port)
    }

    pub fn pod_logs(&self) -> PathBuf {
        self.pod_logs_dir.clone().unwrap_or_else(|| self.state_dir.join("pod-logs"))
    }
}

impl Validate for Config {
    fn validate(&self) -> Vec<String> {
        let mut problems = Problems::new();
        problems.file("kubeconfig", &self.kubeconfig);
        for name in ["node-agent.crt", "node-agent.key", "ca.crt"] {
            problems.file("pkiDir", &self.pki_dir.join(name));
        }
        problems
            .check(self.bridge.len() <= 15, "bridge", "longer than the 15 characters of an interface's name")
            .check(self.cgroup_root.starts_with('/'), "cgroupRoot", "must start with /")
            .check(self.max_pods > 0, "maxPods", "must be at least 1")
            .check(
                self.image_gc.low_percent < self.image_gc.high_percent && self.image_gc.high_percent <= 100,
                "imageGc",
                "lowPercent must be below highPercent, and that at most 100",
            )
            .check(
                Quantity::parse(&self.container_log.max_size).is_ok(),
                "containerLog.maxSize",
                "not a quantity",
            )
            .check(self.container_log.max_files >= 2, "containerLog.maxFiles", "must be at least 2");
        for (name, quantity) in &self.reserved {
            let good = Quantity::parse(quantity).is_ok();
            problems.check(good, &format!("reserved.{name}"), "not a quantity");
        }
        for (i, taint) in self.register_with_taints.iter().enumerate() {
            let good = crate::node::parse_taint(taint).is_some();
            problems.check(good, &format!("registerWithTaints[{i}]"), "not key[=value]:Effect");
        }
        problems.into_vec()
    }

    fn logging(&self) -> LogConfig {
        self.log.clone()
    }
}
