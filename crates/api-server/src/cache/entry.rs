//! One object in the watch cache: its encoded form and the little that selectors need.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use keelson_machinery::proto;
use keelson_schema::Type;
use parking_lot::Mutex;
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use super::json::Json;
use super::texts::Texts;

/// Rows are numbered in the order they are made: those of one definition are near one another.
const MAX_VERSIONS: u64 = 64;

/// An object at one revision. The bytes are shared with every reader and watcher.
#[derive(Debug)]
pub struct Entry {
    /// `namespace/name`, or `name` for cluster-scoped objects.
    pub key: Arc<str>,
    /// When the object was last written.
    pub revision: u64,
    pub json: Json,
    pub labels: Labels,
    /// The values of the resource's selectable fields, in the order of its names.
    pub fields: Texts,
    beside: OnceLock<Box<Beside>>,
}

/// What few objects have beside their JSON.
#[derive(Debug, Default)]
struct Beside {
    /// The protobuf message, made for the first who asks and shared by the rest; empty if it has none.
    message: OnceLock<Bytes>,
    /// What the store holds, where reading has changed it.
    raw: Option<Bytes>,
    /// Other versions of the object, by the row they are of.
    versions: Mutex<Vec<(u64, Arc<Entry>)>>,
    parsed: OnceLock<Arc<Value>>,
}

impl Entry {
    pub fn new(key: Arc<str>, revision: u64, json: Json, labels: Labels, fields: Texts) -> Self {
        Self { key, revision, json, labels, fields, beside: OnceLock::new() }
    }

    /// An object beside the cache: nothing to select by.
    pub fn bare(bytes: Bytes) -> Self {
        Self::new("".into(), 0, bytes.into(), Labels::default(), Texts::default())
    }

    pub fn with_raw(self, raw: Option<Bytes>) -> Self {
        if raw.is_none() {
            return self;
        }
        Self { beside: OnceLock::from(Box::new(Beside { raw, ..Beside::default() })), ..self }
    }

    fn beside(&self) -> &Beside {
        self.beside.get_or_init(Box::default)
    }

    /// The object as the store holds it, with its revision.
    pub fn raw(&self) -> Bytes {
        self.beside.get().and_then(|beside| beside.raw.clone()).unwrap_or_else(|| self.bytes())
    }

    /// Whether readers see what the store holds.
    pub fn is_as_stored(&self) -> bool {
        self.beside.get().is_none_or(|beside| beside.raw.is_none())
    }

    /// The object's JSON in one piece.
    pub fn bytes(&self) -> Bytes {
        self.json.bytes()
    }

    /// The object, decoded.
    pub fn decode<T: DeserializeOwned>(&self) -> serde_json::Result<T> {
        serde_json::from_slice(&self.bytes())
    }

    /// The object as converted earlier for a custom resource's row.
    pub fn remembered(&self, row: u64) -> Option<Arc<Entry>> {
        let versions = self.beside.get()?.versions.lock();
        versions.iter().find(|(id, _)| *id == row).map(|(_, entry)| entry.clone())
    }

    pub fn remember(&self, row: u64, converted: Arc<Entry>) {
        let mut versions = self.beside().versions.lock();
        // Rows of a definition's earlier states are gone.
        versions.retain(|(id, _)| row.abs_diff(*id) < MAX_VERSIONS && *id != row);
        versions.push((row, converted));
    }

    /// The same object at another revision.
    pub fn at_revision(&self, revision: u64) -> Self {
        let json = self.json.at_revision(revision);
        Self::new(self.key.clone(), revision, json, self.labels.clone(), self.fields.clone())
    }

    /// The object's message, without an envelope; `None` if it does not fit its type.
    pub fn message(&self, ty: &Type) -> Option<Bytes> {
        let message = self.beside().message.get_or_init(|| {
            let object: Value = self.decode().unwrap_or_default();
            proto::encode_message(ty, &object).map(Bytes::from).unwrap_or_else(|error| {
                tracing::error!(key = &*self.key, %error, "an object does not fit its message");
                Bytes::new()
            })
        });
        (!message.is_empty()).then(|| message.clone())
    }

    /// The object, decoded by the first who asks and kept as long as this revision of it: for what the server itself
    /// looks at with every request (namespaces, accounts, quotas, classes).
    pub fn parsed(&self) -> Option<Arc<Value>> {
        let kept = &self.beside().parsed;
        if let Some(parsed) = kept.get() {
            return Some(parsed.clone());
        }
        let object = Arc::new(self.decode().ok()?);
        Some(kept.get_or_init(|| object).clone())
    }

    pub fn namespace(&self) -> &str {
        self.key.split_once('/').map_or("", |(namespace, _)| namespace)
    }

    pub fn name(&self) -> &str {
        self.key.rsplit_once('/').map_or(&*self.key, |(_, name)| name)
    }
}

/// Labels, sorted by key: each key with its value after it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels(Texts);

