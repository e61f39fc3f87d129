//! Who is behind a Service: EndpointSlices, the older Endpoints, and slices that mirror Endpoints written by hand.

mod legacy;
mod mirror;
mod pods;
mod slices;

use std::collections::BTreeMap;
use std::sync::Arc;

use keelson_api_types::LabelSelector;
use keelson_client::{Change, Key, Projected, WorkQueue};
use serde_json::json;

use crate::context::{Context, NODE, enqueue};
use crate::kit::{Error, controller_ref, error::gone_is_fine, expect::Expectations, only_if};
use crate::views::{EndpointSlice, Endpoints, Node, Pod, Service};

use slices::Op;

/// Which Service a slice belongs to, and who keeps it.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const SLICE_CONTROLLER: &str = "endpointslice-controller.k8s.io";
const MIRROR_CONTROLLER: &str = "endpointslicemirroring-controller.k8s.io";
pub const HEADLESS: &str = "service.kubernetes.io/headless";
const ZONE: &str = "topology.kubernetes.io/zone";

/// Runs the controllers of slices, of Endpoints and of mirrored slices.
pub async fn run(context: Arc<Context>) {
    tokio::join!(run_slices(context.clone()), run_endpoints(context.clone()), run_mirror(context));
}

/// Queues the Services whose selectors match a pod that changed in what endpoints tell of.
fn wake_by_pods(context: &Context, queue: &WorkQueue<Key>) {
    let (services, queue) = (context.informers.services.clone(), queue.clone());
    context.informers.pods.on_change(move |change| {
        let wake = |pod: &Pod| {
            for service in services.list_namespace(pod.namespace()) {
                if selector(&service).is_some_and(|s| s.matches(&pod.metadata.labels)) {
                    queue.add(service.key());
                }
            }
        };
        match change {
            Change::Updated { old, new } => {
                if pods::same(old, new) {
                    return;
                }
                if old.metadata.labels != new.metadata.labels {
                    wake(old);
                }
                wake(new);
            }
            Change::Added(pod) | Change::Deleted(pod) => wake(pod),
        }
    });
}

fn selector(service: &Service) -> Option<LabelSelector> {
    let labels = service.spec.selector.as_ref().filter(|s| !s.is_empty())?;
    Some(LabelSelector::from_map(labels.iter().map(|(k, v)| (k.as_str(), v.as_str()))))
}

/// The pods that a Service selects.
fn selected(context: &Context, service: &Service) -> Vec<Arc<Pod>> {
    let Some(selector) = selector(service) else { return Vec::new() };
    let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
    let mut pods = context.informers.pods.list_namespace(namespace);
    pods.retain(|p| selector.matches(&p.metadata.labels));
    pods
}

fn service_key(slice: &EndpointSlice) -> Option<Key> {
    let name = slice.metadata.labels.get(SERVICE_NAME)?;
    Some(Key::new(slice.metadata.namespace.clone().unwrap_or_default(), name))
}

/// The slices of a Service or Endpoints that one of our controllers keeps.
fn slices_of(context: &Context, key: &Key, manager: &str) -> Vec<Arc<EndpointSlice>> {
    let mut slices = context.informers.slices.list_namespace(&key.namespace);
    slices.retain(|s| {
        s.metadata.labels.get(SERVICE_NAME) == Some(&key.name)
            && s.metadata.labels.get(MANAGED_BY).is_some_and(|m| m == manager)
            && !s.metadata.is_deleting()
    });
    slices
}

/// Queues the owner of a slice that somebody else changed or deleted.
fn wake_by_slices(
    context: &Context,
    queue: &WorkQueue<Key>,
    expectations: &Arc<Expectations>,
    manager: &'static str,
) {
    let (queue, expectations) = (queue.clone(), expectations.clone());
    context.informers.slices.on_change(move |change| {
        let slice = change.object();
        if slice.metadata.labels.get(MANAGED_BY).is_some_and(|m| m == manager)
            && let Some(key) = service_key(slice)
        {
            if let Change::Added(_) = change {
                expectations.created(&key, 1);
            }
            queue.add(key);
        }
    });
}

