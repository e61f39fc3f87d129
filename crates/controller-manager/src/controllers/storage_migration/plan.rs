//! What is next for the migrations of one resource: one at a time, the oldest first.

use std::sync::Arc;

use crate::kit::conditions::is_true;
use crate::views::StorageVersionMigration;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Its turn has come.
    Start,
    /// It runs; up to which version objects are written anew is not known yet.
    Note,
    Rewrite,
    /// Its outcome is known, and it still counts as running.
    Finish,
}

pub fn next(all: &[Arc<StorageVersionMigration>]) -> Option<(Step, &StorageVersionMigration)> {
    let holds = |m: &StorageVersionMigration, kind| is_true(&m.status.conditions, kind);
    let ended = |m: &StorageVersionMigration| holds(m, "Succeeded") || holds(m, "Failed");
    if let Some(running) = all.iter().find(|m| holds(m, "Running")) {
        let step = match running.status.resource_version.as_str() {
            _ if ended(running) => Step::Finish,
            "" => Step::Note,
            _ => Step::Rewrite,
        };
        return Some((step, running));
    }
    let age = |m: &StorageVersionMigration| m.metadata.creation_timestamp.as_ref().map(|t| t.0);
    let waiting = all.iter().filter(|m| !ended(m));
    waiting.min_by_key(|m| (age(m), &m.metadata.name)).map(|m| (Step::Start, &**m))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn one_migration_at_a_time_goes_through_its_steps() {
        let migration = |name: &str, minute: u8, holding: &[&str], noted: &str| {
            let conditions: Vec<_> =
                holding.iter().map(|kind| json!({"type": kind, "status": "True"})).collect();
            let created = format!("2026-01-01T00:{minute:02}:00Z");
            let value = json!({"metadata": {"name": name, "creationTimestamp": created},
                "status": {"conditions": conditions, "resourceVersion": noted}});
            Arc::new(serde_json::from_value(value).unwrap())
        };
        let waiting = || migration("b", 2, &[], "");
        for (all, expected) in [
            (vec![], None),
            (vec![waiting()], Some((Step::Start, "b"))),
            (
                vec![waiting(), migration("c", 1, &[], ""), migration("a", 2, &[], "")],
                Some((Step::Start, "c")),
            ),
            (vec![waiting(), migration("a", 2, &[], "")], Some((Step::Start, "a"))),
            (vec![migration("a", 1, &["Succeeded"], "7"), waiting()], Some((Step::Start, "b"))),
            (vec![migration("a", 1, &["Failed"], "")], None),
            (vec![waiting(), migration("z", 3, &["Running"], "")], Some((Step::Note, "z"))),
            (vec![waiting(), migration("z", 3, &["Running"], "7")], Some((Step::Rewrite, "z"))),
            (vec![waiting(), migration("z", 3, &["Running", "Succeeded"], "7")], Some((Step::Finish, "z"))),
            (vec![migration("z", 3, &["Running", "Failed"], "")], Some((Step::Finish, "z"))),
        ] {
            assert_eq!(next(&all).map(|(step, m)| (step, &*m.metadata.name)), expected);
        }
    }
}
