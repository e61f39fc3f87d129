//! Workers.

use crate::eventually;
use keelson_client::{CancellationToken, WorkQueue, controller};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

#[tokio::test(start_paused = true)]
async fn what_fails_or_panics_is_tried_again_and_shutdown_ends_it() {
    let queue = WorkQueue::new();
    let calls = Arc::new(Mutex::new(Vec::new()));
    let seen = calls.clone();
    let reconcile = move |key: String| {
        let seen = seen.clone();
        async move {
            seen.lock().push(key.clone());
            let before = seen.lock().iter().filter(|k| **k == key).count();
            match (key.as_str(), before) {
                ("fails", ..=3) => Err(std::io::Error::other("not yet")),
                ("panics", 1) => panic!("a mistake"),
                ("hangs", _) => std::future::pending().await,
                _ => Ok(()),
            }
        }
    };
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(controller::run("test", queue.clone(), 4, reconcile, shutdown.clone()));
    for key in ["fails", "panics", "hangs", "works"] {
        queue.add(key.to_owned());
    }
    let count = |key: &str| calls.lock().iter().filter(|k| *k == key).count();
    eventually((4, 2, 1, 1), || (count("fails"), count("panics"), count("hangs"), count("works"))).await;
    assert_eq!(queue.failures(&"fails".to_owned()), 0);
    shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(1), running)
        .await
        .expect("a hanging reconcile is dropped")
        .unwrap();
}
