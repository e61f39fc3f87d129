//! The controllers. Each is a plan (state in, actions out) and the thin part that carries it out.

pub mod attributes_class_protection;
pub mod claim_protection;
pub mod cluster_role;
pub mod cron_job;
pub mod csr;
pub mod daemon_set;
pub mod deployment;
pub mod disruption;
pub mod endpoints;
pub mod garbage;
pub mod job;
pub mod namespace;
pub mod node_ipam;
pub mod node_lifecycle;
pub mod pod_gc;
pub mod quota;
pub mod replica_set;
pub mod root_ca;
pub mod service_account;
pub mod stateful_set;
pub mod storage_migration;
pub mod taint_eviction;
pub mod volume_protection;

use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt, select_all};

use crate::context::Context;

/// Runs all controllers until shutdown.
pub async fn run(context: Arc<Context>, root_ca: String, authority: keelson_pki::Ca) {
    let c = || context.clone();
    let informers = &context.informers;
    let graph = Arc::default();
    let mut all: Vec<BoxFuture<'static, ()>> = vec![
        service_account::run(c()).boxed(),
        root_ca::run(c(), root_ca).boxed(),
        node_ipam::run(c()).boxed(),
        node_lifecycle::run(c()).boxed(),
        taint_eviction::run(c()).boxed(),
        pod_gc::run(c()).boxed(),
        replica_set::run(c(), "replicaset", informers.replica_sets.clone()).boxed(),
        replica_set::run(c(), "replicationcontroller", informers.replication_controllers.clone()).boxed(),
        deployment::run(c()).boxed(),
        endpoints::run(c()).boxed(),
        namespace::run(c()).boxed(),
        quota::run(c(), Arc::clone(&graph)).boxed(),
        garbage::run(c(), graph).boxed(),
        claim_protection::run(c()).boxed(),
        volume_protection::run(c()).boxed(),
        attributes_class_protection::run(c()).boxed(),
        csr::run(c(), authority).boxed(),
        cluster_role::run(c()).boxed(),
        daemon_set::run(c()).boxed(),
        stateful_set::run(c()).boxed(),
        job::run(c()).boxed(),
        cron_job::run(c()).boxed(),
        disruption::run(c()).boxed(),
    ];
    if let Some(migrations) = &informers.migrations {
        all.push(storage_migration::run(c(), migrations.clone()).boxed());
    }
    // They end at shutdown only.
    select_all(all).await;
}
