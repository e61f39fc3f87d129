//! Certificate signing requests: those of nodes for themselves are approved, approved ones signed, old ones deleted.

mod request;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use keelson_client::{Key, WorkQueue, rest};
use keelson_pki::Ca;
use serde::Deserialize;
use serde_json::json;

use crate::context::{Context, enqueue};
use crate::kit::{Condition, During, Error, conditions, error::gone_is_fine, now, only_if};
use crate::views::CertificateRequest;

use request::Request;

const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";
const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
const LEGACY: &str = "kubernetes.io/legacy-unknown";
const HOUR: i64 = 3600;

/// Reads the authority that signs.
pub fn authority(config: &crate::config::Config) -> anyhow::Result<Ca> {
    let (cert, key) = (config.pki_dir.join("ca.crt"), config.pki_dir.join("ca.key"));
    Ca::load(&cert, &key).with_context(|| format!("load the authority {}", cert.display()))
}

pub async fn run(context: Arc<Context>, authority: Ca) {
    let queue = WorkQueue::<Key>::new();
    enqueue(&context.informers.certificate_requests, &queue);
    let (this, authority, again) = (context.clone(), Arc::new(authority), queue.clone());
    let reconcile = move |key: Key| {
        let (context, authority, queue) = (this.clone(), authority.clone(), again.clone());
        async move {
            let Some(csr) = context.informers.certificate_requests.get(&key) else { return Ok(()) };
            let left = seconds_to_live(&csr, now());
            if left <= 0 {
                let deleted = context.requests.delete::<CertificateRequest>(&csr.metadata).await;
                return gone_is_fine(deleted).map(drop);
            }
            queue.add_after(key, Duration::from_secs(left.unsigned_abs()));
            approve(&context, &csr).await?;
            sign(&context, &authority, &csr).await
        }
    };
    context.work("csrsigning", queue, 1, reconcile).await;
}

/// How long a request is kept: a day while nobody decides, an hour after that.
fn seconds_to_live(csr: &CertificateRequest, now: Timestamp) -> i64 {
    let created = csr.metadata.creation_timestamp.as_ref().map_or(now, |t| t.0);
    let decided =
        csr.status.conditions.iter().filter_map(|c| c.last_update_time.or(c.last_transition_time)).max();
    match decided {
        Some(at) => at.as_second() + HOUR - now.as_second(),
        None if csr.status.conditions.is_empty() => created.as_second() + 24 * HOUR - now.as_second(),
        None => created.as_second() + HOUR - now.as_second(),
    }
}

fn decided(csr: &CertificateRequest) -> bool {
    csr.status.conditions.iter().any(|c| matches!(c.r#type.as_str(), "Approved" | "Denied"))
}

fn request_of(csr: &CertificateRequest) -> Result<Request, String> {
    let pem = BASE64.decode(&csr.spec.request).map_err(|e| e.to_string())?;
    Request::parse(&String::from_utf8_lossy(&pem))
}

/// Why a request may be approved without a person: the permission that its author needs, and what is said then.
fn approval(csr: &CertificateRequest, request: &Request) -> Option<(Option<&'static str>, &'static str)> {
    let is_self =
        csr.spec.username == request.common_name && csr.spec.groups.iter().any(|g| g == "system:nodes");
    match csr.spec.signer_name.as_str() {
        KUBELET_CLIENT if request.check_kubelet_client(&csr.spec.usages).is_ok() => Some(match is_self {
            true => (
                Some("selfnodeclient"),
                "Auto approving self kubelet client certificate after SubjectAccessReview.",
            ),
            false => {
                (Some("nodeclient"), "Auto approving kubelet client certificate after SubjectAccessReview.")
            }
        }),
        KUBELET_SERVING if is_self && request.check_kubelet_serving(&csr.spec.usages).is_ok() => {
            Some((None, "Auto approving the serving certificate of a node for itself."))
        }
        _ => None,
    }
}

async fn approve(context: &Context, csr: &CertificateRequest) -> Result<(), Error> {
    if decided(csr) || !csr.status.certificate.is_empty() {
        return Ok(());
    }
    let Ok(request) = request_of(csr) else { return Ok(()) };
    let Some((permission, message)) = approval(csr, &request) else { return Ok(()) };
    if let Some(subresource) = permission
        && !is_allowed(context, csr, subresource).await?
    {
        return Ok(());
    }
    let condition = Condition {
        last_update_time: Some(now()),
        ..Condition::new("Approved", true, "AutoApproved", message)
    };
    patch(context, csr, "approval", condition).await
}

#[derive(Deserialize)]
struct Review {
    #[serde(default)]
    status: ReviewStatus,
}

#[derive(Default, Deserialize)]
struct ReviewStatus {
    #[serde(default)]
    allowed: bool,
}

async fn is_allowed(context: &Context, csr: &CertificateRequest, subresource: &str) -> Result<bool, Error> {
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": csr.spec.username,
            "uid": csr.spec.uid,
            "groups": csr.spec.groups,
            "extra": csr.spec.extra,
            "resourceAttributes": {
                "group": "certificates.k8s.io",
                "resource": "certificatesigningrequests",
                "subresource": subresource,
                "verb": "create",
                "version": "*",
            },
        },
    });
    let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    let answer: Review = rest::create(context.requests.client(), path, &review)
        .await
        .during(|| format!("review the access of {}", csr.spec.username))?;
    Ok(answer.status.allowed)
}

