//! Cluster addresses and node ports of Services: who has which.
//!
//! The state is what the stored Services say; it is read once at start ([`Allocators::load`]) and kept in
//! memory. One lock guards each pool, so two concurrent creates never get the same number. What a
//! write takes is given back when the write fails, and what it frees is free once the write is durable.

pub mod pool;
mod services;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use parking_lot::Mutex;
use serde_json::Value;

use crate::config::PortRange;
use crate::strategies::Reservation;
use crate::strategies::check::At;
use crate::strategies::common::parse_ip;
use pool::{AddressPool, PortPool};

pub use services::{create, update};

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AllocError {
    #[error("range is full")]
    Full,
    #[error("provided IP is already allocated")]
    AddressTaken,
    #[error("the provided network does not match the current range")]
    OtherNetwork,
    #[error("the provided IP ({ip}) is not in the valid range. The range of valid IPs is {range}")]
    AddressOutOfRange { ip: IpAddr, range: IpNet },
    #[error("provided port is already allocated")]
    PortTaken,
    #[error("provided port is not in the valid range. The range of valid ports is {first}-{last}")]
    PortOutOfRange { first: u16, last: u16 },
}

/// The pools of one server; clones share them.
#[derive(Clone)]
pub struct Allocators {
    inner: Arc<Inner>,
}

struct Inner {
    /// One per address family, the default family first.
    addresses: Vec<Mutex<AddressPool>>,
    ports: Mutex<PortPool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub fn of(ip: IpAddr) -> Self {
        if ip.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "IPv4" => Some(Self::V4),
            "IPv6" => Some(Self::V6),
            _ => None,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    pub fn other(self) -> Self {
        match self {
            Self::V4 => Self::V6,
            Self::V6 => Self::V4,
        }
    }
}

impl Allocators {
    /// Empty pools; the first range's family is the default one.
    pub fn new(ranges: &[IpNet], ports: PortRange) -> Self {
        let addresses = ranges.iter().map(|range| Mutex::new(AddressPool::new(*range))).collect();
        let ports = Mutex::new(PortPool::new(ports.first, ports.last));
        Self { inner: Arc::new(Inner { addresses, ports }) }
    }

    /// Makes the pools what the stored Services say.
    pub fn load<'a>(&self, services: impl IntoIterator<Item = &'a Value>) {
        let (mut ips, mut ports) = (BTreeSet::new(), BTreeSet::new());
        for service in services {
            let held = Held::of(service);
            ips.extend(held.addresses);
            ports.extend(held.ports);
        }
        for pool in &self.inner.addresses {
            pool.lock().replace(&ips);
        }
        self.inner.ports.lock().replace(&ports);
    }

    /// Gives back what a deleted Service held.
    pub fn release(&self, service: &Value) {
        self.give_back(&Held::of(service));
    }

    pub fn families(&self) -> impl Iterator<Item = Family> + '_ {
        self.inner.addresses.iter().map(|pool| pool.lock().family())
    }

    pub fn default_family(&self) -> Family {
        self.families().next().unwrap_or(Family::V4)
    }

    fn give_back(&self, held: &Held) {
        for ip in &held.addresses {
            for pool in &self.inner.addresses {
                pool.lock().release(*ip);
            }
        }
        let mut pool = self.inner.ports.lock();
        held.ports.iter().for_each(|port| pool.release(*port));
    }
}

/// Numbers that a Service has.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Held {
    addresses: BTreeSet<IpAddr>,
    ports: BTreeSet<u16>,
}

impl Held {
    fn of(service: &Value) -> Self {
        let spec = At::root(service).f("spec");
        let mut held = Self::default();
        if spec.f("type").s() != "ExternalName" {
            let all = spec.f("clusterIPs").strings();
            let one = spec.f("clusterIP").s();
            held.addresses = all.into_iter().chain([one]).filter_map(parse_ip).collect();
        }
        let ports = spec.f("ports").each().map(|port| port.f("nodePort").i());
        let health = spec.f("healthCheckNodePort").i();
        held.ports =
            ports.chain([health]).filter_map(|p| u16::try_from(p).ok()).filter(|p| *p != 0).collect();
        held
    }
}

/// What one write takes and frees. Dropped before [`Reservation::commit`], everything is as before.
struct Transaction {
    allocators: Allocators,
    taken: Held,
    freed: Held,
    dry_run: bool,
}

impl Transaction {
    fn new(allocators: &Allocators, dry_run: bool) -> Self {
        Self { allocators: allocators.clone(), taken: Held::default(), freed: Held::default(), dry_run }
    }

    fn take_address(&mut self, family: Family, wanted: Option<IpAddr>) -> Result<IpAddr, AllocError> {
        let inner = self.allocators.inner.clone();
        let pool = inner.addresses.iter().find(|pool| pool.lock().family() == family);
        let mut pool = pool.ok_or(AllocError::Full)?.lock();
        let ip = match wanted {
            Some(ip) => pool.take(ip).map(|()| ip)?,
            None => pool.take_next().ok_or(AllocError::Full)?,
        };
        self.taken.addresses.insert(ip);
        Ok(ip)
    }

    fn take_port(&mut self, wanted: Option<u16>) -> Result<u16, AllocError> {
        let mut pool = self.allocators.inner.ports.lock();
        let port = match wanted {
            Some(port) => pool.take(port).map(|()| port)?,
            None => pool.take_next().ok_or(AllocError::Full)?,
        };
        self.taken.ports.insert(port);
        Ok(port)
    }
}

impl Reservation for Transaction {
    fn commit(mut self: Box<Self>) {
        if !self.dry_run {
            self.taken = Held::default();
            let freed = std::mem::take(&mut self.freed);
            self.allocators.give_back(&freed);
        }
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        self.allocators.give_back(&self.taken);
    }
}

#[cfg(test)]
mod tests;
