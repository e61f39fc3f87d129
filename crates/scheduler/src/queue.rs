//! Pods that wait to be placed: ready ones by priority, failed ones until their backoff ends, and hopeless
//! ones until something in the cluster changes.
//!
//! Pure: the time is always an argument.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use keelson_sched_core::PodInfo;

/// A pod that found no node is tried again after this long even when nothing changed, in case a change was
/// missed or does not count as one.
const RETRY_ANYWAY: Duration = Duration::from_secs(300);

/// How a waiting pod is known: by uid.
pub type Uid = String;

#[derive(Debug, Clone)]
pub struct Waiting {
    pub pod: Arc<PodInfo>,
    pub scheduler_name: String,
    pub attempts: u32,
    place: Place,
    /// Order of arrival, to break ties of priority.
    turn: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Ready,
    /// Until this moment.
    BackingOff(Instant),
    /// Until a change, or this moment.
    Unschedulable(Instant),
    /// Being placed or bound. The flag: something changed meanwhile, so a failure is not final.
    InFlight(bool),
}

#[derive(Debug)]
pub struct Queue {
    pods: HashMap<Uid, Waiting>,
    /// Highest priority first, then the earliest.
    ready: BTreeSet<(std::cmp::Reverse<i32>, u64, Uid)>,
    /// Backing off and unschedulable pods by the moment at which they become ready by themselves.
    timers: BTreeMap<(Instant, u64), Uid>,
    next_turn: u64,
    initial: Duration,
    longest: Duration,
}

impl Queue {
    pub fn new(initial: Duration, longest: Duration) -> Self {
        Self {
            pods: HashMap::new(),
            ready: BTreeSet::new(),
            timers: BTreeMap::new(),
            next_turn: 0,
            initial,
            longest,
        }
    }

    /// A pod that has no node yet, new or changed. A change makes an unschedulable one ready.
    pub fn set(&mut self, pod: Arc<PodInfo>, scheduler_name: &str) {
        let uid = pod.id.uid.clone();
        let Some(mut waiting) = self.detach(&uid) else {
            let turn = self.next_turn;
            self.next_turn += 1;
            let scheduler_name = scheduler_name.to_owned();
            self.attach(Waiting { pod, scheduler_name, attempts: 0, place: Place::Ready, turn });
            return;
        };
        waiting.pod = pod;
        if let Place::Unschedulable(_) = waiting.place {
            waiting.place = Place::Ready;
        }
        self.attach(waiting);
    }

    /// It has a node, or is gone.
    pub fn remove(&mut self, uid: &str) {
        self.detach(uid);
    }

    pub fn contains(&self, uid: &str) -> bool {
        self.pods.contains_key(uid)
    }

    /// The next pod to place. It is in flight until [`Queue::failed`], [`Queue::unschedulable`] or [`Queue::remove`].
    pub fn pop(&mut self, now: Instant) -> Option<Waiting> {
        self.wake(now);
        let (_, _, uid) = self.ready.first()?.clone();
        let mut waiting = self.detach(&uid)?;
        waiting.attempts += 1;
        waiting.place = Place::InFlight(false);
        self.attach(waiting.clone());
        Some(waiting)
    }

    /// The attempt failed for no reason of the pod's (a lost connection): again after a while.
    pub fn failed(&mut self, uid: &str, now: Instant) {
        self.put_back(uid, |waiting, backoff| {
            waiting.place = Place::BackingOff(now + backoff);
        });
    }

    /// No node fits: again once something changes, or at once (after the backoff) if it did meanwhile.
    pub fn unschedulable(&mut self, uid: &str, now: Instant) {
        self.put_back(uid, |waiting, backoff| {
            waiting.place = match waiting.place {
                Place::InFlight(true) => Place::BackingOff(now + backoff),
                _ => Place::Unschedulable(now + RETRY_ANYWAY),
            };
        });
    }

    /// Something changed that may make room: unschedulable pods are tried again once their backoff is over.
    pub fn something_changed(&mut self, now: Instant) {
        let waiting: Vec<Uid> = self
            .pods
            .iter()
            .filter(|(_, w)| matches!(w.place, Place::Unschedulable(_) | Place::InFlight(false)))
            .map(|(uid, _)| uid.clone())
            .collect();
        for uid in waiting {
            let Some(mut waiting) = self.detach(&uid) else { continue };
            waiting.place = match waiting.place {
                Place::InFlight(_) => Place::InFlight(true),
                // It started to wait RETRY_ANYWAY before its timer.
                Place::Unschedulable(until) => {
                    let over = until - RETRY_ANYWAY + self.backoff(waiting.attempts);
                    if over <= now { Place::Ready } else { Place::BackingOff(over) }
                }
                place => place,
            };
            self.attach(waiting);
        }
    }

    /// When the next pod becomes ready by itself.
    pub fn next_timer(&self) -> Option<Instant> {
        self.timers.first_key_value().map(|((at, _), _)| *at)
    }

