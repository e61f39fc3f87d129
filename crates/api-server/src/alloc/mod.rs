//! Cluster addresses and node ports of Services: who has which.
//!
//! What decides is in the store, where every server of the cluster sees it: an address is taken by creating its
//! IPAddress object, a node port by creating a key ([`claims`]). Memory only proposes: a proposal that somebody else
//! has is noted as taken, and another one made. What a failed write took is given back, what dies with its server is
//! found by [`repair`].

mod cidrs;
mod claims;
pub mod pool;
mod repair;
mod services;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use keelson_api_types::{Gvr, StatusError, meta};
use parking_lot::Mutex;
use serde_json::Value;

use crate::config;
use crate::strategies::check::At;
use crate::strategies::common::parse_ip;
use crate::types::Objects;
use claims::Owner;
pub use claims::{PortClaims, StorePorts};
use pool::{AddressRange, PortRange};
pub use repair::run;

/// Attempts at numbers that others turn out to have.
const ATTEMPTS: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AllocError {
    #[error("range is full")]
    Full,
    #[error("provided IP is already allocated")]
    AddressTaken,
    #[error("the provided network does not match the current range")]
    OtherNetwork,
    #[error("provided port is already allocated")]
    PortTaken,
    #[error("provided port is not in the valid range. The range of valid ports is {first}-{last}")]
    PortOutOfRange { first: u16, last: u16 },
}

/// What one server knows; clones share it.
#[derive(Clone)]
pub struct Allocators {
    inner: Arc<Inner>,
}

struct Inner {
    /// The cluster's families, the default one first.
    families: Vec<Family>,
    /// Used until there is a ServiceCIDR.
    configured: Vec<IpNet>,
    ports: PortRange,
    claims: Arc<dyn PortClaims>,
    known: Mutex<Known>,
}

/// Where numbers come from, and those that are held as far as this server has heard.
#[derive(Default)]
struct Known {
    ranges: Vec<AddressRange>,
    held: Held,
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
    /// Nothing held; the first range's family is the default one.
    pub fn new(configured: &[IpNet], ports: config::PortRange, claims: Arc<dyn PortClaims>) -> Self {
        let ranges = configured.iter().map(|net| AddressRange::new(*net)).collect();
        Self {
            inner: Arc::new(Inner {
                families: configured.iter().map(|net| Family::of(net.network())).collect(),
                configured: configured.to_vec(),
                ports: PortRange::new(ports.first, ports.last),
                claims,
                known: Mutex::new(Known { ranges, held: Held::default() }),
            }),
        }
    }

    pub fn families(&self) -> impl Iterator<Item = Family> + '_ {
        self.inner.families.iter().copied()
    }

    pub fn default_family(&self) -> Family {
        self.families().next().unwrap_or(Family::V4)
    }

    /// Reads the ServiceCIDRs that addresses may be taken from.
    pub fn read_ranges(&self, objects: &dyn Objects) {
        let cidrs = objects.list(&cidr_gvr(), "");
        // The default one first, so that the others serve when it is full.
        let (default, others): (Vec<_>, Vec<_>) =
            cidrs.iter().filter(|c| is_ready(c)).partition(|c| meta::name(c) == DEFAULT_CIDR);
        let mut ranges: Vec<IpNet> = default.iter().chain(&others).flat_map(|c| nets(c)).collect();
        if cidrs.is_empty() {
            ranges.clone_from(&self.inner.configured);
        }
        self.inner.known.lock().ranges = ranges.into_iter().map(AddressRange::new).collect();
    }

    /// Takes what the objects hold for what is held.
    pub fn load(&self, objects: &dyn Objects) {
        self.read_ranges(objects);
        let mut held = Held::default();
        for service in objects.list(&Gvr::new("", "v1", "services"), "") {
            let Held { addresses, ports } = Held::of(&service);
            held.addresses.extend(addresses);
            held.ports.extend(ports);
        }
        let addresses = objects.list(&claims::address_gvr(), "");
        held.addresses.extend(addresses.iter().filter_map(|a| parse_ip(meta::name(a))));
        self.inner.known.lock().held = held;
    }

    fn note(&self, held: &Held) {
        let mut known = self.inner.known.lock();
        known.held.addresses.extend(&held.addresses);
        known.held.ports.extend(&held.ports);
    }

    fn forget(&self, held: &Held) {
        let mut known = self.inner.known.lock();
        for ip in &held.addresses {
            known.held.addresses.remove(ip);
        }
        for port in &held.ports {
            known.held.ports.remove(port);
        }
    }

    /// Gives back what a deleted Service held.
    pub async fn release(&self, objects: &dyn Objects, service: &Value) {
        self.free(objects, &Held::of(service)).await;
    }

    async fn free(&self, objects: &dyn Objects, held: &Held) {
        claims::release(objects, &*self.inner.claims, held).await;
        self.forget(held);
    }
}

/// The ServiceCIDR of the configuration.
pub const DEFAULT_CIDR: &str = "kubernetes";

fn cidr_gvr() -> Gvr {
    Gvr::new("networking.k8s.io", "v1", "servicecidrs")
}

fn nets(cidr: &Value) -> Vec<IpNet> {
    let texts = At::root(cidr).dig(&["spec", "cidrs"]).strings();
    texts.into_iter().filter_map(|text| text.parse().ok()).collect()
}

/// Without the condition it is taken to be ready, so that a cluster without its controller works.
fn is_ready(cidr: &Value) -> bool {
    let conditions = crate::admission::items(&cidr["status"]["conditions"]);
    let ready = conditions.iter().find(|c| c["type"] == "Ready");
    ready.is_none_or(|c| c["status"] == "True") && cidr["metadata"].get("deletionTimestamp").is_none()
}

