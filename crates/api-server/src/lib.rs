//! The API server: TLS, authentication, authorization, admission, the generic path per verb, watch cache.
//!
//! A request's way: [`server`] accepts it, `request` says what it asks for, [`authn`] who asks and
//! [`authz`] whether they may, `verbs` and `subresources` do it with the help of [`strategies`] and
//! [`admission`], and `response` alone turns the outcome, errors included, into HTTP.

// pub mod cache;
pub mod config;
pub mod request;
pub mod server;
pub mod types;

pub mod admission;
pub mod alloc;
pub mod authn;
pub mod authz;
pub mod bootstrap;
pub mod reviews;
pub mod strategies;
pub mod token;
