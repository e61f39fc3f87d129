//! One path per verb, for every resource alike.

pub mod admit;
pub mod create;
pub mod delete;
pub mod get;
pub mod list;
pub mod patch;
pub mod stored;
pub mod update;
pub mod watch;
pub mod write;

use std::sync::Arc;

use keelson_api_types::StatusError;

use crate::app::{App, Call};
use crate::body::Response;
use crate::registry::Resource;

/// Routes an authorized request on a resource itself.
pub async fn serve(
    app: &Arc<App>,
    call: &mut Call,
    resource: &Arc<Resource>,
) -> Result<Response, StatusError> {
    let verb = call.info.verb.clone();
    if !resource.has_verb(&verb) {
        return Err(StatusError::method_not_supported(&resource.group_resource(), &verb));
    }
    check_scope(call, resource)?;
    // A collection is not replaced, and an object is created under its collection.
    if matches!(verb.as_str(), "update" | "patch") == call.info.name.is_empty()
        && matches!(verb.as_str(), "update" | "patch" | "create")
    {
        return Err(StatusError::method_not_supported(&resource.group_resource(), &verb));
    }
    let deprecated = resource.traits.deprecated;
    if !deprecated.is_empty() {
        let (version, kind) = (resource.gvr.api_version(), &resource.gvk.kind);
        call.warnings.push(format!("{version} {kind} is deprecated in {deprecated}"));
    }
    if resource.gvr.resource == "componentstatuses" && resource.gvr.group.is_empty() {
        return Box::pin(crate::components::serve(app, call, resource)).await;
    }
    // Boxed is what needs much more room than the others.
    match verb.as_str() {
        "get" => get::serve(app, call, resource).await,
        "list" => list::serve(app, call, resource).await,
        "watch" => watch::serve(app, call, resource).await,
        "create" => Box::pin(create::serve(app, call, resource)).await,
        "update" => Box::pin(update::serve(app, call, resource)).await,
        "patch" => Box::pin(patch::serve(app, call, resource)).await,
        "delete" => Box::pin(delete::serve(app, call, resource)).await,
        "deletecollection" => Box::pin(delete::serve_collection(app, call, resource)).await,
        other => Err(StatusError::method_not_supported(&resource.group_resource(), other)),
    }
}

/// Paths that no resource has: an object or a create of a namespaced kind without a namespace, and
/// cluster-scoped kinds in one.
fn check_scope(call: &Call, resource: &Resource) -> Result<(), StatusError> {
    let info = &call.info;
    let all_namespaces = matches!(info.verb.as_str(), "list" | "watch");
    let in_namespace = !info.namespace.is_empty();
    let fine = if resource.namespaced {
        in_namespace || all_namespaces
    } else {
        !in_namespace || resource.gvr.resource == "namespaces" && resource.gvr.group.is_empty()
    };
    if fine { Ok(()) } else { Err(StatusError::not_found_path()) }
}
