//! Admission of what is no write of a stored object: actions on one, reviews, connections.

use keelson_api_types::{Gvk, StatusError};
use serde_json::Value;

use crate::app::{App, Call};
use crate::registry::Resource;
use crate::types::{AdmissionRequest, Operation};

/// What a request does, and with which options (`Null` for a connection, which has none).
pub struct Action<'a> {
    pub op: Operation,
    /// The kind of the object sent.
    pub gvk: &'a Gvk,
    pub options: &'a Value,
    pub dry_run: bool,
}

/// Runs both passes over the object of a request.
pub async fn admit(
    app: &App,
    call: &mut Call,
    resource: &Resource,
    action: Action<'_>,
    object: &mut Value,
) -> Result<(), StatusError> {
    let admission = app.security()?.admission();
    let mut request = AdmissionRequest {
        op: action.op,
        user: &call.user,
        gvk: action.gvk,
        gvr: &resource.gvr,
        subresource: &call.info.subresource,
        namespace: if resource.namespaced { &call.info.namespace } else { "" },
        name: &call.info.name,
        object: Some(object),
        old: None,
        options: action.options,
        dry_run: action.dry_run,
        warnings: Vec::new(),
        annotations: Default::default(),
        reinvocation: Default::default(),
    };
    let outcome = match admission.admit(&mut request).await {
        Ok(()) => admission.validate(&mut request).await,
        refused => refused,
    };
    let mut warnings = request.warnings;
    call.warnings.append(&mut warnings);
    outcome
}
