//! GET of one object: the cache's bytes as they are.

use std::sync::Arc;

use http::StatusCode;
use keelson_api_types::StatusError;

use crate::app::{App, Call};
use crate::body::Response;
use crate::cache::Entry;
use crate::convert;
use crate::options::revision;
use crate::registry::Resource;

pub async fn serve(
    app: &Arc<App>,
    call: &mut Call,
    resource: &Arc<Resource>,
) -> Result<Response, StatusError> {
    let presenter = call.presenter(resource)?.check(false)?;
    let entry =
        read(app, resource, &call.info.namespace, &call.info.name, call.query.get("resourceVersion")).await?;
    Ok(presenter.respond(&call.headers, StatusCode::OK, &entry))
}

/// An object as the resource's version shows it, as fresh as `resource_version` asks: by default as of now.
pub async fn read(
    app: &App,
    resource: &Resource,
    namespace: &str,
    name: &str,
    resource_version: Option<&str>,
) -> Result<Arc<Entry>, StatusError> {
    match revision(resource_version.unwrap_or_default())? {
        None => drop(app.caches.fresh().await?),
        Some(0) => {}
        Some(revision) => drop(app.caches.wait_for(revision).await?),
    }
    let entry = resource.cache.get(&resource.key(namespace, name));
    let entry = entry.ok_or_else(|| StatusError::not_found(&resource.group_resource(), name))?;
    let shown = convert::shown(app, resource, vec![entry.clone()]).await?;
    Ok(shown.into_iter().next().unwrap_or(entry))
}
