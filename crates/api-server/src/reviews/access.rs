//! Questions to the authorizer: may somebody (or the caller) do this, and what may the caller do.

use keelson_api_types::{FieldError, GroupKind, GroupResource, StatusError, meta};
use serde_json::{Value, json};

use super::selector::{self, Selector};
use crate::token::request::string_list;
use crate::types::{Attributes, Authorizer, Decision, ReviewRequest, UserInfo, Verdict};

const GROUP: &str = "authorization.k8s.io";

/// Answers one of the four reviews of authorization.
pub async fn review(authorizer: &dyn Authorizer, request: ReviewRequest<'_>) -> Result<Value, StatusError> {
    match request.gvr.resource.as_str() {
        "subjectaccessreviews" => subject(authorizer, request).await,
        "localsubjectaccessreviews" => local(authorizer, request).await,
        "selfsubjectaccessreviews" => own(authorizer, request).await,
        "selfsubjectrulesreviews" => rules(authorizer, request),
        resource => Err(StatusError::method_not_supported(&GroupResource::new(GROUP, resource), "create")),
    }
}

async fn subject(authorizer: &dyn Authorizer, request: ReviewRequest<'_>) -> Result<Value, StatusError> {
    let spec = &request.object["spec"];
    let mut errors = check_subject(spec);
    errors.extend(check_metadata(&request.object, false));
    refuse("SubjectAccessReview", errors)?;
    let user = user_of(spec);
    Ok(answer(authorizer, &user, request.object).await)
}

async fn local(authorizer: &dyn Authorizer, request: ReviewRequest<'_>) -> Result<Value, StatusError> {
    let spec = &request.object["spec"];
    let mut errors = check_subject(spec);
    errors.extend(check_metadata(&request.object, true));
    let asked = spec.pointer("/resourceAttributes/namespace").and_then(Value::as_str);
    if spec["resourceAttributes"].is_object() && asked != Some(request.namespace) {
        let detail = "must match metadata.namespace";
        let value = asked.unwrap_or_default();
        errors.push(FieldError::invalid("spec.resourceAttributes.namespace", value, detail));
    }
    if spec["nonResourceAttributes"].is_object() {
        let detail = "disallowed on this kind of request";
        errors.push(FieldError::invalid(
            "spec.nonResourceAttributes",
            spec["nonResourceAttributes"].clone(),
            detail,
        ));
    }
    let in_metadata = meta::namespace(&request.object);
    if !in_metadata.is_empty() && in_metadata != request.namespace {
        return Err(StatusError::bad_request(format!(
            "the namespace of the provided object does not match the namespace sent on the request: {in_metadata}"
        )));
    }
    refuse("LocalSubjectAccessReview", errors)?;
    let user = user_of(spec);
    Ok(answer(authorizer, &user, request.object).await)
}

async fn own(authorizer: &dyn Authorizer, request: ReviewRequest<'_>) -> Result<Value, StatusError> {
    let mut errors = check_attributes(&request.object["spec"]);
    errors.extend(check_metadata(&request.object, false));
    refuse("SelfSubjectAccessReview", errors)?;
    Ok(answer(authorizer, request.user, request.object).await)
}

fn rules(authorizer: &dyn Authorizer, request: ReviewRequest<'_>) -> Result<Value, StatusError> {
    let mut object = request.object;
    let namespace = object["spec"]["namespace"].as_str().unwrap_or_default().to_owned();
    if namespace.is_empty() {
        return Err(StatusError::bad_request("no namespace on request"));
    }
    object["status"] = authorizer.rules_for(request.user, &namespace);
    object["spec"] = json!({});
    Ok(object)
}

fn refuse(kind: &str, errors: Vec<FieldError>) -> Result<(), StatusError> {
    if errors.is_empty() {
        return Ok(());
    }
    Err(StatusError::invalid(&GroupKind::new(GROUP, kind), "", errors))
}

