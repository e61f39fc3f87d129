//! `ctl cluster`: raises, shows and removes a cluster on this machine.
//!
//! - [`layout`]: where its files are; [`settings`]: what a user may choose; [`components`]: its daemons.
//! - [`up`], [`down`], [`status`]: the commands; all idempotent.
//! - [`keeper`]: what keeps the daemons running: [`systemd`] where it is PID 1, our [`supervisor`] elsewhere.

pub mod components;
mod down;
mod keeper;
pub mod layout;
mod progress;
pub mod settings;
mod status;
pub mod supervisor;
mod systemd;
mod up;

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use clap::{Args, Subcommand};

use layout::Layout;
use settings::Settings;

#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// Raise a cluster on this machine, or bring back what is missing of it
    Up(Box<UpArgs>),
    /// Stop the cluster and remove what it started; its data stays unless --purge
    Down(DownArgs),
    /// Show the cluster's components
    Status(RootArg),
    /// Keep the daemons running (started by `up`)
    #[command(hide = true)]
    Supervise(RootArg),
    /// Keep the certificates renewed (what the supervisor does as well)
    #[command(hide = true)]
    Certificates(RootArg),
}

#[derive(Debug, Clone, Args)]
pub struct RootArg {
    /// The folder below which the cluster keeps etc/keelson, var/lib/keelson and run/keelson
    #[arg(long, default_value = "/", env = "KEELSON_ROOT")]
    pub root: PathBuf,
}

impl RootArg {
    pub fn layout(&self) -> Layout {
        Layout::new(&self.root)
    }
}

/// What is given here is kept in cluster.yaml; what is not keeps its value.
#[derive(Debug, Args)]
pub struct UpArgs {
    #[command(flatten)]
    root: RootArg,
    /// Name of the cluster; part of the names of its bridge and rule tables
    #[arg(long)]
    name: Option<String>,
    /// Name of this node [default: the host's name]
    #[arg(long)]
    node_name: Option<String>,
    /// Address of this node [default: the one it sends from]
    #[arg(long)]
    node_ip: Option<IpAddr>,
    /// Port of the API server [default: 6443]
    #[arg(long)]
    api_port: Option<u16>,
    /// Add this to every other daemon's port, for a second cluster on one machine
    #[arg(long)]
    port_offset: Option<u16>,
    /// Network of the pods [default: 10.244.0.0/16]
    #[arg(long)]
    pod_cidr: Option<String>,
    /// Network of the Services [default: 10.96.0.0/16]; cluster DNS gets its tenth address
    #[arg(long)]
    service_cidr: Option<String>,
    /// Use etcd at these URLs instead of the embedded store
    #[arg(long, value_delimiter = ',')]
    etcd: Option<Vec<String>>,
    /// Socket of a container runtime to use instead of starting a containerd
    #[arg(long)]
    runtime_endpoint: Option<PathBuf>,
    /// Built-in APIs to serve or not, such as storagemigration.k8s.io/v1beta1=true or api/beta=true
    #[arg(long, value_name = "API=BOOL", value_delimiter = ',', value_parser = switch)]
    runtime_config: Option<Vec<(String, bool)>>,
    /// Features of the controllers to turn on, such as StorageVersionMigrator=true
    #[arg(long, value_name = "FEATURE=BOOL", value_delimiter = ',', value_parser = switch)]
    feature_gates: Option<Vec<(String, bool)>>,
    /// Log filter of the daemons [default: info]
    #[arg(long)]
    log_level: Option<String>,
}

#[derive(Debug, Args)]
pub struct DownArgs {
    #[command(flatten)]
    root: RootArg,
    /// Remove the cluster's data, configuration and certificates too
    #[arg(long)]
    purge: bool,
}

/// `NAME=true`, `NAME=false`, or `NAME` for the first.
fn switch(text: &str) -> Result<(String, bool), String> {
    let (name, value) = text.split_once('=').unwrap_or((text, "true"));
    let value = value.parse().map_err(|_| format!("{value:?} is neither true nor false"))?;
    Ok((name.to_owned(), value))
}

impl UpArgs {
    fn settings(&self, layout: &Layout) -> anyhow::Result<Settings> {
        let mut settings = Settings::load(layout)?;
        fn set<T: Clone>(target: &mut T, given: &Option<T>) {
            if let Some(value) = given {
                *target = value.clone();
            }
        }
        set(&mut settings.name, &self.name);
        set(&mut settings.node_name, &self.node_name);
        set(&mut settings.node_ip, &self.node_ip);
        set(&mut settings.pod_cidr, &self.pod_cidr);
        set(&mut settings.etcd_endpoints, &self.etcd);
        set(&mut settings.log_level, &self.log_level);
        let switches = |given: &Option<Vec<_>>| given.clone().map(|pairs| pairs.into_iter().collect());
        set(&mut settings.runtime_config, &switches(&self.runtime_config));
        set(&mut settings.feature_gates, &switches(&self.feature_gates));
        if self.runtime_endpoint.is_some() {
            settings.runtime_endpoint.clone_from(&self.runtime_endpoint);
        }
        if let Some(offset) = self.port_offset {
            settings.ports = settings::Ports::default().shifted(offset)?;
        }
        set(&mut settings.ports.api_server, &self.api_port);
        if let Some(cidr) = &self.service_cidr {
            settings.service_cidr.clone_from(cidr);
            if let Ok(net) = cidr.parse::<ipnet::Ipv4Net>() {
                settings.cluster_dns = Ipv4Addr::from_bits(net.network().to_bits().saturating_add(10));
            }
        }
        settings.validate()?;
        Ok(settings)
    }
}

pub async fn run(command: ClusterCommand) -> anyhow::Result<()> {
    match command {
        ClusterCommand::Up(args) => {
            let layout = args.root.layout();
            let settings = args.settings(&layout)?;
            up::up(&layout, &settings).await
        }
        ClusterCommand::Down(args) => down::down(&args.root.layout(), args.purge).await,
        ClusterCommand::Status(root) => status::status(&root.layout()).await,
        ClusterCommand::Certificates(root) => {
            let layout = root.layout();
            let identity = Settings::load(&layout)?.identity()?;
            keelson_pki::renew_task(layout.config_dir(), identity).await;
            Ok(())
        }
        ClusterCommand::Supervise(root) => {
            let layout = root.layout();
            // Away from the terminal's session, whose end must not end the cluster. It fails where this process
            // leads a group already, and then there is nothing to leave.
            let _ = nix::unistd::setsid();
            let settings = Settings::load(&layout)?;
            let specs = components::specs(&layout, &settings)?;
            tokio::spawn(keelson_pki::renew_task(layout.config_dir(), settings.identity()?));
            supervisor::run(specs, &layout.supervisor_socket()).await
        }
    }
}

fn require_root() -> anyhow::Result<()> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    anyhow::bail!("a node needs root for namespaces, mounts and packet rules; run this with sudo")
}
