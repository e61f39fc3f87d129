//! The next step of a StatefulSet.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use keelson_client::Meta;
use serde_json::Value;

use super::identity;
use crate::kit::history::{REVISION_LABEL, Revision};
use crate::views::{Pod, StatefulSet, StatefulSetStatus};

#[derive(Debug)]
pub enum Op {
    Create { pod: Value, claims: Vec<Value> },
    Delete(Meta),
    Patch { pod: Meta, patch: Value },
    DeleteClaims(Vec<String>),
}

#[derive(Debug)]
pub struct Plan {
    pub ops: Vec<Op>,
    pub status: StatefulSetStatus,
    pub check_in: Option<i64>,
}

pub struct State<'a> {
    pub set: &'a StatefulSet,
    /// Those whose names are of the set.
    pub pods: &'a [Arc<Pod>],
    /// What pods below the partition are of.
    pub current: &'a Revision,
    /// Of the present template.
    pub update: &'a Revision,
    pub now: Timestamp,
}

impl State<'_> {
    fn replicas(&self) -> i32 {
        self.set.spec.replicas.unwrap_or(1)
    }

    fn start(&self) -> i32 {
        self.set.spec.ordinals.start
    }

    fn in_order(&self) -> bool {
        self.set.spec.pod_management_policy != "Parallel"
    }

    fn partition(&self) -> Option<i32> {
        self.set.spec.update_strategy.rolling_update.partition
    }

    fn is_healthy(pod: &Pod) -> bool {
        pod.status.phase == "Running" && pod.is_ready() && !pod.metadata.is_deleting()
    }

    fn is_available(&self, pod: &Pod) -> bool {
        Self::is_healthy(pod) && pod.is_available(self.set.spec.min_ready_seconds, self.now)
    }

    fn is_of(pod: &Pod, revision: &Revision) -> bool {
        pod.metadata.labels.get(REVISION_LABEL) == Some(&revision.name)
    }

    /// The revision that a new pod gets: below the partition, or below what was not rolled yet, the current one.
    fn revision_for(&self, ordinal: i32) -> &Revision {
        let rolling = self.set.spec.update_strategy.r#type != "OnDelete";
        let boundary = match self.partition() {
            Some(partition) => partition,
            None => self.start() + self.set.status.current_replicas,
        };
        if rolling && ordinal < boundary { self.current } else { self.update }
    }

    pub fn plan(&self) -> Plan {
        let mut by_ordinal: BTreeMap<i32, &Arc<Pod>> = BTreeMap::new();
        for pod in self.pods {
            if let Some(ordinal) = identity::ordinal(&self.set.metadata.name, &pod.metadata.name) {
                by_ordinal.insert(ordinal, pod);
            }
        }
        let mut ops = Vec::new();
        if self.keep_replicas(&by_ordinal, &mut ops)
            && self.remove_surplus(&by_ordinal, &mut ops)
            && self.set.spec.update_strategy.r#type != "OnDelete"
        {
            self.roll(&by_ordinal, &mut ops);
        }
        let min_ready = self.set.spec.min_ready_seconds;
        let waits = self.pods.iter().filter_map(|p| p.available_in(min_ready, self.now)).min();
        Plan { ops, status: self.status(), check_in: waits }
    }

    fn wanted(&self) -> std::ops::Range<i32> {
        self.start()..self.start() + self.replicas()
    }

    /// Makes and mends pods. Says whether all is as it should be, so that the next step may be taken.
    fn keep_replicas(&self, pods: &BTreeMap<i32, &Arc<Pod>>, ops: &mut Vec<Op>) -> bool {
        let mut go_on = true;
        for ordinal in self.wanted() {
            let Some(pod) = pods.get(&ordinal) else {
                let pod = identity::pod(self.set, ordinal, self.revision_for(ordinal));
                ops.push(Op::Create { pod, claims: identity::claims(self.set, ordinal) });
                if self.in_order() {
                    return false;
                }
                go_on = false;
                continue;
            };
            if pod.is_finished() && !pod.metadata.is_deleting() {
                ops.push(Op::Delete(pod.metadata.clone()));
                if self.in_order() {
                    return false;
                }
                go_on = false;
                continue;
            }
            if self.in_order() && !self.is_available(pod) {
                return false;
            }
            if let Some(patch) = identity::mend(pod, ordinal) {
                ops.push(Op::Patch { pod: pod.metadata.clone(), patch });
            }
        }
        go_on
    }

    /// Deletes pods beyond the wanted number, from the highest down. Says whether none is left.
    fn remove_surplus(&self, pods: &BTreeMap<i32, &Arc<Pod>>, ops: &mut Vec<Op>) -> bool {
        let wanted = self.wanted();
        let surplus: Vec<_> = pods.iter().rev().filter(|(ordinal, _)| !wanted.contains(ordinal)).collect();
        let first_unhealthy = surplus.iter().rev().find(|(_, p)| !Self::is_healthy(p)).map(|(o, _)| **o);
        for (ordinal, pod) in &surplus {
            if pod.metadata.is_deleting() {
                if self.in_order() {
                    return false;
                }
                continue;
            }
            if self.in_order() && !Self::is_healthy(pod) && first_unhealthy != Some(**ordinal) {
                return false;
            }
            if self.set.spec.persistent_volume_claim_retention_policy.when_scaled == "Delete" {
                let names = identity::claim_names(self.set, **ordinal).into_iter().map(|(_, claim)| claim);
                ops.push(Op::DeleteClaims(names.collect()));
            }
            ops.push(Op::Delete(pod.metadata.clone()));
            if self.in_order() {
                return false;
            }
        }
        surplus.is_empty()
    }

    /// Deletes the highest pod of another revision, once all above it are well.
    fn roll(&self, pods: &BTreeMap<i32, &Arc<Pod>>, ops: &mut Vec<Op>) {
        let lowest = self.partition().unwrap_or(0).max(self.start());
        for ordinal in self.wanted().rev().filter(|o| *o >= lowest) {
            let Some(pod) = pods.get(&ordinal) else { return };
            if !Self::is_of(pod, self.update) && !pod.metadata.is_deleting() {
                ops.push(Op::Delete(pod.metadata.clone()));
                return;
            }
            if !self.is_available(pod) {
                return;
            }
        }
    }

    fn status(&self) -> StatefulSetStatus {
        let count = |test: &dyn Fn(&Pod) -> bool| self.pods.iter().filter(|p| test(p)).count() as i32;
        let alive = |p: &Pod| !p.metadata.is_deleting();
        let mut status = StatefulSetStatus {
            observed_generation: self.set.metadata.generation,
            replicas: self.pods.len() as i32,
            ready_replicas: count(&|p| p.status.phase == "Running" && p.is_ready()),
            available_replicas: count(&|p| self.is_available(p)),
            current_replicas: count(&|p| alive(p) && Self::is_of(p, self.current)),
            updated_replicas: count(&|p| alive(p) && Self::is_of(p, self.update)),
            current_revision: self.current.name.clone(),
            update_revision: self.update.name.clone(),
            collision_count: self.set.status.collision_count.or(Some(0)),
            conditions: self.set.status.conditions.clone(),
        };
        let done = self.set.spec.update_strategy.r#type != "OnDelete"
            && status.updated_replicas == status.replicas
            && status.ready_replicas == status.replicas
            && status.replicas == self.replicas();
        if done {
            status.current_replicas = status.updated_replicas;
            status.current_revision = status.update_revision.clone();
        }
        status
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn set(replicas: i32, more: Value) -> StatefulSet {
        let mut value = json!({"metadata": {"name": "db", "uid": "s"}, "spec": {"replicas": replicas, "serviceName": "db",
            "selector": {"matchLabels": {"a": "b"}}, "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {}}]}});
        for (key, field) in more.as_object().unwrap() {
            value["spec"][key] = field.clone();
        }
        serde_json::from_value(value).unwrap()
    }

    fn revision(name: &str) -> Revision {
        Revision {
            name: name.into(),
            hash: name.into(),
            template: json!({"metadata": {"labels": {"a": "b"}}, "spec": {}}),
        }
    }

    fn pod(ordinal: i32, revision: &str, ready: &str) -> Arc<Pod> {
        let name = format!("db-{ordinal}");
        Arc::new(serde_json::from_value(json!({
            "metadata": {"name": name, "labels": {REVISION_LABEL: revision, "statefulset.kubernetes.io/pod-name": name, "apps.kubernetes.io/pod-index": ordinal.to_string()}},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": "1970-01-01T00:00:00Z"}]}}))
        .unwrap())
    }

    fn check(set: &StatefulSet, pods: &[Arc<Pod>], expected: &[&str]) -> StatefulSetStatus {
        let (current, update) = (revision("v1"), revision("v2"));
        let state = State { set, pods, current: &current, update: &update, now: Timestamp::UNIX_EPOCH };
        let plan = state.plan();
        let ops: Vec<String> = plan
            .ops
            .iter()
            .map(|op| match op {
                Op::Create { pod, claims } => format!(
                    "create {} {} {}",
                    pod["metadata"]["name"].as_str().unwrap(),
                    pod["metadata"]["labels"][REVISION_LABEL].as_str().unwrap(),
                    claims[0]["metadata"]["name"].as_str().unwrap()
                ),
                Op::Delete(meta) => format!("delete {}", meta.name),
                Op::Patch { pod, .. } => format!("patch {}", pod.name),
                Op::DeleteClaims(names) => format!("delete claims {}", names.join(" ")),
            })
            .collect();
        assert_eq!(ops, expected);
        plan.status
    }

    #[test]
    fn pods_come_in_order_and_go_in_reverse() {
        check(&set(2, json!({})), &[], &["create db-0 v2 data-db-0"]);
        check(&set(2, json!({})), &[pod(0, "v2", "False")], &[]);
        check(&set(2, json!({})), &[pod(0, "v2", "True")], &["create db-1 v2 data-db-1"]);
        let three = [pod(0, "v2", "True"), pod(1, "v2", "True"), pod(2, "v2", "True")];
        check(&set(1, json!({})), &three, &["delete db-2"]);
        let parallel = json!({"podManagementPolicy": "Parallel"});
        check(&set(2, parallel.clone()), &[], &["create db-0 v2 data-db-0", "create db-1 v2 data-db-1"]);
        check(&set(1, parallel), &three, &["delete db-2", "delete db-1"]);
    }

    #[test]
    fn an_update_goes_from_the_top_down_to_the_partition() {
        let old = [pod(0, "v1", "True"), pod(1, "v1", "True"), pod(2, "v1", "True")];
        check(&set(3, json!({})), &old, &["delete db-2"]);
        check(&set(3, json!({})), &[old[0].clone(), old[1].clone(), pod(2, "v2", "True")], &["delete db-1"]);
        let partition =
            json!({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}});
        let status =
            check(&set(3, partition.clone()), &[old[0].clone(), old[1].clone(), pod(2, "v2", "True")], &[]);
        assert_eq!(
            (status.current_replicas, status.updated_replicas, &*status.current_revision),
            (2, 1, "v1")
        );
        check(&set(3, partition), &old[1..2], &["create db-0 v1 data-db-0"]);
        let done = check(&set(1, json!({})), &[pod(0, "v2", "True")], &[]);
        assert_eq!((&*done.current_revision, done.current_replicas), ("v2", 1));
    }
}
