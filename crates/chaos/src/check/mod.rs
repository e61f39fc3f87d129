//! The rules of Kubernetes' storage as its clients know them, checked on a history.
//!
//! What happened is the union of all that was seen. Where no unfiltered watch told of a stretch (its servers were down and
//! the history was compacted meanwhile), an absence proves nothing: such looks are counted as `unproven`, not judged.

mod reads;
#[cfg(test)]
mod tests;
mod truth;
mod watches;
mod writes;

use std::fmt;

use crate::history::{Answer, History};
use truth::Truth;

/// What a violation breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// A revision is one change of one object.
    TwoChangesAtOneRevision,
    /// A write happens once.
    RepeatedWrite,
    /// What was refused has not happened.
    RefusedWriteHappened,
    /// A deleted object does not come back, a new one has a new uid.
    ResurrectedObject,
    /// An acknowledged deletion has happened.
    LostDeletion,
    /// A write with a resource version succeeds on that version only.
    StalePrecondition,
    /// A write that began after another was acknowledged has a greater revision.
    WritesOutOfOrder,
    LostEvent,
    RepeatedEvent,
    ReorderedEvent,
    /// An event of the wrong type, or that the selector does not take.
    WrongEvent,
    /// A watch did not come to the last event although everything worked.
    StuckWatch,
    StaleRead,
    /// A list is the state at its resource version.
    TornList,
    /// What `resourceVersion=0` shows of one server never goes back.
    ServerWentBack,
    /// Reads from memory go on without the store.
    NoReadFromMemory,
    /// A status that no fault excuses.
    UnexpectedStatus,
}

#[derive(Debug, Clone)]
pub struct Violation {
    pub rule: Rule,
    /// What was seen, and what contradicts it.
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.rule, self.text)
    }
}

/// What a check came to.
#[derive(Debug, Default)]
pub struct Report {
    pub violations: Vec<Violation>,
    /// Events that watches told of.
    pub events: usize,
    /// Looks that could not be judged.
    pub unproven: usize,
}

pub fn check(history: &History) -> Report {
    let mut report = Report::default();
    let truth = Truth::of(history, &mut report.violations);
    writes::check(history, &truth, &mut report);
    watches::check(history, &truth, &mut report);
    reads::check(history, &truth, &mut report);
    statuses(history, &mut report);
    report
}

impl Report {
    fn violation(&mut self, rule: Rule, text: String) {
        self.violations.push(Violation { rule, text });
    }
}

/// Faults come as conflicts, expired versions, too many requests, or 503 and 504: nothing else.
fn statuses(history: &History, report: &mut Report) {
    for operation in &history.operations {
        let (Answer::Refused(code) | Answer::Unknown(Some(code))) = operation.answer else { continue };
        if !matches!(code, 404 | 409 | 410 | 429 | 503 | 504) {
            report.violation(Rule::UnexpectedStatus, format!("{operation:?}"));
        }
    }
}
