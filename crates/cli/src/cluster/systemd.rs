//! A cluster as systemd units, where PID 1 is systemd.
//!
//! The units are those of `manifests/systemd`, with this cluster's paths and name put in. They are enabled, so
//! that the cluster comes back with the machine.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use tokio::process::Command;

use super::components::{CONTAINERD, binary_dir, find_program};
use super::layout::Layout;
use super::settings::{Settings, write_if_changed};
use super::supervisor::ComponentState;

const UNIT_DIR: &str = "/etc/systemd/system";
const TARGET: (&str, &str) = ("keelson.target", include_str!("../../../../manifests/systemd/keelson.target"));

macro_rules! services {
    ($($name:literal),*) => {
        [$(($name, include_str!(concat!("../../../../manifests/systemd/keelson-", $name, ".service")))),*]
    };
}

const SERVICES: [(&str, &str); 8] = services!(
    "containerd",
    "api-server",
    "controller-manager",
    "scheduler",
    "node-agent",
    "net-proxy",
    "dns",
    "certificates"
);

/// Whether systemd is this machine's init, as `sd_booted(3)` asks.
pub fn is_init() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// The units of one cluster.
pub struct Units {
    /// `keelson`, or `keelson-NAME` for a cluster of another name.
    prefix: String,
    /// Component and text, the cluster's own paths in it.
    services: Vec<(&'static str, String)>,
    target: String,
}

impl Units {
    pub fn of(layout: &Layout, settings: &Settings) -> anyhow::Result<Self> {
        let prefix = match settings.name.as_str() {
            "keelson" => "keelson".to_owned(),
            other => format!("keelson-{other}"),
        };
        let containerd = find_program(CONTAINERD).context("containerd is not installed")?;
        let places = Places { prefix: &prefix, binaries: &binary_dir()?, containerd: &containerd, layout };
        let ours = settings.runtime_endpoint.is_none();
        let services = SERVICES.iter().filter(|(name, _)| ours || *name != CONTAINERD);
        let services = services.map(|(name, text)| (*name, places.fill(text))).collect();
        let mut target = places.fill(TARGET.1);
        if !ours {
            target = target.replace(&format!("{prefix}-{CONTAINERD}.service "), "");
        }
        Ok(Self { prefix, services, target })
    }

    pub fn unit(&self, component: &str) -> String {
        format!("{}-{component}.service", self.prefix)
    }

    fn target(&self) -> String {
        format!("{}.target", self.prefix)
    }

    fn files(&self) -> impl Iterator<Item = (PathBuf, &str)> {
        let file = |name: String| Path::new(UNIT_DIR).join(name);
        let services = self.services.iter().map(move |(name, text)| (file(self.unit(name)), text.as_str()));
        services.chain([(file(self.target()), self.target.as_str())])
    }

    /// Writes and starts the units; those named are started anew.
    pub async fn start(&self, changed: &[String]) -> anyhow::Result<()> {
        let mut written = false;
        for (path, text) in self.files() {
            written |= write_if_changed(&path, text.as_bytes())?;
        }
        if written {
            systemctl(&["daemon-reload"]).await?;
        }
        let changed: Vec<String> = changed.iter().map(|component| self.unit(component)).collect();
        if !changed.is_empty() {
            let names: Vec<&str> = changed.iter().map(String::as_str).collect();
            // One that waits out its restart limit would stay down.
            let _ = systemctl(&[&["reset-failed"], &names[..]].concat()).await;
            systemctl(&[&["try-restart", "--no-block"], &names[..]].concat()).await?;
        }
        systemctl(&["enable", "--now", "--no-block", &self.target()]).await.map(drop)
    }

    /// Stops these components and keeps them stopped.
    pub async fn stop(&self, components: &[&str]) -> anyhow::Result<()> {
        let units: Vec<String> = components.iter().map(|component| self.unit(component)).collect();
        let known = units.iter().map(String::as_str).filter(|unit| Path::new(UNIT_DIR).join(unit).exists());
        let known: Vec<&str> = known.collect();
        if known.is_empty() {
            return Ok(());
        }
        systemctl(&[&["stop"], &known[..]].concat()).await.map(drop)
    }

    pub async fn is_active(&self, component: &str) -> bool {
        systemctl(&["is-active", &self.unit(component)]).await.is_ok()
    }

    /// Takes the units away; the components have been stopped.
    pub async fn remove(&self) -> anyhow::Result<()> {
        let _ = systemctl(&["disable", "--now", &self.target()]).await;
        self.stop(&["certificates"]).await?;
        for (path, _) in self.files() {
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("remove {}", path.display()));
                }
                _ => {}
            }
        }
        systemctl(&["daemon-reload"]).await.map(drop)
    }

    /// None where the cluster has no units.
    pub async fn states(&self) -> anyhow::Result<Option<Vec<ComponentState>>> {
        if !Path::new(UNIT_DIR).join(self.target()).exists() {
            return Ok(None);
        }
        let units: Vec<String> = self.services.iter().map(|(name, _)| self.unit(name)).collect();
        let mut show = vec!["show", "--property=MainPID,NRestarts,Result,ExecMainStatus"];
        show.extend(units.iter().map(String::as_str));
        let names = self.services.iter().map(|(name, _)| *name);
        Ok(Some(states(names, &systemctl(&show).await?)))
    }
}

