//! Moving a cluster's state to another backend.

use std::sync::Arc;

use keelson_store::copy::CopyError;
use keelson_store::{Expect, RangeOptions, Store, Write};

use crate::contract::contract;

contract! {
    a_copy_has_all_values_and_higher_revisions,
    a_store_in_use_is_not_overwritten,
}

async fn fill(store: &dyn Store) {
    let create = |n| store.write(Write::create(format!("/n/{n:04}"), format!("value {n}")));
    let delete = |n| store.write(Write::delete(format!("/n/{n:04}"), Expect::Any));
    futures::future::try_join_all((0..1200).map(create)).await.unwrap();
    futures::future::try_join_all((0..1200).step_by(10).map(delete)).await.unwrap();
}

async fn contents(store: &dyn Store) -> Vec<(String, bytes::Bytes)> {
    let all = store.range("", RangeOptions::default()).await.unwrap();
    all.kvs.into_iter().map(|kv| (kv.key, kv.value)).collect()
}

/// From embedded to the backend under test, and back into another embedded one.
async fn a_copy_has_all_values_and_higher_revisions(store: Arc<dyn Store>) {
    let source = crate::contract::embedded().await;
    let back = crate::contract::embedded().await;
    fill(&*source.store).await;
    let there = keelson_store::copy(&*source.store, &*store).await.unwrap();
    assert_eq!(there.keys, 1080);
    assert!(there.revision > there.source_revision);
    assert_eq!(contents(&*store).await, contents(&*source.store).await);
    let again = keelson_store::copy(&*store, &*back.store).await.unwrap();
    assert!(again.revision > there.revision);
    assert_eq!(contents(&*back.store).await, contents(&*source.store).await);
    let oldest = back.store.range("", RangeOptions::default()).await.unwrap();
    assert!(oldest.kvs.iter().all(|kv| kv.create_revision > there.revision));
}

async fn a_store_in_use_is_not_overwritten(store: Arc<dyn Store>) {
    let source = crate::contract::embedded().await;
    source.store.write(Write::create("/a", "1")).await.unwrap();
    store.write(Write::create("/a", "2")).await.unwrap();
    let error = keelson_store::copy(&*source.store, &*store).await.unwrap_err();
    assert!(matches!(error, CopyError::NotEmpty { ref key } if key == "/a"), "{error:?}");
}
