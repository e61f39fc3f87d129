//! Requests to node agents and pods on behalf of clients.

/// Connects to node agents as the API server.
#[derive(Default)]
pub struct NodeClient {}
