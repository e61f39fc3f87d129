//! Ingresses, NetworkPolicies, IngressClasses, ServiceCIDRs and IPAddresses.

use std::net::IpAddr;

use ipnet::IpNet;
use keelson_api_types::{FieldError, names};
use serde_json::{Value, json};

use super::check::{At, Errors, Path};
use super::common::{IMMUTABLE, cidr_warnings, network, parse_cidr, parse_ip};
use super::edit::{self, default};
use super::{Ctx, Strategy};

/// `acme.io/some-path`.
pub fn domain_prefixed_path(at: &At<'_>, e: &mut Errors) {
    if !e.required_string(at) {
        return;
    }
    let Some((host, path)) =
        at.s().split_once('/').filter(|(host, path)| !host.is_empty() && !path.is_empty())
    else {
        e.invalid(at, "must be a domain-prefixed path (such as \"acme.io/foo\")");
        return;
    };
    for message in names::dns1123_subdomain(host) {
        e.invalid_value(&at.path, host, message);
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || "/-._~%!$&'()*+,;=:".contains(c);
    if !path.chars().all(allowed) {
        let detail = r"Invalid path (regex used for validation is '[A-Za-z0-9/\-._~%!$&'()*+,;=:]+')";
        e.invalid_value(&at.path, path, detail);
    }
}

pub struct NetworkPolicy;

impl Strategy for NetworkPolicy {
    fn default(&self, object: &mut Value) {
        let Some(spec) = edit::ensure(object, "spec") else { return };
        edit::ensure(spec, "podSelector");
        for direction in ["ingress", "egress"] {
            for rule in edit::each(spec, direction) {
                edit::each(rule, "ports").for_each(|port| default(port, "protocol", "TCP"));
            }
        }
        let types = if spec.get("egress").is_some_and(|rules| !edit::is_zero(rules)) {
            json!(["Ingress", "Egress"])
        } else {
            json!(["Ingress"])
        };
        edit::default_zero(spec, "policyTypes", types);
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut e = Errors::new();
        policy(&At::root(object).f("spec"), &[], &mut e);
        e.into_vec()
    }

    fn validate_update(&self, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut e = Errors::new();
        let before = At::root(old).f("spec");
        let known: Vec<&str> = peers(&before)
            .map(|peer| peer.f("ipBlock"))
            .flat_map(|block| [vec![block.f("cidr").s()], block.f("except").strings()].concat())
            .collect();
        policy(&At::root(object).f("spec"), &known, &mut e);
        e.into_vec()
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>) -> Vec<String> {
        let spec = At::root(object).f("spec");
        let peers = DIRECTIONS.iter().flat_map(|(direction, peers)| {
            spec.f(direction).each().flat_map(|rule| rule.f(peers).each().collect::<Vec<_>>())
        });
        let ranges = peers.map(|peer| peer.f("ipBlock")).flat_map(|block| {
            [block.f("cidr")].into_iter().chain(block.f("except").each()).collect::<Vec<_>>()
        });
        ranges.flat_map(|range| cidr_warnings(&range.path, range.s())).collect()
    }
}

const DIRECTIONS: [(&str, &str); 2] = [("ingress", "from"), ("egress", "to")];

fn peers<'a>(spec: &At<'a>) -> impl Iterator<Item = At<'a>> + use<'a> {
    let spec = spec.clone();
    DIRECTIONS.into_iter().flat_map(move |(direction, field)| {
        spec.f(direction).each().flat_map(move |rule| rule.f(field).each())
    })
}

fn policy(spec: &At<'_>, known: &[&str], e: &mut Errors) {
    e.label_selector(&spec.f("podSelector"));
    for (direction, _) in DIRECTIONS {
        for port in spec.f(direction).each().flat_map(|rule| rule.f("ports").each()) {
            policy_port(&port, e);
        }
    }
    for peer in peers(spec) {
        e.label_selector(&peer.f("podSelector"));
        e.label_selector(&peer.f("namespaceSelector"));
        let block = peer.f("ipBlock");
        if block.has() {
            ip_block(&block, known, e);
        }
        let others = peer.has_any(&["podSelector", "namespaceSelector"]);
        if !others && !block.has() {
            e.required(&peer.path, "must specify a peer");
        } else if others && block.has() {
            e.forbidden(&peer.path, "may not specify both ipBlock and another peer");
        }
    }
    let types = spec.f("policyTypes");
    if types.len() > 2 {
        e.invalid(&types, "may not specify more than two policyTypes");
        return;
    }
    for kind in types.each() {
        if !["Ingress", "Egress"].contains(&kind.s()) {
            e.not_supported(&kind, &["Ingress", "Egress"]);
        }
    }
}