/// Numbers that a Service has.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Held {
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

/// Allocates for a new Service and writes the result into it.
pub async fn create(
    allocators: &Allocators,
    objects: &dyn Objects,
    service: &mut Value,
    dry_run: bool,
) -> Result<Reservation, StatusError> {
    reserve(allocators, objects, service, dry_run, services::create).await
}

/// Allocates what a changed Service newly needs, and frees what it no longer does.
pub async fn update(
    allocators: &Allocators,
    objects: &dyn Objects,
    service: &mut Value,
    old: &Value,
    dry_run: bool,
) -> Result<Reservation, StatusError> {
    let plan =
        |reservation: &mut Reservation, service: &mut Value| services::update(reservation, service, old);
    reserve(allocators, objects, service, dry_run, plan).await
}

/// Plans in memory, then claims in the store; plans anew without what others turn out to have.
async fn reserve(
    allocators: &Allocators,
    objects: &dyn Objects,
    service: &mut Value,
    dry_run: bool,
    plan: impl Fn(&mut Reservation, &mut Value) -> Result<(), StatusError>,
) -> Result<Reservation, StatusError> {
    let asked = service.clone();
    let mut lost = Held::default();
    let mut read_again = false;
    for _ in 0..ATTEMPTS {
        let mut reservation = Reservation::new(allocators, lost, dry_run);
        let outcome = match plan(&mut reservation, service) {
            // What no range has may be in one that has just come.
            Err(_) if !read_again => {
                read_again = true;
                allocators.read_ranges(objects);
                Ok(false)
            }
            Err(error) => return Err(error),
            Ok(()) => reservation.claim(objects, &Owner::of(service)).await,
        };
        if let Ok(true) = outcome {
            return Ok(reservation);
        }
        lost = reservation.roll_back(objects).await;
        outcome?;
        service.clone_from(&asked);
    }
    Err(StatusError::internal("no free address or node port was found in time"))
}

/// What one write takes and frees. Dropped before [`Reservation::commit`], this server's memory is as before.
pub struct Reservation {
    allocators: Allocators,
    /// Somebody else's, whatever memory says.
    lost: Held,
    taken: Held,
    /// What was not known to be held before.
    marked: Held,
    claimed: Held,
    freed: Held,
    dry_run: bool,
}

impl Reservation {
    fn new(allocators: &Allocators, lost: Held, dry_run: bool) -> Self {
        let none = Held::default;
        let (taken, marked, claimed, freed) = (none(), none(), none(), none());
        Self { allocators: allocators.clone(), lost, taken, marked, claimed, freed, dry_run }
    }

    fn take_address(&mut self, family: Family, wanted: Option<IpAddr>) -> Result<IpAddr, AllocError> {
        let mut known = self.allocators.inner.known.lock();
        let Known { ranges, held } = &mut *known;
        let ip = match wanted {
            Some(ip) if !ranges.iter().any(|r| r.contains(ip)) => return Err(AllocError::OtherNetwork),
            // A claim tells for sure; where none is made, memory has to do.
            Some(ip) if self.lost.addresses.contains(&ip) || self.dry_run && held.addresses.contains(&ip) => {
                return Err(AllocError::AddressTaken);
            }
            Some(ip) => ip,
            None => {
                let mut ours = ranges.iter().filter(|r| r.family() == family);
                ours.find_map(|r| r.pick(&held.addresses)).ok_or(AllocError::Full)?
            }
        };
        self.taken.addresses.insert(ip);
        if held.addresses.insert(ip) {
            self.marked.addresses.insert(ip);
        }
        Ok(ip)
    }

    fn take_port(&mut self, wanted: Option<u16>) -> Result<u16, AllocError> {
        let inner = &self.allocators.inner;
        let held = &mut inner.known.lock().held.ports;
        let port = match wanted {
            Some(port) => {
                inner.ports.check(port)?;
                if self.lost.ports.contains(&port) || self.dry_run && held.contains(&port) {
                    return Err(AllocError::PortTaken);
                }
                port
            }
            None => inner.ports.pick(held).ok_or(AllocError::Full)?,
        };
        self.taken.ports.insert(port);
        if held.insert(port) {
            self.marked.ports.insert(port);
        }
        Ok(port)
    }

    /// Makes what was taken its own in the store; `false` if somebody else has a part of it.
    async fn claim(&mut self, objects: &dyn Objects, owner: &Owner) -> Result<bool, StatusError> {
        if self.dry_run {
            return Ok(true);
        }
        for ip in &self.taken.addresses {
            if !claims::address(objects, *ip, owner).await? {
                self.lost.addresses.insert(*ip);
                self.marked.addresses.remove(ip);
                return Ok(false);
            }
            self.claimed.addresses.insert(*ip);
        }
        for port in &self.taken.ports {
            if !self.allocators.inner.claims.claim(*port, owner).await? {
                self.lost.ports.insert(*port);
                self.marked.ports.remove(port);
                return Ok(false);
            }
            self.claimed.ports.insert(*port);
        }
        Ok(true)
    }

    /// The write is durable: what it took stays taken, what it freed is free.
    pub async fn commit(mut self, objects: &dyn Objects) {
        self.marked = Held::default();
        if !self.dry_run {
            self.allocators.free(objects, &self.freed).await;
        }
    }

    /// The write was not made: what it claimed is given back. Returns what others have.
    pub async fn roll_back(mut self, objects: &dyn Objects) -> Held {
        claims::release(objects, &*self.allocators.inner.claims, &self.claimed).await;
        std::mem::take(&mut self.lost)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.allocators.forget(&self.marked);
    }
}

#[cfg(test)]
pub mod testing;
#[cfg(test)]
mod tests;
