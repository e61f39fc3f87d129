//! `serviceaccounts/token`: a token for a service account, bound to a pod, secret or node if asked.

use keelson_api_types::gvk::split_api_version;
use keelson_api_types::{FieldError, GroupKind, GroupResource, Gvr, StatusError, meta};
use serde_json::{Value, json};
use std::sync::Arc;

use super::{Bound, Claims, Ref, Tokens};
use crate::types::{Objects, ReviewRequest};

const GROUP: &str = "authentication.k8s.io";
const KIND: &str = "TokenRequest";
const DEFAULT_SECONDS: i64 = 3600;
const MIN_SECONDS: i64 = 600;
const MAX_SECONDS: i64 = 1 << 32;
/// Seconds that the projected volume of every pod asks for. Clients of old do not reload tokens, so
/// such a token lives for a year and says in `warnafter` when it should have been replaced.
const PROJECTED_SECONDS: i64 = 60 * 60 + 7;
const EXTENDED_SECONDS: i64 = 365 * 24 * 3600;

/// What the token is bound to.
#[derive(Default)]
struct Binding {
    pod: Option<Ref>,
    secret: Option<Ref>,
    node: Option<Ref>,
}

/// Answers a TokenRequest: the request with its status filled in.
pub async fn create(
    tokens: &Tokens,
    objects: &dyn Objects,
    request: ReviewRequest<'_>,
) -> Result<Value, StatusError> {
    let (namespace, name) = (request.namespace, request.name);
    let mut object = request.object;
    check_identity(&object, namespace, name)?;
    let account = fetch(objects, "serviceaccounts", namespace, name).await?;
    let uid = meta::uid(&account).to_owned();
    check_uid(&object, name, &uid)?;

    let spec = object["spec"].clone();
    let audiences = match string_list(&spec["audiences"]) {
        none if none.is_empty() => tokens.audiences().to_vec(),
        some => some,
    };
    let seconds = spec["expirationSeconds"].as_i64().unwrap_or(DEFAULT_SECONDS);
    check_seconds(seconds)?;
    let binding = resolve(objects, &spec["boundObjectRef"], namespace, name).await?;

    let now = jiff::Timestamp::now();
    let for_this_server = audiences.iter().all(|a| tokens.audiences().contains(a));
    let extend = binding.pod.is_some() && seconds == PROJECTED_SECONDS && for_this_server;
    let lifetime = if extend { EXTENDED_SECONDS } else { seconds };
    let token = tokens
        .sign(Claims {
            aud: audiences.clone(),
            exp: Some(now.as_second() + lifetime),
            iat: Some(now.as_second()),
            nbf: Some(now.as_second()),
            jti: uuid::Uuid::new_v4().to_string(),
            sub: format!("system:serviceaccount:{namespace}:{name}"),
            bound: Some(Bound {
                namespace: namespace.to_owned(),
                serviceaccount: Ref { name: name.to_owned(), uid: uid.clone() },
                pod: binding.pod,
                secret: binding.secret,
                node: binding.node,
                warnafter: extend.then(|| now.as_second() + seconds),
            }),
            ..Claims::default()
        })
        .map_err(|e| StatusError::internal(format!("failed to generate token: {e}")))?;

    let expires = now.checked_add(jiff::SignedDuration::from_secs(seconds)).unwrap_or(now);
    object["apiVersion"] = format!("{GROUP}/v1").into();
    object["kind"] = KIND.into();
    object["metadata"]["name"] = name.into();
    object["metadata"]["namespace"] = namespace.into();
    object["metadata"]["uid"] = uid.into();
    object["metadata"]["creationTimestamp"] = meta::rfc3339(now).into();
    object["spec"]["audiences"] = json!(audiences);
    object["spec"]["expirationSeconds"] = seconds.into();
    if object["spec"].get("boundObjectRef").is_none() {
        object["spec"]["boundObjectRef"] = Value::Null;
    }
    object["status"] = json!({"token": token, "expirationTimestamp": meta::rfc3339(expires)});
    Ok(object)
}

fn kind() -> GroupKind {
    GroupKind::new(GROUP, KIND)
}