impl Labels {
    pub fn get(&self, key: &str) -> Option<&str> {
        let mut texts = self.0.iter();
        while let (Some(known), Some(value)) = (texts.next(), texts.next()) {
            if known >= key {
                return (known == key).then_some(value);
            }
        }
        None
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The labels of an object.
    pub fn of(object: &serde_json::Value) -> Self {
        let map = keelson_api_types::meta::labels(object).into_iter().flatten();
        map.filter_map(|(key, value)| Some((key.as_str(), value.as_str()?))).collect()
    }
}

impl<T: AsRef<str> + Ord> FromIterator<(T, T)> for Labels {
    fn from_iter<I: IntoIterator<Item = (T, T)>>(labels: I) -> Self {
        let mut pairs: Vec<_> = labels.into_iter().collect();
        pairs.sort_unstable();
        Self(pairs.into_iter().flat_map(|(key, value)| [key, value]).collect())
    }
}

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Labels;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a map of labels")
            }

            fn visit_unit<E>(self) -> Result<Labels, E> {
                Ok(Labels::default())
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Labels, A::Error> {
                let mut pairs: Vec<(Cow<str>, Cow<str>)> = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(pairs.into_iter().collect())
            }
        }
        deserializer.deserialize_any(Pairs)
    }
}

/// What the cache reads of an object whose kind has no selectable fields: the rest is skipped over.
#[derive(Deserialize)]
pub(super) struct Head {
    #[serde(default)]
    pub metadata: HeadMeta,
}

#[derive(Deserialize, Default)]
pub(super) struct HeadMeta {
    #[serde(default)]
    pub labels: Labels,
}

/// What a change is to everyone who sees both its sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    Added,
    Modified,
    Deleted,
}

impl ChangeKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }
}

/// An event for each of what it may be to a watcher.
type Frames = [OnceLock<Bytes>; 3];

/// One change in the history that watchers read. Frames are encoded by the first watcher that needs
/// them and shared by the rest.
#[derive(Debug)]
pub struct CacheEvent {
    pub revision: u64,
    pub kind: ChangeKind,
    /// The new state; on deletion the last one, with the revision of the deletion.
    pub entry: Arc<Entry>,
    /// The state before, for Modified; selectors may have matched it alone.
    pub previous: Option<Arc<Entry>>,
    pub(super) at: Instant,
    lines: Frames,
    /// Only where somebody watches in protobuf.
    messages: OnceLock<Box<Frames>>,
    /// Only where somebody watches in CBOR.
    items: OnceLock<Box<Frames>>,
}

impl CacheEvent {
    pub fn new(kind: ChangeKind, revision: u64, entry: Arc<Entry>, previous: Option<Arc<Entry>>) -> Self {
        let (lines, messages, items) = Default::default();
        Self { revision, kind, entry, previous, at: Instant::now(), lines, messages, items }
    }

    /// The same for who comes later, if it has been encoded.
    pub(super) fn without_encodings(&self) -> Option<Self> {
        let encoded = self.lines.iter().any(|line| line.get().is_some())
            || self.messages.get().is_some()
            || self.items.get().is_some();
        let anew = || Self::new(self.kind, self.revision, self.entry.clone(), self.previous.clone());
        encoded.then(|| Self { at: self.at, ..anew() })
    }

    /// What a watcher is to see, given whether its selector matches the new state and the old one.
    pub fn seen(&self, matches: impl Fn(&Entry) -> bool) -> Option<ChangeKind> {
        let now = matches(&self.entry);
        match self.kind {
            ChangeKind::Added | ChangeKind::Deleted => now.then_some(self.kind),
            ChangeKind::Modified => match (self.previous.as_deref().is_some_and(matches), now) {
                (true, true) => Some(ChangeKind::Modified),
                (false, true) => Some(ChangeKind::Added),
                (true, false) => Some(ChangeKind::Deleted),
                (false, false) => None,
            },
        }
    }

    /// The object a watcher is shown: on leaving its selection the last state that matched, at the
    /// revision of the change.
    pub fn object(&self, seen: ChangeKind) -> Arc<Entry> {
        match (&self.previous, seen) {
            (Some(previous), ChangeKind::Deleted) if self.kind == ChangeKind::Modified => {
                Arc::new(previous.at_revision(self.revision))
            }
            _ => self.entry.clone(),
        }
    }

    /// The event as a line of a JSON watch.
    pub fn line(&self, seen: ChangeKind) -> Bytes {
        let encode = || encode_frame(seen.as_str(), &self.object(seen).json);
        self.lines[seen as usize].get_or_init(encode).clone()
    }

    /// The event as a message with its length, which `encode` makes.
    pub fn message(&self, seen: ChangeKind, encode: impl FnOnce(&Entry) -> Bytes) -> Bytes {
        self.shared(&self.messages, seen, encode)
    }

    /// The event as an item of a CBOR sequence, which `encode` makes.
    pub fn item(&self, seen: ChangeKind, encode: impl FnOnce(&Entry) -> Bytes) -> Bytes {
        self.shared(&self.items, seen, encode)
    }

