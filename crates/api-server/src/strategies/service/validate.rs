//! Validation of Services.

use std::net::IpAddr;

use keelson_api_types::names;
use serde_json::{Value, json};

use super::{externally_accessible, is_headless, needs_health_check};
use crate::strategies::check::{At, Errors, Path};
use crate::strategies::common::{PROTOCOLS, parse_ip};
use crate::strategies::edit::same;

const TYPES: &[&str] = &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const TOPOLOGY_HINTS: &str = "service.kubernetes.io/topology-aware-hints";
const TOPOLOGY_MODE: &str = "service.kubernetes.io/topology-mode";
const SOURCE_RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";
const ONLY_BALANCERS: &str = "may only be used when `type` is 'LoadBalancer'";
const SET_ONCE: &str = "may not change once set";

pub fn service(object: &Value, old: Option<&Value>, e: &mut Errors) {
    let at = At::root(object);
    let spec = at.f("spec");
    let kind = spec.f("type").s();
    let headless = is_headless(object);
    annotations(&at.dig(&["metadata", "annotations"]), e);
    if spec.f("ports").is_empty() && !headless && kind != "ExternalName" {
        e.required(&spec.path.field("ports"), "");
    }
    match kind {
        "LoadBalancer" | "NodePort" if headless => {
            let ip = spec.f("clusterIPs").at(0);
            e.invalid(&ip, format!("may not be set to 'None' for {kind} services"));
        }
        "ExternalName" => external_name(&spec, e),
        _ => {}
    }
    ports(&spec.f("ports"), e);
    e.labels(&spec.f("selector"));
    affinity(&spec, e);
    cluster_ips(object, old, e);
    let known = old.map(|old| At::root(old).dig(&["spec", "externalIPs"]).strings()).unwrap_or_default();
    for ip in spec.f("externalIPs").each() {
        let before = e.len();
        e.ip(&ip, &known);
        if e.len() == before {
            e.endpoint_ip(&ip);
        }
    }
    e.one_of(&spec.f("type"), TYPES);
    node_ports(&spec, e);
    source_ranges(&at, old, e);
    traffic(object, &spec, e);
}

fn annotations(at: &At<'_>, e: &mut Errors) {
    let (hints, mode) = (at.f(TOPOLOGY_HINTS), at.f(TOPOLOGY_MODE));
    if hints.has() && mode.has() && hints.s() != mode.s() {
        let detail = format!("must match annotations[{TOPOLOGY_HINTS}] when both are specified");
        e.invalid_value(&at.path.key(TOPOLOGY_MODE), mode.s(), detail);
    }
}

fn external_name(spec: &At<'_>, e: &mut Errors) {
    for field in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        if !spec.f(field).is_empty() {
            e.forbidden(&spec.path.field(field), "may not be set for ExternalName services");
        }
    }
    let name = spec.f("externalName");
    let trimmed = name.s().strip_suffix('.').unwrap_or(name.s());
    if trimmed.is_empty() {
        e.required(&name.path, "");
    }
    for message in names::dns1123_subdomain(trimmed).into_iter().filter(|_| !trimmed.is_empty()) {
        e.invalid_value(&name.path, trimmed, message);
    }
}

fn ports(at: &At<'_>, e: &mut Errors) {
    let mut seen = Vec::new();
    for port in at.each() {
        let name = port.f("name");
        if name.is_empty() {
            if at.len() > 1 {
                e.required(&name.path, "");
            }
        } else {
            e.dns_label(&name);
            if seen.contains(&name.s()) {
                e.duplicate(&name.path, name.s());
            }
            seen.push(name.s());
        }
        e.port_number(&port.f("port"));
        e.one_of(&port.f("protocol"), PROTOCOLS);
        e.port_number_or_name(&port.f("targetPort"));
        if let Some(protocol) = port.get("appProtocol") {
            e.qualified_name(&protocol);
        }
    }
}

fn affinity(spec: &At<'_>, e: &mut Errors) {
    let (kind, config) = (spec.f("sessionAffinity"), spec.f("sessionAffinityConfig"));
    e.one_of(&kind, &["ClientIP", "None"]);
    match kind.s() {
        "ClientIP" => {
            let timeout = config.dig(&["clientIP", "timeoutSeconds"]);
            let missing = [&config, &config.f("clientIP"), &timeout]
                .iter()
                .find(|at| !at.has())
                .map(|at| at.path.clone());
            if let Some(path) = missing {
                e.required(&path, "when session affinity type is ClientIP");
            } else if !(1..=86400).contains(&timeout.i()) {
                e.invalid(&timeout, "must be greater than 0 and less than 86400");
            }
        }
        "None" if config.has() => {
            e.forbidden(&config.path, "must not be set when session affinity is None");
        }
        _ => {}
    }
}

