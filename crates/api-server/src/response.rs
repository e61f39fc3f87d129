//! The one place where outcomes become HTTP: objects and lists in the form the client accepts, errors
//! as `Status`.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, VARY};
use http::{HeaderMap, HeaderValue, StatusCode};
use keelson_api_types::StatusError;
use keelson_machinery::proto;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::body::{Body, Response};
use crate::cache::{Entry, encode_frame};
use crate::negotiate::{Accepted, Encoding, Form, accepted};
use crate::printer;
use crate::registry::Resource;

/// Responses larger than this are compressed for who accepts it.
const GZIP_FROM: usize = 128 << 10;
/// Lists are sent in pieces of about this size.
const CHUNK: usize = 64 << 10;

/// Turns stored objects of one resource into what the client asked for.
#[derive(Clone)]
pub struct Presenter {
    pub resource: Arc<Resource>,
    pub accepted: Accepted,
    /// What a table's rows carry of their objects: `None`, `Metadata` (default) or `Object`.
    pub include_object: IncludeObject,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IncludeObject {
    None,
    #[default]
    Metadata,
    Object,
}

impl IncludeObject {
    pub fn parse(text: Option<&str>) -> Self {
        match text {
            Some("None") => Self::None,
            Some("Object") => Self::Object,
            _ => Self::Metadata,
        }
    }
}

/// Metadata of a list.
#[derive(Debug, Default, Clone)]
pub struct ListMeta {
    pub revision: u64,
    pub continue_token: String,
    pub remaining: Option<usize>,
}

impl ListMeta {
    fn encode(&self) -> String {
        let mut text = format!("{{\"resourceVersion\":\"{}\"", self.revision);
        if !self.continue_token.is_empty() {
            text.push_str(&format!(",\"continue\":\"{}\"", self.continue_token));
        }
        if let Some(remaining) = self.remaining {
            text.push_str(&format!(",\"remainingItemCount\":{remaining}"));
        }
        text.push('}');
        text
    }
}

impl Presenter {
    /// Whether stored bytes go out untouched.
    pub fn is_raw(&self) -> bool {
        self.accepted.form == Form::Whole
            && self.accepted.encoding != Encoding::Protobuf
            && self.resource.conversion.is_identity()
    }

    /// One object, without the encodings of the edge (pretty, YAML).
    pub fn object(&self, stored: &Bytes) -> Bytes {
        self.render(stored, true)
    }

    /// One object of a watch: of a table's, only the first carries the columns.
    pub fn watched(&self, stored: &Bytes, first: bool) -> Bytes {
        self.render(stored, first)
    }

    /// An event of a watch: a line, or a message with its length.
    pub fn frame(&self, kind: &str, object: &[u8]) -> Bytes {
        let framed = match self.accepted.encoding {
            Encoding::Protobuf => {
                serde_json::from_slice(object).ok().and_then(|v| proto::watch_frame(kind, &v).ok())
            }
            _ => None,
        };
        framed.map_or_else(|| encode_frame(kind, object), Bytes::from)
    }

    fn render(&self, stored: &Bytes, columns: bool) -> Bytes {
        match self.accepted.form {
            Form::Whole if self.resource.conversion.is_identity() => stored.clone(),
            Form::Whole => self.converted(stored).map_or_else(|| stored.clone(), |v| encode(&v)),
            Form::Metadata => metadata_of(stored).unwrap_or_else(|| stored.clone()),
            Form::Table => {
                let revision = revision_of(stored);
                let head = printer::table_head(
                    &self.resource,
                    columns,
                    &format!("{{\"resourceVersion\":\"{revision}\"}}"),
                );
                let mut out = BytesMut::from(head.as_bytes());
                self.row(stored, &mut out);
                out.extend_from_slice(b"]}");
                out.freeze()
            }
        }
    }

    fn converted(&self, stored: &Bytes) -> Option<Value> {
        let object = serde_json::from_slice(stored).ok()?;
        Some(self.resource.conversion.to_served(object))
    }

    fn row(&self, stored: &Bytes, out: &mut BytesMut) {
        let Some(object) = self.converted(stored) else { return };
        let cells = printer::cells(&self.resource, &object);
        out.extend_from_slice(b"{\"cells\":");
        out.extend_from_slice(&serde_json::to_vec(&cells).unwrap_or_default());
        match self.include_object {
            IncludeObject::None => {}
            IncludeObject::Metadata => {
                if let Some(partial) = metadata_of(stored) {
                    out.extend_from_slice(b",\"object\":");
                    out.extend_from_slice(&partial);
                }
            }
            IncludeObject::Object => {
                out.extend_from_slice(b",\"object\":");
                out.extend_from_slice(&encode(&object));
            }
        }
        out.extend_from_slice(b"}");
    }

