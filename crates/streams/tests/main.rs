//! Servers and clients of this crate against one another, over real sockets.

mod forward;
mod remote;
