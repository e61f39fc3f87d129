//! Stored objects in the form and encoding that a client accepts: one, many, or as events of a watch.
//!
//! What is stored goes out as it is. The protobuf message of an object is made once per revision, and its
//! metadata is cut out of either form without decoding it.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use keelson_api_types::StatusError;
use keelson_machinery::{cbor, proto};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::body::{Body, Response};
use crate::cache::{CacheEvent, ChangeKind, Entry, encode_frame};
use crate::negotiate::{Accepted, Encoding, Form};
use crate::printer;
use crate::registry::Resource;
use crate::response::{encode, encoded, finish};
use crate::slices::{FRAME, Frames, Source};

/// Lists are made in pieces of about this size.
const CHUNK: usize = 64 << 10;
const LIST_END: &[u8] = b"]}\n";

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
    pub fn parse(text: Option<&str>) -> Result<Self, StatusError> {
        match text.unwrap_or_default() {
            "None" => Ok(Self::None),
            "Object" => Ok(Self::Object),
            "Metadata" | "" => Ok(Self::Metadata),
            other => Err(StatusError::bad_request(format!(
                "Unable to convert to Table as requested: includeObject: Invalid value: {other:?}: must be \
                 'Metadata', 'Object', 'None', or empty"
            ))),
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
        // What is computed for each list has none.
        if self.revision == 0 {
            return "{}".to_owned();
        }
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
    /// Refuses the form that is for single objects for a list, and the other way round.
    pub fn check(self, list: bool) -> Result<Self, StatusError> {
        let kind = if list { &self.resource.list_kind } else { &self.resource.gvk.kind };
        self.accepted.check(list, &self.resource.gvr.group, kind)?;
        Ok(self)
    }

    fn is_identity(&self) -> bool {
        self.resource.conversion.is_identity()
    }

    /// One object in JSON; of a table, `columns` says whether it carries them.
    fn json(&self, entry: &Entry, columns: bool) -> Bytes {
        match self.accepted.form {
            Form::Whole if self.is_identity() => entry.bytes(),
            Form::Whole => self.converted(entry).map_or_else(|| entry.bytes(), |v| encode(&v)),
            Form::Metadata | Form::MetadataList => {
                metadata_of(entry, self.accepted.meta).unwrap_or_else(|| entry.bytes())
            }
            Form::Table => {
                let meta = format!("{{\"resourceVersion\":\"{}\"}}", revision_of(entry));
                let head = printer::table_head(&self.resource, self.accepted.meta, columns, &meta);
                let mut out = BytesMut::from(head.as_bytes());
                self.row(entry, &mut out);
                out.extend_from_slice(b"]}");
                out.freeze()
            }
        }
    }

    /// One object's message, where its kind has one.
    fn message(&self, entry: &Entry) -> Option<Bytes> {
        let resource = &self.resource;
        let builtin = resource.custom.is_none();
        match self.accepted.form {
            Form::Whole if builtin && self.is_identity() => entry.message(&resource.ty),
            Form::Whole if builtin => {
                proto::encode_message(&resource.ty, &self.converted(entry)?).ok().map(Bytes::from)
            }
            Form::Metadata | Form::MetadataList if builtin => {
                let message = entry.message(resource.stored_type())?;
                Some(message.slice(..proto::metadata_length(&message)))
            }
            Form::Metadata | Form::MetadataList => {
                let partial = serde_json::from_slice(&metadata_of(entry, self.accepted.meta)?).ok()?;
                proto::encode_message(&proto::PARTIAL, &partial).ok().map(Bytes::from)
            }
            Form::Whole | Form::Table => None,
        }
    }

    /// `apiVersion` and kind of a single object in the form asked for.
    fn identity(&self) -> (String, &str) {
        match self.accepted.form {
            Form::Whole => (self.resource.gvr.api_version(), &self.resource.gvk.kind),
            Form::Metadata | Form::MetadataList => (self.accepted.meta.into(), "PartialObjectMetadata"),
            Form::Table => (self.accepted.meta.into(), "Table"),
        }
    }

    fn enveloped(&self, message: &[u8]) -> Vec<u8> {
        let (api_version, kind) = self.identity();
        proto::enveloped(&api_version, kind, message)
    }

    fn converted(&self, entry: &Entry) -> Option<Value> {
        let object = entry.decode().ok()?;
        Some(self.resource.conversion.to_served(object))
    }

    fn row(&self, entry: &Entry, out: &mut BytesMut) {
        let Some(object) = self.converted(entry) else { return };
        let cells = printer::cells(&self.resource, &object);
        out.extend_from_slice(b"{\"cells\":");
        out.extend_from_slice(&serde_json::to_vec(&cells).unwrap_or_default());
        let shown = match self.include_object {
            IncludeObject::None => None,
            IncludeObject::Metadata => metadata_of(entry, self.accepted.meta),
            IncludeObject::Object if self.is_identity() => Some(entry.bytes()),
            IncludeObject::Object => Some(encode(&object)),
        };
        if let Some(shown) = shown {
            out.extend_from_slice(b",\"object\":");
            out.extend_from_slice(&shown);
        }
        out.extend_from_slice(b"}");
    }

    /// The response with one object.
    pub fn respond(&self, headers: &HeaderMap, status: StatusCode, entry: &Entry) -> Response {
        if self.accepted.encoding == Encoding::Protobuf
            && let Some(message) = self.message(entry)
        {
            return finish(headers, status, self.accepted, self.enveloped(&message));
        }
        encoded(headers, status, self.accepted, self.json(entry, true))
    }
}

/// Lists.
impl Presenter {
    /// A list up to the opening bracket of its items.
    fn list_head(&self, meta: &ListMeta) -> String {
        let meta = meta.encode();
        let (kind, api_version) = match self.accepted.form {
            Form::Whole => (self.resource.list_kind.as_str(), self.resource.gvr.api_version()),
            Form::Metadata | Form::MetadataList => ("PartialObjectMetadataList", self.accepted.meta.into()),
            Form::Table => return printer::table_head(&self.resource, self.accepted.meta, true, &meta),
        };
        format!("{{\"kind\":\"{kind}\",\"apiVersion\":\"{api_version}\",\"metadata\":{meta},\"items\":[")
    }

    /// The response to a list.
    pub fn list(&self, headers: &HeaderMap, meta: &ListMeta, entries: Vec<Arc<Entry>>) -> Response {
        if self.accepted.encoding == Encoding::Protobuf
            && let Some(response) = self.list_of_messages(headers, meta, &entries)
        {
            return response;
        }
        let size: usize = entries.iter().map(|e| e.json.len() + 1).sum();
        if self.accepted.encoding == Encoding::Cbor {
            let chunks = self.cbor_chunks(meta, entries);
            return finish(headers, StatusCode::OK, self.accepted, Body::chunks(chunks, size));
        }
        let plain = !self.accepted.pretty && self.accepted.encoding == Encoding::Json;
        let as_it_is = self.accepted.form == Form::Whole && self.is_identity();
        if plain && as_it_is && size > CHUNK {
            let frames = Frames::new(List { head: self.list_head(meta), entries });
            return finish(headers, StatusCode::OK, self.accepted, Body::chunks(frames, size));
        }
        let mut chunks = self.json_chunks(meta, entries);
        if plain && size > CHUNK {
            return finish(headers, StatusCode::OK, self.accepted, Body::chunks(chunks, size));
        }
        // Most lists are one piece, which is then sent as it is.
        let mut whole = chunks.next().unwrap_or_default();
        let rest: Vec<Bytes> = chunks.collect();
        if !rest.is_empty() {
            whole = [whole].into_iter().chain(rest).collect::<Vec<_>>().concat().into();
        }
        encoded(headers, StatusCode::OK, self.accepted, whole)
    }

    fn json_chunks(
        &self,
        meta: &ListMeta,
        entries: Vec<Arc<Entry>>,
    ) -> impl Iterator<Item = Bytes> + Send + 'static {
        let presenter = self.clone();
        let mut entries = entries.into_iter();
        let mut first = true;
        chunked(self.list_head(meta).into_bytes(), move |out| {
            let Some(entry) = entries.next() else {
                out.extend_from_slice(LIST_END);
                return false;
            };
            if !std::mem::take(&mut first) {
                out.extend_from_slice(b",");
            }
            match presenter.accepted.form {
                Form::Table => presenter.row(&entry, out),
                Form::Whole if presenter.is_identity() => entry.json.write(out),
                _ => out.extend_from_slice(&presenter.json(&entry, true)),
            }
            true
        })
    }

    fn cbor_chunks(
        &self,
        meta: &ListMeta,
        entries: Vec<Arc<Entry>>,
    ) -> impl Iterator<Item = Bytes> + Send + 'static {
        let list = serde_json::from_str(&format!("{}]}}", self.list_head(meta))).unwrap_or_default();
        let head = cbor::list_head(&list, entries.len());
        let presenter = self.clone();
        let mut entries = entries.into_iter();
        chunked(head, move |out| {
            let Some(entry) = entries.next() else { return false };
            out.extend_from_slice(&presenter.cbor_item(&entry));
            true
        })
    }

    fn cbor_item(&self, entry: &Entry) -> Vec<u8> {
        let typed = self.accepted.form == Form::Whole && self.resource.custom.is_none();
        let ty = typed.then_some(&*self.resource.ty);
        cbor::encode_item(ty, &serde_json::from_slice(&self.json(entry, true)).unwrap_or_default())
    }

    /// A list as a message, whose length comes before its items: those are asked for theirs first.
    fn list_of_messages(
        &self,
        headers: &HeaderMap,
        meta: &ListMeta,
        entries: &[Arc<Entry>],
    ) -> Option<Response> {
        let list = serde_json::from_str(&format!("{}]}}", self.list_head(meta))).ok()?;
        let messages: Vec<Bytes> = entries.iter().map(|entry| self.message(entry)).collect::<Option<_>>()?;
        let head = proto::list_head(&list, messages.iter().map(Bytes::len)).ok()?;
        let mut parts = Vec::with_capacity(2 * messages.len() + 2);
        parts.push(head.into());
        for message in messages {
            parts.extend([proto::list_item(message.len()).into(), message]);
        }
        parts.push(Bytes::from_static(proto::ENVELOPE_TAIL));
        let frames = Frames::new(parts);
        let size = frames.bytes_left();
        Some(finish(headers, StatusCode::OK, self.accepted, Body::chunks(frames, size)))
    }
}