fn node_ports(spec: &At<'_>, e: &mut Errors) {
    let (mut node, mut own) = (Vec::new(), Vec::new());
    for port in spec.f("ports").each() {
        let (number, protocol) = (port.f("nodePort"), port.f("protocol").s());
        if number.i() != 0 {
            if spec.f("type").s() == "ClusterIP" {
                e.forbidden(&number.path, "may not be used when `type` is 'ClusterIP'");
            }
            if node.contains(&(protocol, number.i())) {
                e.duplicate(&number.path, number.i());
            }
            node.push((protocol, number.i()));
        }
        let key = (protocol, port.f("port").i());
        if own.contains(&key) {
            e.duplicate(&port.path, json!({"port": key.1, "protocol": protocol, "targetPort": 0}));
        }
        own.push(key);
    }
}

fn source_ranges(at: &At<'_>, old: Option<&Value>, e: &mut Errors) {
    let spec = at.f("spec");
    let balancer = spec.f("type").s() == "LoadBalancer";
    let ranges = spec.f("loadBalancerSourceRanges").under(spec.path.field("LoadBalancerSourceRanges"));
    if !ranges.is_empty() {
        if !balancer {
            e.forbidden(&ranges.path, ONLY_BALANCERS);
        }
        let before = old.map(|old| At::root(old).dig(&["spec", "loadBalancerSourceRanges"]).strings());
        let known: Vec<&str> = before.unwrap_or_default().into_iter().map(str::trim).collect();
        ranges.each().for_each(|range| e.cidr(&range, &known));
    } else if let Some(text) = at.dig(&["metadata", "annotations"]).get(SOURCE_RANGES) {
        let path = Path::of(&["metadata", "annotations"]).key(SOURCE_RANGES);
        if !balancer {
            e.forbidden(&path, ONLY_BALANCERS);
        }
        for range in text.s().split(',').map(str::trim).filter(|range| !range.is_empty()) {
            let value = Value::from(range);
            let before = e.len();
            e.cidr(&At { value: &value, path: Path::default() }, &[]);
            if e.len() > before {
                e.path_last(&path);
            }
        }
    }
}

fn traffic(object: &Value, spec: &At<'_>, e: &mut Errors) {
    let kind = spec.f("type").s();
    let allocate = spec.f("allocateLoadBalancerNodePorts");
    if kind == "LoadBalancer" && !allocate.has() {
        e.required(&Path::of(&["allocateLoadBalancerNodePorts"]), "");
    } else if kind != "LoadBalancer" && allocate.has() {
        e.forbidden(&allocate.path, ONLY_BALANCERS);
    }
    if let Some(class) = spec.get("loadBalancerClass") {
        if kind == "LoadBalancer" {
            e.qualified_name(&class);
        } else {
            e.forbidden(&class.path, ONLY_BALANCERS);
        }
    }
    let policy = spec.f("externalTrafficPolicy");
    if externally_accessible(spec.value) {
        e.one_of(&policy, &["Cluster", "Local"]);
    } else if !policy.is_empty() {
        e.invalid(&policy, "may only be set for externally-accessible services");
    }
    let health = spec.f("healthCheckNodePort");
    if needs_health_check(object) {
        // None yet is fine: the allocator sees to it after validation.
        if health.i() != 0 {
            e.port_number(&health);
        }
    } else if health.i() != 0 {
        let detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        e.invalid(&health, detail);
    }
    let internal = spec.f("internalTrafficPolicy");
    if ["NodePort", "LoadBalancer", "ClusterIP"].contains(&kind) && !internal.has() {
        e.required(&internal.path, "");
    }
    e.optional_one_of(&internal, &["Cluster", "Local"]);
    let distribution = spec.f("trafficDistribution");
    e.optional_one_of(&distribution, &["PreferClose", "PreferSameZone", "PreferSameNode"]);
}

