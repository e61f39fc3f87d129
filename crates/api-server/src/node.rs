//! Requests to node agents and pods on behalf of clients.

use std::sync::Arc;

use keelson_daemon::tls::rustls::ClientConfig;
use keelson_daemon::tls::{ClientFiles, Error, client_config};

use crate::config::Config;

/// Connects to node agents as the API server.
pub struct NodeClient {
    tls: Arc<ClientConfig>,
}

impl NodeClient {
    pub fn new(config: &Config) -> Result<Self, Error> {
        let identity = (config.kubelet_client_cert(), config.kubelet_client_key());
        let files = ClientFiles { cas: vec![config.kubelet_ca()], identity: Some(identity) };
        Ok(Self { tls: client_config(&files)? })
    }
}
