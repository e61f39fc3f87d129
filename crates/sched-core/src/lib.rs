//! Pure scheduling decisions: a snapshot of nodes and their pods in, a placement or the reasons against it out.
//!
//! - [`api`]: the fields of the API's objects that scheduling reads.
//! - [`pod`], [`node`]: the same, digested once (sums, parsed selectors), so that a decision only compares.
//! - [`cache`]: the present state of all nodes, including pods that are assumed to be bound, and cheap snapshots of it.
//! - [`framework`]: what a plugin is; [`plugins`]: upstream's default ones, by upstream's names.
//! - [`schedule`]: one pod against one snapshot by one profile; [`preempt`]: whom to evict so that it fits.
//!
//! *Invariant:* nothing here waits, reads a clock or does I/O; the same input gives the same answer.

pub mod api;
pub mod cache;
pub mod framework;
pub mod node;
pub mod plugins;
pub mod pod;
pub mod preempt;
pub mod resources;
pub mod schedule;

pub use cache::{Cache, Snapshot};
pub use framework::{Plugin, Profile, Rejection};
pub use node::NodeInfo;
pub use pod::PodInfo;
pub use schedule::{FitError, Placement, Scheduler};
