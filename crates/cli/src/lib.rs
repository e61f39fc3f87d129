//! `ctl`: the command line for the cluster's objects and for the cluster itself.
//!
//! - [`cluster`]: `ctl cluster up|down|status`, and the supervisor behind it.
//! - [`image`]: `ctl image build|import|ls`.
//! - [`cli`]: the command line as a whole.

pub mod cli;
pub mod cluster;
pub mod image;
