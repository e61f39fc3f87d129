//! Pure functions on objects, driven by the schema: prune, strict field checks, patches, server-side apply,
//! codecs, Table printing.
//!
//! Objects are `serde_json::Value`s whose maps are sorted by key. No function here does I/O or reads a clock.

pub mod apply;
pub mod cbor;
pub mod decode;
pub mod diff;
pub mod encode;
pub mod openapi;
pub mod patch;
pub mod path;
pub mod proto;
pub mod prune;
mod rules;
pub mod table;
mod validate;

pub use apply::ApplyError;
pub use decode::DecodeError;
pub use patch::PatchError;
pub use prune::FieldValidation;
pub use rules::{Findings, Rules, check_rules};
pub use validate::{embedded_resources, validate_lists, validate_schema};
