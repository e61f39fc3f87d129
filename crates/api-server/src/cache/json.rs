//! An object's JSON in the watch cache: what many objects have in common is in memory once.
//!
//! Pods of one template are written by the same managers, who own the same fields: those names are half of what a
//! pod's JSON is. Whatever is cut out as shared, what is put together again is the same bytes.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::{Arc, LazyLock};

use bytes::{BufMut, Bytes, BytesMut};
use foldhash::quality::RandomState;
use memchr::memmem;
use parking_lot::Mutex;

/// What a manager owns, in canonical JSON, begins and ends like this.
const BEGIN: &[u8] = br#""fieldsType":"FieldsV1","fieldsV1":{"#;
const END: &[u8] = br#"},"manager":""#;
/// An item of a list by its address, which is no other object's.
const ADDRESS: &[u8] = br#""k:{\"ip\":\""#;
const ADDRESS_END: &[u8] = br#"\"}""#;
/// Less than this is not worth a reference.
const LEAST: usize = 96;

static POOL: LazyLock<Mutex<HashSet<Arc<[u8]>, RandomState>>> = LazyLock::new(Mutex::default);

/// Canonical JSON with `metadata.resourceVersion`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Json {
    /// All of it that is not shared.
    own: Bytes,
    /// With where in `own` each belongs, in that order.
    shared: Box<[(u32, Arc<[u8]>)]>,
    /// Of both: lists ask for it before they look at any of them.
    len: usize,
}

impl Json {
    /// Shares what other objects may have as well.
    pub fn shared(whole: Bytes) -> Self {
        let common = common(&whole);
        if common.is_empty() {
            return Self::from(whole);
        }
        let mut own = Vec::with_capacity(whole.len() - common.iter().map(Range::len).sum::<usize>());
        let (mut shared, mut done) = (Vec::with_capacity(common.len()), 0);
        for range in common {
            own.extend_from_slice(&whole[done..range.start]);
            // Objects are far smaller than 4 GiB.
            shared.push((own.len() as u32, pooled(&whole[range.clone()])));
            done = range.end;
        }
        own.extend_from_slice(&whole[done..]);
        Self { own: own.into(), shared: shared.into(), len: whole.len() }
    }

    /// How long it is on the wire.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What this object holds that no other does, in bytes.
    pub fn held(&self) -> usize {
        self.own.len()
    }

    pub fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let ends = self.shared.iter().map(|(at, _)| *at as usize).chain([self.own.len()]);
        let starts = std::iter::once(0).chain(self.shared.iter().map(|(at, _)| *at as usize));
        let common = self.shared.iter().map(|(_, piece)| &**piece).chain([&[][..]]);
        starts.zip(ends).zip(common).flat_map(|((from, to), piece)| [&self.own[from..to], piece])
    }

    pub fn write(&self, out: &mut BytesMut) {
        self.pieces().for_each(|piece| out.put_slice(piece));
    }

    /// In one piece.
    pub fn bytes(&self) -> Bytes {
        if self.shared.is_empty() {
            return self.own.clone();
        }
        let mut out = BytesMut::with_capacity(self.len());
        self.write(&mut out);
        out.freeze()
    }

    /// Whether these bytes are anywhere in it. What objects own alike ends at names and their quotes: nothing looked for in
    /// the rest of an object lies across.
    pub fn mentions(&self, text: &[u8]) -> bool {
        self.pieces().any(|piece| memmem::find(piece, text).is_some())
    }

    pub fn starts_with(&self, head: &[u8]) -> bool {
        let first = self.shared.first().map_or(self.own.len(), |(at, _)| *at as usize);
        match head.len() <= first {
            true => self.own.starts_with(head),
            false => self.bytes().starts_with(head),
        }
    }

    /// The same at another revision, which comes before all that is shared.
    pub fn at_revision(&self, revision: u64) -> Self {
        let own = super::entry::replace_revision(&self.own, revision);
        let moved = |at: u32| (at as usize + own.len() - self.own.len()) as u32;
        let shared = self.shared.iter().map(|(at, piece)| (moved(*at), piece.clone())).collect();
        let len = self.len + own.len() - self.own.len();
        Self { own, shared, len }
    }
}

/// As it is, with nothing shared: what will not stay is not worth looking through.
impl From<Bytes> for Json {
    fn from(own: Bytes) -> Self {
        let len = own.len();
        Self { own, shared: Box::default(), len }
    }
}

