//! A containerd of our own: its configuration, its command line, and whether it answers.
//!
//! Whoever supervises daemons starts it; nothing here forks.

use crate::client::Client;
use crate::error::{Error, Result};
use crate::runtime::Runtime;
use keelson_host::system;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The pause image that every sandbox runs.
pub const SANDBOX_IMAGE: &str = "registry.k8s.io/pause:3.10";

#[derive(Debug, Clone)]
pub struct Options {
    /// The executable; a bare name is looked up in PATH.
    pub binary: PathBuf,
    pub config_file: PathBuf,
    pub root: PathBuf,
    pub state: PathBuf,
    pub socket: PathBuf,
    pub cni_conf_dir: PathBuf,
    pub cni_bin_dir: PathBuf,
    pub sandbox_image: String,
    /// Directory of `hosts.toml` files per registry; none leaves containerd's defaults.
    pub registries: Option<PathBuf>,
    /// Where the OOM score of a child may not be lowered: containers then keep the daemon's.
    pub restrict_oom_score_adj: bool,
    pub log_level: String,
}

impl Options {
    /// Everything below a cluster's root directories, with this machine's limits found out.
    pub fn for_cluster(etc: &Path, lib: &Path, run: &Path) -> Self {
        Self {
            binary: "containerd".into(),
            config_file: etc.join("containerd.toml"),
            root: lib.join("containerd"),
            state: run.join("containerd"),
            socket: run.join("containerd/containerd.sock"),
            cni_conf_dir: etc.join("cni/net.d"),
            cni_bin_dir: "/usr/lib/cni".into(),
            sandbox_image: SANDBOX_IMAGE.into(),
            registries: None,
            restrict_oom_score_adj: !system::has_capability(system::CAP_SYS_RESOURCE).unwrap_or(true),
            log_level: "warn".into(),
        }
    }
}

/// containerd's configuration, version 2. Plugins that a node does not use are off: they cost memory and the
/// time of the start.
pub fn render_config(options: &Options) -> String {
    let Options { root, state, socket, cni_conf_dir, cni_bin_dir, sandbox_image, log_level, .. } = options;
    let quoted = |p: &Path| toml_string(&p.to_string_lossy());
    let mut text = format!(
        r#"version = 2
root = {root}
state = {state}
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
  "io.containerd.tracing.processor.v1.otlp",
  "io.containerd.internal.v1.tracing",
]

[grpc]
  address = {socket}

[debug]
  level = {level}

[plugins."io.containerd.internal.v1.opt"]
  path = {opt}

[plugins."io.containerd.monitor.v1.cgroups"]
  no_prometheus = true

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = {image}
  netns_mounts_under_state_dir = true
"#,
        root = quoted(root),
        state = quoted(state),
        socket = quoted(socket),
        level = toml_string(log_level),
        opt = quoted(&root.join("opt")),
        image = toml_string(sandbox_image),
    );
    if options.restrict_oom_score_adj {
        text.push_str("  restrict_oom_score_adj = true\n");
    }
    text.push_str(&format!(
        r#"
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = {bin}
  conf_dir = {conf}

[plugins."io.containerd.grpc.v1.cri".containerd]
  default_runtime_name = "runc"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
  SystemdCgroup = false
"#,
        bin = quoted(cni_bin_dir),
        conf = quoted(cni_conf_dir),
    ));
    if let Some(registries) = &options.registries {
        text.push_str(&format!(
            "\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\n  config_path = {}\n",
            quoted(registries)
        ));
    }
    text
}

fn toml_string(value: &str) -> String {
    // JSON's escapes are a subset of those of a basic TOML string.
    serde_json::Value::from(value).to_string()
}

/// Writes the configuration and makes the directories that containerd expects to exist.
pub fn install_config(options: &Options) -> Result<()> {
    let parent = options.config_file.parent().unwrap_or(Path::new("/"));
    for dir in [parent, &options.root, &options.state, &options.cni_conf_dir] {
        std::fs::create_dir_all(dir).map_err(Error::io("create", dir.display()))?;
    }
    std::fs::write(&options.config_file, render_config(options))
        .map_err(Error::io("write", options.config_file.display()))
}

/// The command that runs containerd in the foreground with the installed configuration.
pub fn spawn_command(options: &Options) -> Command {
    let mut command = Command::new(&options.binary);
    command.arg("--config").arg(&options.config_file);
    command
}

/// Waits until the socket answers the interface's `Version`, or says why it did not within the time.
pub async fn wait_ready(socket: &Path, within: Duration) -> Result<Client> {
    let deadline = tokio::time::Instant::now() + within;
    loop {
        let attempt = async {
            let client = Client::connect(socket).await?;
            client.version().await?;
            Ok::<_, Error>(client)
        };
        match attempt.await {
            Ok(client) => return Ok(client),
            Err(e) if tokio::time::Instant::now() >= deadline => return Err(e),
            Err(_) => tokio::time::sleep(Duration::from_millis(15)).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oom_switch_is_written_only_where_the_capability_is_missing() {
        let mut options = Options::for_cluster(Path::new("/e"), Path::new("/l"), Path::new("/r"));
        options.restrict_oom_score_adj = false;
        assert!(!render_config(&options).contains("restrict_oom_score_adj"));
        options.restrict_oom_score_adj = true;
        assert!(render_config(&options).contains("restrict_oom_score_adj = true"));
        assert!(render_config(&options).contains("address = \"/r/containerd/containerd.sock\""));
    }
}
