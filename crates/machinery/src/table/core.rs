//! The core group's kinds, but for pods.

use super::object::{Obj, shortened};
use super::{plain, storage};
use keelson_api_types::quantity;
use serde_json::{Value, json};
use std::collections::BTreeSet;

const ROLE_PREFIX: &str = "node-role.kubernetes.io/";
const NONE: &str = "<none>";

pub(super) fn cells(resource: &str, o: &Obj) -> Vec<Value> {
    match resource {
        "namespaces" => vec![o.name(), json!(o.text("status.phase")), o.age()],
        "configmaps" => vec![o.name(), json!(o.len("data") + o.len("binaryData")), o.age()],
        "secrets" => vec![o.name(), json!(o.text("type")), json!(o.len("data")), o.age()],
        "serviceaccounts" => vec![o.name(), o.age()],
        "services" => service(o),
        "nodes" => node(o),
        "endpoints" => vec![o.name(), json!(endpoints(o)), o.age()],
        "resourcequotas" => quota(o),
        "persistentvolumes" => storage::volume(o),
        "persistentvolumeclaims" => storage::claim(o),
        "replicationcontrollers" => replication_controller(o),
        "podtemplates" => {
            let [names, images] = o.containers("template.spec.containers");
            vec![o.name(), names, images, json!(o.labels("template.metadata.labels"))]
        }
        "componentstatuses" => component(o),
        _ => plain(o),
    }
}

fn replication_controller(o: &Obj) -> Vec<Value> {
    let [names, images] = o.containers("spec.template.spec.containers");
    vec![
        o.name(),
        json!(o.int("spec.replicas")),
        json!(o.int("status.replicas")),
        json!(o.int("status.readyReplicas")),
        o.age(),
        names,
        images,
        json!(o.labels("spec.selector")),
    ]
}

fn service(o: &Obj) -> Vec<Value> {
    let ports: Vec<String> = o
        .list("spec.ports")
        .map(|p| match p.int("nodePort") {
            0 => format!("{}/{}", p.int("port"), p.text("protocol")),
            node => format!("{}:{node}/{}", p.int("port"), p.text("protocol")),
        })
        .collect();
    let ip = o.list("spec.clusterIPs").next().and_then(|v| v.value().as_str()).unwrap_or(NONE);
    vec![
        o.name(),
        json!(o.text("spec.type")),
        json!(ip),
        json!(external_ip(o)),
        json!(if ports.is_empty() { NONE.to_owned() } else { ports.join(",") }),
        o.age(),
        json!(o.labels("spec.selector")),
    ]
}

fn external_ip(o: &Obj) -> String {
    let external = o.join("spec.externalIPs", ",");
    match o.text("spec.type") {
        "ClusterIP" | "NodePort" if external.is_empty() => NONE.to_owned(),
        "ClusterIP" | "NodePort" => external,
        "LoadBalancer" => {
            let balancer = load_balancer(o);
            match (balancer.is_empty(), external.is_empty()) {
                (true, true) => "<pending>".to_owned(),
                (false, true) => balancer,
                (true, false) => external,
                (false, false) => format!("{balancer},{external}"),
            }
        }
        "ExternalName" => o.text("spec.externalName").to_owned(),
        _ => "<unknown>".to_owned(),
    }
}

/// The addresses in `status.loadBalancer`, sorted.
pub(super) fn load_balancer(o: &Obj) -> String {
    let addresses: BTreeSet<&str> = o
        .list("status.loadBalancer.ingress")
        .map(|i| if i.text("ip").is_empty() { i.text("hostname") } else { i.text("ip") })
        .filter(|a| !a.is_empty())
        .collect();
    addresses.into_iter().collect::<Vec<_>>().join(",")
}

fn node(o: &Obj) -> Vec<Value> {
    let mut status = match o.condition("Ready") {
        Some(c) if c.text("status") == "True" => "Ready".to_owned(),
        Some(_) => "NotReady".to_owned(),
        None => "Unknown".to_owned(),
    };
    if o.flag("spec.unschedulable") {
        status.push_str(",SchedulingDisabled");
    }
    let address = |kind: &str| {
        let found = o.list("status.addresses").find(|a| a.text("type") == kind);
        json!(found.map_or(NONE, |a| a.text("address")))
    };
    let info = o.at("status.nodeInfo");
    let mut kernel = info.or("kernelVersion", "<unknown>");
    if !info.text("architecture").is_empty() {
        kernel.push_str(&format!(" ({})", info.text("architecture")));
    }
    vec![
        o.name(),
        json!(status),
        json!(roles(o)),
        o.age(),
        json!(info.text("kubeletVersion")),
        address("InternalIP"),
        address("ExternalIP"),
        json!(info.or("osImage", "<unknown>")),
        json!(kernel),
        json!(info.or("containerRuntimeVersion", "<unknown>")),
    ]
}

