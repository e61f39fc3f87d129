//! The files of volumes that show objects of the API.

use super::atomic::{File, Files};
use super::tokens::{Tokens, Wanted};
use crate::context::Context;
use crate::pods::env::Facts;
use crate::pods::spec;
use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, DownwardAPIVolumeFile, DownwardAPIVolumeSource, KeyToPath, Pod,
    ProjectedVolumeSource, SecretVolumeSource,
};
use std::collections::BTreeMap;

type Result<T> = std::result::Result<T, String>;
type Data = BTreeMap<String, Vec<u8>>;

const DEFAULT_MODE: i32 = 0o644;

pub(super) async fn config_map(ctx: &Context, pod: &Pod, source: &ConfigMapVolumeSource) -> Result<Files> {
    let optional = source.optional == Some(true);
    let data = config_map_data(ctx, pod, &source.name, optional).await?;
    let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
    select(data, source.items.as_deref(), mode, optional)
}

pub(super) async fn secret(ctx: &Context, pod: &Pod, source: &SecretVolumeSource) -> Result<Files> {
    let optional = source.optional == Some(true);
    let name = source.secret_name.as_deref().unwrap_or_default();
    let data = secret_data(ctx, pod, name, optional).await?;
    let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
    select(data, source.items.as_deref(), mode, optional)
}

pub(super) fn downward(ctx: &Context, pod: &Pod, source: &DownwardAPIVolumeSource) -> Result<Files> {
    let items = source.items.as_deref().unwrap_or_default();
    downward_items(ctx, pod, items, source.default_mode.unwrap_or(DEFAULT_MODE))
}

pub(super) async fn projected(
    ctx: &Context,
    pod: &Pod,
    volume: &str,
    source: &ProjectedVolumeSource,
    tokens: &mut Tokens,
) -> Result<Files> {
    let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
    let mut files = Files::new();
    for part in source.sources.as_deref().unwrap_or_default() {
        if let Some(p) = &part.config_map {
            let optional = p.optional == Some(true);
            let data = config_map_data(ctx, pod, &p.name, optional).await?;
            files.extend(select(data, p.items.as_deref(), mode, optional)?);
        }
        if let Some(p) = &part.secret {
            let optional = p.optional == Some(true);
            let data = secret_data(ctx, pod, &p.name, optional).await?;
            files.extend(select(data, p.items.as_deref(), mode, optional)?);
        }
        if let Some(p) = &part.downward_api {
            files.extend(downward_items(ctx, pod, p.items.as_deref().unwrap_or_default(), mode)?);
        }
        if let Some(p) = &part.service_account_token {
            let wanted = Wanted {
                volume: volume.to_owned(),
                path: p.path.clone(),
                audience: p.audience.clone().unwrap_or_default(),
                seconds: p.expiration_seconds.unwrap_or(3600),
            };
            let token = tokens.get(ctx, pod, &wanted).await?;
            let (mode, uid) = token_access(pod, mode);
            files.insert(p.path.clone(), File { data: token.into_bytes(), mode, uid });
        }
        if let Some(p) = &part.cluster_trust_bundle
            && p.optional != Some(true)
        {
            return Err("clusterTrustBundle sources are not served by this node".into());
        }
    }
    Ok(files)
}

/// A token is for its pod alone: for one user where all containers share it, else for the pod's group.
fn token_access(pod: &Pod, default: i32) -> (u32, Option<u32>) {
    let of_pod = spec::spec(pod).security_context.as_ref().and_then(|c| c.run_as_user);
    let all = spec::containers(pod).iter().chain(spec::init_containers(pod));
    let mut users = all.map(|c| c.security_context.as_ref().and_then(|s| s.run_as_user).or(of_pod));
    let first = users.next().flatten();
    let shared = first.filter(|u| users.all(|other| other == Some(*u)));
    match (super::fs_group(pod), shared) {
        (Some(_), _) => (0o600, None),
        (None, Some(user)) => (0o600, Some(user as u32)),
        (None, None) => (default as u32, None),
    }
}

