//! What an object uses of each resource that quotas count.

use std::collections::{BTreeMap, BTreeSet};

use keelson_api_types::quantity::Format;
use keelson_api_types::{Quantity, meta};
use serde_json::Value;

use super::super::quantities::{Amounts, amounts, pod_requests, pod_total};
use super::super::{items, text};
use super::scopes;
use crate::types::{AdmissionRequest, Operation};

const DEVICES: &str = ".deviceclass.resource.k8s.io/devices";
/// Resources that are counted under their plain name as well as under `count/…`.
const PLAIN_COUNTS: [&str; 5] =
    ["configmaps", "secrets", "replicationcontrollers", "resourcequotas", "services"];

/// Whether the request can change what its namespace uses. Events and what is never stored do not count.
pub fn counts(r: &AdmissionRequest<'_>) -> bool {
    let key = (r.gvr.group.as_str(), r.gvr.resource.as_str(), r.subresource);
    let both = || Some((r.object.as_deref()?, r.old?));
    match (r.op, key) {
        (Operation::Create, ("" | "events.k8s.io", "events" | "bindings", _)) => false,
        (Operation::Create, ("authentication.k8s.io" | "authorization.k8s.io", ..)) => false,
        (Operation::Create, (_, _, subresource)) => subresource.is_empty(),
        (Operation::Update, ("", "pods", "")) => {
            both().is_some_and(|(new, old)| is_terminating(new) != is_terminating(old))
        }
        (Operation::Update, ("", "persistentvolumeclaims", "status")) => both().is_some_and(|(new, old)| {
            let allocated = |claim: &Value| claim["status"]["allocatedResources"].clone();
            attribute_classes(new) != attribute_classes(old) || allocated(new) != allocated(old)
        }),
        (Operation::Update, ("", "pods", "resize")) => true,
        (Operation::Update, ("", "services" | "persistentvolumeclaims", "")) => true,
        (Operation::Update, ("resource.k8s.io", "resourceclaims", "")) => true,
        _ => false,
    }
}

fn one() -> Quantity {
    Quantity::from_value(1, Format::DecimalSi)
}

fn count_name(r: &AdmissionRequest<'_>) -> String {
    format!("count/{}", r.gvr.group_resource())
}

/// The usage of an object of the request's resource.
pub fn of(r: &AdmissionRequest<'_>, object: &Value) -> Amounts {
    let mut used = Amounts::new();
    used.insert(count_name(r), one());
    if r.is("resource.k8s.io", "resourceclaims", "") {
        devices(object, &mut used);
    }
    if !r.gvr.group.is_empty() {
        return used;
    }
    let resource = r.gvr.resource.as_str();
    if PLAIN_COUNTS.contains(&resource) {
        used.insert(resource.to_owned(), one());
    }
    match resource {
        "pods" => pod(object, &mut used),
        "services" => service(object, &mut used),
        "persistentvolumeclaims" => claim(object, &mut used),
        _ => {}
    }
    used
}

fn pod(pod: &Value, used: &mut Amounts) {
    if is_over(pod) {
        return;
    }
    used.insert("pods".into(), one());
    for (name, amount) in pod_requests(pod) {
        if matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-") {
            used.insert(name.clone(), amount);
        }
        used.insert(format!("requests.{name}"), amount);
    }
    for (name, amount) in pod_total(pod, "limits") {
        used.insert(format!("limits.{name}"), amount);
    }
}

/// Finished, or past the end of its deletion: it is still counted as an object, but uses nothing.
fn is_over(pod: &Value) -> bool {
    let ended = || {
        let deleted = meta::parse_time(meta::string(pod, "deletionTimestamp"))?;
        let grace = pod["metadata"]["deletionGracePeriodSeconds"].as_i64()?;
        Some(jiff::Timestamp::now() > deleted + jiff::SignedDuration::from_secs(grace))
    };
    matches!(text(pod, "/status/phase"), "Succeeded" | "Failed") || ended() == Some(true)
}

