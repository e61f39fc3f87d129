//! Tables and properties of the wire's small grammars.

mod names;
mod quantity;
mod selector;
mod status;
