//! What an object uses of each resource that quotas count.

use keelson_api_types::Quantity;
use keelson_api_types::quantity::Format;
use serde_json::Value;

use super::super::quantities::{Amounts, amounts, pod_total};
use super::super::{items, text};
use super::scopes;
use crate::types::{AdmissionRequest, Operation};

/// Resources that are counted under their plain name as well as under `count/…`.
const PLAIN_COUNTS: [&str; 5] =
    ["configmaps", "secrets", "replicationcontrollers", "resourcequotas", "services"];

/// Whether the request can change what its namespace uses.
pub fn counts(r: &AdmissionRequest<'_>) -> bool {
    let key = (r.gvr.group.as_str(), r.gvr.resource.as_str(), r.subresource);
    match r.op {
        Operation::Create => r.subresource.is_empty() && !matches!(key, ("" | "events.k8s.io", "events", _)),
        Operation::Update => {
            matches!(key, ("", "pods", "" | "resize") | ("", "services" | "persistentvolumeclaims", ""))
        }
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
    if matches!(text(pod, "/status/phase"), "Succeeded" | "Failed") {
        used.retain(|name, _| name.starts_with("count/"));
        return;
    }
    used.insert("pods".into(), one());
    let mut requests = pod_total(pod, "requests");
    super::super::quantities::add(&mut requests, &amounts(&pod["spec"]["overhead"]));
    for (name, amount) in requests {
        if matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-") {
            used.insert(name.clone(), amount);
        }
        used.insert(format!("requests.{name}"), amount);
    }
    for (name, amount) in pod_total(pod, "limits") {
        used.insert(format!("limits.{name}"), amount);
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
    let class = text(claim, "/spec/storageClassName");
    let prefix = format!("{class}.storageclass.storage.k8s.io/");
    if !class.is_empty() {
        used.insert(format!("{prefix}persistentvolumeclaims"), one());
    }
    if let Some(storage) = amounts(&claim["spec"]["resources"]["requests"]).remove("storage") {
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

/// A quota on cpu or memory makes every container say how much it wants.
pub fn constraints(r: &AdmissionRequest<'_>, tracked: &[String], pod: &Value) -> Result<(), String> {
    if !r.is("", "pods", "") || r.op != Operation::Create {
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
        if given(&pod["spec"]) {
            continue;
        }
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

/// Whether the quota is about objects like this one. Only pods have scopes.
pub fn in_scopes(r: &AdmissionRequest<'_>, quota: &Value, object: &Value) -> bool {
    let terms = scopes(quota);
    if terms.is_empty() {
        return true;
    }
    let is_pod = r.gvr.group.is_empty() && r.gvr.resource == "pods";
    is_pod && terms.iter().all(|(name, operator, values)| in_scope(object, name, operator, values))
}

fn in_scope(pod: &Value, name: &str, operator: &str, values: &[String]) -> bool {
    let terminating = pod["spec"]["activeDeadlineSeconds"].as_i64().is_some_and(|s| s >= 0);
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
