//! A sync of a Deployment as a pure function of it and its ReplicaSets.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use keelson_client::Meta;
use serde_json::{Value, json};

use super::history::{self, DESIRED, MAX, REVISION};
use super::{progress, rollout};
use crate::kit::scaled;
use crate::views::{Deployment, DeploymentStatus, ReplicaSet};

/// What is to be done, in this order; then the status is written.
#[derive(Debug)]
pub struct Plan {
    pub ops: Vec<Op>,
    pub status: DeploymentStatus,
    /// Seconds after which to look whether there was progress.
    pub check_in: Option<u64>,
}

#[derive(Debug)]
pub enum Op {
    Create {
        set: Value,
        from_zero_to: i32,
    },
    Scale {
        set: Meta,
        from: i32,
        to: i32,
        annotations: Value,
    },
    Update {
        set: Meta,
        annotations: BTreeMap<String, String>,
        min_ready_seconds: i32,
    },
    Delete(Meta),
    /// The Deployment's own annotation.
    Revision(String),
}

/// The state that planning works on: sets change as operations on them are decided.
pub struct State<'a> {
    pub deployment: &'a Deployment,
    pub sets: Vec<ReplicaSet>,
    /// Index of the present template's set.
    pub newest: Option<usize>,
    pub ops: Vec<Op>,
    pub conditions: Vec<crate::kit::Condition>,
    pub now: Timestamp,
}

/// Plans one sync. `running` are the uids of the sets that have pods which did not end.
pub fn plan(deployment: &Deployment, sets: &[Arc<ReplicaSet>], running: &[String], now: Timestamp) -> Plan {
    let mut state = State {
        deployment,
        sets: sets.iter().map(|s| (**s).clone()).collect(),
        newest: history::newest(deployment, sets),
        ops: Vec::new(),
        conditions: deployment.status.conditions.clone(),
        now,
    };
    if deployment.metadata.is_deleting() {
        let status = progress::status(&state);
        return Plan { ops: state.ops, status, check_in: None };
    }
    progress::note_pause(&mut state);
    if deployment.spec.paused {
        state.sync_newest(false);
        rollout::scale_all(&mut state);
        state.clean_up();
        let status = progress::status(&state);
        return Plan { ops: state.ops, status, check_in: None };
    }
    if state.is_scaling() {
        state.sync_newest(false);
        rollout::scale_all(&mut state);
        let status = progress::status(&state);
        return Plan { ops: state.ops, status, check_in: None };
    }
    let scaled = match deployment.spec.strategy.r#type.as_str() {
        "Recreate" => rollout::recreate(&mut state, running),
        _ => rollout::roll(&mut state),
    };
    if !scaled && progress::is_complete(deployment, &deployment.status) {
        state.clean_up();
    }
    let status = progress::rollout_status(&state);
    let check_in = progress::check_in(&state, &status);
    Plan { ops: state.ops, status, check_in }
}

