//! Resource names, requests and limits, and the quality of service that follows from them.

use std::collections::BTreeMap;

use keelson_api_types::names;
use keelson_api_types::quantity::Quantity;
use serde_json::{Map, Value};

use crate::strategies::check::{At, Errors, quantity};
use crate::strategies::edit;

const CONTAINER_RESOURCES: &[&str] = &["cpu", "memory", "ephemeral-storage"];
/// What may be asked for the pod as a whole, besides huge pages.
const POD_RESOURCES: &[&str] = &["cpu", "memory"];
const COUNTS: &[&str] = &[
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];
const COMPUTE: &[&str] = &[
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "requests.storage",
];

pub fn is_huge_page(name: &str) -> bool {
    name.starts_with("hugepages-")
}

fn is_quota_huge_page(name: &str) -> bool {
    is_huge_page(name) || name.starts_with("requests.hugepages-")
}

pub fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

pub fn is_extended(name: &str) -> bool {
    !is_native(name)
        && !name.starts_with("requests.")
        && names::qualified_name(&format!("requests.{name}")).is_empty()
}

/// Whether a quantity is an integer.
pub fn is_whole(quantity: &Quantity) -> bool {
    quantity.nanos() % 1_000_000_000 == 0
}

/// Whether limits may exceed requests.
pub fn may_overcommit(name: &str) -> bool {
    is_native(name) && !is_huge_page(name)
}

pub fn is_standard_quota(name: &str) -> bool {
    COMPUTE.contains(&name) || COUNTS.contains(&name) || is_quota_huge_page(name)
}

fn is_integer(name: &str) -> bool {
    COUNTS.contains(&name) || is_extended(name)
}

/// Which names a list of quantities may hold.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    Any,
    Container,
    Pod,
    Quota,
}

/// A resource's name, reported under the path of its entry.
pub fn name(name: &str, at: &At<'_>, scope: Scope, e: &mut Errors) {
    let before = e.len();
    let mut report = |detail: &str| e.invalid_value(&at.path, name, detail);
    for message in names::qualified_name(name) {
        report(&message);
    }
    let simple = !name.contains('/');
    let known = name == "storage" || is_standard_quota(name);
    if e.len() == before && simple && !known {
        e.invalid_value(&at.path, name, "must be a standard resource type or fully qualified");
    }
    match scope {
        Scope::Any => {}
        Scope::Container if simple && !(CONTAINER_RESOURCES.contains(&name) || is_huge_page(name)) => {
            e.invalid_value(&at.path, name, "must be a standard resource for containers");
        }
        Scope::Container if !simple && !is_native(name) && !is_extended(name) => {
            e.invalid_value(&at.path, name, "doesn't follow extended resource name standard");
        }
        Scope::Quota if simple && !is_standard_quota(name) => {
            e.invalid_value(&at.path, name, "must be a standard resource for quota");
        }
        Scope::Pod if e.len() == before && !(POD_RESOURCES.contains(&name) || is_huge_page(name)) => {
            let value = Value::from(name);
            e.not_supported(&At { value: &value, path: at.path.clone() }, POD_RESOURCES);
        }
        _ => {}
    }
}

/// A quantity that is not negative, and whole where the resource is counted.
pub fn amount(resource: &str, at: &At<'_>, e: &mut Errors) {
    let Some(quantity) = at.quantity() else { return };
    if quantity.sign() < 0 {
        e.invalid_value(&at.path, quantity.to_string(), "must be greater than or equal to 0");
    }
    if is_integer(resource) && !is_whole(&quantity) {
        e.invalid_value(&at.path, quantity.to_string(), "must be an integer");
    }
}

fn huge_page_amount(resource: &str, at: &At<'_>, e: &mut Errors) {
    let (Some(quantity), Some(size)) = (at.quantity(), resource.strip_prefix("hugepages-")) else { return };
    let divisible = Quantity::parse(size)
        .is_ok_and(|size| size.sign() > 0 && is_whole(&size) && quantity.value() % size.value() == 0);
    if !divisible {
        let detail = format!("{quantity} is not positive integer multiple of {resource}");
        e.invalid_value(&at.path, quantity.to_string(), detail);
    }
}

/// `ResourceRequirements` of a container, a pod or (as limits) its overhead.
pub fn requirements(at: &At<'_>, scope: Scope, claims: &[&str], e: &mut Errors) {
    let (limits, requests) = (at.f("limits"), at.f("requests"));
    let (mut compute, mut huge) = (false, false);
    for (resource, limit) in limits.entries() {
        name(resource, &limit, scope, e);
        amount(resource, &limit, e);
        if is_huge_page(resource) {
            huge = true;
            huge_page_amount(resource, &limit, e);
        }
        compute |= POD_RESOURCES.contains(&resource);
    }
    for (resource, request) in requests.entries() {
        name(resource, &request, scope, e);
        amount(resource, &request, e);
        against_limit(resource, &request, &limits, &requests, e);
        if is_huge_page(resource) {
            huge = true;
            huge_page_amount(resource, &request, e);
        }
        compute |= POD_RESOURCES.contains(&resource);
    }
    if huge && !compute {
        e.forbidden(&at.path, "HugePages require cpu or memory");
    }
    claim_names(&at.f("claims"), claims, e);
}

