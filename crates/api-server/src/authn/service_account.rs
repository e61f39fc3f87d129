//! Service account tokens as credentials: what they are bound to must still exist.

use std::collections::HashMap;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use keelson_api_types::{Gvr, meta};
use parking_lot::Mutex;
use serde_json::Value;

use super::TokenUser;
use crate::token::{Bound, Claims, Ref, TokenError, Tokens, check_times};
use crate::types::{Objects, UserInfo};

const EXTRA: &str = "authentication.kubernetes.io/";
/// How long something marked as deleted still counts as existing, in seconds.
const DELETION_LEEWAY: i64 = 60;
/// Tokens remembered as well signed; all are forgotten when there are more.
const REMEMBERED: usize = 4096;
const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";
const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";
const INVALIDATED: &str = "service account token has been invalidated";

/// Tokens whose signature has been checked, by the hash of the token.
#[derive(Default)]
pub struct Verified(Mutex<HashMap<Vec<u8>, Arc<Claims>>>);

impl Verified {
    fn claims(&self, tokens: &Tokens, token: &str) -> Result<Arc<Claims>, TokenError> {
        let hash = digest(&SHA256, token.as_bytes()).as_ref().to_vec();
        if let Some(claims) = self.0.lock().get(&hash) {
            return Ok(claims.clone());
        }
        let claims = Arc::new(tokens.verify(token)?);
        let mut known = self.0.lock();
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(hash, claims.clone());
        Ok(claims)
    }
}

/// The service account that a token stands for.
pub async fn authenticate(
    tokens: &Tokens,
    verified: &Verified,
    objects: &dyn Objects,
    token: &str,
    audiences: &[String],
) -> Result<TokenUser, TokenError> {
    let claims = verified.claims(tokens, token)?;
    let audiences = tokens.match_audiences(&claims, audiences)?;
    let now = jiff::Timestamp::now().as_second();
    check_times(&claims, now)?;
    let user = match &claims.bound {
        Some(bound) => {
            check_bound(objects, bound, now).await?;
            bound_user(bound, &claims.jti)
        }
        None => legacy(objects, &claims, token).await?,
    };
    Ok(TokenUser { user, audiences })
}

fn refused<T>(why: impl Into<String>) -> Result<T, TokenError> {
    Err(TokenError::Refused(why.into()))
}

async fn check_bound(objects: &dyn Objects, bound: &Bound, now: i64) -> Result<(), TokenError> {
    let namespace = bound.namespace.as_str();
    let account = &bound.serviceaccount;
    let Some(found) = find(objects, "serviceaccounts", namespace, account).await else {
        return refused(format!("serviceaccounts \"{}\" not found", account.name));
    };
    if meta::uid(&found) != account.uid {
        return refused(format!(
            "service account UID ({}) does not match claim ({})",
            meta::uid(&found),
            account.uid
        ));
    }
    if gone(&found, now) {
        return refused(format!("service account {namespace}/{} has been deleted", account.name));
    }
    if let Some(secret) = &bound.secret {
        check_reference(objects, "secrets", "secret", namespace, secret, now).await?;
    }
    if let Some(pod) = &bound.pod {
        check_reference(objects, "pods", "pod", namespace, pod, now).await?;
    } else if let Some(node) = &bound.node {
        check_reference(objects, "nodes", "node", "", node, now).await?;
    }
    Ok(())
}

async fn check_reference(
    objects: &dyn Objects,
    resource: &str,
    what: &str,
    namespace: &str,
    reference: &Ref,
    now: i64,
) -> Result<(), TokenError> {
    let Some(found) = find(objects, resource, namespace, reference).await else {
        return refused(INVALIDATED);
    };
    if meta::uid(&found) != reference.uid {
        return refused(format!(
            "{what} UID ({}) does not match service account {what} ref claim ({})",
            meta::uid(&found),
            reference.uid
        ));
    }
    if gone(&found, now) { refused(INVALIDATED) } else { Ok(()) }
}

/// From memory; what memory does not have with this uid may be newer than memory.
async fn find(objects: &dyn Objects, resource: &str, namespace: &str, reference: &Ref) -> Option<Arc<Value>> {
    let gvr = Gvr::new("", "v1", resource);
    if let Some(found) = objects.get(&gvr, namespace, &reference.name)
        && meta::uid(&found) == reference.uid
    {
        return Some(found);
    }
    objects.get_fresh(&gvr, namespace, &reference.name).await.ok().flatten()
}

fn gone(object: &Value, now: i64) -> bool {
    meta::parse_time(meta::string(object, "deletionTimestamp"))
        .is_some_and(|t| t.as_second() < now - DELETION_LEEWAY)
}

