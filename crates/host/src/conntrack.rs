//! Connection tracking: removal of entries whose backend is gone.

use std::io;
use std::net::Ipv4Addr;
use std::process::Command;

use crate::error::{Context, Error, Result};

/// UDP flows to forget: those that clients sent to this address (None: any) and port, as far as they lead to the
/// backend (None: whatever they lead to).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flows {
    pub address: Option<Ipv4Addr>,
    pub port: u16,
    pub backend: Option<Ipv4Addr>,
}

pub trait Conntrack: Send + Sync + 'static {
    fn forget_udp(&self, flows: &Flows) -> Result<()>;
}

/// The kernel's table, through the `conntrack` program.
#[derive(Debug, Default, Clone)]
pub struct Kernel;

impl Conntrack for Kernel {
    fn forget_udp(&self, flows: &Flows) -> Result<()> {
        let mut command = Command::new("conntrack");
        command.args(["-D", "-f", "ipv4", "-p", "udp", "--orig-port-dst", &flows.port.to_string()]);
        if let Some(address) = flows.address {
            command.args(["--orig-dst", &address.to_string()]);
        }
        if let Some(backend) = flows.backend {
            command.args(["--reply-src", &backend.to_string()]);
        }
        let output = command.output().context("run", "conntrack (Debian package conntrack)")?;
        let message = String::from_utf8_lossy(&output.stderr);
        // It calls "nothing matched" a failure.
        if output.status.success() || message.contains("0 flow entries") {
            return Ok(());
        }
        Err(Error::new("forget flows with", "conntrack", io::Error::other(message.trim().to_owned())))
    }
}
