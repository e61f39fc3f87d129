//! The admission chain between decoding and storing a write, in upstream's order.
//!
//! Each plug-in is a module with `admit` (may change the object) or `validate` (may not), or both, that
//! looks at the request and returns at once when it is none of its business.

pub mod certificates;
pub mod defaults;
pub mod limit_ranger;
pub mod namespace;
pub mod node_restriction;
pub mod pod_security;
pub mod priority;
pub mod quantities;
pub mod quota;
pub mod runtime_class;
pub mod service_account;
pub mod webhook;

use std::fmt::Display;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use keelson_api_types::{Gvr, StatusError, meta};
use serde_json::Value;

use crate::authz::rbac::{Rbac, escalation};
use crate::types::{Admission, AdmissionRequest, Authorizer, Objects, Operation};

/// The cluster's admission chain.
pub struct Chain {
    objects: Arc<dyn Objects>,
    authorizer: Arc<dyn Authorizer>,
    rbac: Rbac,
    quota: quota::Quotas,
}

impl Chain {
    pub fn new(objects: Arc<dyn Objects>, authorizer: Arc<dyn Authorizer>, rbac: Rbac) -> Self {
        Self { objects, authorizer, rbac, quota: quota::Quotas::default() }
    }

    async fn run_admit(&self, r: &mut AdmissionRequest<'_>) -> Result<(), StatusError> {
        self.admit_built_in(r).await?;
        if webhook::mutate(self.objects.as_ref(), r).await? {
            // What a webhook made gets the same defaults and limits as what the user sent.
            self.admit_built_in(r).await?;
        }
        Ok(())
    }

    async fn admit_built_in(&self, r: &mut AdmissionRequest<'_>) -> Result<(), StatusError> {
        let objects = self.objects.as_ref();
        namespace::admit(objects, r).await?;
        limit_ranger::admit(objects, r)?;
        service_account::admit(objects, r).await?;
        node_restriction::check(objects, self.authorizer.as_ref(), r)?;
        defaults::taint_new_node(r);
        priority::admit(objects, r).await?;
        defaults::tolerations(r);
        defaults::storage_class(objects, r);
        defaults::protection_finalizers(r);
        runtime_class::admit(objects, r).await?;
        defaults::ingress_class(objects, r);
        Ok(())
    }

    async fn run_validate(&self, r: &mut AdmissionRequest<'_>) -> Result<(), StatusError> {
        let objects = self.objects.as_ref();
        escalation::check(&self.rbac, self.authorizer.as_ref(), r).await?;
        limit_ranger::validate(objects, r)?;
        service_account::validate(objects, r).await?;
        pod_security::validate(objects, r)?;
        priority::validate(objects, r)?;
        defaults::claim_resize(objects, r)?;
        runtime_class::validate(objects, r).await?;
        certificates::validate(self.authorizer.as_ref(), r)?;
        webhook::validate(objects, r).await?;
        self.quota.validate(objects, r).await
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
        of("name").or_else(|| of("generateName")).unwrap_or_default().to_owned()
    }

    /// 403 with upstream's form: `pods "x" is forbidden: WHY`.
    pub(crate) fn forbidden(&self, why: impl Display) -> StatusError {
        StatusError::forbidden(&self.gvr.group_resource(), &self.display_name(), why)
    }
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

/// The elements of a list; none if it is not there.
pub(crate) fn items(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

pub(crate) fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
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
