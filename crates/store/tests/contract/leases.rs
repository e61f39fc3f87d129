//! Keys that expire.

use std::sync::Arc;
use std::time::Duration;

use keelson_store::{Error, EventKind, Store, Write, WriteError};

use crate::contract::contract;
use crate::support::{DEADLINE, events, eventually, text};

contract! {
    a_key_goes_when_its_lease_ends,
    a_renewed_lease_lives_on,
    a_key_written_without_its_lease_stays,
    revoking_a_lease_deletes_its_keys_and_no_others,
    an_unknown_lease_is_refused,
}

async fn a_key_goes_when_its_lease_ends(store: Arc<dyn Store>) {
    let lease = store.lease(Duration::from_secs(1)).await.unwrap();
    let mut watch = store.watch("/", 1).await.unwrap();
    store.write(Write::create("/a", "1").with_lease(lease)).await.unwrap();
    assert!(store.get("/a").await.unwrap().kv.is_some());
    let seen = events(&mut watch, 2).await;
    assert_eq!((seen[1].kind, text(&seen[1].kv.value)), (EventKind::Delete, "1".into()));
    assert_eq!(store.get("/a").await.unwrap().kv, None);
    assert!(matches!(store.renew(lease).await, Err(Error::LeaseNotFound(_))));
}

async fn a_renewed_lease_lives_on(store: Arc<dyn Store>) {
    let renewed = store.lease(Duration::from_secs(2)).await.unwrap();
    let left = store.lease(Duration::from_secs(2)).await.unwrap();
    store.write(Write::create("/renewed", "1").with_lease(renewed)).await.unwrap();
    store.write(Write::create("/left", "1").with_lease(left)).await.unwrap();
    let wait = eventually(
        "/left expires",
        || async {
            store.renew(renewed).await.unwrap();
            store.get("/left").await.unwrap().kv
        },
        Option::is_none,
    );
    tokio::time::timeout(DEADLINE, wait).await.unwrap();
    assert!(store.get("/renewed").await.unwrap().kv.is_some());
}

async fn a_key_written_without_its_lease_stays(store: Arc<dyn Store>) {
    let lease = store.lease(Duration::from_secs(60)).await.unwrap();
    let other = store.lease(Duration::from_secs(60)).await.unwrap();
    store.write(Write::create("/stays", "1").with_lease(lease)).await.unwrap();
    store.write(Write::create("/moves", "1").with_lease(lease)).await.unwrap();
    store.write(Write::put("/stays", "2")).await.unwrap();
    store.write(Write::put("/moves", "2").with_lease(other)).await.unwrap();
    store.revoke(lease).await.unwrap();
    assert!(store.get("/stays").await.unwrap().kv.is_some());
    assert!(store.get("/moves").await.unwrap().kv.is_some());
    store.revoke(other).await.unwrap();
    assert!(store.get("/moves").await.unwrap().kv.is_none());
}

async fn revoking_a_lease_deletes_its_keys_and_no_others(store: Arc<dyn Store>) {
    let lease = store.lease(Duration::from_secs(60)).await.unwrap();
    for key in ["/a", "/b", "/c"] {
        store.write(Write::create(key, "1").with_lease(lease)).await.unwrap();
    }
    store.write(Write::create("/d", "1")).await.unwrap();
    let after = store.revision().await.unwrap();
    let mut watch = store.watch("/", after).await.unwrap();
    store.revoke(lease).await.unwrap();
    let seen = events(&mut watch, 3).await;
    let mut keys: Vec<_> = seen.iter().map(|event| event.kv.key.as_str()).collect();
    keys.sort_unstable();
    assert_eq!(keys, ["/a", "/b", "/c"]);
    assert!(store.get("/d").await.unwrap().kv.is_some());
}

async fn an_unknown_lease_is_refused(store: Arc<dyn Store>) {
    let error = store.write(Write::create("/a", "1").with_lease(4711)).await.unwrap_err();
    assert!(matches!(error, WriteError::LeaseNotFound(4711)), "{error:?}");
    assert!(matches!(store.renew(4711).await, Err(Error::LeaseNotFound(4711))));
    assert!(matches!(store.revoke(4711).await, Err(Error::LeaseNotFound(4711))));
}
