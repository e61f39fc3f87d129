//! Which cluster, as whom, in which namespace: kubeconfig files and the flags over them.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use keelson_client::kube::config::{KubeConfigOptions, Kubeconfig};
use keelson_client::kube::{self, Config};

/// Where a cluster on this machine leaves the administrator's kubeconfig.
pub const LOCAL_ADMIN: &str = "/etc/keelson/admin.kubeconfig";

/// Flags of every command that talks to a cluster.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Path of the kubeconfig file
    #[arg(long, global = true, hide_short_help = true)]
    pub kubeconfig: Option<PathBuf>,
    /// The kubeconfig context to use
    #[arg(long, global = true, hide_short_help = true)]
    pub context: Option<String>,
    /// The kubeconfig cluster to use
    #[arg(long, global = true, hide_short_help = true)]
    pub cluster: Option<String>,
    /// Address of the API server
    #[arg(short = 's', long, global = true, hide_short_help = true)]
    pub server: Option<String>,
    /// Bearer token for authentication
    #[arg(long, global = true, hide_short_help = true)]
    pub token: Option<String>,
    /// The namespace for this request
    #[arg(short = 'n', long, global = true)]
    pub namespace: Option<String>,
    /// User to impersonate
    #[arg(long = "as", value_name = "USER", global = true, hide_short_help = true)]
    pub as_user: Option<String>,
    /// Group to impersonate; repeat it for several
    #[arg(long, value_name = "GROUP", global = true, hide_short_help = true)]
    pub as_group: Vec<String>,
    /// Give up on a single request after this time, such as 5s; 0 waits without end
    #[arg(long, default_value = "0", global = true, hide_short_help = true)]
    pub request_timeout: String,
    /// How much to say of what is done: 6 shows requests, 8 their bodies
    #[arg(
        short = 'v',
        long = "v",
        value_name = "LEVEL",
        default_value_t = 0,
        global = true,
        hide_short_help = true
    )]
    pub verbosity: u8,
}

impl Global {
    /// The files that are read, the first of which is the one that is written.
    pub fn files(&self) -> Vec<PathBuf> {
        if let Some(file) = &self.kubeconfig {
            return vec![file.clone()];
        }
        let listed = std::env::var_os("KUBECONFIG").unwrap_or_default();
        let files: Vec<PathBuf> =
            std::env::split_paths(&listed).filter(|path| !path.as_os_str().is_empty()).collect();
        if !files.is_empty() {
            return files;
        }
        let home = std::env::var_os("HOME").map(|home| Path::new(&home).join(".kube/config"));
        match home {
            Some(path) if path.exists() || !Path::new(LOCAL_ADMIN).exists() => vec![path],
            _ => vec![PathBuf::from(LOCAL_ADMIN)],
        }
    }

    /// All files merged; those that are absent add nothing unless one was named by flag.
    pub fn load(&self) -> anyhow::Result<Kubeconfig> {
        let mut merged = Kubeconfig::default();
        for path in self.files() {
            if !path.exists() {
                if self.kubeconfig.is_some() {
                    bail!("stat {}: no such file or directory", path.display());
                }
                continue;
            }
            let next = Kubeconfig::read_from(&path)
                .with_context(|| format!("error loading config file {:?}", path))?;
            merged = merged.merge(next).context("merge the kubeconfig files")?;
        }
        Ok(merged)
    }

    /// How to reach the cluster, with all flags applied.
    pub async fn config(&self) -> anyhow::Result<Config> {
        let mut file = self.load()?;
        if file.contexts.is_empty() && file.clusters.is_empty() && self.server.is_none() {
            bail!(
                "no kubeconfig found (looked for {}): raise a cluster with `ctl cluster up` or give --kubeconfig",
                self.files().iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ")
            );
        }
        if let Some(context) = &self.context
            && !file.contexts.iter().any(|c| c.name == *context)
        {
            bail!("context {context:?} does not exist");
        }
        if file.current_context.is_none() && self.context.is_none() {
            file.current_context = file.contexts.first().map(|c| c.name.clone());
        }
        let ca = certificate_authority(&file, self);
        let options =
            KubeConfigOptions { context: self.context.clone(), cluster: self.cluster.clone(), user: None };
        let mut config =
            Config::from_custom_kubeconfig(file, &options).await.context("use the kubeconfig")?;
        config.root_cert_file = ca;
        self.apply(&mut config)?;
        Ok(config)
    }

    fn apply(&self, config: &mut Config) -> anyhow::Result<()> {
        if let Some(server) = &self.server {
            config.cluster_url = server.parse().with_context(|| format!("use {server:?} as the server"))?;
        }
        if let Some(token) = &self.token {
            config.auth_info.token = Some(token.clone().into());
        }
        if let Some(user) = &self.as_user {
            config.auth_info.impersonate = Some(user.clone());
        }
        if !self.as_group.is_empty() {
            if self.as_user.is_none() {
                bail!("requesting groups without impersonating a user: give --as as well");
            }
            config.auth_info.impersonate_groups = Some(self.as_group.clone());
        }
        // Watches and logs live as long as they like; --request-timeout bounds single requests.
        config.read_timeout = None;
        Ok(())
    }

    /// The limit for single requests.
    pub fn timeout(&self) -> anyhow::Result<Option<std::time::Duration>> {
        let nanos = match self.request_timeout.parse::<u64>() {
            Ok(seconds) => seconds as i64 * 1_000_000_000,
            Err(_) => keelson_api_types::duration::parse_go(&self.request_timeout)
                .with_context(|| format!("--request-timeout: invalid duration {:?}", self.request_timeout))?,
        };
        Ok((nanos > 0).then(|| std::time::Duration::from_nanos(nanos as u64)))
    }
}

fn certificate_authority(file: &Kubeconfig, flags: &Global) -> Option<PathBuf> {
    let current = flags.context.as_ref().or(file.current_context.as_ref());
    let context = current.and_then(|name| file.contexts.iter().find(|c| c.name == *name));
    let named = context.and_then(|c| c.context.as_ref()).map(|c| &c.cluster);
    let cluster = flags.cluster.as_ref().or(named)?;
    let cluster = file.clusters.iter().find(|c| c.name == *cluster)?.cluster.as_ref()?;
    cluster.certificate_authority.as_ref().map(PathBuf::from)
}

/// A client as the kubeconfig and flags say; WebSockets need HTTP/1.1.
pub fn client(config: Config, http2: bool) -> anyhow::Result<kube::Client> {
    let user_agent = format!("ctl/{}", env!("CARGO_PKG_VERSION"));
    let options = keelson_client::Options { user_agent, http2 };
    Ok(keelson_client::connect_config(config, &options)?)
}
