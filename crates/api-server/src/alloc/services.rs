//! What a Service gets when it is created or changed: address families, addresses, node ports.

use keelson_api_types::{FieldError, GroupKind, StatusError};
use serde_json::{Value, json};

use super::{AllocError, Allocators, Family, Held, Reservation};
use crate::strategies::check::{At, Errors};
use crate::strategies::common::parse_ip;
use crate::strategies::edit;
use crate::strategies::service::{is_headless, needs_health_check, validate_cluster_ips};

/// Allocates for a new Service and writes the result into it.
pub fn create(reservation: &mut Reservation, service: &mut Value) -> Result<(), StatusError> {
    families(&reservation.allocators, service, None)?;
    addresses(reservation, service)?;
    node_ports(reservation, service, None)?;
    health_check_port(reservation, service, None)
}

/// Allocates what a changed Service newly needs, and notes what it no longer does.
pub fn update(reservation: &mut Reservation, service: &mut Value, old: &Value) -> Result<(), StatusError> {
    families(&reservation.allocators, service, Some(old))?;
    let kind = |service: &Value| At::root(service).dig(&["spec", "type"]).s().to_owned();
    let (was_external, is_external) = (kind(old) == "ExternalName", kind(service) == "ExternalName");
    if was_external || (!is_headless(old) && !is_external) {
        update_addresses(reservation, service, old, was_external)?;
    }
    node_ports(reservation, service, Some(old))?;
    health_check_port(reservation, service, Some(old))?;
    let (before, after) = (Held::of(old), Held::of(service));
    reservation.freed =
        Held { addresses: &before.addresses - &after.addresses, ports: &before.ports - &after.ports };
    Ok(())
}

fn invalid(service: &Value, errors: Vec<FieldError>) -> StatusError {
    StatusError::invalid(&GroupKind::new("", "Service"), keelson_api_types::meta::name(service), errors)
}

fn set_spec(service: &mut Value, field: &str, value: impl Into<Value>) {
    if let Some(spec) = edit::ensure(service, "spec") {
        edit::set(spec, field, value);
    }
}

/// Settles `ipFamilyPolicy` and `ipFamilies`.
fn families(allocators: &Allocators, service: &mut Value, old: Option<&Value>) -> Result<(), StatusError> {
    let at = At::root(service).f("spec");
    if at.f("type").s() == "ExternalName" || old.is_some_and(|old| unchanged_dual_stack(service, old)) {
        return Ok(());
    }
    let selectorless = at.f("clusterIP").s() == "None" && at.f("selector").is_empty();
    if at.f("ipFamilyPolicy").is_empty() {
        let inherited = old.map(|old| At::root(old).dig(&["spec", "ipFamilyPolicy"]).s().to_owned());
        let policy = match inherited.filter(|policy| !policy.is_empty()) {
            Some(policy) => policy,
            None if selectorless => "RequireDualStack".to_owned(),
            None => "SingleStack".to_owned(),
        };
        set_spec(service, "ipFamilyPolicy", policy);
    }
    let mut e = Errors::new();
    validate_cluster_ips(service, old, &mut e);
    if !e.is_empty() {
        return Err(invalid(service, e.into_vec()));
    }
    policy_conflicts(service, old, &mut e);
    families_from_addresses(allocators, service, &mut e);
    if !e.is_empty() {
        return Err(invalid(service, e.into_vec()));
    }
    complete_families(allocators, service, selectorless)
}

/// A `PreferDualStack` Service whose addresses stay as they are is left alone.
fn unchanged_dual_stack(service: &Value, old: &Value) -> bool {
    let (now, before) = (At::root(service).f("spec"), At::root(old).f("spec"));
    let same = |field: &'static str| edit::same(now.f(field).value, before.f(field).value);
    now.f("ipFamilyPolicy").s() == "PreferDualStack"
        && ["", "PreferDualStack"].contains(&before.f("ipFamilyPolicy").s())
        && same("type")
        && same("clusterIPs")
        && same("ipFamilies")
}

/// The policy against the number of addresses and families asked for.
fn policy_conflicts(service: &mut Value, old: Option<&Value>, e: &mut Errors) {
    let spec = At::root(service).f("spec");
    let policy = spec.f("ipFamilyPolicy");
    let single = policy.s() == "SingleStack";
    let mut first_only: Vec<&str> = Vec::new();
    if let Some(before) = old.map(|old| At::root(old).f("spec")) {
        for (field, what) in [("clusterIPs", "cluster IP"), ("ipFamilies", "IP family")] {
            let (now, was) = (spec.f(field), before.f(field));
            if single {
                if now.len() > 1 && edit::same(now.value, was.value) {
                    first_only.push(field);
                }
            } else if !now.is_empty() && now.len() < was.len() {
                e.invalid(&policy, format!("must be 'SingleStack' to release the secondary {what}"));
            }
        }
    }
    if single {
        for (field, what) in [("clusterIPs", "cluster IPs"), ("ipFamilies", "IP families")] {
            if spec.f(field).len() == 2 && !first_only.contains(&field) {
                let detail = format!(
                    "must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified"
                );
                e.invalid(&policy, detail);
            }
        }
    }
    for field in first_only {
        if let Some(list) = edit::dig(service, &["spec", field]).and_then(Value::as_array_mut) {
            list.truncate(1);
        }
    }
}