impl State<'_> {
    pub fn replicas(&self) -> i32 {
        self.deployment.spec.replicas.unwrap_or(1)
    }

    /// Pods above the wanted number, and below it, while one template replaces another. One of both is not 0.
    fn fenceposts(&self) -> (i32, i32) {
        let rolling = &self.deployment.spec.strategy.rolling_update;
        let surge = scaled(rolling.max_surge.as_ref(), self.replicas(), true);
        let unavailable = scaled(rolling.max_unavailable.as_ref(), self.replicas(), false);
        if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
    }

    pub fn is_rolling(&self) -> bool {
        self.deployment.spec.strategy.r#type != "Recreate"
    }

    pub fn max_surge(&self) -> i32 {
        if self.is_rolling() { self.fenceposts().0 } else { 0 }
    }

    pub fn max_unavailable(&self) -> i32 {
        if !self.is_rolling() || self.replicas() == 0 {
            return 0;
        }
        self.fenceposts().1.min(self.replicas())
    }

    /// Indexes of all but the newest.
    pub fn old(&self) -> Vec<usize> {
        (0..self.sets.len()).filter(|i| Some(*i) != self.newest).collect()
    }

    pub fn total(&self, indexes: &[usize]) -> i32 {
        indexes.iter().map(|i| self.sets[*i].spec.replicas()).sum()
    }

    pub fn all(&self) -> Vec<usize> {
        (0..self.sets.len()).collect()
    }

    /// Whether the wanted number changed since the sets were scaled last.
    fn is_scaling(&self) -> bool {
        let active = self.sets.iter().filter(|s| s.spec.replicas() > 0);
        let mut desired = active.filter_map(|s| s.metadata.annotations.get(DESIRED)?.parse::<i32>().ok());
        desired.any(|d| d != self.replicas())
    }

    fn replica_annotations(&self) -> [(&'static str, String); 2] {
        let replicas = self.replicas();
        [(DESIRED, replicas.to_string()), (MAX, (replicas + self.max_surge()).to_string())]
    }

    /// Brings the newest set's annotations up to date, or makes it. Returns false where the sync has to end
    /// because the set is new: what follows needs it.
    pub fn sync_newest(&mut self, create: bool) -> bool {
        let old = self.old();
        let next = old.iter().map(|i| history::revision(&self.sets[*i])).max().unwrap_or(0) + 1;
        let Some(newest) = self.newest else {
            if create {
                self.create(next);
            }
            return false;
        };
        let set = &self.sets[newest];
        let annotations = history::annotations(self.deployment, &set.metadata.annotations, next);
        let min_ready_seconds = self.deployment.spec.min_ready_seconds;
        let stale =
            annotations != set.metadata.annotations || set.spec.min_ready_seconds != min_ready_seconds;
        if stale {
            let meta = set.metadata.clone();
            self.ops.push(Op::Update { set: meta, annotations: annotations.clone(), min_ready_seconds });
            // The set's change wakes the next sync, which goes on from it.
            self.sets[newest].metadata.annotations = annotations;
            return false;
        }
        let revision = annotations.get(REVISION).cloned().unwrap_or_default();
        self.set_revision(revision);
        let name = self.sets[newest].metadata.name.clone();
        progress::note_found(self, &name);
        true
    }

    fn create(&mut self, revision: i64) {
        let mut set = history::new_set(self.deployment);
        let replicas = rollout::new_replicas(self, 0);
        set["spec"]["replicas"] = replicas.into();
        let mut annotations = history::annotations(self.deployment, &BTreeMap::new(), revision);
        annotations.extend(self.replica_annotations().map(|(k, v)| (k.to_owned(), v)));
        set["metadata"]["annotations"] = json!(annotations);
        let name = set["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        self.ops.push(Op::Create { set, from_zero_to: replicas });
        self.set_revision(revision.to_string());
        progress::note_created(self, &name);
    }

    fn set_revision(&mut self, revision: String) {
        if self.deployment.metadata.annotations.get(REVISION) != Some(&revision) {
            self.ops.push(Op::Revision(revision));
        }
    }

    /// Decides on a set's replicas; says whether that changes them.
    pub fn scale(&mut self, index: usize, to: i32, force: bool) -> bool {
        let annotations = self.replica_annotations();
        let set = &mut self.sets[index];
        let from = set.spec.replicas();
        let stale = annotations.iter().any(|(k, v)| set.metadata.annotations.get(*k) != Some(v));
        if from == to && !(force && stale) {
            return false;
        }
        self.ops.push(Op::Scale {
            set: set.metadata.clone(),
            from,
            to,
            annotations: annotations.iter().map(|(k, v)| ((*k).to_owned(), json!(v))).collect(),
        });
        set.spec.replicas = Some(to);
        from != to
    }

    /// Deletes old sets without pods beyond the history's limit, the oldest revision first.
    fn clean_up(&mut self) {
        let Some(limit) = self.deployment.spec.revision_history_limit.filter(|l| *l < i32::MAX) else {
            return;
        };
        let mut old: Vec<usize> =
            self.old().into_iter().filter(|i| !self.sets[*i].metadata.is_deleting()).collect();
        let surplus = old.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
        old.sort_by_key(|i| (history::revision(&self.sets[*i]), history::created(&self.sets[*i])));
        for index in old.into_iter().take(surplus) {
            let set = &self.sets[index];
            let settled = set.metadata.generation <= set.status.observed_generation;
            if set.status.replicas == 0 && set.spec.replicas() == 0 && settled {
                self.ops.push(Op::Delete(set.metadata.clone()));
            }
        }
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
