//! Binding a pod to a node: once, and never to another.

use std::sync::Arc;

use http::StatusCode;
use keelson_api_types::meta::now_rfc3339;
use keelson_api_types::{FieldError, GroupKind, Gvk, Gvr, Status, StatusError};
use serde_json::{Value, json};

use crate::app::{App, Call};
use crate::body::Response;
use crate::meta::{self, string};
use crate::negotiate::Accepted;
use crate::options::WriteOptions;
use crate::registry::Resource;
use crate::response;
use crate::types::Operation;
use crate::verbs::admit::{Action, admit};
use crate::verbs::write::{Change, Writer};

/// Sets the node of a pod from a Binding.
pub async fn bind(
    app: &Arc<App>,
    call: &mut Call,
    asked: &Resource,
    pod: &str,
    mut binding: Value,
    options: &WriteOptions,
) -> Result<Response, StatusError> {
    let resource =
        app.registry.get(&Gvr::new("", "v1", "pods")).ok_or_else(|| StatusError::internal("no pods"))?;
    let given = meta::text(&binding, "name");
    if !given.is_empty() && given != pod {
        return Err(StatusError::bad_request("name in URL does not match name in Binding object"));
    }
    let gvk = Gvk::new("", "v1", "Binding");
    let action =
        Action { op: Operation::Create, gvk: &gvk, options: &options.object, dry_run: options.dry_run };
    admit(app, call, asked, action, &mut binding).await?;
    check(pod, &binding)?;
    let writer = Writer::new(app, &resource, &call.user, &call.info.namespace, "binding", options).admitted();
    let mut warnings = Vec::new();
    let updated = writer
        .update(pod, false, &mut warnings, |old| {
            let old = old.unwrap_or(&Value::Null);
            // The assignment belongs to no manager.
            Ok(Change { object: bound(pod, old, &binding)?, tracked: true })
        })
        .await;
    call.warnings.append(&mut warnings);
    updated?;
    let mut status = Status::success();
    status.code = 201;
    let status = serde_json::to_value(status).map_err(StatusError::internal)?;
    Ok(response::value(
        &call.headers,
        StatusCode::CREATED,
        call.accepted().unwrap_or(Accepted::JSON),
        &status,
    ))
}

fn check(pod: &str, binding: &Value) -> Result<(), StatusError> {
    let target = &binding["target"];
    let mut errors = Vec::new();
    let kind = string(target, "kind");
    if !matches!(kind, "" | "Node") {
        errors.push(FieldError::not_supported("target.kind", kind, &["Node", ""]));
    }
    if string(target, "name").is_empty() {
        errors.push(FieldError::required("target.name", ""));
    }
    if errors.is_empty() {
        return Ok(());
    }
    Err(StatusError::invalid(&GroupKind::new("", "Binding"), pod, errors))
}

fn bound(name: &str, old: &Value, binding: &Value) -> Result<Value, StatusError> {
    let conflict = |cause: String| {
        let kind = keelson_api_types::GroupResource::new("", "pods/binding");
        Err(StatusError::conflict(&kind, name, cause))
    };
    let node = string(&binding["target"], "name");
    for (field, what) in [("uid", "UID"), ("resourceVersion", "ResourceVersion")] {
        let (wanted, actual) = (meta::text(binding, field), meta::text(old, field));
        if !wanted.is_empty() && wanted != actual {
            return conflict(format!(
                "Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {actual}"
            ));
        }
    }
    if meta::is_deleting(old) {
        return conflict(format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    let assigned = old["spec"]["nodeName"].as_str().unwrap_or_default();
    if !assigned.is_empty() {
        return conflict(format!("pod {name} is already assigned to node {assigned:?}"));
    }
    if old["spec"]["schedulingGates"].as_array().is_some_and(|g| !g.is_empty()) {
        return conflict(format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    let mut pod = old.clone();
    pod["spec"]["nodeName"] = node.into();
    for part in ["annotations", "labels"] {
        let added = binding["metadata"][part].as_object().into_iter().flatten();
        for (key, value) in added {
            pod["metadata"][part][key] = value.clone();
        }
    }
    let conditions = &mut pod["status"]["conditions"];
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    if let Some(conditions) = conditions.as_array_mut() {
        set_condition(conditions, json!({"type": "PodScheduled", "status": "True"}));
    }
    Ok(pod)
}

/// Puts a condition in the place of the one of its type; the time of transition moves only with the status.
pub fn set_condition(conditions: &mut Vec<Value>, mut condition: Value) {
    let now = now_rfc3339();
    let at = conditions.iter().position(|c| c["type"] == condition["type"]);
    let since = at.filter(|at| conditions[*at]["status"] == condition["status"]);
    let since = since.map(|at| conditions[at]["lastTransitionTime"].clone()).filter(|t| !t.is_null());
    condition["lastTransitionTime"] = since.unwrap_or_else(|| now.into());
    match at {
        Some(at) => conditions[at] = condition,
        None => conditions.push(condition),
    }
}
