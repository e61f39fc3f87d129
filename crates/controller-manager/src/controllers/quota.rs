//! What a namespace uses of its ResourceQuotas. Admission refuses what does not fit and charges what does before it is
//! there to be counted; here usage is counted anew when objects go, and made up for where it was not charged.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use keelson_api_types::Quantity;
use keelson_client::{Change, Projected, WorkQueue};
use parking_lot::Mutex;
use serde_json::Value;

use crate::context::Context;
use crate::controllers::garbage::Graph;
use crate::kit::{Error, error::gone_is_fine};
use crate::views::{Container, PersistentVolumeClaim, Pod, ResourceQuota, ResourceQuotaStatus, Service};

type Usage = BTreeMap<String, Quantity>;

/// After so long all is counted anew: what admission charged for a write that failed becomes free.
const RESYNC: Duration = Duration::from_secs(5 * 60);

/// Why a namespace is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Recount {
    /// Something came. Admission may have charged for more than the informers tell of yet, so nothing is lowered.
    Raise,
    /// Something went.
    Whole,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Due {
    namespace: String,
    recount: Recount,
}

impl fmt::Display for Due {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.namespace)
    }
}

/// Resources that quotas name with and without `requests.`.
const PLAIN: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];
/// Kinds of the core group that quotas name without `count/`.
const COUNTED: [&str; 6] = [
    "configmaps",
    "secrets",
    "services",
    "replicationcontrollers",
    "resourcequotas",
    "persistentvolumeclaims",
];

fn add(usage: &mut Usage, name: impl Into<String>, amount: &Quantity) {
    let entry = usage.entry(name.into()).or_insert(Quantity::ZERO);
    *entry = if entry.is_zero() { *amount } else { entry.add(amount) };
}

fn one() -> Quantity {
    Quantity::from_milli(1000)
}

/// Adds the larger of two amounts per resource.
fn largest(into: &mut Usage, other: Usage) {
    for (name, amount) in other {
        let known = into.entry(name).or_insert(amount);
        if known.sub(&amount).sign() < 0 {
            *known = amount;
        }
    }
}

fn sum<'a>(containers: impl Iterator<Item = &'a Container>, limits: bool) -> Usage {
    let mut all = Usage::new();
    for container in containers {
        let resources = if limits { &container.resources.limits } else { &container.resources.requests };
        for (name, text) in resources {
            if let Ok(amount) = Quantity::parse(text) {
                add(&mut all, name.clone(), &amount);
            }
        }
    }
    all
}

/// The requests or limits of a pod: its containers together, or its largest init container on top of those that stay.
fn pod_resources(pod: &Pod, limits: bool) -> Usage {
    let stays = |c: &&Container| c.restart_policy == "Always";
    let mut all =
        sum(pod.spec.containers.iter().chain(pod.spec.init_containers.iter().filter(stays)), limits);
    let mut sidecars: Vec<&Container> = Vec::new();
    for init in &pod.spec.init_containers {
        if stays(&init) {
            sidecars.push(init);
        } else {
            largest(&mut all, sum(sidecars.iter().copied().chain([init]), limits));
        }
    }
    for (name, text) in &pod.spec.overhead {
        if let Ok(amount) = Quantity::parse(text)
            && (!limits || all.contains_key(name))
        {
            add(&mut all, name.clone(), &amount);
        }
    }
    all
}

fn pod_usage(pod: &Pod) -> Usage {
    let mut usage = Usage::new();
    add(&mut usage, "count/pods", &one());
    if pod.is_finished() {
        return usage;
    }
    add(&mut usage, "pods", &one());
    for (name, amount) in pod_resources(pod, false) {
        if PLAIN.contains(&name.as_str()) {
            add(&mut usage, name.clone(), &amount);
        }
        add(&mut usage, format!("requests.{name}"), &amount);
    }
    for (name, amount) in pod_resources(pod, true) {
        add(&mut usage, format!("limits.{name}"), &amount);
    }
    usage
}

fn service_usage(service: &Service) -> Usage {
    let mut usage = Usage::new();
    let ports = Quantity::from_milli(1000 * service.spec.ports.len() as i64);
    match service.spec.r#type.as_str() {
        "NodePort" => add(&mut usage, "services.nodeports", &ports),
        "LoadBalancer" => {
            add(&mut usage, "services.nodeports", &ports);
            add(&mut usage, "services.loadbalancers", &one());
        }
        _ => {}
    }
    usage
}

