//! The daemon's configuration file.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use keelson_daemon::{LogConfig, Problems, Serving, Validate};
use serde::Deserialize;

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Config {
    pub kubeconfig: PathBuf,
    /// Health and metrics; none: not served.
    pub health: Option<Serving>,
    pub log: LogConfig,
    pub leader_election: bool,
    /// Where `ca.crt` and `ca.key` are: the first is handed to every namespace, both sign certificate requests.
    pub pki_dir: PathBuf,
    /// The network of all pods.
    pub pod_cidr: String,
    /// The prefix length of a node's share of it.
    pub node_cidr_mask: u8,
    /// A node that gave no sign of life for this long is unknown.
    pub node_monitor_grace_seconds: u64,
    /// Pods that ended are deleted, the oldest first, beyond this many.
    pub terminated_pod_threshold: usize,
    /// How long the certificates live that requests are signed with, at most.
    pub certificate_days: u64,
    /// Keys of one controller that are worked on at once.
    pub workers: usize,
    pub feature_gates: FeatureGates,
}

/// What is off by default, by upstream's names.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields, default)]
pub struct FeatureGates {
    /// Stored objects are written anew where a StorageVersionMigration asks for it. The API server has to serve
    /// `storagemigration.k8s.io/v1beta1`.
    pub storage_version_migrator: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            kubeconfig: "/etc/keelson/controller-manager.kubeconfig".into(),
            health: None,
            log: LogConfig::default(),
            leader_election: true,
            pki_dir: "/etc/keelson/pki".into(),
            pod_cidr: "10.244.0.0/16".into(),
            node_cidr_mask: 24,
            node_monitor_grace_seconds: 50,
            terminated_pod_threshold: 12_500,
            certificate_days: 365,
            workers: 5,
            feature_gates: FeatureGates::default(),
        }
    }
}

impl Config {
    /// The pods' network as its address and prefix length.
    pub fn pod_network(&self) -> Result<(Ipv4Addr, u8), String> {
        let wrong = || format!("{:?} is not an IPv4 network such as 10.244.0.0/16", self.pod_cidr);
        let (address, length) = self.pod_cidr.split_once('/').ok_or_else(wrong)?;
        let address: Ipv4Addr = address.parse().map_err(|_| wrong())?;
        let length: u8 = length.parse().map_err(|_| wrong())?;
        let host_bits = 32u32.checked_sub(u32::from(length)).ok_or_else(wrong)?;
        let mask = u32::MAX.checked_shl(host_bits).unwrap_or(0);
        if u32::from(address) & !mask != 0 {
            return Err(wrong());
        }
        Ok((address, length))
    }
}

impl Validate for Config {
    fn validate(&self) -> Vec<String> {
        let mut problems = Problems::new();
        match self.pod_network() {
            Ok((_, length)) => {
                let good = (length..=30).contains(&self.node_cidr_mask);
                let what = format!("must be from {length}, the length of podCidr, to 30");
                problems.check(good, "nodeCidrMask", what);
            }
            Err(problem) => {
                problems.check(false, "podCidr", problem);
            }
        }
        problems
            .check(self.node_monitor_grace_seconds > 0, "nodeMonitorGraceSeconds", "must be greater than 0")
            .check(self.certificate_days > 0, "certificateDays", "must be greater than 0")
            .check(self.workers > 0, "workers", "must be greater than 0")
            .extend(self.health.iter().flat_map(|h| h.validate("health")));
        problems.into_vec()
    }

    fn logging(&self) -> LogConfig {
        self.log.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_valid() {
        assert_eq!(Config::default().validate(), Vec::<String>::new());
    }

    #[test]
    fn bad_networks_are_named() {
        for bad in ["10.244.1.0/16", "10.244.0.0", "x/8", "10.0.0.0/33"] {
            let config = Config { pod_cidr: bad.into(), ..Config::default() };
            let problems = config.validate();
            assert!(problems.len() == 1 && problems[0].starts_with("podCidr: "), "{bad}: {problems:?}");
        }
    }
}
