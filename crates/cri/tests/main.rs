//! Against a real containerd.