fn claim_usage(claim: &PersistentVolumeClaim) -> Usage {
    let mut usage = Usage::new();
    let class = claim.spec.storage_class_name.as_deref().unwrap_or_default();
    let of_class = |name: &str| format!("{class}.storageclass.storage.k8s.io/{name}");
    if !class.is_empty() {
        add(&mut usage, of_class("persistentvolumeclaims"), &one());
    }
    let storage = claim.spec.resources.requests.get("storage").and_then(|s| Quantity::parse(s).ok());
    if let Some(storage) = storage {
        add(&mut usage, "requests.storage", &storage);
        if !class.is_empty() {
            add(&mut usage, of_class("requests.storage"), &storage);
        }
    }
    usage
}

/// Whether an operator of a scope takes the names that an object has for it.
fn takes(names: &[&str], operator: &str, values: &[String]) -> bool {
    let listed = |name: &&str| values.iter().any(|v| v == name);
    match operator {
        "In" => names.iter().any(listed),
        "NotIn" => names.is_empty() || names.iter().any(|name| !listed(name)),
        "DoesNotExist" => names.is_empty(),
        _ => !names.is_empty(),
    }
}

/// Whether all of a quota's scopes hold: name, operator, values.
fn in_scopes(quota: &ResourceQuota, holds: impl Fn(&str, &str, &[String]) -> bool) -> bool {
    let mut selected = quota.spec.scope_selector.iter().flat_map(|s| &s.match_expressions);
    quota.spec.scopes.iter().all(|scope| holds(scope, "Exists", &[]))
        && selected.all(|r| holds(&r.scope_name, &r.operator, &r.values))
}

/// Whether a quota is about a claim.
fn claim_in_scope(quota: &ResourceQuota, claim: &PersistentVolumeClaim) -> bool {
    let classes: Vec<&str> = claim.attribute_classes().collect();
    in_scopes(quota, |scope, operator, values| {
        scope == "VolumeAttributesClass" && takes(&classes, operator, values)
    })
}

/// Whether a pod's affinity looks beyond its own namespace.
fn crosses_namespaces(pod: &Pod) -> bool {
    let crosses = |term: &Value| {
        term["namespaces"].as_array().is_some_and(|n| !n.is_empty()) || term["namespaceSelector"].is_object()
    };
    let terms = |list: &Value| list.as_array().cloned().unwrap_or_default();
    pod.spec.affinity.iter().any(|affinity| {
        ["podAffinity", "podAntiAffinity"].iter().map(|kind| &affinity[kind]).any(|kind| {
            terms(&kind["requiredDuringSchedulingIgnoredDuringExecution"]).iter().any(crosses)
                || terms(&kind["preferredDuringSchedulingIgnoredDuringExecution"])
                    .iter()
                    .any(|term| crosses(&term["podAffinityTerm"]))
        })
    })
}

/// Whether a quota is about a pod.
fn in_scope(quota: &ResourceQuota, pod: &Pod) -> bool {
    in_scopes(quota, |scope, operator, values| match scope {
        "Terminating" => pod.spec.active_deadline_seconds.is_some(),
        "NotTerminating" => pod.spec.active_deadline_seconds.is_none(),
        "BestEffort" => is_best_effort(pod),
        "NotBestEffort" => !is_best_effort(pod),
        "CrossNamespacePodAffinity" => crosses_namespaces(pod),
        "PriorityClass" => {
            let class = pod.spec.priority_class_name.as_str();
            let names: &[&str] = if class.is_empty() { &[] } else { &[class] };
            takes(names, operator, values)
        }
        _ => false,
    })
}

fn is_best_effort(pod: &Pod) -> bool {
    let all = pod.spec.containers.iter().chain(&pod.spec.init_containers);
    let matters = |name: &String| name == "cpu" || name == "memory";
    !all.flat_map(|c| c.resources.requests.keys().chain(c.resources.limits.keys())).any(matters)
}

/// Leaves no amount lower than it is.
fn raise(new: &mut ResourceQuotaStatus, now: &ResourceQuotaStatus) {
    let parse = |text: &String| Quantity::parse(text).ok();
    for (name, used) in &mut new.used {
        let charged = now.used.get(name);
        if let Some((charged, text)) = charged.and_then(|text| Some((parse(text)?, text)))
            && parse(used).is_some_and(|used| charged.sub(&used).sign() > 0)
        {
            used.clone_from(text);
        }
    }
}

