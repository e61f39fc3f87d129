//! Pods against the fake runtime, and a real containerd.
