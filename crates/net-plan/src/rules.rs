//! What one Service contributes to the table.
//!
//! ```text
//! service-ips:  10.96.0.7 . tcp . 80  →  goto svc-…     picks a backend and rewrites the destination
//! node-ports:               tcp . 30080 →  goto ext-…   marks for masquerading, then goto svc-…
//! ```
//! Traffic that comes from outside is masqueraded, so that answers come back through this node, unless the policy
//! is `Local`, which keeps the client's address and uses endpoints of this node only.

use std::collections::{BTreeMap, BTreeSet};
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

    let inside =
        Backends { chain: format!("svc-{id}"), endpoints: &internal, elsewhere: !everywhere.is_empty() };
    for ip in &service.cluster_ips {
        inside.reach(out, "service-ips", "no-endpoint-services", service_key(*ip, port), &inside.chain);
    }
    let outside_ips = || service.external_ips.iter().chain(&service.load_balancer_ips);
    let from_outside = port.node_port.is_some() || outside_ips().next().is_some();
    inside.pick(out, &id, service.affinity);
    if !from_outside {
        return;
    }
    // With policy Local the outside sees other backends than the inside.
    let chain = if service.external_local { format!("local-{id}") } else { format!("svc-{id}") };
    let outside = Backends { chain, endpoints: &external, elsewhere: !everywhere.is_empty() };
    if service.external_local {
        outside.pick(out, &format!("local/{id}"), service.affinity);
    }
    let entry = format!("ext-{id}");
    if !external.is_empty() {
        let mut rules = Vec::new();
        if !service.external_local {
            rules.push(format!("meta mark set meta mark or {MASQUERADE_MARK}"));
        }
        rules.push(format!("goto {}", outside.chain));
        out.chains.insert(entry.clone(), rules);
    }
    if let Some(node_port) = port.node_port {
        let key = format!("{} . {node_port}", port.protocol.word());
        outside.reach(out, "node-ports", "no-endpoint-node-ports", key, &entry);
    }
    for ip in &service.external_ips {
        outside.reach(out, "service-ips", "no-endpoint-services", service_key(*ip, port), &entry);
    }
    let balanced = if service.source_ranges.is_empty() || external.is_empty() {
        entry
    } else {
        let ranges: Vec<String> = service.source_ranges.iter().map(ToString::to_string).collect();
        let firewall = format!("fw-{id}");
        let rules = vec![format!("ip saddr {{ {} }} goto {entry}", ranges.join(", ")), "drop".to_owned()];
        out.chains.insert(firewall.clone(), rules);
        firewall
    };
    for ip in &service.load_balancer_ips {
        outside.reach(out, "service-ips", "no-endpoint-services", service_key(*ip, port), &balanced);
    }
}

fn service_key(ip: Ipv4Addr, port: &ServicePort) -> String {
    format!("{ip} . {} . {}", port.protocol.word(), port.port)
}

/// The endpoints that one entrance leads to.
struct Backends<'a> {
    chain: String,
    endpoints: &'a [(Ipv4Addr, u16)],
    /// There are endpoints, only not here: then packets are dropped, for a client that tries again may be led elsewhere.
    elsewhere: bool,
}

impl Backends<'_> {
    fn reach(
        &self,
        out: &mut Contribution,
        map: &'static str,
        without: &'static str,
        key: String,
        entry: &str,
    ) {
        let (map, verdict) = if !self.endpoints.is_empty() {
            (map, format!("goto {entry}"))
        } else if self.elsewhere {
            (without, "drop".to_owned())
        } else {
            (without, "goto reject-it".to_owned())
        };
        out.elements.insert((map, key), Some(verdict));
    }

    /// The chain that picks a backend. Without affinity it is one rule, however many there are.
    fn pick(&self, out: &mut Contribution, id: &str, affinity: Option<Duration>) {
        let count = self.endpoints.len();
        if count == 0 {
            return;
        }
        for (address, _) in self.endpoints {
            out.shared.insert(("hairpin", format!("{address} . {address}")));
        }
        let Some(timeout) = affinity else {
            let rule = match self.endpoints {
                [(address, port)] => format!("meta l4proto {{ tcp, udp, sctp }} dnat to {address}:{port}"),
                many => {
                    let choices: Vec<String> = many
                        .iter()
                        .enumerate()
                        .map(|(i, (ip, port))| format!("{i} : {ip} . {port}"))
                        .collect();
                    format!(
                        "meta l4proto {{ tcp, udp, sctp }} dnat ip addr . port to numgen random mod {count} map {{ {} }}",
                        choices.join(", ")
                    )
                }
            };
            out.chains.insert(self.chain.clone(), vec![rule]);
            return;
        };
        let endpoint = |(address, port): &(Ipv4Addr, u16)| format!("{id}/{address}/{port}");
        let mut rules: Vec<String> = self
            .endpoints
            .iter()
            .map(endpoint)
            .map(|name| format!("ip saddr @aff-{name} goto ep-{name}"))
            .collect();
        let choices: Vec<String> = self
            .endpoints
            .iter()
            .enumerate()
            .map(|(i, e)| format!("{i} : goto ep-{}", endpoint(e)))
            .collect();
        rules.push(format!("numgen random mod {count} vmap {{ {} }}", choices.join(", ")));
        out.chains.insert(self.chain.clone(), rules);
        for pair in self.endpoints {
            let (name, (address, port)) = (endpoint(pair), pair);
            out.affinity_sets.insert(format!("aff-{name}"), timeout);
            let rules = vec![
                format!("update @aff-{name} {{ ip saddr }}"),
                format!("meta l4proto {{ tcp, udp, sctp }} dnat to {address}:{port}"),
            ];
            out.chains.insert(format!("ep-{name}"), rules);
        }
    }
}