fn check_identity(object: &Value, namespace: &str, name: &str) -> Result<(), StatusError> {
    let checks = [
        ("name", meta::name(object), name, "must match the service account name if specified"),
        (
            "namespace",
            meta::namespace(object),
            namespace,
            "must match the service account namespace if specified",
        ),
    ];
    for (field, got, want, detail) in checks {
        if !got.is_empty() && got != want {
            let error = FieldError::invalid(format!("metadata.{field}"), got, detail);
            return Err(StatusError::invalid(&kind(), name, vec![error]));
        }
    }
    Ok(())
}

fn check_uid(object: &Value, name: &str, uid: &str) -> Result<(), StatusError> {
    let asked = meta::uid(object);
    if asked.is_empty() || asked == uid {
        return Ok(());
    }
    Err(StatusError::conflict(
        &GroupResource::new(GROUP, KIND),
        name,
        format!(
            "the UID in the token request ({asked}) does not match the UID of the service account ({uid})"
        ),
    ))
}

fn check_seconds(seconds: i64) -> Result<(), StatusError> {
    let path = "spec.expirationSeconds";
    let error = if seconds < MIN_SECONDS {
        FieldError::invalid(path, seconds, "may not specify a duration less than 10 minutes")
    } else if seconds > MAX_SECONDS {
        FieldError::invalid(path, seconds, "may not specify a duration larger than 2^32 seconds")
    } else {
        return Ok(());
    };
    Err(StatusError::invalid(&kind(), "", vec![error]))
}

/// Reads what `boundObjectRef` names.
async fn resolve(
    objects: &dyn Objects,
    reference: &Value,
    namespace: &str,
    account: &str,
) -> Result<Binding, StatusError> {
    let text = |key: &str| reference[key].as_str().unwrap_or_default();
    if !reference.is_object() {
        return Ok(Binding::default());
    }
    let (group, version) = split_api_version(text("apiVersion"));
    let (kind, name) = (text("kind"), text("name"));
    let mut binding = Binding::default();
    let uid = match (group, kind) {
        ("", "Pod") => {
            let pod = fetch(objects, "pods", namespace, name).await?;
            if pod["spec"]["serviceAccountName"] != account {
                return Err(StatusError::bad_request(format!(
                    "cannot bind token for serviceaccount {account:?} to pod running with different serviceaccount name."
                )));
            }
            binding.pod = Some(reference_to(&pod));
            binding.node = pod["spec"]["nodeName"].as_str().filter(|n| !n.is_empty()).map(|node| {
                let found = objects.get(&core("nodes"), "", node);
                Ref {
                    name: node.to_owned(),
                    uid: found.map(|n| meta::uid(&n).to_owned()).unwrap_or_default(),
                }
            });
            meta::uid(&pod).to_owned()
        }
        ("", "Node") => {
            let node = fetch(objects, "nodes", "", name).await?;
            binding.node = Some(reference_to(&node));
            meta::uid(&node).to_owned()
        }
        ("", "Secret") => {
            let secret = fetch(objects, "secrets", namespace, name).await?;
            binding.secret = Some(reference_to(&secret));
            meta::uid(&secret).to_owned()
        }
        _ => {
            return Err(StatusError::bad_request(format!(
                "cannot bind token to object of type {group}/{version}, Kind={kind}"
            )));
        }
    };
    let asked = text("uid");
    if !asked.is_empty() && asked != uid {
        return Err(StatusError::conflict(
            &GroupResource::new(group, kind),
            name,
            format!(
                "the UID in the bound object reference ({asked}) does not match the UID in record. The object might have been deleted and then recreated"
            ),
        ));
    }
    Ok(binding)
}

fn reference_to(object: &Value) -> Ref {
    Ref { name: meta::name(object).to_owned(), uid: meta::uid(object).to_owned() }
}

fn core(resource: &str) -> Gvr {
    Gvr::new("", "v1", resource)
}

/// From memory if it is there, else from the store: a token for something just created must not fail.
async fn fetch(
    objects: &dyn Objects,
    resource: &str,
    namespace: &str,
    name: &str,
) -> Result<Arc<Value>, StatusError> {
    let gvr = core(resource);
    if let Some(found) = objects.get(&gvr, namespace, name) {
        return Ok(found);
    }
    match objects.get_fresh(&gvr, namespace, name).await? {
        Some(found) => Ok(found),
        None => Err(StatusError::not_found(&gvr.group_resource(), name)),
    }
}

pub(crate) fn string_list(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}
