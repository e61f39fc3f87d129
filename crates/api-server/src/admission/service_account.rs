//! ServiceAccount: every pod runs as one, and its containers find the account's token mounted.

use std::sync::Arc;
use std::time::Duration;

use keelson_api_types::{StatusError, meta};
use rand::RngExt;
use serde_json::{Value, json};

use super::{core, has_annotation, items, push, text};
use crate::authz::node::graph::{Target, references};
use crate::types::{AdmissionRequest, Objects, Operation};

const MIRROR: &str = "kubernetes.io/config.mirror";
const ENFORCE_MOUNTABLE: &str = "kubernetes.io/enforce-mountable-secrets";
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME_PREFIX: &str = "kube-api-access-";
/// Marks the tokens that every pod gets; see the TokenRequest for what it means.
const TOKEN_SECONDS: i64 = 3607;
/// A new namespace's `default` account is a moment behind the namespace.
const DEFAULT_ACCOUNT_WAIT: Duration = Duration::from_secs(1);

pub async fn admit(objects: &dyn Objects, r: &mut AdmissionRequest<'_>) -> Result<(), StatusError> {
    if !r.is_create("", "pods") {
        return Ok(());
    }
    let Some(pod) = r.object.as_deref_mut().filter(|p| p["spec"].is_object()) else { return Ok(()) };
    // A node agent deletes a mirror pod whose spec is not what it wrote.
    if has_annotation(pod, MIRROR) {
        return validate(objects, r).await;
    }
    if text(pod, "/spec/serviceAccountName").is_empty() {
        pod["spec"]["serviceAccountName"] = "default".into();
    }
    let name = text(pod, "/spec/serviceAccountName").to_owned();
    // The deprecated twin of the field.
    pod["spec"]["serviceAccount"] = name.clone().into();
    let account = find(objects, r, &name).await?;
    let Some(pod) = r.object.as_deref_mut() else { return Ok(()) };
    let automount = pod["spec"]["automountServiceAccountToken"]
        .as_bool()
        .or(account["automountServiceAccountToken"].as_bool())
        .unwrap_or(true);
    if automount {
        mount_token(pod);
    }
    if items(&pod["spec"]["imagePullSecrets"]).is_empty() && !items(&account["imagePullSecrets"]).is_empty() {
        let names: Vec<Value> =
            items(&account["imagePullSecrets"]).iter().map(|s| json!({"name": s["name"]})).collect();
        pod["spec"]["imagePullSecrets"] = names.into();
    }
    validate(objects, r).await
}

pub async fn validate(objects: &dyn Objects, r: &AdmissionRequest<'_>) -> Result<(), StatusError> {
    let create = r.is_create("", "pods");
    let ephemeral = r.op == Operation::Update && r.is("", "pods", "ephemeralcontainers");
    let Some(pod) = r.object.as_deref().filter(|_| create || ephemeral) else { return Ok(()) };
    if create && has_annotation(pod, MIRROR) {
        return check_mirror(pod).map_err(|why| r.forbidden(why));
    }
    let name = text(pod, "/spec/serviceAccountName");
    if name.is_empty() {
        let why = format!("no service account specified for pod {}/{}", r.namespace, meta::name(pod));
        return Err(r.forbidden(why));
    }
    let account = find(objects, r, name).await?;
    let enforced = meta::annotation(&account, ENFORCE_MOUNTABLE).is_some_and(|v| v == "true" || v == "1");
    if !enforced {
        return Ok(());
    }
    limit_secrets(pod, &account, ephemeral).map_err(|why| r.forbidden(why))
}

fn check_mirror(pod: &Value) -> Result<(), &'static str> {
    if !text(pod, "/spec/serviceAccountName").is_empty() {
        return Err("a mirror pod may not reference service accounts");
    }
    if references(pod).iter().any(|(target, _)| *target == Target::Secret) {
        return Err("a mirror pod may not reference secrets");
    }
    let mut sources = items(&pod["spec"]["volumes"]).iter().flat_map(|v| items(&v["projected"]["sources"]));
    if sources.any(|s| s["serviceAccountToken"].is_object()) {
        return Err("a mirror pod may not use ServiceAccountToken volume projections");
    }
    Ok(())
}