async fn run_slices(context: Arc<Context>) {
    let queue = WorkQueue::new();
    enqueue(&context.informers.services, &queue);
    wake_by_pods(&context, &queue);
    let expectations = Arc::new(Expectations::default());
    wake_by_slices(&context, &queue, &expectations, SLICE_CONTROLLER);
    // A node's zone is part of its pods' endpoints.
    let (nodes_pods, services, zoned) =
        (context.informers.pods.clone(), context.informers.services.clone(), queue.clone());
    context.informers.nodes.on_change(move |change| {
        let moved = match change {
            Change::Updated { old, new } => old.metadata.labels.get(ZONE) != new.metadata.labels.get(ZONE),
            Change::Added(_) => true,
            Change::Deleted(_) => false,
        };
        if !moved {
            return;
        }
        for pod in nodes_pods.by_index(NODE, &change.object().metadata.name) {
            for service in services.list_namespace(pod.namespace()) {
                if selector(&service).is_some_and(|s| s.matches(&pod.metadata.labels)) {
                    zoned.add(service.key());
                }
            }
        }
    });
    let (this, workers) = (context.clone(), context.config.workers);
    let reconcile = move |key| sync_slices(this.clone(), expectations.clone(), key);
    context.work("endpointslice", queue, workers, reconcile).await;
}

async fn sync_slices(context: Arc<Context>, expectations: Arc<Expectations>, key: Key) -> Result<(), Error> {
    let Some(service) = context.informers.services.get(&key) else {
        expectations.forget(&key);
        return Ok(());
    };
    // The slice that was made last is not seen yet; it wakes this again.
    if !expectations.satisfied(&key) {
        return Ok(());
    }
    if !service.selects() || service.spec.r#type == "ExternalName" || service.metadata.is_deleting() {
        return Ok(());
    }
    let zone = |node: &str| {
        let node: Option<Arc<Node>> = context.informers.nodes.get(&Key::cluster(node));
        node.and_then(|n| n.metadata.labels.get(ZONE).cloned())
    };
    let desired = pods::desired(&service, &selected(&context, &service), zone);
    let present = slices_of(&context, &key, SLICE_CONTROLLER);
    let labels = slices::labels(&key.name, &service.metadata.labels, service.is_headless(), SLICE_CONTROLLER);
    let ops = slices::plan(desired, &present, &labels, true);
    apply(&context, &expectations, &*service, &key, ops, labels).await
}

/// Carries out the difference between the wanted and the present slices of an owner. After a failure nothing is waited
/// for: what was made is seen by the time of the retry, or joined to what the retry makes.
async fn apply<O: Projected>(
    context: &Context,
    expectations: &Expectations,
    owner: &O,
    key: &Key,
    ops: Vec<Op>,
    labels: BTreeMap<String, String>,
) -> Result<(), Error> {
    let creations = ops.iter().filter(|op| matches!(op, Op::Create { .. })).count();
    expectations.expect_creations(key, creations);
    for op in ops {
        match op {
            Op::Create { address_type, ports, endpoints } => {
                let mut name = key.name.clone();
                name.truncate(246);
                let slice = json!({
                    "apiVersion": "discovery.k8s.io/v1",
                    "kind": "EndpointSlice",
                    "metadata": {
                        "generateName": format!("{name}-"),
                        "labels": labels,
                        "ownerReferences": [controller_ref(owner)],
                    },
                    "addressType": address_type,
                    "endpoints": endpoints,
                    "ports": ports,
                });
                if let Err(error) = context.requests.create::<EndpointSlice>(&key.namespace, &slice).await {
                    expectations.forget(key);
                    return if error.is_namespace_terminating() { Ok(()) } else { Err(error) };
                }
            }
            Op::Update { slice, endpoints } => {
                let mut metadata = only_if(&slice);
                metadata["labels"] = json!(labels);
                for gone in slice.labels.keys().filter(|k| !labels.contains_key(*k)) {
                    metadata["labels"][gone] = serde_json::Value::Null;
                }
                let patch = json!({ "metadata": metadata, "endpoints": endpoints });
                let patched = context.requests.patch::<EndpointSlice>(&slice, None, &patch).await;
                patched.inspect_err(|_| expectations.forget(key))?;
            }
            Op::Delete(slice) => {
                gone_is_fine(context.requests.delete::<EndpointSlice>(&slice).await)?;
            }
        }
    }
    Ok(())
}

