//! CertificateSigningRequests.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use keelson_api_types::{FieldError, names};
use serde_json::{Value, json};

use super::check::{At, Errors};
use super::edit::{self, same};
use super::{Ctx, Selectable, Strategy, carry, keep_only};

const USAGES: &[&str] = &[
    "signing",
    "digital signature",
    "content commitment",
    "key encipherment",
    "key agreement",
    "data encipherment",
    "cert sign",
    "crl sign",
    "encipher only",
    "decipher only",
    "any",
    "server auth",
    "client auth",
    "code signing",
    "email protection",
    "s/mime",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "timestamping",
    "ocsp signing",
    "microsoft sgc",
    "netscape sgc",
];
const VERDICTS: [&str; 2] = ["Approved", "Denied"];

pub struct CertificateSigningRequest;

impl Strategy for CertificateSigningRequest {
    fn default(&self, object: &mut Value) {
        edit::ensure(object, "status");
    }

    /// Who asks is what the server knows of the caller, never what the caller says.
    fn prepare_create(&self, ctx: &Ctx<'_>, object: &mut Value) {
        edit::set(object, "status", json!({}));
        let Some(spec) = edit::ensure(object, "spec") else { return };
        for field in ["username", "uid", "groups", "extra"] {
            edit::unset(spec, field);
        }
        edit::set(spec, "username", ctx.user.name.as_str());
        if !ctx.user.uid.is_empty() {
            edit::set(spec, "uid", ctx.user.uid.as_str());
        }
        if !ctx.user.groups.is_empty() {
            edit::set(spec, "groups", ctx.user.groups.clone());
        }
        if !ctx.user.extra.is_empty() {
            edit::set(spec, "extra", json!(ctx.user.extra));
        }
    }

    fn prepare_update(&self, _ctx: &Ctx<'_>, object: &mut Value, old: &Value) {
        carry(object, old, "spec");
        carry(object, old, "status");
    }

    fn prepare_status_update(&self, _ctx: &Ctx<'_>, object: &mut Value, old: &Value) {
        keep_only(object, old, &["status"]);
        keep_verdicts(object, old);
        stamp(object, old);
    }

    fn prepare_subresource_update(&self, ctx: &Ctx<'_>, object: &mut Value, old: &Value) {
        if ctx.subresource == "approval" {
            stamp(object, old);
            let conditions = At::root(object).dig(&["status", "conditions"]).value.clone();
            keep_only(object, old, &[]);
            if let Some(status) = edit::ensure(object, "status") {
                edit::set(status, "conditions", conditions);
                edit::omit_zero(status, &["conditions"]);
            }
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut e = Errors::new();
        spec(&At::root(object).f("spec"), &mut e);
        e.into_vec()
    }

    fn validate_update(&self, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut e = Errors::new();
        conditions(object, old, false, &mut e);
        e.into_vec()
    }

    fn validate_status_update(&self, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut e = Errors::new();
        conditions(object, old, false, &mut e);
        let certificate = |object| At::root(object).dig(&["status", "certificate"]);
        let (now, before) = (certificate(object), certificate(old));
        if !before.is_empty() && !same(now.value, before.value) {
            e.forbidden(&now.path, "updates may not modify existing certificate content");
        }
        let decoded = BASE64.decode(now.s()).unwrap_or_default();
        if before.is_empty()
            && !now.is_empty()
            && pem::parse_many(&decoded).map_or(0, |blocks| blocks.len()) == 0
        {
            e.invalid_value(
                &now.path,
                "<certificate data>",
                "must contain at least one CERTIFICATE PEM block",
            );
        }
        e.into_vec()
    }

    fn validate_subresource_update(
        &self,
        _subresource: &str,
        object: &Value,
        old: &Value,
    ) -> Vec<FieldError> {
        let mut e = Errors::new();
        conditions(object, old, true, &mut e);
        e.into_vec()
    }

    fn selectable_names(&self) -> &'static [&'static str] {
        &["spec.signerName"]
    }

    fn selectable_fields<'a>(&self, object: &'a Value) -> Selectable<'a> {
        vec![("spec.signerName", At::root(object).dig(&["spec", "signerName"]).s().into())]
    }
}

/// A verdict that is neither added nor removed stays word for word.
fn keep_verdicts(object: &mut Value, old: &Value) {
    let list = |object: &Value| -> Vec<Value> {
        At::root(object).dig(&["status", "conditions"]).each().map(|c| c.value.clone()).collect()
    };
    for verdict in VERDICTS {
        let of_kind = |conditions: Vec<Value>| -> Vec<Value> {
            conditions.into_iter().filter(|c| c["type"] == verdict).collect()
        };
        let before = of_kind(list(old));
        if of_kind(list(object)).len() != before.len() {
            continue;
        }
        if let Some(status) = edit::some(object, "status") {
            let current = edit::each(status, "conditions").filter(|c| c["type"] == verdict);
            for (condition, kept) in current.zip(before) {
                *condition = kept;
            }
        }
    }
}

