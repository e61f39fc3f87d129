//! The `scale` subresource: replicas of whatever has replicas, behind one kind.

use std::sync::Arc;

use http::StatusCode;
use keelson_api_types::meta::now_rfc3339;
use keelson_api_types::{FieldError, GroupKind, Gvk, LabelSelector, StatusError};
use keelson_machinery::apply::{self, Manager};
use serde_json::{Value, json};

use super::decode;
use crate::app::{App, Call};
use crate::body::Response;
use crate::codec;
use crate::meta;
use crate::options::WriteOptions;
use crate::patches::{Patch, PatchKind};
use crate::registry::{Resource, Subresource};
use crate::verbs::get;
use crate::verbs::update::{check_name, check_version};
use crate::verbs::write::{Change, Writer};
use crate::view::View;

pub async fn serve(
    app: &Arc<App>,
    call: &mut Call,
    resource: &Arc<Resource>,
    subresource: &Subresource,
) -> Result<Response, StatusError> {
    let mut view = View::of(call, &subresource.gvk)?;
    view.custom = resource.custom.is_some();
    let (namespace, name) = (call.info.namespace.clone(), call.info.name.clone());
    if call.info.verb == "get" {
        let entry = get::read(app, resource, &namespace, &name, call.query.get("resourceVersion")).await?;
        let object: Value = entry.decode().map_err(StatusError::internal)?;
        check_replicas(resource, &object)?;
        return Ok(view.respond(&call.headers, StatusCode::OK, scale_of(resource, &object)));
    }
    let patching = call.info.verb == "patch";
    let kind = if patching { "PatchOptions" } else { "UpdateOptions" };
    let options = codec::write_options(call, kind)?;
    let wanted = if patching {
        let kind = PatchKind::of(call.content_type(), resource)?;
        options.check_patch(&call.query, kind == PatchKind::Apply)?;
        let body = call.body().await?;
        Wanted::Patch(Patch::parse(kind, call.content_type(), &body)?)
    } else {
        let scale = decode(app, call, subresource, &options).await?;
        check_name(&scale, &name)?;
        Wanted::Scale(scale)
    };
    let writer = Writer::new(app, resource, &call.user, &namespace, "scale", &options);
    let (mut warnings, mut said) = (Vec::new(), Vec::new());
    let updated = writer
        .update(&name, false, &mut warnings, |old| {
            let old = old.ok_or_else(|| StatusError::not_found(&resource.group_resource(), &name))?;
            said.clear();
            let scale = wanted.scale(resource, &options, &name, old, &mut said)?;
            // Of a Scale, the revision is a precondition and never missed.
            if !meta::text(&scale, "resourceVersion").is_empty() {
                check_version(resource, &name, &scale, Some(old))?;
            }
            Ok(Change { object: scaled(resource, &name, old, &scale)?, tracked: true })
        })
        .await;
    call.warnings.append(&mut said);
    call.warnings.append(&mut warnings);
    let object = updated?.stored.parse()?;
    Ok(view.respond(&call.headers, StatusCode::OK, scale_of(resource, &object)))
}

enum Wanted {
    Scale(Value),
    Patch(Patch),
}

impl Wanted {
    fn applies(&self) -> bool {
        matches!(self, Self::Patch(patch) if patch.kind() == PatchKind::Apply)
    }

    /// The scale that `old` is to have, with the managed fields that a scale's writes give it.
    fn scale(
        &self,
        resource: &Resource,
        options: &WriteOptions,
        name: &str,
        old: &Value,
        warnings: &mut Vec<String>,
    ) -> Result<Value, StatusError> {
        let ty = keelson_schema::builtin().for_kind("autoscaling", "v1", "Scale");
        let ty = ty.ok_or_else(|| StatusError::internal("no schema for Scale"))?;
        let now = now_rfc3339();
        let manager = Manager {
            name: &options.field_manager,
            api_version: "autoscaling/v1",
            subresource: "scale",
            resets: &[],
            versions: None,
            now: &now,
        };
        let mut before = scale_of(resource, old);
        let unset = check_replicas(resource, old).is_err();
        if unset {
            before["spec"]["replicas"] = UNSET.into();
        }
        if let Some(managed) = apply::scale_managed(managed(old), &|version| replicas_in(resource, version)) {
            before["metadata"]["managedFields"] = managed;
        }
        let mut scale = match self {
            Self::Scale(scale) => scale.clone(),
            Self::Patch(patch) if self.applies() => {
                patch.server_side(ty, options, &manager, name, Some(&before), warnings)?
            }
            Self::Patch(patch) => {
                let mut scale = patch.plain(ty, &before)?;
                patch.check(ty, options.validation, &mut scale, warnings)?;
                scale
            }
        };
        if unset && scale["spec"]["replicas"] == UNSET {
            let path = dotted(&paths(resource).spec);
            return Err(StatusError::bad_request(format!(
                "the spec replicas field {path:?} cannot be empty"
            )));
        }
        if !self.applies() {
            apply::track_update(ty, Some(&before), &mut scale, &manager)?;
        }
        Ok(scale)
    }
}

