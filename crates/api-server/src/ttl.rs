//! Answers of others, remembered for a while.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// A bounded cache whose entries end at their own times.
pub struct TtlCache<K, V> {
    entries: Mutex<HashMap<K, (V, Instant)>>,
    capacity: usize,
}

impl<K: Eq + Hash, V: Clone> TtlCache<K, V> {
    pub fn new(capacity: usize) -> Self {
        Self { entries: Mutex::default(), capacity }
    }

    pub fn get(&self, key: &K) -> Option<V> {
        let entries = self.entries.lock();
        let (value, ends) = entries.get(key)?;
        (*ends > Instant::now()).then(|| value.clone())
    }

    /// A time of zero remembers nothing.
    pub fn put(&self, key: K, value: V, ttl: Duration) {
        if ttl.is_zero() {
            return;
        }
        let now = Instant::now();
        let mut entries = self.entries.lock();
        if entries.len() >= self.capacity {
            entries.retain(|_, (_, ends)| *ends > now);
        }
        // What is full of live entries starts over: their owners are asked again.
        if entries.len() >= self.capacity {
            entries.clear();
        }
        entries.insert(key, (value, now + ttl));
    }
}
