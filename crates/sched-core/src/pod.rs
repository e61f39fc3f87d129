//! A pod, digested once when it arrives: sums, parsed selectors, resolved namespaces.

use std::collections::BTreeSet;
use std::sync::Arc;

use keelson_api_types::selector::{LabelSelector, Operator, Requirement};

use crate::api::{self, ContainerPort, Expression, Labels, PodSpec, Toleration};
use crate::resources::{self, Resources};

/// Who a pod is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

#[derive(Debug, Clone)]
pub struct PodInfo {
    pub id: Identity,
    pub labels: Labels,
    pub priority: i32,
    pub may_preempt: bool,
    /// It is being deleted; what it holds is soon free.
    pub terminating: bool,
    /// Seconds since the epoch, to prefer the eviction of the younger one.
    pub started: i64,
    pub node_name: String,
    pub requests: Resources,
    /// The requests with the spreading scores' defaults for what is left open.
    pub assumed_requests: Resources,
    pub host_ports: BTreeSet<ContainerPort>,
    pub node_selector: LabelSelector,
    pub required_nodes: Option<Vec<NodeTerm>>,
    pub preferred_nodes: Vec<(i64, NodeTerm)>,
    pub affinity: Vec<PodTerm>,
    pub anti_affinity: Vec<PodTerm>,
    /// Weights are negative for anti-affinity.
    pub preferred_pods: Vec<(i64, PodTerm)>,
    pub tolerations: Vec<Toleration>,
    pub spread: Vec<Spread>,
    pub images: Vec<String>,
    pub claims: Vec<String>,
    pub gates: Vec<String>,
}

/// One alternative of a node affinity: all its requirements must hold.
#[derive(Debug, Clone)]
pub struct NodeTerm {
    labels: LabelSelector,
    fields: Vec<Requirement>,
}

/// One term of a pod (anti-)affinity.
#[derive(Debug, Clone)]
pub struct PodTerm {
    pub topology_key: String,
    pub selector: LabelSelector,
    namespaces: BTreeSet<String>,
    namespace_selector: Option<LabelSelector>,
}

#[derive(Debug, Clone)]
pub struct Spread {
    pub topology_key: String,
    pub max_skew: i64,
    pub min_domains: i64,
    /// `DoNotSchedule`; otherwise it only weighs.
    pub hard: bool,
    pub selector: LabelSelector,
    /// Nodes that the pod's node affinity rules out do not count (the default).
    pub honor_affinity: bool,
    /// Nodes with taints that the pod does not tolerate do not count (not the default).
    pub honor_taints: bool,
}

/// The labels of namespaces, for affinity terms that select namespaces by label.
pub trait Namespaces {
    fn labels_of(&self, namespace: &str) -> Option<Arc<Labels>>;
}

impl PodInfo {
    pub fn new(id: Identity, labels: Labels, spec: &PodSpec) -> Self {
        let (requests, assumed_requests) = resources::of_pod(spec);
        let affinity = spec.affinity.clone().unwrap_or_default();
        let nodes = affinity.node_affinity.unwrap_or_default();
        let (pods, anti) =
            (affinity.pod_affinity.unwrap_or_default(), affinity.pod_anti_affinity.unwrap_or_default());
        let term = |t: &api::PodAffinityTerm| PodTerm::new(t, &id.namespace, &labels);
        let weighted = |terms: &[api::WeightedPodAffinityTerm], sign: i64| -> Vec<(i64, PodTerm)> {
            terms.iter().map(|t| (sign * t.weight, term(&t.pod_affinity_term))).collect()
        };
        let mut preferred_pods = weighted(&pods.preferred, 1);
        preferred_pods.extend(weighted(&anti.preferred, -1));
        Self {
            priority: spec.priority.unwrap_or(0),
            may_preempt: spec.preemption_policy.as_deref() != Some("Never"),
            terminating: false,
            started: 0,
            node_name: spec.node_name.clone(),
            requests,
            assumed_requests,
            host_ports: host_ports(spec),
            node_selector: LabelSelector::from_map(
                spec.node_selector.iter().map(|(k, v)| (k.as_str(), v.as_str())),
            ),
            required_nodes: nodes.required.map(|r| r.node_selector_terms.iter().map(NodeTerm::new).collect()),
            preferred_nodes: nodes
                .preferred
                .iter()
                .map(|p| (p.weight, NodeTerm::new(&p.preference)))
                .collect(),
            affinity: pods.required.iter().map(term).collect(),
            anti_affinity: anti.required.iter().map(term).collect(),
            preferred_pods,
            tolerations: spec.tolerations.clone(),
            spread: spec.topology_spread_constraints.iter().map(|c| Spread::new(c, &labels)).collect(),
            images: spec.containers.iter().chain(&spec.init_containers).map(|c| c.image.clone()).collect(),
            claims: claims(spec, &id.name),
            gates: spec.scheduling_gates.iter().map(|g| g.name.clone()).collect(),
            labels,
            id,
        }
    }

