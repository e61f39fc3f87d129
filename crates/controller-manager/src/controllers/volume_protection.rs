//! A PersistentVolume that is being deleted stays for as long as it is bound to a claim.

use std::sync::Arc;

use keelson_client::{Key, Projected, WorkQueue};

use crate::context::Context;
use crate::kit::{Error, error::gone_is_fine};
use crate::views::PersistentVolume;

const FINALIZER: &str = "kubernetes.io/pv-protection";

pub async fn run(context: Arc<Context>) {
    let queue = WorkQueue::<Key>::new();
    let changed = queue.clone();
    context.informers.volumes.on_change(move |change| {
        if change.object().metadata.is_deleting() {
            changed.add(change.object().key());
        }
    });
    let this = context.clone();
    context.work("pv-protection", queue, 1, move |key| sync(this.clone(), key)).await;
}

async fn sync(context: Arc<Context>, key: Key) -> Result<(), Error> {
    let Some(volume) = context.informers.volumes.get(&key) else { return Ok(()) };
    if !is_free(&volume) {
        return Ok(());
    }
    let removed = context.requests.remove_finalizer::<PersistentVolume>(&volume.metadata, FINALIZER).await;
    gone_is_fine(removed).map(drop)
}

/// Whether nothing but the finalizer keeps a deleted volume.
fn is_free(volume: &PersistentVolume) -> bool {
    let held = volume.metadata.finalizers.iter().any(|f| f == FINALIZER);
    volume.metadata.is_deleting() && held && volume.status.phase != "Bound"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_deleted_volume_without_a_claim_is_let_go() {
        for (deleted, finalizer, phase, free) in [
            (true, FINALIZER, "Released", true),
            (true, FINALIZER, "Bound", false),
            (false, FINALIZER, "Available", false),
            (true, "another", "Available", false),
        ] {
            let mut metadata = serde_json::json!({"name": "v", "finalizers": [finalizer]});
            if deleted {
                metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
            }
            let volume = serde_json::json!({"metadata": metadata, "status": {"phase": phase}});
            let volume: PersistentVolume = serde_json::from_value(volume).expect("a volume");
            assert_eq!(is_free(&volume), free, "{deleted} {finalizer} {phase}");
        }
    }
}
