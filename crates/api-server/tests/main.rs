//! The server over real TLS: one behaviour per test.

mod crds;
mod discovery;
mod objects;
mod lists;
mod patches;
mod refusals;
mod support;
mod watches;