/// What a patch finds as the replicas of a custom object that has none, as upstream has it.
const UNSET: i64 = i32::MIN as i64;

fn managed(object: &Value) -> Option<&Value> {
    object.get("metadata")?.get("managedFields")
}

/// Where a kind keeps its replicas: JSON pointers.
struct Paths {
    spec: String,
    status: String,
    selector: Option<String>,
}

impl Paths {
    fn replicas(&self) -> Vec<&str> {
        names(&self.spec)
    }
}

fn names(pointer: &str) -> Vec<&str> {
    pointer.split('/').skip(1).collect()
}

fn dotted(pointer: &str) -> String {
    pointer.replace('/', ".")
}

/// Where objects of another version of the resource keep their replicas: of built-in ones all in one place.
fn replicas_in<'a>(resource: &'a Resource, api_version: &str) -> Option<Vec<&'a str>> {
    let Some(custom) = &resource.custom else {
        let group = Gvk::from_api_version(api_version, "").group;
        return (group == resource.gvr.group).then(|| vec!["spec", "replicas"]);
    };
    let version = custom.versions.types.get(api_version)?;
    Some(version.replicas.as_deref().map(names).unwrap_or_default())
}

fn paths(resource: &Resource) -> Paths {
    match resource.custom.as_ref().and_then(|c| c.scale()) {
        Some(scale) => {
            Paths { spec: scale.spec.clone(), status: scale.status.clone(), selector: scale.selector.clone() }
        }
        None => Paths {
            spec: "/spec/replicas".into(),
            status: "/status/replicas".into(),
            selector: Some("/spec/selector".into()),
        },
    }
}

/// A custom object may have no replicas: there is nothing to show then.
fn check_replicas(resource: &Resource, object: &Value) -> Result<(), StatusError> {
    let Some(scale) = resource.custom.as_ref().and_then(|c| c.scale()) else { return Ok(()) };
    match object.pointer(&scale.spec).is_some() {
        true => Ok(()),
        false => {
            let path = dotted(&scale.spec);
            Err(StatusError::internal(format!("the spec replicas field {path:?} does not exist")))
        }
    }
}

pub(crate) fn scale_of(resource: &Resource, object: &Value) -> Value {
    let paths = paths(resource);
    let replicas = |pointer: &str| object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0);
    let selector =
        paths.selector.and_then(|p| object.pointer(&p).and_then(selector_text)).unwrap_or_default();
    let mut metadata = json!({});
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object["metadata"].get(field) {
            metadata[field] = value.clone();
        }
    }
    let mut status = json!({"replicas": replicas(&paths.status)});
    if !selector.is_empty() {
        status["selector"] = selector.into();
    }
    json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": metadata,
        "spec": {"replicas": replicas(&paths.spec)},
        "status": status,
    })
}

/// A selector as text: of a custom resource it is text already, of others an object or a plain map.
fn selector_text(selector: &Value) -> Option<String> {
    match selector {
        Value::String(text) => Some(text.clone()),
        Value::Object(map) if map.contains_key("matchLabels") || map.contains_key("matchExpressions") => {
            let parsed = LabelSelector::from_object(Some(selector)).ok()?;
            let mut terms: Vec<String> = parsed
                .requirements()
                .iter()
                .map(|r| match (r.op, r.values.as_slice()) {
                    (keelson_api_types::selector::Operator::In, [one]) if map.contains_key("matchLabels") => {
                        format!("{}={one}", r.key)
                    }
                    _ => r.to_string(),
                })
                .collect();
            terms.sort();
            Some(terms.join(","))
        }
        Value::Object(map) => Some(
            map.iter()
                .filter_map(|(k, v)| Some(format!("{k}={}", v.as_str()?)))
                .collect::<Vec<_>>()
                .join(","),
        ),
        _ => None,
    }
}

/// The object with the replicas of a Scale.
fn scaled(resource: &Resource, name: &str, old: &Value, scale: &Value) -> Result<Value, StatusError> {
    let mut object = old.clone();
    set_replicas(resource, name, &mut object, scale)?;
    let api_version = resource.stored_api_version();
    let replicas = |version: &str| replicas_in(resource, version);
    let managed = apply::parent_managed(managed(old), managed(scale), &api_version, &replicas);
    let metadata = meta::meta_mut(&mut object);
    match managed {
        Some(managed) => metadata.insert("managedFields".into(), managed),
        None => metadata.remove("managedFields"),
    };
    Ok(object)
}

/// Gives an object the replicas of a Scale.
pub(crate) fn set_replicas(
    resource: &Resource,
    name: &str,
    object: &mut Value,
    scale: &Value,
) -> Result<(), StatusError> {
    let replicas = scale.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(0);
    if replicas < 0 {
        let error = FieldError::invalid("spec.replicas", replicas, "must be greater than or equal to 0");
        return Err(StatusError::invalid(&GroupKind::new("autoscaling", "Scale"), name, vec![error]));
    }
    let paths = paths(resource);
    let mut at = object;
    for part in &paths.replicas() {
        if !at.is_object() {
            *at = json!({});
        }
        at = &mut at[*part];
    }
    *at = replicas.into();
    Ok(())
}