/// The most devices of each class that a claim can be given.
fn devices(claim: &Value, used: &mut Amounts) {
    /// What `All` can mean at most.
    const MOST: i64 = 32;
    let asked = |request: &Value| {
        let count =
            if request["allocationMode"] == "All" { MOST } else { request["count"].as_i64().unwrap_or(1) };
        (text(request, "/deviceClassName").to_owned(), count)
    };
    let mut total: BTreeMap<String, i64> = BTreeMap::new();
    for request in items(&claim["spec"]["devices"]["requests"]) {
        let mut of_request: BTreeMap<String, i64> = BTreeMap::new();
        let exactly = Some(&request["exactly"]).filter(|e| e.is_object());
        for (class, count) in exactly.into_iter().chain(items(&request["firstAvailable"])).map(asked) {
            let most = of_request.entry(class).or_default();
            *most = count.max(*most);
        }
        for (class, count) in of_request {
            *total.entry(class).or_default() += count;
        }
    }
    for (class, count) in total.into_iter().filter(|(class, _)| !class.is_empty()) {
        used.insert(format!("{class}{DEVICES}"), Quantity::from_value(count, Format::DecimalSi));
    }
}

fn service(service: &Value, used: &mut Amounts) {
    let ports = items(&service["spec"]["ports"]);
    let count = |n: usize| Quantity::from_value(n as i64, Format::DecimalSi);
    match text(service, "/spec/type") {
        "NodePort" => {
            used.insert("services.nodeports".into(), count(ports.len()));
        }
        "LoadBalancer" => {
            let opted_out = service["spec"]["allocateLoadBalancerNodePorts"] == false;
            let explicit = ports.iter().filter(|p| p["nodePort"].as_i64().unwrap_or_default() != 0).count();
            let node_ports = if opted_out { explicit } else { ports.len() };
            used.insert("services.nodeports".into(), count(node_ports));
            used.insert("services.loadbalancers".into(), one());
        }
        _ => {}
    }
}

fn claim(claim: &Value, used: &mut Amounts) {
    used.insert("persistentvolumeclaims".into(), one());
    let annotated = meta::annotation(claim, "volume.beta.kubernetes.io/storage-class");
    let class = annotated.unwrap_or(text(claim, "/spec/storageClassName"));
    let prefix = format!("{class}.storageclass.storage.k8s.io/");
    if !class.is_empty() {
        used.insert(format!("{prefix}persistentvolumeclaims"), one());
    }
    let storage = |list: &Value| amounts(list).remove("storage");
    if let Some(asked) = storage(&claim["spec"]["resources"]["requests"]) {
        // What an expansion that failed has been given is still used.
        let allocated = storage(&claim["status"]["allocatedResources"]);
        let storage = allocated.filter(|a| a.nanos() > asked.nanos()).unwrap_or(asked);
        if !class.is_empty() {
            used.insert(format!("{prefix}requests.storage"), storage);
        }
        used.insert("requests.storage".into(), storage);
    }
}

/// Which of a quota's resources a request of this resource counts towards.
pub fn tracked(r: &AdmissionRequest<'_>, hard: &Amounts) -> Vec<String> {
    let count = count_name(r);
    let core = r.gvr.group.is_empty();
    let ours = |name: &str| {
        if name == count {
            return true;
        }
        match r.gvr.resource.as_str() {
            "resourceclaims" if !core => name.ends_with(DEVICES),
            _ if !core => false,
            "pods" => {
                let compute = name.strip_prefix("requests.").or_else(|| name.strip_prefix("limits."));
                matches!(name, "pods" | "cpu" | "memory" | "ephemeral-storage")
                    || name.starts_with("hugepages-")
                    || compute.is_some_and(|c| c != "storage")
            }
            "services" => matches!(name, "services" | "services.nodeports" | "services.loadbalancers"),
            "persistentvolumeclaims" => {
                matches!(name, "persistentvolumeclaims" | "requests.storage")
                    || name.contains(".storageclass.storage.k8s.io/")
            }
            other => PLAIN_COUNTS.contains(&other) && name == other,
        }
    };
    hard.keys().filter(|k| ours(k)).cloned().collect()
}

