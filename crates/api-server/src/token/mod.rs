//! Service account tokens: TokenRequest and the OIDC discovery documents.
