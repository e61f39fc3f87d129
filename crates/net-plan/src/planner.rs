//! All contributions together: the whole table as one transaction, and each change as the smallest one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::Ipv4Addr;

use crate::rules::{Contribution, MASQUERADE_MARK, of_service};
use crate::service::{Endpoint, Protocol, Service, ServiceName, usable};

/// What does not depend on Services.
#[derive(Debug, Clone)]
pub struct Options {
    /// The table's name; two clusters on one machine have two.
    pub table: String,
    /// Pods' traffic that leaves this network gets the node's address.
    pub pod_cidr: ipnet::Ipv4Net,
    /// The node's addresses on which node ports answer; empty: all but loopback.
    pub node_port_addresses: Vec<ipnet::Ipv4Net>,
}

/// A UDP destination that used to lead to a backend: conntrack would go on leading clients there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct StaleFlow {
    /// Where clients sent to; None for a node port.
    pub address: Option<Ipv4Addr>,
    pub port: u16,
    /// Only flows to this backend; None: flows that no backend took.
    pub backend: Option<Ipv4Addr>,
}

/// A change to carry out: an nft script (empty: nothing to do), and flows to forget after it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    pub script: String,
    pub stale_flows: BTreeSet<StaleFlow>,
}

/// The present plan. It starts empty and is fed Service by Service.
///
/// A packet reads the rules of the generation that it began with, but the elements of their sets as they are now. Rules
/// that went with the transaction that replaced them would find their sets empty and let the packet pass unchanged, to
/// be refused. So what nothing leads to any more stays until [`Planner::sweep`] was called twice.
#[derive(Debug)]
pub struct Planner {
    options: Options,
    services: BTreeMap<ServiceName, (Service, Contribution)>,
    /// How many Services contribute each shared element.
    shared: BTreeMap<(&'static str, String), usize>,
    /// What nothing leads to: since the last sweep, and since before it.
    unused: [Leftovers; 2],
}

/// Names of chains and sets that are still in the kernel.
#[derive(Debug, Default)]
struct Leftovers {
    chains: BTreeSet<String>,
    sets: BTreeSet<String>,
}

impl Planner {
    pub fn new(options: Options) -> Self {
        Self { options, services: BTreeMap::new(), shared: BTreeMap::new(), unused: Default::default() }
    }

    pub fn services(&self) -> usize {
        self.services.len()
    }

    /// Sets or removes a Service and gives the change from the state before.
    pub fn set(&mut self, name: &ServiceName, service: Option<Service>) -> Change {
        let new = service.map(|service| {
            let contribution = of_service(name, &service);
            (service, contribution)
        });
        let old = self.services.remove(name);
        let stale_flows = stale_flows(old.as_ref().map(|(s, _)| s), new.as_ref().map(|(s, _)| s));
        let nothing = Contribution::default();
        let before = old.as_ref().map_or(&nothing, |(_, c)| c);
        let after = new.as_ref().map_or(&nothing, |(_, c)| c);
        let (appeared, vanished) = self.count_shared(before, after);
        let mut script = Transaction::new(&self.options.table);
        script.make(before, after, &mut self.unused);
        script.lead(before, after, &appeared, &vanished);
        if let Some(new) = new {
            self.services.insert(name.clone(), new);
        }
        Change { script: script.text, stale_flows }
    }

    /// Whether a sweep is due some time.
    pub fn has_leftovers(&self) -> bool {
        self.unused.iter().any(|unused| !unused.chains.is_empty() || !unused.sets.is_empty())
    }

    /// Removes what was unused at the last sweep already. A packet takes microseconds; let a second pass between two.
    pub fn sweep(&mut self) -> String {
        let [recent, before] = &mut self.unused;
        let due = std::mem::replace(before, std::mem::take(recent));
        let mut script = Transaction::new(&self.options.table);
        // All are emptied before any goes, since they refer to one another.
        for verb in ["flush chain", "delete chain"] {
            due.chains.iter().for_each(|chain| script.line(verb, format_args!("{chain}")));
        }
        due.sets.iter().for_each(|set| script.line("delete set", format_args!("{set}")));
        script.text
    }