async fn find(
    objects: &dyn Objects,
    r: &AdmissionRequest<'_>,
    name: &str,
) -> Result<Arc<Value>, StatusError> {
    let gvr = core("serviceaccounts");
    if let Some(found) = objects.get(&gvr, r.namespace, name) {
        return Ok(found);
    }
    let mut changes = objects.changes(&gvr);
    if let Some(found) = objects.get_fresh(&gvr, r.namespace, name).await? {
        return Ok(found);
    }
    let created = async {
        while changes.changed().await.is_ok() {
            let found = objects.get(&gvr, r.namespace, name);
            if found.is_some() {
                return found;
            }
        }
        None
    };
    if name == "default"
        && let Ok(Some(found)) = tokio::time::timeout(DEFAULT_ACCOUNT_WAIT, created).await
    {
        return Ok(found);
    }
    Err(r.forbidden(format!(
        "error looking up service account {}/{name}: serviceaccount \"{name}\" not found",
        r.namespace
    )))
}

/// Adds the projected volume with token, CA and namespace to every container that has nothing there.
fn mount_token(pod: &mut Value) {
    let existing = items(&pod["spec"]["volumes"])
        .iter()
        .map(|v| text(v, "/name"))
        .find(|n| n.starts_with(VOLUME_PREFIX))
        .map(str::to_owned);
    let has_volume = existing.is_some();
    let name = existing.unwrap_or_else(|| format!("{VOLUME_PREFIX}{}", random_suffix()));
    let mut needed = false;
    for key in ["initContainers", "containers"] {
        let Some(containers) = pod["spec"].get_mut(key).and_then(Value::as_array_mut) else { continue };
        for container in containers {
            let taken = items(&container["volumeMounts"]).iter().any(|m| m["mountPath"] == MOUNT_PATH);
            if !taken {
                let mount = json!({"name": name, "readOnly": true, "mountPath": MOUNT_PATH});
                push(container, "volumeMounts", mount);
                needed = true;
            }
        }
    }
    if needed && !has_volume {
        push(&mut pod["spec"], "volumes", token_volume(&name));
    }
}

fn token_volume(name: &str) -> Value {
    json!({"name": name, "projected": {
        "defaultMode": 0o644,
        "sources": [
            {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [
                {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}},
            ]}},
        ],
    }})
}

/// Five of upstream's alphabet for generated names, which has no vowels and no look-alikes.
fn random_suffix() -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut rng = rand::rng();
    (0..5).map(|_| char::from(ALPHABET[rng.random_range(0..ALPHABET.len())])).collect()
}

/// With the annotation `enforce-mountable-secrets`, a pod may use only what its account lists.
fn limit_secrets(pod: &Value, account: &Value, ephemeral: bool) -> Result<(), String> {
    let account_name = meta::name(account);
    let listed = |list: &str, secret: &str| items(&account[list]).iter().any(|s| s["name"] == secret);
    let denied = |what: String| {
        format!("{what} is not allowed because service account {account_name} does not reference that secret")
    };
    let kinds: &[(&str, &str)] = if ephemeral {
        &[("ephemeralContainers", "ephemeral container")]
    } else {
        &[("initContainers", "init container"), ("containers", "container")]
    };
    if !ephemeral {
        for volume in items(&pod["spec"]["volumes"]) {
            let secret = text(volume, "/secret/secretName");
            if !secret.is_empty() && !listed("secrets", secret) {
                return Err(denied(format!("volume with secret.secretName=\"{secret}\"")));
            }
        }
    }
    for (key, what) in kinds {
        for container in items(&pod["spec"][key]) {
            let name = text(container, "/name");
            for variable in items(&container["env"]) {
                let secret = text(variable, "/valueFrom/secretKeyRef/name");
                if !secret.is_empty() && !listed("secrets", secret) {
                    let variable = text(variable, "/name");
                    return Err(denied(format!(
                        "{what} {name} with envVar {variable} referencing secret.secretName=\"{secret}\""
                    )));
                }
            }
            for source in items(&container["envFrom"]) {
                let secret = text(source, "/secretRef/name");
                if !secret.is_empty() && !listed("secrets", secret) {
                    return Err(denied(format!(
                        "{what} {name} with envFrom referencing secret.secretName=\"{secret}\""
                    )));
                }
            }
        }
    }
    for (i, secret) in items(&pod["spec"]["imagePullSecrets"]).iter().enumerate() {
        let secret = text(secret, "/name");
        if !ephemeral && !listed("imagePullSecrets", secret) {
            return Err(format!(
                "imagePullSecrets[{i}].name=\"{secret}\" is not allowed because service account {account_name} does not reference that imagePullSecret"
            ));
        }
    }
    Ok(())
}
