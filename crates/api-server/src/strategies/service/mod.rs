//! Services: defaults, type transitions, and the addresses and ports they get from [`crate::alloc`].

mod validate;

use futures::FutureExt;
use futures::future::BoxFuture;
use keelson_api_types::FieldError;
use serde_json::{Value, json};

use super::check::{At, Errors};
use super::common::{cidr_warnings, ip_warnings};
use super::edit::{self, default, default_zero, same};
use super::{Ctx, Reserving, Selectable, Strategy, carry};
use crate::alloc::{self, Allocators};
use crate::types::Objects;

pub use validate::cluster_ips as validate_cluster_ips;

/// Seconds that a client sticks to an endpoint: three hours.
const AFFINITY_TIMEOUT: i64 = 10800;

pub struct Service;

impl Strategy for Service {
    fn default(&self, object: &mut Value) {
        let Some(spec) = edit::ensure(object, "spec") else { return };
        default_zero(spec, "sessionAffinity", "None");
        match spec["sessionAffinity"].as_str() {
            Some("None") => {
                edit::unset(spec, "sessionAffinityConfig");
            }
            Some("ClientIP")
                if !At::root(spec).dig(&["sessionAffinityConfig", "clientIP", "timeoutSeconds"]).has() =>
            {
                let config = json!({"clientIP": {"timeoutSeconds": AFFINITY_TIMEOUT}});
                edit::set(spec, "sessionAffinityConfig", config);
            }
            _ => {}
        }
        default_zero(spec, "type", "ClusterIP");
        for port in edit::each(spec, "ports") {
            default_zero(port, "protocol", "TCP");
            edit::omit_zero(port, &["nodePort", "name"]);
            if let Some(number) = port.get("port").cloned() {
                default_zero(port, "targetPort", number);
            }
        }
        edit::omit_zero(
            spec,
            &[
                "publishNotReadyAddresses",
                "healthCheckNodePort",
                "clusterIP",
                "externalName",
                "externalTrafficPolicy",
                "loadBalancerIP",
            ],
        );
        if externally_accessible(spec) {
            default_zero(spec, "externalTrafficPolicy", "Cluster");
        }
        let kind = spec["type"].as_str().unwrap_or_default().to_owned();
        if ["NodePort", "LoadBalancer", "ClusterIP"].contains(&kind.as_str()) {
            default(spec, "internalTrafficPolicy", "Cluster");
        }
        if kind == "LoadBalancer" {
            default(spec, "allocateLoadBalancerNodePorts", true);
        }
        edit::ensure(object, "status").and_then(|status| edit::map(status, "loadBalancer"));
        if kind == "LoadBalancer"
            && let Some(balancer) = edit::dig(object, &["status", "loadBalancer"])
        {
            for ingress in edit::each(balancer, "ingress") {
                if ingress.get("ip").and_then(Value::as_str).is_some_and(|ip| !ip.is_empty()) {
                    default(ingress, "ipMode", "VIP");
                }
            }
        }
    }

    fn prepare_create(&self, _ctx: &Ctx<'_>, object: &mut Value) {
        edit::set(object, "status", json!({"loadBalancer": {}}));
        normalize_cluster_ips(object, None);
    }

    fn prepare_update(&self, _ctx: &Ctx<'_>, object: &mut Value, old: &Value) {
        carry(object, old, "status");
        drop_type_dependent(object, old);
        keep_allocated(object, old);
        normalize_cluster_ips(object, Some(old));
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut e = Errors::new();
        validate::service(object, None, &mut e);
        e.into_vec()
    }

    fn validate_update(&self, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut e = Errors::new();
        validate::update(object, old, &mut e);
        validate::service(object, Some(old), &mut e);
        e.into_vec()
    }

    fn validate_status_update(&self, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut e = Errors::new();
        let kind = At::root(object).dig(&["spec", "type"]).s();
        let status = At::root(object).dig(&["status", "loadBalancer"]);
        validate::load_balancer(&status, &At::root(old).dig(&["status", "loadBalancer"]), kind, &mut e);
        e.into_vec()
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>) -> Vec<String> {
        warnings(&At::root(object))
    }