    fn list_head(&self, meta: &ListMeta) -> String {
        let meta = meta.encode();
        match self.accepted.form {
            Form::Whole => format!(
                "{{\"kind\":\"{}\",\"apiVersion\":\"{}\",\"metadata\":{meta},\"items\":[",
                self.resource.list_kind,
                self.resource.gvr.api_version()
            ),
            Form::Metadata => format!(
                "{{\"kind\":\"PartialObjectMetadataList\",\"apiVersion\":\"meta.k8s.io/v1\",\"metadata\":{meta},\"items\":["
            ),
            Form::Table => printer::table_head(&self.resource, true, &meta),
        }
    }

    /// A list in pieces, each made when the one before is sent.
    fn list_chunks(
        &self,
        meta: &ListMeta,
        entries: Vec<Arc<Entry>>,
    ) -> impl Iterator<Item = Bytes> + Send + 'static {
        let presenter = self.clone();
        let mut head = Some(self.list_head(meta));
        let mut entries = entries.into_iter();
        let mut first = true;
        let mut done = false;
        std::iter::from_fn(move || {
            if done {
                return None;
            }
            let mut out = BytesMut::with_capacity(CHUNK + (8 << 10));
            if let Some(head) = head.take() {
                out.extend_from_slice(head.as_bytes());
            }
            while out.len() < CHUNK {
                let Some(entry) = entries.next() else {
                    out.extend_from_slice(b"]}\n");
                    done = true;
                    break;
                };
                if !std::mem::take(&mut first) {
                    out.extend_from_slice(b",");
                }
                match presenter.accepted.form {
                    Form::Table => presenter.row(&entry.bytes, &mut out),
                    _ => out.extend_from_slice(&presenter.object(&entry.bytes)),
                }
            }
            Some(out.freeze())
        })
    }

    /// A list as a message, whose length comes before its items.
    fn list_message(&self, meta: &ListMeta, entries: &[Arc<Entry>]) -> Option<Vec<u8>> {
        let head = serde_json::from_str(&format!("{}]}}", self.list_head(meta))).ok()?;
        let items = entries.iter().map(|entry| reparsed(&self.object(&entry.bytes)));
        proto::encode_list(&head, items).ok()
    }

    /// The response to a list.
    pub fn list(&self, headers: &HeaderMap, meta: &ListMeta, entries: Vec<Arc<Entry>>) -> Response {
        if self.accepted.encoding == Encoding::Protobuf
            && let Some(bytes) = self.list_message(meta, &entries)
        {
            let size = bytes.len();
            return finish(headers, StatusCode::OK, self.accepted, bytes.into(), size);
        }
        let size: usize = entries.iter().map(|e| e.bytes.len() + 1).sum();
        let mut chunks = self.list_chunks(meta, entries);
        let plain = !self.accepted.pretty && self.accepted.encoding == Encoding::Json;
        if plain && size > CHUNK {
            return finish(headers, StatusCode::OK, self.accepted, Body::Chunks(Box::new(chunks)), size);
        }
        let mut whole = BytesMut::with_capacity(size + 256);
        if let (Some(one), true) = (chunks.next(), size <= CHUNK) {
            // Most lists are one piece, which is then sent as it is.
            whole = match one.try_into_mut() {
                Ok(one) => one,
                Err(one) => BytesMut::from(&one[..]),
            };
        }
        for chunk in chunks {
            whole.extend_from_slice(&chunk);
        }
        whole_response(headers, StatusCode::OK, self.accepted, whole.freeze())
    }

    /// The response with one object.
    pub fn respond(&self, headers: &HeaderMap, status: StatusCode, stored: &Bytes) -> Response {
        whole_response(headers, status, self.accepted, self.object(stored))
    }
}

/// JSON of a value; encoding a `Value` does not fail.
pub fn encode(value: &Value) -> Bytes {
    serde_json::to_vec(value).unwrap_or_default().into()
}

/// A response with a value that is not a stored object.
pub fn value(headers: &HeaderMap, status: StatusCode, accepted: Accepted, value: &Value) -> Response {
    whole_response(headers, status, accepted, encode(value))
}

