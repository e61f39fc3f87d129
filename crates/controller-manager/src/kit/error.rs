//! Why a reconcile failed.

use keelson_client::rest;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{operation}")]
    Api { operation: String, source: Box<kube::Error> },
    /// Nothing that can be carried out; the object has to change first.
    #[error("{0}")]
    Unusable(String),
    /// What it needs is not there yet.
    #[error("{0}")]
    NotYet(String),
    #[error("{operation}")]
    Pki { operation: String, source: keelson_pki::Error },
}

impl Error {
    /// The HTTP code of the API server's answer.
    pub fn code(&self) -> Option<u16> {
        match self {
            Error::Api { source, .. } => rest::code(source),
            _ => None,
        }
    }

    pub fn is_not_found(&self) -> bool {
        self.code() == Some(404)
    }

    /// Whether another was faster, or the object has changed.
    pub fn is_conflict(&self) -> bool {
        self.code() == Some(409)
    }

    /// What the API server said, for events and conditions.
    pub fn answer(&self) -> String {
        match self {
            Error::Api { source, .. } => match &**source {
                kube::Error::Api(status) => status.message.clone(),
                other => other.to_string(),
            },
            other => other.to_string(),
        }
    }

    /// Whether the object could not be made because its namespace goes away: nothing to report.
    pub fn is_namespace_terminating(&self) -> bool {
        let Error::Api { source, .. } = self else { return false };
        let kube::Error::Api(status) = &**source else { return false };
        let causes = status.details.as_ref().map(|d| d.causes.as_slice()).unwrap_or_default();
        causes.iter().any(|c| c.reason == "NamespaceTerminating")
            || (status.code == 403 && status.message.contains("because it is being terminated"))
    }
}

/// Says what a request was for.
pub trait During<T> {
    fn during(self, operation: impl FnOnce() -> String) -> Result<T, Error>;
}

impl<T> During<T> for Result<T, kube::Error> {
    fn during(self, operation: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|source| Error::Api { operation: operation(), source: Box::new(source) })
    }
}

/// Takes "it is gone" as success.
pub fn gone_is_fine<T>(result: Result<T, Error>) -> Result<Option<T>, Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}
