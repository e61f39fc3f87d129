//! Calls out of the server to webhooks: of admission, of the conversion of custom resources.

mod client;
mod pool;

pub use client::{CallError, post};
