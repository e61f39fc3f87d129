//! APIService objects for the groups and versions that this server answers itself: those built in are made at the
//! start, those of definitions are kept in step with them.

use std::collections::BTreeMap;
use std::sync::Arc;

use keelson_api_types::StatusError;
use serde_json::{Value, json};

use super::{GROUP, Priority, gvr};
use crate::app::App;
use crate::meta;
use crate::types::Objects;

const AUTOMANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";

/// Upstream's priorities: of the group among groups, and of `v1` in its group.
const PRIORITIES: [(&str, i64, i64); 23] = [
    ("", 18000, 1),
    ("admissionregistration.k8s.io", 16700, 15),
    ("apiextensions.k8s.io", 16700, 15),
    (GROUP, 20000, 15),
    ("apps", 17800, 15),
    ("authentication.k8s.io", 17700, 15),
    ("authorization.k8s.io", 17600, 15),
    ("autoscaling", 17500, 15),
    ("batch", 17400, 15),
    ("certificates.k8s.io", 17300, 15),
    ("coordination.k8s.io", 16500, 15),
    ("discovery.k8s.io", 16200, 15),
    ("events.k8s.io", 17750, 15),
    ("flowcontrol.apiserver.k8s.io", 16100, 21),
    ("internal.apiserver.k8s.io", 16000, 9),
    ("networking.k8s.io", 17200, 15),
    ("node.k8s.io", 16300, 15),
    ("policy", 17100, 15),
    ("rbac.authorization.k8s.io", 17000, 15),
    ("resource.k8s.io", 16200, 21),
    ("scheduling.k8s.io", 16600, 15),
    ("storage.k8s.io", 16800, 15),
    ("storagemigration.k8s.io", 15800, 9),
];

/// How a group and version that this server answers ranks; those of definitions come last.
pub fn priority(group: &str, version: &str) -> Priority {
    match PRIORITIES.iter().find(|(name, _, _)| *name == group) {
        Some((_, group, of_v1)) if version == "v1" => Priority { group: *group, version: *of_v1 },
        Some((_, group, _)) if version.contains("alpha") => Priority { group: *group, version: 1 },
        Some((_, group, _)) if version.contains("beta") => Priority { group: *group, version: 9 },
        // `autoscaling/v2`: newer than v1 and stable.
        Some((_, group, _)) => Priority { group: *group, version: 30 },
        None => Priority { group: 1000, version: 100 },
    }
}

/// Makes the objects match what is served now; `at_start` those of built-in groups as well. What people made under
/// the same names is left alone.
pub async fn reconcile(app: &Arc<App>, at_start: bool) -> Result<(), StatusError> {
    let mut wanted: BTreeMap<String, Value> = BTreeMap::new();
    for resource in app.registry.all() {
        let (group, version) = (&resource.gvr.group, &resource.gvr.version);
        let managed = if resource.custom.is_some() { "true" } else { "onstart" };
        if group != GROUP {
            let name = format!("{version}.{group}");
            wanted.entry(name).or_insert_with_key(|name| service(name, group, version, managed));
        }
    }
    for existing in app.list(&gvr(), "") {
        let name = meta::text(&existing, "name");
        let managed = meta::string(&existing["metadata"]["labels"], AUTOMANAGED);
        match wanted.remove(name) {
            None if managed == "true" || managed == "onstart" && at_start => {
                forgive(app.delete(&gvr(), "", name).await)?;
            }
            Some(object) if managed == object["metadata"]["labels"][AUTOMANAGED] => {
                let same = existing["spec"] == object["spec"];
                if !same && (managed == "true" || at_start) {
                    let mut changed = Value::clone(&existing);
                    changed["spec"] = object["spec"].clone();
                    forgive(app.update(&gvr(), "", "", changed).await.map(drop))?;
                }
            }
            _ => {}
        }
    }
    for object in wanted.into_values() {
        if at_start || object["metadata"]["labels"][AUTOMANAGED] == "true" {
            forgive(app.create(&gvr(), "", object).await.map(drop))?;
        }
    }
    Ok(())
}

/// Who changed or removed an object at the same time wakes us again.
fn forgive(outcome: Result<(), StatusError>) -> Result<(), StatusError> {
    match outcome {
        Err(error) if matches!(error.code(), 404 | 409) => Ok(()),
        outcome => outcome,
    }
}

fn service(name: &str, group: &str, version: &str, managed: &str) -> Value {
    let priority = priority(group, version);
    let mut spec = json!({
        "version": version,
        "groupPriorityMinimum": priority.group,
        "versionPriority": priority.version,
    });
    if !group.is_empty() {
        spec["group"] = group.into();
    }
    json!({"metadata": {"name": name, "labels": {AUTOMANAGED: managed}}, "spec": spec})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_groups_rank_before_those_of_definitions() {
        let rank = |group, version| {
            let Priority { group, version } = priority(group, version);
            (group, version)
        };
        assert_eq!(rank("autoscaling", "v2"), (17500, 30));
        assert_eq!(rank("autoscaling", "v1"), (17500, 15));
        assert_eq!(rank("storage.k8s.io", "v1beta1"), (16800, 9));
        assert_eq!(rank("example.com", "v1"), (1000, 100));
    }
}
