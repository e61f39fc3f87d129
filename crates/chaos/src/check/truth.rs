//! What happened, put together from all that was seen.

use std::collections::{BTreeMap, HashMap};

use uuid::Uuid;

use super::{Rule, Violation};
use crate::history::{Answer, Filter, History, Key, Notice, Revision, Time};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Live { uid: Uuid, value: u64 },
    Gone { uid: Uuid },
}

impl State {
    pub(super) fn value(self) -> Option<u64> {
        match self {
            Self::Live { value, .. } => Some(value),
            Self::Gone { .. } => None,
        }
    }

    pub(super) fn uid(self) -> Uuid {
        match self {
            Self::Live { uid, .. } | Self::Gone { uid } => uid,
        }
    }
}

/// A key's state from a revision on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) revision: Revision,
    pub(super) key: Key,
    pub(super) state: State,
}

#[derive(Default)]
pub(super) struct Truth {
    pub(super) changes: BTreeMap<Revision, Change>,
    keys: HashMap<Key, BTreeMap<Revision, Change>>,
    /// Disjoint stretches `(after, upto]` that unfiltered watches told all of, by `after`.
    covered: BTreeMap<Revision, Revision>,
    /// What was known when, by key (`None`: of the store as a whole): ever later, ever greater.
    known: HashMap<Option<Key>, Vec<(Time, Revision)>>,
}

impl Truth {
    pub(super) fn of(history: &History, violations: &mut Vec<Violation>) -> Self {
        let mut truth = Self::default();
        let mut stretches = vec![(0, history.empty_at)];
        for session in &history.sessions {
            if session.filter == Filter::All {
                stretches.push((session.after, session.reached()));
            }
            for (_, notice) in &session.notices {
                let state = match *notice {
                    Notice::Added(o) | Notice::Modified(o) => State::Live { uid: o.uid, value: o.value },
                    // Of a label's watch it may only have left the selection.
                    Notice::Deleted(o) if !matches!(session.filter, Filter::Side(_)) => {
                        State::Gone { uid: o.uid }
                    }
                    _ => continue,
                };
                let Some(object) = notice.object() else { continue };
                truth.add(Change { revision: object.revision, key: object.key, state }, violations);
            }
        }
        for operation in &history.operations {
            let objects = match &operation.answer {
                Answer::Wrote(object) | Answer::Found(object) => std::slice::from_ref(object),
                Answer::Listed { objects, .. } => objects,
                _ => continue,
            };
            for o in objects {
                let state = State::Live { uid: o.uid, value: o.value };
                truth.add(Change { revision: o.revision, key: o.key, state }, violations);
            }
        }
        truth.cover(stretches);
        truth.learn(history);
        truth
    }

    fn add(&mut self, change: Change, violations: &mut Vec<Violation>) {
        let known = *self.changes.entry(change.revision).or_insert(change);
        if known != change {
            violations.push(Violation {
                rule: Rule::TwoChangesAtOneRevision,
                text: format!("{known:?}\n{change:?}"),
            });
            return;
        }
        self.keys.entry(change.key).or_default().insert(change.revision, change);
    }

    fn cover(&mut self, mut stretches: Vec<(Revision, Revision)>) {
        stretches.sort_unstable();
        for (after, upto) in stretches {
            match self.covered.last_entry() {
                Some(mut last) if *last.get() >= after => {
                    let end = last.get_mut();
                    *end = upto.max(*end);
                }
                _ => drop(self.covered.insert(after, upto)),
            }
        }
    }

    fn learn(&mut self, history: &History) {
        let mut points: Vec<(Time, Option<Key>, Revision)> = Vec::new();
        for session in &history.sessions {
            for (time, notice) in &session.notices {
                points.push((*time, None, notice.revision()));
                points.extend(notice.object().map(|object| (*time, Some(object.key), object.revision)));
            }
        }
        for operation in &history.operations {
            let mut point = |key, revision| points.push((operation.end, key, revision));
            match &operation.answer {
                Answer::Wrote(o) | Answer::Found(o) => {
                    point(None, o.revision);
                    point(Some(o.key), o.revision);
                }
                Answer::Listed { revision, objects } => {
                    point(None, *revision);
                    objects.iter().for_each(|o| point(Some(o.key), o.revision));
                }
                Answer::Deleted(uid) => {
                    if let Some(end) = self.end_of(operation.key, *uid) {
                        point(None, end);
                        point(Some(operation.key), end);
                    }
                }
                _ => {}
            }
        }
        points.sort_unstable();
        for (time, key, revision) in points {
            let known = self.known.entry(key).or_default();
            if known.last().is_none_or(|(_, last)| *last < revision) {
                known.push((time, revision));
            }
        }
    }

    /// What anybody knew of a key, or with `None` of the store, before a time.
    pub(super) fn known(&self, key: Option<Key>, before: Time) -> Revision {
        let Some(points) = self.known.get(&key) else { return 0 };
        let end = points.partition_point(|(time, _)| *time < before);
        end.checked_sub(1).map_or(0, |last| points[last].1)
    }

    /// Whether unfiltered watches told of everything after one revision up to another.
    pub(super) fn covers(&self, after: Revision, upto: Revision) -> bool {
        after >= upto || self.covered.range(..=after).next_back().is_some_and(|(_, end)| *end >= upto)
    }

    /// A key's changes with a revision in a range.
    pub(super) fn changes_of(
        &self,
        key: Key,
        range: impl std::ops::RangeBounds<Revision>,
    ) -> impl DoubleEndedIterator<Item = &Change> {
        self.keys.get(&key).into_iter().flat_map(move |changes| {
            changes
                .range((range.start_bound().cloned(), range.end_bound().cloned()))
                .map(|(_, change)| change)
        })
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = Key> {
        self.keys.keys().copied()
    }

    pub(super) fn newest(&self) -> Revision {
        self.changes.keys().next_back().copied().unwrap_or(0)
    }

    /// The last change of a key up to a revision.
    pub(super) fn at(&self, key: Key, revision: Revision) -> Option<&Change> {
        self.changes_of(key, ..=revision).next_back()
    }

    /// The change before the one at this revision.
    pub(super) fn before(&self, key: Key, revision: Revision) -> Option<&Change> {
        self.changes_of(key, ..revision).next_back()
    }

    /// Where an object was deleted.
    pub(super) fn end_of(&self, key: Key, uid: Uuid) -> Option<Revision> {
        self.changes_of(key, ..)
            .find(|change| change.state == State::Gone { uid })
            .map(|change| change.revision)
    }

    /// A key's changes around a revision, a line each.
    pub(super) fn excerpt(&self, key: Key, revision: Revision) -> String {
        let mut lines: Vec<_> = self.changes_of(key, ..=revision).rev().take(3).collect();
        lines.reverse();
        lines.extend(self.changes_of(key, revision + 1..).take(3));
        lines.iter().map(|change| format!("\n  seen: {change:?}")).collect()
    }
}
