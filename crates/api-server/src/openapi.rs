//! The OpenAPI documents: v2 whole, v3 by group and version, written when they are asked for.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, ETAG, EXPIRES, IF_NONE_MATCH, VARY};
use http::{HeaderValue, StatusCode};
use keelson_api_types::StatusError;
use keelson_machinery::openapi::{self, CrdSchema};
use serde_json::{Value, json};

use crate::aggregation::{self, Remote};
use crate::app::{App, Call};
use crate::body::{Body, Response};
use crate::response;

/// `None` for paths that are not OpenAPI's.
pub async fn serve(app: &Arc<App>, call: &mut Call) -> Option<Result<Response, StatusError>> {
    let path = call.info.path.trim_end_matches('/').to_owned();
    if path == "/openapi/v2" {
        return Some(v2(app, call));
    }
    let rest = path.strip_prefix("/openapi/v3")?;
    if rest.is_empty() {
        let mut index = openapi::v3_index(&custom(app));
        add_remote(app, &mut index);
        return Some(Ok(response::json_bytes(&call.headers, response::encode(&index))));
    }
    let rest = rest.trim_start_matches('/');
    if let Some(remote) = remote_with(app, rest) {
        return Some(match &remote.documents().converted {
            Some(converted) => Ok(response::json_bytes(&call.headers, converted.clone())),
            None => Ok(aggregation::proxy(app, call, &remote).await),
        });
    }
    let parts: Vec<&str> = rest.split('/').collect();
    let document = match parts.as_slice() {
        ["api", version] => v3(app, call, "", version),
        ["apis", group, version] => v3(app, call, group, version),
        _ => Err(StatusError::not_found_path()),
    };
    Some(document)
}

/// Adds the documents of extension servers to the index.
fn add_remote(app: &App, index: &mut Value) {
    let Some(paths) = index["paths"].as_object_mut() else { return };
    for remote in app.aggregation.remotes() {
        for (path, address) in &remote.documents().v3 {
            paths.entry(path).or_insert_with(|| json!({"serverRelativeURL": address}));
        }
    }
}

/// The extension server whose document a path is for.
fn remote_with(app: &App, path: &str) -> Option<Arc<Remote>> {
    let remotes = app.aggregation.remotes();
    let own = |parts: &[&str]| match parts {
        ["apis", group, version] => {
            app.registry.builtin().iter().any(|r| r.gvr.group == *group && r.gvr.version == *version)
        }
        parts => parts.first() == Some(&"api"),
    };
    if remotes.is_empty() || own(&path.split('/').collect::<Vec<_>>()) {
        return None;
    }
    remotes.into_iter().find(|r| r.documents().v3.contains_key(path))
}

fn custom(app: &App) -> Vec<Arc<CrdSchema>> {
    app.registry.all().iter().filter_map(|r| r.custom.as_ref().map(|c| c.schema.clone())).collect()
}

/// The v2 document as clients in Go ask for it; `@` is not allowed in what the answer says of itself.
const PROTOBUF: [&str; 2] = [
    "application/com.github.proto-openapi.spec.v2@v1.0+protobuf",
    "application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
];

fn wants_protobuf(call: &Call) -> bool {
    let accept = call.headers.get(ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let first = accept.split(',').next().unwrap_or_default();
    PROTOBUF.contains(&first.split(';').next().unwrap_or_default().trim())
}

fn v2(app: &App, call: &Call) -> Result<Response, StatusError> {
    if !wants_protobuf(call) {
        call.accepted()?;
    }
    let custom = custom(app);
    let (etag, document) = match unchanged(call, &openapi::v2_hash(&custom)) {
        // Without extension servers nothing has to be made to tell that nothing has changed.
        Some(answer) if app.aggregation.remotes().is_empty() => return Ok(answer),
        _ => app.aggregation.v2(openapi::v2_hash(&custom), || openapi::v2(&custom)),
    };
    if let Some(answer) = unchanged(call, &etag) {
        return Ok(answer);
    }
    if !wants_protobuf(call) {
        return Ok(tagged(call, &etag, document));
    }
    let message = openapi::v2_protobuf(&document).map_err(StatusError::internal)?;
    let mut answer = tagged(call, &etag, message.into());
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(PROTOBUF[1]));
    Ok(answer)
}

fn v3(app: &App, call: &Call, group: &str, version: &str) -> Result<Response, StatusError> {
    let custom = custom(app);
    let etag = openapi::v3_hash(group, version, &custom);
    if let Some(answer) = unchanged(call, &etag) {
        return Ok(answer);
    }
    let document = openapi::v3(group, version, &custom).ok_or_else(StatusError::not_found_path)?;
    let mut answer = tagged(call, &etag, document.into());
    // Under an address with the right hash the document never changes.
    if call.query.get("hash") == Some(&*etag) {
        let headers = answer.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
        headers.insert(EXPIRES, HeaderValue::from_static("Fri, 31 Dec 2100 23:59:59 GMT"));
    }
    Ok(answer)
}

fn unchanged(call: &Call, etag: &str) -> Option<Response> {
    let known = call.headers.get(IF_NONE_MATCH).and_then(|v| v.to_str().ok())?;
    if known.trim_matches('"') != etag {
        return None;
    }
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::NOT_MODIFIED;
    Some(answer)
}

fn tagged(call: &Call, etag: &str, document: Bytes) -> Response {
    let mut answer = response::json_bytes(&call.headers, document);
    if let Ok(etag) = HeaderValue::from_str(&format!("\"{etag}\"")) {
        answer.headers_mut().insert(ETAG, etag);
    }
    answer.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
    answer
}
