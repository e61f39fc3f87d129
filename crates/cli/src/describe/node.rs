//! Nodes, with what their pods ask for.

use std::collections::BTreeMap;

use keelson_api_types::quantity::Quantity;
use serde_json::Value;

use super::{Page, Related, conditions, time};
use crate::commands::age;
use crate::value::{flag, list, map, shown, text};

pub(super) fn describe(node: &Value, related: &Related) -> String {
    let mut page = Page::default();
    page.field(0, "Name", text(node, "/metadata/name"));
    page.field(0, "Roles", roles(node));
    page.meta(node);
    page.field(0, "CreationTimestamp", time(text(node, "/metadata/creationTimestamp")));
    let taints: Vec<String> = list(node, "/spec/taints").iter().map(taint).collect();
    page.several("Taints", &taints);
    page.field(0, "Unschedulable", flag(node, "/spec/unschedulable"));
    if let Some(lease) = related.of("leases").first() {
        page.line(0, "Lease:");
        page.field(1, "HolderIdentity", shown(lease.pointer("/spec/holderIdentity")));
        page.field(1, "AcquireTime", time(text(lease, "/spec/acquireTime")));
        page.field(1, "RenewTime", time(text(lease, "/spec/renewTime")));
    }
    let columns = [
        ("Status", "status"),
        ("LastHeartbeatTime", "lastHeartbeatTime"),
        ("LastTransitionTime", "lastTransitionTime"),
        ("Reason", "reason"),
        ("Message", "message"),
    ];
    conditions(&mut page, node, &columns, 5);
    page.line(0, "Addresses:");
    list(node, "/status/addresses").iter().for_each(|a| page.field(1, text(a, "/type"), text(a, "/address")));
    for (title, field) in [("Capacity", "/status/capacity"), ("Allocatable", "/status/allocatable")] {
        if let Some(amounts) = map(node, field) {
            page.line(0, &format!("{title}:"));
            amounts.iter().for_each(|(name, amount)| page.field(1, name, shown(Some(amount))));
        }
    }
    system(&mut page, node);
    pods(&mut page, node, related.of("pods"));
    page.finish(related)
}

fn roles(node: &Value) -> String {
    const PREFIX: &str = "node-role.kubernetes.io/";
    let labels = map(node, "/metadata/labels").into_iter().flatten();
    let roles: Vec<&str> = labels.filter_map(|(key, _)| key.strip_prefix(PREFIX)).collect();
    if roles.is_empty() { "<none>".to_owned() } else { roles.join(",") }
}

fn taint(taint: &Value) -> String {
    let value = match text(taint, "/value") {
        "" => String::new(),
        value => format!("={value}"),
    };
    format!("{}{value}:{}", text(taint, "/key"), text(taint, "/effect"))
}

fn system(page: &mut Page, node: &Value) {
    page.line(0, "System Info:");
    for (title, field) in [
        ("Machine ID", "machineID"),
        ("System UUID", "systemUUID"),
        ("Boot ID", "bootID"),
        ("Kernel Version", "kernelVersion"),
        ("OS Image", "osImage"),
        ("Operating System", "operatingSystem"),
        ("Architecture", "architecture"),
        ("Container Runtime Version", "containerRuntimeVersion"),
        ("Kubelet Version", "kubeletVersion"),
    ] {
        page.field(1, title, text(node, &format!("/status/nodeInfo/{field}")));
    }
    page.field_if(0, "PodCIDR", text(node, "/spec/podCIDR"));
    let ranges: Vec<&str> = list(node, "/spec/podCIDRs").iter().filter_map(Value::as_str).collect();
    page.field_if(0, "PodCIDRs", &ranges.join(","));
    page.field_if(0, "ProviderID", text(node, "/spec/providerID"));
}

type Amounts = BTreeMap<String, Quantity>;

