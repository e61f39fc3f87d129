//! From a workload to a pod, and from a pod to a container.

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::context::Context;
use crate::resources::{Found, parse};
use crate::value::{list, text};

const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// The pod that `POD`, `pod/NAME` or `TYPE/NAME` means; of a workload's pods the readiest.
pub async fn one(context: &Context, word: &str) -> anyhow::Result<Found> {
    let (found, mut pods) = of(context, word).await?;
    if pods.is_empty() {
        bail!("no pods found for {}: it has no pods that run", found.label());
    }
    let pod = pods.swap_remove(0);
    Ok(Found::new(context.mapping("pods").await?, pod))
}

/// The object that a word names, and its pods, the best first.
pub async fn of(context: &Context, word: &str) -> anyhow::Result<(Found, Vec<Value>)> {
    let mapper = context.mapper().await?;
    let words =
        if word.contains('/') { vec![word.to_owned()] } else { vec!["pods".to_owned(), word.to_owned()] };
    let selections = parse(&mapper, &words)?;
    let (selection, name) = selections
        .first()
        .and_then(|s| Some((s, s.names.first()?)))
        .context("name a pod: POD or TYPE/NAME")?;
    let mapping = &selection.mapping;
    let namespace = crate::resources::namespace_for(context, mapping, false);
    let object = context.get(mapping, namespace.as_deref(), name).await?;
    let found = Found::new(mapping.clone(), object);
    if mapping.kind == "Pod" {
        let pod = found.object.clone();
        return Ok((found, vec![pod]));
    }
    let selector = super::selector_text(&found.object);
    if selector.is_empty() {
        bail!("cannot find pods of {}: it has no selector", found.label());
    }
    let mut pods = context.pods(found.namespace.as_deref().unwrap_or("default"), &selector, "").await?;
    pods.sort_by_key(rank);
    Ok((found, pods))
}

/// Ready before running before pending before ended, older before newer.
fn rank(pod: &Value) -> (u8, String) {
    let ready = list(pod, "/status/conditions")
        .iter()
        .any(|c| text(c, "/type") == "Ready" && text(c, "/status") == "True");
    let state = match text(pod, "/status/phase") {
        "Running" if ready => 0,
        "Running" => 1,
        "Pending" | "Unknown" => 2,
        _ => 3,
    };
    (state, text(pod, "/metadata/creationTimestamp").to_owned())
}

/// The names of a pod's containers: regular, then init, then ephemeral ones.
pub fn containers(pod: &Value) -> Vec<&str> {
    ["/spec/containers", "/spec/initContainers", "/spec/ephemeralContainers"]
        .iter()
        .flat_map(|kind| list(pod, kind))
        .map(|container| text(container, "/name"))
        .collect()
}

/// The container asked for, or the default one; says so where there was a choice.
pub fn container(pod: &Value, wanted: Option<&str>, quiet: bool) -> anyhow::Result<String> {
    let all = containers(pod);
    let name = text(pod, "/metadata/name");
    if let Some(wanted) = wanted {
        if !all.contains(&wanted) {
            bail!("container {wanted} not found in pod {name}: it has {}", all.join(", "));
        }
        return Ok(wanted.to_owned());
    }
    if let Some(default) = keelson_api_types::meta::annotation(pod, DEFAULT_CONTAINER)
        && all.contains(&default)
    {
        return Ok(default.to_owned());
    }
    let Some(first) = all.first() else { bail!("pod {name} has no containers") };
    if all.len() > 1 && !quiet {
        let described: Vec<String> = list(pod, "/spec/containers")
            .iter()
            .map(|c| text(c, "/name").to_owned())
            .chain(list(pod, "/spec/initContainers").iter().map(|c| format!("{} (init)", text(c, "/name"))))
            .chain(
                list(pod, "/spec/ephemeralContainers")
                    .iter()
                    .map(|c| format!("{} (ephem)", text(c, "/name"))),
            )
            .collect();
        eprintln!("Defaulted container {first:?} out of: {}", described.join(", "));
    }
    Ok((*first).to_owned())
}

/// Turns NotFound for a pod into what kubectl says.
pub fn refuse_ended(pod: &Value, doing: &str) -> anyhow::Result<()> {
    let phase = text(pod, "/status/phase");
    if phase == "Succeeded" || phase == "Failed" {
        bail!("cannot {doing} a container in a completed pod; current phase is {phase}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn containers_default_as_the_annotation_says() {
        let mut pod = json!({"metadata": {"name": "x"}, "spec": {"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]}});
        assert_eq!(container(&pod, None, true).expect("first"), "a");
        assert_eq!(container(&pod, Some("i"), true).expect("init"), "i");
        assert!(container(&pod, Some("z"), true).is_err());
        crate::value::set(&mut pod, &["metadata", "annotations", DEFAULT_CONTAINER], json!("b"));
        assert_eq!(container(&pod, None, true).expect("annotated"), "b");
    }
}