fn stamp(object: &mut Value, old: &Value) {
    let now = keelson_api_types::meta::now_rfc3339();
    let before = At::root(old).dig(&["status", "conditions"]);
    let Some(status) = edit::some(object, "status") else { return };
    for condition in edit::each(status, "conditions") {
        edit::default_zero(condition, "lastUpdateTime", now.as_str());
        let same = before.each().find(|c| {
            Some(c.f("type").value) == condition.get("type")
                && Some(c.f("status").value) == condition.get("status")
                && !c.f("lastTransitionTime").is_empty()
        });
        let time = same.map_or(now.as_str(), |c| c.f("lastTransitionTime").s());
        edit::default_zero(condition, "lastTransitionTime", time);
    }
}

fn spec(at: &At<'_>, e: &mut Errors) {
    let request = at.f("request");
    let decoded = BASE64.decode(request.s()).unwrap_or_default();
    let problem = match pem::parse(&decoded) {
        Err(_) => Some("PEM block type must be CERTIFICATE REQUEST".to_owned()),
        Ok(block) if !["CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"].contains(&block.tag()) => {
            Some("PEM block type must be CERTIFICATE REQUEST".to_owned())
        }
        Ok(block) => {
            use x509_parser::prelude::FromDer;
            x509_parser::certification_request::X509CertificationRequest::from_der(block.contents())
                .err()
                .map(|error| error.to_string())
        }
    };
    if let Some(problem) = problem {
        e.invalid_value(&request.path, request.s(), problem);
    }
    let usages = at.f("usages");
    if usages.is_empty() {
        e.required(&usages.path, "");
    }
    let mut seen = Vec::new();
    for usage in usages.each() {
        if !USAGES.contains(&usage.s()) {
            e.not_supported(&usage, USAGES);
        }
        if seen.contains(&usage.s()) {
            e.duplicate(&usage.path, usage.s());
        }
        seen.push(usage.s());
    }
    let signer = at.f("signerName");
    if signer.s() == "kubernetes.io/legacy-unknown" {
        e.invalid(&signer, "the legacy signerName is not allowed via this API version");
    } else {
        signer_name(&signer, e);
    }
    let seconds = at.f("expirationSeconds");
    if seconds.has() && seconds.i() < 600 {
        e.invalid(&seconds, "may not specify a duration less than 600 seconds (10 minutes)");
    }
}

/// `example.com/some-signer`.
pub fn signer_name(at: &At<'_>, e: &mut Errors) {
    if !e.required_string(at) {
        return;
    }
    let Some((domain, path)) = at.s().split_once('/').filter(|(_, path)| !path.contains('/')) else {
        e.invalid(at, "must be a fully qualified domain and path of the form 'example.com/signer-name'");
        return;
    };
    for message in names::dns1123_subdomain(domain) {
        e.invalid(at, format!("validating label {domain:?}: {message}"));
    }
    if !domain.contains('.') {
        e.invalid(at, "should be a domain with at least two segments separated by dots");
    }
    for message in path.split('.').flat_map(names::dns1123_label) {
        e.invalid(at, format!("validating label {path:?}: {message}"));
    }
}

/// Verdicts are given through `approval` alone, never taken back, and never both.
fn conditions(object: &Value, old: &Value, approval: bool, e: &mut Errors) {
    let list = |object| At::root(object).dig(&["status", "conditions"]);
    let (now, before) = (list(object), list(old));
    let of_kind = |at: &At<'_>, kind: &str| at.each().filter(|c| c.f("type").s() == kind).count();
    for kind in ["Approved", "Denied", "Failed"] {
        let (added, count) = (of_kind(&now, kind), of_kind(&before, kind));
        if added < count {
            e.forbidden(&now.path, format!("updates may not remove a condition of type {kind:?}"));
        } else if added > count && kind != "Failed" && !approval {
            e.forbidden(&now.path, format!("updates may not add a condition of type {kind:?}"));
        }
    }
    let mut seen = Vec::new();
    for condition in now.each() {
        let (kind, status) = (condition.f("type"), condition.f("status"));
        if kind.is_empty() {
            e.required(&kind.path, "");
        }
        e.one_of(&status, &["True", "False", "Unknown"]);
        if ["Approved", "Denied", "Failed"].contains(&kind.s()) && status.has() && status.s() != "True" {
            e.not_supported(&status, &["True"]);
        }
        if VERDICTS.contains(&kind.s())
            && seen.iter().any(|other| VERDICTS.contains(other) && *other != kind.s())
        {
            let other = if kind.s() == "Approved" { "Denied" } else { "Approved" };
            let detail = format!("{} and {other} conditions are mutually exclusive", kind.s());
            e.invalid(&kind, detail);
        }
        if seen.contains(&kind.s()) {
            e.duplicate(&kind.path, kind.s());
        }
        seen.push(kind.s());
    }
}