/// `clusterIP`, `clusterIPs`, `ipFamilies` and `ipFamilyPolicy` among themselves.
pub fn cluster_ips(object: &Value, old: Option<&Value>, e: &mut Errors) {
    let spec = At::root(object).f("spec");
    if spec.f("type").s() == "ExternalName" {
        return;
    }
    let (one, ips, families) = (spec.f("clusterIP"), spec.f("clusterIPs"), spec.f("ipFamilies"));
    match (one.is_empty(), ips.is_empty()) {
        (false, true) => e.required(&ips.path, ""),
        (false, false) if ips.at(0).s() != one.s() => {
            e.invalid(&ips, "first value must match `clusterIP`");
        }
        (true, false) => e.invalid(&ips, "must be empty when `clusterIP` is not specified"),
        _ => {}
    }
    let mut seen = Vec::new();
    for family in families.each() {
        if !["IPv4", "IPv6"].contains(&family.s()) {
            e.not_supported(&family, &["IPv4", "IPv6"]);
        }
        if seen.contains(&family.s()) {
            e.duplicate(&family.path, family.s());
        }
        seen.push(family.s());
    }
    let policies = ["PreferDualStack", "RequireDualStack", "SingleStack"];
    e.optional_one_of(&spec.f("ipFamilyPolicy"), &policies);
    let known = old.map(|old| At::root(old).dig(&["spec", "clusterIPs"]).strings()).unwrap_or_default();
    let before = e.len();
    for (i, ip) in ips.each().enumerate() {
        if i == 0 && ip.s() == "None" {
            if ips.len() > 1 {
                e.invalid(&ips, "'None' must be the first and only value");
            }
        } else {
            e.ip(&ip, &known);
        }
    }
    let broken = e.len() > before;
    if ips.len() > 2 {
        e.invalid(&ips, "may only hold up to 2 values");
    }
    if broken {
        return;
    }
    let parsed: Vec<IpAddr> = ips.strings().into_iter().filter_map(parse_ip).collect();
    if parsed.len() > 1 && parsed.iter().filter(|ip| ip.is_ipv4()).count() != 1 {
        e.invalid(&ips, "may specify no more than one IP for each IP family");
    }
    if is_headless(object) {
        return;
    }
    for (i, (ip, family)) in parsed.iter().zip(families.strings()).enumerate() {
        let actual = if ip.is_ipv4() { "IPv4" } else { "IPv6" };
        if family != actual {
            let detail = format!("expected an {family} value as indicated by `ipFamilies[{i}]`");
            e.invalid(&ips.at(i), detail);
        }
    }
}

/// What may not change.
pub fn update(object: &Value, old: &Value, e: &mut Errors) {
    let (spec, before) = (At::root(object).f("spec"), At::root(old).f("spec"));
    let kinds = [spec.f("type").s(), before.f("type").s()];
    if !kinds.contains(&"ExternalName") {
        let headless = (is_headless(object), is_headless(old));
        if headless != (true, true) {
            primary_stays(&spec, &before, "clusterIPs", "clusterIP", e);
        }
        if headless == (false, false) {
            primary_stays(&spec, &before, "ipFamilies", "ipFamily", e);
        }
    }
    let class = spec.f("loadBalancerClass");
    if kinds == ["LoadBalancer"; 2] && !same(class.value, before.f("loadBalancerClass").value) {
        e.invalid(&class, SET_ONCE);
    }
    let health = spec.f("healthCheckNodePort");
    if needs_health_check(object)
        && needs_health_check(old)
        && health.i() != before.f("healthCheckNodePort").i()
    {
        e.forbidden(&health.path, "field is immutable");
    }
}

/// The first entry of a list is for ever, the second comes and goes with the policy.
fn primary_stays(spec: &At<'_>, before: &At<'_>, field: &'static str, what: &str, e: &mut Errors) {
    let (now, was) = (spec.f(field), before.f(field));
    if now.len() == was.len() {
        for (i, (a, b)) in now.each().zip(was.each()).enumerate() {
            if a.s() != b.s() {
                let index = if field == "clusterIPs" { i } else { 0 };
                e.invalid_value(&now.path.index(index), now.value.clone(), SET_ONCE);
            }
        }
        return;
    }
    if now.is_empty() && now.len() < was.len() {
        let value = if now.has() { now.value.clone() } else { json!([]) };
        e.invalid_value(&now.path.index(0), value, format!("primary {what} can not be unset"));
        return;
    }
    if !was.is_empty() && now.at(0).s() != was.at(0).s() {
        e.invalid_value(&now.path.index(0), now.value.clone(), SET_ONCE);
    }
    let policy = spec.f("ipFamilyPolicy");
    if now.len() == 1 && was.len() > 1 && policy.s() != "SingleStack" {
        e.invalid(&policy, format!("must be set to 'SingleStack' when releasing the secondary {what}"));
    }
}

/// Where an outside load balancer says it is.
pub fn load_balancer(at: &At<'_>, old: &At<'_>, kind: &str, e: &mut Errors) {
    let ingresses = at.f("ingress");
    if kind != "LoadBalancer" && !ingresses.is_empty() {
        e.forbidden(&ingresses.path, "may only be used when `spec.type` is 'LoadBalancer'");
        return;
    }
    let known: Vec<&str> = old.f("ingress").each().map(|ingress| ingress.f("ip").s()).collect();
    for ingress in ingresses.each() {
        let (ip, mode, host) = (ingress.f("ip"), ingress.f("ipMode"), ingress.f("hostname"));
        if !ip.is_empty() {
            e.ip(&ip, &known);
        }
        match (mode.has(), ip.is_empty()) {
            (false, false) => e.required(&mode.path, "must be specified when `ip` is set"),
            (true, true) => e.forbidden(&mode.path, "may not be specified when `ip` is not set"),
            _ => e.optional_one_of(&mode, &["Proxy", "VIP"]),
        }
        if !host.is_empty() {
            e.dns_subdomain(&host);
            if parse_ip(host.s()).is_some() {
                e.invalid(&host, "must be a DNS name, not an IP address");
            }
        }
    }
}
