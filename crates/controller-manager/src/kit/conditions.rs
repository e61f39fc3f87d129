//! Conditions in an object's status.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A condition of any kind. What it has besides these fields is kept.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Condition {
    pub r#type: String,
    pub status: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<jiff::Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_update_time: Option<jiff::Timestamp>,
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

impl Condition {
    /// A condition that changed now.
    pub fn new(kind: &str, status: bool, reason: &str, message: impl Into<String>) -> Condition {
        let status = if status { "True" } else { "False" };
        Condition::with_status(kind, status, reason, message)
    }

    pub fn with_status(kind: &str, status: &str, reason: &str, message: impl Into<String>) -> Condition {
        Condition {
            r#type: kind.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: message.into(),
            last_transition_time: Some(super::now()),
            ..Condition::default()
        }
    }

    pub fn is_true(&self) -> bool {
        self.status == "True"
    }
}

pub fn find<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|c| c.r#type == kind)
}

pub fn is_true(conditions: &[Condition], kind: &str) -> bool {
    find(conditions, kind).is_some_and(Condition::is_true)
}

/// Puts a condition in the place of the one of its type. The time of the last transition stays when the status
/// does, and nothing changes when status, reason and message are as they were.
pub fn set(conditions: &mut Vec<Condition>, mut new: Condition) -> bool {
    match conditions.iter_mut().find(|c| c.r#type == new.r#type) {
        Some(old) if old.status == new.status && old.reason == new.reason && old.message == new.message => {
            false
        }
        Some(old) => {
            if old.status == new.status {
                new.last_transition_time = old.last_transition_time;
            }
            *old = new;
            true
        }
        None => {
            conditions.push(new);
            true
        }
    }
}

pub fn remove(conditions: &mut Vec<Condition>, kind: &str) -> bool {
    let before = conditions.len();
    conditions.retain(|c| c.r#type != kind);
    conditions.len() != before
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_transition_time_is_of_the_last_change_of_status() {
        let early = jiff::Timestamp::UNIX_EPOCH;
        let mut conditions = vec![Condition::new("Ready", true, "A", "")];
        conditions[0].last_transition_time = Some(early);
        assert!(!set(&mut conditions, Condition::new("Ready", true, "A", "")));
        assert!(set(&mut conditions, Condition::new("Ready", true, "B", "")));
        assert_eq!(conditions[0].last_transition_time, Some(early));
        assert!(set(&mut conditions, Condition::new("Ready", false, "B", "")));
        assert_ne!(conditions[0].last_transition_time, Some(early));
        assert!(remove(&mut conditions, "Ready") && conditions.is_empty());
    }
}
