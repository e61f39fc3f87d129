//! What can go wrong on a stream, and why a request to stream is refused.

use std::io;

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{operation} {subject}")]
    Io {
        operation: &'static str,
        subject: String,
        #[source]
        source: io::Error,
    },
    #[error("{operation} {subject}")]
    Http {
        operation: &'static str,
        subject: String,
        #[source]
        source: hyper::Error,
    },
    #[error("{operation}")]
    WebSocket {
        operation: &'static str,
        #[source]
        source: Box<tokio_tungstenite::tungstenite::Error>,
    },
    #[error("{subject} refused the upgrade with {status}: {body}")]
    NotUpgraded { subject: String, status: http::StatusCode, body: String },
    #[error("not an address of a streaming server: {0}")]
    Url(String),
    #[error("the other side broke the protocol: {0}")]
    Protocol(&'static str),
    #[error("the client opened {got} of {want} streams in time")]
    StreamsMissing { got: usize, want: usize },
}

/// A request that cannot become a session; the caller answers it with this.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refused {
    pub status: http::StatusCode,
    pub message: String,
}

impl Refused {
    pub(crate) fn new(status: http::StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }
}