fn whole_response(headers: &HeaderMap, status: StatusCode, mut accepted: Accepted, json: Bytes) -> Response {
    let bytes = match accepted.encoding {
        Encoding::Protobuf => message_of(&json).unwrap_or_else(|| {
            accepted.encoding = Encoding::Json;
            json
        }),
        Encoding::Json if !accepted.pretty => json,
        Encoding::Json => {
            reparsed(&json).and_then(|v| serde_json::to_vec_pretty(&v).ok()).map_or(json, Bytes::from)
        }
        Encoding::Yaml => reparsed(&json).and_then(|v| crate::codec::to_yaml(&v)).map_or(json, Bytes::from),
    };
    let size = bytes.len();
    finish(headers, status, accepted, bytes.into(), size)
}

/// The message of an object in JSON, if its kind has one.
fn message_of(json: &[u8]) -> Option<Bytes> {
    proto::encode(&serde_json::from_slice(json).ok()?).ok().map(Bytes::from)
}

fn reparsed(json: &Bytes) -> Option<Value> {
    serde_json::from_slice(json).ok()
}

fn finish(headers: &HeaderMap, status: StatusCode, accepted: Accepted, body: Body, size: usize) -> Response {
    let gzip = size > GZIP_FROM && takes_gzip(headers);
    let mut response = Response::new(if gzip { body.gzip() } else { body });
    *response.status_mut() = status;
    let out = response.headers_mut();
    let kind = match accepted.encoding {
        Encoding::Json => "application/json",
        Encoding::Yaml => "application/yaml",
        Encoding::Protobuf => "application/vnd.kubernetes.protobuf",
    };
    out.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    if gzip {
        out.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        out.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    }
    response
}

fn takes_gzip(headers: &HeaderMap) -> bool {
    headers.get(ACCEPT_ENCODING).and_then(|v| v.to_str().ok()).is_some_and(|v| v.contains("gzip"))
}

/// Plain JSON bytes with status 200.
pub fn json_bytes(headers: &HeaderMap, bytes: Bytes) -> Response {
    whole_response(headers, StatusCode::OK, Accepted::JSON, bytes)
}

pub fn text(status: StatusCode, kind: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// An error as the client sees it.
pub fn error(error: &StatusError) -> Response {
    let mut json = error.to_json();
    json.push(b'\n');
    let mut response = Response::new(Body::from(json));
    *response.status_mut() = StatusCode::from_u16(error.code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    if let Some(seconds) = error.status().details.as_ref().map(|d| d.retry_after_seconds).filter(|s| *s > 0) {
        headers.insert(http::header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// An error in the encoding that the client asked for.
pub fn error_as(headers: &HeaderMap, status: &StatusError) -> Response {
    let mut response = error(status);
    let accepted = accepted(headers, None, false).map(|a| a.encoding);
    if accepted.is_ok_and(|encoding| encoding == Encoding::Protobuf)
        && let Some(message) = message_of(status.to_json().as_ref())
    {
        *response.body_mut() = message.into();
        let kind = HeaderValue::from_static("application/vnd.kubernetes.protobuf");
        response.headers_mut().insert(CONTENT_TYPE, kind);
    }
    response
}

/// Adds `Warning` headers, at most as much as clients take.
pub fn add_warnings(response: &mut Response, warnings: &[String]) {
    let mut size = 0;
    for warning in warnings {
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

/// An object's metadata alone, cut out of its bytes.
fn metadata_of(stored: &Bytes) -> Option<Bytes> {
    #[derive(Deserialize)]
    struct Cut<'a> {
        #[serde(borrow)]
        metadata: &'a RawValue,
    }
    let cut: Cut<'_> = serde_json::from_slice(stored).ok()?;
    let head = "{\"kind\":\"PartialObjectMetadata\",\"apiVersion\":\"meta.k8s.io/v1\",\"metadata\":";
    let mut out = BytesMut::with_capacity(head.len() + cut.metadata.get().len() + 1);
    out.extend_from_slice(head.as_bytes());
    out.extend_from_slice(cut.metadata.get().as_bytes());
    out.extend_from_slice(b"}");
    Some(out.freeze())
}

/// The revision in an object's bytes, as text.
fn revision_of(stored: &Bytes) -> String {
    #[derive(Deserialize)]
    struct Head {
        metadata: Meta,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Meta {
        #[serde(default)]
        resource_version: String,
    }
    serde_json::from_slice::<Head>(stored).map(|h| h.metadata.resource_version).unwrap_or_default()
}