    /// Replaces whatever table of this name is there by the whole plan, atomically.
    pub fn whole(&mut self) -> String {
        self.unused = Default::default();
        let table = &self.options.table;
        let mut script = format!("add table ip {table}\ndelete table ip {table}\n");
        script.push_str(&self.skeleton());
        let mut all = Contribution::default();
        for (_, contribution) in self.services.values() {
            all.chains.extend(contribution.chains.clone());
            all.elements.extend(contribution.elements.clone());
            all.affinity_sets.extend(contribution.affinity_sets.clone());
        }
        let appeared: Vec<_> = self.shared.keys().cloned().collect();
        let (nothing, mut rest) = (Contribution::default(), Transaction::new(table));
        rest.make(&nothing, &all, &mut Default::default());
        rest.lead(&nothing, &all, &appeared, &[]);
        script + &rest.text
    }

    /// Which shared elements come and go with a change from one contribution to the other.
    fn count_shared(&mut self, before: &Contribution, after: &Contribution) -> (Vec<Shared>, Vec<Shared>) {
        let (mut appeared, mut vanished) = (Vec::new(), Vec::new());
        for element in after.shared.difference(&before.shared) {
            let count = self.shared.entry(element.clone()).or_default();
            *count += 1;
            if *count == 1 {
                appeared.push(element.clone());
            }
        }
        for element in before.shared.difference(&after.shared) {
            if let Some(count) = self.shared.get_mut(element) {
                *count -= 1;
                if *count == 0 {
                    self.shared.remove(element);
                    vanished.push(element.clone());
                }
            }
        }
        (appeared, vanished)
    }

    fn skeleton(&self) -> String {
        let Options { table, pod_cidr, node_port_addresses } = &self.options;
        let local = if node_port_addresses.is_empty() {
            "fib daddr type local ip daddr != 127.0.0.0/8".to_owned()
        } else {
            let list: Vec<String> = node_port_addresses.iter().map(ToString::to_string).collect();
            format!("ip daddr {{ {} }}", list.join(", "))
        };
        format!(
            "table ip {table} {{
  comment \"Services of the cluster, kept by keelson-net-proxy\"
  map service-ips {{ type ipv4_addr . inet_proto . inet_service : verdict; }}
  map node-ports {{ type inet_proto . inet_service : verdict; }}
  map no-endpoint-services {{ type ipv4_addr . inet_proto . inet_service : verdict; }}
  map no-endpoint-node-ports {{ type inet_proto . inet_service : verdict; }}
  set cluster-ips {{ type ipv4_addr; }}
  set hairpin {{ type ipv4_addr . ipv4_addr; }}
  chain services {{
    ip daddr . meta l4proto . th dport vmap @service-ips
    {local} meta l4proto . th dport vmap @node-ports
  }}
  chain nat-prerouting {{ type nat hook prerouting priority dstnat; policy accept; jump services; }}
  chain nat-output {{ type nat hook output priority -100; policy accept; jump services; }}
  chain nat-postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    meta mark and {MASQUERADE_MARK} == {MASQUERADE_MARK} meta mark set meta mark xor {MASQUERADE_MARK} masquerade fully-random
    ip saddr . ip daddr @hairpin masquerade fully-random
    ip saddr {pod_cidr} ip daddr != {pod_cidr} ip daddr != 224.0.0.0/4 masquerade fully-random
  }}
  chain reject-it {{
    meta l4proto tcp reject with tcp reset
    reject
  }}
  chain unserved {{
    ip daddr . meta l4proto . th dport vmap @no-endpoint-services
    {local} meta l4proto . th dport vmap @no-endpoint-node-ports
  }}
  chain filter-input {{ type filter hook input priority -110; policy accept; ct state new jump unserved; }}
  chain filter-forward {{
    type filter hook forward priority -110; policy accept;
    ct state new jump unserved
    ct state new ip daddr @cluster-ips goto reject-it
  }}
  chain filter-output {{
    type filter hook output priority -90; policy accept;
    ct state new jump unserved
    ct state new ip daddr @cluster-ips goto reject-it
  }}
}}
"
        )
    }
}

type Shared = (&'static str, String);

/// An nft script in the making. All of one script takes effect at once or not at all.
struct Transaction<'a> {
    table: &'a str,
    text: String,
}

impl<'a> Transaction<'a> {
    fn new(table: &'a str) -> Self {
        Self { table, text: String::new() }
    }

