//! Pods: one worker each, which decides, acts and reports.

pub mod admission;
pub mod container;
pub mod dns;
pub mod env;
pub mod hooks;
pub mod images;
pub mod labels;
pub mod manager;
pub mod observe;
pub mod plan;
pub mod probe;
pub mod report;
pub mod resize;
pub mod resources;
pub mod sandbox;
pub mod spec;
pub mod start;
pub mod status;
pub mod terminate;
pub mod worker;

pub use manager::Manager;
