//! Reading and writing the present.

use std::sync::Arc;

use keelson_store::{Expect, RangeOptions, Store, Write, WriteError};

use crate::contract::contract;
use crate::support::text;

contract! {
    a_fresh_store_is_empty_at_revision_one,
    a_created_key_reads_back,
    each_change_raises_the_revision,
    creating_an_existing_key_conflicts_with_the_present_value,
    updating_needs_the_present_revision,
    deleting_needs_the_present_revision,
    a_key_created_anew_has_a_new_create_revision,
    deleting_nothing_changes_nothing,
    a_range_is_in_byte_order_and_within_its_prefix,
    pages_join_to_the_whole_range,
    of_concurrent_updates_of_one_revision_one_wins,
    concurrent_creates_all_arrive,
    values_of_a_megabyte_are_kept,
    keys_and_values_are_any_text_and_bytes,
}

async fn a_fresh_store_is_empty_at_revision_one(store: Arc<dyn Store>) {
    assert_eq!(store.revision().await.unwrap(), 1);
    let got = store.get("/a").await.unwrap();
    assert_eq!((got.revision, got.kv), (1, None));
    let all = store.range("", RangeOptions::default()).await.unwrap();
    assert_eq!((all.revision, all.kvs.len(), all.more), (1, 0, false));
}

async fn a_created_key_reads_back(store: Arc<dyn Store>) {
    let written = store.write(Write::create("/a", "1")).await.unwrap();
    assert_eq!((written.revision, written.previous), (2, None));
    let got = store.get("/a").await.unwrap();
    let kv = got.kv.unwrap();
    assert_eq!(
        (kv.key.as_str(), text(&kv.value), kv.create_revision, kv.mod_revision),
        ("/a", "1".into(), 2, 2)
    );
    assert_eq!(got.revision, 2);
}

async fn each_change_raises_the_revision(store: Arc<dyn Store>) {
    let mut last = store.revision().await.unwrap();
    for turn in 0..10 {
        let written = store.write(Write::put("/a", format!("{turn}"))).await.unwrap();
        assert_eq!(written.revision, last + 1);
        last = written.revision;
    }
    assert_eq!(store.revision().await.unwrap(), last);
}

async fn creating_an_existing_key_conflicts_with_the_present_value(store: Arc<dyn Store>) {
    store.write(Write::create("/a", "1")).await.unwrap();
    let error = store.write(Write::create("/a", "2")).await.unwrap_err();
    let WriteError::Conflict { current: Some(current) } = error else { panic!("{error:?}") };
    assert_eq!((text(&current.value), current.mod_revision), ("1".into(), 2));
    assert_eq!(store.revision().await.unwrap(), 2);
}

async fn updating_needs_the_present_revision(store: Arc<dyn Store>) {
    let first = store.write(Write::create("/a", "1")).await.unwrap();
    let second = store.write(Write::update("/a", first.revision, "2")).await.unwrap();
    let previous = second.previous.unwrap();
    assert_eq!((text(&previous.value), previous.mod_revision), ("1".into(), first.revision));

    let error = store.write(Write::update("/a", first.revision, "3")).await.unwrap_err();
    let WriteError::Conflict { current: Some(current) } = error else { panic!("{error:?}") };
    assert_eq!((text(&current.value), current.create_revision, current.mod_revision), ("2".into(), 2, 3));

    let error = store.write(Write::update("/b", 1, "3")).await.unwrap_err();
    assert!(matches!(error, WriteError::Conflict { current: None }), "{error:?}");
}

async fn deleting_needs_the_present_revision(store: Arc<dyn Store>) {
    let first = store.write(Write::create("/a", "1")).await.unwrap();
    let error = store.write(Write::delete("/a", Expect::Revision(first.revision + 1))).await.unwrap_err();
    assert!(matches!(error, WriteError::Conflict { current: Some(_) }), "{error:?}");
    let gone = store.write(Write::delete("/a", Expect::Revision(first.revision))).await.unwrap();
    assert_eq!(text(&gone.previous.unwrap().value), "1");
    assert_eq!(store.get("/a").await.unwrap().kv, None);
    let error = store.write(Write::delete("/a", Expect::Revision(first.revision))).await.unwrap_err();
    assert!(matches!(error, WriteError::Conflict { current: None }), "{error:?}");
}

async fn a_key_created_anew_has_a_new_create_revision(store: Arc<dyn Store>) {
    store.write(Write::create("/a", "1")).await.unwrap();
    store.write(Write::delete("/a", Expect::Any)).await.unwrap();
    let again = store.write(Write::create("/a", "2")).await.unwrap();
    assert_eq!((again.revision, again.previous), (4, None));
    assert_eq!(store.get("/a").await.unwrap().kv.unwrap().create_revision, 4);
}

