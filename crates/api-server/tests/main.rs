//! The server over real TLS: one behaviour per test.

mod apply;
mod crds;
mod decoding;
mod discovery;
mod lists;
mod objects;
mod patches;
mod protobuf;
mod refusals;
mod security;
mod security_endpoints;
mod support;
mod watches;
