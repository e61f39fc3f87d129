//! The documents by which anybody verifies the cluster's tokens (OpenID Connect Discovery 1.0).

use bytes::Bytes;
use serde_json::json;

use super::Tokens;

pub const CONFIGURATION_PATH: &str = "/.well-known/openid-configuration";
pub const JWKS_PATH: &str = "/openid/v1/jwks";

/// Content type and body of a discovery document; `address` is the server's `host:port`.
pub fn document(tokens: &Tokens, address: &str, path: &str) -> Option<(&'static str, Bytes)> {
    let (content_type, document) = match path {
        CONFIGURATION_PATH => (
            "application/json",
            json!({
                "issuer": tokens.issuer(),
                "jwks_uri": format!("https://{address}{JWKS_PATH}"),
                "response_types_supported": ["id_token"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": tokens.keys().algorithms(),
            }),
        ),
        JWKS_PATH => ("application/jwk-set+json", tokens.keys().jwks()),
        _ => return None,
    };
    Some((content_type, document.to_string().into()))
}
