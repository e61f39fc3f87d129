//! POST on a collection.

use std::sync::Arc;

use http::StatusCode;
use keelson_api_types::StatusError;

use super::admit::{Action, admit};
use super::write::Writer;
use crate::app::{App, Call};
use crate::body::Response;
use crate::codec;
use crate::meta;
use crate::options::WriteOptions;
use crate::registry::Resource;
use crate::types::{Operation, ReviewRequest};
use crate::view::View;

pub async fn serve(
    app: &Arc<App>,
    call: &mut Call,
    resource: &Arc<Resource>,
) -> Result<Response, StatusError> {
    let options = codec::write_options(call, "CreateOptions")?;
    let object = codec::decode_object(call, resource, &options).await?;
    if !resource.is_stored() {
        return computed(app, call, resource, object, &options).await;
    }
    let presenter = call.presenter(resource)?.check(false)?;
    let namespace = call.info.namespace.clone();
    // A create of a namespace is in no namespace, whatever upstream's path for it says.
    let namespace = if resource.namespaced { namespace } else { String::new() };
    let writer = Writer::new(app, resource, &call.user, &namespace, "", &options);
    let mut warnings = Vec::new();
    let stored = writer.create(resource.conversion.to_stored(object), &mut warnings).await;
    call.warnings.append(&mut warnings);
    Ok(presenter.respond(&call.headers, StatusCode::CREATED, &stored?.entry()))
}

/// Reviews are answered, not stored; a Binding is a create of the pod's subresource.
async fn computed(
    app: &Arc<App>,
    call: &mut Call,
    resource: &Arc<Resource>,
    mut object: serde_json::Value,
    options: &WriteOptions,
) -> Result<Response, StatusError> {
    if resource.gvr.resource == "bindings" {
        let pod = meta::text(&object, "name").to_owned();
        return crate::subresources::binding::bind(app, call, resource, &pod, object, options).await;
    }
    meta::match_namespace(&mut object, resource.namespaced, &call.info.namespace)?;
    let view = View::of(call, &resource.gvk)?;
    let (gvk, dry_run) = (&resource.gvk, options.dry_run);
    let action = Action { op: Operation::Create, gvk, options: &options.object, dry_run };
    admit(app, call, resource, action, &mut object).await?;
    let request = ReviewRequest {
        user: &call.user,
        gvr: &resource.gvr,
        subresource: "",
        namespace: &call.info.namespace,
        name: "",
        object,
        dry_run: options.dry_run,
    };
    let answer = app.security()?.review(request).await?;
    Ok(view.respond(&call.headers, StatusCode::CREATED, answer))
}
