//! The conditions of a definition.

use keelson_api_types::{FieldError, field, meta as object_meta};
use serde_json::{Value, json};

use super::group;
use super::names::Verdict;
use crate::meta::string;
use crate::subresources::binding::set_condition;

const APPROVED: &str = "api-approved.kubernetes.io";

/// Whether a group of the project's own was approved, by the definition's annotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Approval {
    Approved,
    Bypassed,
    Missing,
    Invalid,
}

/// The approval of a definition with its reason; `None` for groups that need none.
pub fn approval(definition: &Value) -> Option<(Approval, String)> {
    let group = group(definition);
    let owned =
        |domain: &str| group == domain || group.strip_suffix(domain).is_some_and(|g| g.ends_with('.'));
    if !owned("k8s.io") && !owned("kubernetes.io") {
        return None;
    }
    let text = object_meta::annotation(definition, APPROVED).unwrap_or_default();
    let must = format!("protected groups must have approval annotation {APPROVED:?}");
    let see = "see https://github.com/kubernetes/enhancements/pull/1111";
    let url: Option<http::Uri> = text.parse().ok();
    let is_url = url.is_some_and(|u| u.scheme().is_some() && u.host().is_some_and(|h| !h.is_empty()));
    Some(if text.is_empty() {
        (Approval::Missing, format!("{must}, {see}"))
    } else if text.starts_with("unapproved") {
        (Approval::Bypassed, format!("not approved: {text:?}"))
    } else if is_url {
        (Approval::Approved, format!("approved in {text}"))
    } else {
        (
            Approval::Invalid,
            format!("{must} with either a URL or a reason starting with \"unapproved\", {see}"),
        )
    })
}

pub fn is_established(definition: &Value) -> bool {
    is_true(definition, "Established")
}

fn is_true(definition: &Value, condition: &str) -> bool {
    let conditions = definition["status"]["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().any(|c| string(c, "type") == condition && string(c, "status") == "True")
}

/// Writes what follows from the names, the schemas and the annotations.
pub fn set(definition: &mut Value, verdict: &Verdict) {
    let established = is_established(definition);
    let (approval, violations) = (approval(definition), violations(definition));
    if !definition["status"].is_object() {
        definition["status"] = json!({});
    }
    let status = &mut definition["status"];
    status["acceptedNames"] = verdict.names.clone();
    match &verdict.conflict {
        None => add(status, "NamesAccepted", "True", "NoConflicts", "no conflicts found"),
        Some((reason, message)) => add(status, "NamesAccepted", "False", reason, message),
    }
    if !established {
        match verdict.is_accepted() {
            true => add(
                status,
                "Established",
                "True",
                "InitialNamesAccepted",
                "the initial names have been accepted",
            ),
            false => add(status, "Established", "False", "NotAccepted", "not all names are accepted"),
        }
    }
    if violations.is_empty() {
        remove(status, "NonStructuralSchema");
    } else {
        add(status, "NonStructuralSchema", "True", "Violations", &field::aggregate(&violations));
    }
    if let Some((approval, message)) = approval {
        let (value, reason) = match approval {
            Approval::Approved => ("True", "ApprovedAnnotation"),
            Approval::Bypassed => ("False", "UnapprovedAnnotation"),
            Approval::Missing => ("False", "MissingAnnotation"),
            Approval::Invalid => ("False", "InvalidAnnotation"),
        };
        add(status, "KubernetesAPIApprovalPolicyConformant", value, reason, &message);
    }
}

/// Puts a condition into a status.
pub fn add(status: &mut Value, kind: &str, value: &str, reason: &str, message: &str) {
    if !status["conditions"].is_array() {
        status["conditions"] = json!([]);
    }
    let condition = json!({"type": kind, "status": value, "reason": reason, "message": message});
    let Some(all) = status["conditions"].as_array_mut() else { return };
    let same = |c: &Value| ["type", "status", "reason", "message"].iter().all(|k| c[*k] == condition[*k]);
    if !all.iter().any(same) {
        set_condition(all, condition);
    }
}

fn remove(status: &mut Value, kind: &str) {
    if let Some(all) = status["conditions"].as_array_mut() {
        all.retain(|c| string(c, "type") != kind);
    }
}

/// What keeps the schemas from being structural: only definitions from older clusters have any.
fn violations(definition: &Value) -> Vec<FieldError> {
    let spec = &definition["spec"];
    let mut found = Vec::new();
    if spec["preserveUnknownFields"] == Value::Bool(true) {
        found.push(FieldError::invalid("spec.preserveUnknownFields", true, "must be false"));
    }
    for (i, version) in spec["versions"].as_array().into_iter().flatten().enumerate() {
        let schema = &version["schema"]["openAPIV3Schema"];
        if schema.is_object() {
            let path = format!("spec.versions[{i}].schema.openAPIV3Schema");
            found.extend(keelson_schema::violations(schema, &path));
        }
    }
    found
}
