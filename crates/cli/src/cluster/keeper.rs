//! Who keeps a cluster's daemons running: systemd where it is this machine's init, a supervisor of our own
//! elsewhere.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};

use super::components::{CONTAINERD, DAEMONS};
use super::layout::Layout;
use super::settings::Settings;
use super::supervisor::{self, Answer, ComponentState, PATIENCE, Process, Request};
use super::systemd::{self, Units};
use super::up::wait_for;

/// A component that ended this often since it was asked to start is not coming up.
const HOPELESS: u32 = 3;

pub enum Keeper {
    Systemd(Units),
    Supervisor(Layout),
}

impl Keeper {
    pub fn of(layout: &Layout, settings: &Settings) -> anyhow::Result<Self> {
        match systemd::is_init() {
            true => Ok(Self::Systemd(Units::of(layout, settings)?)),
            false => Ok(Self::Supervisor(layout.clone())),
        }
    }

    /// Every component's state; None where nothing keeps this cluster.
    pub async fn states(&self) -> anyhow::Result<Option<Vec<ComponentState>>> {
        match self {
            Self::Systemd(units) => units.states().await,
            Self::Supervisor(layout) => {
                match supervisor::ask(&layout.supervisor_socket(), &Request::Status).await? {
                    Some(Answer::Components(states)) => Ok(Some(states)),
                    _ => Ok(None),
                }
            }
        }
    }

    /// Starts what does not run, and anew what has changed.
    pub async fn start(&self, changed: &[String]) -> anyhow::Result<()> {
        let layout = match self {
            Self::Systemd(units) => return units.start(changed).await,
            Self::Supervisor(layout) => layout,
        };
        let Some(states) = self.states().await? else { return start_supervisor(layout).await };
        // Those with a new configuration, and those that a `down` that was cut short had stopped.
        let restart = states.into_iter().filter(|s| s.pid.is_none() || changed.contains(&s.name));
        let restart = Request::Restart(restart.map(|state| state.name).collect());
        match supervisor::ask(&layout.supervisor_socket(), &restart).await? {
            Some(Answer::Failed(why)) => bail!("{why}"),
            _ => Ok(()),
        }
    }

    /// Stops the daemons; containerd runs on, since its pods are removed through it.
    pub async fn stop_daemons(&self) -> anyhow::Result<()> {
        let daemons = DAEMONS.iter().rev().copied();
        let layout = match self {
            Self::Systemd(units) => return units.stop(&daemons.collect::<Vec<_>>()).await,
            Self::Supervisor(layout) => layout,
        };
        let socket = layout.supervisor_socket();
        let stop = Request::Stop(daemons.clone().map(str::to_owned).collect());
        if supervisor::ask(&socket, &stop).await?.is_some() {
            supervisor::ask(&socket, &Request::Exit).await?;
        }
        // What an earlier supervisor left.
        for name in daemons {
            stop_by_pid_file(layout.pid_file(name)).await;
        }
        Ok(())
    }

    pub async fn runs_containerd(&self) -> bool {
        match self {
            Self::Systemd(units) => units.is_active(CONTAINERD).await,
            Self::Supervisor(layout) => Process::adopt(&layout.pid_file(CONTAINERD)).is_some(),
        }
    }

    pub async fn stop_containerd(&self) -> anyhow::Result<()> {
        match self {
            Self::Systemd(units) => units.stop(&[CONTAINERD]).await,
            Self::Supervisor(layout) => {
                stop_by_pid_file(layout.pid_file(CONTAINERD)).await;
                Ok(())
            }
        }
    }

    /// Leaves nothing of itself behind.
    pub async fn remove(&self) -> anyhow::Result<()> {
        match self {
            Self::Systemd(units) => units.remove().await,
            Self::Supervisor(_) => Ok(()),
        }
    }

    /// Where a component's log is read.
    pub fn log_of(&self, component: &str) -> String {
        match self {
            Self::Systemd(units) => format!("`journalctl -u {}`", units.unit(component)),
            Self::Supervisor(layout) => layout.log_file(component).display().to_string(),
        }
    }

    /// Does the work, which fails at once, with the end of the component's log, where the component that it waits
    /// for keeps ending.
    pub async fn while_it_lasts<T>(
        &self,
        component: &str,
        work: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<T> {
        let before = self.restarts(component).await;
        let hopeless = async {
            while self.restarts(component).await.saturating_sub(before) < HOPELESS {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::select! {
            outcome = work => outcome,
            () = hopeless => {
                let (log, words) = (self.log_of(component), self.last_words(component));
                bail!("{component} keeps ending; the end of {log}:\n{words}")
            }
        }
    }

    async fn restarts(&self, component: &str) -> u32 {
        let states = self.states().await.ok().flatten().unwrap_or_default();
        states.iter().find(|state| state.name == component).map_or(0, |state| state.restarts)
    }

    fn last_words(&self, component: &str) -> String {
        let log = match self {
            Self::Systemd(units) => Command::new("journalctl")
                .args(["--unit", &units.unit(component), "--lines", "3", "--output", "cat", "--no-pager"])
                .output()
                .map(|output| String::from_utf8_lossy(&output.stdout).into_owned()),
            Self::Supervisor(layout) => std::fs::read_to_string(layout.log_file(component)),
        };
        let log = log.unwrap_or_default();
        let lines: Vec<&str> = log.trim_end().lines().rev().take(3).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

async fn stop_by_pid_file(pid_file: PathBuf) {
    if let Some(mut process) = Process::adopt(&pid_file) {
        process.stop(PATIENCE).await;
    }
    let _ = std::fs::remove_file(pid_file);
}

async fn start_supervisor(layout: &Layout) -> anyhow::Result<()> {
    let log = layout.log_file("supervisor");
    if let Some(dir) = log.parent() {
        std::fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    }
    let output = std::fs::File::create(&log).with_context(|| format!("create {}", log.display()))?;
    let mut child = Command::new(std::env::current_exe().context("find ctl itself")?)
        .args(["cluster", "supervise", "--root"])
        .arg(layout.root())
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .spawn()
        .context("start the supervisor")?;
    wait_for("the supervisor", async || {
        if let Some(status) = child.try_wait()? {
            bail!("the supervisor ended with {status}; see {}", log.display());
        }
        Ok(supervisor::ask(&layout.supervisor_socket(), &Request::Status).await?.is_some())
    })
    .await
}
