//! One schema model for built-in kinds and CRDs alike: fields, types, list kinds and merge keys, defaults,
//! protobuf numbers.
//!
//! Built-in types come from `data/types.tsv` and are built on first use; a CRD's schema becomes a [`Type`]
//! of the same model with [`from_json_schema`]. Everything above works on `&Type` and cannot tell them apart.

mod json_schema;
mod model;
mod pattern;
mod registry;
mod structural;

pub use json_schema::{SchemaError, from_json_schema, from_json_schema_fragment, is_known_format};
pub use model::{Field, Layout, Link, List, ListKind, Map, Object, Patch, Rules, Shape, Slot, Type};
pub use pattern::Pattern;
pub use registry::{Definition, Registry, builtin, full_name};
pub use structural::{unsupported, violations};

/// A built-in type: lives as long as the program.
pub type TypeRef = &'static Type;
