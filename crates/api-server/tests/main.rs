//! The server over real TLS: one behaviour per test.

keelson_daemon::allocator!(fast);

mod admission_metrics;
mod aggregation;
mod apply;
mod audit;
mod authentication;
mod authorization;
mod cbor;
mod cluster;
mod crds;
mod decoding;
mod discovery;
mod encryption;
mod endings;
mod fairness;
mod lists;
mod migrations;
mod objects;
mod observe;
mod patches;
mod plugins;
mod policies;
mod profiling;
mod protobuf;
mod proxies;
mod refusals;
mod rules;
mod security;
mod security_endpoints;
mod shutdown;
mod spans;
mod streams;
mod support;
mod views;
mod watches;
mod webhooks;
