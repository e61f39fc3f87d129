//! Room on the disk: images that nothing uses go when their file system fills up.

use crate::context::Context;
use keelson_cri::v1::Image;
use keelson_host::system;
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

const EVERY: Duration = Duration::from_secs(300);
/// An image is left alone this long after it was last seen in use.
const REST: Duration = Duration::from_secs(120);

/// Looks for ever whether images have to go.
pub async fn run(ctx: Arc<Context>) {
    let mut used: HashMap<String, Instant> = HashMap::new();
    loop {
        tokio::time::sleep(EVERY).await;
        if let Err(e) = once(&ctx, &mut used).await {
            tracing::warn!(error = e.user_message(), "could not clean up images");
        }
    }
}

async fn once(ctx: &Context, used: &mut HashMap<String, Instant>) -> keelson_cri::Result<()> {
    let images = ctx.runtime.list_images().await?;
    let containers = ctx.runtime.list_containers(Default::default()).await?;
    let in_use: HashSet<String> = containers
        .into_iter()
        .flat_map(|c| [c.image_ref, c.image.map(|i| i.image).unwrap_or_default()])
        .collect();
    let now = Instant::now();
    used.retain(|id, _| images.iter().any(|i| i.id == *id));
    for image in &images {
        let seen = used.entry(image.id.clone()).or_insert(now);
        if is_used(image, &in_use) {
            *seen = now;
        }
    }
    let usage = ctx.runtime.image_fs_info().await?;
    let mountpoint = usage.image_filesystems.first().and_then(|f| f.fs_id.clone()).map(|f| f.mountpoint);
    let Ok(space) = system::space(Path::new(&mountpoint.unwrap_or_else(|| "/".into()))) else {
        return Ok(());
    };
    let percent = |p: u8| space.total_bytes / 100 * u64::from(p);
    let full = space.total_bytes.saturating_sub(space.available_bytes);
    if space.total_bytes == 0 || full < percent(ctx.config.image_gc.high_percent) {
        return Ok(());
    }
    let excess = full - percent(ctx.config.image_gc.low_percent);
    tracing::info!(excess, "removing images that nothing uses");
    for image in victims(images, used, &in_use, now, excess) {
        ctx.runtime.remove_image(&image.id).await?;
    }
    Ok(())
}

fn is_used(image: &Image, in_use: &HashSet<String>) -> bool {
    in_use.contains(&image.id)
        || image.repo_tags.iter().chain(&image.repo_digests).any(|name| in_use.contains(name))
}

/// The images to remove, those first that were not used for the longest time, until `excess` bytes are freed.
fn victims(
    mut images: Vec<Image>,
    used: &HashMap<String, Instant>,
    in_use: &HashSet<String>,
    now: Instant,
    excess: u64,
) -> Vec<Image> {
    let last = |i: &Image| used.get(&i.id).copied().unwrap_or(now);
    let is_pause = |i: &Image| i.repo_tags.iter().any(|t| t.contains("/pause:"));
    images
        .retain(|i| !i.pinned && !is_pause(i) && !is_used(i, in_use) && now.duration_since(last(i)) >= REST);
    images.sort_by_key(last);
    let mut freed = 0;
    images
        .into_iter()
        .take_while(|i| {
            let wanted = freed < excess;
            freed += i.size;
            wanted
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_longest_unused_images_go_first_and_only_as_many_as_needed() {
        let image = |id: &str| Image { id: id.into(), size: 10, ..Default::default() };
        let start = Instant::now();
        tokio::time::advance(Duration::from_secs(1000)).await;
        let now = Instant::now();
        let used = HashMap::from([
            ("old".to_owned(), start),
            ("older-but-used".to_owned(), start),
            ("mid".to_owned(), start + Duration::from_secs(10)),
            ("new".to_owned(), now),
        ]);
        let in_use = HashSet::from(["older-but-used".to_owned()]);
        let images = ["new", "mid", "older-but-used", "old"].map(image).to_vec();
        let ids = |v: Vec<Image>| v.into_iter().map(|i| i.id).collect::<Vec<_>>();
        assert_eq!(ids(victims(images.clone(), &used, &in_use, now, 5)), ["old"]);
        assert_eq!(ids(victims(images, &used, &in_use, now, 500)), ["old", "mid"]);
    }
}
