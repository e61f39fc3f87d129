//! The API server: TLS, authentication, authorization, admission, the generic path per verb, watch cache.
//!
//! A request's way: [`server`] accepts it, [`request`] says what it asks for, [`authn`] who asks and
//! [`authz`] whether they may, [`verbs`] and [`subresources`] do it with the help of [`strategies`] and
//! [`admission`], and [`response`] alone turns the outcome, errors included, into HTTP.

pub mod aggregation;
pub mod app;
pub mod audit;
pub mod backend;
pub mod body;
pub mod cache;
pub mod codec;
mod components;
pub mod config;
pub mod convert;
pub mod crd;
pub mod custom;
pub mod discovery;
pub mod encrypt;
pub mod endpoints;
pub mod errors;
pub mod event_leases;
pub mod fairness;
pub mod identity;
pub mod meta;
pub mod metrics;
pub mod negotiate;
pub mod objects;
pub mod openapi;
pub mod options;
pub mod patches;
pub mod presenter;
pub mod printer;
mod profiling;
pub mod registry;
pub mod remote;
pub mod request;
pub mod response;
pub mod run;
mod runtime_config;
pub mod server;
mod slices;
pub mod spans;
pub mod structured;
pub mod subresources;
mod ttl;
pub mod types;
pub mod verbs;
mod view;
mod weak;
pub mod zpages;

pub mod admission;
pub mod alloc;
pub mod authn;
pub mod authz;
pub mod bootstrap;
pub mod reviews;
pub mod security;
pub mod strategies;
pub mod token;
pub mod webhook;