async fn deleting_nothing_changes_nothing(store: Arc<dyn Store>) {
    store.write(Write::create("/a", "1")).await.unwrap();
    let written = store.write(Write::delete("/b", Expect::Any)).await.unwrap();
    assert_eq!((written.revision, written.previous), (2, None));
    assert_eq!(store.revision().await.unwrap(), 2);
}

async fn a_range_is_in_byte_order_and_within_its_prefix(store: Arc<dyn Store>) {
    for key in ["/pods/b/1", "/pods/a/2", "/podsx", "/pod", "/pods/a/10", "/q", "/pods/a/1"] {
        store.write(Write::create(key, key)).await.unwrap();
    }
    let range = store.range("/pods/", RangeOptions::default()).await.unwrap();
    let keys: Vec<_> = range.kvs.iter().map(|kv| kv.key.as_str()).collect();
    assert_eq!(keys, ["/pods/a/1", "/pods/a/10", "/pods/a/2", "/pods/b/1"]);
    assert!(range.kvs.iter().all(|kv| kv.key == text(&kv.value)));
    assert_eq!(range.revision, 8);
}

async fn pages_join_to_the_whole_range(store: Arc<dyn Store>) {
    for number in 0..25 {
        store.write(Write::create(format!("/n/{number:02}"), "v")).await.unwrap();
    }
    store.write(Write::create("/o", "v")).await.unwrap();
    let mut keys = Vec::new();
    let mut options = RangeOptions { limit: 10, ..RangeOptions::default() };
    let mut sizes = Vec::new();
    loop {
        let page = store.range("/n/", options.clone()).await.unwrap();
        sizes.push(page.kvs.len());
        keys.extend(page.kvs.into_iter().map(|kv| kv.key));
        options.start_after = keys.last().cloned();
        options.at = Some(page.revision);
        if !page.more {
            break;
        }
    }
    assert_eq!(sizes, [10, 10, 5]);
    assert_eq!(keys, (0..25).map(|number| format!("/n/{number:02}")).collect::<Vec<_>>());
    let whole = RangeOptions { limit: 25, ..RangeOptions::default() };
    assert!(!store.range("/n/", whole).await.unwrap().more);
}

async fn of_concurrent_updates_of_one_revision_one_wins(store: Arc<dyn Store>) {
    let first = store.write(Write::create("/a", "0")).await.unwrap();
    let writes = (0..32).map(|n| store.write(Write::update("/a", first.revision, format!("{n}"))));
    let results = futures::future::join_all(writes).await;
    let won: Vec<_> = results.iter().filter_map(|result| result.as_ref().ok()).collect();
    assert_eq!(won.len(), 1, "{results:?}");
    assert!(results.iter().all(|result| matches!(result, Ok(_) | Err(WriteError::Conflict { .. }))));
    assert_eq!(store.get("/a").await.unwrap().kv.unwrap().mod_revision, won[0].revision);
}

async fn concurrent_creates_all_arrive(store: Arc<dyn Store>) {
    let writes = (0..500).map(|n| store.write(Write::create(format!("/c/{n}"), format!("{n}"))));
    let results = futures::future::join_all(writes).await;
    let mut revisions: Vec<_> = results.into_iter().map(|result| result.unwrap().revision).collect();
    revisions.sort_unstable();
    assert_eq!(revisions, (2..502).collect::<Vec<_>>());
    assert_eq!(store.range("/c/", RangeOptions::default()).await.unwrap().kvs.len(), 500);
}

async fn values_of_a_megabyte_are_kept(store: Arc<dyn Store>) {
    let value: Vec<u8> = (0..1_000_000_u32).map(|n| (n % 251) as u8).collect();
    store.write(Write::create("/big", value.clone())).await.unwrap();
    assert_eq!(store.get("/big").await.unwrap().kv.unwrap().value, value);
}

async fn keys_and_values_are_any_text_and_bytes(store: Arc<dyn Store>) {
    let value: Vec<u8> = (0..=255).collect();
    for key in ["/registry/ünïcode/名前", "/registry/with space/%2F", "~", "/\u{10ffff}/x"] {
        store.write(Write::create(key, value.clone())).await.unwrap();
        assert_eq!(store.get(key).await.unwrap().kv.unwrap().value, value, "{key}");
    }
    assert_eq!(store.range("/\u{10ffff}", RangeOptions::default()).await.unwrap().kvs.len(), 1);
    store.write(Write::put("/empty", "")).await.unwrap();
    assert_eq!(store.get("/empty").await.unwrap().kv.unwrap().value.len(), 0);
}