fn policy_port(at: &At<'_>, e: &mut Errors) {
    e.optional_one_of(&at.f("protocol"), &["TCP", "UDP", "SCTP"]);
    let (port, end) = (at.f("port"), at.f("endPort"));
    match port.value {
        Value::Null if end.has() => e.invalid(&end, "may not be specified when `port` is not specified"),
        Value::Null => {}
        Value::String(_) => {
            if end.has() {
                e.invalid(&end, "may not be specified when `port` is non-numeric");
            }
            e.port_number_or_name(&port);
        }
        _ => {
            e.port_number(&port);
            if end.has() {
                if end.i() < port.i() {
                    e.invalid_value(&end.path, port.i(), "must be greater than or equal to `port`");
                }
                e.port_number(&end);
            }
        }
    }
}

fn ip_block(at: &At<'_>, known: &[&str], e: &mut Errors) {
    let cidr = at.f("cidr");
    if !e.required_string(&cidr) {
        return;
    }
    e.cidr(&cidr, known);
    let Some((outer, bits)) = parse_cidr(cidr.s()) else { return };
    for except in at.f("except").each() {
        e.cidr(&except, known);
        let Some((inner, inner_bits)) = parse_cidr(except.s()) else { continue };
        let within = outer.is_ipv4() == inner.is_ipv4()
            && bits < inner_bits
            && network(inner, bits) == network(outer, bits);
        if !within {
            e.invalid(&except, "must be a strict subset of `cidr`");
        }
    }
}

pub struct Ingress;

impl Strategy for Ingress {
    fn default(&self, object: &mut Value) {
        edit::ensure(object, "status").and_then(|status| edit::map(status, "loadBalancer"));
    }

    fn prepare_create(&self, _ctx: &Ctx<'_>, object: &mut Value) {
        edit::set(object, "status", json!({"loadBalancer": {}}));
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let (at, mut e) = (At::root(object), Errors::new());
        ingress(&at.f("spec"), &mut e);
        let key = "kubernetes.io/ingress.class";
        let (annotation, class) =
            (at.dig(&["metadata", "annotations", key]), at.dig(&["spec", "ingressClassName"]));
        if annotation.has() && class.has() && annotation.s() != class.s() {
            let path = Path::of(&["annotations", key]);
            let detail = "must match `ingressClassName` when both are specified";
            e.invalid_value(&path, annotation.s(), detail);
        }
        e.into_vec()
    }

    fn validate_update(&self, object: &Value, _old: &Value) -> Vec<FieldError> {
        let mut e = Errors::new();
        ingress(&At::root(object).f("spec"), &mut e);
        e.into_vec()
    }

    fn validate_status_update(&self, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut e = Errors::new();
        let list = |object| At::root(object).dig(&["status", "loadBalancer", "ingress"]);
        let known: Vec<&str> = list(old).each().map(|entry| entry.f("ip").s()).collect();
        for entry in list(object).each() {
            let (ip, host) = (entry.f("ip"), entry.f("hostname"));
            if !ip.is_empty() {
                e.ip(&ip, &known);
            }
            if !host.is_empty() {
                e.dns_subdomain(&host);
                if parse_ip(host.s()).is_some() {
                    e.invalid(&host, "must be a DNS name, not an IP address");
                }
            }
        }
        e.into_vec()
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        let key = "kubernetes.io/ingress.class";
        if old.is_some() || !At::root(object).dig(&["metadata", "annotations", key]).has() {
            return Vec::new();
        }
        vec![format!("annotation {key:?} is deprecated, please use 'spec.ingressClassName' instead")]
    }
}