    fn selectable_names(&self) -> &'static [&'static str] {
        &["spec.clusterIP", "spec.type"]
    }

    fn selectable_fields<'a>(&self, object: &'a Value) -> Selectable<'a> {
        let spec = At::root(object).f("spec");
        vec![("spec.clusterIP", spec.f("clusterIP").s().into()), ("spec.type", spec.f("type").s().into())]
    }

    fn reserve_create<'a>(&self, ctx: &'a Ctx<'_>, object: &'a mut Value) -> Reserving<'a> {
        Some(alloc::create(ctx.allocators, ctx.objects, object, ctx.dry_run).boxed())
    }

    fn reserve_update<'a>(&self, ctx: &'a Ctx<'_>, object: &'a mut Value, old: &'a Value) -> Reserving<'a> {
        Some(alloc::update(ctx.allocators, ctx.objects, object, old, ctx.dry_run).boxed())
    }

    fn released<'a>(
        &self,
        allocators: &'a Allocators,
        objects: &'a dyn Objects,
        old: &'a Value,
    ) -> Option<BoxFuture<'a, ()>> {
        Some(allocators.release(objects, old).boxed())
    }
}

fn spec_type(service: &Value) -> &str {
    At::root(service).dig(&["spec", "type"]).s()
}

pub fn is_headless(service: &Value) -> bool {
    let ips = At::root(service).dig(&["spec", "clusterIPs"]);
    ips.len() == 1 && ips.at(0).s() == "None"
}

fn externally_accessible(spec: &Value) -> bool {
    let spec = At::root(spec);
    match spec.f("type").s() {
        "LoadBalancer" | "NodePort" => true,
        "ClusterIP" => !spec.f("externalIPs").is_empty(),
        _ => false,
    }
}

/// Whether nodes answer health checks of an outside load balancer for it.
pub fn needs_health_check(service: &Value) -> bool {
    let spec = At::root(service).f("spec");
    spec.f("type").s() == "LoadBalancer" && spec.f("externalTrafficPolicy").s() == "Local"
}

fn has_node_ports(service: &Value) -> bool {
    ["NodePort", "LoadBalancer"].contains(&spec_type(service))
}

fn node_port_numbers(service: &Value) -> Vec<i64> {
    let ports = At::root(service).dig(&["spec", "ports"]);
    ports.each().map(|port| port.f("nodePort").i()).filter(|port| *port != 0).collect()
}

/// Keeps `clusterIP` and `clusterIPs` the same thing, whichever of them the client knows.
fn normalize_cluster_ips(object: &mut Value, old: Option<&Value>) {
    let spec = At::root(object).f("spec");
    let (one, many) = (spec.f("clusterIP").s().to_owned(), spec.f("clusterIPs"));
    let wanted = match old.map(|old| At::root(old).f("spec")) {
        None if !one.is_empty() && many.is_empty() => Some(json!([one])),
        None => None,
        Some(before) => {
            let was = before.f("clusterIPs");
            if one == before.f("clusterIP").s() {
                (many.is_empty() && !was.is_empty()).then(|| was.value.clone())
            } else if !same(many.value, was.value) {
                None
            } else if one.is_empty() {
                Some(Value::Null)
            } else {
                Some(json!([one]))
            }
        }
    };
    if let (Some(wanted), Some(spec)) = (wanted, edit::some(object, "spec")) {
        match wanted {
            Value::Null => {
                edit::unset(spec, "clusterIPs");
            }
            other => edit::set(spec, "clusterIPs", other),
        }
    }
}

/// What the client left out although the Service has it stays as it is.
fn keep_allocated(object: &mut Value, old: &Value) {
    if spec_type(old) != "ExternalName" && spec_type(object) != "ExternalName" {
        for field in ["clusterIP", "clusterIPs", "ipFamilyPolicy", "ipFamilies"] {
            if At::root(object).dig(&["spec", field]).is_empty() {
                edit::carry(object, old, &["spec", field]);
            }
        }
    }
    let allocates = |service: &Value| {
        let off = At::root(service).dig(&["spec", "allocateLoadBalancerNodePorts"]).opt_b() == Some(false);
        has_node_ports(service) && !(spec_type(service) == "LoadBalancer" && off)
    };
    if allocates(old) && allocates(object) {
        let kept: Vec<i64> = node_port_numbers(object);
        let free = |port: i64| port != 0 && !kept.contains(&port);
        let before: Vec<(String, i64)> = At::root(old)
            .dig(&["spec", "ports"])
            .each()
            .map(|port| (port.f("name").s().to_owned(), port.f("nodePort").i()))
            .collect();
        if let Some(spec) = edit::some(object, "spec") {
            for port in edit::each(spec, "ports") {
                let name = port.get("name").and_then(Value::as_str).unwrap_or_default();
                let was = before.iter().rev().find(|(n, _)| n == name).map(|(_, port)| *port);
                if let Some(number) = was.filter(|number| free(*number)) {
                    default_zero(port, "nodePort", number);
                }
            }
        }
    }
    if needs_health_check(old)
        && needs_health_check(object)
        && At::root(object).dig(&["spec", "healthCheckNodePort"]).i() == 0
    {
        edit::carry(object, old, &["spec", "healthCheckNodePort"]);
    }
}

