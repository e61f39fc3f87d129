//! The core group's smaller kinds.

pub mod config;
pub mod endpoints;
pub mod event;
pub mod namespace;
pub mod node;
pub mod quota;
