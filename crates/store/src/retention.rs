//! Forgets history that is older than the configured time, whichever the backend.

use std::sync::Weak;
use std::time::Duration;

use crate::Store;

/// How long history is kept unless configured: upstream's API server compacts every five minutes.
pub(crate) const DEFAULT_SECONDS: u64 = 300;

/// Compacts, every `seconds`, to the revision that was the present one a period ago. Nothing when 0.
/// Ends with the store. Several servers on one etcd may all do this: each forgets only what is old.
pub(crate) fn start(store: Weak<dyn Store>, seconds: u64) {
    if seconds == 0 {
        return;
    }
    let period = Duration::from_secs(seconds);
    tokio::spawn(async move {
        let mut old = 0;
        let mut compacted = 0;
        loop {
            tokio::time::sleep(period).await;
            let Some(store) = store.upgrade() else { return };
            let Ok(now) = store.revision().await else { continue };
            if old > compacted {
                match store.compact(old).await {
                    Ok(()) => compacted = old,
                    Err(error) => tracing::warn!(revision = old, %error, "compaction failed"),
                }
            }
            old = now;
        }
    });
}
