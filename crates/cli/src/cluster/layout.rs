//! Where a cluster keeps its things on this machine.
//!
//! Everything hangs below one root (`/` unless `--root` says otherwise), so that several clusters,
//! and tests, stand side by side.

use std::path::{Path, PathBuf};

/// What was tried with a path; where a file is in the way of its folders, which and what to do.
pub fn failed(operation: &str, path: &Path) -> String {
    let tried = format!("{operation} {}", path.display());
    match path.ancestors().skip(1).find(|part| part.is_file()) {
        Some(file) => {
            format!("{tried}: {} is not a folder: give another --root, or move it away", file.display())
        }
        None => tried,
    }
}

/// The paths of one cluster.
#[derive(Debug, Clone)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    pub fn new(root: &Path) -> Self {
        Self { root: std::path::absolute(root).unwrap_or_else(|_| root.to_owned()) }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Configuration: daemons' files, kubeconfigs, certificates.
    pub fn config_dir(&self) -> PathBuf {
        self.root.join("etc/keelson")
    }

    /// What must outlive a reboot.
    pub fn state_dir(&self) -> PathBuf {
        self.root.join("var/lib/keelson")
    }

    /// Sockets and pid files: nothing here outlives a reboot.
    pub fn run_dir(&self) -> PathBuf {
        self.root.join("run/keelson")
    }

    pub fn pki_dir(&self) -> PathBuf {
        self.config_dir().join("pki")
    }

    pub fn settings_file(&self) -> PathBuf {
        self.config_dir().join("cluster.yaml")
    }

    pub fn daemon_config(&self, daemon: &str) -> PathBuf {
        self.config_dir().join(format!("{daemon}.yaml"))
    }

    pub fn kubeconfig(&self, identity: &str) -> PathBuf {
        self.config_dir().join(format!("{identity}.kubeconfig"))
    }

    pub fn log_file(&self, component: &str) -> PathBuf {
        self.state_dir().join("logs").join(format!("{component}.log"))
    }

    pub fn pid_file(&self, component: &str) -> PathBuf {
        self.run_dir().join(format!("{component}.pid"))
    }

    pub fn supervisor_socket(&self) -> PathBuf {
        self.run_dir().join("supervisor.sock")
    }

    pub fn containerd_dir(&self) -> PathBuf {
        self.state_dir().join("containerd")
    }

    pub fn containerd_run_dir(&self) -> PathBuf {
        self.run_dir().join("containerd")
    }

    pub fn containerd_config(&self) -> PathBuf {
        self.config_dir().join("containerd.toml")
    }

    pub fn containerd_socket(&self) -> PathBuf {
        self.containerd_run_dir().join("containerd.sock")
    }

    pub fn cni_config_dir(&self) -> PathBuf {
        self.config_dir().join("cni")
    }

    /// Address leases of the pod network's IPAM plugin.
    pub fn cni_data_dir(&self) -> PathBuf {
        self.state_dir().join("cni")
    }
}
