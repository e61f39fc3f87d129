//! The admission chain between decoding and storing a write: [`CHAIN`] lists it in upstream's order.
//!
//! Each plug-in is a module with `admit` (may change the object) or `validate` (may not), or both, that
//! looks at the request and returns at once when it is none of its business.

pub mod certificates;
pub mod claim_resize;
pub mod conditions;
pub mod expressions;
pub mod ingress_class;
pub mod limit_ranger;
pub mod matching;
pub mod memo;
pub mod namespace;
pub mod node_features;
pub mod node_restriction;
pub mod pod_resize;
pub mod pod_security;
pub mod policy;
pub mod priority;
pub mod quantities;
pub mod quota;
pub mod reinvocation;
pub mod runtime_class;
pub mod service_account;
pub mod storage_class;
pub mod storage_protection;
pub mod taint_nodes;
pub mod tolerations;
pub mod topology_labels;
pub mod versioned;
pub mod webhook;

use std::fmt::Display;
use std::sync::Arc;
use std::time::Instant;

use futures::FutureExt;
use futures::future::BoxFuture;
use keelson_api_types::{Gvr, StatusError, meta};
use serde_json::Value;

use crate::authz::rbac::{Rbac, escalation};
use crate::metrics::AdmissionMetrics;
use crate::types::{Admission, AdmissionRequest, Authorizer, Objects, Operation};

/// The group of webhook configurations and admission policies.
pub(crate) const GROUP: &str = "admissionregistration.k8s.io";

/// The cluster's admission chain, and what its plug-ins keep between requests.
pub struct Chain {
    objects: Arc<dyn Objects>,
    authorizer: Arc<dyn Authorizer>,
    rbac: Rbac,
    exemptions: pod_security::Exemptions,
    quota: quota::Quotas,
    webhooks: webhook::Webhooks,
    mutating_policies: policy::mutating::Policies,
    validating_policies: policy::validating::Policies,
    shows_objects: memo::Memo<bool>,
    pub(crate) metrics: AdmissionMetrics,
}

type Verdict = Result<(), StatusError>;

