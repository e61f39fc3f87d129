//! Code generation and repository checks.