/// Lets go of what no object has any longer.
pub fn prune() {
    let mut pool = POOL.lock();
    pool.retain(|piece| Arc::strong_count(piece) > 1);
    let kept = pool.len() * 2;
    pool.shrink_to(kept);
}

fn pooled(bytes: &[u8]) -> Arc<[u8]> {
    let mut pool = POOL.lock();
    if let Some(known) = pool.get(bytes) {
        return known.clone();
    }
    let new: Arc<[u8]> = bytes.into();
    pool.insert(new.clone());
    new
}

/// What other objects may have as well.
fn common(whole: &[u8]) -> Vec<Range<usize>> {
    let next = |needle: &[u8], from: usize, to: usize| Some(from + memmem::find(&whole[from..to], needle)?);
    let (mut found, mut at) = (Vec::new(), 0);
    while let Some(mut from) = next(BEGIN, at, whole.len()) {
        let Some(end) = next(END, from, whole.len()) else { break };
        at = end + END.len();
        while let Some(address) = next(ADDRESS, from, end) {
            let address = address + ADDRESS.len();
            found.push(from..address);
            from = next(ADDRESS_END, address, end).unwrap_or(address);
        }
        found.push(from..at);
    }
    found.retain(|range| range.len() >= LEAST);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, address: &str, manager: &str) -> Bytes {
        let owned = format!(
            r#"{{"f:spec":{{"f:containers":{{"k:{{\"name\":\"app\"}}":{{".":{{}},"f:image":{{}},"f:name":{{}},"f:resources":{{}}}}}},"f:dnsPolicy":{{}}}},"f:status":{{"f:podIPs":{{".":{{}},"k:{{\"ip\":\"{address}\"}}":{{".":{{}},"f:ip":{{}}}}}},"f:startTime":{{}},"f:conditions":{{".":{{}},"k:{{\"type\":\"Ready\"}}":{{".":{{}},"f:type":{{}}}}}}}}}}"#
        );
        let entry = format!(
            r#"{{"apiVersion":"v1","fieldsType":"FieldsV1","fieldsV1":{owned},"manager":"{manager}","operation":"Update"}}"#
        );
        let text = format!(
            r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"resourceVersion":"9","managedFields":[{entry},{entry}],"name":"{name}"}},"spec":{{"é":"\"fieldsV1\":{{"}}}}"#
        );
        text.into()
    }

    #[test]
    fn what_is_shared_is_the_same_bytes_again() {
        let whole = [
            pod("a", "10.0.0.1", "kubelet"),
            pod("b", "", "x"),
            Bytes::new(),
            Bytes::from_static(br#"{"metadata":{"resourceVersion":"1","managedFields":[{"fieldsType":"FieldsV1","fieldsV1":{"f:a"#),
            Bytes::from([&pod("c", "10.0.0.1", "x")[..300], &pod("c", "fd00::1", "x")].concat()),
        ];
        for bytes in whole {
            let json = Json::shared(bytes.clone());
            assert_eq!((json.bytes(), json.len()), (bytes.clone(), bytes.len()));
            assert!(json.starts_with(&bytes[..bytes.len().min(400)]) && !json.starts_with(b"{}"));
            assert!(json.mentions(b"managedFields") == bytes.starts_with(b"{") && !json.mentions(b"nowhere"));
            let mut out = BytesMut::new();
            json.write(&mut out);
            assert_eq!(out, bytes);
            let later = super::super::replace_revision(&bytes, 12345);
            assert_eq!(json.at_revision(12345).bytes(), later);
        }
    }

    #[test]
    fn objects_of_one_template_share_what_is_owned_in_them() {
        let (a, b) = (pod("a", "10.0.0.1", "kubelet"), pod("b", "10.0.0.2", "kubelet"));
        let (a, b) = (Json::shared(a), Json::shared(b));
        assert!(a.held() < a.len() / 2, "{} of {}", a.held(), a.len());
        assert_eq!(a.shared.len(), 4);
        for ((_, a), (_, b)) in a.shared.iter().zip(&b.shared) {
            assert!(Arc::ptr_eq(a, b));
        }
    }

    #[test]
    fn nothing_stays_for_objects_that_are_gone() {
        let json = Json::shared(pod("a", "", "only here"));
        let piece = Arc::downgrade(&json.shared[0].1);
        prune();
        assert!(piece.upgrade().is_some());
        drop(json);
        prune();
        assert!(piece.upgrade().is_none());
    }
}