fn against_limit(resource: &str, request: &At<'_>, limits: &At<'_>, requests: &At<'_>, e: &mut Errors) {
    let limit = limits.value.get(resource).and_then(quantity);
    let (Some(wanted), Some(limit)) = (request.quantity(), limit) else {
        if !may_overcommit(resource) && limits.value.get(resource).is_none() {
            e.required(&limits.path, "Limit must be set for non overcommitable resources");
        }
        return;
    };
    if wanted != limit && !may_overcommit(resource) {
        let detail = format!("must be equal to {resource} limit of {limit}");
        e.invalid_value(&requests.path, wanted.to_string(), detail);
    } else if wanted > limit {
        let detail = format!("must be less than or equal to {resource} limit of {limit}");
        e.invalid_value(&requests.path, wanted.to_string(), detail);
    }
}

fn claim_names(at: &At<'_>, claims: &[&str], e: &mut Errors) {
    let mut seen: Vec<(String, String)> = Vec::new();
    for claim in at.each() {
        let (claim_name, request) = (claim.f("name").s(), claim.f("request"));
        if claim_name.is_empty() {
            e.required(&claim.path, "");
            continue;
        }
        if !request.s().is_empty() {
            e.dns_label(&request);
        }
        let clash = |(n, r): &(String, String)| {
            n == claim_name && (r.is_empty() || request.s().is_empty() || r == request.s())
        };
        if seen.iter().any(clash) {
            e.duplicate(&claim.path, claim_name);
        }
        seen.push((claim_name.to_owned(), request.s().to_owned()));
        if !claims.contains(&claim_name) {
            e.not_found(&claim.path, claim_name);
        }
    }
}

/// Sums one side (`requests` or `limits`) over the containers: all that run together, or the largest
/// start-up step if that needs more.
pub fn aggregate(spec: &Value, side: &str) -> BTreeMap<String, Quantity> {
    let mut total: BTreeMap<String, Quantity> = BTreeMap::new();
    let list = |name: &str| spec.get(name).and_then(Value::as_array).into_iter().flatten();
    for container in list("containers") {
        add(&mut total, resources(container, side));
    }
    let mut sidecars: BTreeMap<String, Quantity> = BTreeMap::new();
    let mut peak: BTreeMap<String, Quantity> = BTreeMap::new();
    for container in list("initContainers") {
        let mut step = sidecars.clone();
        add(&mut step, resources(container, side));
        if container.get("restartPolicy").and_then(Value::as_str) == Some("Always") {
            add(&mut total, resources(container, side));
            sidecars = step.clone();
        }
        raise(&mut peak, &step);
    }
    raise(&mut total, &peak);
    total
}

fn resources<'a>(container: &'a Value, side: &str) -> impl Iterator<Item = (&'a String, Quantity)> {
    let list = container.get("resources").and_then(|r| r.get(side)).and_then(Value::as_object);
    list.into_iter().flatten().filter_map(|(name, value)| Some((name, quantity(value)?)))
}

fn add<'a>(total: &mut BTreeMap<String, Quantity>, more: impl Iterator<Item = (&'a String, Quantity)>) {
    for (name, amount) in more {
        let sum = total.get(name).map_or_else(|| amount, |have| have.add(&amount));
        total.insert(name.clone(), sum);
    }
}

fn raise(total: &mut BTreeMap<String, Quantity>, floor: &BTreeMap<String, Quantity>) {
    for (name, amount) in floor {
        let entry = total.entry(name.clone()).or_insert(*amount);
        if *amount > *entry {
            *entry = *amount;
        }
    }
}

