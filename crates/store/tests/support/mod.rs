//! What several tests need.

use std::fmt::Debug;
use std::time::Duration;

use futures::StreamExt;
use keelson_store::{Event, Revision, WatchItem, WatchStream};

/// Longer than anything here takes on a loaded machine.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// Fails a test that waits for ever.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("no {what} within {DEADLINE:?}"),
    }
}

/// The next `count` events, whatever their batches; progress in between is checked and dropped.
pub async fn events(watch: &mut WatchStream, count: usize) -> Vec<Event> {
    let mut events: Vec<Event> = Vec::new();
    let mut last: Revision = 0;
    while events.len() < count {
        let Ok(item) = tokio::time::timeout(DEADLINE, watch.next()).await else {
            panic!("not {count} events within {DEADLINE:?}, but {:?}", brief(&events));
        };
        match item.expect("watch ended").expect("watch failed") {
            WatchItem::Events(batch) => {
                for event in batch {
                    assert!(event.revision >= last, "revision {} after {last}", event.revision);
                    last = event.revision;
                    events.push(event);
                }
            }
            WatchItem::Progress(revision) => {
                assert!(revision >= last, "progress {revision} after {last}");
                last = revision;
            }
        }
    }
    assert_eq!(events.len(), count, "{events:?}");
    events
}

/// Short forms for assertions: `+/key=value@revision` and `-/key=value@revision`.
pub fn brief(events: &[Event]) -> Vec<String> {
    events
        .iter()
        .map(|event| {
            let sign = match event.kind {
                keelson_store::EventKind::Put => '+',
                keelson_store::EventKind::Delete => '-',
            };
            format!("{sign}{}={}@{}", event.kv.key, text(&event.kv.value), event.revision)
        })
        .collect()
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Asks again until the answer is right, for what happens in the background.
pub async fn eventually<T: Debug, F: Future<Output = T>>(
    what: &str,
    mut ask: impl FnMut() -> F,
    right: impl Fn(&T) -> bool,
) -> T {
    let end = tokio::time::Instant::now() + DEADLINE;
    loop {
        let answer = ask().await;
        if right(&answer) {
            return answer;
        }
        assert!(tokio::time::Instant::now() < end, "{what}: last seen {answer:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