/// When the type changes, values that only the old type has and that the client merely repeated go.
fn drop_type_dependent(object: &mut Value, old: &Value) {
    let repeated = |object: &Value, field: &'static str| {
        same(At::root(object).dig(&["spec", field]).value, At::root(old).dig(&["spec", field]).value)
    };
    let (was, is) = (spec_type(old).to_owned(), spec_type(object).to_owned());
    let mut drop: Vec<&str> = Vec::new();
    if was != "ExternalName" && is == "ExternalName" {
        if repeated(object, "clusterIP") && repeated(object, "clusterIPs") {
            drop.extend(["clusterIP", "clusterIPs"]);
        }
        drop.extend(["ipFamilies", "ipFamilyPolicy"].iter().filter(|field| repeated(object, field)));
        // Upstream drops it on reading, so that clients never see it on such a Service.
        drop.push("internalTrafficPolicy");
    }
    if needs_health_check(old) && !needs_health_check(object) && repeated(object, "healthCheckNodePort") {
        drop.push("healthCheckNodePort");
    }
    if was == "LoadBalancer" && is != "LoadBalancer" {
        drop.extend(
            ["allocateLoadBalancerNodePorts", "loadBalancerClass"].iter().filter(|f| repeated(object, f)),
        );
    }
    let accessible = |service: &Value| service.get("spec").is_some_and(externally_accessible);
    if accessible(old) && !accessible(object) && repeated(object, "externalTrafficPolicy") {
        drop.push("externalTrafficPolicy");
    }
    let before = node_port_numbers(old);
    let drop_ports = has_node_ports(old)
        && !has_node_ports(object)
        && node_port_numbers(object).iter().all(|port| before.contains(port));
    let Some(spec) = edit::some(object, "spec") else { return };
    for field in drop {
        edit::unset(spec, field);
    }
    if drop_ports {
        for port in edit::each(spec, "ports") {
            edit::unset(port, "nodePort");
        }
    }
    if is != "LoadBalancer" {
        edit::set(object, "status", {
            let mut status = old.get("status").cloned().unwrap_or_else(|| json!({}));
            edit::set(&mut status, "loadBalancer", json!({}));
            status
        });
    }
}

fn warnings(at: &At<'_>) -> Vec<String> {
    let mut out = Vec::new();
    let spec = at.f("spec");
    let annotations = at.dig(&["metadata", "annotations"]);
    if annotations.f("service.kubernetes.io/topology-aware-hints").has() {
        out.push(
            "annotation service.kubernetes.io/topology-aware-hints is deprecated, please use \
             service.kubernetes.io/topology-mode instead"
                .to_owned(),
        );
    }
    let kind = spec.f("type").s();
    let headless = kind == "ClusterIP" && spec.f("clusterIP").s() == "None";
    if !headless {
        for ip in spec.f("clusterIPs").each() {
            out.extend(ip_warnings(&ip.path, ip.s()));
        }
    }
    let external = !spec.f("externalIPs").is_empty();
    if headless {
        if !spec.f("loadBalancerIP").is_empty() {
            out.push("spec.loadBalancerIP is ignored for headless services".to_owned());
        }
        if external {
            out.push("spec.externalIPs is ignored for headless services".to_owned());
        }
        if spec.f("sessionAffinity").s() != "None" {
            out.push("spec.SessionAffinity is ignored for headless services".to_owned());
        }
    }
    for ip in spec.f("externalIPs").each() {
        out.extend(ip_warnings(&ip.path, ip.s()));
    }
    if external && !headless && kind != "ExternalName" {
        out.push(
            "spec.externalIPs is deprecated and may no longer be implemented in some clusters".to_owned(),
        );
    }
    let balancer = spec.f("loadBalancerIP");
    out.extend(ip_warnings(&balancer.path, balancer.s()));
    for range in spec.f("loadBalancerSourceRanges").each() {
        out.extend(cidr_warnings(&range.path, range.s()));
    }
    if kind == "ExternalName" && external {
        out.push("spec.externalIPs is ignored when spec.type is \"ExternalName\"".to_owned());
    }
    if kind != "ExternalName" && !spec.f("externalName").is_empty() {
        out.push("spec.externalName is ignored when spec.type is not \"ExternalName\"".to_owned());
    }
    if spec.f("trafficDistribution").s() == "PreferClose" {
        out.push(
            "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"".to_owned(),
        );
    }
    out
}
