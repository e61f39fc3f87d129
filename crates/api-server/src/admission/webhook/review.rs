//! What is sent to a webhook and what comes back: AdmissionReview in `v1` and `v1beta1`.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use keelson_api_types::gofmt::quote;
use keelson_api_types::{Gvk, Reason, StatusError};
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::matching::Target;
use super::super::versioned::Versioned;
use crate::types::AdmissionRequest;

const GROUP: &str = "admission.k8s.io";

/// The webhook's answer.
#[derive(Debug, Default, PartialEq)]
pub struct Answer {
    pub allowed: bool,
    pub status: Option<Value>,
    /// A JSON patch.
    pub patch: Vec<u8>,
    pub patch_type: String,
    pub warnings: Vec<String>,
    pub annotations: BTreeMap<String, String>,
}

/// The request as admission's own API describes it; objects aside, it is also what expressions see.
pub fn request(r: &AdmissionRequest<'_>, target: &Target) -> Value {
    let kind = |k: &Gvk| json!({"group": k.group, "version": k.version, "kind": k.kind});
    let resource =
        |g: &keelson_api_types::Gvr| json!({"group": g.group, "version": g.version, "resource": g.resource});
    let mut request = json!({
        "kind": kind(&target.gvk),
        "resource": resource(&target.gvr),
        "requestKind": kind(r.gvk),
        "requestResource": resource(r.gvr),
        "operation": r.op.as_str(),
        "userInfo": r.user,
        "dryRun": r.dry_run,
        "options": r.options,
    });
    // A namespace is in itself.
    let is_namespace = r.gvr.group.is_empty() && r.gvr.resource == "namespaces";
    for (key, value) in [
        ("subResource", r.subresource),
        ("requestSubResource", r.subresource),
        ("name", r.name),
        ("namespace", if is_namespace { r.name } else { r.namespace }),
    ] {
        if !value.is_empty() {
            request[key] = value.into();
        }
    }
    request
}

/// The first version that the webhook and we know.
pub fn version(accepted: &[String]) -> Result<&str, String> {
    let known = accepted.iter().map(String::as_str).find(|v| matches!(*v, "v1" | "v1beta1"));
    known.ok_or_else(|| {
        "could not create admission objects: webhook does not accept known AdmissionReview versions (v1, v1beta1)"
            .to_owned()
    })
}

