//! What a user may choose about a cluster, kept in `cluster.yaml` so that later commands need no flags.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use super::layout::{Layout, failed};

/// `ctl cluster up`'s choices. A flag given on the command line overrides what the file says and is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Settings {
    /// Names the bridge and the rule tables of this cluster, so that two clusters share a machine.
    pub name: String,
    pub node_name: String,
    pub node_ip: IpAddr,
    pub ports: Ports,
    pub pod_cidr: String,
    pub service_cidr: String,
    pub cluster_dns: Ipv4Addr,
    pub cluster_domain: String,
    pub node_port_range: String,
    /// etcd's endpoints; empty: the embedded store.
    pub etcd_endpoints: Vec<String>,
    /// The socket of a container runtime that is already there; none: a containerd of our own.
    pub runtime_endpoint: Option<PathBuf>,
    /// Built-in APIs that are served or not, otherwise than by default: upstream's `--runtime-config`.
    pub runtime_config: BTreeMap<String, bool>,
    /// Upstream's `--feature-gates`, of the controllers.
    pub feature_gates: BTreeMap<String, bool>,
    pub log_level: String,
}

/// The TCP ports of the daemons (DNS: TCP and UDP).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Ports {
    pub api_server: u16,
    pub node_agent: u16,
    pub scheduler: u16,
    pub controller_manager: u16,
    pub net_proxy: u16,
    pub dns: u16,
    pub dns_health: u16,
}

impl Default for Ports {
    fn default() -> Self {
        Self {
            api_server: 6443,
            node_agent: 10250,
            scheduler: 10259,
            controller_manager: 10257,
            net_proxy: 10256,
            dns: 10053,
            dns_health: 10054,
        }
    }
}

impl Ports {
    /// Every port but the API server's, moved up.
    pub fn shifted(self, offset: u16) -> anyhow::Result<Self> {
        let shift = |port: u16| {
            port.checked_add(offset).with_context(|| format!("port {port} + {offset} is no port"))
        };
        Ok(Self {
            api_server: self.api_server,
            node_agent: shift(self.node_agent)?,
            scheduler: shift(self.scheduler)?,
            controller_manager: shift(self.controller_manager)?,
            net_proxy: shift(self.net_proxy)?,
            dns: shift(self.dns)?,
            dns_health: shift(self.dns_health)?,
        })
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            name: "keelson".into(),
            node_name: host_name(),
            node_ip: node_address(),
            ports: Ports::default(),
            pod_cidr: "10.244.0.0/16".into(),
            service_cidr: "10.96.0.0/16".into(),
            cluster_dns: Ipv4Addr::new(10, 96, 0, 10),
            cluster_domain: "cluster.local".into(),
            node_port_range: "30000-32767".into(),
            etcd_endpoints: Vec::new(),
            runtime_endpoint: None,
            runtime_config: BTreeMap::new(),
            feature_gates: BTreeMap::new(),
            log_level: "info".into(),
        }
    }
}

