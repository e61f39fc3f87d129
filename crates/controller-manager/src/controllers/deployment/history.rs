//! Which ReplicaSet belongs to which revision of a Deployment, told by its template and its annotations.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::kit::{controller_ref, hash};
use crate::views::{Deployment, ReplicaSet};

pub const REVISION: &str = "deployment.kubernetes.io/revision";
pub const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
pub const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
pub const MAX: &str = "deployment.kubernetes.io/max-replicas";
pub const HASH_LABEL: &str = "pod-template-hash";
/// Annotations of a Deployment that its ReplicaSets do not get.
const OWN: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED,
    MAX,
    "deprecated.deployment.rollback.to",
];
const LONGEST_NAME: usize = 253;
const LONGEST_HISTORY: usize = 2000;

/// Whether two templates say the same, but for the label that a ReplicaSet's has on top.
pub fn same_template(a: &Value, b: &Value) -> bool {
    strip(a) == strip(b)
}

fn strip(template: &Value) -> Value {
    let mut template = template.clone();
    if let Some(labels) = template.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        labels.remove(HASH_LABEL);
    }
    if let Some(metadata) = template.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("creationTimestamp");
        metadata.retain(|_, value| !value.as_object().is_some_and(serde_json::Map::is_empty));
    }
    template
}

/// The ReplicaSet of the present template: the oldest, where there are several.
pub fn newest(deployment: &Deployment, sets: &[Arc<ReplicaSet>]) -> Option<usize> {
    let template = strip(&deployment.spec.template);
    let matching = sets.iter().enumerate().filter(|(_, s)| strip(&s.spec.template) == template);
    matching.min_by_key(|(_, s)| (created(s), s.metadata.name.clone())).map(|(i, _)| i)
}

pub fn created(set: &ReplicaSet) -> jiff::Timestamp {
    set.metadata.creation_timestamp.as_ref().map_or(jiff::Timestamp::UNIX_EPOCH, |t| t.0)
}

/// The number of a set's revision; 0 without one.
pub fn revision(set: &ReplicaSet) -> i64 {
    set.metadata.annotations.get(REVISION).and_then(|r| r.parse().ok()).unwrap_or(0)
}

/// The ReplicaSet for the present template, without replicas and annotations.
pub fn new_set(deployment: &Deployment) -> Value {
    let hash = hash::short(&strip(&deployment.spec.template), deployment.status.collision_count);
    let mut name = deployment.metadata.name.clone();
    name.truncate(LONGEST_NAME - 1 - hash.len());
    let mut template = deployment.spec.template.clone();
    template["metadata"]["labels"][HASH_LABEL] = hash.clone().into();
    let mut selector = deployment.spec.selector.clone();
    selector["matchLabels"][HASH_LABEL] = hash.clone().into();
    json!({
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": format!("{name}-{hash}"),
            "labels": template["metadata"]["labels"],
            "ownerReferences": [controller_ref(deployment)],
        },
        "spec": {
            "minReadySeconds": deployment.spec.min_ready_seconds,
            "selector": selector,
            "template": template,
        },
    })
}

/// The annotations of the newest set: the Deployment's, the revision and, once that has changed, those it had before.
pub fn annotations(
    deployment: &Deployment,
    present: &BTreeMap<String, String>,
    revision: i64,
) -> BTreeMap<String, String> {
    let mut annotations = present.clone();
    let inherited = deployment.metadata.annotations.iter().filter(|(key, _)| !OWN.contains(&key.as_str()));
    annotations.extend(inherited.map(|(key, value)| (key.clone(), value.clone())));
    let old = present.get(REVISION);
    if old.and_then(|r| r.parse::<i64>().ok()).unwrap_or(0) >= revision {
        return annotations;
    }
    annotations.insert(REVISION.to_owned(), revision.to_string());
    if let Some(old) = old.filter(|o| !o.is_empty()) {
        let before = annotations.entry(REVISION_HISTORY.to_owned()).or_default();
        if !before.is_empty() {
            before.push(',');
        }
        before.push_str(old);
        while before.len() > LONGEST_HISTORY {
            let cut = before.find(',').map_or(before.len(), |i| i + 1);
            before.drain(..cut);
        }
    }
    annotations
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment() -> Deployment {
        serde_json::from_value(json!({
            "metadata": {"name": "web", "uid": "d", "annotations": {"note": "x", REVISION: "2"}},
            "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"x": 1}}},
        }))
        .unwrap()
    }

    #[test]
    fn a_new_set_is_found_again_by_its_template() {
        let deployment = deployment();
        let mut set: ReplicaSet = serde_json::from_value(new_set(&deployment)).unwrap();
        assert!(set.metadata.name.starts_with("web-"));
        assert_eq!(set.spec.selector["matchLabels"]["a"], "b");
        assert!(set.metadata.labels.contains_key(HASH_LABEL));
        assert_eq!(newest(&deployment, &[Arc::new(set.clone())]), Some(0));
        set.spec.template["spec"]["x"] = 2.into();
        assert_eq!(newest(&deployment, &[Arc::new(set)]), None);
    }

    #[test]
    fn a_set_that_is_rolled_back_to_remembers_its_old_revision() {
        let mut present = BTreeMap::from([(REVISION.to_owned(), "1".to_owned())]);
        for (revision, history) in [(3, "1"), (3, "1"), (5, "1,3")] {
            present = annotations(&deployment(), &present, revision);
            assert_eq!(present[REVISION], revision.to_string());
            assert_eq!(present[REVISION_HISTORY], history);
        }
        assert_eq!(present["note"], "x");
    }
}
