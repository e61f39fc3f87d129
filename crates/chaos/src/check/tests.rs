//! A history that keeps the rules, and what breaks each of them.

use uuid::Uuid;

use super::{Rule, check};
use crate::history::{
    Answer, Call, Filter, Fresh, History, Key, Notice, Object, Operation, Outage, Revision, Session, Time,
};

/// The uid says which of a key's objects it is.
fn object(key: Key, life: u128, revision: Revision, value: u64) -> Object {
    Object { key, uid: Uuid::from_u128(u128::from(key) * 1000 + life), revision, value }
}

fn operation((begin, end): (Time, Time), key: Key, call: Call, answer: Answer) -> Operation {
    Operation { client: 0, server: 0, begin, end, key, call, answer }
}

fn list((begin, end): (Time, Time), fresh: Fresh, revision: Revision, objects: &[Object]) -> Operation {
    operation((begin, end), 0, Call::List(fresh), Answer::Listed { revision, objects: objects.to_vec() })
}

fn get(span: (Time, Time), object: Object) -> Operation {
    operation(span, object.key, Call::Get(Fresh::Consistent), Answer::Found(object))
}

/// Each notice comes at ten times its revision.
fn session(filter: Filter, after: Revision, notices: &[Notice]) -> Session {
    let notices = notices.iter().map(|notice| (notice.revision() * 10, *notice)).collect();
    Session { watcher: 9, server: 0, filter, after, notices }
}

/// Object 1 is created at 2 and updated at 3, object 2 created at 4 and deleted at 5, and made again at 6; written from
/// ten times the revision minus 8 to minus 1.
fn sound() -> History {
    use Notice::{Added, Bookmark, Deleted, Modified};
    let [a2, a3, b4, b5, b6] = [
        object(1, 1, 2, 20),
        object(1, 1, 3, 21),
        object(2, 1, 4, 40),
        object(2, 1, 5, 40),
        object(2, 2, 6, 61),
    ];
    let create = |object: Object| {
        let span = (object.revision * 10 - 8, object.revision * 10 - 1);
        operation(span, object.key, Call::Create { value: object.value }, Answer::Wrote(object))
    };
    let update = Call::Update { value: 21, expected: 2 };
    let delete = Call::Delete { expected: Some(4) };
    let operations = vec![
        create(a2),
        operation((22, 29), 1, update, Answer::Wrote(a3)),
        create(b4),
        operation((42, 49), 2, delete, Answer::Deleted(b5.uid)),
        create(b6),
        operation((62, 69), 1, Call::Create { value: 99 }, Answer::Refused(409)),
        get((70, 71), a3),
        operation((51, 52), 2, Call::Get(Fresh::Consistent), Answer::Absent),
        list((80, 81), Fresh::Consistent, 6, &[a3, b6]),
        list((82, 83), Fresh::Any, 6, &[a3, b6]),
    ];
    let sessions = vec![
        session(Filter::All, 1, &[Added(a2), Modified(a3), Added(b4), Deleted(b5), Added(b6), Bookmark(6)]),
        session(Filter::Side(0), 1, &[Added(a2), Deleted(object(1, 1, 3, 20)), Added(b4), Deleted(b5)]),
        session(Filter::Key(2), 3, &[Added(b4), Deleted(b5), Added(b6)]),
    ];
    History { empty_at: 1, operations, sessions, outages: vec![Outage { server: 0, begin: 60, end: 100 }] }
}

/// The rules that a history breaks, each once.
fn broken(history: &History) -> Vec<Rule> {
    let mut rules: Vec<Rule> = check(history).violations.iter().map(|violation| violation.rule).collect();
    rules.sort_unstable();
    rules.dedup();
    rules
}

#[track_caller]
fn breaks(expected: &[Rule], change: impl FnOnce(&mut History)) {
    let mut history = sound();
    change(&mut history);
    assert_eq!(broken(&history), expected);
}

/// Adds one operation.
#[track_caller]
fn also_breaks(expected: &[Rule], operation: Operation) {
    breaks(expected, |history| history.operations.push(operation));
}

