//! Which nodes get a pod, and which pods have to go.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use keelson_api_types::LabelSelector;
use serde_json::{Value, json};

use crate::kit::history::REVISION_LABEL;
use crate::kit::{pods, scaled};
use crate::views::{DaemonSet, DaemonSetStatus, Node, Pod, Taint, Toleration};

/// Taints that daemons bear whatever their template says.
const TOLERATED: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];
const NETWORK: (&str, &str) = ("node.kubernetes.io/network-unavailable", "NoSchedule");

pub struct State<'a> {
    pub set: &'a DaemonSet,
    pub nodes: &'a [Arc<Node>],
    /// All that the set owns.
    pub pods: &'a [Arc<Pod>],
    /// Of the present template.
    pub hash: &'a str,
    pub now: Timestamp,
}

#[derive(Debug, Default)]
pub struct Actions {
    /// Names of nodes.
    pub create: Vec<String>,
    pub delete: Vec<Arc<Pod>>,
    /// Those of `delete` that failed on their own.
    pub failed: Vec<Arc<Pod>>,
}

/// Whether a node takes the set's pods, and whether those that it has may stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fit {
    run: bool,
    stay: bool,
}

/// The node that a pod is for: it is pinned there before the scheduler has bound it.
fn node_of(pod: &Pod) -> String {
    if !pod.spec.node_name.is_empty() {
        return pod.spec.node_name.clone();
    }
    let path = "/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms/0/matchFields/0/values/0";
    let pinned = pod.spec.affinity.as_ref().and_then(|a| a.pointer(path)).and_then(Value::as_str);
    pinned.unwrap_or_default().to_owned()
}

/// A daemon pod's tolerations: the template's and the built-in ones.
fn tolerations(template: &Value) -> Vec<Value> {
    let mut all: Vec<Value> =
        template.pointer("/spec/tolerations").and_then(Value::as_array).cloned().unwrap_or_default();
    let host_network = template.pointer("/spec/hostNetwork").and_then(Value::as_bool) == Some(true);
    for (key, effect) in TOLERATED.into_iter().chain(host_network.then_some(NETWORK)) {
        let toleration = json!({ "key": key, "operator": "Exists", "effect": effect });
        if !all.contains(&toleration) {
            all.push(toleration);
        }
    }
    all
}

/// The pod for a node.
pub fn pod(set: &DaemonSet, node: &str, hash: &str) -> Value {
    let mut pod = pods::from_template(&set.spec.template, set);
    pod["metadata"]["labels"][REVISION_LABEL] = hash.into();
    pod["spec"]["tolerations"] = tolerations(&set.spec.template).into();
    pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"] = json!({
        "nodeSelectorTerms": [{ "matchFields": [{ "key": "metadata.name", "operator": "In", "values": [node] }] }],
    });
    pod
}

/// Whether a template's node selector and required affinity let it run on a node.
fn selects(template: &Value, node: &Node) -> bool {
    if let Some(labels) = template.pointer("/spec/nodeSelector").and_then(Value::as_object) {
        let has = |(key, value): (&String, &Value)| {
            node.metadata.labels.get(key).map(String::as_str) == value.as_str()
        };
        if !labels.iter().all(has) {
            return false;
        }
    }
    let path = "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms";
    let Some(terms) = template.pointer(path).and_then(Value::as_array) else { return true };
    terms.iter().any(|term| matches_term(term, node))
}

fn matches_term(term: &Value, node: &Node) -> bool {
    let list = |key: &str| term.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    let (expressions, fields) = (list("matchExpressions"), list("matchFields"));
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let name = BTreeMap::from([("metadata.name".to_owned(), node.metadata.name.clone())]);
    expressions.iter().all(|e| matches_expression(e, &node.metadata.labels))
        && fields.iter().all(|e| matches_expression(e, &name))
}

