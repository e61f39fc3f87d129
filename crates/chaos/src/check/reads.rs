//! Reads are as fresh as they were asked to be, and lists are of one moment.

use std::collections::HashMap;

use super::truth::{State, Truth};
use super::{Report, Rule};
use crate::history::{Answer, Call, Fresh, History, Key, Object, Operation, Revision, Time};

pub(super) fn check(history: &History, truth: &Truth, report: &mut Report) {
    for operation in &history.operations {
        let (Call::Get(fresh) | Call::List(fresh)) = operation.call else { continue };
        match &operation.answer {
            Answer::Found(object) => found(operation, fresh, object, truth, report),
            Answer::Absent => absent(operation, fresh, truth, report),
            Answer::Listed { revision, objects } => {
                let least = least(operation, None, fresh, truth);
                if *revision < least {
                    stale(operation, *revision, least, report);
                }
                list(operation, *revision, objects, truth, report);
            }
            Answer::Torn => report.violation(Rule::TornList, format!("{operation:?}")),
            Answer::Unknown(Some(_)) if fresh == Fresh::Any => without_store(operation, history, report),
            _ => {}
        }
    }
    backwards(history, report);
}

/// What a read must have seen.
fn least(operation: &Operation, key: Option<Key>, fresh: Fresh, truth: &Truth) -> Revision {
    match fresh {
        Fresh::Consistent => truth.known(key, operation.begin),
        Fresh::Any => 0,
        // Of one object: the last change up to there.
        Fresh::AtLeast(revision) => match key {
            Some(key) => truth.at(key, revision).map_or(0, |change| change.revision),
            None => revision,
        },
    }
}

fn stale(operation: &Operation, shown: Revision, least: Revision, report: &mut Report) {
    report.violation(
        Rule::StaleRead,
        format!("{operation:?}\n  is as of {shown}, but {least} was known before it began"),
    );
}

fn found(operation: &Operation, fresh: Fresh, object: &Object, truth: &Truth, report: &mut Report) {
    let least = least(operation, Some(operation.key), fresh, truth);
    if object.revision < least {
        stale(operation, object.revision, least, report);
    }
}

/// There must be a moment without the object that is fresh enough.
fn absent(operation: &Operation, fresh: Fresh, truth: &Truth, report: &mut Report) {
    let key = operation.key;
    let least = least(operation, Some(key), fresh, truth);
    let live = |revision| matches!(truth.at(key, revision).map(|c| c.state), Some(State::Live { .. }));
    if !live(least) || truth.changes_of(key, least + 1..).any(|c| matches!(c.state, State::Gone { .. })) {
        return;
    }
    if truth.covers(least, truth.newest()) {
        stale(operation, 0, least, report);
    } else {
        report.unproven += 1;
    }
}

/// What is listed is the state at the list's revision.
fn list(operation: &Operation, at: Revision, objects: &[Object], truth: &Truth, report: &mut Report) {
    let torn = |key: Key, what: &str, report: &mut Report| {
        let excerpt = truth.excerpt(key, at);
        report.violation(Rule::TornList, format!("{what} at {at}: {operation:?}{excerpt}"));
    };
    let mut listed = HashMap::new();
    for object in objects {
        if listed.insert(object.key, object.revision).is_some() {
            torn(object.key, "an object twice", report);
        }
    }
    for key in truth.keys() {
        let state = truth.at(key, at);
        match (listed.get(&key), state) {
            (Some(revision), _) if *revision > at => torn(key, "an object of later", report),
            (Some(revision), Some(change)) if change.revision != *revision => {
                torn(key, "an old object", report)
            }
            (None, Some(change)) if change.state.value().is_some() => {
                if truth.covers(change.revision, at) {
                    torn(key, "an object is missing", report);
                } else {
                    report.unproven += 1;
                }
            }
            _ => {}
        }
    }
}

fn without_store(operation: &Operation, history: &History, report: &mut Report) {
    let within = |o: &crate::history::Outage| {
        o.server == operation.server && o.begin < operation.begin && operation.end < o.end
    };
    if history.outages.iter().any(within) {
        report.violation(Rule::NoReadFromMemory, format!("{operation:?}"));
    }
}

/// Of one server, a list that began after another had ended is not older.
fn backwards(history: &History, report: &mut Report) {
    let mut lists: HashMap<usize, Vec<(&Operation, Revision)>> = HashMap::new();
    for operation in &history.operations {
        if let (Call::List(_), Answer::Listed { revision, .. }) = (operation.call, &operation.answer) {
            lists.entry(operation.server).or_default().push((operation, *revision));
        }
    }
    for mut lists in lists.into_values() {
        let mut ends: Vec<(Time, Revision)> = lists.iter().map(|(o, revision)| (o.end, *revision)).collect();
        ends.sort_unstable();
        lists.sort_by_key(|(operation, _)| operation.begin);
        let (mut ends, mut seen) = (ends.into_iter().peekable(), 0);
        for (operation, revision) in lists {
            while let Some((_, earlier)) = ends.next_if(|(end, _)| *end < operation.begin) {
                seen = seen.max(earlier);
            }
            if revision < seen {
                let text = format!("{operation:?}\n  this server had shown {seen} before");
                report.violation(Rule::ServerWentBack, text);
            }
        }
    }
}
