//! Everything that touches the kernel: nft, netlink, cgroups v1 and v2, mounts, conntrack, inotify; and the allocator.
//!
//! Each area is a small trait with a real backend and a strict fake, so that what decides can be tested
//! without root. This is the only crate in which `unsafe` may stand.

pub mod allocator;
pub mod cgroup;
pub mod conntrack;
pub mod error;
pub mod folder;
pub mod heap;
pub mod mount;
pub mod nft;
pub mod process;
pub mod system;
pub mod threads;

pub use error::{Error, Result};
