//! The DNS daemon's configuration file.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use keelson_daemon::{LogConfig, Serving, Validate};
use serde::Deserialize;

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Config {
    pub kubeconfig: PathBuf,
    /// Health and metrics; none: not served.
    pub health: Option<Serving>,
    pub log: LogConfig,
    pub bind: Bind,
    pub cluster_domain: String,
    /// Seconds that clients may keep an answer.
    pub ttl: u32,
    /// Where everything else is asked, `ADDRESS` or `ADDRESS:PORT`; empty: the name servers of resolvConf.
    pub upstreams: Vec<String>,
    pub resolv_conf: PathBuf,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Bind {
    pub address: IpAddr,
    /// UDP and TCP; 0 takes a free one.
    pub port: u16,
}

impl Default for Bind {
    fn default() -> Self {
        Self { address: IpAddr::V4(Ipv4Addr::LOCALHOST), port: 10053 }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            kubeconfig: "/etc/keelson/dns.kubeconfig".into(),
            health: None,
            log: LogConfig::default(),
            bind: Bind::default(),
            cluster_domain: "cluster.local".into(),
            ttl: 5,
            upstreams: Vec::new(),
            resolv_conf: "/etc/resolv.conf".into(),
        }
    }
}

impl Config {
    /// The upstream servers. One that is this daemon itself would make queries go round for ever and is left out.
    pub fn upstream_servers(&self) -> Vec<SocketAddr> {
        let listed: Vec<String> = if self.upstreams.is_empty() {
            let text = std::fs::read_to_string(&self.resolv_conf).unwrap_or_default();
            let servers = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
            servers.map(|server| server.trim().to_owned()).collect()
        } else {
            self.upstreams.clone()
        };
        let own = SocketAddr::new(self.bind.address, self.bind.port);
        listed.iter().filter_map(|text| server(text)).filter(|address| *address != own).collect()
    }
}

fn server(text: &str) -> Option<SocketAddr> {
    text.parse().ok().or_else(|| text.parse().ok().map(|ip: IpAddr| SocketAddr::new(ip, 53)))
}

impl Validate for Config {
    fn validate(&self) -> Vec<String> {
        let mut problems: Vec<String> = keelson_api_types::names::dns1123_subdomain(&self.cluster_domain)
            .into_iter()
            .map(|problem| format!("clusterDomain: {problem}"))
            .collect();
        for upstream in self.upstreams.iter().filter(|text| server(text).is_none()) {
            problems
                .push(format!("upstreams: {upstream:?} is no address like 192.0.2.53 or 192.0.2.53:5353"));
        }
        problems.extend(self.health.iter().flat_map(|h| h.validate("health")));
        problems
    }

    fn logging(&self) -> LogConfig {
        self.log.clone()
    }
}
