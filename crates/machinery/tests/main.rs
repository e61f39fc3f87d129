//! Behaviour of the machinery, feature by feature.

mod decode;
mod prune;
mod roundtrip;
mod validate;
