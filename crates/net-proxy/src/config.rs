//! The net proxy's configuration file.

use std::path::PathBuf;

use ipnet::Ipv4Net;
use keelson_daemon::{LogConfig, Serving, Validate};
use serde::Deserialize;

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Config {
    pub kubeconfig: PathBuf,
    /// Health and metrics; none: not served.
    pub health: Option<Serving>,
    pub log: LogConfig,
    /// This node's name: its endpoints are local ones.
    pub node_name: String,
    /// The nftables table that this daemon owns.
    pub table: String,
    /// The pods' network; what pods send elsewhere gets the node's address.
    pub pod_cidr: Ipv4Net,
    /// Networks of the node on whose addresses node ports answer; empty: all addresses but loopback.
    pub node_port_addresses: Vec<Ipv4Net>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            kubeconfig: "/etc/keelson/net-proxy.kubeconfig".into(),
            health: None,
            log: LogConfig::default(),
            node_name: String::new(),
            table: "keelson".into(),
            pod_cidr: Ipv4Net::new_assert(std::net::Ipv4Addr::new(10, 244, 0, 0), 16),
            node_port_addresses: Vec::new(),
        }
    }
}

impl Validate for Config {
    fn validate(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.node_name.is_empty() {
            problems.push("nodeName: is needed".to_owned());
        }
        let mut letters = self.table.bytes();
        let named = letters.next().is_some_and(|b| b.is_ascii_lowercase());
        if !named || !letters.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
            problems
                .push(format!("table: {:?} is no name of lower-case letters, digits and '-'", self.table));
        }
        problems.extend(self.health.iter().flat_map(|h| h.validate("health")));
        problems
    }

    fn logging(&self) -> LogConfig {
        self.log.clone()
    }
}
