//! What a scheduling plugin is, and profiles made of them.

use std::borrow::Cow;
use std::sync::Arc;

use crate::cache::Snapshot;
use crate::node::NodeInfo;
use crate::pod::PodInfo;

/// The best score that a plugin gives a node.
pub const MAX_SCORE: i64 = 100;

/// Why a node (or all of them) does not take a pod, in the words that users see in events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    pub reason: Cow<'static, str>,
    /// Whether evicting pods from the node could change it.
    pub resolvable: bool,
}

impl Rejection {
    pub fn new(reason: impl Into<Cow<'static, str>>) -> Self {
        Self { reason: reason.into(), resolvable: true }
    }

    pub fn unresolvable(reason: impl Into<Cow<'static, str>>) -> Self {
        Self { reason: reason.into(), resolvable: false }
    }
}

/// One concern of scheduling. [`Plugin::prepare`] looks at the pod and at all nodes once; what it returns then
/// judges node by node.
pub trait Plugin: Send + Sync {
    fn name(&self) -> &'static str;

    fn prepare<'a>(&self, pod: &'a PodInfo, snapshot: &'a Snapshot) -> Judgement<'a>;
}

/// What one plugin has to say about one pod. Without a filter it lets every node pass, without a score it is indifferent.
#[derive(Default)]
pub struct Judgement<'a> {
    /// The pod fits nowhere, whatever the nodes.
    pub reject: Option<Rejection>,
    pub filter: Option<Box<Filter<'a>>>,
    pub score: Option<Score<'a>>,
}

pub type Filter<'a> = dyn Fn(&NodeInfo) -> Option<Rejection> + 'a;

/// Any number per node, brought into 0..=[`MAX_SCORE`] by `normalize`.
pub struct Score<'a> {
    pub of: Box<dyn Fn(&NodeInfo) -> i64 + 'a>,
    pub normalize: fn(&mut [i64]),
}

impl<'a> Judgement<'a> {
    pub fn filtering(filter: impl Fn(&NodeInfo) -> Option<Rejection> + 'a) -> Self {
        Self { filter: Some(Box::new(filter)), ..Self::default() }
    }

    pub fn rejecting(rejection: Rejection) -> Self {
        Self { reject: Some(rejection), ..Self::default() }
    }

    pub fn with_score(mut self, of: impl Fn(&NodeInfo) -> i64 + 'a, normalize: fn(&mut [i64])) -> Self {
        self.score = Some(Score { of: Box::new(of), normalize });
        self
    }
}

/// The score is in 0..=[`MAX_SCORE`] already.
pub fn as_is(_: &mut [i64]) {}

/// The highest becomes [`MAX_SCORE`].
pub fn scaled(scores: &mut [i64]) {
    let highest = scores.iter().copied().max().unwrap_or(0);
    if highest > 0 {
        scores.iter_mut().for_each(|score| *score = *score * MAX_SCORE / highest);
    }
}

/// The highest becomes 0 and 0 becomes [`MAX_SCORE`].
pub fn scaled_reversed(scores: &mut [i64]) {
    scaled(scores);
    scores.iter_mut().for_each(|score| *score = MAX_SCORE - *score);
}

/// The lowest becomes 0 and the highest [`MAX_SCORE`]; all equal become 0.
pub fn spread_out(scores: &mut [i64]) {
    let (Some(low), Some(high)) = (scores.iter().copied().min(), scores.iter().copied().max()) else {
        return;
    };
    let range = (high - low).max(1);
    scores.iter_mut().for_each(|score| *score = (*score - low) * MAX_SCORE / range);
}

/// A named choice of plugins with their weights; `spec.schedulerName` selects one.
#[derive(Clone)]
pub struct Profile {
    pub scheduler_name: String,
    pub plugins: Vec<(Arc<dyn Plugin>, i64)>,
}

impl Profile {
    /// Upstream's default plugins and weights.
    pub fn standard(scheduler_name: &str) -> Self {
        Self { scheduler_name: scheduler_name.to_owned(), plugins: crate::plugins::standard() }
    }

    /// Leaves out plugins by name, or weighs them differently; names an unknown one as the error.
    pub fn adjusted(mut self, disabled: &[String], weights: &[(String, i64)]) -> Result<Self, String> {
        for name in disabled.iter().chain(weights.iter().map(|(name, _)| name)) {
            if !self.plugins.iter().any(|(plugin, _)| plugin.name() == name) {
                return Err(name.clone());
            }
        }
        self.plugins.retain(|(plugin, _)| !disabled.iter().any(|name| name == plugin.name()));
        for (plugin, weight) in &mut self.plugins {
            if let Some((_, wanted)) = weights.iter().find(|(name, _)| name == plugin.name()) {
                *weight = *wanted;
            }
        }
        Ok(self)
    }
}
