//! Ranges of numbers with a lower band that is left to those who ask for a particular one.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::{AllocError, Family};

/// Offsets below `size`; those in the band are handed out last.
#[derive(Debug, Clone, Copy)]
struct Band {
    size: u64,
    lower: u64,
}

impl Band {
    fn new(size: u64, lower: u64) -> Self {
        Self { size, lower: if lower < size { lower } else { 0 } }
    }

    /// A free offset: the first at or after a random one, wrapping around. `count` says how many of a range are
    /// taken.
    fn pick(&self, count: impl Fn(u64, u64) -> u64, taken: impl Fn(u64) -> bool) -> Option<u64> {
        let within = |low: u64, high: u64| {
            if low >= high || count(low, high) == high - low {
                return None;
            }
            let start = rand::random_range(low..high);
            (start..high).chain(low..start).find(|offset| !taken(*offset))
        };
        within(self.lower, self.size).or_else(|| within(0, self.lower))
    }
}

/// The addresses of a service range: all but the network's own and, for IPv4, the broadcast address.
#[derive(Debug, Clone)]
pub struct AddressRange {
    net: IpNet,
    first: u128,
    band: Band,
}

impl AddressRange {
    pub fn new(net: IpNet) -> Self {
        let net = net.trunc();
        let (first, size) = match net {
            IpNet::V4(net) => {
                let size = 1u64 << (32 - u32::from(net.prefix_len()));
                (u128::from(net.network().to_bits()), size.saturating_sub(2))
            }
            IpNet::V6(net) => {
                // More than anyone hands out: large ranges are cut to what fits an offset.
                let bits = (128 - u32::from(net.prefix_len())).min(62);
                (net.network().to_bits(), (1u64 << bits).saturating_sub(1))
            }
        };
        // Upstream's band: a sixteenth of the range, at least 16 and at most 256 addresses.
        let lower = if size < 16 { 0 } else { (size / 16).clamp(16, 256) };
        Self { net, first: first + 1, band: Band::new(size, lower) }
    }

    pub fn net(&self) -> IpNet {
        self.net
    }

    pub fn family(&self) -> Family {
        Family::of(self.net.network())
    }

    pub fn contains(&self, ip: IpAddr) -> bool {
        let bits = match ip {
            IpAddr::V4(ip) => u128::from(ip.to_bits()),
            IpAddr::V6(ip) => ip.to_bits(),
        };
        self.net.contains(&ip) && bits >= self.first && bits - self.first < u128::from(self.band.size)
    }

    fn address(&self, offset: u64) -> IpAddr {
        let bits = self.first + u128::from(offset);
        match self.net {
            IpNet::V4(_) => IpAddr::V4(Ipv4Addr::from_bits(bits as u32)),
            IpNet::V6(_) => IpAddr::V6(Ipv6Addr::from_bits(bits)),
        }
    }

    pub fn pick(&self, used: &BTreeSet<IpAddr>) -> Option<IpAddr> {
        let count = |low, high| used.range(self.address(low)..=self.address(high - 1)).count() as u64;
        let offset = self.band.pick(count, |offset| used.contains(&self.address(offset)))?;
        Some(self.address(offset))
    }
}

/// Node ports, both ends included.
#[derive(Debug, Clone, Copy)]
pub struct PortRange {
    first: u16,
    last: u16,
    band: Band,
}

impl PortRange {
    pub fn new(first: u16, last: u16) -> Self {
        let size = u64::from(last.saturating_sub(first)) + 1;
        // Upstream's band: a thirty-second of the range, at least 16 and at most 128 ports.
        let lower = if size < 16 { 0 } else { (size / 32).clamp(16, 128) };
        Self { first, last, band: Band::new(size, lower) }
    }

    pub fn check(&self, port: u16) -> Result<(), AllocError> {
        match (self.first..=self.last).contains(&port) {
            true => Ok(()),
            false => Err(AllocError::PortOutOfRange { first: self.first, last: self.last }),
        }
    }

    fn port(&self, offset: u64) -> u16 {
        self.first + offset as u16
    }

    pub fn pick(&self, used: &BTreeSet<u16>) -> Option<u16> {
        let count = |low, high| used.range(self.port(low)..=self.port(high - 1)).count() as u64;
        let offset = self.band.pick(count, |offset| used.contains(&self.port(offset)))?;
        Some(self.port(offset))
    }
}