/// What a signer of ours says to a request: nothing if it is another's.
fn check_signer(csr: &CertificateRequest, request: &Request) -> Option<Result<(), String>> {
    match csr.spec.signer_name.as_str() {
        KUBELET_CLIENT => Some(request.check_kubelet_client(&csr.spec.usages)),
        KUBELET_SERVING => Some(request.check_kubelet_serving(&csr.spec.usages)),
        CLIENT => Some(request::check_client(&csr.spec.usages)),
        LEGACY => Some(Ok(())),
        _ => None,
    }
}

async fn sign(context: &Context, authority: &Ca, csr: &CertificateRequest) -> Result<(), Error> {
    let has = |kind| conditions::find(&csr.status.conditions, kind).is_some();
    if !has("Approved") || has("Denied") || has("Failed") || !csr.status.certificate.is_empty() {
        return Ok(());
    }
    let request = match request_of(csr) {
        Ok(request) => request,
        Err(problem) => {
            return Err(Error::Unusable(format!("the request of {}: {problem}", csr.metadata.name)));
        }
    };
    match check_signer(csr, &request) {
        None => return Ok(()),
        Some(Err(problem)) => {
            let condition = Condition {
                last_update_time: Some(now()),
                ..Condition::new("Failed", true, "SignerValidationFailed", problem)
            };
            return patch(context, csr, "status", condition).await;
        }
        Some(Ok(())) => {}
    }
    let longest = Duration::from_secs(context.config.certificate_days * 24 * 3600);
    // Ten minutes at least, as the API says.
    let asked = csr.spec.expiration_seconds.map(|s| Duration::from_secs(s.max(600)));
    let ttl = asked.unwrap_or(longest).min(longest);
    let operation = || format!("sign the request {}", csr.metadata.name);
    let certificate = authority
        .sign_csr(&request.pem, ttl, &csr.spec.usages)
        .map_err(|source| Error::Pki { operation: operation(), source })?;
    let patch = json!({
        "metadata": only_if(&csr.metadata),
        "status": { "certificate": BASE64.encode(certificate) },
    });
    let patched = context.requests.patch::<CertificateRequest>(&csr.metadata, Some("status"), &patch).await;
    gone_is_fine(patched).map(drop)
}

async fn patch(
    context: &Context,
    csr: &CertificateRequest,
    subresource: &str,
    condition: Condition,
) -> Result<(), Error> {
    let mut new = csr.status.conditions.clone();
    conditions::set(&mut new, condition);
    let patch = json!({ "metadata": only_if(&csr.metadata), "status": { "conditions": new } });
    let patched =
        context.requests.patch::<CertificateRequest>(&csr.metadata, Some(subresource), &patch).await;
    gone_is_fine(patched).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn csr(signer: &str, user: &str, usages: &[&str], conditions: Value) -> CertificateRequest {
        serde_json::from_value(json!({
            "metadata": {"name": "c", "creationTimestamp": "1970-01-01T00:00:00Z"},
            "spec": {"signerName": signer, "username": user, "groups": ["system:nodes"], "usages": usages},
            "status": {"conditions": conditions},
        }))
        .unwrap()
    }

    fn request(sans: &[&str]) -> Request {
        Request {
            pem: String::new(),
            common_name: "system:node:n1".into(),
            organizations: vec!["system:nodes".into()],
            names: sans.iter().map(|s| (*s).to_owned()).collect(),
            other_names: 0,
        }
    }

    #[test]
    fn only_what_a_node_asks_for_itself_is_approved() {
        let (client, serving) = (["digital signature", "client auth"], ["digital signature", "server auth"]);
        let check = |signer: &str, user: &str, usages: &[&str], sans: &[&str]| {
            approval(&csr(signer, user, usages, json!([])), &request(sans)).map(|(permission, _)| permission)
        };
        let node = "system:node:n1";
        assert_eq!(check(KUBELET_CLIENT, node, &client, &[]), Some(Some("selfnodeclient")));
        assert_eq!(check(KUBELET_CLIENT, "bootstrap", &client, &[]), Some(Some("nodeclient")));
        assert_eq!(check(KUBELET_CLIENT, node, &serving, &[]), None);
        assert_eq!(check(KUBELET_CLIENT, node, &client, &["n1"]), None);
        assert_eq!(check(KUBELET_SERVING, node, &serving, &["n1"]), Some(None));
        assert_eq!(check(KUBELET_SERVING, "system:node:n2", &serving, &["n1"]), None);
        assert_eq!(check(KUBELET_SERVING, node, &serving, &[]), None);
        assert_eq!(check(CLIENT, node, &client, &[]), None);
    }

    #[test]
    fn requests_are_kept_for_a_day_or_an_hour_once_decided() {
        let at = |s: i64| Timestamp::from_second(s).unwrap();
        assert_eq!(seconds_to_live(&csr(CLIENT, "u", &[], json!([])), at(10)), 24 * HOUR - 10);
        let decided = json!([{"type": "Approved", "lastUpdateTime": "1970-01-01T00:01:00Z"}]);
        assert_eq!(seconds_to_live(&csr(CLIENT, "u", &[], decided), at(0)), HOUR + 60);
    }
}
