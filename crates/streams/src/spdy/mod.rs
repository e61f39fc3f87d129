//! SPDY/3.1 as Kubernetes' streams use it: framing, compressed headers, multiplexed streams. Flow-control
//! windows are neither sent nor obeyed, as in every other implementation of these streams.

mod connection;
mod dictionary;
mod frame;

pub use connection::{Connection, Incoming, Role, Stream};
pub use frame::{Decoder, Encoder, Frame, Headers};
