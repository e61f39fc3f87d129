//! A work queue with client-go's rules: a key is queued once, never worked on twice at a time, and comes
//! back if it was added while it was worked on.

use parking_lot::Mutex;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// The first pause after a failure; it doubles with each further one.
const FIRST_RETRY: Duration = Duration::from_millis(5);
const LONGEST_RETRY: Duration = Duration::from_secs(1000);

/// Keys that want to be reconciled. Cheap to clone; all clones are one queue.
pub struct WorkQueue<K> {
    shared: Arc<Shared<K>>,
}

struct Shared<K> {
    state: Mutex<State<K>>,
    /// Something became ready, or the next time to look changed.
    changed: Notify,
}

struct State<K> {
    ready: VecDeque<K>,
    /// Wanted: in `ready`, or to be put there when its present work is done.
    dirty: HashSet<K>,
    working: HashSet<K>,
    /// When a key becomes due; the heap may hold older times of it, which are passed over.
    due: HashMap<K, Instant>,
    timers: BinaryHeap<Reverse<Timer<K>>>,
    sequence: u64,
    failures: HashMap<K, u32>,
}

struct Timer<K> {
    at: Instant,
    /// Of two equal times the earlier request comes first.
    sequence: u64,
    key: K,
}

impl<K> PartialEq for Timer<K> {
    fn eq(&self, other: &Timer<K>) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<K> Eq for Timer<K> {}

impl<K> PartialOrd for Timer<K> {
    fn partial_cmp(&self, other: &Timer<K>) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<K> Ord for Timer<K> {
    fn cmp(&self, other: &Timer<K>) -> std::cmp::Ordering {
        (self.at, self.sequence).cmp(&(other.at, other.sequence))
    }
}

impl<K> Clone for WorkQueue<K> {
    fn clone(&self) -> WorkQueue<K> {
        WorkQueue { shared: self.shared.clone() }
    }
}

impl<K: Clone + Eq + Hash> Default for WorkQueue<K> {
    fn default() -> WorkQueue<K> {
        WorkQueue::new()
    }
}

impl<K: Clone + Eq + Hash> WorkQueue<K> {
    pub fn new() -> WorkQueue<K> {
        let state = State {
            ready: VecDeque::new(),
            dirty: HashSet::new(),
            working: HashSet::new(),
            due: HashMap::new(),
            timers: BinaryHeap::new(),
            sequence: 0,
            failures: HashMap::new(),
        };
        WorkQueue { shared: Arc::new(Shared { state: Mutex::new(state), changed: Notify::new() }) }
    }

    /// Queues a key, unless it is queued. One that is worked on is queued when that is done.
    pub fn add(&self, key: K) {
        if self.shared.state.lock().add(key) {
            self.shared.changed.notify_one();
        }
    }

    /// Queues a key after a pause; the earliest of several pauses counts.
    pub fn add_after(&self, key: K, pause: Duration) {
        if pause.is_zero() {
            return self.add(key);
        }
        let at = Instant::now() + pause;
        let mut state = self.shared.state.lock();
        if state.due.get(&key).is_some_and(|earlier| *earlier <= at) {
            return;
        }
        state.due.insert(key.clone(), at);
        state.sequence += 1;
        let sequence = state.sequence;
        state.timers.push(Reverse(Timer { at, sequence, key }));
        drop(state);
        self.shared.changed.notify_one();
    }

    /// Queues a key after a pause that doubles each time: 5 ms to 1000 s. [`WorkQueue::forget`] starts anew.
    pub fn add_rate_limited(&self, key: K) {
        let pause = {
            let mut state = self.shared.state.lock();
            let failures = state.failures.entry(key.clone()).or_default();
            *failures += 1;
            FIRST_RETRY.saturating_mul(1u32.checked_shl(*failures - 1).unwrap_or(u32::MAX)).min(LONGEST_RETRY)
        };
        self.add_after(key, pause);
    }

    /// Forgets the failures of a key that succeeded or is given up.
    pub fn forget(&self, key: &K) {
        self.shared.state.lock().failures.remove(key);
    }

    /// How often in a row the key was added by [`WorkQueue::add_rate_limited`].
    pub fn failures(&self, key: &K) -> u32 {
        self.shared.state.lock().failures.get(key).copied().unwrap_or(0)
    }

    /// The next key, which is the caller's until [`WorkQueue::done`].
    pub async fn get(&self) -> K {
        loop {
            let changed = self.shared.changed.notified();
            let mut changed = std::pin::pin!(changed);
            // From here on no change is missed.
            changed.as_mut().enable();
            let next = {
                let mut state = self.shared.state.lock();
                state.ripen(Instant::now());
                if let Some(key) = state.take() {
                    if !state.ready.is_empty() {
                        self.shared.changed.notify_one();
                    }
                    return key;
                }
                state.timers.peek().map(|Reverse(timer)| timer.at)
            };
            match next {
                Some(at) => tokio::select! {
                    () = changed => {}
                    () = tokio::time::sleep_until(at) => {}
                },
                None => changed.await,
            }
        }
    }

    /// Ends the work that [`WorkQueue::get`] began.
    pub fn done(&self, key: &K) {
        let again = {
            let mut state = self.shared.state.lock();
            let again = state.working.remove(key) && state.dirty.contains(key);
            if again {
                state.ready.push_back(key.clone());
            }
            again
        };
        if again {
            self.shared.changed.notify_one();
        }
    }

    /// How many keys wait to be worked on, not counting those that pause.
    pub fn len(&self) -> usize {
        self.shared.state.lock().ready.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<K: Clone + Eq + Hash> State<K> {
    /// Whether the key became ready.
    fn add(&mut self, key: K) -> bool {
        if !self.dirty.insert(key.clone()) || self.working.contains(&key) {
            return false;
        }
        self.ready.push_back(key);
        true
    }

    /// Queues what is due.
    fn ripen(&mut self, now: Instant) {
        while let Some(Reverse(timer)) = self.timers.peek() {
            let current = self.due.get(&timer.key) == Some(&timer.at);
            if current && timer.at > now {
                return;
            }
            let Some(Reverse(timer)) = self.timers.pop() else { return };
            if current {
                self.due.remove(&timer.key);
                self.add(timer.key);
            }
        }
    }

    fn take(&mut self) -> Option<K> {
        let key = self.ready.pop_front()?;
        self.dirty.remove(&key);
        self.working.insert(key.clone());
        Some(key)
    }
}
