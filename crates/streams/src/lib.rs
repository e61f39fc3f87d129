//! Wire formats of the exec, attach and port-forward streams: WebSocket channels v1 to v5 and SPDY/3.1, server
//! and client.
//!
//! A server calls [`remote::accept`] or [`forward::accept`] on a request that asks for an upgrade, answers with
//! the response that it gets, and then drives the session. [`client`] opens the same kinds of streams on a
//! container runtime's streaming server; [`output`] sends one stream to a WebSocket client. How bytes travel is
//! decided by what the caller offered and is not visible to whoever holds a session.

pub mod client;
mod error;
pub mod forward;
mod negotiate;
pub mod output;
pub mod remote;
pub mod spdy;
mod websocket;

pub use error::{Error, Refused, Result};

use tokio::io::{AsyncRead, AsyncWrite};

/// Reader and writer ends as sessions hand them out.
pub type BoxRead = Box<dyn AsyncRead + Send + Unpin>;
pub type BoxWrite = Box<dyn AsyncWrite + Send + Unpin>;

/// What is buffered per stream and direction before the sender has to wait.
pub(crate) const BUFFER: usize = 64 << 10;

/// Both directions of an upgraded connection.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}