pub fn encode(uid: &str, version: &str, mut request: Value, seen: &Versioned<'_>) -> Vec<u8> {
    request["uid"] = uid.into();
    request["object"] = seen.object.as_deref().cloned().unwrap_or_default();
    request["oldObject"] = seen.old.as_deref().cloned().unwrap_or_default();
    let review =
        json!({"apiVersion": format!("{GROUP}/{version}"), "kind": "AdmissionReview", "request": request});
    review.to_string().into_bytes()
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Review {
    api_version: String,
    kind: String,
    response: Option<Response>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Response {
    uid: String,
    allowed: bool,
    status: Option<Value>,
    patch: Option<String>,
    patch_type: Option<String>,
    warnings: Option<Vec<String>>,
    audit_annotations: Option<BTreeMap<String, String>>,
}

/// Reads an answer; only `v1` is strict about what must and must not be in it.
pub fn read(body: &[u8], uid: &str, version: &str, mutating: bool) -> Result<Answer, String> {
    let review: Review = serde_json::from_slice(body).map_err(|e| e.to_string())?;
    let response = review.response.ok_or("webhook response was absent")?;
    let patch = response.patch.unwrap_or_default();
    let mut patch_type = response.patch_type.clone().unwrap_or_default();
    if version == "v1" {
        if response.uid != uid {
            return Err(format!("expected response.uid={}, got {}", quote(uid), quote(&response.uid)));
        }
        let (want, got) = (
            Gvk::new(GROUP, "v1", "AdmissionReview"),
            Gvk::from_api_version(&review.api_version, &review.kind),
        );
        if got != want {
            return Err(format!("expected webhook response of {want}, got {got}"));
        }
        match (mutating, !patch.is_empty(), response.patch_type.as_deref()) {
            (true, true, None) => {
                return Err("webhook returned response.patch but not response.patchType".into());
            }
            (true, false, Some(_)) => {
                return Err("webhook returned response.patchType but not response.patch".into());
            }
            (true, _, Some("")) => return Err("webhook returned invalid response.patchType of \"\"".into()),
            (false, true, _) => return Err("validating webhook may not return response.patch".into()),
            (false, _, Some(_)) => return Err("validating webhook may not return response.patchType".into()),
            _ => {}
        }
    } else {
        patch_type = if patch.is_empty() { String::new() } else { "JSONPatch".into() };
    }
    Ok(Answer {
        allowed: response.allowed,
        status: response.status,
        patch: STANDARD.decode(patch).map_err(|e| e.to_string())?,
        patch_type,
        warnings: response.warnings.unwrap_or_default(),
        annotations: response.audit_annotations.unwrap_or_default(),
    })
}

/// What the caller is told when a webhook says no: its own status, if it gave one.
pub fn rejection(hook: &str, status: Option<&Value>) -> StatusError {
    let part = |key: &str| status.and_then(|s| s[key].as_str()).unwrap_or_default();
    let code = status.and_then(|s| s["code"].as_u64()).filter(|c| (400..1000).contains(c)).unwrap_or(400);
    let denied = format!("admission webhook {} denied the request", quote(hook));
    let message = match (part("message"), part("reason")) {
        ("", "") => format!("{denied} without explanation"),
        ("", reason) => format!("{denied}: {reason}"),
        (message, _) => format!("{denied}: {message}"),
    };
    let reason: Reason = serde_json::from_value(part("reason").into()).unwrap_or_default();
    let error = StatusError::new(code as u16, reason, message);
    match status.and_then(|s| serde_json::from_value(s["details"].clone()).ok()) {
        Some(details) => error.with_details(details),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rejection_carries_the_webhooks_words() {
        let cases = [
            (None, 400, r#"admission webhook "h.x" denied the request without explanation"#),
            (
                Some(json!({"message": "no", "code": 403})),
                403,
                r#"admission webhook "h.x" denied the request: no"#,
            ),
            (
                Some(json!({"reason": "because"})),
                400,
                r#"admission webhook "h.x" denied the request: because"#,
            ),
            (
                Some(json!({"message": "odd", "code": 200})),
                400,
                r#"admission webhook "h.x" denied the request: odd"#,
            ),
        ];
        for (status, code, message) in cases {
            let got = rejection("h.x", status.as_ref());
            assert_eq!((got.code(), got.message()), (code, message));
        }
    }

    #[test]
    fn an_answer_must_be_one_to_the_question() {
        let body = |response: Value| {
            json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})
                .to_string()
        };
        let problem =
            |body: String, mutating| read(body.as_bytes(), "a", "v1", mutating).err().unwrap_or_default();
        let patch = STANDARD.encode("[]");
        for (response, mutating, want) in [
            (json!({"uid": "a", "allowed": true}), true, ""),
            (json!({"uid": "b"}), true, r#"expected response.uid="a", got "b""#),
            (json!(null), true, "webhook response was absent"),
            (
                json!({"uid": "a", "patch": patch}),
                true,
                "webhook returned response.patch but not response.patchType",
            ),
            (
                json!({"uid": "a", "patchType": "JSONPatch"}),
                true,
                "webhook returned response.patchType but not response.patch",
            ),
            (json!({"uid": "a", "patch": patch}), false, "validating webhook may not return response.patch"),
        ] {
            assert_eq!(problem(body(response.clone()), mutating), want, "{response}");
        }
        let untyped = json!({"response": {"uid": "a"}}).to_string();
        assert_eq!(
            problem(untyped.clone(), true),
            "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got /, Kind="
        );
        assert!(read(untyped.as_bytes(), "z", "v1beta1", true).is_ok());
    }
}
