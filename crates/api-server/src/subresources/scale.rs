//! The `scale` subresource: replicas of whatever has replicas, behind one kind.

use std::sync::Arc;

use http::StatusCode;
use keelson_api_types::{FieldError, GroupKind, LabelSelector, StatusError};
use serde_json::{Value, json};

use super::decode;
use crate::app::{App, Call};
use crate::body::Response;
use crate::codec;
use crate::meta;
use crate::patches::{Patch, PatchKind};
use crate::registry::{Resource, Subresource};
use crate::response;
use crate::verbs::get;
use crate::verbs::update::{check_name, check_version};
use crate::verbs::write::{Change, Writer};

pub async fn serve(
    app: &Arc<App>,
    call: &mut Call,
    resource: &Arc<Resource>,
    subresource: &Subresource,
) -> Result<Response, StatusError> {
    let accepted = call.accepted()?;
    let (namespace, name) = (call.info.namespace.clone(), call.info.name.clone());
    if call.info.verb == "get" {
        let entry = get::read(app, resource, &namespace, &name, call.query.get("resourceVersion")).await?;
        let object: Value = serde_json::from_slice(&entry.bytes).map_err(StatusError::internal)?;
        return Ok(response::value(&call.headers, StatusCode::OK, accepted, &scale_of(resource, &object)));
    }
    let patching = call.info.verb == "patch";
    let kind = if patching { "PatchOptions" } else { "UpdateOptions" };
    let options = codec::write_options(call, kind, resource)?;
    let wanted = if patching {
        let kind = match PatchKind::of(call.content_type(), resource)? {
            PatchKind::Apply => PatchKind::Merge,
            kind => kind,
        };
        let body = call.body().await?;
        Wanted::Patch(Patch::parse_as(kind, call.content_type(), &body)?)
    } else {
        let scale = decode(app, call, subresource, &options).await?;
        check_name(&scale, &name)?;
        Wanted::Scale(scale)
    };
    let writer = Writer {
        app,
        resource,
        user: &call.user,
        namespace: &namespace,
        subresource: "scale",
        options: &options,
        admitted: false,
    };
    let mut warnings = Vec::new();
    let updated = writer
        .update(&name, false, &mut warnings, |old| {
            let old = old.unwrap_or(&Value::Null);
            let scale = wanted.scale(resource, old)?;
            check_version(resource, &name, &scale, Some(old))?;
            Ok(Change { object: scaled(resource, &name, old, &scale)?, tracked: false })
        })
        .await;
    call.warnings.append(&mut warnings);
    let object = updated?.stored.parse()?;
    Ok(response::value(&call.headers, StatusCode::OK, accepted, &scale_of(resource, &object)))
}

enum Wanted {
    Scale(Value),
    Patch(Patch),
}

impl Wanted {
    fn scale(&self, resource: &Resource, old: &Value) -> Result<Value, StatusError> {
        match self {
            Self::Scale(scale) => Ok(scale.clone()),
            Self::Patch(patch) => {
                let ty = keelson_schema::builtin()
                    .for_kind("autoscaling", "v1", "Scale")
                    .ok_or_else(|| StatusError::internal("no schema for Scale"))?;
                patch.plain(ty, &scale_of(resource, old))
            }
        }
    }
}

/// Where a kind keeps its replicas: JSON pointers.
struct Paths {
    spec: String,
    status: String,
    selector: Option<String>,
}

fn paths(resource: &Resource) -> Paths {
    match resource.custom.as_ref().and_then(|c| c.scale()) {
        Some(scale) => Paths { spec: scale.spec, status: scale.status, selector: scale.selector },
        None => Paths {
            spec: "/spec/replicas".into(),
            status: "/status/replicas".into(),
            selector: Some("/spec/selector".into()),
        },
    }
}

fn scale_of(resource: &Resource, object: &Value) -> Value {
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
    let replicas = scale.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(0);
    if replicas < 0 {
        let error = FieldError::invalid("spec.replicas", replicas, "must be greater than or equal to 0");
        return Err(StatusError::invalid(&GroupKind::new("autoscaling", "Scale"), name, vec![error]));
    }
    let mut object = old.clone();
    let mut at = &mut object;
    for part in paths(resource).spec.split('/').skip(1) {
        if !at.is_object() {
            *at = json!({});
        }
        at = &mut at[part];
    }
    *at = replicas.into();
    let version = meta::text(old, "resourceVersion").to_owned();
    meta::meta_mut(&mut object).insert("resourceVersion".into(), version.into());
    Ok(object)
}
