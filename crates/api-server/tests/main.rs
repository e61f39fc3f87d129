//! The server over real TLS: one behaviour per test.

mod aggregation;
mod apply;
mod audit;
mod authentication;
mod authorization;
mod cluster;
mod crds;
mod decoding;
mod discovery;
mod encryption;
mod endings;
#[allow(dead_code)]
#[path = "../../store/tests/support/etcd.rs"]
mod etcd;
mod fairness;
mod lists;
mod objects;
mod observe;
mod patches;
mod policies;
mod protobuf;
mod proxies;
mod refusals;
mod rules;
mod security;
mod security_endpoints;
mod shutdown;
mod streams;
mod support;
mod watches;
mod webhooks;

/// Longer than an etcd takes to start on a loaded machine.
const DEADLINE: std::time::Duration = support::WAIT;
