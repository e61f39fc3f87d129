//! APIService objects for the groups and versions that this server answers itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use keelson_api_types::{Gvr, StatusError};
use serde_json::{Value, json};

use crate::app::App;
use crate::types::Objects;

const AUTOMANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";

/// Upstream's priorities: of the group among groups, and of the version in its group.
const PRIORITIES: [(&str, u32, u32); 20] = [
    ("", 18000, 1),
    ("admissionregistration.k8s.io", 16700, 15),
    ("apiextensions.k8s.io", 16700, 15),
    ("apiregistration.k8s.io", 18000, 1),
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
    ("networking.k8s.io", 17200, 15),
    ("node.k8s.io", 16300, 15),
    ("policy", 17100, 15),
    ("rbac.authorization.k8s.io", 17000, 15),
    ("scheduling.k8s.io", 16600, 15),
    ("storage.k8s.io", 16800, 15),
];

fn gvr() -> Gvr {
    Gvr::new("apiregistration.k8s.io", "v1", "apiservices")
}

/// Makes the objects match what is served now. Objects that people made are left alone.
pub async fn reconcile(app: &Arc<App>) -> Result<(), StatusError> {
    let mut wanted: BTreeMap<String, Value> = BTreeMap::new();
    for resource in app.registry.all() {
        let (group, version) = (&resource.gvr.group, &resource.gvr.version);
        if group == "apiregistration.k8s.io" {
            continue;
        }
        let custom = resource.custom.is_some();
        wanted.entry(format!("{version}.{group}")).or_insert_with(|| service(group, version, custom));
    }
    let existing = app.list(&gvr(), "");
    for object in &existing {
        let name = crate::meta::text(object, "name");
        let ours = object["metadata"]["labels"].get(AUTOMANAGED).is_some();
        if ours && !wanted.contains_key(name) {
            ignore_missing(app.delete(&gvr(), "", name).await)?;
        }
    }
    for (name, object) in wanted {
        let exists = existing.iter().any(|o| crate::meta::text(o, "name") == name);
        if exists {
            continue;
        }
        let status = object["status"].clone();
        let mut created = match app.create(&gvr(), "", object).await {
            Err(error) if error.code() == 409 => continue,
            outcome => outcome?,
        };
        created["status"] = status;
        app.update(&gvr(), "", "status", created).await?;
    }
    Ok(())
}

fn ignore_missing(outcome: Result<(), StatusError>) -> Result<(), StatusError> {
    match outcome {
        Err(error) if error.code() == 404 => Ok(()),
        outcome => outcome,
    }
}

fn service(group: &str, version: &str, custom: bool) -> Value {
    // Versions other than v1 come first in their group only when they are newer and stable.
    let known = PRIORITIES.iter().find(|(name, _, _)| *name == group);
    let (group_priority, version_priority) = match known {
        Some((_, group_priority, version_priority)) if version == "v1" => {
            (*group_priority, *version_priority)
        }
        Some((_, group_priority, _)) => (*group_priority, 30),
        None if custom => (1000, 100),
        None => (16200, 21),
    };
    json!({
        "metadata": {
            "name": format!("{version}.{group}"),
            "labels": {AUTOMANAGED: if custom { "true" } else { "onstart" }},
        },
        "spec": {
            "group": group,
            "version": version,
            "groupPriorityMinimum": group_priority,
            "versionPriority": version_priority,
        },
        "status": {"conditions": [{
            "type": "Available",
            "status": "True",
            "lastTransitionTime": keelson_api_types::meta::now_rfc3339(),
            "reason": "Local",
            "message": "Local APIServices are always available",
        }]},
    })
}