async fn config_map_data(ctx: &Context, pod: &Pod, name: &str, optional: bool) -> Result<Option<Data>> {
    let map = ctx.api.config_map(pod, name).await.map_err(|e| e.to_string())?;
    let Some(map) = map else {
        return if optional { Ok(None) } else { Err(format!("configmap {name:?} not found")) };
    };
    let text = map.object.data.iter().flatten().map(|(k, v)| (k.clone(), v.clone().into_bytes()));
    let binary = map.object.binary_data.iter().flatten().map(|(k, v)| (k.clone(), v.0.clone()));
    Ok(Some(text.chain(binary).collect()))
}

async fn secret_data(ctx: &Context, pod: &Pod, name: &str, optional: bool) -> Result<Option<Data>> {
    let secret = ctx.api.secret(pod, name).await.map_err(|e| e.to_string())?;
    let Some(secret) = secret else {
        return if optional { Ok(None) } else { Err(format!("secret {name:?} not found")) };
    };
    Ok(Some(secret.object.data.iter().flatten().map(|(k, v)| (k.clone(), v.0.clone())).collect()))
}

/// All keys, or those that `items` name, under the paths that they say.
fn select(data: Option<Data>, items: Option<&[KeyToPath]>, mode: i32, optional: bool) -> Result<Files> {
    let Some(mut data) = data else { return Ok(Files::new()) };
    let Some(items) = items.filter(|i| !i.is_empty()) else {
        let file = |data| File { data, mode: mode as u32, uid: None };
        return Ok(data.into_iter().map(|(k, v)| (k, file(v))).collect());
    };
    let mut files = Files::new();
    for item in items {
        match data.remove(&item.key) {
            Some(data) => {
                let mode = item.mode.unwrap_or(mode) as u32;
                files.insert(item.path.clone(), File { data, mode, uid: None });
            }
            None if optional => {}
            None => return Err(format!("references non-existent key: {}", item.key)),
        }
    }
    Ok(files)
}

fn downward_items(ctx: &Context, pod: &Pod, items: &[DownwardAPIVolumeFile], mode: i32) -> Result<Files> {
    let facts = Facts { pod, pod_ips: &[], host_ip: ctx.node_ip, allocatable: ctx.allocatable };
    let mut files = Files::new();
    for item in items {
        let value = match (&item.field_ref, &item.resource_field_ref) {
            (Some(field), _) => facts.field(&field.field_path),
            (None, Some(resource)) => facts.resource(resource, ""),
            (None, None) => continue,
        };
        let data = value.map_err(|e| e.to_string())?.into_bytes();
        let mode = item.mode.unwrap_or(mode) as u32;
        files.insert(item.path.clone(), File { data, mode, uid: None });
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn data() -> Option<Data> {
        Some([("a", "1"), ("b", "2")].map(|(k, v)| (k.to_owned(), v.as_bytes().to_vec())).into())
    }

    #[test]
    fn items_choose_keys_paths_and_modes() {
        let items: Vec<KeyToPath> =
            serde_json::from_value(json!([{ "key": "a", "path": "x/y", "mode": 256 }])).expect("items");
        let files = select(data(), Some(&items), 0o644, false).expect("chosen");
        assert_eq!(files.len(), 1);
        assert_eq!((files["x/y"].mode, files["x/y"].data.as_slice()), (0o400, b"1".as_slice()));
    }

    #[test]
    fn a_missing_key_is_an_error_unless_optional() {
        let items: Vec<KeyToPath> =
            serde_json::from_value(json!([{ "key": "z", "path": "z" }])).expect("items");
        assert!(select(data(), Some(&items), 0o644, false).is_err());
        assert!(select(data(), Some(&items), 0o644, true).expect("optional").is_empty());
    }

    #[test]
    fn a_token_belongs_to_the_only_user() {
        let pod = |value| -> Pod { serde_json::from_value(value).expect("a pod") };
        let one = pod(
            json!({ "spec": { "securityContext": { "runAsUser": 7 }, "containers": [{ "name": "a" }] } }),
        );
        assert_eq!(token_access(&one, 0o644), (0o600, Some(7)));
        let mixed = pod(json!({ "spec": { "containers": [
            { "name": "a", "securityContext": { "runAsUser": 7 } }, { "name": "b" },
        ] } }));
        assert_eq!(token_access(&mixed, 0o644), (0o644, None));
    }
}
