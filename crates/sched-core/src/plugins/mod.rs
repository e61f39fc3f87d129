//! Upstream's default plugins, under upstream's names.

mod node;
mod pod_affinity;
mod resources;
mod spread;

use std::sync::Arc;

use crate::framework::Plugin;

/// The default plugins with their weights. The cheap filters that reject most come first.
pub fn standard() -> Vec<(Arc<dyn Plugin>, i64)> {
    vec![
        (Arc::new(node::NodeUnschedulable), 0),
        (Arc::new(node::TaintToleration), 3),
        (Arc::new(node::NodeAffinity), 2),
        (Arc::new(node::NodePorts), 0),
        (Arc::new(resources::Fit), 1),
        (Arc::new(spread::PodTopologySpread), 2),
        (Arc::new(pod_affinity::InterPodAffinity), 2),
        (Arc::new(resources::BalancedAllocation), 1),
        (Arc::new(node::ImageLocality), 1),
    ]
}
