//! What expressions ask an authorizer, which the caller brings.

use crate::value::{Opaque, Value};
use std::sync::Arc;

/// Decides what expressions ask through `authorizer`.
pub trait Authorizer: Sync {
    fn authorize(&self, check: &Check) -> Decision;
}

/// Whose access is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Subject {
    /// The user of the request.
    #[default]
    Requester,
    ServiceAccount {
        namespace: Arc<str>,
        name: Arc<str>,
    },
}

/// One question: of a path where there is one, else of a resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Check {
    pub subject: Subject,
    pub verb: String,
    pub path: Option<String>,
    pub group: String,
    pub resource: String,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
    /// As written; empty where none was given.
    pub field_selector: String,
    pub label_selector: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    pub allowed: bool,
    pub reason: String,
    pub error: Option<String>,
}

impl<'a> Value<'a> {
    /// The variable `authorizer`.
    pub fn authorizer(authorizer: &'a dyn Authorizer) -> Value<'a> {
        Value::Opaque(Opaque::Authorizer(authorizer, Subject::Requester))
    }

    /// The variable `authorizer.requestResource`: a check of the request's own resource, its verb still open.
    pub fn resource_check(authorizer: &'a dyn Authorizer, check: Check) -> Value<'a> {
        Value::Opaque(Opaque::ResourceCheck(authorizer, Arc::new(check)))
    }
}
