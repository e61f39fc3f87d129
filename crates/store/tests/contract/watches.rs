//! Following changes.

use std::sync::Arc;

use futures::StreamExt;
use keelson_store::{Error, EventKind, Expect, Store, WatchItem, Write};

use crate::contract::contract;
use crate::support::{brief, events, text, within};

contract! {
    a_watch_sees_what_comes,
    a_watch_replays_what_was,
    a_watch_sees_only_its_prefix,
    events_carry_the_value_before,
    a_deletion_carries_the_last_value,
    history_and_present_join_without_gap_or_repetition,
    a_watch_before_the_compacted_revision_is_refused,
    a_watch_after_the_compacted_revision_works,
    a_watch_from_the_future_waits_for_it,
    progress_follows_events,
    many_watches_see_the_same,
}

async fn a_watch_sees_what_comes(store: Arc<dyn Store>) {
    let mut watch = store.watch("/", 1).await.unwrap();
    store.write(Write::create("/a", "1")).await.unwrap();
    assert_eq!(brief(&events(&mut watch, 1).await), ["+/a=1@2"]);
    store.write(Write::put("/a", "2")).await.unwrap();
    store.write(Write::delete("/a", Expect::Any)).await.unwrap();
    assert_eq!(brief(&events(&mut watch, 2).await), ["+/a=2@3", "-/a=2@4"]);
}

async fn a_watch_replays_what_was(store: Arc<dyn Store>) {
    for n in 0..5 {
        store.write(Write::create(format!("/{n}"), "v")).await.unwrap();
    }
    let mut watch = store.watch("/", 3).await.unwrap();
    assert_eq!(brief(&events(&mut watch, 3).await), ["+/2=v@4", "+/3=v@5", "+/4=v@6"]);
}

async fn a_watch_sees_only_its_prefix(store: Arc<dyn Store>) {
    store.write(Write::create("/pods/1", "v")).await.unwrap();
    store.write(Write::create("/podsx", "v")).await.unwrap();
    let mut watch = store.watch("/pods/", 1).await.unwrap();
    store.write(Write::create("/nodes/1", "v")).await.unwrap();
    store.write(Write::create("/pods/2", "v")).await.unwrap();
    assert_eq!(brief(&events(&mut watch, 2).await), ["+/pods/1=v@2", "+/pods/2=v@5"]);
}

async fn events_carry_the_value_before(store: Arc<dyn Store>) {
    store.write(Write::create("/a", "1")).await.unwrap();
    store.write(Write::put("/a", "2")).await.unwrap();
    let mut watch = store.watch("/", 1).await.unwrap();
    store.write(Write::put("/a", "3")).await.unwrap();
    let seen = events(&mut watch, 3).await;
    assert_eq!(seen[0].previous, None);
    assert_eq!(seen[1].previous.as_ref(), Some(&seen[0].kv));
    assert_eq!(seen[2].previous.as_ref(), Some(&seen[1].kv));
    assert_eq!((seen[2].kv.create_revision, seen[2].kv.mod_revision), (2, 4));
}

async fn a_deletion_carries_the_last_value(store: Arc<dyn Store>) {
    let mut live = store.watch("/", 1).await.unwrap();
    store.write(Write::create("/a", "1")).await.unwrap();
    store.write(Write::delete("/a", Expect::Any)).await.unwrap();
    let mut replayed = store.watch("/", 1).await.unwrap();
    for watch in [&mut live, &mut replayed] {
        let seen = events(watch, 2).await;
        assert_eq!((seen[1].kind, seen[1].revision), (EventKind::Delete, 3));
        assert_eq!(seen[1].kv, seen[0].kv);
        assert_eq!(seen[1].previous.as_ref(), Some(&seen[0].kv));
    }
}

async fn history_and_present_join_without_gap_or_repetition(store: Arc<dyn Store>) {
    const WRITES: usize = 200;
    let writer = tokio::spawn({
        let store = store.clone();
        async move {
            for n in 0..WRITES {
                store.write(Write::put(format!("/{}", n % 7), format!("{n}"))).await.unwrap();
            }
        }
    });
    let mut watchers = Vec::new();
    while !writer.is_finished() && watchers.len() < 20 {
        let (store, after) = (store.clone(), 1 + watchers.len() as u64);
        watchers.push(tokio::spawn(async move {
            let mut watch = store.watch("/", after).await.unwrap();
            let expected: Vec<u64> = (after + 1..=WRITES as u64 + 1).collect();
            let seen = events(&mut watch, expected.len()).await;
            assert_eq!(seen.iter().map(|event| event.revision).collect::<Vec<_>>(), expected);
            assert!(seen.iter().all(|event| text(&event.kv.value) == (event.revision - 2).to_string()));
        }));
        tokio::task::yield_now().await;
    }
    within("end of writes", writer).await.unwrap();
    for watcher in watchers {
        within("complete watch", watcher).await.unwrap();
    }
}

async fn a_watch_before_the_compacted_revision_is_refused(store: Arc<dyn Store>) {
    for n in 0..5 {
        store.write(Write::put("/a", format!("{n}"))).await.unwrap();
    }
    store.compact(5).await.unwrap();
    let error = match store.watch("/", 2).await {
        Err(error) => error,
        Ok(mut watch) => within("error", watch.next()).await.unwrap().unwrap_err(),
    };
    assert!(matches!(error, Error::Compacted { .. }), "{error:?}");
}

async fn a_watch_after_the_compacted_revision_works(store: Arc<dyn Store>) {
    for n in 0..5 {
        store.write(Write::put("/a", format!("{n}"))).await.unwrap();
    }
    store.compact(5).await.unwrap();
    let mut watch = store.watch("/", 5).await.unwrap();
    assert_eq!(brief(&events(&mut watch, 1).await), ["+/a=4@6"]);
}

async fn a_watch_from_the_future_waits_for_it(store: Arc<dyn Store>) {
    let mut watch = store.watch("/", 4).await.unwrap();
    for n in 0..5 {
        store.write(Write::put("/a", format!("{n}"))).await.unwrap();
    }
    assert_eq!(brief(&events(&mut watch, 2).await), ["+/a=3@5", "+/a=4@6"]);
}

async fn progress_follows_events(store: Arc<dyn Store>) {
    let mut watch = store.watch("/a/", 1).await.unwrap();
    store.write(Write::create("/a/1", "v")).await.unwrap();
    store.write(Write::create("/b/1", "v")).await.unwrap();
    assert_eq!(brief(&events(&mut watch, 1).await), ["+/a/1=v@2"]);
    if !store.request_progress().await.unwrap() {
        return;
    }
    loop {
        match within("progress", watch.next()).await.unwrap().unwrap() {
            WatchItem::Progress(revision) if revision >= 3 => break,
            WatchItem::Progress(_) => {}
            WatchItem::Events(events) => panic!("{events:?}"),
        }
    }
}

async fn many_watches_see_the_same(store: Arc<dyn Store>) {
    let mut watches = Vec::new();
    for _ in 0..50 {
        watches.push(store.watch("/", 1).await.unwrap());
    }
    futures::future::join_all((0..100).map(|n| store.write(Write::create(format!("/{n}"), "v"))))
        .await
        .into_iter()
        .for_each(|result| drop(result.unwrap()));
    for watch in &mut watches {
        let revisions: Vec<_> = events(watch, 100).await.iter().map(|event| event.revision).collect();
        assert_eq!(revisions, (2..102).collect::<Vec<_>>());
    }
}