/// A quota on cpu or memory makes every container say how much it wants, unless the pod does for all.
pub fn constraints(r: &AdmissionRequest<'_>, tracked: &[String], pod: &Value) -> Result<(), String> {
    let pod_level = |part: &str| {
        let list = pod["spec"]["resources"][part].as_object().into_iter().flatten();
        list.into_iter().any(|(n, _)| matches!(n.as_str(), "cpu" | "memory") || n.starts_with("hugepages-"))
    };
    if r.gvr.resource != "pods" || !r.gvr.group.is_empty() || pod_level("requests") || pod_level("limits") {
        return Ok(());
    }
    let mut problems = Vec::new();
    for required in tracked {
        let (part, name) = match required.as_str() {
            "cpu" | "memory" => ("requests", required.as_str()),
            "requests.cpu" | "requests.memory" => ("requests", &required["requests.".len()..]),
            "limits.cpu" | "limits.memory" => ("limits", &required["limits.".len()..]),
            _ => continue,
        };
        let given = |holder: &Value| !holder["resources"][part][name].is_null();
        let containers = items(&pod["spec"]["containers"]).iter();
        let mut missing: Vec<&str> = containers
            .chain(items(&pod["spec"]["initContainers"]))
            .filter(|c| !given(c))
            .map(|c| text(c, "/name"))
            .collect();
        if !missing.is_empty() {
            missing.sort_unstable();
            problems.push(format!("{required} for: {}", missing.join(",")));
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(format!("must specify {}", problems.join("; "))) }
}

/// Whether the quota is about objects like this one. Only pods and claims have scopes.
pub fn in_scopes(r: &AdmissionRequest<'_>, quota: &Value, object: &Value) -> bool {
    let resource = if r.gvr.group.is_empty() { r.gvr.resource.as_str() } else { "" };
    scopes(quota).iter().all(|(name, operator, values)| match resource {
        "pods" => in_scope(object, name, operator, values),
        "persistentvolumeclaims" => name == "VolumeAttributesClass" && has_class(object, operator, values),
        _ => false,
    })
}

/// A claim is counted for the class that it has, the one it asks for and the one that it is changing to.
fn attribute_classes(claim: &Value) -> BTreeSet<&str> {
    let paths = [
        "/spec/volumeAttributesClassName",
        "/status/currentVolumeAttributesClassName",
        "/status/modifyVolumeStatus/targetVolumeAttributesClassName",
    ];
    paths.iter().map(|path| text(claim, path)).filter(|name| !name.is_empty()).collect()
}

fn has_class(claim: &Value, operator: &str, values: &[String]) -> bool {
    let classes = attribute_classes(claim);
    let listed = |class: &&str| values.iter().any(|v| v == class);
    match operator {
        "In" => classes.iter().any(listed),
        "NotIn" => classes.is_empty() || classes.iter().any(|class| !listed(class)),
        "DoesNotExist" => classes.is_empty(),
        _ => !classes.is_empty(),
    }
}

fn is_terminating(pod: &Value) -> bool {
    pod["spec"]["activeDeadlineSeconds"].as_i64().is_some_and(|s| s >= 0)
}

fn in_scope(pod: &Value, name: &str, operator: &str, values: &[String]) -> bool {
    let terminating = is_terminating(pod);
    match name {
        "Terminating" => terminating,
        "NotTerminating" => !terminating,
        "BestEffort" => best_effort(pod),
        "NotBestEffort" => !best_effort(pod),
        "CrossNamespacePodAffinity" => crosses_namespaces(pod),
        "PriorityClass" => {
            let class = text(pod, "/spec/priorityClassName");
            let listed = values.iter().any(|v| v == class);
            match operator {
                "In" => listed,
                "NotIn" => !listed,
                "DoesNotExist" => class.is_empty(),
                _ => !class.is_empty(),
            }
        }
        _ => false,
    }
}

fn best_effort(pod: &Value) -> bool {
    let asks = |holder: &Value| {
        ["requests", "limits"].iter().any(|part| {
            let list = amounts(&holder["resources"][part]);
            ["cpu", "memory"].iter().any(|n| list.get(*n).is_some_and(|q| !q.is_zero()))
        })
    };
    let containers = items(&pod["spec"]["containers"]).iter();
    !asks(&pod["spec"]) && !containers.chain(items(&pod["spec"]["initContainers"])).any(asks)
}

fn crosses_namespaces(pod: &Value) -> bool {
    let crosses =
        |term: &Value| !items(&term["namespaces"]).is_empty() || term["namespaceSelector"].is_object();
    ["podAffinity", "podAntiAffinity"].iter().any(|kind| {
        let affinity = &pod["spec"]["affinity"][kind];
        let required = items(&affinity["requiredDuringSchedulingIgnoredDuringExecution"]);
        let preferred = items(&affinity["preferredDuringSchedulingIgnoredDuringExecution"]);
        required.iter().any(crosses) || preferred.iter().any(|t| crosses(&t["podAffinityTerm"]))
    })
}
