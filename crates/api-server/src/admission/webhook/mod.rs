//! Dynamic admission: mutating and validating webhooks, as their configurations in the cluster say.

mod rules;

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::future::join_all;
use keelson_api_types::{Gvr, Reason, StatusError, meta};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{items, text};
use crate::types::{AdmissionRequest, Objects};

const GROUP: &str = "admissionregistration.k8s.io";
const DEFAULT_TIMEOUT_SECONDS: u64 = 10;

/// How a call ended without the webhook's consent.
enum Refusal {
    /// The webhook said no, or the request cannot be shown to it.
    Rejected(StatusError),
    /// The webhook could not be asked; its failure policy decides.
    Failed(String),
}

/// The webhook's answer.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Answer {
    uid: String,
    allowed: bool,
    status: Option<Value>,
    patch: Option<String>,
    patch_type: Option<String>,
    warnings: Vec<String>,
}

/// Runs the mutating webhooks one after another. True if one of them changed the object.
pub async fn mutate(objects: &dyn Objects, r: &mut AdmissionRequest<'_>) -> Result<bool, StatusError> {
    if exempt(r) {
        return Ok(false);
    }
    let hooks = hooks(objects, "mutatingwebhookconfigurations");
    let (mut changed, mut again) = (false, Vec::new());
    for hook in &hooks {
        let by_this = call_mutating(objects, hook, r).await?;
        changed |= by_this;
        if by_this {
            // Earlier ones that asked for it see what this one made.
            again.iter_mut().for_each(|(_, stale)| *stale = true);
        }
        if hook["reinvocationPolicy"] == "IfNeeded" {
            again.push((hook, false));
        }
    }
    for (hook, _) in again.iter().filter(|(_, stale)| *stale) {
        changed |= call_mutating(objects, hook, r).await?;
    }
    Ok(changed)
}

async fn call_mutating(
    objects: &dyn Objects,
    hook: &Value,
    r: &mut AdmissionRequest<'_>,
) -> Result<bool, StatusError> {
    if !rules::matches(objects, hook, r).await? {
        return Ok(false);
    }
    let answer = match call(objects, hook, r).await {
        Ok(answer) => answer,
        Err(refusal) => return tolerate(hook, refusal).map(|()| false),
    };
    r.warnings.extend(answer.warnings);
    let Some(patch) = answer.patch.filter(|p| !p.is_empty()) else { return Ok(false) };
    let patch = STANDARD.decode(patch).ok().and_then(|p| serde_json::from_slice::<Value>(&p).ok());
    let Some(patch) = patch.filter(|_| answer.patch_type.as_deref() == Some("JSONPatch")) else {
        let why = "received undecodable patch in webhook response".to_owned();
        return tolerate(hook, Refusal::Failed(why)).map(|()| false);
    };
    if items(&patch).is_empty() {
        return Ok(false);
    }
    let Some(object) = r.object.as_deref_mut() else {
        return Err(StatusError::internal(format!(
            "admission webhook {:?} attempted to modify the object, which is not supported for this operation",
            text(hook, "/name")
        )));
    };
    let patched = keelson_machinery::patch::json_patch(object, &patch).map_err(StatusError::internal)?;
    let changed = patched != *object;
    *object = patched;
    Ok(changed)
}

/// Asks the validating webhooks, all at once; the first refusal in their order counts.
pub async fn validate(objects: &dyn Objects, r: &mut AdmissionRequest<'_>) -> Result<(), StatusError> {
    if exempt(r) {
        return Ok(());
    }
    let hooks = hooks(objects, "validatingwebhookconfigurations");
    let mut matching = Vec::new();
    for hook in &hooks {
        if rules::matches(objects, hook, r).await? {
            matching.push(hook);
        }
    }
    let request = &*r;
    let answers = join_all(matching.iter().map(|hook| call(objects, hook, request))).await;
    for (hook, answer) in matching.into_iter().zip(answers) {
        match answer {
            Ok(answer) => r.warnings.extend(answer.warnings),
            Err(refusal) => tolerate(hook, refusal)?,
        }
    }
    Ok(())
}

/// Nobody may lock the cluster out of repairing its own admission.
fn exempt(r: &AdmissionRequest<'_>) -> bool {
    const RESOURCES: [&str; 6] = [
        "validatingwebhookconfigurations",
        "mutatingwebhookconfigurations",
        "validatingadmissionpolicies",
        "validatingadmissionpolicybindings",
        "mutatingadmissionpolicies",
        "mutatingadmissionpolicybindings",
    ];
    r.gvr.group == GROUP && RESOURCES.contains(&r.gvr.resource.as_str())
}

