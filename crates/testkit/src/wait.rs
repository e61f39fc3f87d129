//! Waiting on a state, never for a time.

use std::fmt::Display;
use std::future::Future;
use std::time::Duration;
use tokio::time::Instant;

/// Looks until `look` returns what was waited for, and returns that. An `Err` is the state as it is, not
/// yet good: the last one is shown when the deadline passes.
///
/// # Panics
/// At the deadline.
#[track_caller]
pub fn eventually<T, E, F, Fut>(deadline: Duration, what: &str, mut look: F) -> impl Future<Output = T>
where
    E: Display,
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    let caller = std::panic::Location::caller();
    async move {
        let end = Instant::now() + deadline;
        let mut pause = Duration::from_millis(5);
        let mut last = "nothing: the first look did not return".to_owned();
        loop {
            match tokio::time::timeout_at(end, look()).await {
                Ok(Ok(found)) => return found,
                Ok(Err(state)) => last = state.to_string(),
                Err(_late) => {}
            }
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{caller}: not within {deadline:?}: {what}; last seen: {last}");
            tokio::time::sleep(pause.min(left)).await;
            pause = (pause * 2).min(Duration::from_millis(200));
        }
    }
}
