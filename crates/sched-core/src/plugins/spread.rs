//! `PodTopologySpread`: pods that match a selector spread evenly over zones, nodes or other domains.

use std::collections::HashMap;

use crate::cache::Snapshot;
use crate::framework::{Judgement, MAX_SCORE, Plugin, Rejection};
use crate::node::NodeInfo;
use crate::pod::{PodInfo, Spread};

pub struct PodTopologySpread;

/// Matching pods per value of the topology key.
struct Domains<'a> {
    constraint: &'a Spread,
    counts: HashMap<&'a str, i64>,
}

impl<'a> Domains<'a> {
    fn count(pod: &'a PodInfo, constraint: &'a Spread, snapshot: &'a Snapshot) -> Self {
        let mut counts = HashMap::new();
        for node in snapshot.nodes.iter().filter(|node| constraint.counts_node(pod, node)) {
            let Some(domain) = node.labels.get(&constraint.topology_key) else { continue };
            *counts.entry(domain.as_str()).or_default() += matching(pod, constraint, node);
        }
        Self { constraint, counts }
    }

    /// The emptiest domain's count; domains that do not exist yet count as empty when there should be more.
    fn minimum(&self) -> i64 {
        let domains = i64::try_from(self.counts.len()).unwrap_or(i64::MAX);
        if domains < self.constraint.min_domains {
            0
        } else {
            self.counts.values().copied().min().unwrap_or(0)
        }
    }
}

fn matching(pod: &PodInfo, constraint: &Spread, node: &NodeInfo) -> i64 {
    let alike = |other: &&std::sync::Arc<PodInfo>| {
        !other.terminating
            && other.id.namespace == pod.id.namespace
            && constraint.selector.matches(&other.labels)
    };
    i64::try_from(node.pods.iter().filter(alike).count()).unwrap_or(i64::MAX)
}

impl Plugin for PodTopologySpread {
    fn name(&self) -> &'static str {
        "PodTopologySpread"
    }

    fn prepare<'a>(&self, pod: &'a PodInfo, snapshot: &'a Snapshot) -> Judgement<'a> {
        if pod.spread.is_empty() {
            return Judgement::default();
        }
        let (hard, soft): (Vec<_>, Vec<_>) =
            pod.spread.iter().map(|c| Domains::count(pod, c, snapshot)).partition(|d| d.constraint.hard);
        let hard: Vec<(Domains<'a>, i64, i64)> = hard
            .into_iter()
            .map(|domains| {
                let itself = i64::from(domains.constraint.selector.matches(&pod.labels));
                let minimum = domains.minimum();
                (domains, minimum, itself)
            })
            .collect();
        let judgement = Judgement::filtering(move |node| {
            hard.iter().find_map(|(domains, minimum, itself)| {
                let Some(domain) = node.labels.get(&domains.constraint.topology_key) else {
                    let reason =
                        "node(s) didn't match pod topology spread constraints (missing required label)";
                    return Some(Rejection::unresolvable(reason));
                };
                let there = domains.counts.get(domain.as_str()).copied().unwrap_or(0);
                (there + itself - minimum > domains.constraint.max_skew)
                    .then(|| Rejection::new("node(s) didn't match pod topology spread constraints"))
            })
        });
        if soft.is_empty() {
            return judgement;
        }
        judgement.with_score(move |node| crowd(&soft, node), fewest_first)
    }
}

/// How crowded the node's domains are, each weighted by the logarithm of how many there are, so that a key with
/// many values (the host name) does not drown one with few (the zone). A node without a key is worst.
fn crowd(domains: &[Domains<'_>], node: &NodeInfo) -> i64 {
    let mut total = 0.0;
    for Domains { constraint, counts } in domains {
        let Some(domain) = node.labels.get(&constraint.topology_key) else { return i64::MAX };
        let there = counts.get(domain.as_str()).copied().unwrap_or(0) as f64;
        total += there * (counts.len() as f64 + 2.0).ln() + (constraint.max_skew - 1) as f64;
    }
    total.round() as i64
}

fn fewest_first(crowds: &mut [i64]) {
    let known = || crowds.iter().copied().filter(|c| *c != i64::MAX);
    let (low, high) = (known().min().unwrap_or(0), known().max().unwrap_or(0));
    for crowd in crowds.iter_mut() {
        *crowd = match *crowd {
            i64::MAX => 0,
            _ if high == 0 => MAX_SCORE,
            crowd => MAX_SCORE * (high + low - crowd) / high,
        };
    }
}
