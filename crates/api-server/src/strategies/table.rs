//! The built-in kinds, a row each: a strategy, and what sets the kind apart without needing code.
//!
//! The flags are those of upstream's strategies and storages (`pkg/registry/<group>/<resource>`).

use keelson_api_types::names;

use super::admissionregistration::{Policy, PolicyBinding, Webhooks};
use super::core::{config, endpoints, event, namespace, node, quota};
use super::storage::{claim, classes, volume};
use super::{
    Plain, Strategy, apiextensions, apiregistration, apps, autoscaling, batch, certificates, flowcontrol,
    networking, pod, policy, rbac, resource, service, storagemigration,
};

/// Why a name (or, with `true`, the base of a generated one) is not acceptable.
pub type NameRule = fn(&str, bool) -> Vec<String>;
/// Paths of field names.
pub type FieldPaths = &'static [&'static [&'static str]];

const STATUS: FieldPaths = &[&["status"]];
const SPEC: FieldPaths = &[&["spec"]];
const SPEC_AND_METADATA: FieldPaths = &[&["spec"], &["metadata"]];

/// What a kind is, as data.
#[derive(Debug, Clone, Copy)]
pub struct Traits {
    /// Has a `status` that plain updates leave alone.
    pub status: bool,
    /// `metadata.generation` counts changes of everything but metadata and status.
    pub generation: bool,
    /// A PUT on a name that does not exist creates it.
    pub creates_on_update: bool,
    /// A PUT without `resourceVersion` is accepted.
    pub unconditional_update: bool,
    /// Dependents are orphaned unless the options of a delete say otherwise, for compatibility.
    pub orphans: bool,
    /// A delete answers with the object instead of a `Status`.
    pub returns_deleted: bool,
    pub names: NameRule,
    /// Since when, and what to use instead: every request on the kind is warned of it.
    pub deprecated: &'static str,
    /// What a write of the object itself does not change, and so cannot own.
    resets: FieldPaths,
    /// The same for a write of `status`.
    status_resets: FieldPaths,
}

impl Traits {
    const PLAIN: Self = Self {
        status: false,
        generation: false,
        creates_on_update: false,
        unconditional_update: true,
        orphans: false,
        returns_deleted: false,
        names: subdomain,
        deprecated: "",
        resets: &[],
        status_resets: SPEC,
    };

    /// Of a custom resource, whose stored version may have the `status` subresource.
    pub const fn custom(status: bool) -> Self {
        let resets = if status { STATUS } else { &[] };
        let (generation, unconditional_update, status_resets) = (true, false, SPEC_AND_METADATA);
        Self { status, generation, unconditional_update, resets, status_resets, ..Self::PLAIN }
    }

    /// The fields that a write through this subresource (empty for the object itself) cannot own.
    pub fn resets(&self, subresource: &str) -> FieldPaths {
        match subresource {
            "" => self.resets,
            "status" => self.status_resets,
            "approval" => &[&["spec"], &["status", "certificate"]],
            "finalize" => STATUS,
            _ => &[],
        }
    }
}

/// A built-in kind.
pub struct Row {
    group: &'static str,
    resource: &'static str,
    pub strategy: &'static dyn Strategy,
    pub traits: Traits,
}

const fn row(group: &'static str, resource: &'static str, strategy: &'static dyn Strategy) -> Row {
    Row { group, resource, strategy, traits: Traits::PLAIN }
}

impl Row {
    const fn status(mut self) -> Self {
        self.traits.status = true;
        self.traits.resets = STATUS;
        self
    }

    const fn status_resets(mut self, fields: FieldPaths) -> Self {
        self.traits.status_resets = fields;
        self
    }

    const fn resets(mut self, fields: FieldPaths) -> Self {
        self.traits.resets = fields;
        self
    }

    const fn generation(mut self) -> Self {
        self.traits.generation = true;
        self
    }

    const fn creates_on_update(mut self) -> Self {
        self.traits.creates_on_update = true;
        self
    }

    const fn conditional_update(mut self) -> Self {
        self.traits.unconditional_update = false;
        self
    }

    const fn orphans(mut self) -> Self {
        self.traits.orphans = true;
        self
    }

    const fn returns_deleted(mut self) -> Self {
        self.traits.returns_deleted = true;
        self
    }

    const fn deprecated(mut self, since: &'static str) -> Self {
        self.traits.deprecated = since;
        self
    }

    const fn names(mut self, rule: NameRule) -> Self {
        self.traits.names = rule;
        self
    }
}

const ADMISSION: &str = "admissionregistration.k8s.io";
const CERTIFICATES: &str = "certificates.k8s.io";
const FLOW_CONTROL: &str = "flowcontrol.apiserver.k8s.io";
const NETWORKING: &str = "networking.k8s.io";
const RBAC: &str = "rbac.authorization.k8s.io";
const RESOURCE: &str = "resource.k8s.io";
const STORAGE: &str = "storage.k8s.io";

static ROWS: &[Row] = &[
    row("", "configmaps", &config::ConfigMap),
    row("", "componentstatuses", &Plain).deprecated("v1.19+"),
    row("", "endpoints", &endpoints::Endpoints)
        .creates_on_update()
        .deprecated("v1.33+; use discovery.k8s.io/v1 EndpointSlice"),
    row("", "events", &event::Event { modern: false }).creates_on_update().names(path_segment),
    row("", "limitranges", &quota::LimitRange).creates_on_update(),
    row("", "namespaces", &namespace::Namespace).status().names(label).returns_deleted(),
    row("", "nodes", &node::Node).status(),
    row("", "persistentvolumeclaims", &claim::PersistentVolumeClaim).status().returns_deleted(),
    row("", "persistentvolumes", &volume::PersistentVolume).status().returns_deleted(),
    row("", "pods", &pod::Pod).status().generation().returns_deleted().status_resets(&[
        &["spec"],
        &["metadata", "deletionTimestamp"],
        &["metadata", "ownerReferences"],
    ]),
    row("", "podtemplates", &pod::PodTemplate).generation().returns_deleted(),
    row("", "replicationcontrollers", &apps::ReplicationController).status().generation().orphans(),
    row("", "resourcequotas", &quota::ResourceQuota).status().returns_deleted(),
    row("", "secrets", &config::Secret),
    row("", "serviceaccounts", &config::ServiceAccount).returns_deleted(),
    row("", "services", &service::Service).status().creates_on_update().names(label).returns_deleted(),
    row(ADMISSION, "mutatingadmissionpolicies", &Policy { mutating: true }).generation().conditional_update(),
    row(ADMISSION, "mutatingadmissionpolicybindings", &PolicyBinding { mutating: true })
        .generation()
        .conditional_update(),
    row(ADMISSION, "mutatingwebhookconfigurations", &Webhooks { mutating: true })
        .generation()
        .conditional_update(),
    row(ADMISSION, "validatingadmissionpolicies", &Policy { mutating: false })
        .status()
        .generation()
        .conditional_update()
        .status_resets(SPEC_AND_METADATA),
    row(ADMISSION, "validatingadmissionpolicybindings", &PolicyBinding { mutating: false })
        .generation()
        .conditional_update(),
    row(ADMISSION, "validatingwebhookconfigurations", &Webhooks { mutating: false })
        .generation()
        .conditional_update(),
    row("apiextensions.k8s.io", "customresourcedefinitions", &apiextensions::CustomResourceDefinition)
        .status()
        .generation()
        .conditional_update()
        .status_resets(SPEC_AND_METADATA),
    row("apiregistration.k8s.io", "apiservices", &apiregistration::ApiService)
        .status()
        .conditional_update()
        .names(path_segment)
        .status_resets(SPEC_AND_METADATA),
    row("apps", "controllerrevisions", &apps::ControllerRevision),
    row("apps", "daemonsets", &apps::DaemonSet).status().generation(),
    row("apps", "deployments", &apps::Deployment)
        .status()
        .generation()
        .status_resets(&[&["spec"], &["metadata", "labels"]]),
    row("apps", "replicasets", &apps::ReplicaSet).status().generation(),
    row("apps", "statefulsets", &apps::StatefulSet).status().generation().names(label),
    row("autoscaling", "horizontalpodautoscalers", &autoscaling::HorizontalPodAutoscaler).status(),
    row("batch", "cronjobs", &batch::CronJob).status().generation(),
    row("batch", "jobs", &batch::Job).status().generation().orphans(),
    row(CERTIFICATES, "certificatesigningrequests", &certificates::CertificateSigningRequest)
        .status()
        .names(path_segment)
        .resets(&[&["spec"], &["status"]])
        .status_resets(&[&["spec"], &["status", "conditions"]]),
    row("coordination.k8s.io", "leases", &policy::Lease).creates_on_update().conditional_update(),
    row("discovery.k8s.io", "endpointslices", &endpoints::EndpointSlice).generation(),
    row("events.k8s.io", "events", &event::Event { modern: true }).creates_on_update(),
    row(FLOW_CONTROL, "flowschemas", &flowcontrol::FlowSchema)
        .status()
        .generation()
        .status_resets(SPEC_AND_METADATA),
    row(FLOW_CONTROL, "prioritylevelconfigurations", &flowcontrol::PriorityLevelConfiguration)
        .status()
        .generation()
        .status_resets(SPEC_AND_METADATA),
    row(NETWORKING, "ingressclasses", &networking::IngressClass).generation(),
    row(NETWORKING, "ingresses", &networking::Ingress).status().generation(),
    row(NETWORKING, "ipaddresses", &networking::IpAddress).names(networking::ip_address_name),
    row(NETWORKING, "networkpolicies", &networking::NetworkPolicy).generation(),
    row(NETWORKING, "servicecidrs", &networking::ServiceCidr).status().status_resets(SPEC_AND_METADATA),
    row("node.k8s.io", "runtimeclasses", &policy::RuntimeClass).creates_on_update().conditional_update(),
    row("policy", "poddisruptionbudgets", &policy::PodDisruptionBudget)
        .status()
        .generation()
        .conditional_update()
        .names(path_segment),
    row(RBAC, "clusterrolebindings", &rbac::Binding { namespaced: false })
        .creates_on_update()
        .names(path_segment),
    row(RBAC, "clusterroles", &rbac::Role { namespaced: false }).creates_on_update().names(path_segment),
    row(RBAC, "rolebindings", &rbac::Binding { namespaced: true }).creates_on_update().names(path_segment),
    row(RBAC, "roles", &rbac::Role { namespaced: true }).creates_on_update().names(path_segment),
    row(RESOURCE, "deviceclasses", &resource::DeviceClass).generation().returns_deleted(),
    row(RESOURCE, "resourceclaims", &resource::ResourceClaim)
        .status()
        .returns_deleted()
        .status_resets(SPEC_AND_METADATA),
    row(RESOURCE, "resourceclaimtemplates", &resource::ResourceClaimTemplate).returns_deleted(),
    row(RESOURCE, "resourceslices", &resource::ResourceSlice).generation().returns_deleted(),
    row("scheduling.k8s.io", "priorityclasses", &policy::PriorityClass).generation(),
    row(STORAGE, "csidrivers", &classes::CsiDriver).generation().conditional_update().returns_deleted(),
    row(STORAGE, "csinodes", &classes::CsiNode).conditional_update().returns_deleted(),
    row(STORAGE, "csistoragecapacities", &classes::CsiStorageCapacity).conditional_update(),
    row(STORAGE, "storageclasses", &classes::StorageClass).returns_deleted(),
    row(STORAGE, "volumeattachments", &classes::VolumeAttachment)
        .status()
        .conditional_update()
        .returns_deleted()
        .status_resets(SPEC_AND_METADATA),
    row(STORAGE, "volumeattributesclasses", &classes::VolumeAttributesClass).returns_deleted(),
    row("storagemigration.k8s.io", "storageversionmigrations", &storagemigration::StorageVersionMigration)
        .status()
        .conditional_update()
        .status_resets(SPEC_AND_METADATA),
];

/// What is computed and never stored: bindings, reviews, component statuses.
static COMPUTED: Row = row("", "", &Plain);

/// The row of a built-in resource.
pub fn for_resource(group: &str, resource: &str) -> &'static Row {
    ROWS.iter().find(|row| row.resource == resource && row.group == group).unwrap_or(&COMPUTED)
}

fn subdomain(name: &str, base: bool) -> Vec<String> {
    if base {
        names::dns1123_subdomain(&names::mask_trailing_dash(name))
    } else {
        names::dns1123_subdomain(name)
    }
}

fn label(name: &str, base: bool) -> Vec<String> {
    if base { names::dns1123_label(&names::mask_trailing_dash(name)) } else { names::dns1123_label(name) }
}

pub(super) fn path_segment(name: &str, base: bool) -> Vec<String> {
    if base { names::path_segment_prefix(name) } else { names::path_segment_name(name) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stored_kind_has_a_row() {
        let stored = keelson_api_types::resources::ALL
            .iter()
            .filter(|info| info.verbs.contains(&"get") && info.verbs.contains(&"create"));
        let without: Vec<_> = stored
            .filter(|info| std::ptr::eq(for_resource(info.group, info.resource), &COMPUTED))
            .map(|info| format!("{}/{}", info.group, info.resource))
            .collect();
        assert_eq!(without, [""; 0]);
    }
}
