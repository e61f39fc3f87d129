//! What the controllers keep of the API's objects.

mod batch;
mod cluster;
mod network;
mod pod;
mod workloads;

pub use batch::*;
pub use cluster::*;
pub use network::*;
pub use pod::*;
pub use workloads::*;
