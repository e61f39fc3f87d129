//! What a cluster holds from its first start, and is brought back to at every later one: namespaces,
//! RBAC policy, priority classes, flow control, the `kubernetes` Service.

pub mod aggregate;
pub mod objects;
pub mod presence;
pub mod rbac;
pub mod reconcile;

use std::sync::Arc;

use futures::stream::TryStreamExt;
use keelson_api_types::{Gvk, Gvr, Reason, StatusError, meta};
use serde_json::{Value, json};

use crate::admission::policy::type_check;
use crate::authz::rbac::GROUP as RBAC_GROUP;
use crate::types::{Change, Objects};
use objects::{Policy, Settings, Wanted};
use reconcile::Step;

/// Writes in flight: all of them share the store's group commit.
const CONCURRENCY: usize = 64;

/// Writes everything that is missing or was taken away. Idempotent.
pub async fn run(objects: &Arc<dyn Objects>, settings: &Settings) -> Result<(), StatusError> {
    hold_all(objects, objects::namespaces()).await?;
    let mut rest = vec![
        objects::service_cidr(settings),
        objects::authentication_config(settings),
        objects::token_tracking(),
    ];
    rest.extend(objects::priority_classes());
    rest.extend(objects::flow_control());
    rest.extend(objects::kubernetes_service(settings));
    futures::future::try_join(hold_rbac(objects), hold_all(objects, rest)).await?;
    service_cidr_ready(objects.as_ref()).await?;
    aggregate_roles(objects.as_ref()).await
}

/// Keeps up what others might take away while the server runs: the `kubernetes` Service with its range, flow control, and aggregated roles. Ends when the caches do.
pub fn follow(objects: &Arc<dyn Objects>, settings: &Settings) -> Vec<tokio::task::JoinHandle<()>> {
    let mut tasks = Vec::new();
    let cidr = objects::service_cidr(settings);
    for wanted in objects::kubernetes_service(settings).into_iter().chain([cidr]) {
        let objects = objects.clone();
        tasks.push(tokio::spawn(async move {
            let mut changes = objects.subscribe(&wanted.gvr);
            while let Some(change) = changes.recv().await {
                if !touches(&change, &wanted) {
                    continue;
                }
                let held = match wanted.gvr.resource.as_str() {
                    "servicecidrs" => match hold(objects.as_ref(), &wanted).await {
                        Ok(()) => service_cidr_ready(objects.as_ref()).await,
                        failed => failed,
                    },
                    _ => hold(objects.as_ref(), &wanted).await,
                };
                if let Err(error) = held {
                    tracing::warn!(resource = %wanted.gvr, %error, "cannot restore what the cluster needs");
                }
            }
        }));
    }
    for resource in ["flowschemas", "prioritylevelconfigurations"] {
        let objects = objects.clone();
        tasks.push(tokio::spawn(async move {
            let mut changes = objects.subscribe(&Gvr::new(objects::FLOW_GROUP, "v1", resource));
            let mut wanted = objects::flow_control();
            wanted.retain(|w| w.gvr.resource == resource);
            while let Some(change) = changes.recv().await {
                for wanted in wanted.iter().filter(|w| touches(&change, w)) {
                    // What failed has been logged; the next change, or start, brings another attempt.
                    let _ = hold(objects.as_ref(), wanted).await;
                }
            }
        }));
    }
    tasks.push(tokio::spawn(type_check::follow(objects.clone())));
    let objects = objects.clone();
    tasks.push(tokio::spawn(async move {
        let mut changes = objects.subscribe(&Gvr::new(RBAC_GROUP, "v1", "clusterroles"));
        while changes.recv().await.is_some() {
            // One pass answers all changes that have come in so far.
            while changes.try_recv().is_ok() {}
            if let Err(error) = aggregate_roles(objects.as_ref()).await {
                tracing::warn!(%error, "cannot aggregate cluster roles");
            }
        }
    }));
    tasks
}

fn touches(change: &Change, wanted: &Wanted) -> bool {
    let same = |o: &crate::types::Object| {
        *o.namespace == *meta::namespace(&wanted.object) && *o.name == *meta::name(&wanted.object)
    };
    match change {
        Change::Snapshot(_) => true,
        Change::Put(o) | Change::Delete(o) => same(o),
    }
}

async fn hold_all(objects: &Arc<dyn Objects>, wanted: Vec<Wanted>) -> Result<(), StatusError> {
    futures::stream::iter(wanted.iter().map(Ok::<_, StatusError>))
        .try_for_each_concurrent(CONCURRENCY, |w| hold(objects.as_ref(), w))
        .await
}

/// Creates or corrects one object; somebody else's simultaneous write is as good as ours.
async fn hold(objects: &dyn Objects, wanted: &Wanted) -> Result<(), StatusError> {
    let outcome = try_hold(objects, wanted).await;
    name_failure(&wanted.gvr, meta::namespace(&wanted.object), meta::name(&wanted.object), &outcome);
    outcome
}

