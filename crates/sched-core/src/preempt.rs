//! Whom to evict so that a pod of higher priority fits.

use std::collections::HashMap;
use std::sync::Arc;

use crate::cache::Snapshot;
use crate::framework::Profile;
use crate::node::NodeInfo;
use crate::pod::PodInfo;
use crate::schedule::{prepare, reject};

/// A disruption budget: how many more of the pods that it selects may go.
#[derive(Debug, Clone)]
pub struct Budget {
    pub namespace: String,
    pub selector: keelson_api_types::selector::LabelSelector,
    pub allowed: i64,
}

/// Evicting these from this node makes room.
#[derive(Debug, Clone)]
pub struct Preemption {
    pub node: String,
    pub victims: Vec<Arc<PodInfo>>,
}

/// Finds the node where room costs least: fewest broken budgets, then the lowest of the highest priorities, the
/// smallest sum of priorities, the fewest pods, the youngest among the most important ones.
pub fn preempt(
    pod: &PodInfo,
    snapshot: &Snapshot,
    profile: &Profile,
    budgets: &[Budget],
) -> Option<Preemption> {
    if !pod.may_preempt {
        return None;
    }
    let candidates = (0..snapshot.nodes.len()).filter_map(|index| {
        let (victims, violations) = victims_on(index, pod, snapshot, profile, budgets)?;
        Some((cost(&victims, violations), Preemption { node: snapshot.nodes[index].name.clone(), victims }))
    });
    candidates.min_by_key(|(cost, _)| *cost).map(|(_, preemption)| preemption)
}

type Cost = (usize, i32, i64, usize, std::cmp::Reverse<i64>);

fn cost(victims: &[Arc<PodInfo>], violations: usize) -> Cost {
    let highest = victims.iter().map(|v| v.priority).max().unwrap_or(i32::MIN);
    // Shifted, so that many pods of negative priority cost more than few.
    let sum = victims.iter().map(|v| i64::from(v.priority) - i64::from(i32::MIN)).sum();
    let oldest_important =
        victims.iter().filter(|v| v.priority == highest).map(|v| v.started).min().unwrap_or(0);
    (violations, highest, sum, victims.len(), std::cmp::Reverse(oldest_important))
}

/// The least that must go from one node, and how many budgets that breaks.
fn victims_on(
    index: usize,
    pod: &PodInfo,
    snapshot: &Snapshot,
    profile: &Profile,
    budgets: &[Budget],
) -> Option<(Vec<Arc<PodInfo>>, usize)> {
    let fits = |node: &NodeInfo| {
        let changed = snapshot.with_node(index, node.clone());
        prepare(pod, &changed, profile)
            .is_ok_and(|judgements| reject(&judgements, &changed.nodes[index]).is_none())
    };
    let original = &snapshot.nodes[index];
    // A node that no eviction helps needs no search.
    let judgements = prepare(pod, snapshot, profile).ok()?;
    if !reject(&judgements, original)?.resolvable {
        return None;
    }
    let mut node = NodeInfo::clone(original);
    let mut lower: Vec<Arc<PodInfo>> =
        node.pods.iter().filter(|p| p.priority < pod.priority).cloned().collect();
    if lower.is_empty() {
        return None;
    }
    lower.iter().for_each(|victim| drop(node.remove_pod(&victim.id.uid)));
    if !fits(&node) {
        return None;
    }
    // Spare them again one by one: those that a budget protects first, then the most important, then the oldest.
    let protected = protected(&lower, budgets);
    lower.sort_by_key(|p| (!protected.contains_key(&p.id.uid), std::cmp::Reverse(p.priority), p.started));
    let mut victims = Vec::new();
    for candidate in lower {
        node.add_pod(Arc::clone(&candidate));
        if !fits(&node) {
            node.remove_pod(&candidate.id.uid);
            victims.push(candidate);
        }
    }
    let violations = victims.iter().filter(|v| protected.contains_key(&v.id.uid)).count();
    Some((victims, violations))
}

/// The pods whose eviction some budget has no room for, counting each budget down pod by pod.
fn protected(pods: &[Arc<PodInfo>], budgets: &[Budget]) -> HashMap<String, ()> {
    let mut left: Vec<i64> = budgets.iter().map(|b| b.allowed).collect();
    let mut protected = HashMap::new();
    for pod in pods {
        for (budget, left) in budgets.iter().zip(&mut left) {
            if budget.namespace == pod.id.namespace && budget.selector.matches(&pod.labels) {
                *left -= 1;
                if *left < 0 {
                    protected.insert(pod.id.uid.clone(), ());
                }
            }
        }
    }
    protected
}
