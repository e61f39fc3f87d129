//! One pod, one snapshot, one profile: the best node, or the reasons against every one.

use std::collections::BTreeMap;
use std::fmt;

use crate::cache::Snapshot;
use crate::framework::{Judgement, Profile, Rejection};
use crate::node::NodeInfo;
use crate::pod::PodInfo;

/// The node for a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    pub node: String,
    pub evaluated: usize,
    pub feasible: usize,
}

/// Why a pod fits nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FitError {
    pub nodes: usize,
    /// By node index in the snapshot.
    pub rejections: Vec<Rejection>,
    /// Says it of the pod itself, whatever the nodes.
    pub pod: Option<Rejection>,
}

impl std::error::Error for FitError {}

/// The message of the `FailedScheduling` event and of the `PodScheduled` condition.
impl fmt::Display for FitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0/{} nodes are available", self.nodes)?;
        if let Some(rejection) = &self.pod {
            return write!(f, ": {}.", rejection.reason);
        }
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for rejection in &self.rejections {
            *counts.entry(&rejection.reason).or_default() += 1;
        }
        let mut reasons: Vec<String> =
            counts.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        reasons.sort();
        match reasons.is_empty() {
            true => f.write_str("."),
            false => write!(f, ": {}.", reasons.join(", ")),
        }
    }
}

/// Places pods, starting each search where the last one ended, so that a search that stops early is fair to all nodes.
#[derive(Debug, Default)]
pub struct Scheduler {
    next: usize,
}

/// A cluster up to this size is searched whole.
const SEARCHED_WHOLE: usize = 100;

/// How many feasible nodes are enough: all of a small cluster, a falling share (50 % down to 5 %) of a large one.
fn enough(nodes: usize) -> usize {
    if nodes < SEARCHED_WHOLE {
        return nodes;
    }
    let percent = 50_usize.saturating_sub(nodes / 125).max(5);
    (nodes * percent / 100).max(SEARCHED_WHOLE)
}

impl Scheduler {
    pub fn schedule(
        &mut self,
        pod: &PodInfo,
        snapshot: &Snapshot,
        profile: &Profile,
    ) -> Result<Placement, FitError> {
        let judgements = prepare(pod, snapshot, profile)?;
        let total = snapshot.nodes.len();
        let wanted = enough(total);
        let mut feasible: Vec<&NodeInfo> = Vec::with_capacity(wanted);
        let mut rejections = Vec::new();
        let mut evaluated = 0;
        for offset in 0..total {
            let node = &snapshot.nodes[(self.next + offset) % total];
            evaluated += 1;
            match reject(&judgements, node) {
                None => feasible.push(node),
                Some(rejection) => rejections.push(rejection),
            }
            if feasible.len() >= wanted {
                break;
            }
        }
        if feasible.is_empty() {
            return Err(FitError { nodes: total, rejections, pod: None });
        }
        let best = best(&feasible, &judgements, self.next);
        let placement = Placement { node: feasible[best].name.clone(), evaluated, feasible: feasible.len() };
        self.next = (self.next + evaluated) % total;
        Ok(placement)
    }
}

/// What every plugin of the profile has to say about the pod, with the plugin's weight.
pub(crate) fn prepare<'a>(
    pod: &'a PodInfo,
    snapshot: &'a Snapshot,
    profile: &Profile,
) -> Result<Vec<(Judgement<'a>, i64)>, FitError> {
    let mut judgements = Vec::with_capacity(profile.plugins.len());
    for (plugin, weight) in &profile.plugins {
        let mut judgement = plugin.prepare(pod, snapshot);
        if let Some(rejection) = judgement.reject.take() {
            return Err(FitError {
                nodes: snapshot.nodes.len(),
                rejections: Vec::new(),
                pod: Some(rejection),
            });
        }
        judgements.push((judgement, *weight));
    }
    Ok(judgements)
}

pub(crate) fn reject(judgements: &[(Judgement<'_>, i64)], node: &NodeInfo) -> Option<Rejection> {
    judgements.iter().find_map(|(judgement, _)| judgement.filter.as_ref().and_then(|filter| filter(node)))
}

/// The index of the best node; among equals one that differs from decision to decision.
fn best(feasible: &[&NodeInfo], judgements: &[(Judgement<'_>, i64)], turn: usize) -> usize {
    if feasible.len() == 1 {
        return 0;
    }
    let mut totals = vec![0_i64; feasible.len()];
    let mut scores = vec![0_i64; feasible.len()];
    for (score, weight) in judgements.iter().filter_map(|(j, w)| j.score.as_ref().map(|s| (s, w))) {
        for (slot, node) in scores.iter_mut().zip(feasible) {
            *slot = (score.of)(node);
        }
        (score.normalize)(&mut scores);
        for (total, score) in totals.iter_mut().zip(&scores) {
            *total += score * weight;
        }
    }
    let highest = totals.iter().copied().max().unwrap_or(0);
    let equals: Vec<usize> = (0..totals.len()).filter(|i| totals[*i] == highest).collect();
    equals[turn % equals.len()]
}