async fn run_endpoints(context: Arc<Context>) {
    let queue = WorkQueue::new();
    enqueue(&context.informers.services, &queue);
    wake_by_pods(&context, &queue);
    let changed = queue.clone();
    context.informers.endpoints.on_change(move |change| {
        if change.object().metadata.labels.contains_key(legacy::MANAGED_BY.0) {
            changed.add(change.object().key());
        }
    });
    let (this, workers) = (context.clone(), context.config.workers);
    context.work("endpoint", queue, workers, move |key| sync_endpoints(this.clone(), key)).await;
}

async fn sync_endpoints(context: Arc<Context>, key: Key) -> Result<(), Error> {
    let present = context.informers.endpoints.get(&key);
    let Some(service) = context.informers.services.get(&key) else {
        if let Some(endpoints) = present {
            gone_is_fine(context.requests.delete::<Endpoints>(&endpoints.metadata).await)?;
        }
        return Ok(());
    };
    if !service.selects() || service.spec.r#type == "ExternalName" || service.metadata.is_deleting() {
        return Ok(());
    }
    let subsets = legacy::subsets(&service, &selected(&context, &service));
    let labels = legacy::labels(&service);
    let Some(present) = present else {
        let object = json!({
            "apiVersion": "v1",
            "kind": "Endpoints",
            "metadata": { "name": key.name, "labels": labels },
            "subsets": subsets,
        });
        return match context.requests.create::<Endpoints>(&key.namespace, &object).await {
            Err(error) if error.is_namespace_terminating() => Ok(()),
            result => result.map(drop),
        };
    };
    if present.subsets == subsets && present.metadata.labels == labels {
        return Ok(());
    }
    let mut metadata = only_if(&present.metadata);
    metadata["labels"] = json!(labels);
    for gone in present.metadata.labels.keys().filter(|k| !labels.contains_key(*k)) {
        metadata["labels"][gone] = serde_json::Value::Null;
    }
    let patch = json!({ "metadata": metadata, "subsets": subsets });
    gone_is_fine(context.requests.patch::<Endpoints>(&present.metadata, None, &patch).await).map(drop)
}

async fn run_mirror(context: Arc<Context>) {
    let queue = WorkQueue::new();
    enqueue(&context.informers.endpoints, &queue);
    enqueue(&context.informers.services, &queue);
    let expectations = Arc::new(Expectations::default());
    wake_by_slices(&context, &queue, &expectations, MIRROR_CONTROLLER);
    let this = context.clone();
    let reconcile = move |key| sync_mirror(this.clone(), expectations.clone(), key);
    context.work("endpointslice-mirroring", queue, 2, reconcile).await;
}

async fn sync_mirror(context: Arc<Context>, expectations: Arc<Expectations>, key: Key) -> Result<(), Error> {
    if !expectations.satisfied(&key) {
        return Ok(());
    }
    let present = slices_of(&context, &key, MIRROR_CONTROLLER);
    let endpoints = context.informers.endpoints.get(&key);
    let service = context.informers.services.get(&key);
    let mirrored = match (&endpoints, &service) {
        (Some(endpoints), Some(service)) => {
            mirror::is_mirrored(&endpoints.metadata) && service.spec.selector.is_none()
        }
        _ => false,
    };
    let Some(endpoints) = endpoints.filter(|_| mirrored) else {
        for slice in present {
            gone_is_fine(context.requests.delete::<EndpointSlice>(&slice.metadata).await)?;
        }
        return Ok(());
    };
    let labels = slices::labels(&key.name, &endpoints.metadata.labels, false, MIRROR_CONTROLLER);
    let ops = slices::plan(mirror::desired(&endpoints), &present, &labels, false);
    apply(&context, &expectations, &*endpoints, &key, ops, labels).await
}
