//! TokenReview, SelfSubjectReview and the SubjectAccessReview family: computed, never stored.

mod access;
mod selector;
mod token;

use keelson_api_types::GroupResource;
use keelson_api_types::StatusError;
use serde_json::{Value, json};

use crate::authn::Authenticators;
use crate::types::{Authorizer, ReviewRequest};

/// Answers the create of a review: the object sent with its status filled in.
pub async fn review(
    authenticators: &Authenticators,
    authorizer: &dyn Authorizer,
    request: ReviewRequest<'_>,
) -> Result<Value, StatusError> {
    match (request.gvr.group.as_str(), request.gvr.resource.as_str()) {
        ("authentication.k8s.io", "tokenreviews") => token::review(authenticators, request).await,
        ("authentication.k8s.io", "selfsubjectreviews") => Ok(self_subject(request)),
        ("authorization.k8s.io", _) => access::review(authorizer, request).await,
        (group, resource) => {
            Err(StatusError::method_not_supported(&GroupResource::new(group, resource), "create"))
        }
    }
}

fn self_subject(request: ReviewRequest<'_>) -> Value {
    let mut object = request.object;
    object["metadata"] = json!({"creationTimestamp": keelson_api_types::meta::now_rfc3339()});
    object["status"] = json!({"userInfo": request.user});
    object
}

#[cfg(test)]
mod tests;
