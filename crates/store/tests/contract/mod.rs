//! What every backend promises: the same tests against each.

mod history;
mod leases;
mod model;
mod moving;
mod watches;
mod writes;

use std::sync::Arc;

use keelson_store::{EmbeddedConfig, EtcdConfig, Store, StoreConfig};

use keelson_testkit::EtcdServer;

/// A store for one test, and what has to live as long.
pub struct Fixture {
    pub store: Arc<dyn Store>,
    _keep: Box<dyn Send>,
}

pub async fn embedded() -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let config = EmbeddedConfig::new(folder.path().join("store.redb"));
    let store = keelson_store::open(StoreConfig::Embedded(config)).await.unwrap();
    Fixture { store, _keep: Box::new(folder) }
}

pub async fn etcd() -> Fixture {
    let server = EtcdServer::start().await;
    let config = EtcdConfig { prefix: "/some/prefix".to_owned(), ..EtcdConfig::new(vec![server.endpoint()]) };
    let store = keelson_store::open(StoreConfig::Etcd(config)).await.unwrap();
    Fixture { store, _keep: Box::new(server) }
}

/// Runs each named check, an `async fn(Arc<dyn Store>)` of this module, against each backend.
macro_rules! contract {
    ($($check:ident),+ $(,)?) => {
        mod embedded {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $check() {
                let fixture = crate::contract::embedded().await;
                super::$check(fixture.store.clone()).await;
            })+
        }
        mod etcd {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $check() {
                let fixture = crate::contract::etcd().await;
                super::$check(fixture.store.clone()).await;
            })+
        }
    };
}
pub(crate) use contract;