fn matches_expression(expression: &Value, labels: &BTreeMap<String, String>) -> bool {
    let text = |key: &str| expression.get(key).and_then(Value::as_str).unwrap_or_default();
    let number = |text: &str| text.parse::<i64>().ok();
    match text("operator") {
        operator @ ("Gt" | "Lt") => {
            let bound = expression.pointer("/values/0").and_then(Value::as_str).and_then(number);
            let Some((value, bound)) = labels.get(text("key")).and_then(|v| number(v)).zip(bound) else {
                return false;
            };
            if operator == "Gt" { value > bound } else { value < bound }
        }
        _ => {
            let selector = json!({ "matchExpressions": [expression] });
            LabelSelector::from_object(Some(&selector)).is_ok_and(|s| s.matches(labels))
        }
    }
}

impl State<'_> {
    fn fit(&self, node: &Node) -> Fit {
        let template = &self.set.spec.template;
        let named = template.pointer("/spec/nodeName").and_then(Value::as_str).unwrap_or_default();
        if (!named.is_empty() && named != node.metadata.name) || !selects(template, node) {
            return Fit { run: false, stay: false };
        }
        let tolerations: Vec<Toleration> =
            tolerations(template).into_iter().filter_map(|t| serde_json::from_value(t).ok()).collect();
        let tolerated = |taint: &Taint| tolerations.iter().any(|t| t.tolerates(taint));
        let blocked = |effect: &str| node.spec.taints.iter().any(|t| t.effect == effect && !tolerated(t));
        let evicted = blocked("NoExecute");
        Fit { run: !evicted && !blocked("NoSchedule"), stay: !evicted }
    }

    fn by_node(&self) -> BTreeMap<String, Vec<Arc<Pod>>> {
        let mut nodes: BTreeMap<String, Vec<Arc<Pod>>> = BTreeMap::new();
        for pod in self.pods {
            nodes.entry(node_of(pod)).or_default().push(pod.clone());
        }
        // The oldest stays where there are several; one that is placed before one that is not.
        for pods in nodes.values_mut() {
            pods.sort_by_key(|p| (p.spec.node_name.is_empty(), p.created(), p.metadata.name.clone()));
        }
        nodes
    }

    fn is_new(&self, pod: &Pod) -> bool {
        pod.metadata.labels.get(REVISION_LABEL).is_some_and(|hash| hash == self.hash)
    }

    fn is_available(&self, pod: &Pod) -> bool {
        pod.is_available(self.set.spec.min_ready_seconds, self.now)
    }

    fn desired(&self) -> i32 {
        self.nodes.iter().filter(|n| self.fit(n).run).count() as i32
    }

    fn rolling(&self) -> bool {
        self.set.spec.update_strategy.r#type != "OnDelete"
    }

    /// Pods that may be there on top of one per node, and nodes that may lack theirs, during an update.
    fn limits(&self) -> (usize, usize) {
        let rolling = &self.set.spec.update_strategy.rolling_update;
        let desired = self.desired();
        let surge = scaled(rolling.max_surge.as_ref(), desired, true);
        let unavailable = match &rolling.max_unavailable {
            None if surge == 0 => 1,
            value => scaled(value.as_ref(), desired, true),
        };
        let unavailable = if surge == 0 { unavailable.max(1) } else { unavailable };
        (usize::try_from(surge).unwrap_or(0), usize::try_from(unavailable).unwrap_or(0))
    }

    pub fn actions(&self) -> Actions {
        let mut actions = Actions::default();
        let mut by_node = self.by_node();
        for node in self.nodes {
            let fit = self.fit(node);
            let present = by_node.remove(&node.metadata.name).unwrap_or_default();
            self.manage_node(&node.metadata.name, fit, &present, &mut actions);
        }
        // What is left is on nodes that are gone: the pod garbage collector's. Those never placed are ours.
        for pod in by_node.into_values().flatten() {
            if pod.spec.node_name.is_empty() && !pod.metadata.is_deleting() {
                actions.delete.push(pod);
            }
        }
        // A rollout only goes on from a state without other work.
        if self.rolling() && actions.create.is_empty() && actions.delete.is_empty() {
            self.roll(&mut actions);
        }
        actions
    }

    fn manage_node(&self, node: &str, fit: Fit, present: &[Arc<Pod>], actions: &mut Actions) {
        let staying: Vec<&Arc<Pod>> = present.iter().filter(|p| !p.metadata.is_deleting()).collect();
        if !fit.stay {
            actions.delete.extend(staying.into_iter().cloned());
            return;
        }
        if present.is_empty() {
            if fit.run {
                actions.create.push(node.to_owned());
            }
            return;
        }
        let (ended, running): (Vec<_>, Vec<_>) = staying.into_iter().partition(|p| p.is_finished());
        for pod in ended {
            actions.delete.push(pod.clone());
            actions.failed.push(pod.clone());
        }
        // During a surge an old and a new pod share the node.
        let (surge, _) = self.limits();
        let (new, old): (Vec<_>, Vec<_>) = running.into_iter().partition(|p| self.is_new(p));
        let extra: Vec<&Arc<Pod>> = match surge > 0 && self.rolling() {
            true => new.into_iter().skip(1).chain(old.into_iter().skip(1)).collect(),
            false => {
                let mut all: Vec<_> = new.into_iter().chain(old).collect();
                all.sort_by_key(|p| (p.spec.node_name.is_empty(), p.created(), p.metadata.name.clone()));
                all.into_iter().skip(1).collect()
            }
        };
        actions.delete.extend(extra.into_iter().cloned());
    }

    fn roll(&self, actions: &mut Actions) {
        let (surge, max_unavailable) = self.limits();
        let by_node = self.by_node();
        let none = Vec::new();
        let (mut unavailable, mut surging) = (0, 0);
        let (mut broken, mut candidates, mut pending) = (Vec::new(), Vec::new(), Vec::new());
        for node in self.nodes.iter().filter(|n| self.fit(n).run) {
            let pods = by_node.get(&node.metadata.name).unwrap_or(&none);
            let new = pods.iter().find(|p| self.is_new(p) && !p.metadata.is_deleting());
            let old = pods.iter().find(|p| !self.is_new(p));
            match (new, old) {
                (None, None) => unavailable += 1,
                (Some(new), None) => unavailable += usize::from(!self.is_available(new)),
                (Some(new), Some(old)) => {
                    if surge > 0 {
                        surging += 1;
                        if self.is_available(new) && !old.metadata.is_deleting() {
                            actions.delete.push(old.clone());
                        }
                    } else {
                        unavailable += 1;
                    }
                }
                (None, Some(old)) if !self.is_available(old) || old.metadata.is_deleting() => {
                    unavailable += 1;
                    if !old.metadata.is_deleting() {
                        broken.push((node, old));
                    }
                }
                (None, Some(old)) => {
                    candidates.push(old);
                    pending.push(node);
                }
            }
        }
        if surge > 0 {
            // A node whose old pod does not work takes the new one at once.
            actions.create.extend(broken.iter().map(|(node, _)| node.metadata.name.clone()));
            let room = surge.saturating_sub(surging + broken.len());
            actions.create.extend(pending.iter().take(room).map(|n| n.metadata.name.clone()));
            return;
        }
        actions.delete.extend(broken.into_iter().map(|(_, old)| old.clone()));
        let room = max_unavailable.saturating_sub(unavailable);
        actions.delete.extend(candidates.into_iter().take(room).cloned());
    }

    pub fn status(&self) -> DaemonSetStatus {
        let by_node = self.by_node();
        let mut status = DaemonSetStatus {
            observed_generation: self.set.metadata.generation,
            collision_count: self.set.status.collision_count,
            ..DaemonSetStatus::default()
        };
        for node in self.nodes {
            let pods = by_node.get(&node.metadata.name);
            if !self.fit(node).run {
                status.number_misscheduled += i32::from(pods.is_some());
                continue;
            }
            status.desired_number_scheduled += 1;
            let Some(pods) = pods else { continue };
            status.current_number_scheduled += 1;
            let ready = pods.iter().filter(|p| p.is_ready());
            let Some(first) = ready.clone().next() else {
                status.updated_number_scheduled += i32::from(pods.iter().any(|p| self.is_new(p)));
                continue;
            };
            status.number_ready += 1;
            status.number_available += i32::from(ready.clone().any(|p| self.is_available(p)));
            status.updated_number_scheduled += i32::from(self.is_new(first));
        }
        status.number_unavailable = status.desired_number_scheduled - status.number_available;
        status
    }

    /// Seconds until a ready pod counts as available.
    pub fn check_in(&self) -> Option<i64> {
        let min_ready = self.set.spec.min_ready_seconds;
        self.pods.iter().filter_map(|p| p.available_in(min_ready, self.now)).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(template: Value) -> DaemonSet {
        let mut value = json!({"metadata": {"name": "ds", "uid": "ds"}, "spec": {
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}}}});
        value["spec"]["template"]["spec"] = template;
        serde_json::from_value(value).unwrap()
    }

    fn node(name: &str, more: Value) -> Arc<Node> {
        let mut value = more;
        value["metadata"]["name"] = name.into();
        Arc::new(serde_json::from_value(value).unwrap())
    }

    fn pod_on(node: &str, hash: &str, ready: &str) -> Arc<Pod> {
        Arc::new(serde_json::from_value(json!({
            "metadata": {"name": format!("{node}-{hash}"), "labels": {REVISION_LABEL: hash}}, "spec": {"nodeName": node},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": "1970-01-01T00:00:00Z"}]}}))
        .unwrap())
    }

    fn check(
        set: &DaemonSet,
        nodes: &[Arc<Node>],
        pods: &[Arc<Pod>],
        create: &[&str],
        delete: &[&str],
    ) -> DaemonSetStatus {
        let state = State { set, nodes, pods, hash: "new", now: Timestamp::UNIX_EPOCH };
        let actions = state.actions();
        assert_eq!(actions.create, create, "create");
        let deleted: Vec<_> = actions.delete.iter().map(|p| p.metadata.name.as_str()).collect();
        assert_eq!(deleted, delete, "delete");
        state.status()
    }

    #[test]
    fn each_node_that_fits_gets_one_pod() {
        let taint = json!({"spec": {"taints": [{"key": "gpu", "effect": "NoSchedule"}]}});
        let nodes = [node("a", json!({})), node("b", json!({})), node("tainted", taint)];
        let twice = [pod_on("a", "new", "True"), pod_on("a", "extra", "True")];
        let status = check(&set(json!({})), &nodes, &twice, &["b"], &["a-new"]);
        assert_eq!(
            (status.desired_number_scheduled, status.number_ready, status.number_unavailable),
            (2, 1, 1)
        );
        let selective = set(json!({"nodeSelector": {"disk": "ssd"}}));
        let labelled = [node("a", json!({"metadata": {"labels": {"disk": "ssd"}}})), node("b", json!({}))];
        check(&selective, &labelled, &[pod_on("b", "new", "True")], &["a"], &["b-new"]);
    }

    #[test]
    fn built_in_tolerations_keep_daemons_on_cordoned_nodes() {
        let cordoned = json!({"spec": {"taints": [{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}]}});
        check(&set(json!({})), &[node("a", cordoned)], &[], &["a"], &[]);
        let made = pod(&set(json!({})), "a", "h");
        assert_eq!(node_of(&serde_json::from_value(made).unwrap()), "a");
    }

    #[test]
    fn an_update_replaces_one_after_the_other() {
        let nodes = [node("a", json!({})), node("b", json!({}))];
        let old = [pod_on("a", "old", "True"), pod_on("b", "old", "True")];
        check(&set(json!({})), &nodes, &old, &[], &["a-old"]);
        check(&set(json!({})), &nodes, &[pod_on("a", "new", "False"), old[1].clone()], &[], &[]);
        check(&set(json!({})), &nodes, &[pod_on("a", "new", "True"), old[1].clone()], &[], &["b-old"]);
        // A broken pod costs nobody anything.
        check(
            &set(json!({})),
            &nodes,
            &[pod_on("a", "new", "False"), pod_on("b", "old", "False")],
            &[],
            &["b-old"],
        );
    }
}