impl Settings {
    /// The kept settings, or the defaults where the cluster is new.
    pub fn load(layout: &Layout) -> anyhow::Result<Self> {
        let path = layout.settings_file();
        match std::fs::read_to_string(&path) {
            Ok(text) => {
                serde_saphyr::from_str(&text).with_context(|| format!("{} is not valid", path.display()))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(|| failed("read", &path)),
        }
    }

    /// Everything that is wrong, in one error.
    pub fn validate(&self) -> anyhow::Result<()> {
        let mut wrong = Vec::new();
        let name_fits = !self.name.is_empty()
            && self.name.len() <= 11
            && self.name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if !name_fits {
            wrong.push(format!(
                "name {:?}: 1 to 11 lower-case letters, digits and '-' (it becomes part of a network interface's name)",
                self.name
            ));
        }
        let service: Option<ipnet::Ipv4Net> = self.service_cidr.parse().ok();
        match service {
            Some(net) if !net.contains(&self.cluster_dns) => {
                wrong.push(format!(
                    "clusterDns {} is not in serviceCidr {}",
                    self.cluster_dns, self.service_cidr
                ));
            }
            Some(net) if net.prefix_len() > 28 => wrong.push(format!("serviceCidr {net}: /28 or larger")),
            Some(_) => {}
            None => wrong.push(format!(
                "serviceCidr {:?} is not an IPv4 network like 10.96.0.0/16",
                self.service_cidr
            )),
        }
        match self.pod_cidr.parse::<ipnet::Ipv4Net>() {
            Ok(net) if net.prefix_len() > 24 => {
                wrong.push(format!("podCidr {net}: /24 or larger, each node takes a /24"))
            }
            Ok(net) if service.is_some_and(|s| s.contains(&net.network()) || net.contains(&s.network())) => {
                wrong.push(format!("podCidr {net} and serviceCidr {} overlap", self.service_cidr));
            }
            Ok(_) => {}
            Err(_) => {
                wrong.push(format!("podCidr {:?} is not an IPv4 network like 10.244.0.0/16", self.pod_cidr))
            }
        }
        if wrong.is_empty() {
            Ok(())
        } else {
            bail!("the cluster's settings are not valid:\n  {}", wrong.join("\n  "))
        }
    }

    pub fn store(&self, layout: &Layout) -> anyhow::Result<()> {
        let text = serde_saphyr::to_string(self).context("encode the cluster's settings")?;
        write_if_changed(&layout.settings_file(), text.as_bytes()).map(drop)
    }

    /// The pod network's bridge; Linux allows 15 bytes.
    pub fn bridge(&self) -> String {
        format!("kl-{}", self.name)
    }

    pub fn nft_table(&self) -> String {
        if self.name == "keelson" { "keelson".into() } else { format!("keelson-{}", self.name) }
    }

    /// The cgroup that holds this cluster's pods.
    pub fn cgroup_root(&self) -> String {
        if self.name == "keelson" { "/kubepods".into() } else { format!("/kubepods-{}", self.name) }
    }

    pub fn runtime_socket(&self, layout: &Layout) -> PathBuf {
        self.runtime_endpoint.clone().unwrap_or_else(|| layout.containerd_socket())
    }

    /// What the certificates say.
    pub fn identity(&self) -> anyhow::Result<keelson_pki::ClusterIdentity> {
        Ok(keelson_pki::ClusterIdentity {
            name: self.name.clone(),
            server: format!("https://127.0.0.1:{}", self.ports.api_server),
            node_name: self.node_name.clone(),
            node_ips: vec![self.node_ip],
            service_ip: self.kubernetes_service_ip()?.into(),
            cluster_domain: self.cluster_domain.clone(),
            extra_sans: Vec::new(),
        })
    }

    /// The first address of the service network, which the Service `kubernetes` has.
    pub fn kubernetes_service_ip(&self) -> anyhow::Result<Ipv4Addr> {
        let net: ipnet::Ipv4Net = self.service_cidr.parse().context("serviceCidr")?;
        net.hosts().next().context("serviceCidr has no address")
    }
}

/// Writes a file whole or not at all, and only when its content differs. Says whether it wrote.
pub fn write_if_changed(path: &Path, content: &[u8]) -> anyhow::Result<bool> {
    if std::fs::read(path).is_ok_and(|old| old == content) {
        return Ok(false);
    }
    let dir = path.parent().context("a file has a folder")?;
    std::fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    let temporary = path.with_extension("new");
    std::fs::write(&temporary, content).with_context(|| format!("write {}", temporary.display()))?;
    std::fs::rename(&temporary, path).with_context(|| format!("replace {}", path.display()))?;
    Ok(true)
}

fn host_name() -> String {
    nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .map(|name| name.to_ascii_lowercase())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "node".into())
}

/// The address that this machine would send from, which is the one that others reach it by. Nothing is sent:
/// connecting a UDP socket only looks up the route. Without any route the loopback address has to do.
fn node_address() -> IpAddr {
    let look_up = || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect((Ipv4Addr::new(203, 0, 113, 1), 9))?;
        socket.local_addr().map(|address| address.ip())
    };
    look_up().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_survive_their_file() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        let settings = Settings {
            name: "two".into(),
            etcd_endpoints: vec!["https://[::1]:2379".into()],
            runtime_config: [("storagemigration.k8s.io/v1beta1".into(), true)].into(),
            ..Settings::default()
        };
        settings.store(&layout).unwrap();
        assert_eq!(Settings::load(&layout).unwrap(), settings);
    }

    #[test]
    fn a_file_where_the_root_should_be_is_named_with_advice() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        for root in [file.clone(), file.join("below")] {
            let error = format!("{:#}", Settings::load(&Layout::new(&root)).unwrap_err());
            let advice = format!("{} is not a folder: give another --root, or move it away", file.display());
            assert!(error.contains(&advice), "{error}");
        }
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        write_if_changed(&layout.settings_file(), b"podCIDR: 10.0.0.0/16\n").unwrap();
        let error = format!("{:#}", Settings::load(&layout).unwrap_err());
        assert!(error.contains("podCIDR"), "{error}");
    }

    #[test]
    fn all_wrong_settings_are_named_at_once() {
        let settings = Settings {
            name: "Über".into(),
            pod_cidr: "10.96.1.0/24".into(),
            cluster_dns: Ipv4Addr::new(10, 0, 0, 1),
            ..Settings::default()
        };
        let error = settings.validate().unwrap_err().to_string();
        for part in ["name", "overlap", "clusterDns"] {
            assert!(error.contains(part), "{part} in {error}");
        }
    }
}
