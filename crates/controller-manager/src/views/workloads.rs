//! Objects that own pods. Templates stay as they came: they are copied, compared and hashed, never read.

use keelson_api_types::LabelSelector;
use keelson_client::{Meta, Projected, projection};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::kit::Condition;

/// What replicates pods: a ReplicaSet or a ReplicationController.
pub trait Replicated: Projected + Clone {
    const COMPONENT: &'static str;
    fn spec(&self) -> &ReplicaSpec;
    fn status(&self) -> &ReplicaStatus;
    fn selector(&self) -> LabelSelector;
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct ReplicaSet {
    pub metadata: Meta,
    pub spec: ReplicaSpec,
    pub status: ReplicaStatus,
}

projection!(ReplicaSet, "apps", "v1", "replicasets", "ReplicaSet", namespaced);

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct ReplicationController {
    pub metadata: Meta,
    pub spec: ReplicaSpec,
    pub status: ReplicaStatus,
}

projection!(ReplicationController, "", "v1", "replicationcontrollers", "ReplicationController", namespaced);

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ReplicaSpec {
    pub replicas: Option<i32>,
    pub min_ready_seconds: i32,
    pub selector: Value,
    pub template: Value,
}

impl ReplicaSpec {
    pub fn replicas(&self) -> i32 {
        self.replicas.unwrap_or(1)
    }
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ReplicaStatus {
    pub replicas: i32,
    pub fully_labeled_replicas: i32,
    pub ready_replicas: i32,
    pub available_replicas: i32,
    pub observed_generation: i64,
    pub conditions: Vec<Condition>,
}

impl Replicated for ReplicaSet {
    const COMPONENT: &'static str = "replicaset-controller";

    fn spec(&self) -> &ReplicaSpec {
        &self.spec
    }

    fn status(&self) -> &ReplicaStatus {
        &self.status
    }

    fn selector(&self) -> LabelSelector {
        selector(&self.spec.selector)
    }
}

impl Replicated for ReplicationController {
    const COMPONENT: &'static str = "replication-controller";

    fn spec(&self) -> &ReplicaSpec {
        &self.spec
    }

    fn status(&self) -> &ReplicaStatus {
        &self.status
    }

    fn selector(&self) -> LabelSelector {
        let Some(labels) = self.spec.selector.as_object().filter(|l| !l.is_empty()) else {
            return LabelSelector::nothing();
        };
        LabelSelector::from_map(labels.iter().map(|(k, v)| (k.as_str(), v.as_str().unwrap_or_default())))
    }
}

/// A `LabelSelector` object. An empty or a bad one, which the API server does not let in, selects nothing.
pub fn selector(value: &Value) -> LabelSelector {
    match LabelSelector::from_object(Some(value)) {
        Ok(selector) if !selector.is_everything() => selector,
        _ => LabelSelector::nothing(),
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Deployment {
    pub metadata: Meta,
    pub spec: DeploymentSpec,
    pub status: DeploymentStatus,
}

projection!(Deployment, "apps", "v1", "deployments", "Deployment", namespaced);

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeploymentSpec {
    pub replicas: Option<i32>,
    pub selector: Value,
    pub template: Value,
    pub strategy: Strategy,
    pub min_ready_seconds: i32,
    pub revision_history_limit: Option<i32>,
    pub paused: bool,
    pub progress_deadline_seconds: Option<i32>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Strategy {
    pub r#type: String,
    pub rolling_update: RollingUpdate,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RollingUpdate {
    pub max_surge: Option<Value>,
    pub max_unavailable: Option<Value>,
    /// Of StatefulSets.
    pub partition: Option<i32>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeploymentStatus {
    pub observed_generation: i64,
    pub replicas: i32,
    pub updated_replicas: i32,
    pub ready_replicas: i32,
    pub available_replicas: i32,
    pub unavailable_replicas: i32,
    pub collision_count: Option<i32>,
    pub conditions: Vec<Condition>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct ControllerRevision {
    pub metadata: Meta,
    pub data: Value,
    pub revision: i64,
}

projection!(ControllerRevision, "apps", "v1", "controllerrevisions", "ControllerRevision", namespaced);

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct DaemonSet {
    pub metadata: Meta,
    pub spec: DaemonSetSpec,
    pub status: DaemonSetStatus,
}

projection!(DaemonSet, "apps", "v1", "daemonsets", "DaemonSet", namespaced);

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DaemonSetSpec {
    pub selector: Value,
    pub template: Value,
    pub update_strategy: Strategy,
    pub min_ready_seconds: i32,
    pub revision_history_limit: Option<i32>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DaemonSetStatus {
    pub current_number_scheduled: i32,
    pub number_misscheduled: i32,
    pub desired_number_scheduled: i32,
    pub number_ready: i32,
    pub updated_number_scheduled: i32,
    pub number_available: i32,
    pub number_unavailable: i32,
    pub observed_generation: i64,
    pub collision_count: Option<i32>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct StatefulSet {
    pub metadata: Meta,
    pub spec: StatefulSetSpec,
    pub status: StatefulSetStatus,
}

projection!(StatefulSet, "apps", "v1", "statefulsets", "StatefulSet", namespaced);

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StatefulSetSpec {
    pub replicas: Option<i32>,
    pub selector: Value,
    pub template: Value,
    pub service_name: String,
    pub volume_claim_templates: Vec<Value>,
    pub pod_management_policy: String,
    pub update_strategy: Strategy,
    pub min_ready_seconds: i32,
    pub revision_history_limit: Option<i32>,
    pub ordinals: Ordinals,
    pub persistent_volume_claim_retention_policy: RetentionPolicy,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Ordinals {
    pub start: i32,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RetentionPolicy {
    pub when_deleted: String,
    pub when_scaled: String,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StatefulSetStatus {
    pub observed_generation: i64,
    pub replicas: i32,
    pub ready_replicas: i32,
    pub current_replicas: i32,
    pub updated_replicas: i32,
    pub available_replicas: i32,
    pub current_revision: String,
    pub update_revision: String,
    pub collision_count: Option<i32>,
    pub conditions: Vec<Condition>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct DisruptionBudget {
    pub metadata: Meta,
    pub spec: DisruptionBudgetSpec,
    pub status: DisruptionBudgetStatus,
}

projection!(DisruptionBudget, "policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", namespaced);

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DisruptionBudgetSpec {
    pub min_available: Option<Value>,
    pub max_unavailable: Option<Value>,
    pub selector: Option<Value>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DisruptionBudgetStatus {
    pub observed_generation: i64,
    pub disrupted_pods: std::collections::BTreeMap<String, jiff::Timestamp>,
    pub disruptions_allowed: i32,
    pub current_healthy: i32,
    pub desired_healthy: i32,
    pub expected_pods: i32,
    pub conditions: Vec<Condition>,
}
