//! The node agent: pods through the Container Runtime Interface, probes, volumes, logs, streams, node status.
//!
//! One worker per pod reads what the API wants and what the runtime has, decides (`pods::plan`, pure), acts, and
//! reports (`pods::status`, pure). Nothing is kept on disk that the runtime's labels and annotations do not tell
//! again after a restart.

pub mod api;
pub mod config;
pub mod context;
pub mod fake;
mod gc;
mod logs;
mod node;
pub mod pods;
mod server;
pub mod volumes;

mod agent;

pub use agent::run;
pub use config::Config;
