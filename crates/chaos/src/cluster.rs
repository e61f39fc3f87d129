//! What the faults are done to: real processes with what they store in.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use clap::ValueEnum;
use keelson_store::{EtcdConfig, Store, StoreConfig};
use keelson_testkit::{ControlPlane, EtcdServer};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use tempfile::TempDir;

use crate::proxy::Proxy;

/// What the servers store in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Backend {
    /// One server with a file, on a small disk of its own where this process may mount one.
    Embedded,
    /// Two servers with one etcd.
    Etcd,
}

pub struct Cluster {
    pub servers: Vec<ControlPlane>,
    /// Each server's way to etcd.
    pub proxies: Vec<Proxy>,
    pub etcd: Option<EtcdServer>,
    /// Past the proxies.
    pub direct: Option<Arc<dyn Store>>,
    pub disk: Option<Disk>,
}

impl Cluster {
    pub async fn start(backend: Backend) -> anyhow::Result<Self> {
        match backend {
            Backend::Embedded => Self::embedded().await,
            Backend::Etcd => Self::etcd().await,
        }
    }

    /// History is short, so that there is always some compaction.
    async fn embedded() -> anyhow::Result<Self> {
        let disk = Disk::mount()?;
        let store = disk.as_ref().map(|disk| disk.folder.path().join("store.redb"));
        let builder = match store {
            Some(path) => {
                let store = json!({"embedded": {"path": path, "historySeconds": 1}});
                ControlPlane::builder().config("store", store)
            }
            None => ControlPlane::builder(),
        };
        let servers = vec![builder.start().await?];
        Ok(Self { servers, proxies: Vec::new(), etcd: None, direct: None, disk })
    }

    async fn etcd() -> anyhow::Result<Self> {
        let etcd = EtcdServer::start().await;
        let mut proxies = Vec::new();
        let mut servers = Vec::new();
        for _ in 0..2 {
            let proxy = Proxy::start(etcd.address()).await.context("start a proxy")?;
            let endpoint = format!("http://{}", proxy.address());
            let store = json!({"etcd": {"endpoints": [endpoint], "historySeconds": 0}});
            servers.push(ControlPlane::builder().config("store", store).start().await?);
            proxies.push(proxy);
        }
        let config = EtcdConfig { history_seconds: 0, ..EtcdConfig::new(vec![etcd.endpoint()]) };
        let direct = keelson_store::open(StoreConfig::Etcd(config)).await.context("connect to etcd")?;
        Ok(Self { servers, proxies, etcd: Some(etcd), direct: Some(direct), disk: None })
    }
}

/// A process that stands still until this is dropped.
pub struct Paused(Pid);

impl Paused {
    pub fn pause(pid: u32) -> anyhow::Result<Self> {
        let pid = Pid::from_raw(i32::try_from(pid)?);
        kill(pid, Signal::SIGSTOP).context("stop a process")?;
        Ok(Self(pid))
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGCONT);
    }
}

/// A file system in memory, small enough to be filled.
pub struct Disk {
    folder: TempDir,
}

impl Disk {
    /// `None`, and a word about it, for who may not mount.
    fn mount() -> anyhow::Result<Option<Self>> {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("not root: no disk to fill");
            return Ok(None);
        }
        let folder = tempfile::tempdir()?;
        let size = Some("size=48m,mode=0700");
        mount(Some("tmpfs"), folder.path(), Some("tmpfs"), MsFlags::empty(), size)
            .context("mount a tmpfs")?;
        Ok(Some(Self { folder }))
    }

    fn ballast(&self) -> PathBuf {
        self.folder.path().join("ballast")
    }

    /// Takes every block that is left.
    pub fn fill(&self) -> anyhow::Result<()> {
        let mut file = File::create(self.ballast()).context("create the ballast")?;
        let block = vec![1; 4096];
        while file.write_all(&block).is_ok() {}
        Ok(())
    }

    pub fn free(&self) -> anyhow::Result<()> {
        std::fs::remove_file(self.ballast()).context("remove the ballast")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = umount2(self.folder.path(), MntFlags::MNT_DETACH);
    }
}