/// A list of objects as they are in the cache.
struct List {
    head: String,
    entries: Vec<Arc<Entry>>,
}

impl Source for List {
    fn length(&self, item: usize) -> Option<usize> {
        match item.checked_sub(1) {
            None => Some(self.head.len()),
            Some(index) if index < self.entries.len() => {
                Some(usize::from(index > 0) + self.entries[index].json.len())
            }
            Some(index) => (index == self.entries.len()).then_some(LIST_END.len()),
        }
    }

    fn pieces<'a>(&'a self, item: usize, show: &mut dyn FnMut(&'a [u8]) -> bool) {
        let _ = match item.checked_sub(1) {
            None => show(self.head.as_bytes()),
            Some(index) if index < self.entries.len() => {
                (index == 0 || show(b",")) && self.entries[index].json.pieces().all(&mut *show)
            }
            Some(_) => show(LIST_END),
        };
    }
}

/// Watches.
impl Presenter {
    /// An object as an event; of a table's, only the first carries the columns.
    pub fn event(&self, kind: &str, entry: &Entry, first: bool) -> Bytes {
        if self.accepted.encoding == Encoding::Protobuf
            && let Some(message) = self.message(entry)
        {
            return proto::watch_frame(kind, &self.enveloped(&message)).into();
        }
        frame(self.accepted.encoding, kind, self.json(entry, first))
    }

