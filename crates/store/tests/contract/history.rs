//! Reading the past, forgetting it, raising the revision.

use std::sync::Arc;

use keelson_store::{Error, Expect, RangeOptions, Store, Write};

use crate::contract::contract;
use crate::support::text;

contract! {
    a_range_at_a_revision_shows_that_state,
    a_range_in_the_future_is_refused,
    compaction_keeps_the_state_at_its_revision,
    compaction_refuses_older_revisions,
    compacting_twice_or_into_the_future,
    compaction_of_deleted_keys_keeps_what_came_after,
    the_revision_can_be_raised,
}

async fn state(store: &Arc<dyn Store>, at: Option<u64>) -> Result<Vec<String>, Error> {
    let range = store.range("/", RangeOptions { at, ..RangeOptions::default() }).await?;
    Ok(range.kvs.iter().map(|kv| format!("{}={}@{}", kv.key, text(&kv.value), kv.mod_revision)).collect())
}

/// Revisions: 2 create a, 3 create b, 4 update a, 5 delete b, 6 create c, 7 create b anew.
async fn some_history(store: &Arc<dyn Store>) {
    store.write(Write::create("/a", "1")).await.unwrap();
    store.write(Write::create("/b", "1")).await.unwrap();
    store.write(Write::put("/a", "2")).await.unwrap();
    store.write(Write::delete("/b", Expect::Any)).await.unwrap();
    store.write(Write::create("/c", "1")).await.unwrap();
    store.write(Write::create("/b", "2")).await.unwrap();
}

async fn a_range_at_a_revision_shows_that_state(store: Arc<dyn Store>) {
    some_history(&store).await;
    let expected: [&[&str]; 7] = [
        &[],
        &["/a=1@2"],
        &["/a=1@2", "/b=1@3"],
        &["/a=2@4", "/b=1@3"],
        &["/a=2@4"],
        &["/a=2@4", "/c=1@6"],
        &["/a=2@4", "/b=2@7", "/c=1@6"],
    ];
    for (revision, expected) in (1..).zip(expected) {
        assert_eq!(state(&store, Some(revision)).await.unwrap(), expected, "at {revision}");
    }
    assert_eq!(state(&store, None).await.unwrap(), expected[6]);
}

async fn a_range_in_the_future_is_refused(store: Arc<dyn Store>) {
    some_history(&store).await;
    let error = state(&store, Some(8)).await.unwrap_err();
    assert!(matches!(error, Error::FutureRevision { requested: 8, .. }), "{error:?}");
}

async fn compaction_keeps_the_state_at_its_revision(store: Arc<dyn Store>) {
    some_history(&store).await;
    for upto in 2..=7 {
        let before: Vec<_> = [
            state(&store, Some(upto)).await.unwrap(),
            state(&store, Some(6.max(upto))).await.unwrap(),
            state(&store, Some(7)).await.unwrap(),
        ]
        .into();
        store.compact(upto).await.unwrap();
        let after: Vec<_> = [
            state(&store, Some(upto)).await.unwrap(),
            state(&store, Some(6.max(upto))).await.unwrap(),
            state(&store, Some(7)).await.unwrap(),
        ]
        .into();
        assert_eq!(before, after, "compacted to {upto}");
    }
    assert_eq!(store.revision().await.unwrap(), 7);
    let written = store.write(Write::put("/d", "1")).await.unwrap();
    assert_eq!(written.revision, 8);
}

async fn compaction_refuses_older_revisions(store: Arc<dyn Store>) {
    some_history(&store).await;
    store.compact(5).await.unwrap();
    let error = state(&store, Some(4)).await.unwrap_err();
    assert!(matches!(error, Error::Compacted { requested: 4, .. }), "{error:?}");
}

async fn compacting_twice_or_into_the_future(store: Arc<dyn Store>) {
    some_history(&store).await;
    store.compact(5).await.unwrap();
    store.compact(5).await.unwrap();
    store.compact(3).await.unwrap();
    let error = store.compact(100).await.unwrap_err();
    assert!(matches!(error, Error::FutureRevision { requested: 100, .. }), "{error:?}");
}

async fn compaction_of_deleted_keys_keeps_what_came_after(store: Arc<dyn Store>) {
    for turn in 0..20 {
        for key in 0..10 {
            let key = format!("/k{key}");
            store.write(Write::put(&*key, format!("{turn}"))).await.unwrap();
            if turn % 3 == 1 {
                store.write(Write::delete(&*key, Expect::Any)).await.unwrap();
            }
        }
        let revision = store.revision().await.unwrap();
        let before = state(&store, None).await.unwrap();
        store.compact(revision).await.unwrap();
        assert_eq!(state(&store, None).await.unwrap(), before);
        assert_eq!(state(&store, Some(revision)).await.unwrap(), before);
    }
}

async fn the_revision_can_be_raised(store: Arc<dyn Store>) {
    store.write(Write::create("/a", "1")).await.unwrap();
    let raised = store.advance(50).await.unwrap();
    assert!(raised >= 50);
    assert_eq!(store.advance(10).await.unwrap(), raised);
    assert_eq!(store.revision().await.unwrap(), raised);
    assert_eq!(state(&store, None).await.unwrap(), ["/a=1@2"]);
    assert_eq!(store.write(Write::put("/b", "1")).await.unwrap().revision, raised + 1);
    store.compact(raised).await.unwrap();
    assert_eq!(store.revision().await.unwrap(), raised + 1);
}
