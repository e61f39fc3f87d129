//! `kube` configured for the daemons: shared informers that hold projections, work queues, backoff,
//! leader election, events.
//!
//! A daemon makes one [`kube::Client`] with [`connect`], one [`Informer`] per resource that it reads, and
//! runs its reconcilers with [`controller::run`] over [`WorkQueue`]s that the informers' changes fill.

mod backoff;
mod connect;
pub mod controller;
mod events;
mod index;
mod informer;
mod leader;
mod projection;
mod queue;
pub mod rest;
mod retry;
mod watch;

pub use backoff::Backoff;
pub use connect::{Error, Options, connect, connect_config, connect_with};
pub use events::{EventRecorder, EventType, ObjectRef, object_ref};
pub use informer::{Builder, Change, Informer};
pub use leader::{Leader, LeaderElector, Outcome};
pub use projection::{Key, Meta, Projected, ScopeKind, Whole};
pub use queue::WorkQueue;

pub use k8s_openapi;
pub use kube;
pub use tokio_util::sync::CancellationToken;