    /// A change as an event, shared between watchers where they see the same bytes.
    pub fn change(&self, change: &CacheEvent, seen: ChangeKind, first: bool) -> Bytes {
        if self.accepted.form != Form::Whole || !self.is_identity() {
            return self.event(seen.as_str(), &change.object(seen), first);
        }
        match self.accepted.encoding {
            Encoding::Protobuf => change.message(seen, |entry| self.event(seen.as_str(), entry, first)),
            Encoding::Cbor => change.item(seen, |entry| self.event(seen.as_str(), entry, first)),
            Encoding::Json | Encoding::Yaml => change.line(seen),
        }
    }

    /// The event that ends a watch.
    pub fn failure(&self, error: &StatusError) -> Bytes {
        let status = error.to_json();
        let message = || proto::encode(&serde_json::from_slice(&status).ok()?).ok();
        match (self.accepted.encoding, message()) {
            (Encoding::Protobuf, Some(message)) => proto::watch_frame("ERROR", &message).into(),
            (encoding, _) => frame(encoding, "ERROR", status.into()),
        }
    }

    /// How far a watch has come; the one after the initial events says so.
    pub fn bookmark(&self, revision: u64, end_of_initial: bool, first: bool) -> Bytes {
        let annotations =
            if end_of_initial { ",\"annotations\":{\"k8s.io/initial-events-end\":\"true\"}" } else { "" };
        // In the stored version: the way out converts it like every object.
        let (kind, api_version) = (&self.resource.gvk.kind, self.resource.stored_api_version());
        let object = format!(
            "{{\"apiVersion\":\"{api_version}\",\"kind\":\"{kind}\",\"metadata\":{{\"resourceVersion\":\"{revision}\"{annotations}}}}}"
        );
        let mut presenter = self.clone();
        if end_of_initial && self.include_object == IncludeObject::None {
            presenter.include_object = IncludeObject::Metadata;
        }
        presenter.event("BOOKMARK", &Entry::bare(object.into()), first)
    }
}

