//! The one place where outcomes become HTTP: values in the encoding the client accepts, errors as `Status`.

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, VARY};
use http::{HeaderMap, HeaderValue, StatusCode};
use keelson_api_types::StatusError;
use keelson_machinery::{cbor, proto};
use serde_json::Value;

use crate::body::{Body, Response};
use crate::negotiate::{Accepted, Encoding, Offer, accepted};

/// Responses larger than this are compressed for who accepts it, as upstream has it.
const GZIP_FROM: usize = 128 << 10;

/// What makes a gzip stream the bytes that it was made of.
type Unpack = fn(&[u8]) -> std::io::Result<Vec<u8>>;

/// JSON of a value; encoding a `Value` does not fail.
pub fn encode(value: &Value) -> Bytes {
    serde_json::to_vec(value).unwrap_or_default().into()
}

/// A response with a value that is not a stored object.
pub fn value(headers: &HeaderMap, status: StatusCode, accepted: Accepted, value: &Value) -> Response {
    encoded(headers, status, accepted, encode(value))
}

/// A response with JSON, in the encoding that was accepted; what has no message is sent as JSON.
pub fn encoded(headers: &HeaderMap, status: StatusCode, mut accepted: Accepted, json: Bytes) -> Response {
    let parsed = || serde_json::from_slice::<Value>(&json).ok();
    let other = match accepted.encoding {
        Encoding::Protobuf => parsed().and_then(|v| proto::encode(&v).ok()),
        Encoding::Cbor => parsed().map(|v| cbor::encode(&v)),
        Encoding::Json if accepted.pretty => parsed().and_then(|v| serde_json::to_vec_pretty(&v).ok()),
        Encoding::Json => None,
        Encoding::Yaml => parsed().and_then(|v| crate::codec::to_yaml(&v)).map(String::into_bytes),
    };
    if other.is_none() {
        accepted.encoding = Encoding::Json;
    }
    finish(headers, status, accepted, other.map_or(json, Bytes::from))
}

/// A response with encoded bytes.
pub fn finish(
    headers: &HeaderMap,
    status: StatusCode,
    accepted: Accepted,
    body: impl Into<Body>,
) -> Response {
    let body = body.into();
    let gzip = body.size() > GZIP_FROM && takes_gzip(headers);
    headed(status, accepted, if gzip { body.gzip() } else { body }, gzip)
}

/// A response with JSON that is compressed already, for who does not take that unpacked.
///
/// # Errors
/// It cannot be unpacked.
pub fn packed(headers: &HeaderMap, json: Bytes, unpack: Unpack) -> Result<Response, StatusError> {
    let gzip = takes_gzip(headers);
    let body = if gzip { json } else { unpack(&json).map_err(StatusError::internal)?.into() };
    Ok(headed(StatusCode::OK, Accepted::JSON, body.into(), gzip))
}

fn headed(status: StatusCode, accepted: Accepted, body: Body, gzip: bool) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let out = response.headers_mut();
    out.insert(CONTENT_TYPE, HeaderValue::from_static(accepted.encoding.media_type()));
    out.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    if gzip {
        out.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        out.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    }
    response
}

fn takes_gzip(headers: &HeaderMap) -> bool {
    headers
        .get(ACCEPT_ENCODING)
        .and_then(|v| v.to_str().ok())
        .is_some_and(|v| v.split(',').any(|t| t.trim() == "gzip"))
}

/// Plain JSON bytes with status 200.
pub fn json_bytes(headers: &HeaderMap, bytes: Bytes) -> Response {
    encoded(headers, StatusCode::OK, Accepted::JSON, bytes)
}

pub fn text(status: StatusCode, kind: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// An error as the client sees it, in JSON.
pub fn error(error: &StatusError) -> Response {
    error_as(&HeaderMap::new(), error)
}

/// An error in the encoding that the client asked for; JSON where it can have none of those.
pub fn error_as(headers: &HeaderMap, error: &StatusError) -> Response {
    let accepted =
        accepted(headers, None, Offer::PLAIN).unwrap_or(Accepted { pretty: true, ..Accepted::JSON });
    let status = StatusCode::from_u16(error.code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = encoded(headers, status, accepted, error.to_json().into());
    if let Some(seconds) = error.status().details.as_ref().map(|d| d.retry_after_seconds).filter(|s| *s > 0) {
        response.headers_mut().insert(http::header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// Adds `Warning` headers, each text once and at most as much as clients take.
pub fn add_warnings(response: &mut Response, warnings: &[String]) {
    let mut size = 0;
    for (_, warning) in warnings.iter().enumerate().filter(|(at, warning)| !warnings[..*at].contains(warning))
    {
        let quoted: String = warning
            .chars()
            .flat_map(|c| match c {
                '"' | '\\' => vec!['\\', c],
                c if c.is_control() => vec![' '],
                c => vec![c],
            })
            .take(1024)
            .collect();
        size += quoted.len();
        if size > 4096 {
            return;
        }
        if let Ok(value) = HeaderValue::from_bytes(format!("299 - \"{quoted}\"").as_bytes()) {
            response.headers_mut().append("Warning", value);
        }
    }
}