    /// Whether a node's labels satisfy the node selector and the required node affinity.
    pub fn accepts_node(&self, name: &str, labels: &Labels) -> bool {
        self.node_selector.matches(labels)
            && self.required_nodes.as_ref().is_none_or(|terms| terms.iter().any(|t| t.matches(name, labels)))
    }

    pub fn tolerates(&self, taint: &api::Taint) -> bool {
        self.tolerations.iter().any(|t| tolerates(t, taint))
    }
}

fn tolerates(toleration: &Toleration, taint: &api::Taint) -> bool {
    let effect = toleration.effect.is_empty() || toleration.effect == taint.effect;
    let key = toleration.key.is_empty() || toleration.key == taint.key;
    effect
        && key
        && match toleration.operator.as_str() {
            "Exists" => true,
            "" | "Equal" => !toleration.key.is_empty() && toleration.value == taint.value,
            // Numeric comparison of both values.
            operator @ ("Lt" | "Gt") => match (taint.value.parse::<i64>(), toleration.value.parse::<i64>()) {
                (Ok(tainted), Ok(limit)) if operator == "Lt" => tainted < limit,
                (Ok(tainted), Ok(limit)) => tainted > limit,
                _ => false,
            },
            _ => false,
        }
}

fn host_ports(spec: &PodSpec) -> BTreeSet<ContainerPort> {
    let sidecars = spec.init_containers.iter().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|c| &c.ports).filter(|p| p.host_port != 0);
    ports
        .map(|port| {
            let mut port = port.clone();
            if port.protocol.is_empty() {
                port.protocol = "TCP".into();
            }
            if port.host_ip.is_empty() {
                port.host_ip = "0.0.0.0".into();
            }
            port
        })
        .collect()
}

fn claims(spec: &PodSpec, pod: &str) -> Vec<String> {
    let claim = |volume: &api::Volume| match (&volume.persistent_volume_claim, &volume.ephemeral) {
        (Some(source), _) => Some(source.claim_name.clone()),
        (None, Some(_)) => Some(format!("{pod}-{}", volume.name)),
        (None, None) => None,
    };
    spec.volumes.iter().filter_map(claim).collect()
}

fn requirement(expression: &Expression) -> Option<Requirement> {
    let op = match expression.operator.as_str() {
        "In" => Operator::In,
        "NotIn" => Operator::NotIn,
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        "Gt" => Operator::GreaterThan,
        "Lt" => Operator::LessThan,
        _ => return None,
    };
    Some(Requirement { key: expression.key.clone(), op, values: expression.values.clone() })
}

/// An unknown operator selects nothing.
fn requirements(expressions: &[Expression]) -> Option<Vec<Requirement>> {
    expressions.iter().map(requirement).collect()
}

/// Absent selects nothing, empty selects everything.
fn selector(of: Option<&api::LabelSelector>) -> LabelSelector {
    let Some(of) = of else { return LabelSelector::nothing() };
    let Some(mut all) = requirements(&of.match_expressions) else { return LabelSelector::nothing() };
    all.extend(of.match_labels.iter().map(|(key, value)| equal(key, value)));
    LabelSelector::new(all)
}

fn equal(key: &str, value: &str) -> Requirement {
    Requirement { key: key.to_owned(), op: Operator::In, values: vec![value.to_owned()] }
}

