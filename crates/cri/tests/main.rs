//! Against a real containerd.

mod containerd;
mod image;
