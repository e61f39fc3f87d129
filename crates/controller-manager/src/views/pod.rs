//! Pods, as far as controllers look at them.

use jiff::Timestamp;
use keelson_client::{Meta, projection};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

use crate::kit::Condition;
use crate::kit::conditions;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Pod {
    pub metadata: Meta,
    pub spec: PodSpec,
    pub status: PodStatus,
}

projection!(Pod, "", "v1", "pods", "Pod", namespaced);

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpec {
    pub node_name: String,
    pub hostname: String,
    pub subdomain: String,
    pub host_network: bool,
    pub priority_class_name: String,
    pub active_deadline_seconds: Option<i64>,
    pub containers: Vec<Container>,
    pub init_containers: Vec<Container>,
    pub overhead: BTreeMap<String, String>,
    pub tolerations: Vec<Toleration>,
    pub volumes: Vec<Volume>,
    pub topology_spread_constraints: Vec<serde::de::IgnoredAny>,
    pub affinity: Option<Value>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Container {
    pub name: String,
    pub ports: Vec<ContainerPort>,
    pub resources: Resources,
    pub restart_policy: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Resources {
    pub requests: BTreeMap<String, String>,
    pub limits: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerPort {
    pub name: String,
    pub container_port: i32,
    pub protocol: String,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Toleration {
    pub key: String,
    pub operator: String,
    pub value: String,
    pub effect: String,
    pub toleration_seconds: Option<i64>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Volume {
    pub name: String,
    pub persistent_volume_claim: Option<ClaimSource>,
    pub ephemeral: Option<serde::de::IgnoredAny>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClaimSource {
    pub claim_name: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatus {
    pub phase: String,
    pub reason: String,
    #[serde(rename = "podIP")]
    pub pod_ip: String,
    #[serde(rename = "podIPs")]
    pub pod_ips: Vec<PodIp>,
    pub conditions: Vec<Condition>,
    pub container_statuses: Vec<ContainerStatus>,
    pub init_container_statuses: Vec<ContainerStatus>,
    pub start_time: Option<Timestamp>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct PodIp {
    pub ip: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerStatus {
    pub name: String,
    pub restart_count: i32,
    pub state: ContainerState,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct ContainerState {
    pub terminated: Option<Terminated>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Terminated {
    pub exit_code: i32,
    pub finished_at: Option<Timestamp>,
}

impl Pod {
    pub fn namespace(&self) -> &str {
        self.metadata.namespace.as_deref().unwrap_or_default()
    }

    /// It ended, in one way or the other.
    pub fn is_finished(&self) -> bool {
        matches!(self.status.phase.as_str(), "Succeeded" | "Failed")
    }

    /// Neither ended nor being deleted.
    pub fn is_active(&self) -> bool {
        !self.is_finished() && !self.metadata.is_deleting()
    }

    pub fn is_ready(&self) -> bool {
        conditions::is_true(&self.status.conditions, "Ready")
    }

    /// Since when it is ready; `None` when it is not.
    pub fn ready_since(&self) -> Option<Timestamp> {
        let ready = conditions::find(&self.status.conditions, "Ready").filter(|c| c.is_true())?;
        Some(ready.last_transition_time.unwrap_or(Timestamp::UNIX_EPOCH))
    }

    /// Ready for long enough.
    pub fn is_available(&self, min_ready_seconds: i32, now: Timestamp) -> bool {
        self.ready_since().is_some_and(|since| {
            min_ready_seconds == 0 || since.as_second() + i64::from(min_ready_seconds) <= now.as_second()
        })
    }

    /// Seconds until it is available, if it only has to stay ready for that.
    pub fn available_in(&self, min_ready_seconds: i32, now: Timestamp) -> Option<i64> {
        let left = self.ready_since()?.as_second() + i64::from(min_ready_seconds) - now.as_second();
        (left > 0).then_some(left)
    }

    pub fn restarts(&self) -> i32 {
        let all = self.status.container_statuses.iter().chain(&self.status.init_container_statuses);
        all.map(|c| c.restart_count).max().unwrap_or(0)
    }

    pub fn created(&self) -> Timestamp {
        self.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |t| t.0)
    }

    /// Names of the claims that its volumes use.
    pub fn claims(&self) -> impl Iterator<Item = String> {
        self.spec.volumes.iter().filter_map(|v| match (&v.persistent_volume_claim, &v.ephemeral) {
            (Some(source), _) => Some(source.claim_name.clone()),
            (None, Some(_)) => Some(format!("{}-{}", self.metadata.name, v.name)),
            (None, None) => None,
        })
    }
}

impl Toleration {
    /// Whether it covers a taint (API reference, `Toleration`).
    pub fn tolerates(&self, taint: &super::Taint) -> bool {
        (self.effect.is_empty() || self.effect == taint.effect)
            && (self.key.is_empty() || self.key == taint.key)
            && match self.operator.as_str() {
                "Exists" => true,
                "Lt" | "Gt" => {
                    let number = |text: &str| text.parse::<i64>().ok();
                    match (number(&taint.value), number(&self.value)) {
                        (Some(theirs), Some(ours)) if self.operator == "Lt" => theirs < ours,
                        (Some(theirs), Some(ours)) => theirs > ours,
                        _ => false,
                    }
                }
                _ => self.value == taint.value,
            }
    }
}
