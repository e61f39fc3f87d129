//! CertificateApproval, CertificateSigning and CertificateSubjectRestriction: who may approve and sign
//! requests for which signer, and that nobody asks for `system:masters`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use keelson_api_types::StatusError;
use serde_json::Value;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use super::text;
use crate::types::{AdmissionRequest, Attributes, Authorizer, Operation};

const GROUP: &str = "certificates.k8s.io";
const RESOURCE: &str = "certificatesigningrequests";
const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";

pub async fn approval(authorizer: &dyn Authorizer, r: &AdmissionRequest<'_>) -> Result<(), StatusError> {
    match r.op {
        Operation::Update if r.is(GROUP, RESOURCE, "approval") => {
            check_signer(authorizer, r, "approve").await
        }
        _ => Ok(()),
    }
}

pub async fn signing(authorizer: &dyn Authorizer, r: &AdmissionRequest<'_>) -> Result<(), StatusError> {
    let part = |o: Option<&Value>, key: &str| o.map(|o| o["status"][key].clone()).unwrap_or_default();
    let changed = |key: &str| part(r.object.as_deref(), key) != part(r.old, key);
    match r.op {
        Operation::Update
            if r.is(GROUP, RESOURCE, "status") && (changed("certificate") || changed("conditions")) =>
        {
            check_signer(authorizer, r, "sign").await
        }
        _ => Ok(()),
    }
}

/// The stored signer name counts: an update may try to change it on the way.
async fn check_signer(
    authorizer: &dyn Authorizer,
    r: &AdmissionRequest<'_>,
    verb: &str,
) -> Result<(), StatusError> {
    let signer = r.old.map(|o| text(o, "/spec/signerName")).unwrap_or_default();
    let domain = format!("{}/*", signer.split('/').next().unwrap_or_default());
    for name in [signer, &domain] {
        let question = Attributes { name, ..Attributes::resource(r.user, verb, GROUP, "*", "signers") };
        if authorizer.decide(&question).await.is_allowed() {
            return Ok(());
        }
    }
    Err(r.forbidden(format!("user not permitted to {verb} requests with signerName {signer:?}")))
}

pub fn subject_restriction(r: &AdmissionRequest<'_>) -> Result<(), StatusError> {
    let concerned = r.is_create(GROUP, RESOURCE);
    let ours = |o: &Value| concerned && text(o, "/spec/signerName") == CLIENT_SIGNER;
    let Some(csr) = r.object.as_deref().filter(|o| ours(o)) else { return Ok(()) };
    let (_, organizations) = subject(text(csr, "/spec/request"))
        .ok_or_else(|| r.forbidden("failed to parse CSR: PEM block type must be CERTIFICATE REQUEST"))?;
    if organizations.iter().any(|o| o == "system:masters") {
        return Err(
            r.forbidden(format!("use of {CLIENT_SIGNER} signer with system:masters group is not allowed"))
        );
    }
    Ok(())
}

/// Common name and organizations of a base64-encoded PEM request; None if it is not one.
pub(crate) fn subject(request: &str) -> Option<(String, Vec<String>)> {
    let block = pem::parse(STANDARD.decode(request).ok()?).ok()?;
    let (_, parsed) = X509CertificationRequest::from_der(block.contents()).ok()?;
    let subject = &parsed.certification_request_info.subject;
    let name = subject.iter_common_name().next().and_then(|n| n.as_str().ok()).unwrap_or_default();
    let organizations = subject.iter_organization().filter_map(|o| o.as_str().ok());
    Some((name.to_owned(), organizations.map(str::to_owned).collect()))
}
