//! Pools of numbers with a lower band that is left to those who ask for a particular one.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::{AllocError, Family};

/// Offsets below `size`, handed out at random from the upper band first.
struct Pool {
    used: BTreeSet<u64>,
    size: u64,
    band: u64,
}

impl Pool {
    fn new(size: u64, band: u64) -> Self {
        Self { used: BTreeSet::new(), size, band: if band < size { band } else { 0 } }
    }

    fn next(&mut self) -> Option<u64> {
        let offset = self.free_in(self.band, self.size).or_else(|| self.free_in(0, self.band))?;
        self.used.insert(offset);
        Some(offset)
    }

    /// The first free offset at or after a random one, wrapping around.
    fn free_in(&self, low: u64, high: u64) -> Option<u64> {
        if low >= high || self.used.range(low..high).count() as u64 == high - low {
            return None;
        }
        let start = rand::random_range(low..high);
        (start..high).chain(low..start).find(|offset| !self.used.contains(offset))
    }
}

/// The addresses of a service range: all but the network's own and, for IPv4, the broadcast address.
pub struct AddressPool {
    range: IpNet,
    first: u128,
    pool: Pool,
}

impl AddressPool {
    pub fn new(range: IpNet) -> Self {
        let range = range.trunc();
        let (first, size) = match range {
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
        let band = if size < 16 { 0 } else { (size / 16).clamp(16, 256) };
        Self { range, first: first + 1, pool: Pool::new(size, band) }
    }

    pub fn family(&self) -> Family {
        Family::of(self.range.network())
    }

    fn offset(&self, ip: IpAddr) -> Option<u64> {
        if !self.range.contains(&ip) {
            return None;
        }
        let bits = match ip {
            IpAddr::V4(ip) => u128::from(ip.to_bits()),
            IpAddr::V6(ip) => ip.to_bits(),
        };
        u64::try_from(bits.checked_sub(self.first)?).ok().filter(|offset| *offset < self.pool.size)
    }

    fn address(&self, offset: u64) -> IpAddr {
        let bits = self.first + u128::from(offset);
        match self.range {
            IpNet::V4(_) => IpAddr::V4(Ipv4Addr::from_bits(bits as u32)),
            IpNet::V6(_) => IpAddr::V6(Ipv6Addr::from_bits(bits)),
        }
    }

    pub fn take(&mut self, ip: IpAddr) -> Result<(), AllocError> {
        if !self.range.contains(&ip) {
            return Err(AllocError::OtherNetwork);
        }
        let offset = self.offset(ip).ok_or(AllocError::AddressOutOfRange { ip, range: self.range })?;
        if self.pool.used.insert(offset) { Ok(()) } else { Err(AllocError::AddressTaken) }
    }

    pub fn take_next(&mut self) -> Option<IpAddr> {
        self.pool.next().map(|offset| self.address(offset))
    }

    pub fn release(&mut self, ip: IpAddr) {
        if let Some(offset) = self.offset(ip) {
            self.pool.used.remove(&offset);
        }
    }

    pub fn replace(&mut self, ips: &BTreeSet<IpAddr>) {
        self.pool.used = ips.iter().filter_map(|ip| self.offset(*ip)).collect();
    }
}

/// Node ports, both ends included.
pub struct PortPool {
    first: u16,
    last: u16,
    pool: Pool,
}

impl PortPool {
    pub fn new(first: u16, last: u16) -> Self {
        let size = u64::from(last.saturating_sub(first)) + 1;
        // Upstream's band: a thirty-second of the range, at least 16 and at most 128 ports.
        let band = if size < 16 { 0 } else { (size / 32).clamp(16, 128) };
        Self { first, last, pool: Pool::new(size, band) }
    }

    fn offset(&self, port: u16) -> Option<u64> {
        (self.first..=self.last).contains(&port).then(|| u64::from(port - self.first))
    }

    pub fn take(&mut self, port: u16) -> Result<(), AllocError> {
        let out_of_range = AllocError::PortOutOfRange { first: self.first, last: self.last };
        let offset = self.offset(port).ok_or(out_of_range)?;
        if self.pool.used.insert(offset) { Ok(()) } else { Err(AllocError::PortTaken) }
    }

    pub fn take_next(&mut self) -> Option<u16> {
        let offset = self.pool.next()?;
        u16::try_from(u64::from(self.first) + offset).ok()
    }

    pub fn release(&mut self, port: u16) {
        if let Some(offset) = self.offset(port) {
            self.pool.used.remove(&offset);
        }
    }

    pub fn replace(&mut self, ports: &BTreeSet<u16>) {
        self.pool.used = ports.iter().filter_map(|port| self.offset(*port)).collect();
    }
}
