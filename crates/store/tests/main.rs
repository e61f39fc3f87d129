//! The store's tests: one contract for all backends, and what is particular to each.

mod contract;
mod crash;
mod disk;
mod reconnect;
mod support;
mod wal;
