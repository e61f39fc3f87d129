//! What lies below an object: parts that are written alone, views of it, actions on it.

pub mod binding;
pub mod eviction;
pub mod proxy;
pub mod scale;
pub mod streams;

use std::sync::Arc;

use http::StatusCode;
use keelson_api_types::StatusError;

use crate::app::{App, Call};
use crate::body::Response;
use crate::codec;
use crate::registry::Resource;
use crate::types::{Operation, ReviewRequest};
use crate::verbs::admit::{Action, admit};
use crate::verbs::{get, patch, update};
use crate::view::View;

pub async fn serve(
    app: &Arc<App>,
    call: &mut Call,
    resource: &Arc<Resource>,
) -> Result<Response, StatusError> {
    let name = call.info.subresource.clone();
    let subresource = resource.subresource(&name).cloned().ok_or_else(StatusError::not_found_path)?;
    let verb = call.info.verb.clone();
    // A proxied server has methods of its own; OPTIONS is no verb of the API.
    if !subresource.verbs.contains(&verb) && name != "proxy" {
        return Err(StatusError::method_not_supported(&resource.group_resource(), &verb));
    }
    if resource.namespaced && call.info.namespace.is_empty() {
        return Err(StatusError::not_found_path());
    }
    match name.as_str() {
        "scale" => scale::serve(app, call, resource, &subresource).await,
        "binding" => {
            let options = codec::write_options(call, "CreateOptions")?;
            let object = decode(app, call, &subresource, &options).await?;
            let pod = call.info.name.clone();
            binding::bind(app, call, resource, &pod, object, &options).await
        }
        "eviction" => eviction::serve(app, call, resource, &subresource).await,
        "token" => token(app, call, resource, &subresource).await,
        "log" | "exec" | "attach" | "portforward" => streams::serve(app, call, resource).await,
        "proxy" => proxy::serve(app, call, resource).await,
        part => match verb.as_str() {
            "get" => get::serve(app, call, resource).await,
            "update" => update::replace(app, call, resource, part).await,
            "patch" => patch::patch(app, call, resource, part).await,
            other => Err(StatusError::method_not_supported(&resource.group_resource(), other)),
        },
    }
}

/// Decodes a body as the subresource's own kind.
pub async fn decode(
    _app: &Arc<App>,
    call: &mut Call,
    subresource: &crate::registry::Subresource,
    options: &crate::options::WriteOptions,
) -> Result<serde_json::Value, StatusError> {
    let body = call.body().await?;
    let ty = keelson_schema::builtin()
        .for_gvk(&subresource.gvk)
        .ok_or_else(|| StatusError::internal(format!("no schema for {}", subresource.gvk)))?;
    let mut warnings = Vec::new();
    let decoded = codec::decode_as(call.content_type(), &body, &subresource.gvk, ty, options, &mut warnings);
    call.warnings.append(&mut warnings);
    decoded
}

async fn token(
    app: &Arc<App>,
    call: &mut Call,
    resource: &Arc<Resource>,
    subresource: &crate::registry::Subresource,
) -> Result<Response, StatusError> {
    let options = codec::write_options(call, "CreateOptions")?;
    let mut object = decode(app, call, subresource, &options).await?;
    let view = View::of(call, &subresource.gvk)?;
    let (gvk, dry_run) = (&subresource.gvk, options.dry_run);
    let action = Action { op: Operation::Create, gvk, options: &options.object, dry_run };
    admit(app, call, resource, action, &mut object).await?;
    let request = ReviewRequest {
        user: &call.user,
        gvr: &resource.gvr,
        subresource: "token",
        namespace: &call.info.namespace,
        name: &call.info.name,
        object,
        dry_run: options.dry_run,
    };
    let answer = app.security()?.review(request).await?;
    Ok(view.respond(&call.headers, StatusCode::CREATED, answer))
}
