//! PUT of an object.

use std::sync::Arc;

use http::StatusCode;
use keelson_api_types::StatusError;
use serde_json::Value;

use super::write::{Change, Writer};
use crate::app::{App, Call};
use crate::body::Response;
use crate::codec;
use crate::meta;
use crate::options;
use crate::registry::Resource;

pub async fn serve(
    app: &Arc<App>,
    call: &mut Call,
    resource: &Arc<Resource>,
) -> Result<Response, StatusError> {
    replace(app, call, resource, "").await
}

/// Replaces an object or what one of its subresources is about.
pub async fn replace(
    app: &Arc<App>,
    call: &mut Call,
    resource: &Arc<Resource>,
    subresource: &str,
) -> Result<Response, StatusError> {
    let presenter = call.presenter(resource)?.check(false)?;
    let options = codec::write_options(call, "UpdateOptions")?;
    let object = codec::decode_object(call, resource, &options).await?;
    let object = resource.conversion.to_stored(object);
    let (namespace, name) = (call.info.namespace.clone(), call.info.name.clone());
    let namespace = if resource.namespaced { namespace } else { String::new() };
    check_name(&object, &name)?;
    let writer = Writer::new(app, resource, &call.user, &namespace, subresource, &options);
    let creates = subresource.is_empty() && resource.traits.creates_on_update;
    let mut warnings = Vec::new();
    let updated = writer
        .update(&name, creates, &mut warnings, |old| {
            check_version(resource, &name, &object, old)?;
            Ok(Change { object: object.clone(), tracked: false })
        })
        .await;
    call.warnings.append(&mut warnings);
    let updated = updated?;
    let status = if updated.created { StatusCode::CREATED } else { StatusCode::OK };
    Ok(presenter.respond(&call.headers, status, &updated.stored.entry()))
}

/// The object must be the one that the path names.
pub fn check_name(object: &Value, name: &str) -> Result<(), StatusError> {
    match meta::text(object, "name") {
        "" => Err(StatusError::bad_request(format!(
            "the name of the object ({name} based on URL) was undeterminable: name must be provided"
        ))),
        given if given != name => Err(StatusError::bad_request(format!(
            "the name of the object ({given}) does not match the name on the URL ({name})"
        ))),
        _ => Ok(()),
    }
}

/// The identity and revision that the client saw, where it says so.
pub fn check_version(
    resource: &Resource,
    name: &str,
    object: &Value,
    old: Option<&Value>,
) -> Result<(), StatusError> {
    let group_resource = resource.group_resource();
    let version = meta::text(object, "resourceVersion");
    let Some(old) = old else {
        return match version {
            "" | "0" => Ok(()),
            _ => Err(StatusError::conflict(
                &group_resource,
                name,
                "StorageError: invalid object, Code: 4, AdditionalErrorMsg: Precondition failed: UID in precondition",
            )),
        };
    };
    let uid = meta::text(object, "uid");
    if !uid.is_empty() && uid != meta::text(old, "uid") {
        let cause = format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
            meta::text(old, "uid")
        );
        return Err(StatusError::conflict(&group_resource, name, cause));
    }
    if version.is_empty() && !resource.traits.unconditional_update {
        let error = keelson_api_types::FieldError::invalid(
            "metadata.resourceVersion",
            Value::from(0),
            "must be specified for an update",
        );
        return Err(StatusError::invalid(&resource.group_kind(), name, vec![error]));
    }
    if options::revision(version)?.is_some_and(|v| v != 0) && version != meta::text(old, "resourceVersion") {
        return Err(StatusError::stale(&group_resource, name));
    }
    Ok(())
}