fn ingress(spec: &At<'_>, e: &mut Errors) {
    let (rules, backend) = (spec.f("rules"), spec.f("defaultBackend"));
    if rules.is_empty() && !backend.has() {
        let value = if rules.has() { rules.value.clone() } else { json!([]) };
        e.invalid_value(&spec.path, value, "either `defaultBackend` or `rules` must be specified");
    }
    if backend.has() {
        ingress_backend(&backend, e);
    }
    for rule in rules.each() {
        let host = rule.f("host");
        if !host.is_empty() {
            if parse_ip(host.s()).is_some() {
                e.invalid(&host, "must be a DNS name, not an IP address");
            }
            host_name(&host, e);
        }
        if let Some(http) = rule.get("http") {
            let paths = http.f("paths");
            if paths.is_empty() {
                e.required(&paths.path, "");
            }
            paths.each().for_each(|path| ingress_path(&path, e));
        }
    }
    for tls in spec.f("tls").each() {
        tls.f("hosts").each().for_each(|host| host_name(&host, e));
        if !tls.f("secretName").is_empty() {
            e.dns_subdomain(&tls.f("secretName"));
        }
    }
    if let Some(class) = spec.get("ingressClassName") {
        e.dns_subdomain(&class);
    }
}

fn host_name(at: &At<'_>, e: &mut Errors) {
    if at.s().contains('*') {
        e.messages(at, names::wildcard_dns1123_subdomain(at.s()));
    } else {
        e.dns_subdomain(at);
    }
}

fn ingress_path(at: &At<'_>, e: &mut Errors) {
    let (kind, path) = (at.f("pathType"), at.f("path"));
    let absolute = path.s().starts_with('/');
    match kind.s() {
        _ if !kind.has() => {
            e.required(&kind.path, "pathType must be specified");
            return;
        }
        "Exact" | "Prefix" => {
            if !absolute {
                e.invalid_value(&path.path, path.s(), "must be an absolute path");
            }
            for sequence in ["//", "/./", "/../", "%2f", "%2F"].iter().filter(|s| path.s().contains(*s)) {
                e.invalid(&path, format!("must not contain '{sequence}'"));
            }
            for suffix in ["/..", "/."].iter().filter(|s| path.s().ends_with(*s)) {
                e.invalid(&path, format!("cannot end with '{suffix}'"));
            }
        }
        "ImplementationSpecific" => {
            if !path.is_empty() && !absolute {
                e.invalid(&path, "must be an absolute path");
            }
        }
        _ => e.not_supported(&kind, &["Exact", "ImplementationSpecific", "Prefix"]),
    }
    ingress_backend(&at.f("backend"), e);
}

fn ingress_backend(at: &At<'_>, e: &mut Errors) {
    match (at.get("resource"), at.get("service")) {
        (Some(_), Some(_)) => e.invalid_value(&at.path, "", "cannot set both resource and service backends"),
        (Some(resource), None) => reference(&resource, e),
        (None, Some(service)) => {
            if e.required_string(&service.f("name")) {
                e.dns_label(&service.f("name"));
            }
            let (name, number) = (service.dig(&["port", "name"]), service.dig(&["port", "number"]));
            match (!name.is_empty(), number.i() != 0) {
                (true, true) => e.invalid_value(&at.path, "", "cannot set both port name & port number"),
                (true, false) => e.port_number_or_name(&name),
                (false, true) => e.port_number(&number),
                (false, false) => e.required(&at.path, "port name or number is required"),
            }
        }
        (None, None) => e.invalid_value(&at.path, "", "resource or service backend is required"),
    }
}

/// An API object by group, kind and name.
fn reference(at: &At<'_>, e: &mut Errors) {
    if let Some(group) = at.get("apiGroup") {
        e.dns_subdomain(&group);
    }
    for field in ["kind", "name"].iter().map(|field| at.f(field)) {
        if e.required_string(&field) {
            e.messages(&field, names::path_segment_name(field.s()));
        }
    }
}

pub struct IngressClass;

