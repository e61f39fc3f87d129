//! What a server leaves behind.

use keelson_api_server::config::{Bind, Config};
use keelson_api_server::run::{product_security, start};
use keelson_daemon::Daemon;
use keelson_store::{EmbeddedConfig, StoreConfig};

use crate::support::{Server, eventually};

#[tokio::test]
async fn a_server_that_has_ended_closes_its_store() {
    let plane = Server::start().await;
    let file = plane.dir().join("second.redb");
    let open = || keelson_store::open(StoreConfig::Embedded(EmbeddedConfig::new(&file)));
    let config = Config {
        bind: Bind { address: "127.0.0.1".parse().unwrap(), port: 0 },
        pki_dir: plane.dir().join("pki"),
        ..Config::default()
    };
    let daemon = Daemon::new("keelson-api-server");
    let running = start(config, daemon.clone(), open().await.unwrap(), product_security()).await.unwrap();
    assert!(open().await.is_err(), "one process has it open at a time");
    daemon.shutdown.cancel();
    running.wait().await;
    drop(daemon);
    eventually("the file is closed", || async { open().await.map(drop).map_err(|e| e.to_string()) }).await;
}