    fn shared(
        &self,
        frames: &OnceLock<Box<Frames>>,
        seen: ChangeKind,
        encode: impl FnOnce(&Entry) -> Bytes,
    ) -> Bytes {
        frames.get_or_init(Box::default)[seen as usize].get_or_init(|| encode(&self.object(seen))).clone()
    }
}

/// `{"type":…,"object":…}` and a newline.
pub fn encode_frame(kind: &str, object: &Json) -> Bytes {
    let mut line = BytesMut::with_capacity(object.len() + kind.len() + 24);
    line.extend_from_slice(b"{\"type\":\"");
    line.extend_from_slice(kind.as_bytes());
    line.extend_from_slice(b"\",\"object\":");
    object.write(&mut line);
    line.extend_from_slice(b"}\n");
    line.freeze()
}

const METADATA: &[u8] = b"\"metadata\":{";
const REVISION: &[u8] = b"\"resourceVersion\":\"";

/// Canonical bytes from the store with the revision put in as metadata's first field.
///
/// Canonical means that `metadata` comes right after `apiVersion` and `kind`, so that the first
/// occurrence is the object's own.
pub fn splice_revision(stored: &[u8], revision: u64) -> Bytes {
    let Some(at) = find(stored, METADATA) else { return Bytes::copy_from_slice(stored) };
    let (head, tail) = stored.split_at(at + METADATA.len());
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(revision).as_bytes();
    let mut out = BytesMut::with_capacity(stored.len() + REVISION.len() + digits.len() + 2);
    out.extend_from_slice(head);
    out.extend_from_slice(REVISION);
    out.extend_from_slice(digits);
    out.extend_from_slice(if tail.first() == Some(&b'}') { b"\"" } else { b"\"," });
    out.extend_from_slice(tail);
    out.freeze()
}

/// Spliced bytes with another revision.
pub fn replace_revision(spliced: &[u8], revision: u64) -> Bytes {
    let start = find(spliced, METADATA)
        .map(|at| at + METADATA.len())
        .filter(|at| spliced[*at..].starts_with(REVISION));
    let Some(start) = start.map(|at| at + REVISION.len()) else { return Bytes::copy_from_slice(spliced) };
    let end = spliced[start..].iter().position(|b| *b == b'"').map_or(start, |n| start + n);
    let mut digits = itoa::Buffer::new();
    [&spliced[..start], digits.format(revision).as_bytes(), &spliced[end..]].concat().into()
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_is_put_into_metadata_and_replaced_there() {
        let spliced = splice_revision(br#"{"kind":"A","metadata":{"name":"x"},"data":{"metadata":{}}}"#, 7);
        assert_eq!(
            &spliced[..],
            br#"{"kind":"A","metadata":{"resourceVersion":"7","name":"x"},"data":{"metadata":{}}}"#
        );
        assert_eq!(
            &replace_revision(&spliced, 123)[..],
            br#"{"kind":"A","metadata":{"resourceVersion":"123","name":"x"},"data":{"metadata":{}}}"#
        );
        assert_eq!(
            &splice_revision(br#"{"metadata":{}}"#, 1)[..],
            br#"{"metadata":{"resourceVersion":"1"}}"#
        );
    }

    #[test]
    fn messages_and_events_are_encoded_once() {
        let ty = keelson_schema::builtin().for_kind("", "v1", "ConfigMap").unwrap();
        let bytes =
            Bytes::from_static(br#"{"metadata":{"resourceVersion":"7","name":"x"},"data":{"a":"b"}}"#);
        let entry = Arc::new(Entry::new("n/x".into(), 7, bytes.into(), Labels::default(), Texts::default()));
        let (one, two) = (entry.message(ty).unwrap(), entry.message(ty).unwrap());
        assert_eq!(one.as_ptr(), two.as_ptr());
        let object = proto::decode(ty, &one).unwrap();
        assert_eq!(object, entry.decode::<Value>().unwrap());
        let event = CacheEvent::new(ChangeKind::Added, 7, entry, None);
        let frame = |seen| event.message(seen, |entry| entry.message(ty).unwrap().to_vec().into());
        assert_eq!(frame(ChangeKind::Added).as_ptr(), frame(ChangeKind::Added).as_ptr());
        assert_eq!(event.line(ChangeKind::Added).as_ptr(), event.line(ChangeKind::Added).as_ptr());
        let odd = Entry::bare(Bytes::from_static(br#"{"metadata":7}"#));
        assert_eq!(odd.message(ty), None);
    }

    #[test]
    fn labels_are_found_whatever_their_order() {
        let head: Head =
            serde_json::from_str(r#"{"metadata":{"labels":{"b":"2","a":"1"}},"spec":{}}"#).unwrap();
        assert_eq!(head.metadata.labels.get("a"), Some("1"));
        assert_eq!(head.metadata.labels.get("c"), None);
        let none: Head = serde_json::from_str(r#"{"metadata":{"labels":null}}"#).unwrap();
        assert!(none.metadata.labels.is_empty());
    }
}
