//! TokenReview: whom a token stands for.

use keelson_api_types::StatusError;
use serde_json::{Value, json};

use crate::authn::Authenticators;
use crate::token::TokenError;
use crate::token::request::string_list;
use crate::types::ReviewRequest;

pub async fn review(
    authenticators: &Authenticators,
    request: ReviewRequest<'_>,
) -> Result<Value, StatusError> {
    let mut object = request.object;
    let token = object["spec"]["token"].as_str().unwrap_or_default().to_owned();
    if token.is_empty() {
        return Err(StatusError::bad_request("token is required for TokenReview in authentication"));
    }
    let audiences = string_list(&object["spec"]["audiences"]);
    object["status"] = match authenticators.token(&token, &audiences).await {
        Ok(found) => {
            json!({"authenticated": true, "user": found.user, "audiences": found.audiences})
        }
        Err(TokenError::Foreign) => json!({"user": {}, "error": "invalid bearer token"}),
        Err(TokenError::Refused(why)) => {
            json!({"user": {}, "error": format!("[invalid bearer token, {why}]")})
        }
    };
    Ok(object)
}
