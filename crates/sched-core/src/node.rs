//! A node and what its pods take of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::api::{ContainerPort, Labels, NodeSpec, NodeStatus, Taint};
use crate::pod::PodInfo;
use crate::resources::Resources;

#[derive(Debug, Clone, Default)]
pub struct NodeInfo {
    pub name: String,
    pub labels: Labels,
    pub unschedulable: bool,
    pub taints: Vec<Taint>,
    pub allocatable: Resources,
    /// Bytes of each image that the node has, by every name of it.
    pub images: BTreeMap<String, i64>,
    pub pods: Vec<Arc<PodInfo>>,
    pub requested: Resources,
    pub assumed_requested: Resources,
    /// Whether any of its pods has a required anti-affinity; most nodes need no look then.
    pub pods_with_anti_affinity: usize,
}

impl NodeInfo {
    pub fn new(name: String, labels: Labels, spec: &NodeSpec, status: &NodeStatus) -> Self {
        let mut node = Self { name, ..Self::default() };
        node.update(labels, spec, status);
        node
    }

    /// Takes over what the node itself says; its pods stay.
    pub fn update(&mut self, labels: Labels, spec: &NodeSpec, status: &NodeStatus) {
        self.labels = labels;
        self.unschedulable = spec.unschedulable;
        self.taints.clone_from(&spec.taints);
        self.allocatable = Resources::parse(&status.allocatable);
        let named = status.images.iter().flat_map(|i| i.names.iter().map(move |n| (n.clone(), i.size_bytes)));
        self.images = named.collect();
    }

    pub fn add_pod(&mut self, pod: Arc<PodInfo>) {
        self.requested.add(&pod.requests);
        self.assumed_requested.add(&pod.assumed_requests);
        self.pods_with_anti_affinity += usize::from(!pod.anti_affinity.is_empty());
        self.pods.push(pod);
    }

    pub fn remove_pod(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        let at = self.pods.iter().position(|pod| pod.id.uid == uid)?;
        let pod = self.pods.swap_remove(at);
        self.requested.subtract(&pod.requests);
        self.assumed_requested.subtract(&pod.assumed_requests);
        self.pods_with_anti_affinity -= usize::from(!pod.anti_affinity.is_empty());
        Some(pod)
    }

    /// Taints that keep pods away, rather than only making the node less attractive.
    pub fn hard_taints(&self) -> impl Iterator<Item = &Taint> {
        self.taints.iter().filter(|t| t.effect == "NoSchedule" || t.effect == "NoExecute")
    }

    pub fn port_taken(&self, wanted: &ContainerPort) -> bool {
        self.pods.iter().flat_map(|pod| &pod.host_ports).any(|taken| {
            let same_address =
                taken.host_ip == wanted.host_ip || taken.host_ip == "0.0.0.0" || wanted.host_ip == "0.0.0.0";
            taken.host_port == wanted.host_port && taken.protocol == wanted.protocol && same_address
        })
    }
}
