//! What a Deployment's status says, above all whether it moves.

use jiff::Timestamp;

use super::plan::State;
use crate::kit::{Condition, conditions};
use crate::views::{Deployment, DeploymentStatus};

const PROGRESSING: &str = "Progressing";
const AVAILABLE: &str = "Available";
const FAILURE: &str = "ReplicaFailure";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const DONE: &str = "NewReplicaSetAvailable";
const PAUSED: &str = "DeploymentPaused";

fn deadline(deployment: &Deployment) -> Option<i32> {
    deployment.spec.progress_deadline_seconds.filter(|s| *s < i32::MAX)
}

fn condition(state: &State<'_>, kind: &str, status: &str, reason: &str, message: String) -> Condition {
    Condition {
        r#type: kind.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message,
        last_transition_time: Some(state.now),
        last_update_time: Some(state.now),
        more: Default::default(),
    }
}

/// As [`conditions::set`], where a condition of the same status and reason stays whole.
fn set(conditions: &mut Vec<Condition>, new: Condition) {
    let same = |c: &&Condition| c.status == new.status && c.reason == new.reason;
    if conditions::find(conditions, &new.r#type).filter(same).is_none() {
        conditions::set(conditions, new);
    }
}

/// So that the time of a pause does not count against the deadline.
pub fn note_pause(state: &mut State<'_>) {
    let Some(_) = deadline(state.deployment) else { return };
    let present = conditions::find(&state.conditions, PROGRESSING).map(|c| c.reason.clone());
    if present.as_deref() == Some(TIMED_OUT) {
        return;
    }
    let was_paused = present.as_deref() == Some(PAUSED);
    let new = match (state.deployment.spec.paused, was_paused) {
        (true, false) => condition(state, PROGRESSING, "Unknown", PAUSED, "Deployment is paused".to_owned()),
        (false, true) => {
            let message = "Deployment is resumed".to_owned();
            condition(state, PROGRESSING, "Unknown", "DeploymentResumed", message)
        }
        _ => return,
    };
    set(&mut state.conditions, new);
}

pub fn note_created(state: &mut State<'_>, name: &str) {
    if deadline(state.deployment).is_some() {
        let message = format!("Created new replica set {name:?}");
        let new = condition(state, PROGRESSING, "True", "NewReplicaSetCreated", message);
        set(&mut state.conditions, new);
    }
}

/// The set was there before anybody asked for progress.
pub fn note_found(state: &mut State<'_>, name: &str) {
    if deadline(state.deployment).is_some() && conditions::find(&state.conditions, PROGRESSING).is_none() {
        let message = format!("Found new replica set {name:?}");
        let new = condition(state, PROGRESSING, "True", "FoundNewReplicaSet", message);
        set(&mut state.conditions, new);
    }
}

/// The numbers, and whether enough pods are available.
pub fn status(state: &State<'_>) -> DeploymentStatus {
    let sum = |number: fn(&crate::views::ReplicaStatus) -> i32| -> i32 {
        state.sets.iter().map(|s| number(&s.status)).sum()
    };
    let available = sum(|s| s.available_replicas);
    let wanted = state.total(&state.all());
    let mut conditions = state.conditions.clone();
    let (status, reason, message) = if available >= state.replicas() - state.max_unavailable() {
        ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    } else {
        ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    };
    set(&mut conditions, condition(state, AVAILABLE, status, reason, message.to_owned()));
    DeploymentStatus {
        observed_generation: state.deployment.metadata.generation,
        replicas: sum(|s| s.replicas),
        updated_replicas: state.newest.map_or(0, |i| state.sets[i].status.replicas),
        ready_replicas: sum(|s| s.ready_replicas),
        available_replicas: available,
        unavailable_replicas: (wanted - available).max(0),
        collision_count: state.deployment.status.collision_count,
        conditions,
    }
}

