//! LimitRanger: a namespace's LimitRanges give containers their default resources and bound what pods
//! and claims may ask for.

use std::sync::Arc;

use keelson_api_types::{Quantity, StatusError, meta};
use serde_json::{Value, json};

use super::quantities::{Amounts, amounts, pod_total};
use super::{core, items, text};
use crate::types::{AdmissionRequest, Objects, Operation};

const ANNOTATION: &str = "kubernetes.io/limit-ranger";

pub fn admit(objects: &dyn Objects, r: &mut AdmissionRequest<'_>) -> Result<(), StatusError> {
    if !concerns(r) || r.gvr.resource != "pods" {
        return Ok(());
    }
    for range in ranges(objects, r) {
        if let Some(pod) = r.object.as_deref_mut() {
            set_defaults(pod, &range);
        }
    }
    Ok(())
}

pub fn validate(objects: &dyn Objects, r: &AdmissionRequest<'_>) -> Result<(), StatusError> {
    if !concerns(r) {
        return Ok(());
    }
    let Some(object) = r.object.as_deref() else { return Ok(()) };
    for range in ranges(objects, r) {
        let mut problems = match r.gvr.resource.as_str() {
            "pods" => pod_problems(object, &range),
            _ => claim_problems(object, &range),
        };
        // Containers alike are said once.
        let mut said = std::collections::HashSet::new();
        problems.retain(|problem| said.insert(problem.clone()));
        match problems.as_slice() {
            [] => {}
            [one] => return Err(r.forbidden(one)),
            many => return Err(r.forbidden(format!("[{}]", many.join(", ")))),
        }
    }
    Ok(())
}

fn concerns(r: &AdmissionRequest<'_>) -> bool {
    let writes = matches!(r.op, Operation::Create | Operation::Update);
    let leaving = r.old.is_some_and(|o| !meta::string(o, "deletionTimestamp").is_empty());
    let pod = r.is_create("", "pods") || (r.op == Operation::Update && r.is("", "pods", "resize"));
    writes && !leaving && (pod || r.is("", "persistentvolumeclaims", ""))
}

fn ranges(objects: &dyn Objects, r: &AdmissionRequest<'_>) -> Vec<Arc<Value>> {
    objects.list(&core("limitranges"), r.namespace)
}

fn set_defaults(pod: &mut Value, range: &Value) {
    let (mut requests, mut limits) = (json!({}), json!({}));
    for limit in items(&range["spec"]["limits"]).iter().filter(|l| l["type"] == "Container") {
        for (from, to) in [("defaultRequest", &mut requests), ("default", &mut limits)] {
            for (name, amount) in limit[from].as_object().into_iter().flatten() {
                to[name.as_str()] = amount.clone();
            }
        }
    }
    let mut notes = Vec::new();
    for (key, what) in [("containers", "container"), ("initContainers", "init container")] {
        let Some(containers) = pod["spec"].get_mut(key).and_then(Value::as_array_mut) else { continue };
        for container in containers {
            for (part, defaults, word) in [("requests", &requests, "request"), ("limits", &limits, "limit")] {
                let set = fill(container, part, defaults);
                if !set.is_empty() {
                    let name = text(container, "/name");
                    notes.push(format!("{} {word} for {what} {name}", set.join(", ")));
                }
            }
        }
    }
    if !notes.is_empty() {
        if !pod["metadata"]["annotations"].is_object() {
            pod["metadata"]["annotations"] = json!({});
        }
        let note = format!("LimitRanger plugin set: {}", notes.join("; "));
        pod["metadata"]["annotations"][ANNOTATION] = note.into();
    }
}

/// Sets what the container does not name itself; returns the names.
fn fill(container: &mut Value, part: &str, defaults: &Value) -> Vec<String> {
    let mut set = Vec::new();
    for (name, amount) in defaults.as_object().into_iter().flatten() {
        if !container["resources"].is_object() {
            container["resources"] = json!({});
        }
        if !container["resources"][part].is_object() {
            container["resources"][part] = json!({});
        }
        let own = &mut container["resources"][part][name.as_str()];
        if own.is_null() {
            *own = amount.clone();
            set.push(name.clone());
        }
    }
    set
}

