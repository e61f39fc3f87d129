//! The OpenAPI documents: v2 whole, v3 by group and version, written when they are asked for.

use std::sync::Arc;

use http::header::{CACHE_CONTROL, ETAG, EXPIRES, IF_NONE_MATCH, VARY};
use http::{HeaderValue, StatusCode};
use keelson_api_types::StatusError;
use keelson_machinery::openapi::{self, CrdSchema};

use crate::app::{App, Call};
use crate::body::{Body, Response};
use crate::response;

/// `None` for paths that are not OpenAPI's.
pub fn serve(app: &Arc<App>, call: &Call) -> Option<Result<Response, StatusError>> {
    let path = call.info.path.trim_end_matches('/');
    if path == "/openapi/v2" {
        return Some(v2(app, call));
    }
    let rest = path.strip_prefix("/openapi/v3")?;
    if rest.is_empty() {
        let index = openapi::v3_index(&custom(app));
        return Some(Ok(response::json_bytes(&call.headers, response::encode(&index))));
    }
    let parts: Vec<&str> = rest.trim_start_matches('/').split('/').collect();
    let document = match parts.as_slice() {
        ["api", version] => v3(app, call, "", version),
        ["apis", group, version] => v3(app, call, group, version),
        _ => Err(StatusError::not_found_path()),
    };
    Some(document)
}

fn custom(app: &App) -> Vec<Arc<CrdSchema>> {
    app.registry.all().iter().filter_map(|r| r.custom.as_ref().map(|c| c.schema.clone())).collect()
}

fn v2(app: &App, call: &Call) -> Result<Response, StatusError> {
    call.accepted()?;
    let custom = custom(app);
    let etag = openapi::v2_hash(&custom);
    Ok(unchanged(call, &etag).unwrap_or_else(|| tagged(call, &etag, openapi::v2(&custom))))
}

fn v3(app: &App, call: &Call, group: &str, version: &str) -> Result<Response, StatusError> {
    let custom = custom(app);
    let etag = openapi::v3_hash(group, version, &custom);
    if let Some(answer) = unchanged(call, &etag) {
        return Ok(answer);
    }
    let document = openapi::v3(group, version, &custom).ok_or_else(StatusError::not_found_path)?;
    let mut answer = tagged(call, &etag, document);
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

fn tagged(call: &Call, etag: &str, document: Vec<u8>) -> Response {
    let mut answer = response::json_bytes(&call.headers, document.into());
    if let Ok(etag) = HeaderValue::from_str(&format!("\"{etag}\"")) {
        answer.headers_mut().insert(ETAG, etag);
    }
    answer.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
    answer
}