/// A family for every address that was asked for without one.
fn families_from_addresses(allocators: &Allocators, service: &mut Value, e: &mut Errors) {
    let spec = At::root(service).f("spec");
    let ips = spec.f("clusterIPs");
    let mut families: Vec<Value> = spec.f("ipFamilies").each().map(|f| f.value.clone()).collect();
    for (i, ip) in ips.each().enumerate().take_while(|(_, ip)| ip.s() != "None").skip(families.len()) {
        let Some(family) = parse_ip(ip.s()).map(Family::of) else { continue };
        if allocators.families().any(|known| known == family) {
            families.push(family.as_str().into());
        } else {
            let detail = format!("{} is not configured on this cluster", family.as_str());
            e.invalid_value(&ips.path.index(i), ips.value.clone(), detail);
        }
    }
    if !families.is_empty() {
        set_spec(service, "ipFamilies", families);
    }
}

fn complete_families(
    allocators: &Allocators,
    service: &mut Value,
    selectorless: bool,
) -> Result<(), StatusError> {
    let spec = At::root(service).f("spec");
    let policy = spec.f("ipFamilyPolicy");
    let configured: Vec<Family> = allocators.families().collect();
    let mut families: Vec<Family> =
        spec.f("ipFamilies").strings().into_iter().filter_map(Family::parse).collect();
    let mut e = Errors::new();
    if !selectorless {
        if policy.s() == "RequireDualStack" && configured.len() < 2 {
            e.invalid(&policy, "this cluster is not configured for dual-stack services");
        }
        for family in spec.f("ipFamilies").each() {
            if !Family::parse(family.s()).is_some_and(|f| configured.contains(&f)) {
                e.invalid(&family, "not configured on this cluster");
            }
        }
    }
    if !e.is_empty() {
        return Err(invalid(service, e.into_vec()));
    }
    let dual = policy.s() != "SingleStack" && (selectorless || configured.len() == 2);
    if families.is_empty() {
        families.push(allocators.default_family());
    }
    if dual && families.len() == 1 {
        families.push(families[0].other());
    }
    let families: Vec<&str> = families.into_iter().map(Family::as_str).collect();
    set_spec(service, "ipFamilies", json!(families));
    Ok(())
}

/// One address per family, unless the Service is headless or only a name.
fn addresses(reservation: &mut Reservation, service: &mut Value) -> Result<(), StatusError> {
    let spec = At::root(service).f("spec");
    if spec.f("type").s() == "ExternalName" {
        return Ok(());
    }
    if is_headless(service) {
        return Ok(());
    }
    let families: Vec<Family> =
        spec.f("ipFamilies").strings().into_iter().filter_map(Family::parse).collect();
    let asked: Vec<String> = spec.f("clusterIPs").strings().into_iter().map(str::to_owned).collect();
    let mut ips = Vec::new();
    for (i, family) in families.into_iter().enumerate() {
        let wanted = asked.get(i).map(String::as_str).unwrap_or_default();
        ips.push(address(reservation, service, family, wanted)?);
    }
    set_addresses(service, ips);
    Ok(())
}

fn set_addresses(service: &mut Value, ips: Vec<String>) {
    if let Some(first) = ips.first().cloned() {
        set_spec(service, "clusterIP", first);
        set_spec(service, "clusterIPs", ips);
    }
}

/// Takes the wanted address, or any.
fn address(
    reservation: &mut Reservation,
    service: &Value,
    family: Family,
    wanted: &str,
) -> Result<String, StatusError> {
    let ips = At::root(service).dig(&["spec", "clusterIPs"]);
    let refuse = |detail: String| {
        let mut e = Errors::new();
        e.invalid(&ips, detail);
        Err(invalid(service, e.into_vec()))
    };
    let ip = parse_ip(wanted);
    match reservation.take_address(family, ip) {
        Ok(_) if ip.is_some() => Ok(wanted.to_owned()),
        Ok(ip) => Ok(ip.to_string()),
        Err(AllocError::Full) => {
            let name = keelson_api_types::meta::name(service);
            let text = format!("failed to allocate a serviceIP for Service {name:?}: {}", AllocError::Full);
            Err(StatusError::internal(text))
        }
        Err(error) => refuse(format!("failed to allocate IP {wanted}: {error}")),
    }
}

