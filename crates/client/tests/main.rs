//! The client against a peer that plays the API server: in memory, so that time can be virtual.

mod connect;
mod controller;
mod events;
mod informer;
mod leader;
mod peer;
mod queue;

use std::fmt::Debug;
use std::time::Duration;

/// Waits, by the clock of the test, until `look` sees what is expected; shows the last state if it never does.
async fn eventually<T: Debug + PartialEq>(expected: T, mut look: impl FnMut() -> T) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    loop {
        let seen = look();
        if seen == expected {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "expected {expected:?}, last saw {seen:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
