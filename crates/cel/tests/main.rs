//! The crate's behaviour: expectations are facts of the CEL specification and of upstream's API server.

mod check;
mod cost;
mod functions;
mod language;
mod robust;
mod schema;
mod support;