#[test]
fn a_sound_history_breaks_no_rule_and_leaves_nothing_unproven() {
    let report = check(&sound());
    assert!(report.violations.is_empty(), "{:#?}", report.violations);
    assert_eq!((report.events, report.unproven), (12, 0));
}

#[test]
fn a_lost_event_is_found_in_each_kind_of_watch() {
    for (session, event) in [(0, 1), (0, 3), (1, 1), (2, 0), (2, 1)] {
        breaks(&[Rule::LostEvent], |history| {
            history.sessions[session].notices.remove(event);
        });
    }
}

#[test]
fn a_bookmark_says_that_what_was_before_it_was_told() {
    let early = session(Filter::Key(2), 3, &[Notice::Bookmark(4)]);
    breaks(&[Rule::LostEvent], |history| history.sessions.push(early));
}

#[test]
fn a_repeated_event_is_found() {
    breaks(&[Rule::RepeatedEvent, Rule::WrongEvent], |history| {
        let again = history.sessions[0].notices[1];
        history.sessions[0].notices.insert(3, again);
    });
}

#[test]
fn an_event_from_before_the_start_is_found() {
    breaks(&[Rule::ReorderedEvent], |history| history.sessions[2].after = 4);
}

#[test]
fn reordered_events_are_found() {
    let rules = [Rule::LostEvent, Rule::ReorderedEvent, Rule::WrongEvent];
    breaks(&rules, |history| history.sessions[0].notices.swap(1, 2));
}

#[test]
fn an_event_of_the_wrong_type_is_found() {
    breaks(&[Rule::WrongEvent], |history| {
        history.sessions[1].notices[1].1 = Notice::Modified(object(1, 1, 3, 21));
    });
    breaks(&[Rule::WrongEvent], |history| {
        history.sessions[1].notices.push((60, Notice::Added(object(2, 2, 6, 61))));
    });
}

#[test]
fn a_stale_read_is_found_and_one_that_may_be_stale_is_not() {
    let old = object(1, 1, 2, 20);
    also_breaks(&[Rule::StaleRead], get((31, 32), old));
    // The update was under way.
    also_breaks(&[], get((25, 40), old));
    also_breaks(&[], operation((80, 81), 1, Call::Get(Fresh::Any), Answer::Found(old)));
    let at_least = Call::Get(Fresh::AtLeast(5));
    also_breaks(&[Rule::StaleRead], operation((80, 81), 1, at_least, Answer::Found(old)));
    also_breaks(&[Rule::StaleRead], operation((80, 81), 1, Call::Get(Fresh::Consistent), Answer::Absent));
    also_breaks(&[Rule::StaleRead], list((41, 42), Fresh::Consistent, 3, &[object(1, 1, 3, 21)]));
}

#[test]
fn what_a_watch_has_told_no_later_read_may_miss() {
    breaks(&[Rule::StaleRead], |history| {
        history.sessions[0].notices[1].0 = 23;
        history.operations.push(get((24, 25), object(1, 1, 2, 20)));
    });
}

#[test]
fn a_list_that_is_not_the_state_at_its_revision_is_found() {
    let (new, old) = (object(1, 1, 3, 21), object(1, 1, 2, 20));
    for objects in [&[old][..], &[], &[new, new], &[new, object(2, 1, 4, 40)]] {
        also_breaks(
            &[Rule::TornList],
            list((70, 71), Fresh::Any, if objects.len() == 2 { 5 } else { 3 }, objects),
        );
    }
    also_breaks(&[Rule::TornList], list((70, 71), Fresh::Any, 2, &[new]));
    also_breaks(&[Rule::TornList], operation((70, 71), 0, Call::List(Fresh::Consistent), Answer::Torn));
}

#[test]
fn a_server_that_goes_back_is_found() {
    also_breaks(&[Rule::ServerWentBack], list((90, 91), Fresh::Any, 3, &[object(1, 1, 3, 21)]));
}

