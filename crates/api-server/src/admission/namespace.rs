//! NamespaceLifecycle: nothing is created in a namespace that is missing or going away, and those that
//! the cluster needs are not deleted.

use std::sync::Arc;

use keelson_api_types::{Cause, Status, StatusError};
use serde_json::Value;

use super::{core, text};
use crate::types::{AdmissionRequest, Objects, Operation};

const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

pub async fn admit(objects: &dyn Objects, r: &AdmissionRequest<'_>) -> Result<(), StatusError> {
    let is_namespace = r.gvr.group.is_empty() && r.gvr.resource == "namespaces";
    if is_namespace {
        if r.op == Operation::Delete && IMMORTAL.contains(&r.name) {
            return Err(r.forbidden("this namespace may not be deleted"));
        }
        return Ok(());
    }
    let review = r.gvr.group == "authorization.k8s.io" && r.gvr.resource == "localsubjectaccessreviews";
    if r.namespace.is_empty() || matches!(r.op, Operation::Delete | Operation::Connect) || review {
        return Ok(());
    }
    let namespace = find(objects, r).await?;
    if r.op == Operation::Create && text(&namespace, "/status/phase") == "Terminating" {
        return Err(terminating(r));
    }
    Ok(())
}

/// Creates look at the store when memory says that all is well, so that none slips into a namespace
/// whose deletion was just acknowledged.
async fn find(objects: &dyn Objects, r: &AdmissionRequest<'_>) -> Result<Arc<Value>, StatusError> {
    let gvr = core("namespaces");
    if let Some(found) = objects.get(&gvr, "", r.namespace)
        && (r.op != Operation::Create || text(&found, "/status/phase") == "Terminating")
    {
        return Ok(found);
    }
    match objects.get_fresh(&gvr, "", r.namespace).await? {
        Some(found) => Ok(found),
        None => Err(StatusError::not_found(&gvr.group_resource(), r.namespace)),
    }
}

fn terminating(r: &AdmissionRequest<'_>) -> StatusError {
    let namespace = r.namespace;
    let error = r.forbidden(format!(
        "unable to create new content in namespace {namespace} because it is being terminated"
    ));
    let Status { details, code, reason, message, .. } = error.into_status();
    let mut details = details.unwrap_or_default();
    details.causes.push(Cause {
        reason: "NamespaceTerminating".into(),
        message: format!("namespace {namespace} is being terminated"),
        field: "metadata.namespace".into(),
    });
    StatusError::new(code, reason, message).with_details(details)
}
