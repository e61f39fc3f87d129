//! What all workers share.

use crate::api::Api;
use crate::config::Config;
use crate::pods::images::Images;
use keelson_cri::Runtime;
use keelson_host::cgroup::Cgroups;
use keelson_host::mount::Mounts;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

pub struct Context {
    pub config: Config,
    pub node_name: String,
    pub node_ip: IpAddr,
    pub api: Arc<dyn Api>,
    pub runtime: Arc<dyn Runtime>,
    pub cgroups: Arc<dyn Cgroups>,
    pub mounts: Arc<dyn Mounts>,
    pub images: Images,
    /// Of this node, in bytes and CPUs: what containers without limits see as theirs.
    pub allocatable: Allocatable,
    /// Runtime's own name, the scheme of container ids in statuses.
    pub runtime_name: String,
}

#[derive(Debug, Clone, Copy, Default)]
pub struct Allocatable {
    pub cpu_milli: i64,
    pub memory_bytes: i64,
    pub ephemeral_bytes: i64,
    pub pods: u32,
}

impl Context {
    /// The directory of one pod: volumes, termination messages, its hosts file.
    pub fn pod_dir(&self, uid: &str) -> PathBuf {
        self.config.state_dir.join("pods").join(uid)
    }

    /// Where a pod's resources are kept: what it has been given and what its containers run with.
    pub fn resources_file(&self, uid: &str) -> PathBuf {
        self.pod_dir(uid).join("resources.json")
    }

    pub fn pod_log_dir(&self, namespace: &str, name: &str, uid: &str) -> PathBuf {
        self.config.pod_logs().join(format!("{namespace}_{name}_{uid}"))
    }
}
