//! The OpenAPI documents: v2 whole, v3 by group and version, made when they are first asked for after a change.

use std::collections::HashMap;
use std::io::Read;
use std::sync::Arc;

use bytes::Bytes;
use flate2::Compression;
use flate2::read::{GzDecoder, GzEncoder};
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, ETAG, EXPIRES, IF_NONE_MATCH, VARY};
use http::{HeaderValue, StatusCode};
use keelson_api_types::StatusError;
use keelson_api_types::resources::ResourceInfo;
use keelson_machinery::openapi::{self, CrdSchema};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::aggregation::{self, Remote};
use crate::app::{App, Call};
use crate::body::{Body, BoxError, Response};
use crate::response;

/// The documents as they were last made: v2 in each form, v3 by group and version.
#[derive(Default)]
pub struct Documents {
    json: Mutex<Made>,
    protobuf: Mutex<Made>,
    v3: Mutex<HashMap<(String, String), Made>>,
}

/// A tag, and the document compressed: kept whole it would be much of the server's memory.
type Made = (String, Bytes);

/// `None` for paths that are not OpenAPI's.
pub async fn serve(app: &Arc<App>, call: &mut Call) -> Option<Result<Response, StatusError>> {
    let path = call.info.path.trim_end_matches('/').to_owned();
    if path == "/openapi/v2" {
        return Some(v2(app, call).await);
    }
    let rest = path.strip_prefix("/openapi/v3")?;
    if rest.is_empty() {
        let mut index = openapi::v3_index(app.registry.served(), &custom(app));
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
        ["api", version] => v3(app, call, "", version).await,
        ["apis", group, version] => v3(app, call, group, version).await,
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

async fn v2(app: &Arc<App>, call: &Call) -> Result<Response, StatusError> {
    let protobuf = wants_protobuf(call);
    if !protobuf {
        call.accepted()?;
    }
    if let Some(answer) = unchanged(call, &Source::now(app).etag()) {
        return Ok(answer);
    }
    // Made to the end whether or not the client waits for it: the next one will.
    let app = app.clone();
    let made = async move { if protobuf { as_protobuf(&app).await } else { as_json(&app).await } };
    let (etag, document) = tokio::spawn(made).await.map_err(StatusError::internal)??;
    let mut answer = tagged(&etag, response::packed(&call.headers, document, unpack)?);
    if protobuf {
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(PROTOBUF[1]));
    }
    Ok(answer)
}

/// What the v2 document is made from.
struct Source {
    builtin: Vec<&'static ResourceInfo>,
    custom: Vec<Arc<CrdSchema>>,
    remote: Vec<aggregation::V2>,
}

impl Source {
    fn now(app: &App) -> Self {
        let builtin = app.registry.served().to_owned();
        Self { builtin, custom: custom(app), remote: app.aggregation.v2_parts() }
    }

    fn etag(&self) -> String {
        let own = openapi::v2_hash(&self.builtin, &self.custom);
        if self.remote.is_empty() {
            return own;
        }
        let tags: Vec<&str> = self.remote.iter().map(|p| p.etag.as_str()).collect();
        crate::discovery::etag(&(own, tags)).trim_matches('"').to_owned()
    }

    fn json(&self) -> Vec<u8> {
        let own = openapi::v2(&self.builtin, &self.custom);
        if self.remote.is_empty() {
            return own;
        }
        let mut whole: Value = serde_json::from_slice(&own).unwrap_or_default();
        self.remote.iter().for_each(|part| aggregation::openapi::merge(&mut whole, &part.document));
        serde_json::to_vec(&whole).unwrap_or_default()
    }
}

/// Makes it anew if it has changed. Who asks while it is made waits; of all changes meanwhile one more is made.
async fn as_json(app: &App) -> Result<Made, StatusError> {
    let mut made = app.openapi.json.lock().await;
    let source = Source::now(app);
    let etag = source.etag();
    if made.0 != etag {
        *made = (etag, aside(move || Ok(pack(&source.json())?)).await?);
    }
    Ok(made.clone())
}

async fn as_protobuf(app: &App) -> Result<Made, StatusError> {
    let mut made = app.openapi.protobuf.lock().await;
    let (etag, json) = as_json(app).await?;
    if made.0 != etag {
        let convert = move || Ok(pack(&openapi::v2_protobuf(&unpack(&json)?)?)?);
        *made = (etag, aside(convert).await?);
    }
    Ok(made.clone())
}

async fn as_v3(app: &App, group: &str, version: &str) -> Result<Made, StatusError> {
    let mut made = app.openapi.v3.lock().await;
    let custom = custom(app);
    let etag = openapi::v3_hash(app.registry.served(), group, version, &custom);
    let key = (group.to_owned(), version.to_owned());
    if let Some(known) = made.get(&key).filter(|known| known.0 == etag) {
        return Ok(known.clone());
    }
    let (builtin, (group, version)) = (app.registry.served().to_owned(), key.clone());
    let make = move || openapi::v3(&builtin, &group, &version, &custom).map(|v3| Ok(pack(&v3)?)).transpose();
    let document = aside(make).await?.ok_or_else(StatusError::not_found_path)?;
    let served = app.registry.all();
    made.retain(|(group, version), _| {
        served.iter().any(|r| r.gvr.group == *group && r.gvr.version == *version)
    });
    made.insert(key, (etag.clone(), document.clone()));
    Ok((etag, document))
}

/// Runs what takes long where it holds up nobody.
async fn aside<T: Send + 'static>(
    make: impl FnOnce() -> Result<T, BoxError> + Send + 'static,
) -> Result<T, StatusError> {
    let made = tokio::task::spawn_blocking(make).await.map_err(StatusError::internal)?;
    made.map_err(StatusError::internal)
}

fn pack(document: &[u8]) -> std::io::Result<Bytes> {
    let mut packed = Vec::new();
    GzEncoder::new(document, Compression::fast()).read_to_end(&mut packed)?;
    Ok(packed.into())
}

fn unpack(packed: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut document = Vec::new();
    GzDecoder::new(packed).read_to_end(&mut document)?;
    Ok(document)
}

async fn v3(app: &App, call: &Call, group: &str, version: &str) -> Result<Response, StatusError> {
    let etag = openapi::v3_hash(app.registry.served(), group, version, &custom(app));
    if let Some(answer) = unchanged(call, &etag) {
        return Ok(answer);
    }
    let (etag, document) = as_v3(app, group, version).await?;
    let mut answer = tagged(&etag, response::packed(&call.headers, document, unpack)?);
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

fn tagged(etag: &str, mut answer: Response) -> Response {
    if let Ok(etag) = HeaderValue::from_str(&format!("\"{etag}\"")) {
        answer.headers_mut().insert(ETAG, etag);
    }
    answer.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
    answer
}
