//! What can go wrong between the node and its runtime.

use std::io;
use tonic::Code;

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("connect to the container runtime at {socket}")]
    Connect {
        socket: String,
        #[source]
        source: tonic::transport::Error,
    },
    #[error("{call} {subject}")]
    Call {
        call: &'static str,
        subject: String,
        #[source]
        source: Box<tonic::Status>,
    },
    #[error("{operation} {subject}")]
    Io {
        operation: &'static str,
        subject: String,
        #[source]
        source: io::Error,
    },
    #[error("image archive {archive}: {problem}")]
    Archive { archive: String, problem: String },
}

impl Error {
    pub(crate) fn call(call: &'static str, subject: impl ToString) -> impl FnOnce(tonic::Status) -> Self {
        let subject = subject.to_string();
        move |status| Self::Call { call, subject, source: Box::new(status) }
    }

    pub(crate) fn io(operation: &'static str, subject: impl ToString) -> impl FnOnce(io::Error) -> Self {
        let subject = subject.to_string();
        move |source| Self::Io { operation, subject, source }
    }

    fn code(&self) -> Option<Code> {
        match self {
            Self::Call { source, .. } => Some(source.code()),
            _ => None,
        }
    }

    pub fn is_not_found(&self) -> bool {
        self.code() == Some(Code::NotFound)
    }

    pub fn is_deadline(&self) -> bool {
        self.code() == Some(Code::DeadlineExceeded)
    }

    /// The runtime does not offer the call.
    pub fn is_unimplemented(&self) -> bool {
        self.code() == Some(Code::Unimplemented)
    }

    /// The text for events and statuses of pods: gRPC errors in the words that users know.
    pub fn user_message(&self) -> String {
        match self {
            Self::Call { source, .. } => {
                format!("rpc error: code = {:?} desc = {}", source.code(), source.message())
            }
            other => {
                let mut text = other.to_string();
                let mut next = std::error::Error::source(other);
                while let Some(e) = next {
                    text.push_str(&format!(": {e}"));
                    next = e.source();
                }
                text
            }
        }
    }
}
