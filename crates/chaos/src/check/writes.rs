//! Acknowledged writes are there, once and in order; refused ones are not.

use std::collections::{HashMap, HashSet};

use super::truth::{State, Truth};
use super::{Report, Rule};
use crate::history::{Answer, Call, History, Operation};

pub(super) fn check(history: &History, truth: &Truth, report: &mut Report) {
    values(history, truth, report);
    lives(truth, report);
    for operation in &history.operations {
        match operation.answer {
            Answer::Wrote(object) => {
                let known = truth.known(None, operation.begin);
                if object.revision <= known {
                    report.violation(
                        Rule::WritesOutOfOrder,
                        format!("{operation:?}\n  revision {known} was known before it began"),
                    );
                }
                precondition(operation, object.revision, truth, report);
            }
            Answer::Deleted(uid) => match truth.end_of(operation.key, uid) {
                Some(end) => precondition(operation, end, truth, report),
                None => lost_deletion(operation, truth, report),
            },
            _ => {}
        }
    }
}

/// A value is written once, and not at all where the write was refused.
fn values(history: &History, truth: &Truth, report: &mut Report) {
    let mut written = HashMap::new();
    for change in truth.changes.values() {
        let Some(value) = change.state.value() else { continue };
        if let Some(first) = written.insert(value, change.revision) {
            report.violation(Rule::RepeatedWrite, format!("{change:?}\n  also at revision {first}"));
        }
    }
    for operation in &history.operations {
        let (Call::Create { value } | Call::Update { value, .. } | Call::Patch { value }) = operation.call
        else {
            continue;
        };
        if let (Answer::Refused(_), Some(revision)) = (&operation.answer, written.get(&value)) {
            let text = format!("{operation:?}\n  happened at revision {revision}");
            report.violation(Rule::RefusedWriteHappened, text);
        }
    }
}

/// One object after another under a key.
fn lives(truth: &Truth, report: &mut Report) {
    for key in truth.keys() {
        let mut ended = HashSet::new();
        let mut previous = None;
        for change in truth.changes_of(key, ..) {
            let uid = change.state.uid();
            if ended.contains(&uid) {
                let text = format!("{change:?}{}", truth.excerpt(key, change.revision));
                report.violation(Rule::ResurrectedObject, text);
            }
            if let State::Gone { uid } = change.state {
                ended.insert(uid);
            }
            if let Some((before, State::Live { uid: last, .. })) = previous
                && last != uid
            {
                ended.insert(last);
                if truth.covers(before, change.revision) {
                    let text = format!("of {last}{}", truth.excerpt(key, change.revision));
                    report.violation(Rule::LostEvent, text);
                } else {
                    report.unproven += 1;
                }
            }
            previous = Some((change.revision, change.state));
        }
    }
}

fn lost_deletion(operation: &Operation, truth: &Truth, report: &mut Report) {
    let Answer::Deleted(uid) = operation.answer else { return };
    let last = truth.changes_of(operation.key, ..).rfind(|change| change.state.uid() == uid);
    match last {
        Some(last) if truth.covers(last.revision, truth.newest()) => {
            let text = format!("{operation:?}{}", truth.excerpt(operation.key, last.revision));
            report.violation(Rule::LostDeletion, text);
        }
        _ => report.unproven += 1,
    }
}

/// The change that a write made follows the one that it was made on.
fn precondition(operation: &Operation, revision: u64, truth: &Truth, report: &mut Report) {
    let before = truth.before(operation.key, revision);
    let (holds, from) = match operation.call {
        Call::Create { .. } => (
            before.is_none_or(|change| matches!(change.state, State::Gone { .. })),
            before.map_or(0, |change| change.revision),
        ),
        Call::Update { expected, .. } | Call::Delete { expected: Some(expected) } => {
            (before.is_none_or(|change| change.revision <= expected), expected)
        }
        _ => return,
    };
    if holds {
        return;
    }
    // A deletion before the creation may have gone unseen.
    if matches!(operation.call, Call::Create { .. }) && !truth.covers(from, revision) {
        report.unproven += 1;
        return;
    }
    let text = format!("{operation:?}{}", truth.excerpt(operation.key, revision));
    report.violation(Rule::StalePrecondition, text);
}
