//! The names of a StatefulSet's pods and claims.

use serde_json::{Value, json};

use crate::kit::history::{REVISION_LABEL, Revision};
use crate::kit::{controller_ref, pods};
use crate::views::{Pod, StatefulSet};

const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

/// The number at the end of a pod's name, if the rest is the set's.
pub fn ordinal(set: &str, pod: &str) -> Option<i32> {
    pod.strip_prefix(set)?.strip_prefix('-')?.parse().ok().filter(|n| *n >= 0)
}

pub fn pod_name(set: &StatefulSet, ordinal: i32) -> String {
    format!("{}-{ordinal}", set.metadata.name)
}

/// The names of the claim templates, and of the claims that a pod has of them.
pub fn claim_names(set: &StatefulSet, ordinal: i32) -> Vec<(String, String)> {
    let name = |template: &Value| {
        let name = template.pointer("/metadata/name")?.as_str()?.to_owned();
        let claim = format!("{name}-{}", pod_name(set, ordinal));
        Some((name, claim))
    };
    set.spec.volume_claim_templates.iter().filter_map(name).collect()
}

pub fn claims(set: &StatefulSet, ordinal: i32) -> Vec<Value> {
    let names = claim_names(set, ordinal);
    let templates = set.spec.volume_claim_templates.iter().zip(names);
    templates
        .map(|(template, (_, name))| {
            let mut labels = template.pointer("/metadata/labels").cloned().unwrap_or(json!({}));
            let selector = set.spec.selector.get("matchLabels").and_then(Value::as_object);
            for (key, value) in selector.into_iter().flatten() {
                labels[key] = value.clone();
            }
            let mut claim = json!({
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": { "name": name, "labels": labels },
                "spec": template.get("spec").cloned().unwrap_or_default(),
            });
            if let Some(annotations) = template.pointer("/metadata/annotations") {
                claim["metadata"]["annotations"] = annotations.clone();
            }
            if set.spec.persistent_volume_claim_retention_policy.when_deleted == "Delete" {
                let mut owner = json!(controller_ref(set));
                owner["blockOwnerDeletion"] = false.into();
                claim["metadata"]["ownerReferences"] = json!([owner]);
            }
            claim
        })
        .collect()
}

/// The pod with a number, of a revision's template.
pub fn pod(set: &StatefulSet, ordinal: i32, revision: &Revision) -> Value {
    let name = pod_name(set, ordinal);
    let mut pod = pods::from_template(&revision.template, set);
    if let Some(metadata) = pod["metadata"].as_object_mut() {
        metadata.remove("generateName");
    }
    pod["metadata"]["name"] = name.clone().into();
    pod["metadata"]["labels"][POD_NAME] = name.clone().into();
    pod["metadata"]["labels"][POD_INDEX] = ordinal.to_string().into();
    pod["metadata"]["labels"][REVISION_LABEL] = revision.name.clone().into();
    pod["spec"]["hostname"] = name.into();
    if !set.spec.service_name.is_empty() {
        pod["spec"]["subdomain"] = set.spec.service_name.clone().into();
    }
    let names = claim_names(set, ordinal);
    if !names.is_empty() {
        let mut volumes: Vec<Value> =
            pod["spec"].get("volumes").and_then(Value::as_array).cloned().unwrap_or_default();
        volumes.retain(|v| !names.iter().any(|(name, _)| v["name"].as_str() == Some(name)));
        volumes.extend(
            names.into_iter().map(
                |(name, claim)| json!({ "name": name, "persistentVolumeClaim": { "claimName": claim } }),
            ),
        );
        pod["spec"]["volumes"] = volumes.into();
    }
    pod
}

/// What puts the labels of a pod's identity right, where they are not.
pub fn mend(pod: &Pod, ordinal: i32) -> Option<Value> {
    let labels = &pod.metadata.labels;
    let good = labels.get(POD_NAME) == Some(&pod.metadata.name)
        && labels.get(POD_INDEX).is_some_and(|i| *i == ordinal.to_string());
    let wanted = json!({ POD_NAME: pod.metadata.name, POD_INDEX: ordinal.to_string() });
    (!good).then(|| json!({ "metadata": { "labels": wanted } }))
}
