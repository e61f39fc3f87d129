//! A watch tells of every change that its filter takes: once, in order, as what it is.

use super::truth::{Change, Truth};
use super::{Report, Rule};
use crate::history::{Filter, History, Notice, Revision, Session};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Added,
    Modified,
    Deleted,
}

/// What a change is to a watch.
enum Expected {
    /// As this, or as whatever it is from a state that nobody saw.
    Seen(Option<Kind>),
    Unseen,
    /// Whether it is seen depends on such a state.
    Unknown,
}

pub(super) fn check(history: &History, truth: &Truth, report: &mut Report) {
    for session in &history.sessions {
        order(session, report);
        contents(session, truth, report);
    }
}

fn order(session: &Session, report: &mut Report) {
    let mut last = session.after;
    for (at, (_, notice)) in session.notices.iter().enumerate() {
        let revision = notice.revision();
        let bookmark = matches!(notice, Notice::Bookmark(_));
        if revision < last || (revision == last && !bookmark) {
            let repeated = session.notices[..at].iter().any(|(_, earlier)| earlier == notice);
            let rule = if repeated { Rule::RepeatedEvent } else { Rule::ReorderedEvent };
            report.violation(rule, format!("{notice:?} after revision {last}\n  {}", name(session)));
        }
        last = last.max(revision);
        report.events += usize::from(!bookmark);
    }
}

fn contents(session: &Session, truth: &Truth, report: &mut Report) {
    let mut seen = session.notices.iter().filter(|(_, notice)| notice.object().is_some()).peekable();
    for (revision, change) in truth.changes.range(session.after + 1..session.reached() + 1) {
        while seen.peek().is_some_and(|(_, notice)| notice.revision() < *revision) {
            unexpected(session, seen.next(), truth, report);
        }
        let notice = seen.next_if(|(_, notice)| notice.revision() == *revision);
        match (expected(session.filter, change, truth), notice) {
            (Expected::Seen(None), Some(_)) | (Expected::Unknown, _) => report.unproven += 1,
            (Expected::Seen(Some(kind)), Some((_, notice))) if is(kind, notice) => {}
            (Expected::Unseen, None) => {}
            (Expected::Seen(_), None) => {
                let excerpt = truth.excerpt(change.key, *revision);
                let text = format!("{change:?}{excerpt}\n  {}", around(session, *revision));
                report.violation(Rule::LostEvent, text);
            }
            (_, notice) => unexpected(session, notice, truth, report),
        }
    }
    for notice in seen {
        unexpected(session, Some(notice), truth, report);
    }
}

fn expected(filter: Filter, change: &Change, truth: &Truth) -> Expected {
    let before = truth.before(change.key, change.revision);
    if let Filter::Key(key) = filter
        && key != change.key
    {
        return Expected::Unseen;
    }
    let takes = |value| filter.takes(change.key, value);
    let now = change.state.value().is_some_and(takes);
    if !truth.covers(before.map_or(0, |before| before.revision), change.revision) {
        return if now || !matches!(filter, Filter::Side(_)) {
            Expected::Seen(None)
        } else {
            Expected::Unknown
        };
    }
    match (before.and_then(|before| before.state.value()).is_some_and(takes), now) {
        (false, true) => Expected::Seen(Some(Kind::Added)),
        (true, true) => Expected::Seen(Some(Kind::Modified)),
        (true, false) => Expected::Seen(Some(Kind::Deleted)),
        (false, false) => Expected::Unseen,
    }
}

fn is(kind: Kind, notice: &Notice) -> bool {
    matches!(
        (kind, notice),
        (Kind::Added, Notice::Added(_))
            | (Kind::Modified, Notice::Modified(_))
            | (Kind::Deleted, Notice::Deleted(_))
    )
}

fn unexpected(session: &Session, notice: Option<&(u64, Notice)>, truth: &Truth, report: &mut Report) {
    let Some((_, notice)) = notice else { return };
    let Some(object) = notice.object() else { return };
    // Said of the order already.
    if object.revision <= session.after {
        return;
    }
    // It left the selection, or the world, when only this watch looked.
    if matches!(session.filter, Filter::Side(_)) && !truth.covers(object.revision - 1, object.revision) {
        report.unproven += 1;
        return;
    }
    let text = format!("{notice:?}{}\n  {}", truth.excerpt(object.key, object.revision), name(session));
    report.violation(Rule::WrongEvent, text);
}

fn name(session: &Session) -> String {
    let Session { watcher, server, filter, after, .. } = session;
    format!("watcher {watcher} of {filter:?} on server {server}, after {after} up to {}", session.reached())
}

/// The notices next to a revision.
fn around(session: &Session, revision: Revision) -> String {
    let at = session.notices.iter().position(|(_, notice)| notice.revision() >= revision);
    let at = at.unwrap_or(session.notices.len());
    let few = &session.notices[at.saturating_sub(2)..(at + 2).min(session.notices.len())];
    format!("{}: {few:?}", name(session))
}
