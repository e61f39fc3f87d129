//! For tests: one transient control plane, or etcd, per test; waiting on a state with a deadline.

mod control_plane;
mod etcd;
mod wait;

pub use control_plane::{Builder, ControlPlane};
pub use etcd::EtcdServer;
pub use wait::eventually;
