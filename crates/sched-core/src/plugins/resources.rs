//! Whether a node's free resources suffice, and which nodes they suit best.

use crate::cache::Snapshot;
use crate::framework::{Judgement, MAX_SCORE, Plugin, Rejection, as_is};
use crate::node::NodeInfo;
use crate::pod::PodInfo;

/// `NodeResourcesFit`, scoring the least allocated best.
pub struct Fit;

impl Plugin for Fit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }

    fn prepare<'a>(&self, pod: &'a PodInfo, _: &'a Snapshot) -> Judgement<'a> {
        Judgement::filtering(|node| insufficient(pod, node)).with_score(
            |node| {
                let free = cpu_and_memory(pod, node).map(|(used, capacity)| {
                    if capacity == 0 || used > capacity {
                        0
                    } else {
                        (capacity - used) * MAX_SCORE / capacity
                    }
                });
                free.iter().sum::<i64>() / 2
            },
            as_is,
        )
    }
}

/// The first thing that the node lacks. Upstream lists several per node; users see them counted per reason, and
/// the first is the one that has to change.
fn insufficient(pod: &PodInfo, node: &NodeInfo) -> Option<Rejection> {
    let (want, has, used) = (&pod.requests, &node.allocatable, &node.requested);
    // What no eviction can free makes the node hopeless.
    let lacking = |want: i64, has: i64, used: i64, reason: String| {
        (want > 0 && want > has.saturating_sub(used))
            .then(|| if want > has { Rejection::unresolvable(reason) } else { Rejection::new(reason) })
    };
    if i64::try_from(node.pods.len()).unwrap_or(i64::MAX) >= has.pods {
        return Some(Rejection::new("Too many pods"));
    }
    lacking(want.milli_cpu, has.milli_cpu, used.milli_cpu, "Insufficient cpu".into())
        .or_else(|| lacking(want.memory, has.memory, used.memory, "Insufficient memory".into()))
        .or_else(|| {
            let reason = "Insufficient ephemeral-storage";
            lacking(want.ephemeral_storage, has.ephemeral_storage, used.ephemeral_storage, reason.into())
        })
        .or_else(|| {
            let of = |all: &std::collections::BTreeMap<String, i64>, name: &str| {
                all.get(name).copied().unwrap_or(0)
            };
            want.scalar.iter().find_map(|(name, want)| {
                lacking(*want, of(&has.scalar, name), of(&used.scalar, name), format!("Insufficient {name}"))
            })
        })
}

/// (used including the pod, capacity) of CPU and of memory, unstated requests at their assumed size.
fn cpu_and_memory(pod: &PodInfo, node: &NodeInfo) -> [(i64, i64); 2] {
    let (pod, node_used, has) = (&pod.assumed_requests, &node.assumed_requested, &node.allocatable);
    [
        (node_used.milli_cpu + pod.milli_cpu, has.milli_cpu),
        (node_used.memory.saturating_add(pod.memory), has.memory),
    ]
}

/// Prefers nodes whose CPU and memory would be used to a similar degree.
pub struct BalancedAllocation;

impl Plugin for BalancedAllocation {
    fn name(&self) -> &'static str {
        "NodeResourcesBalancedAllocation"
    }

    fn prepare<'a>(&self, pod: &'a PodInfo, _: &'a Snapshot) -> Judgement<'a> {
        Judgement::default().with_score(
            |node| {
                let [cpu, memory] = cpu_and_memory(pod, node)
                    .map(|(used, has)| if has == 0 { 1.0 } else { (used as f64 / has as f64).min(1.0) });
                // The standard deviation of two numbers is half their distance.
                ((1.0 - (cpu - memory).abs() / 2.0) * MAX_SCORE as f64) as i64
            },
            as_is,
        )
    }
}
