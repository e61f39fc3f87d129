//! What a controller has done and its informer has not shown yet.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use keelson_client::Key;
use parking_lot::Mutex;
use tokio::time::Instant;

/// After this long what did not show is given up: the next sync acts on what is seen.
const GIVEN_UP: Duration = Duration::from_secs(300);

/// Per controlled object: creations that are counted, deletions by uid. A sync that still expects some
/// leaves the number of pods alone, so none is made or deleted twice.
#[derive(Default)]
pub struct Expectations {
    entries: Mutex<HashMap<Key, Entry>>,
}

struct Entry {
    creations: i64,
    deletions: HashSet<String>,
    since: Instant,
}

impl Expectations {
    /// Whether all that was expected has shown.
    pub fn satisfied(&self, key: &Key) -> bool {
        self.entries
            .lock()
            .get(key)
            .is_none_or(|e| (e.creations <= 0 && e.deletions.is_empty()) || e.since.elapsed() > GIVEN_UP)
    }

    pub fn expect_creations(&self, key: &Key, count: usize) {
        let entry = Entry { creations: count as i64, deletions: HashSet::new(), since: Instant::now() };
        self.entries.lock().insert(key.clone(), entry);
    }

    pub fn expect_deletions(&self, key: &Key, uids: impl IntoIterator<Item = String>) {
        let entry = Entry { creations: 0, deletions: uids.into_iter().collect(), since: Instant::now() };
        self.entries.lock().insert(key.clone(), entry);
    }

    /// Both in one sync.
    pub fn expect(&self, key: &Key, creations: usize, uids: impl IntoIterator<Item = String>) {
        let entry = Entry {
            creations: creations as i64,
            deletions: uids.into_iter().collect(),
            since: Instant::now(),
        };
        self.entries.lock().insert(key.clone(), entry);
    }

    /// A creation showed, or failed, or was left out.
    pub fn created(&self, key: &Key, count: usize) {
        if let Some(entry) = self.entries.lock().get_mut(key) {
            entry.creations -= count as i64;
        }
    }

    /// A deletion showed or failed.
    pub fn deleted(&self, key: &Key, uid: &str) {
        if let Some(entry) = self.entries.lock().get_mut(key) {
            entry.deletions.remove(uid);
        }
    }

    /// The controlled object is gone.
    pub fn forget(&self, key: &Key) {
        self.entries.lock().remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_waits_for_all_that_it_expects() {
        let expectations = Expectations::default();
        let key = Key::new("default", "web");
        assert!(expectations.satisfied(&key));
        expectations.expect_creations(&key, 2);
        expectations.created(&key, 1);
        assert!(!expectations.satisfied(&key));
        expectations.created(&key, 1);
        assert!(expectations.satisfied(&key));
        expectations.expect_deletions(&key, ["a".to_owned()]);
        expectations.deleted(&key, "b");
        assert!(!expectations.satisfied(&key));
        expectations.deleted(&key, "a");
        assert!(expectations.satisfied(&key));
    }
}
