//! `Status`: how the API says no. Constructors give upstream's reason, code, message and details.

use crate::field::{FieldError, aggregate};
use crate::gofmt::quote;
use crate::gvk::{GroupKind, GroupResource};
use serde::{Deserialize, Serialize};
use std::fmt;

/// A `v1 Status`. Fields are in upstream's order on the wire.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    #[serde(default = "kind")]
    pub kind: String,
    #[serde(default = "v1")]
    pub api_version: String,
    #[serde(default)]
    pub metadata: ListMeta,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub status: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    #[serde(default, skip_serializing_if = "Reason::is_unknown")]
    pub reason: Reason,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Details>,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub code: u16,
}

/// The (mostly empty) metadata of a Status or a list.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListMeta {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub resource_version: String,
    #[serde(rename = "continue", default, skip_serializing_if = "String::is_empty")]
    pub continue_token: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remaining_item_count: Option<i64>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Details {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub kind: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Cause>,
    #[serde(default, skip_serializing_if = "is_zero32")]
    pub retry_after_seconds: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cause {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub field: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    Unauthorized,
    Forbidden,
    NotFound,
    AlreadyExists,
    Conflict,
    Gone,
    Invalid,
    ServerTimeout,
    StorageReadError,
    Timeout,
    TooManyRequests,
    BadRequest,
    MethodNotAllowed,
    NotAcceptable,
    RequestEntityTooLarge,
    UnsupportedMediaType,
    InternalError,
    Expired,
    ServiceUnavailable,
    #[default]
    #[serde(other, rename = "")]
    Unknown,
}

/// A failed request's Status as an error. Small, so that `Result`s stay small.
#[derive(Clone, Debug, PartialEq)]
pub struct StatusError(Box<Status>);

impl Reason {
    fn is_unknown(&self) -> bool {
        *self == Reason::Unknown
    }
}

impl Status {
    /// A Success without details, as delete returns it.
    pub fn success() -> Status {
        Status {
            kind: kind(),
            api_version: v1(),
            metadata: ListMeta::default(),
            status: "Success".to_owned(),
            message: String::new(),
            reason: Reason::Unknown,
            details: None,
            code: 0,
        }
    }

    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}

impl StatusError {
    pub fn new(code: u16, reason: Reason, message: impl Into<String>) -> StatusError {
        StatusError(Box::new(Status {
            status: "Failure".to_owned(),
            message: message.into(),
            reason,
            code,
            ..Status::success()
        }))
    }

    pub fn with_details(mut self, details: Details) -> StatusError {
        self.0.details = Some(details);
        self
    }

    pub fn status(&self) -> &Status {
        &self.0
    }

    pub fn into_status(self) -> Status {
        *self.0
    }

    pub fn code(&self) -> u16 {
        self.0.code
    }

    pub fn reason(&self) -> Reason {
        self.0.reason
    }

    pub fn message(&self) -> &str {
        &self.0.message
    }

    pub fn to_json(&self) -> Vec<u8> {
        self.0.to_json()
    }

    pub fn not_found(gr: &GroupResource, name: &str) -> StatusError {
        StatusError::new(404, Reason::NotFound, format!("{gr} {} not found", quote(name)))
            .with_details(of_resource(gr, name))
    }

    /// For a path that no resource answers.
    pub fn not_found_path() -> StatusError {
        StatusError::new(404, Reason::NotFound, "the server could not find the requested resource")
            .with_details(Details::default())
    }

    pub fn already_exists(gr: &GroupResource, name: &str) -> StatusError {
        StatusError::new(409, Reason::AlreadyExists, format!("{gr} {} already exists", quote(name)))
            .with_details(of_resource(gr, name))
    }

    pub fn generate_name_conflict(gr: &GroupResource, name: &str, retry_after: u32) -> StatusError {
        let message = format!(
            "{gr} {} already exists, the server was not able to generate a unique name for the object",
            quote(name)
        );
        StatusError::new(409, Reason::AlreadyExists, message)
            .with_details(Details { retry_after_seconds: retry_after, ..of_resource(gr, name) })
    }

    pub fn conflict(gr: &GroupResource, name: &str, cause: impl fmt::Display) -> StatusError {
        let message = format!("Operation cannot be fulfilled on {gr} {}: {cause}", quote(name));
        StatusError::new(409, Reason::Conflict, message).with_details(of_resource(gr, name))
    }

    /// A stale resourceVersion, in the store's words.
    pub fn stale(gr: &GroupResource, name: &str) -> StatusError {
        StatusError::conflict(
            gr,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// Server-side apply's conflicts.
    pub fn apply_conflict(causes: Vec<Cause>, message: impl Into<String>) -> StatusError {
        StatusError::new(409, Reason::Conflict, message)
            .with_details(Details { causes, ..Details::default() })
    }

    pub fn invalid(gk: &GroupKind, name: &str, errors: Vec<FieldError>) -> StatusError {
        let message = if errors.is_empty() {
            format!("{gk} {} is invalid", quote(name))
        } else {
            format!("{gk} {} is invalid: {}", quote(name), aggregate(&errors))
        };
        let causes = errors
            .into_iter()
            .map(|e| Cause { reason: e.kind.reason().to_owned(), message: e.body(), field: e.path })
            .collect();
        StatusError::new(422, Reason::Invalid, message).with_details(Details {
            group: gk.group.clone(),
            kind: gk.kind.clone(),
            name: name.to_owned(),
            causes,
            ..Details::default()
        })
    }

    pub fn forbidden(gr: &GroupResource, name: &str, cause: impl fmt::Display) -> StatusError {
        let message = if gr.is_empty() {
            format!("forbidden: {cause}")
        } else if name.is_empty() {
            format!("{gr} is forbidden: {cause}")
        } else {
            format!("{gr} {} is forbidden: {cause}", quote(name))
        };
        StatusError::new(403, Reason::Forbidden, message).with_details(of_resource(gr, name))
    }

    pub fn bad_request(message: impl Into<String>) -> StatusError {
        StatusError::new(400, Reason::BadRequest, message)
    }

    /// An empty reason gives upstream's default text.
    pub fn unauthorized(reason: &str) -> StatusError {
        let message = if reason.is_empty() { "not authorized" } else { reason };
        StatusError::new(401, Reason::Unauthorized, message)
    }

    pub fn method_not_supported(gr: &GroupResource, action: &str) -> StatusError {
        let message = format!("{action} is not supported on resources of kind {}", quote(&gr.to_string()));
        StatusError::new(405, Reason::MethodNotAllowed, message).with_details(of_resource(gr, ""))
    }

    /// A resourceVersion or continue token that history no longer holds.
    pub fn expired(message: impl Into<String>) -> StatusError {
        StatusError::new(410, Reason::Expired, message)
    }

    pub fn gone(message: impl Into<String>) -> StatusError {
        StatusError::new(410, Reason::Gone, message)
    }

    pub fn too_many_requests(message: impl Into<String>, retry_after: u32) -> StatusError {
        StatusError::new(429, Reason::TooManyRequests, message)
            .with_details(Details { retry_after_seconds: retry_after, ..Details::default() })
    }

    pub fn timeout(message: impl fmt::Display, retry_after: u32) -> StatusError {
        StatusError::new(504, Reason::Timeout, format!("Timeout: {message}"))
            .with_details(Details { retry_after_seconds: retry_after, ..Details::default() })
    }

    pub fn server_timeout(gr: &GroupResource, operation: &str, retry_after: u32) -> StatusError {
        let message = format!(
            "The {operation} operation against {gr} could not be completed at this time, please try again."
        );
        StatusError::new(500, Reason::ServerTimeout, message)
            .with_details(Details { retry_after_seconds: retry_after, ..of_resource(gr, operation) })
    }

    pub fn internal(cause: impl fmt::Display) -> StatusError {
        let message = cause.to_string();
        StatusError::new(500, Reason::InternalError, format!("Internal error occurred: {message}"))
            .with_details(Details {
                causes: vec![Cause { message, ..Cause::default() }],
                ..Details::default()
            })
    }

    pub fn service_unavailable(message: impl Into<String>) -> StatusError {
        StatusError::new(503, Reason::ServiceUnavailable, message)
    }

    /// `accepted` are the media types that would have been fine.
    pub fn not_acceptable(accepted: &[&str]) -> StatusError {
        let message = format!("only the following media types are accepted: {}", accepted.join(", "));
        StatusError::new(406, Reason::NotAcceptable, message)
    }

    pub fn unsupported_media_type(accepted: &[&str]) -> StatusError {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {}",
            accepted.join(", ")
        );
        StatusError::new(415, Reason::UnsupportedMediaType, message)
    }

    pub fn request_too_large(message: impl fmt::Display) -> StatusError {
        StatusError::new(413, Reason::RequestEntityTooLarge, format!("Request entity too large: {message}"))
    }
}

impl std::ops::Deref for StatusError {
    type Target = Status;
    fn deref(&self) -> &Status {
        &self.0
    }
}

impl From<Status> for StatusError {
    fn from(status: Status) -> StatusError {
        StatusError(Box::new(status))
    }
}

impl fmt::Display for StatusError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for StatusError {}

fn of_resource(gr: &GroupResource, name: &str) -> Details {
    Details {
        group: gr.group.clone(),
        kind: gr.resource.clone(),
        name: name.to_owned(),
        ..Details::default()
    }
}

fn kind() -> String {
    "Status".to_owned()
}

fn v1() -> String {
    "v1".to_owned()
}

fn is_zero(n: &u16) -> bool {
    *n == 0
}

fn is_zero32(n: &u32) -> bool {
    *n == 0
}