/// The status of a quota: what it limits, and how much of that is used.
fn status(
    quota: &ResourceQuota,
    pods: &[Arc<Pod>],
    claims: &[Arc<PersistentVolumeClaim>],
    others: &Usage,
) -> ResourceQuotaStatus {
    let scoped = !quota.spec.scopes.is_empty() || quota.spec.scope_selector.is_some();
    // A quota with scopes is about pods or claims alone, which the others' counts contain as well.
    let mut usage = if scoped { Usage::new() } else { others.clone() };
    for claim in claims.iter().filter(|c| scoped && claim_in_scope(quota, c)) {
        for name in ["persistentvolumeclaims", "count/persistentvolumeclaims"] {
            add(&mut usage, name, &one());
        }
        for (name, amount) in claim_usage(claim) {
            add(&mut usage, name, &amount);
        }
    }
    for pod in pods.iter().filter(|p| in_scope(quota, p)) {
        for (name, amount) in pod_usage(pod) {
            add(&mut usage, name, &amount);
        }
    }
    let used = |name: &String| usage.get(name).map_or("0".to_owned(), Quantity::to_string);
    let used = quota.spec.hard.keys().map(|name| (name.clone(), used(name))).collect();
    ResourceQuotaStatus { hard: quota.spec.hard.clone(), used }
}

pub async fn run(context: Arc<Context>, graph: Arc<Mutex<Graph>>) {
    let queue = WorkQueue::<Due>::new();
    let due = |namespace: &str, recount| Due { namespace: namespace.to_owned(), recount };
    let (quotas, counted) = (Arc::downgrade(&context.informers.quotas), queue.clone());
    let limited =
        move |namespace: &str| quotas.upgrade().is_some_and(|q| !q.list_namespace(namespace).is_empty());
    let count = move |namespace: &str, recount| {
        if limited(namespace) {
            counted.add(due(namespace, recount));
        }
    };
    let of_graph = count.clone();
    graph.lock().on_count(Box::new(move |namespace, fewer| {
        of_graph(namespace, if fewer { Recount::Whole } else { Recount::Raise });
    }));
    let changed = queue.clone();
    context.informers.quotas.on_change(move |change| {
        // Of its status the admission of objects has its own opinion, which is to be left alone.
        let limits = match change {
            Change::Added(_) => true,
            Change::Updated { old, new } => old.spec != new.spec,
            Change::Deleted(_) => false,
        };
        if limits {
            changed.add(due(change.object().meta().namespace.as_deref().unwrap_or_default(), Recount::Raise));
            changed.add_after(
                due(change.object().meta().namespace.as_deref().unwrap_or_default(), Recount::Whole),
                RESYNC,
            );
        }
    });
    let of_pods = count.clone();
    context.informers.pods.on_change(move |change| {
        if let Some(recount) =
            recount(change, |pod| (pod_usage(pod), pod.spec.active_deadline_seconds.is_some()))
        {
            of_pods(change.object().meta().namespace.as_deref().unwrap_or_default(), recount);
        }
    });
    let of_claims = count.clone();
    context.informers.claims.on_change(move |change| {
        if let Some(recount) = recount(change, |claim| {
            (claim_usage(claim), claim.attribute_classes().map(str::to_owned).collect::<Vec<_>>())
        }) {
            of_claims(change.object().meta().namespace.as_deref().unwrap_or_default(), recount);
        }
    });
    context.informers.services.on_change(move |change| {
        if let Some(recount) = recount(change, service_usage) {
            count(change.object().meta().namespace.as_deref().unwrap_or_default(), recount);
        }
    });
    let (this, again) = (context.clone(), queue.clone());
    let reconcile = move |due: Due| sync(this.clone(), graph.clone(), again.clone(), due);
    context.work("resourcequota", queue, 2, reconcile).await;
}

/// What a change asks for.
fn recount<P, U: PartialEq>(change: &Change<P>, usage: impl Fn(&P) -> U) -> Option<Recount> {
    match change {
        Change::Added(_) => Some(Recount::Raise),
        Change::Updated { old, new } => (usage(old) != usage(new)).then_some(Recount::Whole),
        Change::Deleted(_) => Some(Recount::Whole),
    }
}