fn amounts(value: Option<&Value>) -> Amounts {
    let amounts = value.and_then(Value::as_object).into_iter().flatten();
    amounts
        .filter_map(|(name, amount)| Some((name.clone(), Quantity::parse(&shown(Some(amount))).ok()?)))
        .collect()
}

fn add(total: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        let sum = total.get(name).map_or_else(|| *amount, |present| present.add(amount));
        total.insert(name.clone(), sum);
    }
}

/// What a pod asks for: its containers together, or its hungriest init container if that is more.
fn of_pod(pod: &Value, field: &str) -> Amounts {
    let mut total = Amounts::new();
    let resources = |container: &Value| amounts(container.pointer(&format!("/resources/{field}")));
    list(pod, "/spec/containers").iter().for_each(|c| add(&mut total, &resources(c)));
    for container in list(pod, "/spec/initContainers") {
        let own = resources(container);
        // One that keeps running beside the others counts with them.
        if text(container, "/restartPolicy") == "Always" {
            add(&mut total, &own);
            continue;
        }
        for (name, amount) in own {
            if total.get(&name).is_none_or(|present| present.nanos() < amount.nanos()) {
                total.insert(name, amount);
            }
        }
    }
    add(&mut total, &amounts(pod.pointer("/spec/overhead")));
    total
}

fn share(amount: Option<&Quantity>, of: Option<&Quantity>) -> String {
    let nanos = |q: Option<&Quantity>| q.map_or(0, Quantity::nanos);
    let percent = if nanos(of) == 0 { 0 } else { nanos(amount) * 100 / nanos(of) };
    format!("{} ({percent}%)", amount.map_or_else(|| "0".to_owned(), Quantity::to_string))
}

fn pods(page: &mut Page, node: &Value, pods: &[Value]) {
    let allocatable = amounts(node.pointer("/status/allocatable").or(node.pointer("/status/capacity")));
    let mut running: Vec<&Value> =
        pods.iter().filter(|p| !matches!(text(p, "/status/phase"), "Succeeded" | "Failed")).collect();
    running.sort_by_key(|p| (text(p, "/metadata/namespace"), text(p, "/metadata/name")));
    page.field(0, "Non-terminated Pods", format!("({} in total)", running.len()));
    page.line(1, "Namespace\tName\t\tCPU Requests\tCPU Limits\tMemory Requests\tMemory Limits\tAge");
    page.line(1, "---------\t----\t\t------------\t----------\t---------------\t-------------\t---");
    let (mut requests, mut limits) = (Amounts::new(), Amounts::new());
    for pod in running {
        let (asked, bound) = (of_pod(pod, "requests"), of_pod(pod, "limits"));
        let cell = |from: &Amounts, name: &str| share(from.get(name), allocatable.get(name));
        page.line(
            1,
            &format!(
                "{}\t{}\t\t{}\t{}\t{}\t{}\t{}",
                text(pod, "/metadata/namespace"),
                text(pod, "/metadata/name"),
                cell(&asked, "cpu"),
                cell(&bound, "cpu"),
                cell(&asked, "memory"),
                cell(&bound, "memory"),
                age(text(pod, "/metadata/creationTimestamp"))
            ),
        );
        add(&mut requests, &asked);
        add(&mut limits, &bound);
    }
    page.line(0, "Allocated resources:\n  (Total limits may be over 100 percent, i.e., overcommitted.)");
    page.line(1, "Resource\tRequests\tLimits");
    page.line(1, "--------\t--------\t------");
    for name in ["cpu", "memory", "ephemeral-storage"] {
        let of = allocatable.get(name);
        page.line(1, &format!("{name}\t{}\t{}", share(requests.get(name), of), share(limits.get(name), of)));
    }
    let others =
        allocatable.keys().filter(|n| !matches!(n.as_str(), "cpu" | "memory" | "ephemeral-storage" | "pods"));
    for name in others {
        let of = allocatable.get(name);
        page.line(1, &format!("{name}\t{}\t{}", share(requests.get(name), of), share(limits.get(name), of)));
    }
}
