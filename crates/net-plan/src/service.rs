//! Services and endpoints as the planner sees them.

use std::fmt;
use std::net::Ipv4Addr;
use std::time::Duration;

/// Namespace and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceName {
    pub namespace: String,
    pub name: String,
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    /// Upstream's word; the default is TCP.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "" | "TCP" => Some(Self::Tcp),
            "UDP" => Some(Self::Udp),
            "SCTP" => Some(Self::Sctp),
            _ => None,
        }
    }

    /// The word that nft uses.
    pub fn word(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

/// A Service that has addresses of its own; headless and external-name ones never come here.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Service {
    pub cluster_ips: Vec<Ipv4Addr>,
    /// `spec.externalIPs`.
    pub external_ips: Vec<Ipv4Addr>,
    /// `status.loadBalancer.ingress` addresses in mode VIP.
    pub load_balancer_ips: Vec<Ipv4Addr>,
    /// `spec.loadBalancerSourceRanges`; empty: anybody.
    pub source_ranges: Vec<ipnet::Ipv4Net>,
    pub ports: Vec<ServicePort>,
    /// How long a client sticks to its endpoint.
    pub affinity: Option<Duration>,
    /// `internalTrafficPolicy: Local`
    pub internal_local: bool,
    /// `externalTrafficPolicy: Local`
    pub external_local: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    pub name: String,
    pub protocol: Protocol,
    pub port: u16,
    pub node_port: Option<u16>,
    pub endpoints: Vec<Endpoint>,
}

/// One address and port behind a service port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    pub address: Ipv4Addr,
    pub port: u16,
    pub ready: bool,
    pub serving: bool,
    pub terminating: bool,
    /// On this node.
    pub local: bool,
}

/// The endpoints that get traffic: the ready ones, or, when there is none, those that end but still serve.
pub fn usable(endpoints: &[Endpoint], only_local: bool) -> Vec<(Ipv4Addr, u16)> {
    let in_scope = || endpoints.iter().filter(|e| e.local || !only_local);
    let mut chosen: Vec<_> = in_scope().filter(|e| e.ready).map(|e| (e.address, e.port)).collect();
    if chosen.is_empty() {
        chosen = in_scope().filter(|e| e.serving && e.terminating).map(|e| (e.address, e.port)).collect();
    }
    chosen.sort_unstable();
    chosen.dedup();
    chosen
}
