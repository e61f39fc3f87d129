//! The server over real TLS: one behaviour per test.

mod crds;
mod discovery;
mod lists;
mod objects;
mod patches;
mod refusals;
mod support;
mod watches;