/// An event with an object that is given in JSON.
fn frame(encoding: Encoding, kind: &str, json: Bytes) -> Bytes {
    match encoding {
        Encoding::Cbor => {
            let object = serde_json::from_slice(&json).unwrap_or_default();
            cbor::watch_frame(kind, &cbor::encode(&object)).into()
        }
        _ => encode_frame(kind, &json.into()),
    }
}

/// Bytes in pieces, made when those before are sent. `next` adds something and says whether more follows.
fn chunked(
    head: Vec<u8>,
    mut next: impl FnMut(&mut BytesMut) -> bool + Send + 'static,
) -> impl Iterator<Item = Bytes> + Send + 'static {
    let mut out = BytesMut::from(Bytes::from(head));
    let mut more = true;
    std::iter::from_fn(move || {
        if more && out.len() < FRAME {
            let rest = std::mem::replace(&mut out, BytesMut::with_capacity(CHUNK + (8 << 10)));
            out.extend_from_slice(&rest);
            while more && out.len() < CHUNK {
                more = next(&mut out);
            }
        }
        let piece = out.split_to(FRAME.min(out.len())).freeze();
        (!piece.is_empty()).then_some(piece)
    })
}

/// An object's metadata alone, cut out of its bytes.
fn metadata_of(entry: &Entry, api_version: &str) -> Option<Bytes> {
    #[derive(Deserialize)]
    struct Cut<'a> {
        #[serde(borrow)]
        metadata: &'a RawValue,
    }
    let bytes = entry.bytes();
    let cut: Cut<'_> = serde_json::from_slice(&bytes).ok()?;
    let metadata = cut.metadata.get();
    let text = format!(
        "{{\"kind\":\"PartialObjectMetadata\",\"apiVersion\":\"{api_version}\",\"metadata\":{metadata}}}"
    );
    Some(text.into())
}

/// The revision in an object's bytes, as text.
fn revision_of(entry: &Entry) -> String {
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
    entry.decode::<Head>().map(|h| h.metadata.resource_version).unwrap_or_default()
}
