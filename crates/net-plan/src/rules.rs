//! What one Service contributes to the table.
//!
//! ```text
//! service-ips:  10.96.0.7 . tcp . 80  →  goto svc-…     picks a backend and rewrites the destination
//! node-ports:               tcp . 30080 →  goto ext-…   marks for masquerading, then goto svc-…
//! ```
//! A chain's name ends with a digest of its rules, so that a chain never changes: what changes is where maps lead to.
//! A packet that is under way keeps the chain that it entered, and the sets of that chain's rules.
//!
//! Traffic that comes from outside is masqueraded, so that answers come back through this node, unless the policy
//! is `Local`, which keeps the client's address and uses endpoints of this node only.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::Ipv4Addr;
use std::time::Duration;

use crate::service::{Service, ServiceName, ServicePort, usable};

/// Packets with this mark get this node's address as their source.
pub const MASQUERADE_MARK: &str = "0x4000";

/// Chains with their rules, elements of maps and sets, and sets of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contribution {
    pub chains: BTreeMap<String, Vec<String>>,
    /// By container and key; the value is None for a set.
    pub elements: BTreeMap<(&'static str, String), Option<String>>,
    /// Elements that several Services may contribute alike.
    pub shared: BTreeSet<(&'static str, String)>,
    /// Client addresses that stick to an endpoint, by set name.
    pub affinity_sets: BTreeMap<String, Duration>,
}

impl Contribution {
    /// Adds a chain and gives its name.
    fn chain(&mut self, name: &str, rules: Vec<String>) -> String {
        let mut digest = DefaultHasher::new();
        rules.hash(&mut digest);
        let name = format!("{name}/{:016x}", digest.finish());
        self.chains.insert(name.clone(), rules);
        name
    }
}

pub fn of_service(name: &ServiceName, service: &Service) -> Contribution {
    let mut contribution = Contribution::default();
    for ip in &service.cluster_ips {
        contribution.shared.insert(("cluster-ips", ip.to_string()));
    }
    for port in &service.ports {
        of_port(name, service, port, &mut contribution);
    }
    contribution
}

fn of_port(name: &ServiceName, service: &Service, port: &ServicePort, out: &mut Contribution) {
    let id =
        format!("{name}/{}/{}", port.protocol.word(), if port.name.is_empty() { "-" } else { &port.name });
    let internal = usable(&port.endpoints, service.internal_local);
    let everywhere = usable(&port.endpoints, false);
    let external = usable(&port.endpoints, service.external_local);

    let elsewhere = !everywhere.is_empty();
    let chain = pick(out, &format!("svc-{id}"), &id, &internal, service.affinity);
    let inside = Entrance { chain: chain.as_deref(), elsewhere };
    for ip in &service.cluster_ips {
        inside.open(out, "service-ips", "no-endpoint-services", service_key(*ip, port));
    }
    let outside_ips = || service.external_ips.iter().chain(&service.load_balancer_ips);
    if port.node_port.is_none() && outside_ips().next().is_none() {
        return;
    }
    // With policy Local the outside sees other backends than the inside, else all of them.
    let backends = match (service.external_local, service.internal_local) {
        (true, _) => pick(out, &format!("local-{id}"), &format!("local/{id}"), &external, service.affinity),
        (false, true) => pick(out, &format!("all-{id}"), &format!("all/{id}"), &external, service.affinity),
        (false, false) => chain,
    };
    let entry = backends.map(|backends| {
        let mut rules = Vec::new();
        if !service.external_local {
            rules.push(format!("meta mark set meta mark or {MASQUERADE_MARK}"));
        }
        rules.push(format!("goto {backends}"));
        out.chain(&format!("ext-{id}"), rules)
    });
    let outside = Entrance { chain: entry.as_deref(), elsewhere };
    if let Some(node_port) = port.node_port {
        let key = format!("{} . {node_port}", port.protocol.word());
        outside.open(out, "node-ports", "no-endpoint-node-ports", key);
    }
    for ip in &service.external_ips {
        outside.open(out, "service-ips", "no-endpoint-services", service_key(*ip, port));
    }
    let firewall = entry.as_ref().filter(|_| !service.source_ranges.is_empty()).map(|entry| {
        let ranges: Vec<String> = service.source_ranges.iter().map(ToString::to_string).collect();
        let rules = vec![format!("ip saddr {{ {} }} goto {entry}", ranges.join(", ")), "drop".to_owned()];
        out.chain(&format!("fw-{id}"), rules)
    });
    let balanced = Entrance { chain: firewall.as_deref().or(entry.as_deref()), elsewhere };
    for ip in &service.load_balancer_ips {
        balanced.open(out, "service-ips", "no-endpoint-services", service_key(*ip, port));
    }
}

fn service_key(ip: Ipv4Addr, port: &ServicePort) -> String {
    format!("{ip} . {} . {}", port.protocol.word(), port.port)
}

/// Where packets to one kind of address go.
struct Entrance<'a> {
    /// None: no endpoint can be reached through it.
    chain: Option<&'a str>,
    /// There are endpoints, only not here: then packets are dropped, for a client that tries again may be led elsewhere.
    elsewhere: bool,
}

impl Entrance<'_> {
    fn open(&self, out: &mut Contribution, map: &'static str, without: &'static str, key: String) {
        let (map, verdict) = match self.chain {
            Some(chain) => (map, format!("goto {chain}")),
            None if self.elsewhere => (without, "drop".to_owned()),
            None => (without, "goto reject-it".to_owned()),
        };
        out.elements.insert((map, key), Some(verdict));
    }
}

/// Adds the chain that picks one of these endpoints and gives its name, if there are any. Without affinity it is one
/// rule, however many there are. `id` is what its affinity is remembered under.
fn pick(
    out: &mut Contribution,
    chain: &str,
    id: &str,
    endpoints: &[(Ipv4Addr, u16)],
    affinity: Option<Duration>,
) -> Option<String> {
    if endpoints.is_empty() {
        return None;
    }
    for (address, _) in endpoints {
        out.shared.insert(("hairpin", format!("{address} . {address}")));
    }
    let to = |(address, port): &(Ipv4Addr, u16)| {
        format!("meta l4proto {{ tcp, udp, sctp }} dnat to {address}:{port}")
    };
    let Some(timeout) = affinity else {
        let rule = match endpoints {
            [only] => to(only),
            many => {
                let choices: Vec<String> =
                    many.iter().enumerate().map(|(i, (ip, port))| format!("{i} : {ip} . {port}")).collect();
                format!(
                    "meta l4proto {{ tcp, udp, sctp }} dnat ip addr . port to numgen random mod {} map {{ {} }}",
                    many.len(),
                    choices.join(", ")
                )
            }
        };
        return Some(out.chain(chain, vec![rule]));
    };
    let (mut rules, mut choices) = (Vec::new(), Vec::new());
    for (i, endpoint) in endpoints.iter().enumerate() {
        let name = format!("{id}/{}/{}", endpoint.0, endpoint.1);
        out.affinity_sets.insert(format!("aff-{name}"), timeout);
        let own = out
            .chain(&format!("ep-{name}"), vec![format!("update @aff-{name} {{ ip saddr }}"), to(endpoint)]);
        rules.push(format!("ip saddr @aff-{name} goto {own}"));
        choices.push(format!("{i} : goto {own}"));
    }
    rules.push(format!("numgen random mod {} vmap {{ {} }}", endpoints.len(), choices.join(", ")));
    Some(out.chain(chain, rules))
}
