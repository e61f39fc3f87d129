//! The embedded file when the disk fails, when it is opened twice, and over restarts.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use keelson_store::embedded::fault::Faults;
use keelson_store::{EmbeddedConfig, Error, Expect, RangeOptions, Store, StoreConfig, Write, WriteError};

use crate::support::{events, eventually, within};

async fn open(config: EmbeddedConfig) -> Result<Arc<dyn Store>, Error> {
    keelson_store::open(StoreConfig::Embedded(config)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_writes_until_there_is_space() {
    let folder = tempfile::tempdir().unwrap();
    let faults = Arc::new(Faults::default());
    let mut config = EmbeddedConfig::new(folder.path().join("store.redb"));
    config.faults = Some(faults.clone());
    let store = open(config.clone()).await.unwrap();
    let mut watch = store.watch("/", 1).await.unwrap();
    store.write(Write::create("/before", "1")).await.unwrap();

    faults.set_full(true);
    for _ in 0..3 {
        let error = store.write(Write::create("/during", vec![7; 100_000])).await.unwrap_err();
        let WriteError::Unavailable(error) = error else { panic!("{error:?}") };
        assert!(error.to_string().contains("the disk is full"), "{error}");
        assert!(store.get("/before").await.unwrap().kv.is_some(), "reads go on");
        assert!(store.get("/during").await.unwrap().kv.is_none());
    }

    faults.set_full(false);
    let written = store.write(Write::create("/after", "1")).await.unwrap();
    assert_eq!(written.revision, 3, "a refused write leaves no revision behind");
    let keys: Vec<_> = events(&mut watch, 2).await.into_iter().map(|event| event.kv.key).collect();
    assert_eq!(keys, ["/before", "/after"]);
    drop((store, watch));

    let store = open(config).await.unwrap();
    assert_eq!(store.revision().await.unwrap(), 3);
    assert_eq!(store.range("/", RangeOptions::default()).await.unwrap().kvs.len(), 2);
}

/// Whether such a write happened is open, but the store, its watchers and the file must agree.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_failed_sync_store_watchers_and_file_agree() {
    let folder = tempfile::tempdir().unwrap();
    let faults = Arc::new(Faults::default());
    let mut config = EmbeddedConfig::new(folder.path().join("store.redb"));
    config.faults = Some(faults.clone());
    let store = open(config.clone()).await.unwrap();
    let mut watch = store.watch("/", 1).await.unwrap();
    for round in 0..5 {
        store.write(Write::create(format!("/{round}/acknowledged"), "1")).await.unwrap();
        faults.set_sync_fails(true);
        let error = store.write(Write::create(format!("/{round}/unknown"), "1")).await.unwrap_err();
        assert!(matches!(error, WriteError::Unavailable(_)), "{error:?}");
        faults.set_sync_fails(false);
        let probe =
            || async { store.write(Write::put("/probe", "1")).await.map_err(|error| error.to_string()) };
        eventually("a write when the disk works again", probe, Result::is_ok).await.unwrap();
    }
    let revision = store.revision().await.unwrap();
    let seen = events(&mut watch, revision as usize - 1).await;
    assert_eq!(
        seen.iter().map(|event| event.revision).collect::<Vec<_>>(),
        (2..=revision).collect::<Vec<_>>()
    );
    let before = store.range("/", RangeOptions::default()).await.unwrap();
    for round in 0..5 {
        let key = format!("/{round}/acknowledged");
        assert!(before.kvs.iter().any(|kv| kv.key == key), "{key} is lost");
    }
    drop((store, watch));
    let store = open(config).await.unwrap();
    assert_eq!(store.range("/", RangeOptions::default()).await.unwrap(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_opener_is_told_that_the_file_is_in_use() {
    let folder = tempfile::tempdir().unwrap();
    let config = EmbeddedConfig::new(folder.path().join("deep/er/store.redb"));
    let store = open(config.clone()).await.unwrap();
    let error = open(config.clone()).await.err().unwrap();
    assert!(matches!(error, Error::AlreadyOpen { .. }), "{error:?}");
    store.write(Write::create("/a", "1")).await.unwrap();
    drop(store);
    assert!(open(config).await.unwrap().get("/a").await.unwrap().kv.is_some());
}

#[tokio::test]
async fn a_file_that_is_none_of_ours_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    std::fs::write(&path, vec![42; 100_000]).unwrap();
    let error = open(EmbeddedConfig::new(&path)).await.err().unwrap();
    assert!(error.to_string().contains("store.redb"), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), vec![42; 100_000], "left as it was");
}

#[cfg(unix)]
#[tokio::test]
async fn only_the_owner_can_read_the_file() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let _store = open(EmbeddedConfig::new(&path)).await.unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_leases_and_revision_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let config = EmbeddedConfig::new(folder.path().join("store.redb"));
    let store = open(config.clone()).await.unwrap();
    let lease = store.lease(Duration::from_secs(1)).await.unwrap();
    store.write(Write::create("/leased", "1").with_lease(lease)).await.unwrap();
    store.write(Write::create("/a", "1")).await.unwrap();
    store.write(Write::put("/a", "2")).await.unwrap();
    store.write(Write::delete("/a", Expect::Any)).await.unwrap();
    store.compact(4).await.unwrap();
    drop(store);

    let store = open(config).await.unwrap();
    assert!(store.revision().await.unwrap() >= 5);
    let past = store.range("/a", RangeOptions { at: Some(4), ..RangeOptions::default() }).await.unwrap();
    assert_eq!(past.kvs[0].value, "2");
    assert!(matches!(store.watch("/", 3).await, Err(Error::Compacted { .. })));
    let get = || async { store.get("/leased").await.unwrap().kv };
    eventually("the lease ends", get, Option::is_none).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_does_not_keep_up_is_closed_and_not_skipped() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(EmbeddedConfig::new(folder.path().join("store.redb"))).await.unwrap();
    let mut slow = store.watch("/", 1).await.unwrap();
    let value = bytes::Bytes::from(vec![1; 1 << 20]);
    let writes = (0..40).map(|turn| store.write(Write::create(format!("/{turn}"), value.clone())));
    futures::future::try_join_all(writes).await.unwrap();
    let mut next = 2;
    let error = loop {
        match within("item", slow.next()).await.expect("ended without an error") {
            Ok(keelson_store::WatchItem::Events(events)) => {
                for event in events {
                    assert_eq!(event.revision, next);
                    next += 1;
                }
            }
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::SlowWatcher { .. }), "{error:?}");
    assert!(next < 41, "the watch was never behind");
    assert!(slow.next().await.is_none());
    let mut again = store.watch("/", next - 1).await.unwrap();
    assert_eq!(events(&mut again, 42 - next as usize).await[0].revision, next);
}
