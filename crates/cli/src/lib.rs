//! `ctl`: the command line for the cluster's objects and for the cluster itself.
//!
//! - [`cluster`]: `ctl cluster up|down|status`, and the supervisor behind it; [`image`]: `ctl image build|import|ls`.
//! - [`cli`]: the command line as a whole; [`commands`]: one module per command on objects.
//! - [`kubeconfig`], [`client`], [`context`]: from flags and files to requests; [`failure`]: what went wrong, in words.
//! - [`mapper`], [`resources`], [`files`]: which objects a command line means.
//! - [`output`], [`describe`], [`tabs`], [`yaml`], [`jsonpath`], [`value`]: pure functions from objects to text.

pub mod cli;
pub mod client;
pub mod cluster;
pub mod commands;
pub mod context;
pub mod describe;
pub mod failure;
pub mod files;
pub mod image;
pub mod io;
pub mod jsonpath;
pub mod kubeconfig;
pub mod mapper;
pub mod output;
pub mod resources;
pub mod tabs;
pub mod value;
pub mod yaml;
