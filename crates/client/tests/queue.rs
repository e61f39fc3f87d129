//! The queue's rules, in virtual time.

use keelson_client::WorkQueue;
use std::time::Duration;
use tokio::time::{Instant, timeout};

async fn nothing(queue: &WorkQueue<&'static str>, within: Duration) -> bool {
    timeout(within, queue.get()).await.is_err()
}

fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

#[tokio::test(start_paused = true)]
async fn keys_come_in_order_and_once() {
    let queue = WorkQueue::new();
    for key in ["a", "b", "a", "c", "b"] {
        queue.add(key);
    }
    assert_eq!(queue.len(), 3);
    assert_eq!([queue.get().await, queue.get().await, queue.get().await], ["a", "b", "c"]);
    assert!(nothing(&queue, millis(1)).await);
}

#[tokio::test(start_paused = true)]
async fn a_key_in_work_waits_until_that_is_done() {
    let queue = WorkQueue::new();
    queue.add("a");
    assert_eq!(queue.get().await, "a");
    queue.add("a");
    queue.add("a");
    assert!(nothing(&queue, millis(1)).await, "two workers must not have one key");
    queue.done(&"a");
    assert_eq!(queue.get().await, "a");
    queue.done(&"a");
    assert!(nothing(&queue, millis(1)).await);
}

#[tokio::test(start_paused = true)]
async fn the_earliest_pause_counts() {
    let queue = WorkQueue::new();
    let start = Instant::now();
    queue.add_after("a", millis(500));
    queue.add_after("a", millis(100));
    queue.add_after("a", millis(900));
    queue.add_after("b", millis(50));
    assert_eq!((queue.get().await, start.elapsed().as_millis() / 10), ("b", 5));
    assert_eq!((queue.get().await, start.elapsed().as_millis() / 10), ("a", 10));
    queue.done(&"a");
    assert!(nothing(&queue, millis(2000)).await, "later times of the key are void");
}

#[tokio::test(start_paused = true)]
async fn failures_double_the_pause_and_success_ends_that() {
    let queue = WorkQueue::new();
    let mut pauses = Vec::new();
    for _ in 0..5 {
        let start = Instant::now();
        queue.add_rate_limited("a");
        queue.get().await;
        queue.done(&"a");
        pauses.push(start.elapsed().as_millis());
    }
    assert_eq!(pauses, [5, 10, 20, 40, 80]);
    assert_eq!(queue.failures(&"a"), 5);
    queue.forget(&"a");
    let start = Instant::now();
    queue.add_rate_limited("a");
    queue.get().await;
    assert_eq!(start.elapsed().as_millis(), 5);
}

#[tokio::test(start_paused = true)]
async fn the_longest_pause_is_a_thousand_seconds() {
    let queue = WorkQueue::new();
    for _ in 0..64 {
        queue.add_rate_limited("a");
    }
    queue.get().await;
    queue.done(&"a");
    let start = Instant::now();
    queue.add_rate_limited("a");
    queue.get().await;
    assert_eq!(start.elapsed().as_secs(), 1000);
}

#[tokio::test(start_paused = true)]
async fn every_waiting_worker_gets_work() {
    let queue = WorkQueue::new();
    let workers: Vec<_> = (0..3)
        .map(|_| {
            let queue = queue.clone();
            tokio::spawn(async move { queue.get().await })
        })
        .collect();
    tokio::task::yield_now().await;
    queue.add("a");
    queue.add("b");
    queue.add_after("c", millis(10));
    let mut got = Vec::new();
    for worker in workers {
        got.push(timeout(millis(100), worker).await.expect("no worker sleeps on").unwrap());
    }
    got.sort_unstable();
    assert_eq!(got, ["a", "b", "c"]);
}