/// [`status`], and how the rollout goes.
pub fn rollout_status(state: &State<'_>) -> DeploymentStatus {
    let mut new = status(state);
    let deployment = state.deployment;
    if deadline(deployment).is_none() {
        conditions::remove(&mut new.conditions, PROGRESSING);
    }
    let present = conditions::find(&state.conditions, PROGRESSING).cloned();
    let settled = new.replicas == new.updated_replicas && present.as_ref().is_some_and(|c| c.reason == DONE);
    if deadline(deployment).is_some() && !settled {
        note_progress(state, &mut new, present);
    }
    let newest = state.newest.map(|i| &state.sets[i]);
    let failure = newest
        .into_iter()
        .chain(&state.sets)
        .find_map(|s| conditions::find(&s.status.conditions, FAILURE))
        .cloned();
    match failure {
        Some(failure) => {
            let new_condition = condition(state, FAILURE, &failure.status, &failure.reason, failure.message);
            set(&mut new.conditions, new_condition);
        }
        None => drop(conditions::remove(&mut new.conditions, FAILURE)),
    }
    new
}

fn note_progress(state: &State<'_>, new: &mut DeploymentStatus, present: Option<Condition>) {
    let deployment = state.deployment;
    let subject = match state.newest {
        Some(i) => format!("ReplicaSet {:?}", state.sets[i].metadata.name),
        None => format!("Deployment {:?}", deployment.metadata.name),
    };
    if is_complete(deployment, new) {
        let message = format!("{subject} has successfully progressed.");
        set(&mut new.conditions, condition(state, PROGRESSING, "True", DONE, message));
    } else if has_moved(&deployment.status, new) {
        let message = format!("{subject} is progressing.");
        let mut moved = condition(state, PROGRESSING, "True", "ReplicaSetUpdated", message);
        // The time of the update tells of progress even when nothing else changes.
        if let Some(present) = present.filter(Condition::is_true) {
            moved.last_transition_time = present.last_transition_time;
        }
        conditions::remove(&mut new.conditions, PROGRESSING);
        new.conditions.push(moved);
    } else if has_timed_out(state, new) {
        let message = format!("{subject} has timed out progressing.");
        set(&mut new.conditions, condition(state, PROGRESSING, "False", TIMED_OUT, message));
    }
}

/// All pods are of the newest template, and there, and seen so.
pub fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let wanted = deployment.spec.replicas.unwrap_or(1);
    status.updated_replicas == wanted
        && status.replicas == wanted
        && status.available_replicas == wanted
        && status.observed_generation >= deployment.metadata.generation
}

fn has_moved(old: &DeploymentStatus, new: &DeploymentStatus) -> bool {
    let old_pods = |s: &DeploymentStatus| s.replicas - s.updated_replicas;
    new.updated_replicas > old.updated_replicas
        || old_pods(new) < old_pods(old)
        || new.ready_replicas > old.ready_replicas
        || new.available_replicas > old.available_replicas
}

/// When the time is up that began with the last progress.
fn due(state: &State<'_>, status: &DeploymentStatus) -> Option<Timestamp> {
    let present = conditions::find(&status.conditions, PROGRESSING)?;
    let from = present.last_update_time.or(present.last_transition_time).unwrap_or(state.now);
    let seconds = from.as_second() + i64::from(deadline(state.deployment)?);
    Timestamp::from_second(seconds).ok()
}

fn has_timed_out(state: &State<'_>, new: &DeploymentStatus) -> bool {
    let Some(present) = conditions::find(&new.conditions, PROGRESSING) else { return false };
    match present.reason.as_str() {
        // It was complete; what it lacks now is no matter of the rollout.
        DONE => false,
        TIMED_OUT => true,
        _ => due(state, new).is_some_and(|due| due < state.now),
    }
}

/// Seconds until a rollout that stands still is late.
pub fn check_in(state: &State<'_>, new: &DeploymentStatus) -> Option<u64> {
    let present = conditions::find(&new.conditions, PROGRESSING)?;
    if is_complete(state.deployment, new) || matches!(present.reason.as_str(), TIMED_OUT | DONE) {
        return None;
    }
    let left = due(state, new)?.as_second() - state.now.as_second();
    Some(u64::try_from(left).unwrap_or(0) + 1)
}
