//! What a node says of itself: schedulability, taints, labels, ports, images.

use crate::api::Taint;
use crate::cache::Snapshot;
use crate::framework::{Judgement, MAX_SCORE, Plugin, Rejection, as_is, scaled, scaled_reversed};
use crate::pod::PodInfo;

pub struct NodeUnschedulable;

impl Plugin for NodeUnschedulable {
    fn name(&self) -> &'static str {
        "NodeUnschedulable"
    }

    fn prepare<'a>(&self, pod: &'a PodInfo, _: &'a Snapshot) -> Judgement<'a> {
        let taint = Taint {
            key: "node.kubernetes.io/unschedulable".into(),
            effect: "NoSchedule".into(),
            ..Taint::default()
        };
        if pod.tolerates(&taint) {
            return Judgement::default();
        }
        let reason = "node(s) were unschedulable";
        Judgement::filtering(move |node| node.unschedulable.then(|| Rejection::unresolvable(reason)))
    }
}

pub struct TaintToleration;

impl Plugin for TaintToleration {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }

    fn prepare<'a>(&self, pod: &'a PodInfo, _: &'a Snapshot) -> Judgement<'a> {
        Judgement::filtering(|node| {
            let taint = node.hard_taints().find(|taint| !pod.tolerates(taint))?;
            let (key, value) = (&taint.key, &taint.value);
            let tainted = if value.is_empty() { key.clone() } else { format!("{key}: {value}") };
            Some(Rejection::unresolvable(format!("node(s) had untolerated taint(s) {{{tainted}}}")))
        })
        .with_score(
            |node| {
                let soft = node.taints.iter().filter(|t| t.effect == "PreferNoSchedule");
                i64::try_from(soft.filter(|t| !pod.tolerates(t)).count()).unwrap_or(i64::MAX)
            },
            scaled_reversed,
        )
    }
}

/// The node selector and node affinity; `spec.nodeName` binds without a scheduler and never comes here.
pub struct NodeAffinity;

impl Plugin for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }

    fn prepare<'a>(&self, pod: &'a PodInfo, _: &'a Snapshot) -> Judgement<'a> {
        let reason = "node(s) didn't match Pod's node affinity/selector";
        let mut judgement = Judgement::default();
        if !pod.node_selector.is_everything() || pod.required_nodes.is_some() {
            judgement = Judgement::filtering(move |node| {
                (!pod.accepts_node(&node.name, &node.labels)).then(|| Rejection::unresolvable(reason))
            });
        }
        if pod.preferred_nodes.is_empty() {
            return judgement;
        }
        judgement.with_score(
            |node| {
                let terms = pod.preferred_nodes.iter().filter(|(_, t)| t.matches(&node.name, &node.labels));
                terms.map(|(weight, _)| weight).sum()
            },
            scaled,
        )
    }
}

pub struct NodePorts;

impl Plugin for NodePorts {
    fn name(&self) -> &'static str {
        "NodePorts"
    }

    fn prepare<'a>(&self, pod: &'a PodInfo, _: &'a Snapshot) -> Judgement<'a> {
        if pod.host_ports.is_empty() {
            return Judgement::default();
        }
        let reason = "node(s) didn't have free ports for the requested pod ports";
        Judgement::filtering(move |node| {
            pod.host_ports.iter().any(|port| node.port_taken(port)).then(|| Rejection::new(reason))
        })
    }
}

/// Prefers nodes that have the images already, less so for an image that few nodes have.
pub struct ImageLocality;

/// Below and above these (per container) size does not matter.
const SMALL_IMAGE: i64 = 23 << 20;
const LARGE_IMAGE: i64 = 1000 << 20;

impl Plugin for ImageLocality {
    fn name(&self) -> &'static str {
        "ImageLocality"
    }

    fn prepare<'a>(&self, pod: &'a PodInfo, snapshot: &'a Snapshot) -> Judgement<'a> {
        let images: Vec<String> = pod.images.iter().map(|image| normalized(image)).collect();
        let having: Vec<i64> = images
            .iter()
            .map(|image| snapshot.nodes.iter().filter(|node| node.images.contains_key(image)).count())
            .map(|count| i64::try_from(count).unwrap_or(i64::MAX))
            .collect();
        if having.iter().all(|count| *count == 0) {
            return Judgement::default();
        }
        let nodes = i64::try_from(snapshot.nodes.len()).unwrap_or(i64::MAX);
        let large = LARGE_IMAGE * i64::try_from(images.len()).unwrap_or(1);
        Judgement::default().with_score(
            move |node| {
                let sizes = images.iter().zip(&having).map(|(image, having)| {
                    node.images
                        .get(image)
                        .map_or(0, |size| i64::min(*size, i64::MAX / nodes) * having / nodes)
                });
                let sum = sizes.sum::<i64>().clamp(SMALL_IMAGE, large);
                MAX_SCORE * (sum - SMALL_IMAGE) / (large - SMALL_IMAGE)
            },
            as_is,
        )
    }
}

/// Nodes report image names with their tag.
fn normalized(image: &str) -> String {
    let tagged = image.rfind(':').is_some_and(|colon| image.rfind('/').is_none_or(|slash| colon > slash));
    if tagged || image.contains('@') { image.to_owned() } else { format!("{image}:latest") }
}
