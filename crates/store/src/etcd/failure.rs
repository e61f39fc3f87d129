//! etcd's errors in the store's terms, with what an operator can do.

use tonic::Code;

use crate::error::{BoxError, Error, Unavailable};
use crate::types::Revision;

/// A call that did not succeed.
#[derive(Debug)]
pub(super) enum Failure {
    Etcd(etcd_client::Error),
    Timeout,
}

impl Failure {
    /// Whether the same call may well succeed in a moment.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Etcd(etcd_client::Error::GRpcStatus(status)) => {
                matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled)
            }
            Self::Etcd(etcd_client::Error::TransportError(_)) => true,
            _ => false,
        }
    }

    pub(super) fn is_too_large(&self) -> bool {
        matches!(self, Self::Etcd(etcd_client::Error::GRpcStatus(status))
            if status.message().contains("request is too large")
            || status.message().contains("larger than max"))
    }

    /// `number` is the revision or lease that the call was about.
    pub(super) fn explain(self, operation: &'static str, endpoints: &str, number: Revision) -> Error {
        let status = match &self {
            Self::Etcd(etcd_client::Error::GRpcStatus(status)) => status,
            Self::Etcd(etcd_client::Error::LeaseKeepAliveError(_)) => return Error::LeaseNotFound(number),
            _ => return self.unavailable(operation, endpoints),
        };
        let message = status.message();
        if message.contains("has been compacted") {
            return Error::Compacted { requested: number, compacted: 0 };
        }
        if message.contains("is a future revision") {
            return Error::FutureRevision { requested: number, current: 0 };
        }
        if message.contains("lease not found") {
            return Error::LeaseNotFound(number);
        }
        self.unavailable(operation, endpoints)
    }

    fn unavailable(self, operation: &'static str, endpoints: &str) -> Error {
        let advice = self.advice();
        let source = match self {
            Self::Etcd(error) => Some(error.into()),
            Self::Timeout => None,
        };
        Unavailable { operation, subject: format!("etcd at {endpoints}"), advice, source }.into()
    }

    fn advice(&self) -> String {
        const NO_ANSWER: &str = "it does not answer: check that etcd runs, has a quorum, and that address and certificates are right";
        let text = match self {
            Self::Timeout => NO_ANSWER,
            Self::Etcd(etcd_client::Error::GRpcStatus(status)) => match status.code() {
                Code::ResourceExhausted if status.message().contains("space") => {
                    "its database is full: compact and defragment it or raise its quota, then disarm the alarm"
                }
                Code::ResourceExhausted => "it is overloaded: give it more CPU or a faster disk",
                Code::Unauthenticated | Code::PermissionDenied => {
                    "it refuses this client: check the certificate"
                }
                _ => NO_ANSWER,
            },
            Self::Etcd(etcd_client::Error::InvalidArgs(_) | etcd_client::Error::InvalidUri(_)) => {
                "the address is not one: use https://HOST:PORT"
            }
            Self::Etcd(_) => NO_ANSWER,
        };
        text.to_owned()
    }
}

/// An answer that makes no sense for the call.
pub(super) fn unexpected(operation: &'static str, endpoints: &str, source: BoxError) -> Unavailable {
    Unavailable {
        operation,
        subject: format!("etcd at {endpoints}"),
        advice: "its answer was not expected".to_owned(),
        source: Some(source),
    }
}