/// What `systemctl show` says of several units, a paragraph each in the order asked for.
fn states<'a>(names: impl Iterator<Item = &'a str>, shown: &str) -> Vec<ComponentState> {
    names.zip(shown.split("\n\n")).map(|(name, shown)| state(name, shown)).collect()
}

/// `systemctl show`'s lines as a component's state.
fn state(name: &str, shown: &str) -> ComponentState {
    let field = |key: &str| {
        let mut fields = shown.lines().filter_map(|line| line.split_once('='));
        fields.find(|(k, _)| *k == key).map(|(_, value)| value).unwrap_or_default()
    };
    let restarts = field("NRestarts").parse().unwrap_or(0);
    let failed = format!("{}, exit status {}", field("Result"), field("ExecMainStatus"));
    ComponentState {
        name: name.to_owned(),
        pid: field("MainPID").parse().ok().filter(|pid| *pid != 0),
        restarts,
        last_exit: (field("Result") != "success").then_some(failed),
    }
}

struct Places<'a> {
    prefix: &'a str,
    binaries: &'a Path,
    containerd: &'a Path,
    layout: &'a Layout,
}

impl Places<'_> {
    fn fill(&self, text: &str) -> String {
        let path = |path: &Path| path.display().to_string();
        text.lines()
            .map(|line| self.rename(line) + "\n")
            .collect::<String>()
            .replace("/usr/local/bin/", &format!("{}/", path(self.binaries)))
            .replace("/usr/bin/containerd", &path(self.containerd))
            .replace("/etc/keelson", &path(&self.layout.config_dir()))
            .replace("/var/lib/keelson", &path(&self.layout.state_dir()))
            .replace("--root /\n", &format!("--root {}\n", path(self.layout.root())))
    }

    /// Names of units begin with the cluster's prefix.
    fn rename(&self, line: &str) -> String {
        let word = |word: &str| match word.strip_prefix("keelson") {
            Some(rest) if rest.ends_with(".service") || rest.ends_with(".target") => {
                format!("{}{rest}", self.prefix)
            }
            _ => word.to_owned(),
        };
        match line.split_once('=') {
            Some((key, units)) => {
                format!("{key}={}", units.split(' ').map(word).collect::<Vec<_>>().join(" "))
            }
            None => line.to_owned(),
        }
    }
}

async fn systemctl(args: &[&str]) -> anyhow::Result<String> {
    let output = Command::new("systemctl").args(args).output().await.context("run systemctl")?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    bail!("systemctl {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_of_another_name_and_root_has_units_of_its_own() {
        let layout = Layout::new(Path::new("/srv/two"));
        let places = Places {
            prefix: "keelson-two",
            binaries: Path::new("/opt/keelson"),
            containerd: Path::new("/usr/sbin/containerd"),
            layout: &layout,
        };
        let all: String = SERVICES.iter().chain([&TARGET]).map(|(_, text)| places.fill(text)).collect();
        for part in [
            "PartOf=keelson-two.target\n",
            "After=network-online.target keelson-two-api-server.service keelson-two-containerd.service\n",
            "ExecStart=/opt/keelson/keelson-dns --config /srv/two/etc/keelson/dns.yaml\n",
            "ExecStart=/usr/sbin/containerd --config /srv/two/etc/keelson/containerd.toml\n",
            "ExecStart=/opt/keelson/ctl cluster certificates --root /srv/two\n",
            "ReadWritePaths=-/srv/two/var/lib/keelson\n",
        ] {
            assert!(all.contains(part), "{part} in {all}");
        }
    }

    #[test]
    fn what_systemctl_shows_becomes_a_state() {
        let ran = state("dns", "MainPID=7\nNRestarts=0\nResult=success\nExecMainStatus=0\n");
        assert_eq!((ran.pid, ran.restarts, ran.last_exit), (Some(7), 0, None));
        let failing = state("dns", "MainPID=0\nNRestarts=3\nResult=exit-code\nExecMainStatus=2\n");
        assert_eq!((failing.pid, failing.restarts), (None, 3));
        assert_eq!(failing.last_exit.as_deref(), Some("exit-code, exit status 2"));
        let both = states(["a", "b"].into_iter(), "MainPID=7\nNRestarts=0\n\nMainPID=8\nNRestarts=2\n");
        let both: Vec<_> = both.iter().map(|s| (s.name.as_str(), s.pid, s.restarts)).collect();
        assert_eq!(both, [("a", Some(7), 0), ("b", Some(8), 2)]);
    }
}
