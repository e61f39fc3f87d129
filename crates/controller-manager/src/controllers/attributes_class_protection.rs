//! A VolumeAttributesClass that is being deleted stays for as long as a volume or a claim refers to it.

use std::sync::Arc;

use keelson_client::{Key, Projected, WorkQueue};

use crate::context::Context;
use crate::kit::{Error, error::gone_is_fine};
use crate::views::VolumeAttributesClass;

const FINALIZER: &str = "kubernetes.io/vac-protection";

pub async fn run(context: Arc<Context>) {
    let queue = WorkQueue::<Key>::new();
    let informers = &context.informers;
    let deleted = queue.clone();
    informers.attribute_classes.on_change(move |change| {
        if change.object().metadata.is_deleting() {
            deleted.add(change.object().key());
        }
    });
    // A reference may have gone with any change of a claim or volume: those that are waiting look again.
    let (waiting, again) = (informers.attribute_classes.clone(), queue.clone());
    let look = Arc::new(move || {
        let deleted = waiting.list().into_iter().filter(|class| class.metadata.is_deleting());
        deleted.for_each(|class| again.add(class.key()));
    });
    let of_claims = look.clone();
    informers.claims.on_change(move |_| of_claims());
    informers.volumes.on_change(move |_| look());
    let this = context.clone();
    context.work("vac-protection", queue, 1, move |key| sync(this.clone(), key)).await;
}

async fn sync(context: Arc<Context>, key: Key) -> Result<(), Error> {
    let informers = &context.informers;
    let Some(class) = informers.attribute_classes.get(&key) else { return Ok(()) };
    let held = class.metadata.finalizers.iter().any(|f| f == FINALIZER);
    if !class.metadata.is_deleting() || !held {
        return Ok(());
    }
    let by_volume =
        || informers.volumes.list().iter().any(|v| v.spec.volume_attributes_class_name == key.name);
    let by_claim =
        || informers.claims.list().iter().any(|c| c.attribute_classes().any(|name| name == key.name));
    if by_volume() || by_claim() {
        return Ok(());
    }
    let removed =
        context.requests.remove_finalizer::<VolumeAttributesClass>(&class.metadata, FINALIZER).await;
    gone_is_fine(removed).map(drop)
}