fn account_user(namespace: &str, name: &str, uid: &str) -> UserInfo {
    UserInfo {
        name: format!("system:serviceaccount:{namespace}:{name}"),
        uid: uid.to_owned(),
        groups: account_groups(namespace),
        ..UserInfo::default()
    }
}

/// The groups of every service account of a namespace.
pub fn account_groups(namespace: &str) -> Vec<String> {
    vec!["system:serviceaccounts".into(), format!("system:serviceaccounts:{namespace}")]
}

fn bound_user(bound: &Bound, jti: &str) -> UserInfo {
    let account = &bound.serviceaccount;
    let mut user = account_user(&bound.namespace, &account.name, &account.uid);
    let mut add = |key: &str, value: String| {
        if !value.is_empty() {
            user.extra.insert(format!("{EXTRA}{key}"), vec![value]);
        }
    };
    if !jti.is_empty() {
        add("credential-id", format!("JTI={jti}"));
    }
    for (what, reference) in [("pod", &bound.pod), ("node", &bound.node)] {
        if let Some(reference) = reference {
            add(&format!("{what}-name"), reference.name.clone());
            add(&format!("{what}-uid"), reference.uid.clone());
        }
    }
    user
}

/// A token that lives in a secret of type `kubernetes.io/service-account-token`.
async fn legacy(objects: &dyn Objects, claims: &Claims, token: &str) -> Result<UserInfo, TokenError> {
    let claim = |value: &Option<String>, name: &str| match value {
        Some(v) if !v.is_empty() => Ok(v.clone()),
        _ => refused(format!("{name} claim is missing")),
    };
    let namespace = claim(&claims.legacy_namespace, "namespace")?;
    let secret_name = claim(&claims.legacy_secret, "secretName")?;
    let name = claim(&claims.legacy_name, "serviceAccountName")?;
    let uid = claim(&claims.legacy_uid, "serviceAccountUID")?;
    if claims.sub != format!("system:serviceaccount:{namespace}:{name}") {
        return refused("sub claim is invalid");
    }
    let secret = objects.get_fresh(&Gvr::new("", "v1", "secrets"), &namespace, &secret_name).await;
    let Ok(Some(secret)) = secret else { return refused("Token has been invalidated") };
    if !meta::string(&secret, "deletionTimestamp").is_empty() {
        return refused("Token has been invalidated");
    }
    let stored = secret["data"]["token"].as_str().and_then(|t| STANDARD.decode(t).ok()).unwrap_or_default();
    if aws_lc_rs::constant_time::verify_slices_are_equal(&stored, token.as_bytes()).is_err() {
        return refused("Token does not match server's copy");
    }
    let reference = Ref { name: name.clone(), uid: uid.clone() };
    match find(objects, "serviceaccounts", &namespace, &reference).await {
        None => refused(format!("serviceaccounts \"{name}\" not found")),
        Some(account) if meta::uid(&account) != uid => {
            refused(format!("ServiceAccount UID ({}) does not match claim ({uid})", meta::uid(&account)))
        }
        Some(account) if !meta::string(&account, "deletionTimestamp").is_empty() => {
            refused(format!("ServiceAccount {namespace}/{name} has been deleted"))
        }
        Some(_) => {
            note_use(objects, &namespace, &secret).await;
            if !label(&secret, INVALID_SINCE).is_empty() {
                return refused(format!(
                    "the token in secret {namespace}/{secret_name} for service account {namespace}/{name} has been marked invalid. Use tokens from the TokenRequest API or manually created secret-based tokens, or remove the '{INVALID_SINCE}' label from the secret to temporarily allow use of this token"
                ));
            }
            Ok(account_user(&namespace, &name, &uid))
        }
    }
}

/// Labels a legacy token's secret with the day of its last use, by which old ones are found and cleaned up.
async fn note_use(objects: &dyn Objects, namespace: &str, secret: &Value) {
    let day = |offset: i64| {
        let at = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24 * offset);
        meta::rfc3339(at)[..10].to_owned()
    };
    let today = day(0);
    let noted = label(secret, LAST_USED);
    if noted == today || noted == day(1) {
        return;
    }
    let mut marked = secret.clone();
    marked["metadata"]["labels"][LAST_USED] = today.into();
    if let Err(error) = objects.update(&Gvr::new("", "v1", "secrets"), namespace, "", marked).await {
        tracing::warn!(
            secret = meta::name(secret),
            namespace,
            error = error.message(),
            "could not note a token's use"
        );
    }
}

fn label<'a>(object: &'a Value, key: &str) -> &'a str {
    object["metadata"]["labels"][key].as_str().unwrap_or_default()
}
