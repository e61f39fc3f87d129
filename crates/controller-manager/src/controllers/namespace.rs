//! A namespace that is being deleted loses all that is in it, its pods first; then it may go.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use keelson_client::{Change, Key, WorkQueue, rest};
use serde::Deserialize;
use serde_json::json;

use crate::context::Context;
use crate::discovery::{Resource, Resources};
use crate::kit::{Condition, During, Error, conditions, only_if};
use crate::views::Namespace;

const FINALIZER: &str = "kubernetes";
/// What is still there is looked at again after this long, should nothing wake the controller before.
const AGAIN: Duration = Duration::from_secs(2);

pub async fn run(context: Arc<Context>) {
    let queue = WorkQueue::<Key>::new();
    let doomed = queue.clone();
    context.informers.namespaces.on_change(move |change| {
        if change.object().metadata.is_deleting() && !matches!(change, Change::Deleted(_)) {
            doomed.add(change.object().metadata.key());
        }
    });
    let (emptied, namespaces) = (queue.clone(), context.informers.namespaces.clone());
    context.informers.pods.on_change(move |change| {
        if let Change::Deleted(pod) = change {
            let key = Key::cluster(pod.namespace());
            if namespaces.get(&key).is_some_and(|n| n.metadata.is_deleting()) {
                emptied.add(key);
            }
        }
    });
    let (this, again, workers) = (context.clone(), queue.clone(), context.config.workers.max(10));
    let reconcile = move |key: Key| {
        let (context, queue) = (this.clone(), again.clone());
        async move {
            if sync(&context, &key).await? == Progress::Remaining {
                queue.add_after(key, AGAIN);
            }
            Ok(())
        }
    };
    context.work("namespace", queue, workers, reconcile).await;
}

#[derive(Debug, PartialEq, Eq)]
enum Progress {
    Done,
    Remaining,
}

async fn sync(context: &Context, key: &Key) -> Result<Progress, Error> {
    let Some(known) = context.informers.namespaces.get(key) else { return Ok(Progress::Done) };
    if !known.metadata.is_deleting() || known.spec.finalizers.is_empty() {
        return Ok(Progress::Done);
    }
    // What the informer knows may be gone, or another of the same name by now.
    let namespace = match context.requests.get::<Namespace>("", &key.name).await {
        Ok(namespace) if namespace.metadata.uid == known.metadata.uid => namespace,
        Ok(_) => return Ok(Progress::Done),
        Err(error) if error.is_not_found() => return Ok(Progress::Done),
        Err(error) => return Err(error),
    };
    if !namespace.spec.finalizers.iter().any(|f| f == FINALIZER) {
        return Ok(Progress::Done);
    }
    let found = context.discovery.resources().await?;
    let mut content = Content::default();
    content.failed_groups.extend(found.failed.iter().cloned());
    empty(context, &key.name, &found, &mut content).await;
    let new = content.conditions(&namespace.status.conditions);
    let mut meta = namespace.metadata.clone();
    if new != namespace.status.conditions || namespace.status.phase != "Terminating" {
        let status = json!({ "phase": "Terminating", "conditions": new });
        let patch = json!({ "metadata": only_if(&meta), "status": status });
        match context.requests.patch::<Namespace>(&meta, Some("status"), &patch).await {
            Ok(patched) => meta = patched.metadata,
            Err(error) if error.is_not_found() => return Ok(Progress::Done),
            Err(error) => return Err(error),
        }
    }
    if !content.is_empty() {
        return Ok(Progress::Remaining);
    }
    finalize(context, &namespace, &meta.resource_version).await?;
    Ok(Progress::Done)
}

/// Takes our finalizer off; the API server removes the namespace with the last one.
async fn finalize(context: &Context, namespace: &Namespace, version: &str) -> Result<(), Error> {
    let name = &namespace.metadata.name;
    let rest_of: Vec<&String> = namespace.spec.finalizers.iter().filter(|f| *f != FINALIZER).collect();
    let object = json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": { "name": name, "uid": namespace.metadata.uid, "resourceVersion": version },
        "spec": { "finalizers": rest_of },
    });
    let path = rest::path::<Namespace>("", Some(name), Some("finalize"));
    let put = rest::replace::<serde::de::IgnoredAny>(context.requests.client(), &path, &object).await;
    match put.during(|| format!("finalize the namespace {name}")) {
        Err(error) if error.is_not_found() => Ok(()),
        result => result.map(drop),
    }
}

/// What is still in a namespace, and what could not be found out or deleted.
#[derive(Debug, Default)]
struct Content {
    /// Objects per resource.
    remaining: BTreeMap<String, usize>,
    /// Objects per finalizer.
    finalizers: BTreeMap<String, usize>,
    errors: Vec<String>,
    failed_groups: Vec<String>,
}

impl Content {
    fn is_empty(&self) -> bool {
        self.remaining.is_empty() && self.errors.is_empty() && self.failed_groups.is_empty()
    }

