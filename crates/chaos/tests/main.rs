//! A short round on each backend, always with the same seed.

use std::time::Duration;

use keelson_chaos::cluster::Backend;
use keelson_chaos::run::round;

async fn holds(backend: Backend) {
    let round = round(1, backend, Duration::from_secs(10)).await.unwrap();
    let report = round.report;
    assert!(report.violations.is_empty(), "{:?}\n{:#?}", round.steps, report.violations);
    assert!(!round.steps.is_empty() && report.events > 100, "{} events tell nothing", report.events);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_store_under_faults_loses_nothing_and_shows_nothing_stale() {
    holds(Backend::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_on_one_etcd_under_faults_lose_nothing_and_show_nothing_stale() {
    holds(Backend::Etcd).await;
}