#[test]
fn a_lost_acknowledged_write_is_found() {
    let lost = object(1, 1, 7, 70);
    let write = operation((84, 85), 1, Call::Patch { value: 70 }, Answer::Wrote(lost));
    breaks(&[Rule::LostEvent, Rule::StaleRead, Rule::TornList], |history| {
        history.operations.push(write);
        history.operations.push(list(
            (90, 91),
            Fresh::Consistent,
            8,
            &[object(1, 1, 3, 21), object(2, 2, 6, 61)],
        ));
        history.operations.push(get((90, 91), object(1, 1, 3, 21)));
        history.sessions[0].notices.push((90, Notice::Bookmark(8)));
    });
}

#[test]
fn a_lost_deletion_is_found() {
    let uid = object(1, 1, 0, 0).uid;
    also_breaks(
        &[Rule::LostDeletion],
        operation((72, 73), 1, Call::Delete { expected: None }, Answer::Deleted(uid)),
    );
}

#[test]
fn a_deleted_object_that_comes_back_is_found() {
    breaks(&[Rule::ResurrectedObject], |history| {
        history.sessions[0].notices.push((170, Notice::Modified(object(2, 2, 7, 63))));
        history.sessions[0].notices.push((180, Notice::Deleted(object(2, 2, 8, 63))));
        history.sessions[0].notices.push((190, Notice::Added(object(2, 2, 9, 65))));
    });
}

#[test]
fn one_revision_with_two_changes_is_found() {
    also_breaks(&[Rule::TwoChangesAtOneRevision, Rule::StaleRead], get((90, 91), object(1, 1, 2, 55)));
}

#[test]
fn a_write_that_happened_twice_is_found() {
    breaks(&[Rule::RepeatedWrite], |history| {
        history.sessions[0].notices.push((170, Notice::Modified(object(1, 1, 7, 21))));
    });
}

#[test]
fn a_refused_write_that_happened_is_found() {
    breaks(&[Rule::RefusedWriteHappened], |history| {
        history.sessions[0].notices.push((170, Notice::Modified(object(1, 1, 7, 99))));
    });
}

#[test]
fn a_write_on_a_version_that_was_replaced_is_found() {
    let stale = |call| {
        let write = operation((172, 173), 1, call, Answer::Wrote(object(1, 1, 7, 70)));
        breaks(&[Rule::StalePrecondition], |history| {
            history.operations.push(write);
            history.sessions[0].notices.push((175, Notice::Modified(object(1, 1, 7, 70))));
        });
    };
    stale(Call::Update { value: 70, expected: 2 });
    stale(Call::Create { value: 70 });
}

#[test]
fn writes_out_of_order_are_found() {
    breaks(&[Rule::WritesOutOfOrder], |history| {
        // The one at revision 3 begins after the one at 4 was acknowledged.
        (history.operations[1].begin, history.operations[1].end) = (46, 47);
        history.sessions.clear();
        history.operations.truncate(3);
        history.operations[2].end = 45;
    });
}

#[test]
fn memory_answers_without_the_store_and_faults_have_their_codes() {
    let failed = |span, call, code| operation(span, 1, call, Answer::Unknown(Some(code)));
    also_breaks(&[Rule::NoReadFromMemory], failed((70, 71), Call::Get(Fresh::Any), 503));
    also_breaks(&[], failed((50, 71), Call::Get(Fresh::Any), 503));
    also_breaks(&[], failed((70, 71), Call::Get(Fresh::Consistent), 504));
    also_breaks(&[Rule::UnexpectedStatus], failed((70, 71), Call::Patch { value: 98 }, 500));
}

#[test]
fn what_nobody_watched_is_not_judged() {
    let mut history = sound();
    history.sessions.truncate(2);
    history.sessions.remove(0);
    assert!(broken(&history).is_empty(), "a watch of a selection alone");
    let mut history = sound();
    history.sessions.clear();
    // Object 2 is gone from a later list: its deletion may have gone unseen.
    history.operations.push(list((90, 91), Fresh::Consistent, 9, &[object(1, 1, 3, 21)]));
    let report = check(&history);
    assert!(report.violations.is_empty(), "{:#?}", report.violations);
    assert!(report.unproven > 0);
}