/// The caller sees only that the bootstrap failed; the log says at what.
fn name_failure(gvr: &Gvr, namespace: &str, name: &str, outcome: &Result<(), StatusError>) {
    if let Err(error) = outcome {
        let message = error.message();
        tracing::warn!(resource = %gvr, namespace, name, message, "cannot hold up a bootstrap object");
    }
}

async fn try_hold(objects: &dyn Objects, wanted: &Wanted) -> Result<(), StatusError> {
    let (namespace, name) = (meta::namespace(&wanted.object), meta::name(&wanted.object));
    let stored = match objects.get(&wanted.gvr, namespace, name) {
        Some(_) if wanted.policy == Policy::Create => return Ok(()),
        // What memory says may be behind our own last write.
        _ => objects.get_fresh(&wanted.gvr, namespace, name).await?,
    };
    let Some(stored) = stored else {
        let created = objects.create(&wanted.gvr, namespace, wanted.object.clone()).await;
        return forgive(created.map(|_| ()));
    };
    let step = match wanted.policy {
        Policy::Create => Step::Keep,
        Policy::FlowControl => reconcile::flow_control(&stored, &wanted.object),
        Policy::TokenTracking => reconcile::token_tracking(&stored, &wanted.object),
        Policy::Fields(fields) => reconcile::owned(&stored, &wanted.object, fields),
    };
    take(objects, &wanted.gvr, &wanted.object, step).await
}

async fn hold_rbac(objects: &Arc<dyn Objects>) -> Result<(), StatusError> {
    let migration = Gvk::new("storagemigration.k8s.io", "v1beta1", "StorageVersionMigration");
    let more = objects.resource_of(&migration).map_or(&[][..], |_| rbac::migration_entries());
    futures::stream::iter(rbac::entries().iter().chain(more).map(Ok::<_, StatusError>))
        .try_for_each_concurrent(CONCURRENCY, |entry| async move {
            let gvr = Gvr::new(RBAC_GROUP, "v1", entry.resource());
            let wanted = entry.object();
            let outcome = match objects.get(&gvr, entry.namespace(), entry.name()) {
                Some(stored) => {
                    let step = reconcile::rbac(&stored, &wanted);
                    take(objects.as_ref(), &gvr, &wanted, step).await
                }
                None => forgive(objects.create(&gvr, entry.namespace(), wanted).await.map(|_| ())),
            };
            name_failure(&gvr, entry.namespace(), entry.name(), &outcome);
            outcome
        })
        .await
}

async fn take(objects: &dyn Objects, gvr: &Gvr, wanted: &Value, step: Step) -> Result<(), StatusError> {
    let (namespace, name) = (meta::namespace(wanted), meta::name(wanted));
    match step {
        Step::Keep => Ok(()),
        Step::Update(merged) => forgive(objects.update(gvr, namespace, "", merged).await.map(|_| ())),
        Step::Recreate => {
            objects.delete(gvr, namespace, name).await?;
            forgive(objects.create(gvr, namespace, wanted.clone()).await.map(|_| ()))
        }
    }
}

/// Another server of the cluster may do the same work at the same time.
fn forgive(result: Result<(), StatusError>) -> Result<(), StatusError> {
    match result {
        Err(e) if matches!(e.reason(), Reason::AlreadyExists | Reason::Conflict) => Ok(()),
        other => other,
    }
}

/// Says of the default ServiceCIDR that addresses may be taken from it.
async fn service_cidr_ready(objects: &dyn Objects) -> Result<(), StatusError> {
    let gvr = Gvr::new("networking.k8s.io", "v1", "servicecidrs");
    let Some(stored) = objects.get_fresh(&gvr, "", "kubernetes").await? else { return Ok(()) };
    let conditions = crate::admission::items(&stored["status"]["conditions"]);
    if conditions.iter().any(|c| c["type"] == "Ready")
        || stored["metadata"].get("deletionTimestamp").is_some()
    {
        return Ok(());
    }
    let mut stored = Value::clone(&stored);
    stored["status"] = json!({"conditions": [{
        "type": "Ready", "status": "True", "reason": "",
        "message": "Kubernetes default Service CIDR is ready",
        "lastTransitionTime": meta::now_rfc3339(),
    }]});
    forgive(objects.update(&gvr, "", "status", stored).await.map(|_| ()))
}

/// One pass over the aggregating roles. A role may aggregate another aggregating one: the change made
/// here brings the next pass, until nothing changes.
async fn aggregate_roles(objects: &dyn Objects) -> Result<(), StatusError> {
    let gvr = Gvr::new(RBAC_GROUP, "v1", "clusterroles");
    for role in aggregate::stale(&objects.list(&gvr, "")) {
        forgive(objects.update(&gvr, "", "", role).await.map(|_| ()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
