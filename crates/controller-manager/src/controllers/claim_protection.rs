//! A PersistentVolumeClaim that is being deleted stays for as long as a pod uses it.

use std::sync::Arc;

use keelson_client::{Key, Projected, WorkQueue};

use crate::context::Context;
use crate::kit::{Error, error::gone_is_fine};
use crate::views::PersistentVolumeClaim;

const FINALIZER: &str = "kubernetes.io/pvc-protection";

pub async fn run(context: Arc<Context>) {
    let queue = WorkQueue::<Key>::new();
    let deleted = queue.clone();
    context.informers.claims.on_change(move |change| {
        if change.object().metadata.is_deleting() {
            deleted.add(change.object().key());
        }
    });
    let freed = queue.clone();
    context.informers.pods.on_change(move |change| {
        let pod = change.object();
        if pod.is_finished() || matches!(change, keelson_client::Change::Deleted(_)) {
            pod.claims().for_each(|claim| freed.add(Key::new(pod.namespace(), claim)));
        }
    });
    let this = context.clone();
    context.work("pvc-protection", queue, 1, move |key| sync(this.clone(), key)).await;
}

async fn sync(context: Arc<Context>, key: Key) -> Result<(), Error> {
    let Some(claim) = context.informers.claims.get(&key) else { return Ok(()) };
    let held = claim.metadata.finalizers.iter().any(|f| f == FINALIZER);
    if !claim.metadata.is_deleting() || !held {
        return Ok(());
    }
    let pods = context.informers.pods.list_namespace(&key.namespace);
    let uses = |pod: &crate::views::Pod| !pod.is_finished() && pod.claims().any(|c| c == key.name);
    if pods.iter().any(|p| uses(p)) {
        return Ok(());
    }
    let removed =
        context.requests.remove_finalizer::<PersistentVolumeClaim>(&claim.metadata, FINALIZER).await;
    gone_is_fine(removed).map(drop)
}