    /// (ready, backing off, unschedulable) for the metrics.
    pub fn lengths(&self) -> [(&'static str, usize); 3] {
        let count = |f: fn(&Place) -> bool| self.pods.values().filter(|w| f(&w.place)).count();
        [
            ("active", self.ready.len()),
            ("backoff", count(|p| matches!(p, Place::BackingOff(_)))),
            ("unschedulable", count(|p| matches!(p, Place::Unschedulable(_)))),
        ]
    }

    fn wake(&mut self, now: Instant) {
        while let Some(entry) = self.timers.first_entry().filter(|e| e.key().0 <= now) {
            let uid = entry.get().clone();
            if let Some(mut waiting) = self.detach(&uid) {
                waiting.place = Place::Ready;
                self.attach(waiting);
            }
        }
    }

    fn put_back(&mut self, uid: &str, place: impl FnOnce(&mut Waiting, Duration)) {
        let Some(mut waiting) = self.detach(uid) else { return };
        if matches!(waiting.place, Place::InFlight(_)) {
            let backoff = self.backoff(waiting.attempts);
            place(&mut waiting, backoff);
        }
        self.attach(waiting);
    }

    fn backoff(&self, attempts: u32) -> Duration {
        let factor = 1_u32.checked_shl(attempts.saturating_sub(1)).unwrap_or(u32::MAX);
        self.initial.saturating_mul(factor).min(self.longest)
    }

    fn attach(&mut self, waiting: Waiting) {
        let uid = waiting.pod.id.uid.clone();
        match waiting.place {
            Place::Ready => {
                self.ready.insert((std::cmp::Reverse(waiting.pod.priority), waiting.turn, uid.clone()));
            }
            Place::BackingOff(at) | Place::Unschedulable(at) => {
                self.timers.insert((at, waiting.turn), uid.clone());
            }
            Place::InFlight(_) => {}
        }
        self.pods.insert(uid, waiting);
    }

    fn detach(&mut self, uid: &str) -> Option<Waiting> {
        let waiting = self.pods.remove(uid)?;
        match waiting.place {
            Place::Ready => {
                let key = (std::cmp::Reverse(waiting.pod.priority), waiting.turn, uid.to_owned());
                self.ready.remove(&key);
            }
            Place::BackingOff(at) | Place::Unschedulable(at) => {
                self.timers.remove(&(at, waiting.turn));
            }
            Place::InFlight(_) => {}
        }
        Some(waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keelson_sched_core::api::PodSpec;
    use keelson_sched_core::pod::Identity;

    const SECOND: Duration = Duration::from_secs(1);

    fn queue() -> Queue {
        Queue::new(SECOND, 10 * SECOND)
    }

    fn pod(name: &str, priority: i32) -> Arc<PodInfo> {
        let id = Identity { namespace: "n".into(), name: name.into(), uid: name.into() };
        let spec = PodSpec { priority: Some(priority), ..PodSpec::default() };
        Arc::new(PodInfo::new(id, Default::default(), &spec))
    }

    fn pop(queue: &mut Queue, now: Instant) -> Option<String> {
        queue.pop(now).map(|w| w.pod.id.name.clone())
    }

    #[test]
    fn the_most_important_goes_first_then_the_earliest() {
        let (mut queue, now) = (queue(), Instant::now());
        for (name, priority) in [("a", 0), ("b", 10), ("c", 0), ("d", 10)] {
            queue.set(pod(name, priority), "s");
        }
        let order: Vec<_> = std::iter::from_fn(|| pop(&mut queue, now)).collect();
        assert_eq!(order, ["b", "d", "a", "c"]);
    }

    #[test]
    fn a_failed_attempt_waits_twice_as_long_each_time() {
        let (mut queue, mut now) = (queue(), Instant::now());
        queue.set(pod("a", 0), "s");
        for seconds in [1, 2, 4, 8, 10, 10] {
            assert!(pop(&mut queue, now).is_some());
            queue.failed("a", now);
            let almost = now + seconds * SECOND - Duration::from_millis(1);
            assert_eq!(pop(&mut queue, almost), None, "after {seconds} s");
            now += seconds * SECOND;
        }
        assert!(pop(&mut queue, now).is_some());
    }

    #[test]
    fn an_unschedulable_pod_waits_for_a_change() {
        let (mut queue, now) = (queue(), Instant::now());
        queue.set(pod("a", 0), "s");
        queue.pop(now);
        queue.unschedulable("a", now);
        assert_eq!(pop(&mut queue, now + 60 * SECOND), None);
        queue.something_changed(now + 60 * SECOND);
        assert!(pop(&mut queue, now + 60 * SECOND).is_some());
    }

    #[test]
    fn a_change_during_the_attempt_is_not_lost() {
        let (mut queue, now) = (queue(), Instant::now());
        queue.set(pod("a", 0), "s");
        queue.pop(now);
        queue.something_changed(now);
        queue.unschedulable("a", now);
        assert_eq!(pop(&mut queue, now), None, "not before its backoff");
        assert!(pop(&mut queue, now + SECOND).is_some());
    }

    #[test]
    fn nothing_waits_for_ever() {
        let (mut queue, now) = (queue(), Instant::now());
        queue.set(pod("a", 0), "s");
        queue.pop(now);
        queue.unschedulable("a", now);
        assert_eq!(queue.next_timer(), Some(now + RETRY_ANYWAY));
        assert!(pop(&mut queue, now + RETRY_ANYWAY).is_some());
    }

    #[test]
    fn a_removed_pod_is_not_placed_even_if_its_attempt_failed() {
        let (mut queue, now) = (queue(), Instant::now());
        queue.set(pod("a", 0), "s");
        queue.pop(now);
        queue.remove("a");
        queue.failed("a", now);
        assert_eq!(pop(&mut queue, now + 60 * SECOND), None);
        assert!(!queue.contains("a"));
    }
}
