//! What the scheduler keeps of the API's objects: digested while they are decoded, the rest never stored.

use std::sync::Arc;

use keelson_client::{Meta, projection};
use keelson_sched_core::PodInfo;
use keelson_sched_core::api::{ContainerStatus, NodeSpec, NodeStatus, PodSpec};
use keelson_sched_core::pod::Identity;
use keelson_sched_core::resources::count_resize;
use serde::Deserialize;

/// A pod; its spec only in digested form.
#[derive(Debug, Clone, Deserialize)]
#[serde(from = "RawPod")]
pub struct PodView {
    pub metadata: Meta,
    pub info: Arc<PodInfo>,
    pub scheduler_name: String,
    /// It has ended and holds nothing any more.
    pub finished: bool,
    pub nominated_node: String,
}

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct RawPod {
    metadata: Meta,
    spec: PodSpec,
    status: RawStatus,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawStatus {
    phase: String,
    nominated_node_name: String,
    start_time: Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>,
    container_statuses: Vec<ContainerStatus>,
    init_container_statuses: Vec<ContainerStatus>,
    conditions: Vec<Condition>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Condition {
    r#type: String,
    reason: String,
}

impl From<RawPod> for PodView {
    fn from(mut raw: RawPod) -> Self {
        let infeasible = |c: &Condition| c.r#type == "PodResizePending" && c.reason == "Infeasible";
        let infeasible = raw.status.conditions.iter().any(infeasible);
        let mut statuses = raw.status.container_statuses;
        statuses.append(&mut raw.status.init_container_statuses);
        count_resize(&mut raw.spec, &statuses, infeasible);
        let mut meta = raw.metadata;
        let id = Identity {
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone(),
            uid: meta.uid.clone(),
        };
        // The digest owns the labels; nothing here reads annotations.
        let labels = std::mem::take(&mut meta.labels);
        meta.annotations.clear();
        let mut info = PodInfo::new(id, labels, &raw.spec);
        info.terminating = meta.deletion_timestamp.is_some();
        info.started = raw.status.start_time.map_or(i64::MAX, |t| t.0.as_second());
        Self {
            metadata: meta,
            info: Arc::new(info),
            scheduler_name: raw.spec.scheduler_name,
            finished: matches!(raw.status.phase.as_str(), "Succeeded" | "Failed"),
            nominated_node: raw.status.nominated_node_name,
        }
    }
}

projection!(PodView, "", "v1", "pods", "Pod", namespaced);

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct NodeView {
    pub metadata: Meta,
    pub spec: NodeSpec,
    pub status: NodeStatus,
}

projection!(NodeView, "", "v1", "nodes", "Node", cluster);

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct NamespaceView {
    pub metadata: Meta,
}

projection!(NamespaceView, "", "v1", "namespaces", "Namespace", cluster);

/// A disruption budget, which preemption spares where it can.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct BudgetView {
    pub metadata: Meta,
    pub spec: BudgetSpec,
    pub status: BudgetStatus,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct BudgetSpec {
    pub selector: Option<serde_json::Value>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BudgetStatus {
    pub disruptions_allowed: i64,
}

projection!(BudgetView, "policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", namespaced);

impl NodeView {
    /// Whether nothing changed that a decision depends on.
    pub fn same_for_scheduling(&self, other: &Self) -> bool {
        self.metadata.labels == other.metadata.labels
            && self.spec == other.spec
            && self.status == other.status
    }
}
