//! Between etcd's keys and values and the store's.

use std::sync::Arc;

use etcd_client::ResponseHeader;

use crate::types::{KeyValue, Revision};

/// Where in etcd the store's keys are.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    prefix: Arc<str>,
}

impl Keys {
    pub(super) fn new(prefix: String) -> Self {
        Self { prefix: prefix.into() }
    }

    pub(super) fn to_etcd(&self, key: &str) -> Vec<u8> {
        [self.prefix.as_bytes(), key.as_bytes()].concat()
    }

    /// Where a range starts and ends in etcd's terms.
    pub(super) fn range(&self, prefix: &str, start_after: Option<&str>) -> (Vec<u8>, Vec<u8>) {
        let start = match start_after {
            Some(after) if after >= prefix => [self.prefix.as_bytes(), after.as_bytes(), b"\0"].concat(),
            _ => self.to_etcd(prefix),
        };
        let start = if start.is_empty() { vec![0] } else { start };
        (start, end_of_prefix(self.to_etcd(prefix)))
    }

    /// A key that is no caller's, for what needs one.
    pub(super) fn marker(&self) -> Vec<u8> {
        self.to_etcd("\0revision")
    }

    fn strip(&self, key: Vec<u8>) -> Option<String> {
        let mut key = String::from_utf8(key).ok()?;
        if !key.starts_with(&*self.prefix) {
            return None;
        }
        key.drain(..self.prefix.len());
        Some(key)
    }
}

/// The least key greater than all with a prefix; a zero byte stands for no end.
fn end_of_prefix(mut prefix: Vec<u8>) -> Vec<u8> {
    while let Some(last) = prefix.pop() {
        if last < u8::MAX {
            prefix.push(last + 1);
            return prefix;
        }
    }
    vec![0]
}

pub(super) fn revision_of(header: Option<&ResponseHeader>) -> Revision {
    header.map_or(0, |header| header.revision().unsigned_abs())
}

/// `None` for keys that are none of the store's.
pub(super) fn key_value(keys: &Keys, kv: etcd_client::KeyValue) -> Option<KeyValue> {
    let (create_revision, mod_revision) =
        (kv.create_revision().unsigned_abs(), kv.mod_revision().unsigned_abs());
    let (key, value) = kv.into_key_value();
    Some(KeyValue { key: keys.strip(key)?, value: value.into(), create_revision, mod_revision })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_before_the_next_sibling() {
        for (prefix, end) in [("/a/", &b"/a0"[..]), ("", &[0]), ("~", &[0x7f])] {
            assert_eq!(end_of_prefix(prefix.into()), end, "{prefix}");
        }
        assert_eq!(end_of_prefix(vec![b'a', 0xff]), b"b");
        assert_eq!(end_of_prefix(vec![0xff]), [0]);
    }

    #[test]
    fn a_page_starts_right_after_the_last_key() {
        let keys = Keys::new("/c".to_owned());
        assert_eq!(keys.range("/a/", Some("/a/x")), (b"/c/a/x\0".to_vec(), b"/c/a0".to_vec()));
        assert_eq!(keys.range("/a/", Some("/0")), (b"/c/a/".to_vec(), b"/c/a0".to_vec()));
        assert_eq!(Keys::new(String::new()).range("", None), (vec![0], vec![0]));
    }
}