    /// The namespace's conditions, with upstream's types, reasons and messages.
    fn conditions(&self, present: &[Condition]) -> Vec<Condition> {
        let mut new = present.to_vec();
        let count = |counts: &BTreeMap<String, usize>, what: &str| {
            counts.iter().map(|(name, n)| format!("{name} {what} {n} ")).collect::<Vec<_>>()
        };
        let remaining = self.remaining.iter().map(|(name, n)| format!("{name} has {n} resource instances"));
        let remaining = remaining.collect::<Vec<_>>().join(", ");
        let finalizers = count(&self.finalizers, "in")
            .iter()
            .map(|t| format!("{t}resource instances"))
            .collect::<Vec<_>>();
        let all = [
            (
                "NamespaceDeletionDiscoveryFailure",
                (!self.failed_groups.is_empty()).then(|| {
                    let groups = self.failed_groups.join(", ");
                    ("DiscoveryFailed", format!("Discovery failed for some groups: {groups}"))
                }),
                ("ResourcesDiscovered", "All resources successfully discovered"),
            ),
            (
                "NamespaceDeletionGroupVersionParsingFailure",
                None,
                ("ParsedGroupVersions", "All legacy kube types successfully parsed"),
            ),
            (
                "NamespaceDeletionContentFailure",
                (!self.errors.is_empty()).then(|| {
                    let errors = self.errors.join(", ");
                    (
                        "ContentDeletionFailed",
                        format!(
                            "Failed to delete all resource types, {} remaining: {errors}",
                            self.errors.len()
                        ),
                    )
                }),
                ("ContentDeleted", "All content successfully deleted, may be waiting on finalization"),
            ),
            (
                "NamespaceContentRemaining",
                (!self.remaining.is_empty())
                    .then(|| ("SomeResourcesRemain", format!("Some resources are remaining: {remaining}"))),
                ("ContentRemoved", "All content successfully removed"),
            ),
            (
                "NamespaceFinalizersRemaining",
                (!self.finalizers.is_empty()).then(|| {
                    let finalizers = finalizers.join(", ");
                    (
                        "SomeFinalizersRemain",
                        format!("Some content in the namespace has finalizers remaining: {finalizers}"),
                    )
                }),
                ("ContentHasNoFinalizers", "All content-preserving finalizers finished"),
            ),
        ];
        for (kind, bad, good) in all {
            let condition = match bad {
                Some((reason, message)) => Condition::new(kind, true, reason, message),
                None => Condition::new(kind, false, good.0, good.1),
            };
            conditions::set(&mut new, condition);
        }
        new
    }
}

/// Deletes what is there. Other resources wait for the pods, which may still read them.
async fn empty(context: &Context, namespace: &str, found: &Resources, content: &mut Content) {
    let deletable = found.preferred.iter().filter(|r| r.namespaced && r.has("delete") && r.has("list"));
    let (pods, others): (Vec<_>, Vec<_>) = deletable.partition(|r| r.group.is_empty() && r.plural == "pods");
    for resource in pods {
        empty_one(context, namespace, resource, content).await;
    }
    if !content.remaining.is_empty() || !content.errors.is_empty() {
        return;
    }
    for resource in others {
        empty_one(context, namespace, resource, content).await;
    }
}

async fn empty_one(context: &Context, namespace: &str, resource: &Resource, content: &mut Content) {
    if let Err(error) = try_empty(context, namespace, resource, content).await
        // A resource whose definition has gone holds nothing any more.
        && !matches!(error.code(), Some(404 | 405))
    {
        content.errors.push(format!("{error}: {}", error.answer()));
    }
}

async fn try_empty(
    context: &Context,
    namespace: &str,
    resource: &Resource,
    content: &mut Content,
) -> Result<(), Error> {
    if list(context, namespace, resource).await?.is_empty() {
        return Ok(());
    }
    let client = context.requests.client();
    let during = |path: &str| format!("delete all of {path}");
    let path = resource.path(namespace, None);
    let options = json!({ "kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background" });
    if resource.has("deletecollection") {
        let kind = "application/json";
        rest::send::<serde::de::IgnoredAny>(client, Method::DELETE, &path, kind, &options)
            .await
            .during(|| during(&path))?;
    } else {
        for item in list(context, namespace, resource).await? {
            let path = resource.path(namespace, Some(&item.metadata.name));
            match rest::delete(client, &path, &options).await {
                Err(error) if rest::code(&error) == Some(404) => {}
                result => result.during(|| during(&path))?,
            }
        }
    }
    let left = list(context, namespace, resource).await?;
    if left.is_empty() {
        return Ok(());
    }
    let name = match resource.group.as_str() {
        "" => format!("{}.", resource.plural),
        group => format!("{}.{group}", resource.plural),
    };
    content.remaining.insert(name, left.len());
    for finalizer in left.iter().flat_map(|item| &item.metadata.finalizers) {
        *content.finalizers.entry(finalizer.clone()).or_default() += 1;
    }
    Ok(())
}

#[derive(Deserialize)]
struct Items {
    items: Option<Vec<crate::kit::Bare>>,
}

async fn list(
    context: &Context,
    namespace: &str,
    resource: &Resource,
) -> Result<Vec<crate::kit::Bare>, Error> {
    let path = resource.path(namespace, None);
    let list: Items = rest::get(context.requests.client(), &path).await.during(|| format!("list {path}"))?;
    Ok(list.items.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_conditions_say_what_is_left() {
        let mut content = Content::default();
        assert!(content.is_empty());
        assert!(content.conditions(&[]).iter().all(|c| c.status == "False"));
        content.remaining.insert("pods.".to_owned(), 2);
        content.finalizers.insert("example.com/hold".to_owned(), 2);
        let conditions = content.conditions(&[]);
        let find = |kind| conditions::find(&conditions, kind).unwrap();
        let remaining = find("NamespaceContentRemaining");
        assert!(remaining.is_true());
        assert_eq!(remaining.message, "Some resources are remaining: pods. has 2 resource instances");
        assert_eq!(
            find("NamespaceFinalizersRemaining").message,
            "Some content in the namespace has finalizers remaining: example.com/hold in 2 resource instances"
        );
        assert!(!find("NamespaceDeletionContentFailure").is_true() && !content.is_empty());
    }
}