    fn line(&mut self, verb: &str, rest: std::fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "{verb} ip {} {rest}", self.table);
    }

    /// Adds the chains and sets that are new, unless they are left over, and leaves over those that are not wanted now.
    fn make(&mut self, before: &Contribution, after: &Contribution, unused: &mut [Leftovers; 2]) {
        for (set, timeout) in &after.affinity_sets {
            // A timeout cannot be changed in place: a set that is there keeps its own.
            let there =
                before.affinity_sets.contains_key(set) | unused.iter_mut().any(|u| u.sets.remove(set));
            if !there {
                let timeout = timeout.as_secs();
                let body =
                    format_args!("{set} {{ type ipv4_addr; flags dynamic,timeout; timeout {timeout}s; }}");
                self.line("add set", body);
            }
        }
        let mut new: Vec<_> = after.chains.iter().filter(|(c, _)| !before.chains.contains_key(*c)).collect();
        new.retain(|(chain, _)| !unused.iter_mut().any(|u| u.chains.remove(*chain)));
        // Chains first, so that rules of one can lead to another.
        new.iter().for_each(|(chain, _)| self.line("add chain", format_args!("{chain}")));
        for (chain, rules) in new {
            rules.iter().for_each(|rule| self.line("add rule", format_args!("{chain} {rule}")));
        }
        let [recent, _] = unused;
        let gone = before.chains.keys().filter(|c| !after.chains.contains_key(*c));
        recent.chains.extend(gone.cloned());
        let gone = before.affinity_sets.keys().filter(|s| !after.affinity_sets.contains_key(*s));
        recent.sets.extend(gone.cloned());
    }

    /// Changes where maps lead to.
    fn lead(
        &mut self,
        before: &Contribution,
        after: &Contribution,
        appeared: &[Shared],
        vanished: &[Shared],
    ) {
        let differ = |a: &Contribution, b: &Contribution| -> Vec<_> {
            let differ = a.elements.iter().filter(|(element, value)| b.elements.get(element) != Some(value));
            differ.map(|((container, key), value)| ((*container, key.clone()), value.clone())).collect()
        };
        let gone = differ(before, after).into_iter().map(|(element, _)| element);
        self.elements("delete element", gone.chain(vanished.iter().cloned()));
        let written = differ(after, before).into_iter().map(|((container, key), value)| match value {
            Some(value) => (container, format!("{key} : {value}")),
            None => (container, key),
        });
        self.elements("add element", written.chain(appeared.iter().cloned()));
    }

    /// One command per container, however many elements.
    fn elements(&mut self, verb: &str, elements: impl Iterator<Item = (&'static str, String)>) {
        let mut by_container: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for (container, element) in elements {
            by_container.entry(container).or_default().push(element);
        }
        for (container, elements) in by_container {
            self.line(verb, format_args!("{container} {{ {} }}", elements.join(", ")));
        }
    }
}

/// UDP has no end of a connection: what conntrack remembers of a backend that is gone, or of the time without one,
/// has to be forgotten explicitly.
fn stale_flows(old: Option<&Service>, new: Option<&Service>) -> BTreeSet<StaleFlow> {
    let mut stale = BTreeSet::new();
    let Some(old) = old else { return stale };
    for port in old.ports.iter().filter(|p| p.protocol == Protocol::Udp) {
        let now =
            new.and_then(|s| s.ports.iter().find(|p| p.name == port.name && p.protocol == port.protocol));
        let backends = |endpoints: &[Endpoint]| -> BTreeSet<Ipv4Addr> {
            usable(endpoints, false).into_iter().map(|(address, _)| address).collect()
        };
        let before = backends(&port.endpoints);
        let after = now.map(|p| backends(&p.endpoints)).unwrap_or_default();
        let mut forgotten: Vec<Option<Ipv4Addr>> = before.difference(&after).map(|ip| Some(*ip)).collect();
        if before.is_empty() && !after.is_empty() {
            forgotten.push(None);
        }
        for backend in forgotten {
            let addresses = old.cluster_ips.iter().chain(&old.external_ips).chain(&old.load_balancer_ips);
            for address in addresses {
                stale.insert(StaleFlow { address: Some(*address), port: port.port, backend });
            }
            if let Some(node_port) = port.node_port {
                stale.insert(StaleFlow { address: None, port: node_port, backend });
            }
        }
    }
    stale
}