async fn sync(
    context: Arc<Context>,
    graph: Arc<Mutex<Graph>>,
    queue: WorkQueue<Due>,
    due: Due,
) -> Result<(), Error> {
    let informers = &context.informers;
    let quotas = informers.quotas.list_namespace(&due.namespace);
    if quotas.is_empty() {
        return Ok(());
    }
    if due.recount == Recount::Whole {
        queue.add_after(due.clone(), RESYNC);
    }
    let resources = context.discovery.resources().await?;
    let mut others = Usage::new();
    for ((api_version, kind), count) in graph.lock().count(&due.namespace) {
        let Some(resource) = resources.find(&api_version, &kind) else { continue };
        let amount = Quantity::from_milli(1000 * count as i64);
        match resource.group.as_str() {
            "" if resource.plural == "pods" => continue,
            "" => {
                if COUNTED.contains(&resource.plural.as_str()) {
                    add(&mut others, resource.plural.clone(), &amount);
                }
                add(&mut others, format!("count/{}", resource.plural), &amount);
            }
            group => add(&mut others, format!("count/{}.{group}", resource.plural), &amount),
        }
    }
    let services = informers.services.list_namespace(&due.namespace);
    let claims = informers.claims.list_namespace(&due.namespace);
    let more = services.iter().map(|s| service_usage(s)).chain(claims.iter().map(|c| claim_usage(c)));
    for (name, amount) in more.flatten() {
        add(&mut others, name, &amount);
    }
    let pods = informers.pods.list_namespace(&due.namespace);
    for quota in quotas.iter().filter(|q| !q.metadata.is_deleting()) {
        let mut new = status(quota, &pods, &claims, &others);
        if due.recount == Recount::Raise {
            raise(&mut new, &quota.status);
        }
        if new != quota.status {
            let mut value = serde_json::to_value(&new).unwrap_or_default();
            // A merge leaves what the patch does not name.
            for (field, old) in [("hard", &quota.status.hard), ("used", &quota.status.used)] {
                for gone in old.keys().filter(|k| !new.hard.contains_key(*k)) {
                    value[field][gone] = serde_json::Value::Null;
                }
            }
            gone_is_fine(context.requests.patch_status::<ResourceQuota>(&quota.metadata, &value).await)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(spec: Value, phase: &str) -> Arc<Pod> {
        Arc::new(serde_json::from_value(json!({"spec": spec, "status": {"phase": phase}})).unwrap())
    }

    fn container(cpu: &str) -> Value {
        json!({"name": "c", "resources": {"requests": {"cpu": cpu}, "limits": {"cpu": "2"}}})
    }

    fn check(quota: Value, pods: &[Arc<Pod>], expected: &[(&str, &str)]) {
        let quota: ResourceQuota = serde_json::from_value(json!({"spec": quota})).unwrap();
        let others = Usage::from([("secrets".to_owned(), Quantity::from_milli(3000))]);
        let claim = json!({"spec": {"volumeAttributesClassName": "gold"}});
        let claims = [Arc::new(serde_json::from_value(claim).unwrap())];
        let used = status(&quota, pods, &claims, &others).used;
        let used: Vec<_> = used.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(used, expected);
    }

    #[test]
    fn what_admission_charged_is_not_taken_back_by_what_comes() {
        let quota: ResourceQuota = serde_json::from_value(json!({
            "spec": {"hard": {"pods": "5", "limits.cpu": "9", "secrets": "9"}},
            "status": {"used": {"pods": "3", "limits.cpu": "2500m", "gone": "1"}},
        }))
        .unwrap();
        let pods = [pod(json!({"containers": [container("1"), container("1")]}), "Running")];
        let mut new = status(&quota, &pods, &[], &Usage::from([("secrets".to_owned(), one())]));
        raise(&mut new, &quota.status);
        let expected = [("limits.cpu", "4"), ("pods", "3"), ("secrets", "1")];
        assert_eq!(new.used, expected.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
    }

    #[test]
    fn pods_are_counted_by_what_they_ask_for() {
        let pods = [
            pod(
                json!({"containers": [container("500m"), container("1")], "initContainers": [container("3")]}),
                "Running",
            ),
            pod(json!({"containers": [container("1")]}), "Succeeded"),
            pod(json!({"containers": [{"name": "c"}], "activeDeadlineSeconds": 5}), "Pending"),
        ];
        let hard = json!({"hard": {"pods": "5", "requests.cpu": "9", "limits.cpu": "9", "secrets": "5", "count/pods": "9"}});
        check(
            hard,
            &pods,
            &[
                ("count/pods", "3"),
                ("limits.cpu", "4"),
                ("pods", "2"),
                ("requests.cpu", "3"),
                ("secrets", "3"),
            ],
        );
        let scoped = |scope: &str| json!({"hard": {"pods": "5"}, "scopes": [scope]});
        check(scoped("Terminating"), &pods, &[("pods", "1")]);
        check(scoped("BestEffort"), &pods, &[("pods", "1")]);
        check(scoped("NotBestEffort"), &pods, &[("pods", "1")]);
        let classed = |operator: &str| {
            json!({"hard": {"persistentvolumeclaims": "5"}, "scopeSelector": {"matchExpressions": [
                {"scopeName": "VolumeAttributesClass", "operator": operator, "values": ["gold"]}]}})
        };
        check(classed("In"), &pods, &[("persistentvolumeclaims", "1")]);
        check(classed("NotIn"), &pods, &[("persistentvolumeclaims", "0")]);
    }
}
