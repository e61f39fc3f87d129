//! `InterPodAffinity`: near pods of some kind, or away from them.

use std::collections::HashMap;

use crate::cache::Snapshot;
use crate::framework::{Judgement, Plugin, Rejection, spread_out};
use crate::node::NodeInfo;
use crate::pod::{PodInfo, PodTerm};

pub struct InterPodAffinity;

/// A topology key with one of its values.
type Domain<'a> = (&'a str, &'a str);

fn domain<'a>(term: &'a PodTerm, node: &'a NodeInfo) -> Option<Domain<'a>> {
    node.labels.get(&term.topology_key).map(|value| (term.topology_key.as_str(), value.as_str()))
}

/// The weight that a required affinity of a running pod towards this one has in the score.
const HARD_AFFINITY_WEIGHT: i64 = 1;

impl Plugin for InterPodAffinity {
    fn name(&self) -> &'static str {
        "InterPodAffinity"
    }

    fn prepare<'a>(&self, pod: &'a PodInfo, snapshot: &'a Snapshot) -> Judgement<'a> {
        let required = Required::look(pod, snapshot);
        let preferred = preferences(pod, snapshot);
        let mut judgement = Judgement::default();
        if !required.is_empty() {
            judgement = Judgement::filtering(move |node| required.reject(node));
        }
        if preferred.is_empty() {
            return judgement;
        }
        judgement.with_score(
            move |node| {
                let here = preferred
                    .iter()
                    .filter(|((key, value), _)| node.labels.get(*key).is_some_and(|own| own == value));
                here.map(|(_, weight)| weight).sum()
            },
            spread_out,
        )
    }
}

/// Domains by what the required terms of this pod, and the anti-affinity of others towards it, make of them.
struct Required<'a> {
    pod: &'a PodInfo,
    /// Per affinity term of the pod, the domains that hold a pod that every term matches.
    near: Vec<HashMap<Domain<'a>, ()>>,
    /// The first pod of a group that wants to be near its own kind may go anywhere.
    founder: bool,
    away: HashMap<Domain<'a>, ()>,
    unwelcome: HashMap<Domain<'a>, ()>,
}

impl<'a> Required<'a> {
    fn look(pod: &'a PodInfo, snapshot: &'a Snapshot) -> Self {
        let mut required = Self {
            pod,
            near: pod.affinity.iter().map(|_| HashMap::new()).collect(),
            founder: false,
            away: HashMap::new(),
            unwelcome: HashMap::new(),
        };
        let looks_at_all = !pod.affinity.is_empty() || !pod.anti_affinity.is_empty();
        for node in snapshot.nodes.iter().filter(|n| looks_at_all || n.pods_with_anti_affinity > 0) {
            for other in &node.pods {
                required.meet(other, node, snapshot);
            }
        }
        let nobody = required.near.iter().all(HashMap::is_empty);
        required.founder = nobody && pod.affinity.iter().all(|term| term.matches(pod, snapshot));
        required
    }

    fn meet(&mut self, other: &'a PodInfo, node: &'a NodeInfo, snapshot: &Snapshot) {
        let pod = self.pod;
        if !pod.affinity.is_empty() && pod.affinity.iter().all(|term| term.matches(other, snapshot)) {
            for (term, near) in pod.affinity.iter().zip(&mut self.near) {
                near.extend(domain(term, node).map(|d| (d, ())));
            }
        }
        let matching = |terms: &'a [PodTerm], of: &PodInfo| -> Vec<Domain<'a>> {
            terms
                .iter()
                .filter(|term| term.matches(of, snapshot))
                .filter_map(|term| domain(term, node))
                .collect()
        };
        self.away.extend(matching(&pod.anti_affinity, other).into_iter().map(|d| (d, ())));
        self.unwelcome.extend(matching(&other.anti_affinity, pod).into_iter().map(|d| (d, ())));
    }

    fn is_empty(&self) -> bool {
        self.pod.affinity.is_empty() && self.away.is_empty() && self.unwelcome.is_empty()
    }

    fn reject(&self, node: &NodeInfo) -> Option<Rejection> {
        let touches = |domains: &HashMap<Domain<'a>, ()>| {
            domains.keys().any(|(key, value)| node.labels.get(*key).is_some_and(|own| own == value))
        };
        let labelled = |term: &PodTerm| node.labels.contains_key(&term.topology_key);
        let mut terms = self.pod.affinity.iter().zip(&self.near);
        if !terms.all(|(term, near)| labelled(term) && (self.founder || touches(near))) {
            return Some(Rejection::unresolvable("node(s) didn't match pod affinity rules"));
        }
        if touches(&self.away) {
            return Some(Rejection::new("node(s) didn't match pod anti-affinity rules"));
        }
        let reason = "node(s) didn't satisfy existing pods anti-affinity rules";
        touches(&self.unwelcome).then(|| Rejection::new(reason))
    }
}

/// The summed weight of each domain: what this pod prefers, and what running pods prefer about it.
fn preferences<'a>(pod: &'a PodInfo, snapshot: &'a Snapshot) -> HashMap<Domain<'a>, i64> {
    let mut weights: HashMap<Domain<'a>, i64> = HashMap::new();
    for node in snapshot.nodes.iter() {
        for other in &node.pods {
            let mut weigh = |term: &'a PodTerm, weight: i64, of: &PodInfo| {
                if let Some(domain) = domain(term, node).filter(|_| term.matches(of, snapshot)) {
                    *weights.entry(domain).or_default() += weight;
                }
            };
            pod.preferred_pods.iter().for_each(|(weight, term)| weigh(term, *weight, other));
            other.preferred_pods.iter().for_each(|(weight, term)| weigh(term, *weight, pod));
            other.affinity.iter().for_each(|term| weigh(term, HARD_AFFINITY_WEIGHT, pod));
        }
    }
    weights
}
