//! Questions to the authorizer: may somebody (or the caller) do this, and what may the caller do.

use keelson_api_types::{FieldError, GroupKind, StatusError, meta};
use serde_json::{Value, json};

use crate::token::request::string_list;
use crate::types::{Attributes, Authorizer, Decision, ReviewRequest, UserInfo};

const GROUP: &str = "authorization.k8s.io";

pub fn subject(authorizer: &dyn Authorizer, request: ReviewRequest<'_>) -> Result<Value, StatusError> {
    let spec = &request.object["spec"];
    refuse("SubjectAccessReview", check_subject(spec))?;
    let user = user_of(spec);
    Ok(answer(authorizer, &user, request.object))
}

pub fn local(authorizer: &dyn Authorizer, request: ReviewRequest<'_>) -> Result<Value, StatusError> {
    let spec = &request.object["spec"];
    let mut errors = check_subject(spec);
    let asked = spec.pointer("/resourceAttributes/namespace").and_then(Value::as_str);
    if asked != Some(request.namespace) {
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
    Ok(answer(authorizer, &user, request.object))
}

pub fn own(authorizer: &dyn Authorizer, request: ReviewRequest<'_>) -> Result<Value, StatusError> {
    refuse("SelfSubjectAccessReview", check_attributes(&request.object["spec"]))?;
    Ok(answer(authorizer, request.user, request.object))
}

pub fn rules(authorizer: &dyn Authorizer, request: ReviewRequest<'_>) -> Result<Value, StatusError> {
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

fn check_attributes(spec: &Value) -> Vec<FieldError> {
    let (resource, path) =
        (spec["resourceAttributes"].is_object(), spec["nonResourceAttributes"].is_object());
    let error = match (resource, path) {
        (true, true) => FieldError::invalid(
            "spec.nonResourceAttributes",
            spec["nonResourceAttributes"].clone(),
            "cannot be specified in combination with resourceAttributes",
        ),
        (false, false) => FieldError::invalid(
            "spec.resourceAttributes",
            Value::Null,
            "exactly one of nonResourceAttributes or resourceAttributes must be specified",
        ),
        _ => return Vec::new(),
    };
    vec![error]
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

fn answer(authorizer: &dyn Authorizer, user: &UserInfo, mut object: Value) -> Value {
    let decision = decide(authorizer, user, &object["spec"]);
    let (allowed, denied, reason) = match decision {
        Decision::Allow(reason) => (true, false, reason),
        Decision::Deny(reason) => (false, true, reason),
        Decision::NoOpinion(reason) => (false, false, reason),
    };
    let mut status = json!({"allowed": allowed});
    if denied {
        status["denied"] = true.into();
    }
    if !reason.is_empty() {
        status["reason"] = reason.into();
    }
    object["status"] = status;
    object
}

fn decide(authorizer: &dyn Authorizer, user: &UserInfo, spec: &Value) -> Decision {
    let resource = &spec["resourceAttributes"];
    let path = &spec["nonResourceAttributes"];
    let is_resource = resource.is_object();
    let of = |attributes: &Value, key: &str| attributes[key].as_str().unwrap_or_default().to_owned();
    let get = |key: &str| of(resource, key);
    let verb = if is_resource { get("verb") } else { of(path, "verb") };
    let (group, version, name) = (get("group"), get("version"), get("name"));
    let (res, sub, namespace) = (get("resource"), get("subresource"), get("namespace"));
    let url = of(path, "path");
    let (fields, labels) = (selector(&resource["fieldSelector"]), selector(&resource["labelSelector"]));
    authorizer.authorize(&Attributes {
        user,
        verb: &verb,
        group: &group,
        version: if version.is_empty() { "*" } else { &version },
        resource: &res,
        subresource: &sub,
        namespace: &namespace,
        name: &name,
        path: &url,
        is_resource,
        field_selector: fields.as_deref(),
        label_selector: labels.as_deref(),
    })
}

/// A selector as a string; only requirements of one exact value, which is what authorizers look at.
fn selector(attributes: &Value) -> Option<String> {
    if let Some(raw) = attributes["rawSelector"].as_str() {
        return Some(raw.to_owned());
    }
    let terms: Vec<String> = attributes["requirements"]
        .as_array()?
        .iter()
        .filter(|r| r["operator"] == "In")
        .filter_map(|r| match string_list(&r["values"]).as_slice() {
            [one] => Some(format!("{}={one}", r["key"].as_str()?)),
            _ => None,
        })
        .collect();
    Some(terms.join(","))
}
