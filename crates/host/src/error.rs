//! The error of every kernel operation: which operation, on what, and the kernel's answer.

use std::io;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failed kernel operation. The source is printed by whoever prints the chain, never here.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {subject}")]
pub struct Error {
    pub operation: &'static str,
    pub subject: String,
    #[source]
    pub source: io::Error,
}

impl Error {
    pub fn new(operation: &'static str, subject: impl ToString, source: impl Into<io::Error>) -> Self {
        Self { operation, subject: subject.to_string(), source: source.into() }
    }

    /// The kernel said that the thing does not exist.
    pub fn is_not_found(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }
}

/// Names operation and subject of an `io::Result` or a `nix::Result`.
pub trait Context<T> {
    fn context(self, operation: &'static str, subject: impl ToString) -> Result<T>;
}

impl<T, E: Into<io::Error>> Context<T> for std::result::Result<T, E> {
    fn context(self, operation: &'static str, subject: impl ToString) -> Result<T> {
        self.map_err(|e| Error::new(operation, subject, e))
    }
}
