//! For tests: one transient control plane per test, fake nodes, waiting on a state with a deadline.