impl Strategy for IngressClass {
    fn default(&self, object: &mut Value) {
        if let Some(parameters) = edit::dig(object, &["spec", "parameters"]) {
            default(parameters, "scope", "Cluster");
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let (spec, mut e) = (At::root(object).f("spec"), Errors::new());
        if spec.f("controller").len() > 250 {
            e.too_long(&spec.f("controller").path, 250);
        }
        domain_prefixed_path(&spec.f("controller"), &mut e);
        let Some(parameters) = spec.get("parameters") else { return e.into_vec() };
        reference(&parameters, &mut e);
        let (scope, namespace) = (parameters.f("scope"), parameters.f("namespace"));
        e.one_of(&scope, &["Cluster", "Namespace"]);
        match (scope.s(), namespace.has()) {
            ("Namespace", false) => e.required(&namespace.path, "`parameters.scope` is set to 'Namespace'"),
            ("Namespace", true) => e.dns_label(&namespace),
            ("Cluster", true) => e.forbidden(&namespace.path, "`parameters.scope` is set to 'Cluster'"),
            _ => {}
        }
        e.into_vec()
    }

    fn validate_update(&self, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut e = Errors::new();
        let controller = |object| At::root(object).dig(&["spec", "controller"]);
        e.immutable(&controller(object), &controller(old));
        e.extend(self.validate(object));
        e.into_vec()
    }
}

pub struct ServiceCidr;

impl Strategy for ServiceCidr {
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let (ranges, mut e) = (At::root(object).dig(&["spec", "cidrs"]), Errors::new());
        cidrs(&ranges, &mut e);
        e.into_vec()
    }

    fn validate_update(&self, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut e = Errors::new();
        let list = |object| At::root(object).dig(&["spec", "cidrs"]);
        let (now, before) = (list(object), list(old));
        if now.len() != before.len() && (before.len(), now.len()) != (1, 2) {
            e.invalid(&now, IMMUTABLE);
            return e.into_vec();
        }
        for (new, old) in now.each().zip(before.each()) {
            if new.s() != old.s() {
                e.invalid(&new, IMMUTABLE);
            }
        }
        if now.len() != before.len() {
            cidrs(&now, &mut e);
        }
        e.into_vec()
    }
}

fn cidrs(at: &At<'_>, e: &mut Errors) {
    if at.is_empty() {
        e.required(&at.path, "at least one CIDR required");
        return;
    }
    if at.len() > 2 {
        e.invalid(at, "may only hold up to 2 values");
        return;
    }
    let mut fours = 0;
    for range in at.each() {
        let before = e.len();
        e.cidr(&range, &[]);
        let Ok(parsed) = range.s().parse::<IpNet>() else { continue };
        fours += usize::from(parsed.network().is_ipv4());
        if e.len() == before && parsed.to_string() != range.s() {
            e.invalid(&range, format!("must be in canonical form (\"{parsed}\")"));
        }
    }
    if at.len() == 2 && fours != 1 {
        let detail =
            "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
        e.invalid(at, detail);
    }
}

pub struct IpAddress;

impl Strategy for IpAddress {
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let (parent, mut e) = (At::root(object).dig(&["spec", "parentRef"]), Errors::new());
        if !parent.has() {
            e.required(&parent.path, "");
            return e.into_vec();
        }
        if !parent.f("group").is_empty() {
            e.dns_subdomain(&parent.f("group"));
        }
        for field in ["resource", "name"].iter().map(|field| parent.f(field)) {
            if e.required_string(&field) {
                e.messages(&field, names::path_segment_name(field.s()));
            }
        }
        e.messages(&parent.f("namespace"), names::path_segment_name(parent.f("namespace").s()));
        e.into_vec()
    }

    fn validate_update(&self, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut e = Errors::new();
        let parent = |object| At::root(object).dig(&["spec", "parentRef"]);
        e.immutable(&parent(object), &parent(old));
        e.into_vec()
    }
}

/// The name is the address.
pub(super) fn ip_address_name(name: &str, _base: bool) -> Vec<String> {
    match name.parse::<IpAddr>() {
        Ok(ip) if ip.to_string() == name => Vec::new(),
        Ok(ip) => vec![format!("must be in canonical form (\"{ip}\")")],
        Err(_) => vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_owned()],
    }
}
