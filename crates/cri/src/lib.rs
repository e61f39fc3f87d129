//! The container runtime: a client for the Container Runtime Interface over its unix socket, containerd's own
//! services where the interface falls short (events, image import), images built from a directory, and a fake
//! runtime.
//!
//! [`Runtime`] is what the node agent drives; [`Client`] speaks to a real runtime, [`fake::Fake`] to tests.

pub mod client;
pub mod cni;
pub mod containerd;
pub mod error;
pub mod events;
pub mod fake;
pub mod image;
pub mod runtime;
pub mod scratch;

/// Messages and clients of `runtime.v1`.
#[allow(clippy::all, clippy::pedantic)]
pub mod v1 {
    tonic::include_proto!("runtime.v1");
}

pub use client::Client;
pub use error::{Error, Result};
pub use events::{Event, EventKind};
pub use runtime::Runtime;
