//! Pods on a real containerd, with the API server in memory.

mod pods;
mod world;
