//! PATCH in its four kinds. Without a revision in the patch, it is applied anew to the latest state when
//! someone else was faster.

use std::borrow::Cow;
use std::sync::Arc;

use http::StatusCode;
use keelson_api_types::StatusError;
use serde_json::Value;

use super::update::check_version;
use super::write::{Change, Writer};
use crate::app::{App, Call};
use crate::body::Response;
use crate::codec;
use crate::meta;
use crate::patches::{Patch, PatchKind};
use crate::registry::Resource;

pub async fn serve(
    app: &Arc<App>,
    call: &mut Call,
    resource: &Arc<Resource>,
) -> Result<Response, StatusError> {
    patch(app, call, resource, "").await
}

/// Patches an object or what one of its subresources is about.
pub async fn patch(
    app: &Arc<App>,
    call: &mut Call,
    resource: &Arc<Resource>,
    subresource: &str,
) -> Result<Response, StatusError> {
    let presenter = call.presenter(resource)?.check(false)?;
    let kind = PatchKind::of(call.content_type(), resource)?;
    let options = codec::write_options(call, "PatchOptions")?;
    options.check_patch(&call.query, kind == PatchKind::Apply)?;
    let body = call.body().await?;
    let patch = Patch::parse(kind, call.content_type(), &body)?;
    let name = call.info.name.clone();
    let namespace = if resource.namespaced { call.info.namespace.clone() } else { String::new() };
    let writer = Writer::new(app, resource, &call.user, &namespace, subresource, &options);
    let creates = kind == PatchKind::Apply && subresource.is_empty();
    let mut warnings = Vec::new();
    let mut said = Vec::new();
    let updated = writer
        .update(&name, creates, &mut warnings, |old| {
            said.clear();
            one(&writer, &patch, &name, old, &mut said)
        })
        .await;
    call.warnings.append(&mut said);
    call.warnings.append(&mut warnings);
    let updated = updated?;
    let status = if updated.created { StatusCode::CREATED } else { StatusCode::OK };
    Ok(presenter.respond(&call.headers, status, &updated.stored.entry()))
}

/// Applies a patch to one state of the object.
fn one(
    writer: &Writer<'_>,
    patch: &Patch,
    name: &str,
    old: Option<&Value>,
    warnings: &mut Vec<String>,
) -> Result<Change, StatusError> {
    let resource = writer.resource;
    // Patches speak the served version.
    let served = old.map(|old| match resource.conversion.is_identity() {
        true => Cow::Borrowed(old),
        false => Cow::Owned(resource.conversion.to_served(old.clone())),
    });
    let mut object = patch.apply(writer, name, served.as_deref(), warnings)?;
    if patch.kind() != PatchKind::Apply {
        patch.check(&resource.ty, writer.options.validation, &mut object, warnings)?;
    }
    check_identity(resource, name, &object, old)?;
    Ok(Change { object: resource.conversion.to_stored(object), tracked: patch.kind() == PatchKind::Apply })
}

/// A patch may not turn the object into another one, nor create one that should be there.
fn check_identity(
    resource: &Resource,
    name: &str,
    object: &Value,
    old: Option<&Value>,
) -> Result<(), StatusError> {
    let given = meta::text(object, "name");
    if given != name {
        return Err(StatusError::bad_request(format!(
            "the name of the object ({given}) does not match the name on the URL ({name})"
        )));
    }
    let uid = meta::text(object, "uid");
    if old.is_none() && !uid.is_empty() {
        let cause = format!(
            "uid mismatch: the provided object specified uid {uid}, and no existing object was found"
        );
        return Err(StatusError::conflict(&resource.group_resource(), name, cause));
    }
    check_version(resource, name, object, old)
}
