//! Checks on the repository itself that no compiler makes.

pub mod layers;