/// What a plug-in does in one of the two passes.
enum Step {
    None,
    Now(fn(&Chain, &mut AdmissionRequest<'_>) -> Verdict),
    Later(for<'a> fn(&'a Chain, &'a mut AdmissionRequest<'_>) -> BoxFuture<'a, Verdict>),
}

/// A row of the chain: upstream's name of the plug-in, and its part in the mutating and the validating pass.
struct Plugin(&'static str, Step, Step);

use Step::{Later, None as Not, Now};

/// What upstream turns on by default, NodeRestriction (which every cluster tool turns on), and of what
/// feature gates switch, the plug-ins whose gate is on by default.
const CHAIN: &[Plugin] = &[
    Plugin("NamespaceLifecycle", Later(|c, r| namespace::admit(c.objects(), r).boxed()), Not),
    Plugin(
        "LimitRanger",
        Now(|c, r| limit_ranger::admit(c.objects(), r)),
        Now(|c, r| limit_ranger::validate(c.objects(), r)),
    ),
    Plugin(
        "ServiceAccount",
        Later(|c, r| service_account::admit(c.objects(), r).boxed()),
        Later(|c, r| service_account::validate(c.objects(), r).boxed()),
    ),
    Plugin(
        "NodeRestriction",
        Later(|c, r| node_restriction::check(c.objects(), c.authorizer(), r).boxed()),
        Not,
    ),
    Plugin("TaintNodesByCondition", Now(|_, r| taint_nodes::admit(r)), Not),
    Plugin("PodSecurity", Not, Now(|c, r| pod_security::validate(c.objects(), &c.exemptions, r))),
    Plugin(
        "Priority",
        Later(|c, r| priority::admit(c.objects(), r).boxed()),
        Now(|c, r| priority::validate(c.objects(), r)),
    ),
    Plugin("DefaultTolerationSeconds", Now(|_, r| tolerations::admit(r)), Not),
    Plugin("DefaultStorageClass", Now(|c, r| storage_class::admit(c.objects(), r)), Not),
    Plugin("StorageObjectInUseProtection", Now(|_, r| storage_protection::admit(r)), Not),
    Plugin("PersistentVolumeClaimResize", Not, Now(|c, r| claim_resize::validate(c.objects(), r))),
    Plugin(
        "RuntimeClass",
        Later(|c, r| runtime_class::admit(c.objects(), r).boxed()),
        Later(|c, r| runtime_class::validate(c.objects(), r).boxed()),
    ),
    Plugin("CertificateApproval", Not, Later(|c, r| certificates::approval(c.authorizer(), r).boxed())),
    Plugin("CertificateSigning", Not, Later(|c, r| certificates::signing(c.authorizer(), r).boxed())),
    Plugin("CertificateSubjectRestriction", Not, Now(|_, r| certificates::subject_restriction(r))),
    Plugin("DefaultIngressClass", Now(|c, r| ingress_class::admit(c.objects(), r)), Not),
    Plugin("PodTopologyLabels", Now(|c, r| topology_labels::admit(c.objects(), r)), Not),
    Plugin("NodeDeclaredFeatureValidator", Not, Now(|c, r| node_features::validate(c.objects(), r))),
    Plugin("PodResizeValidator", Not, Now(|c, r| pod_resize::validate(c.objects(), r))),
    Plugin("MutatingAdmissionPolicy", Later(|c, r| policy::mutating::mutate(c, r).boxed()), Not),
    Plugin("MutatingAdmissionWebhook", Later(|c, r| webhook::mutate(c, r).boxed()), Not),
    Plugin("ValidatingAdmissionPolicy", Not, Later(|c, r| policy::validating::validate(c, r).boxed())),
    Plugin("ValidatingAdmissionWebhook", Not, Later(|c, r| webhook::validate(c, r).boxed())),
    Plugin("ResourceQuota", Not, Later(|c, r| c.quota.validate(c.objects(), r).boxed())),
];

impl Chain {
    pub fn new(
        objects: Arc<dyn Objects>,
        authorizer: Arc<dyn Authorizer>,
        rbac: Rbac,
        exemptions: pod_security::Exemptions,
    ) -> Self {
        Self {
            objects,
            authorizer,
            rbac,
            exemptions,
            quota: quota::Quotas::default(),
            webhooks: webhook::Webhooks::default(),
            mutating_policies: policy::mutating::Policies::default(),
            validating_policies: policy::validating::Policies::default(),
            shows_objects: memo::Memo::of(showing()),
            metrics: AdmissionMetrics::new(CHAIN.len()),
        }
    }

    pub(crate) fn objects(&self) -> &dyn Objects {
        self.objects.as_ref()
    }

    pub(crate) fn authorizer(&self) -> &dyn Authorizer {
        self.authorizer.as_ref()
    }

    async fn run_admit(&self, r: &mut AdmissionRequest<'_>) -> Verdict {
        self.round(r, true).await?;
        if !r.reinvocation.wanted {
            return Ok(());
        }
        // What a webhook or a policy made gets the same defaults and limits as what the user sent.
        r.reinvocation.again = true;
        self.round(r, true).await
    }

    async fn run_validate(&self, r: &mut AdmissionRequest<'_>) -> Verdict {
        // No plug-ins of upstream's: there the storage of roles, policies and their bindings does this.
        escalation::check(&self.rbac, self.authorizer(), r).await?;
        policy::authorize::check(self, r).await?;
        self.round(r, false).await
    }

    async fn round(&self, r: &mut AdmissionRequest<'_>, mutates: bool) -> Verdict {
        let mut since = Instant::now();
        for (index, plugin) in CHAIN.iter().enumerate() {
            let verdict = match if mutates { &plugin.1 } else { &plugin.2 } {
                Step::None => continue,
                Now(act) => act(self, r),
                Later(act) => act(self, r).await,
            };
            let now = Instant::now();
            let took = now - std::mem::replace(&mut since, now);
            self.metrics.plugin((index, plugin.0), mutates, r.op, verdict.is_err(), took);
            if let Err(refusal) = verdict {
                tracing::debug!(plugin = plugin.0, resource = %r.gvr, name = r.name, %refusal, "refused");
                return Err(refusal);
            }
        }
        Ok(())
    }
}

impl Admission for Chain {
    fn admit<'a>(&'a self, request: &'a mut AdmissionRequest<'_>) -> BoxFuture<'a, Result<(), StatusError>> {
        self.run_admit(request).boxed()
    }

    fn validate<'a>(
        &'a self,
        request: &'a mut AdmissionRequest<'_>,
    ) -> BoxFuture<'a, Result<(), StatusError>> {
        self.run_validate(request).boxed()
    }

    fn shows_objects(&self) -> bool {
        let objects = self.objects();
        let any = || showing().any(|gvr| !objects.list(&gvr, "").is_empty());
        *self.shows_objects.get(objects, any)
    }
}

