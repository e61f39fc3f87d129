//! Nodes, namespaces, leases and what each namespace gets.

use std::collections::BTreeMap;

use jiff::Timestamp;
use keelson_api_types::GroupResource;
use keelson_client::{Meta, projection};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::kit::Condition;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Node {
    pub metadata: Meta,
    pub spec: NodeSpec,
    pub status: NodeStatus,
}

projection!(Node, "", "v1", "nodes", "Node", cluster);

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeSpec {
    #[serde(rename = "podCIDR")]
    pub pod_cidr: String,
    #[serde(rename = "podCIDRs")]
    pub pod_cidrs: Vec<String>,
    pub unschedulable: bool,
    pub taints: Vec<Taint>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Taint {
    pub key: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub value: String,
    pub effect: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_added: Option<Timestamp>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct NodeStatus {
    pub conditions: Vec<Condition>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Lease {
    pub metadata: Meta,
    pub spec: LeaseSpec,
}

projection!(Lease, "coordination.k8s.io", "v1", "leases", "Lease", namespaced);

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LeaseSpec {
    pub renew_time: Option<Timestamp>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Namespace {
    pub metadata: Meta,
    pub spec: NamespaceSpec,
    pub status: NamespaceStatus,
}

projection!(Namespace, "", "v1", "namespaces", "Namespace", cluster);

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct NamespaceSpec {
    pub finalizers: Vec<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct NamespaceStatus {
    pub phase: String,
    pub conditions: Vec<Condition>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct ServiceAccount {
    pub metadata: Meta,
}

projection!(ServiceAccount, "", "v1", "serviceaccounts", "ServiceAccount", namespaced);

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct ConfigMap {
    pub metadata: Meta,
    pub data: BTreeMap<String, String>,
}

projection!(ConfigMap, "", "v1", "configmaps", "ConfigMap", namespaced);

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct CertificateRequest {
    pub metadata: Meta,
    pub spec: CertificateRequestSpec,
    pub status: CertificateRequestStatus,
}

projection!(
    CertificateRequest,
    "certificates.k8s.io",
    "v1",
    "certificatesigningrequests",
    "CertificateSigningRequest",
    cluster
);

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CertificateRequestSpec {
    /// PEM, in base64.
    pub request: String,
    pub signer_name: String,
    pub expiration_seconds: Option<u64>,
    pub usages: Vec<String>,
    pub username: String,
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct CertificateRequestStatus {
    pub conditions: Vec<Condition>,
    pub certificate: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterRole {
    pub metadata: Meta,
    pub aggregation_rule: Option<AggregationRule>,
    pub rules: Option<Vec<Value>>,
}

projection!(ClusterRole, "rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", cluster);

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AggregationRule {
    pub cluster_role_selectors: Vec<Value>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct CustomResourceDefinition {
    pub metadata: Meta,
}

projection!(
    CustomResourceDefinition,
    "apiextensions.k8s.io",
    "v1",
    "customresourcedefinitions",
    "CustomResourceDefinition",
    cluster
);

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct StorageVersionMigration {
    pub metadata: Meta,
    pub spec: StorageVersionMigrationSpec,
    pub status: StorageVersionMigrationStatus,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct StorageVersionMigrationSpec {
    pub resource: GroupResource,
}

#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StorageVersionMigrationStatus {
    pub conditions: Vec<Condition>,
    /// Objects up to this version are written anew; empty until it is known.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource_version: String,
}

projection!(
    StorageVersionMigration,
    "storagemigration.k8s.io",
    "v1beta1",
    "storageversionmigrations",
    "StorageVersionMigration",
    cluster
);

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct PersistentVolumeClaim {
    pub metadata: Meta,
    pub spec: PersistentVolumeClaimSpec,
    pub status: PersistentVolumeClaimStatus,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PersistentVolumeClaimSpec {
    pub storage_class_name: Option<String>,
    pub volume_attributes_class_name: String,
    pub resources: super::Resources,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PersistentVolumeClaimStatus {
    pub current_volume_attributes_class_name: String,
    pub modify_volume_status: Option<ModifyVolumeStatus>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ModifyVolumeStatus {
    pub target_volume_attributes_class_name: String,
}

impl PersistentVolumeClaim {
    /// The classes that it has, asks for and is changing to.
    pub fn attribute_classes(&self) -> impl Iterator<Item = &str> {
        let target =
            self.status.modify_volume_status.as_ref().map(|m| &m.target_volume_attributes_class_name);
        [&self.spec.volume_attributes_class_name, &self.status.current_volume_attributes_class_name]
            .into_iter()
            .chain(target)
            .map(String::as_str)
            .filter(|name| !name.is_empty())
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct PersistentVolume {
    pub metadata: Meta,
    pub spec: PersistentVolumeSpec,
    pub status: PersistentVolumeStatus,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PersistentVolumeSpec {
    pub volume_attributes_class_name: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct PersistentVolumeStatus {
    pub phase: String,
}

projection!(PersistentVolume, "", "v1", "persistentvolumes", "PersistentVolume", cluster);

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct VolumeAttributesClass {
    pub metadata: Meta,
}

projection!(
    VolumeAttributesClass,
    "storage.k8s.io",
    "v1",
    "volumeattributesclasses",
    "VolumeAttributesClass",
    cluster
);

projection!(PersistentVolumeClaim, "", "v1", "persistentvolumeclaims", "PersistentVolumeClaim", namespaced);

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct ResourceQuota {
    pub metadata: Meta,
    pub spec: ResourceQuotaSpec,
    pub status: ResourceQuotaStatus,
}

projection!(ResourceQuota, "", "v1", "resourcequotas", "ResourceQuota", namespaced);

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ResourceQuotaSpec {
    pub hard: BTreeMap<String, String>,
    pub scopes: Vec<String>,
    pub scope_selector: Option<ScopeSelector>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ScopeSelector {
    pub match_expressions: Vec<ScopeRequirement>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ScopeRequirement {
    pub scope_name: String,
    pub operator: String,
    pub values: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct ResourceQuotaStatus {
    pub hard: BTreeMap<String, String>,
    pub used: BTreeMap<String, String>,
}
