//! Behaviour of the machinery, feature by feature.

mod apply;
mod decode;
mod never_panics;
mod openapi;
mod patch;
mod prune;
mod roundtrip;
mod rules;
mod table;
mod validate;
