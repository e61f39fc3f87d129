//! Pure planning of the Service network: Services and their endpoints in, nftables transactions out.
//!
//! - [`service`]: what is known about Services and endpoints, and which endpoints get traffic.
//! - [`rules`]: the chains and elements that one Service contributes.
//! - [`planner`]: all contributions together, and the smallest transaction from one state to the next.
//!
//! One table holds everything. A packet to a Service takes one lookup in a verdict map, whatever the number of
//! Services, and one chain that picks a backend; conntrack remembers it. A changed Service touches its own chains and
//! elements only, so that a change costs the same among ten Services and among ten thousand.

pub mod planner;
pub mod rules;
pub mod service;

pub use planner::{Options, Planner};
pub use service::{Endpoint, Protocol, Service, ServiceName, ServicePort};