/// Nobody may name a review: it is answered and forgotten.
fn check_metadata(object: &Value, namespaced: bool) -> Option<FieldError> {
    let mut metadata = object["metadata"].as_object().cloned().unwrap_or_default();
    metadata.remove("managedFields");
    if namespaced {
        metadata.remove("namespace");
    }
    metadata
        .retain(|_, value| !(value.is_null() || *value == "" || *value == json!({}) || *value == json!([])));
    let detail = if namespaced { "must be empty except for namespace" } else { "must be empty" };
    (!metadata.is_empty()).then(|| FieldError::invalid("metadata", Value::Object(metadata), detail))
}

fn check_attributes(spec: &Value) -> Vec<FieldError> {
    let (resource, path) =
        (spec["resourceAttributes"].is_object(), spec["nonResourceAttributes"].is_object());
    let mut errors = match (resource, path) {
        (true, true) => vec![FieldError::invalid(
            "spec.nonResourceAttributes",
            spec["nonResourceAttributes"].clone(),
            "cannot be specified in combination with resourceAttributes",
        )],
        (false, false) => vec![FieldError::invalid(
            "spec.resourceAttributes",
            Value::Null,
            "exactly one of nonResourceAttributes or resourceAttributes must be specified",
        )],
        _ => Vec::new(),
    };
    for (field, labels) in [("fieldSelector", false), ("labelSelector", true)] {
        let path = format!("spec.resourceAttributes.{field}");
        errors.extend(selector::check(&spec["resourceAttributes"][field], &path, labels));
    }
    errors
}

fn check_subject(spec: &Value) -> Vec<FieldError> {
    let mut errors = check_attributes(spec);
    let user = spec["user"].as_str().unwrap_or_default();
    if user.is_empty() && string_list(&spec["groups"]).is_empty() {
        errors.push(FieldError::invalid(
            "spec.user",
            user,
            "at least one of user or group must be specified",
        ));
    }
    errors
}

fn user_of(spec: &Value) -> UserInfo {
    let text = |key: &str| spec[key].as_str().unwrap_or_default().to_owned();
    let extra = spec["extra"].as_object().into_iter().flatten();
    UserInfo {
        name: text("user"),
        uid: text("uid"),
        groups: string_list(&spec["groups"]),
        extra: extra.map(|(k, v)| (k.to_ascii_lowercase(), string_list(v))).collect(),
    }
}

async fn answer(authorizer: &dyn Authorizer, user: &UserInfo, mut object: Value) -> Value {
    let verdict = decide(authorizer, user, &object["spec"]).await;
    let mut status = json!({"allowed": verdict.is_allowed()});
    if matches!(verdict.decision, Decision::Deny(_)) {
        status["denied"] = true.into();
    }
    for (key, text) in [("reason", verdict.reason()), ("evaluationError", &verdict.error)] {
        if !text.is_empty() {
            status[key] = text.into();
        }
    }
    object["status"] = status;
    object
}

async fn decide(authorizer: &dyn Authorizer, user: &UserInfo, spec: &Value) -> Verdict {
    let resource = &spec["resourceAttributes"];
    let is_resource = resource.is_object();
    let asked = if is_resource { resource } else { &spec["nonResourceAttributes"] };
    let get = |key: &str| asked[key].as_str().unwrap_or_default();
    let fields = Selector::of(&resource["fieldSelector"], false);
    let labels = Selector::of(&resource["labelSelector"], true);
    let question = Attributes {
        user,
        verb: get("verb"),
        group: get("group"),
        version: if is_resource && get("version").is_empty() { "*" } else { get("version") },
        resource: get("resource"),
        subresource: get("subresource"),
        namespace: get("namespace"),
        name: get("name"),
        path: get("path"),
        is_resource,
        field_selector: fields.text.as_deref(),
        label_selector: labels.text.as_deref(),
    };
    let mut verdict = authorizer.decide(&question).await;
    let failed = Some(verdict.error).filter(|e| !e.is_empty());
    let complaints = [failed, fields.complaint("fieldSelector"), labels.complaint("labelSelector")];
    verdict.error = complaints.into_iter().flatten().collect::<Vec<_>>().join("; ");
    verdict
}