impl AdmissionRequest<'_> {
    /// Whether the request is about this resource (any version) and subresource.
    pub(crate) fn is(&self, group: &str, resource: &str, subresource: &str) -> bool {
        self.gvr.resource == resource && self.gvr.group == group && self.subresource == subresource
    }

    pub(crate) fn is_create(&self, group: &str, resource: &str) -> bool {
        self.op == Operation::Create && self.is(group, resource, "")
    }

    /// The object's own name, or its prefix where the name is still to be generated.
    pub(crate) fn display_name(&self) -> String {
        if !self.name.is_empty() {
            return self.name.to_owned();
        }
        let object = self.object.as_deref();
        let of = |field| object.map(|o| meta::string(o, field)).filter(|n| !n.is_empty());
        of("name").or_else(|| of("generateName")).unwrap_or("Unknown").to_owned()
    }

    /// 403 with upstream's form: `pods "x" is forbidden: WHY`.
    pub(crate) fn forbidden(&self, why: impl Display) -> StatusError {
        StatusError::forbidden(&self.gvr.group_resource(), &self.display_name(), why)
    }
}

/// Webhooks and policies, which users make.
const CONFIGURATION: [&str; 6] = [
    "validatingwebhookconfigurations",
    "mutatingwebhookconfigurations",
    "validatingadmissionpolicies",
    "validatingadmissionpolicybindings",
    "mutatingadmissionpolicies",
    "mutatingadmissionpolicybindings",
];

/// Those that may show objects to somebody; a binding does not without its policy.
fn showing() -> impl Iterator<Item = Gvr> {
    let all = CONFIGURATION.iter().filter(|resource| !resource.ends_with("bindings"));
    all.map(|resource| Gvr::new(GROUP, "v1", *resource))
}

/// Nobody may lock the cluster out of repairing its own admission: no webhook and no policy sees these.
pub(crate) fn is_admission_configuration(r: &AdmissionRequest<'_>) -> bool {
    r.gvr.group == GROUP && CONFIGURATION.contains(&r.gvr.resource.as_str())
}

/// A resource of the core group.
pub(crate) fn core(resource: &str) -> Gvr {
    Gvr::new("", "v1", resource)
}

/// From memory, or from the store when memory does not have it (yet).
pub(crate) async fn lookup(
    objects: &dyn Objects,
    gvr: &Gvr,
    namespace: &str,
    name: &str,
) -> Result<Option<Arc<Value>>, StatusError> {
    match objects.get(gvr, namespace, name) {
        Some(found) => Ok(Some(found)),
        None => objects.get_fresh(gvr, namespace, name).await,
    }
}

/// The newest object that an annotation marks as the default.
pub(crate) fn default_class(objects: &dyn Objects, gvr: &Gvr, marks: &[&str]) -> Option<String> {
    let marked = |o: &&Arc<Value>| marks.iter().any(|m| meta::annotation(o, m) == Some("true"));
    let all = objects.list(gvr, "");
    let newest = all.iter().filter(marked).min_by(|a, b| {
        let created = |o: &Value| meta::parse_time(meta::string(o, "creationTimestamp"));
        created(b).cmp(&created(a)).then_with(|| meta::name(a).cmp(meta::name(b)))
    })?;
    Some(meta::name(newest).to_owned())
}

/// The elements of a list; none if it is not there.
pub(crate) fn items(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

pub(crate) fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    meta::at(value, pointer).and_then(Value::as_str).unwrap_or_default()
}

/// Appends to a list that may not be there yet; what is there and no list is left to validation.
pub(crate) fn push(parent: &mut Value, key: &str, item: Value) {
    let Some(map) = parent.as_object_mut() else { return };
    let list = map.entry(key).or_insert(Value::Null);
    if list.is_null() {
        *list = Value::Array(Vec::new());
    }
    if let Some(list) = list.as_array_mut() {
        list.push(item);
    }
}

pub(crate) fn has_annotation(object: &Value, key: &str) -> bool {
    meta::annotation(object, key).is_some()
}

#[cfg(test)]
pub mod testing;
#[cfg(test)]
mod tests;