fn pod_problems(pod: &Value, range: &Value) -> Vec<String> {
    let mut problems = Vec::new();
    for limit in items(&range["spec"]["limits"]) {
        match text(limit, "/type") {
            "Container" => {
                let containers = items(&pod["spec"]["containers"]).iter();
                for container in containers.chain(items(&pod["spec"]["initContainers"])) {
                    let of = |part: &str| amounts(&container["resources"][part]);
                    check(limit, "Container", &of("requests"), &of("limits"), &mut problems);
                }
            }
            "Pod" => {
                let of = |part: &str| pod_total(pod, part);
                check(limit, "Pod", &of("requests"), &of("limits"), &mut problems);
            }
            _ => {}
        }
    }
    problems
}

fn claim_problems(claim: &Value, range: &Value) -> Vec<String> {
    const KIND: &str = "PersistentVolumeClaim";
    let requests = amounts(&claim["spec"]["resources"]["requests"]);
    let mut problems = Vec::new();
    for limit in items(&range["spec"]["limits"]).iter().filter(|l| l["type"] == KIND) {
        for (name, bound) in amounts(&limit["min"]) {
            problems.extend(below_minimum(KIND, &name, &bound, &requests, &Amounts::new()));
        }
        for (name, bound) in amounts(&limit["max"]) {
            problems.extend(match requests.get(&name) {
                None => Some(format!("maximum {name} usage per {KIND} is {bound}.  No request is specified")),
                Some(q) if q.nanos() > bound.nanos() => {
                    Some(format!("maximum {name} usage per {KIND} is {bound}, but request is {q}"))
                }
                _ => None,
            });
        }
    }
    problems
}

fn check(limit: &Value, kind: &str, requests: &Amounts, limits: &Amounts, problems: &mut Vec<String>) {
    for (name, bound) in amounts(&limit["min"]) {
        problems.extend(below_minimum(kind, &name, &bound, requests, limits));
    }
    for (name, bound) in amounts(&limit["max"]) {
        problems.extend(above_maximum(kind, &name, &bound, requests, limits));
    }
    for (name, bound) in amounts(&limit["maxLimitRequestRatio"]) {
        problems.extend(ratio(kind, &name, &bound, requests, limits));
    }
}

fn below_minimum(
    kind: &str,
    name: &str,
    bound: &Quantity,
    requests: &Amounts,
    limits: &Amounts,
) -> Option<String> {
    let start = format!("minimum {name} usage per {kind} is {bound}");
    let Some(request) = requests.get(name) else { return Some(format!("{start}.  No request is specified")) };
    if request.nanos() < bound.nanos() {
        return Some(format!("{start}, but request is {request}"));
    }
    let limit = limits.get(name).filter(|l| l.nanos() < bound.nanos())?;
    Some(format!("{start}, but limit is {limit}"))
}

fn above_maximum(
    kind: &str,
    name: &str,
    bound: &Quantity,
    requests: &Amounts,
    limits: &Amounts,
) -> Option<String> {
    let start = format!("maximum {name} usage per {kind} is {bound}");
    let Some(limit) = limits.get(name) else { return Some(format!("{start}.  No limit is specified")) };
    if limit.nanos() > bound.nanos() {
        return Some(format!("{start}, but limit is {limit}"));
    }
    let request = requests.get(name).filter(|q| q.nanos() > bound.nanos())?;
    Some(format!("{start}, but request is {request}"))
}

fn ratio(kind: &str, name: &str, bound: &Quantity, requests: &Amounts, limits: &Amounts) -> Option<String> {
    let start = format!("{name} max limit to request ratio per {kind} is {bound}");
    let some = |amounts: &Amounts| amounts.get(name).filter(|q| !q.is_zero()).map(Quantity::as_f64);
    let Some(request) = some(requests) else {
        return Some(format!("{start}, but no request is specified or request is 0"));
    };
    let Some(limit) = some(limits) else {
        return Some(format!("{start}, but no limit is specified or limit is 0"));
    };
    let observed = limit / request;
    (observed > bound.as_f64()).then(|| format!("{start}, but provided ratio is {observed:.6}"))
}
