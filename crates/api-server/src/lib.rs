//! The API server: TLS, authentication, authorization, admission, the generic path per verb, watch cache.
