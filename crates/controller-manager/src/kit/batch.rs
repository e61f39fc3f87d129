//! Many requests: few at first, twice as many after each round that succeeded.

use std::future::Future;

use futures::future::join_all;

/// Runs `count` calls in rounds of 1, 2, 4, … at once, and stops after a round in which one failed. Returns how
/// many succeeded and were not even tried, and the first error: a quota that refuses the first pod is
/// not asked a thousand times.
pub async fn slow_start<F, Fut, E>(count: usize, call: F) -> Outcome<E>
where
    F: Fn(usize) -> Fut,
    Fut: Future<Output = Result<(), E>>,
{
    let mut outcome = Outcome { succeeded: 0, skipped: 0, error: None };
    let (mut next, mut size) = (0, 1);
    while next < count {
        let round = size.min(count - next);
        for result in join_all((next..next + round).map(&call)).await {
            match result {
                Ok(()) => outcome.succeeded += 1,
                Err(error) => {
                    outcome.error.get_or_insert(error);
                }
            }
        }
        next += round;
        size *= 2;
        if outcome.error.is_some() {
            outcome.skipped = count - next;
            break;
        }
    }
    outcome
}

#[derive(Debug)]
pub struct Outcome<E> {
    pub succeeded: usize,
    /// Not tried, because an earlier round failed.
    pub skipped: usize,
    pub error: Option<E>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_failing_first_call_is_the_only_one() {
        let outcome = slow_start(10, |_| async { Err::<(), _>("no") }).await;
        assert_eq!((outcome.succeeded, outcome.skipped, outcome.error), (0, 9, Some("no")));
        let outcome = slow_start(10, |i| async move { if i == 4 { Err("no") } else { Ok(()) } }).await;
        assert_eq!((outcome.succeeded, outcome.skipped), (6, 3));
    }
}
