//! How many pods each ReplicaSet gets next.

use super::history::{self, MAX};
use super::plan::State;
use crate::views::ReplicaSet;

fn is_active(set: &ReplicaSet) -> bool {
    set.spec.replicas() > 0
}

/// The replicas of the newest set, which has `present`: what fits under the surge.
pub fn new_replicas(state: &State<'_>, present: i32) -> i32 {
    if !state.is_rolling() {
        return state.replicas();
    }
    let ceiling = state.replicas() + state.max_surge();
    let total = state.total(&state.all());
    if total >= ceiling {
        return present;
    }
    present + (ceiling - total).min(state.replicas() - present)
}

/// One step of replacing pods little by little. Says whether a set was scaled.
pub fn roll(state: &mut State<'_>) -> bool {
    if !state.sync_newest(true) {
        return true;
    }
    let Some(newest) = state.newest else { return true };
    grow_newest(state, newest) || shrink_old(state, newest)
}

fn grow_newest(state: &mut State<'_>, newest: usize) -> bool {
    let present = state.sets[newest].spec.replicas();
    let to = match present.cmp(&state.replicas()) {
        std::cmp::Ordering::Equal => return false,
        std::cmp::Ordering::Greater => state.replicas(),
        std::cmp::Ordering::Less => new_replicas(state, present),
    };
    state.scale(newest, to, false)
}

fn shrink_old(state: &mut State<'_>, newest: usize) -> bool {
    let mut old: Vec<usize> = state.old().into_iter().filter(|i| is_active(&state.sets[*i])).collect();
    if state.total(&old) == 0 {
        return false;
    }
    old.sort_by_key(|i| (history::created(&state.sets[*i]), state.sets[*i].metadata.name.clone()));
    let least = state.replicas() - state.max_unavailable();
    let set = &state.sets[newest];
    // Pods of the new set that are not there yet must not cost the old ones their place.
    let missing = set.spec.replicas() - set.status.available_replicas;
    let spare = state.total(&state.all()) - least - missing;
    if spare <= 0 {
        return false;
    }
    let unhealthy = shrink_unhealthy(state, &old, spare);
    let healthy = shrink_available(state, newest, &old, least);
    unhealthy + healthy > 0
}

/// Pods that are not available serve nobody: they go first.
fn shrink_unhealthy(state: &mut State<'_>, old: &[usize], spare: i32) -> i32 {
    let mut done = 0;
    for index in old {
        let set = &state.sets[*index];
        let (replicas, available) = (set.spec.replicas(), set.status.available_replicas);
        if done >= spare || replicas == 0 || replicas <= available {
            continue;
        }
        let count = (spare - done).min(replicas - available);
        state.scale(*index, replicas - count, false);
        done += count;
    }
    done
}

fn shrink_available(state: &mut State<'_>, newest: usize, old: &[usize], least: i32) -> i32 {
    let available: i32 = old.iter().chain([&newest]).map(|i| state.sets[*i].status.available_replicas).sum();
    let spare = available - least;
    let mut done = 0;
    for index in old {
        let replicas = state.sets[*index].spec.replicas();
        if done >= spare || replicas == 0 {
            continue;
        }
        let count = replicas.min(spare - done);
        state.scale(*index, replicas - count, false);
        done += count;
    }
    done
}

/// One step of replacing all pods at once: the old ones have to be gone before the new ones come. `running` are the
/// uids of the sets that still have some. Says whether a set was scaled.
pub fn recreate(state: &mut State<'_>, running: &[String]) -> bool {
    let old = state.old();
    let mut scaled = false;
    if !state.sync_newest(false) && state.newest.is_some() {
        return true;
    }
    for index in &old {
        if is_active(&state.sets[*index]) {
            scaled |= state.scale(*index, 0, false);
        }
    }
    if scaled || old.iter().any(|i| running.contains(&state.sets[*i].metadata.uid)) {
        return true;
    }
    match state.newest {
        None => {
            state.sync_newest(true);
            true
        }
        Some(newest) => state.scale(newest, state.replicas(), false),
    }
}

/// After a change of the wanted number, or while paused: keeps the proportion of old and new pods.
pub fn scale_all(state: &mut State<'_>) {
    if let Some(only) = active_or_latest(state) {
        state.scale(only, state.replicas(), false);
        return;
    }
    if is_saturated(state) {
        for index in state.old() {
            if is_active(&state.sets[index]) {
                state.scale(index, 0, false);
            }
        }
        return;
    }
    if state.is_rolling() {
        scale_in_proportion(state);
    }
}

/// The only set with pods, or where none has any the newest; `None` when several have.
fn active_or_latest(state: &State<'_>) -> Option<usize> {
    let active: Vec<usize> = state.all().into_iter().filter(|i| is_active(&state.sets[*i])).collect();
    match active[..] {
        [] => {
            let latest =
                |i: &usize| (history::created(&state.sets[*i]), state.sets[*i].metadata.name.clone());
            state.newest.or_else(|| state.old().into_iter().max_by_key(latest))
        }
        [only] => Some(only),
        _ => None,
    }
}

fn is_saturated(state: &State<'_>) -> bool {
    let Some(newest) = state.newest else { return false };
    let set = &state.sets[newest];
    let replicas = state.replicas();
    let annotated = set.metadata.annotations.get(history::DESIRED).and_then(|d| d.parse::<i32>().ok());
    set.spec.replicas() == replicas
        && annotated == Some(replicas)
        && set.status.available_replicas == replicas
}

fn scale_in_proportion(state: &mut State<'_>) {
    let mut sets: Vec<usize> = state.all().into_iter().filter(|i| is_active(&state.sets[*i])).collect();
    let allowed = if state.replicas() > 0 { state.replicas() + state.max_surge() } else { 0 };
    let to_add = allowed - state.total(&sets);
    // The largest first; of equals the newer when growing, the older when shrinking.
    sets.sort_by_key(|i| {
        let created = history::created(&state.sets[*i]).as_second();
        (-state.sets[*i].spec.replicas(), if to_add > 0 { -created } else { created })
    });
    let mut sizes = Vec::new();
    let mut added = 0;
    for index in &sets {
        let share = proportion(state, *index, to_add, added);
        added += share;
        sizes.push(state.sets[*index].spec.replicas() + share);
    }
    if let Some(first) = sizes.first_mut() {
        // What rounding left over.
        *first = (*first + to_add - added).max(0);
    }
    for (index, size) in sets.into_iter().zip(sizes) {
        state.scale(index, size, true);
    }
}

/// The part of `to_add` that falls to a set by its size before the change.
fn proportion(state: &State<'_>, index: usize, to_add: i32, added: i32) -> i32 {
    let set = &state.sets[index];
    if set.spec.replicas() == 0 || to_add == 0 || to_add == added {
        return 0;
    }
    let share = fraction(state, set);
    let left = to_add - added;
    if to_add > 0 { share.min(left) } else { share.max(left) }
}

fn fraction(state: &State<'_>, set: &ReplicaSet) -> i32 {
    let size = set.spec.replicas();
    if state.replicas() == 0 {
        return -size;
    }
    let after = f64::from(state.replicas() + state.max_surge());
    let annotated = set.metadata.annotations.get(MAX).and_then(|m| m.parse::<i32>().ok());
    let before = annotated.filter(|m| *m > 0).unwrap_or(state.deployment.status.replicas);
    if before == 0 {
        return 0;
    }
    (f64::from(size) * after / f64::from(before)).round() as i32 - size
}