/// A Service that stops being only a name, or gets a second family.
fn update_addresses(
    reservation: &mut Reservation,
    service: &mut Value,
    old: &Value,
    was_external: bool,
) -> Result<(), StatusError> {
    if was_external {
        return addresses(reservation, service);
    }
    if unchanged_dual_stack(service, old) {
        return Ok(());
    }
    let spec = At::root(service).f("spec");
    let before = At::root(old).dig(&["spec", "ipFamilies"]).len();
    let families = spec.f("ipFamilies");
    if before == 1 && families.len() == 2 {
        let mut ips: Vec<String> = spec.f("clusterIPs").strings().into_iter().map(str::to_owned).collect();
        let wanted = ips.get(1).cloned().unwrap_or_default();
        let second = Family::parse(families.at(1).s()).unwrap_or(Family::V6);
        let ip = address(reservation, service, second, &wanted)?;
        ips.truncate(1);
        ips.push(ip);
        set_addresses(service, ips);
    }
    Ok(())
}

fn allocates_node_ports(service: &Value) -> bool {
    let spec = At::root(service).f("spec");
    match spec.f("type").s() {
        "NodePort" => true,
        "LoadBalancer" => spec.f("allocateLoadBalancerNodePorts").opt_b().unwrap_or(true),
        _ => false,
    }
}

/// Node ports for every port that needs one; a number that the Service already has stays its own.
fn node_ports(
    reservation: &mut Reservation,
    service: &mut Value,
    old: Option<&Value>,
) -> Result<(), StatusError> {
    let spec = At::root(service).f("spec");
    if !["NodePort", "LoadBalancer"].contains(&spec.f("type").s()) {
        return Ok(());
    }
    let mut mine = old.map(|old| Held::of(old).ports).unwrap_or_default();
    let all = allocates_node_ports(service);
    // Ports that differ in protocol only share a number.
    let ports: Vec<(i64, i64)> =
        spec.f("ports").each().map(|p| (p.f("port").i(), p.f("nodePort").i())).collect();
    let mut numbers: Vec<Option<u16>> = Vec::new();
    for (i, (port, wanted)) in ports.iter().enumerate() {
        let path = spec.f("ports").path.index(i).field("nodePort");
        let sibling = ports[..i].iter().zip(&numbers).find(|((p, _), _)| p == port).and_then(|(_, n)| *n);
        let requested = ports.iter().find(|(p, n)| p == port && *n != 0).map_or(0, |(_, n)| *n);
        let explicit = match (*wanted, old) {
            (0, None) if sibling.is_none() => requested,
            (wanted, _) => wanted,
        };
        if *wanted == 0 && !all {
            numbers.push(None);
            continue;
        }
        if explicit == 0 {
            let number = match sibling.filter(|_| old.is_none()) {
                Some(number) => number,
                None => reservation.take_port(None).map_err(|error| {
                    StatusError::internal(format!("failed to allocate a nodePort: {error}"))
                })?,
            };
            mine.insert(number);
            numbers.push(Some(number));
            continue;
        }
        let number = u16::try_from(explicit).unwrap_or_default();
        if mine.insert(number)
            && let Err(error) = reservation.take_port(Some(number))
        {
            let mut e = Errors::new();
            e.invalid_value(&path, explicit, error.to_string());
            return Err(invalid(service, e.into_vec()));
        }
        numbers.push(Some(number));
    }
    let Some(spec) = edit::some(service, "spec") else { return Ok(()) };
    for (port, number) in edit::each(spec, "ports").zip(numbers) {
        if let Some(number) = number {
            edit::set(port, "nodePort", number);
        }
    }
    Ok(())
}

/// The port on which nodes say whether they have local endpoints.
fn health_check_port(
    reservation: &mut Reservation,
    service: &mut Value,
    old: Option<&Value>,
) -> Result<(), StatusError> {
    if !needs_health_check(service) || old.is_some_and(needs_health_check) {
        return Ok(());
    }
    let wanted = At::root(service).dig(&["spec", "healthCheckNodePort"]).i();
    let asked = u16::try_from(wanted).ok().filter(|port| *port != 0);
    let port = reservation.take_port(asked).map_err(|error| {
        StatusError::internal(match asked {
            Some(port) => format!("failed to allocate requested HealthCheck NodePort {port}: {error}"),
            None => format!("failed to allocate a HealthCheck NodePort 0: {error}"),
        })
    })?;
    set_spec(service, "healthCheckNodePort", port);
    Ok(())
}
