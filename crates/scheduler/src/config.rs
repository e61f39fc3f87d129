//! The scheduler's configuration file.

use std::path::PathBuf;

use keelson_daemon::{LogConfig, Serving, Validate};
use keelson_sched_core::Profile;
use serde::Deserialize;

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Config {
    pub kubeconfig: PathBuf,
    /// Health and metrics; none: not served.
    pub health: Option<Serving>,
    pub log: LogConfig,
    pub leader_election: bool,
    /// Bindings under way at once.
    pub bind_workers: usize,
    /// Seconds that a pod waits after its first failed attempt; it doubles up to the maximum.
    pub backoff_initial_seconds: u64,
    pub backoff_max_seconds: u64,
    pub profiles: Vec<ProfileConfig>,
}

/// One `spec.schedulerName` that this daemon answers to.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProfileConfig {
    pub scheduler_name: String,
    /// Plugins to leave out.
    #[serde(default)]
    pub disabled_plugins: Vec<String>,
    /// Score weights other than the default ones.
    #[serde(default)]
    pub weights: std::collections::BTreeMap<String, i64>,
}

pub const DEFAULT_SCHEDULER: &str = "default-scheduler";

impl Default for Config {
    fn default() -> Self {
        Self {
            kubeconfig: "/etc/keelson/scheduler.kubeconfig".into(),
            health: None,
            log: LogConfig::default(),
            leader_election: true,
            bind_workers: 64,
            backoff_initial_seconds: 1,
            backoff_max_seconds: 10,
            profiles: vec![ProfileConfig {
                scheduler_name: DEFAULT_SCHEDULER.into(),
                disabled_plugins: Vec::new(),
                weights: Default::default(),
            }],
        }
    }
}

impl Config {
    /// The profiles, or what is wrong with them.
    pub fn profiles(&self) -> Result<Vec<Profile>, Vec<String>> {
        let mut problems = Vec::new();
        let mut profiles: Vec<Profile> = Vec::new();
        for (i, config) in self.profiles.iter().enumerate() {
            if profiles.iter().any(|p| p.scheduler_name == config.scheduler_name) {
                problems
                    .push(format!("profiles[{i}].schedulerName: {:?} is there twice", config.scheduler_name));
            }
            let weights: Vec<_> =
                config.weights.iter().map(|(name, weight)| (name.clone(), *weight)).collect();
            match Profile::standard(&config.scheduler_name).adjusted(&config.disabled_plugins, &weights) {
                Ok(profile) => profiles.push(profile),
                Err(name) => problems.push(format!("profiles[{i}]: no plugin {name:?}")),
            }
        }
        if problems.is_empty() { Ok(profiles) } else { Err(problems) }
    }
}

impl Validate for Config {
    fn validate(&self) -> Vec<String> {
        let mut problems = self.profiles().err().unwrap_or_default();
        let mut check = |good: bool, what: &str| {
            if !good {
                problems.push(what.to_owned());
            }
        };
        check(!self.profiles.is_empty(), "profiles: at least one is needed");
        check(self.bind_workers > 0, "bindWorkers: must be greater than 0");
        check(self.backoff_initial_seconds > 0, "backoffInitialSeconds: must be greater than 0");
        check(
            self.backoff_max_seconds >= self.backoff_initial_seconds,
            "backoffMaxSeconds: must not be less than backoffInitialSeconds",
        );
        problems.extend(self.health.iter().flat_map(|h| h.validate("health")));
        problems
    }

    fn logging(&self) -> LogConfig {
        self.log.clone()
    }
}