/// All webhooks of a kind in the order in which they are called.
fn hooks(objects: &dyn Objects, resource: &str) -> Vec<Value> {
    let mut configurations = objects.list(&Gvr::new(GROUP, "v1", resource), "");
    configurations.sort_by(|a, b| meta::name(a).cmp(meta::name(b)));
    configurations.iter().flat_map(|c| items(&c["webhooks"]).to_vec()).collect()
}

fn tolerate(hook: &Value, refusal: Refusal) -> Result<(), StatusError> {
    match refusal {
        Refusal::Rejected(status) => Err(status),
        Refusal::Failed(why) => {
            let message = format!("failed calling webhook {:?}: {why}", text(hook, "/name"));
            if hook["failurePolicy"] == "Ignore" {
                tracing::warn!(message, "failing open");
                return Ok(());
            }
            Err(StatusError::internal(message))
        }
    }
}

async fn call(objects: &dyn Objects, hook: &Value, r: &AdmissionRequest<'_>) -> Result<Answer, Refusal> {
    if r.dry_run && !matches!(text(hook, "/sideEffects"), "None" | "NoneOnDryRun") {
        let why = format!("admission webhook {:?} does not support dry run", text(hook, "/name"));
        return Err(Refusal::Rejected(StatusError::bad_request(why)));
    }
    if !items(&hook["matchConditions"]).is_empty() {
        let why = "matchConditions are not supported by this server yet".to_owned();
        return Err(Refusal::Failed(why));
    }
    let uid = uuid::Uuid::new_v4().to_string();
    let versions = items(&hook["admissionReviewVersions"]);
    let version = if versions.iter().any(|v| v == "v1") { "v1" } else { "v1beta1" };
    let review = review(&uid, version, r).to_string().into_bytes();
    let timeout = Duration::from_secs(hook["timeoutSeconds"].as_u64().unwrap_or(DEFAULT_TIMEOUT_SECONDS));
    let body = crate::webhook::post(objects, &hook["clientConfig"], timeout, review)
        .await
        .map_err(|e| Refusal::Failed(format!("failed to call webhook: {e}")))?;
    let answer =
        read(&body, &uid).map_err(|e| Refusal::Failed(format!("received invalid webhook response: {e}")))?;
    if answer.allowed {
        return Ok(answer);
    }
    Err(Refusal::Rejected(rejection(text(hook, "/name"), answer.status.as_ref())))
}

fn review(uid: &str, version: &str, r: &AdmissionRequest<'_>) -> Value {
    let kind = json!({"group": r.gvk.group, "version": r.gvk.version, "kind": r.gvk.kind});
    let resource = json!({"group": r.gvr.group, "version": r.gvr.version, "resource": r.gvr.resource});
    let mut request = json!({
        "uid": uid, "kind": kind, "resource": resource, "requestKind": kind, "requestResource": resource,
        "operation": r.op.as_str(), "userInfo": r.user, "dryRun": r.dry_run,
        "object": r.object.as_deref().cloned().unwrap_or_default(),
        "oldObject": r.old.cloned().unwrap_or_default(),
        "options": r.options,
    });
    for (keys, value) in [
        (&["subResource", "requestSubResource"][..], r.subresource),
        (&["name"][..], r.name),
        (&["namespace"][..], r.namespace),
    ] {
        if !value.is_empty() {
            keys.iter().for_each(|key| request[*key] = value.into());
        }
    }
    json!({"apiVersion": format!("admission.k8s.io/{version}"), "kind": "AdmissionReview", "request": request})
}

fn read(body: &[u8], uid: &str) -> Result<Answer, String> {
    #[derive(Deserialize)]
    struct Review {
        response: Option<Answer>,
    }
    let review: Review = serde_json::from_slice(body).map_err(|e| e.to_string())?;
    let answer = review.response.ok_or("webhook response was absent")?;
    if answer.uid != uid {
        return Err(format!("expected response.uid={uid:?}, got {:?}", answer.uid));
    }
    Ok(answer)
}

/// What the caller is told when a webhook says no: its own status, if it gave one.
fn rejection(hook: &str, status: Option<&Value>) -> StatusError {
    let part = |key: &str| status.and_then(|s| s[key].as_str()).unwrap_or_default();
    let code = status.and_then(|s| s["code"].as_u64()).filter(|c| (400..600).contains(c)).unwrap_or(400);
    let denied = format!("admission webhook {hook:?} denied the request");
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
    fn an_answer_to_another_question_is_none() {
        let body = |uid: &str| json!({"response": {"uid": uid, "allowed": true}}).to_string();
        assert!(read(body("a").as_bytes(), "a").is_ok_and(|a| a.allowed));
        assert!(read(body("b").as_bytes(), "a").is_err());
        assert!(read(b"{}", "a").is_err());
        assert!(read(b"not json", "a").is_err());
    }
}