/// Fills in a pod's own requests and huge-page limits from its containers and its limits.
pub fn default_pod_level(spec: &mut Value) {
    let side = |spec: &Value, name: &str| -> Map<String, Value> {
        spec["resources"][name].as_object().cloned().unwrap_or_default()
    };
    if !spec.get("resources").is_some_and(Value::is_object) {
        return;
    }
    let (mut limits, mut requests) = (side(spec, "limits"), side(spec, "requests"));
    if limits.is_empty() && requests.is_empty() {
        return;
    }
    for (name, amount) in aggregate(spec, "limits") {
        if is_huge_page(&name) && !requests.contains_key(&name) {
            limits.entry(name).or_insert_with(|| amount.to_string().into());
        }
    }
    if !limits.is_empty() {
        for (name, amount) in aggregate(spec, "requests") {
            if POD_RESOURCES.contains(&name.as_str()) {
                requests.entry(name).or_insert_with(|| amount.to_string().into());
            }
        }
        for (name, limit) in &limits {
            if POD_RESOURCES.contains(&name.as_str()) || is_huge_page(name) {
                requests.entry(name.clone()).or_insert_with(|| limit.clone());
            }
        }
    }
    let Some(target) = edit::some(spec, "resources") else { return };
    for (name, list) in [("limits", limits), ("requests", requests)] {
        if !list.is_empty() {
            edit::set(target, name, list);
        }
    }
}

/// The pod-level resources of a spec.
pub fn pod_level(spec: &At<'_>, claims: &[&str], e: &mut Errors) {
    let Some(at) = spec.get("resources") else { return };
    if at.has() && spec.dig(&["os", "name"]).s() == "windows" {
        e.forbidden(&at.path, "may not be set for a windows pod");
        return;
    }
    if at.get("claims").is_some() {
        e.forbidden(&at.f("claims").path, "claims may not be set for Resources at pod-level");
    }
    requirements(&at, Scope::Pod, claims, e);
    let wanted = aggregate(spec.value, "requests");
    for (resource, request) in at.f("requests").entries() {
        let (Some(have), Some(needed)) = (request.quantity(), wanted.get(resource)) else { continue };
        if *needed > have {
            let detail = format!("must be greater than or equal to aggregate container requests of {needed}");
            e.invalid_value(&request.path, have.to_string(), detail);
        }
    }
    for container in spec.f("containers").each() {
        for (resource, limit) in container.dig(&["resources", "limits"]).entries() {
            let pod = at.dig(&["limits", resource]).quantity();
            let (Some(own), Some(pod)) = (limit.quantity(), pod) else { continue };
            if own > pod {
                let detail = format!("must be less than or equal to pod limits of {pod}");
                e.invalid_value(&limit.path, own.to_string(), detail);
            }
        }
    }
}

/// `Guaranteed`, `Burstable` or `BestEffort`.
pub fn qos_class(spec: &Value) -> &'static str {
    let (mut requests, mut limits) = (BTreeMap::new(), BTreeMap::new());
    let mut guaranteed = true;
    let mut consider = |resources: &Value| {
        let positive = |side: &str| -> Vec<(String, Quantity)> {
            let list = resources.get(side).and_then(Value::as_object).into_iter().flatten();
            list.filter(|(name, _)| POD_RESOURCES.contains(&name.as_str()))
                .filter_map(|(name, value)| Some((name.clone(), quantity(value)?)))
                .filter(|(_, amount)| amount.sign() > 0)
                .collect()
        };
        let (wanted, limited) = (positive("requests"), positive("limits"));
        guaranteed &= limited.len() == POD_RESOURCES.len();
        add(&mut requests, wanted.iter().map(|(n, q)| (n, *q)));
        add(&mut limits, limited.iter().map(|(n, q)| (n, *q)));
    };
    match spec.get("resources") {
        Some(resources) if !edit::is_zero(resources) => consider(resources),
        _ => {
            for list in ["containers", "initContainers"] {
                for container in spec.get(list).and_then(Value::as_array).into_iter().flatten() {
                    consider(container.get("resources").unwrap_or(&Value::Null));
                }
            }
        }
    }
    if requests.is_empty() && limits.is_empty() {
        "BestEffort"
    } else if guaranteed && requests == limits {
        "Guaranteed"
    } else {
        "Burstable"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn quality_of_service_follows_requests_and_limits() {
        let pod = |resources: Value| json!({"containers": [{"resources": resources}]});
        assert_eq!(qos_class(&pod(json!({}))), "BestEffort");
        assert_eq!(qos_class(&pod(json!({"requests": {"cpu": "1"}}))), "Burstable");
        let full = json!({"cpu": "1", "memory": "1Gi"});
        assert_eq!(qos_class(&pod(json!({"requests": full, "limits": full}))), "Guaranteed");
        let other = json!({"cpu": "1", "memory": "2Gi"});
        assert_eq!(qos_class(&pod(json!({"requests": full, "limits": other}))), "Burstable");
    }

    #[test]
    fn init_containers_count_by_their_largest_step() {
        let spec = json!({
            "containers": [{"resources": {"requests": {"cpu": "1"}}}],
            "initContainers": [
                {"restartPolicy": "Always", "resources": {"requests": {"cpu": "500m"}}},
                {"resources": {"requests": {"cpu": "3"}}},
            ],
        });
        assert_eq!(aggregate(&spec, "requests")["cpu"].to_string(), "3500m");
    }
}
