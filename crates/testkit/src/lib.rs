//! For tests: one transient control plane per test, waiting on a state with a deadline.

mod control_plane;
mod wait;

pub use control_plane::{Builder, ControlPlane};
pub use wait::eventually;
