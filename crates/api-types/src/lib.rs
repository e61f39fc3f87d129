//! What is on the wire: group/version/kind tables, object metadata, quantities, selectors, label and
//! field grammar, `Status` errors. No I/O.

pub mod duration;
pub mod field;
pub mod gofmt;
pub mod gvk;
pub mod meta;
pub mod names;
pub mod quantity;
pub mod resources;
pub mod selector;
pub mod status;

pub use field::{FieldError, FieldErrorKind};
pub use gvk::{GroupKind, GroupResource, Gvk, Gvr};
pub use k8s_openapi;
pub use quantity::Quantity;
pub use selector::{FieldSelector, LabelSelector};
pub use status::{Cause, Reason, Status, StatusError};