/// The selector, narrowed to (or away from) the pod's own values of these labels.
fn with_label_keys(
    base: Option<&api::LabelSelector>,
    labels: &Labels,
    same: &[String],
    other: &[String],
) -> LabelSelector {
    let selector = selector(base);
    let own = |keys: &[String], op: Operator| -> Vec<Requirement> {
        let found = keys.iter().filter_map(|key| labels.get(key).map(|value| (key, value)));
        found.map(|(key, value)| Requirement { op, ..equal(key, value) }).collect()
    };
    let extra: Vec<_> = own(same, Operator::In).into_iter().chain(own(other, Operator::NotIn)).collect();
    if extra.is_empty() || base.is_none() {
        return selector;
    }
    LabelSelector::new(selector.requirements().iter().cloned().chain(extra).collect())
}

impl NodeTerm {
    fn new(term: &api::NodeSelectorTerm) -> Self {
        let empty = term.match_expressions.is_empty() && term.match_fields.is_empty();
        match (requirements(&term.match_expressions), requirements(&term.match_fields)) {
            (Some(labels), Some(fields)) if !empty => Self { labels: LabelSelector::new(labels), fields },
            // A term without requirements matches no node.
            _ => Self { labels: LabelSelector::nothing(), fields: Vec::new() },
        }
    }

    pub fn matches(&self, name: &str, labels: &Labels) -> bool {
        self.labels.matches(labels) && self.fields.iter().all(|field| field_matches(field, name))
    }
}

/// `metadata.name` is the only field there is.
fn field_matches(requirement: &Requirement, name: &str) -> bool {
    if requirement.key != "metadata.name" {
        return false;
    }
    let named = requirement.values.iter().any(|value| value == name);
    match requirement.op {
        Operator::In => named,
        Operator::NotIn => !named,
        _ => false,
    }
}

impl PodTerm {
    fn new(term: &api::PodAffinityTerm, namespace: &str, labels: &Labels) -> Self {
        let mut namespaces: BTreeSet<String> = term.namespaces.iter().cloned().collect();
        if namespaces.is_empty() && term.namespace_selector.is_none() {
            namespaces.insert(namespace.to_owned());
        }
        Self {
            topology_key: term.topology_key.clone(),
            selector: with_label_keys(
                term.label_selector.as_ref(),
                labels,
                &term.match_label_keys,
                &term.mismatch_label_keys,
            ),
            namespaces,
            namespace_selector: term.namespace_selector.as_ref().map(|s| selector(Some(s))),
        }
    }

    /// Whether a pod is one that this term speaks of.
    pub fn matches(&self, pod: &PodInfo, namespaces: &dyn Namespaces) -> bool {
        self.selector.matches(&pod.labels) && self.covers(&pod.id.namespace, namespaces)
    }

    fn covers(&self, namespace: &str, namespaces: &dyn Namespaces) -> bool {
        self.namespaces.contains(namespace)
            || self.namespace_selector.as_ref().is_some_and(|selector| {
                selector.is_everything()
                    || namespaces.labels_of(namespace).is_some_and(|labels| selector.matches(&*labels))
            })
    }
}

impl Spread {
    fn new(constraint: &api::TopologySpreadConstraint, labels: &Labels) -> Self {
        Self {
            topology_key: constraint.topology_key.clone(),
            max_skew: constraint.max_skew,
            min_domains: constraint.min_domains.unwrap_or(1),
            hard: constraint.when_unsatisfiable != "ScheduleAnyway",
            selector: with_label_keys(
                constraint.label_selector.as_ref(),
                labels,
                &constraint.match_label_keys,
                &[],
            ),
            honor_affinity: constraint.node_affinity_policy.as_deref() != Some("Ignore"),
            honor_taints: constraint.node_taints_policy.as_deref() == Some("Honor"),
        }
    }

    /// Whether a node is one of those among which this constraint spreads.
    pub fn counts_node(&self, pod: &PodInfo, node: &crate::NodeInfo) -> bool {
        (!self.honor_affinity || pod.accepts_node(&node.name, &node.labels))
            && (!self.honor_taints || node.hard_taints().all(|taint| pod.tolerates(taint)))
    }
}
