//! An etcd that goes away and comes back.

use std::time::Duration;

use keelson_store::{Error, EtcdConfig, StoreConfig, Write, WriteError};

use crate::support::{brief, events, eventually, within};
use keelson_testkit::EtcdServer;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_goes_on_after_etcd_restarts() {
    let mut server = EtcdServer::start().await;
    let config = EtcdConfig::new(vec![server.endpoint()]);
    let store = keelson_store::open(StoreConfig::Etcd(config)).await.unwrap();
    let mut watch = store.watch("/", 1).await.unwrap();
    store.write(Write::create("/a", "1")).await.unwrap();
    assert_eq!(brief(&events(&mut watch, 1).await), ["+/a=1@2"]);
    server.kill();
    let error = within("error", store.write(Write::create("/b", "1"))).await.unwrap_err();
    let WriteError::Unavailable(error) = error else { panic!("{error:?}") };
    assert!(error.to_string().contains("check that etcd runs"), "{error}");
    server.restart().await;
    let write = || async { store.write(Write::put("/c", "1")).await.map_err(|error| error.to_string()) };
    eventually("a write after the restart", write, Result::is_ok).await.unwrap();
    let seen = events(&mut watch, 1).await;
    assert!(seen[0].revision == 3, "{seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_etcd_that_is_not_there_is_named() {
    let config = EtcdConfig::new(vec!["http://127.0.0.1:1".to_owned()]);
    let opened =
        tokio::time::timeout(Duration::from_secs(15), keelson_store::open(StoreConfig::Etcd(config))).await;
    let Ok(Err(Error::Unavailable(error))) = opened else { panic!("opened or hung") };
    assert!(error.to_string().contains("http://127.0.0.1:1"), "{error}");
}

#[tokio::test]
async fn a_certificate_without_its_key_is_refused() {
    let mut config = EtcdConfig::new(vec!["https://127.0.0.1:1".to_owned()]);
    config.cert = Some("/nowhere/client.crt".into());
    let error = keelson_store::open(StoreConfig::Etcd(config)).await.err().unwrap();
    assert!(matches!(error, Error::Config(_)), "{error:?}");
}