fn roles(o: &Obj) -> String {
    let labels = o.get("metadata.labels").and_then(Value::as_object);
    let roles: BTreeSet<&str> = labels
        .into_iter()
        .flatten()
        .filter_map(|(k, v)| match k.strip_prefix(ROLE_PREFIX) {
            Some(role) => Some(role),
            None if k == "kubernetes.io/role" => v.as_str(),
            None => None,
        })
        .filter(|role| !role.is_empty())
        .collect();
    if roles.is_empty() { NONE.to_owned() } else { roles.into_iter().collect::<Vec<_>>().join(",") }
}

fn endpoints(o: &Obj) -> String {
    let mut all = Vec::new();
    for subset in o.list("subsets") {
        let ips: Vec<&str> = subset.list("addresses").map(|a| a.text("ip")).collect();
        if subset.len("ports") == 0 {
            all.extend(ips.iter().map(|ip| (*ip).to_owned()));
        }
        for port in subset.list("ports") {
            let joined = |ip: &&str| match ip.contains(':') {
                true => format!("[{ip}]:{}", port.int("port")),
                false => format!("{ip}:{}", port.int("port")),
            };
            all.extend(ips.iter().map(joined));
        }
    }
    shortened(all, 3, if o.len("subsets") == 0 { NONE } else { "" })
}

fn quota(o: &Obj) -> Vec<Value> {
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    for (name, hard) in o.get("status.hard").and_then(Value::as_object).into_iter().flatten() {
        let used = o.get("status.used").and_then(|u| u.get(name)).and_then(Value::as_str).unwrap_or("0");
        let entry = format!("{name}: {used}/{}", hard.as_str().unwrap_or("0"));
        if name.starts_with("limits.") { limits.push(entry) } else { requests.push(entry) }
    }
    vec![o.name(), json!(requests.join(", ")), json!(limits.join(", ")), o.age()]
}

fn component(o: &Obj) -> Vec<Value> {
    let healthy = o.list("conditions").find(|c| c.text("type") == "Healthy");
    let status = match &healthy {
        Some(c) if c.text("status") == "True" => "Healthy",
        Some(_) => "Unhealthy",
        None => "Unknown",
    };
    let text = |k: &str| json!(healthy.as_ref().map_or("", |c| c.text(k)));
    vec![o.name(), json!(status), text("message"), text("error")]
}

/// Events of both groups: `core/v1` has firstTimestamp and involvedObject, `events.k8s.io` other names for them.
pub(super) fn event(o: &Obj) -> Vec<Value> {
    let either = |a: &'static str, b: &'static str| if o.has(a) { a } else { b };
    let first = match either("firstTimestamp", "deprecatedFirstTimestamp") {
        path if o.has(path) => o.since(path),
        _ => o.since("eventTime"),
    };
    let last = match either("lastTimestamp", "deprecatedLastTimestamp") {
        path if o.has(path) => o.since(path),
        _ => first.clone(),
    };
    let (last, count) = if o.has("series") {
        (o.since("series.lastObservedTime"), o.int("series.count"))
    } else {
        (last, o.int(either("count", "deprecatedCount")).max(1))
    };
    let target = o.at(either("involvedObject", "regarding"));
    let mut object = target.text("kind").to_lowercase();
    if !target.text("name").is_empty() {
        object = format!("{object}/{}", target.text("name"));
    }
    let source = o.at(either("source", "deprecatedSource"));
    let reporter = either("reportingComponent", "reportingController");
    let component =
        if source.text("component").is_empty() { o.text(reporter) } else { source.text("component") };
    let host = if source.text("host").is_empty() { o.text("reportingInstance") } else { source.text("host") };
    let source = if host.is_empty() { component.to_owned() } else { format!("{component}, {host}") };
    vec![
        json!(last),
        json!(o.text("type")),
        json!(o.text("reason")),
        json!(object),
        json!(target.text("fieldPath")),
        json!(source),
        json!(o.text(either("message", "note")).trim()),
        json!(first),
        json!(count),
        o.name(),
    ]
}

/// A quantity at a path in its canonical form, "0" when absent.
pub(super) fn quantity_at(o: &Obj, path: &str) -> String {
    quantity::canonical(o.text(path)).unwrap_or_else(|_| "0".to_owned())
}
