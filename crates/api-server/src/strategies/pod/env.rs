//! Validation of environment variables and of the references they are filled from.

use keelson_api_types::names;
use serde_json::Value;

use crate::strategies::check::{At, Errors, quantity};

const ENV_PATHS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
pub const VOLUME_PATHS: &[&str] =
    &["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
/// What a path may name at all, before asking whether it suits the place.
const KNOWN_PATHS: &[&str] = &[
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.serviceAccountName",
    "spec.schedulerName",
    "status.phase",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
const RESOURCES: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];
const SOURCES: &[&str] = &["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"];
const SIZES: &[&str] = &["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];

/// Printable ASCII without `=`.
fn relaxed_name(name: &str) -> Vec<String> {
    if name.is_empty() {
        return vec!["environment variable name must be non-empty".into()];
    }
    if name.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'=') {
        return Vec::new();
    }
    vec![
        "a valid environment variable name must consist only of printable ASCII characters other than '='"
            .into(),
    ]
}

pub fn variables(at: &At<'_>, e: &mut Errors) {
    for variable in at.each() {
        let name = variable.f("name");
        if e.required_string(&name) {
            e.messages(&name, relaxed_name(name.s()));
        }
        if let Some(source) = variable.get("valueFrom") {
            value_from(&source, !variable.f("value").is_empty(), e);
        }
    }
}

fn value_from(at: &At<'_>, has_value: bool, e: &mut Errors) {
    let mut count = 0;
    for kind in SOURCES {
        let Some(source) = at.get(kind) else { continue };
        count += 1;
        match *kind {
            "fieldRef" => field_ref(&source, ENV_PATHS, e),
            "resourceFieldRef" => resource_ref(&source, false, e),
            "fileKeyRef" => file_key(&source, e),
            _ => {
                e.dns_subdomain(&source.f("name"));
                if e.required_string(&source.f("key")) {
                    e.config_map_key(&source.f("key"));
                }
            }
        }
    }
    let detail = match count {
        0 => {
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"
        }
        _ if has_value => "may not be specified when `value` is not empty",
        1 => return,
        _ => "may not have more than one field specified at a time",
    };
    e.invalid_value(&at.path, "", detail);
}

fn file_key(source: &At<'_>, e: &mut Errors) {
    if e.required_string(&source.f("key")) {
        e.messages(&source.f("key"), relaxed_name(source.f("key").s()));
    }
    if e.required_string(&source.f("volumeName")) {
        e.dns_label(&source.f("volumeName"));
    }
    if e.required_string(&source.f("path")) {
        e.no_backsteps(&source.f("path"));
    }
}

/// A downward API field: `metadata.name`, `metadata.labels['key']` and the like.
pub fn field_ref(at: &At<'_>, supported: &[&str], e: &mut Errors) {
    let path = at.f("fieldPath");
    if !e.required_string(&at.f("apiVersion")) || !e.required_string(&path) {
        return;
    }
    let subscripted = path.s().strip_suffix("']").and_then(|p| p.split_once("['"));
    let unknown = match subscripted {
        _ if at.f("apiVersion").s() != "v1" => {
            Some(format!("unsupported pod version: {}", at.f("apiVersion").s()))
        }
        Some(("metadata.annotations" | "metadata.labels", _)) => None,
        Some(_) => Some(format!("field label does not support subscript: {}", path.s())),
        None if path.s() == "spec.host" || KNOWN_PATHS.contains(&path.s()) => None,
        None => Some(format!("field label not supported: {}", path.s())),
    };
    if let Some(reason) = unknown {
        e.invalid(&path, format!("error converting fieldPath: {reason}"));
        return;
    }
    match subscripted {
        Some((base, key)) => {
            let key = if base == "metadata.annotations" { key.to_lowercase() } else { key.to_owned() };
            for message in names::qualified_name(&key) {
                e.invalid_value(&at.path, key.as_str(), message);
            }
        }
        None if !supported.contains(&path.s()) => e.not_supported(&path, supported),
        None => {}
    }
}

/// A container's own limit or request.
pub fn resource_ref(at: &At<'_>, in_volume: bool, e: &mut Errors) {
    let resource = at.f("resource");
    let huge =
        resource.s().starts_with("limits.hugepages-") || resource.s().starts_with("requests.hugepages-");
    if in_volume && at.f("containerName").is_empty() {
        e.required(&at.f("containerName").path, "");
    } else if resource.is_empty() {
        e.required(&resource.path, "");
    } else if !huge && !RESOURCES.contains(&resource.s()) {
        e.not_supported(&resource, RESOURCES);
    }
    let Some(divisor) = quantity(at.f("divisor").value).filter(|q| !q.is_zero()) else { return };
    let kind = resource.s().split_once('.').map_or("", |(_, kind)| kind);
    let (allowed, what) = match kind {
        "cpu" => (&["1m", "1"][..], "1m and 1 are supported with the cpu resource".to_owned()),
        "memory" => (SIZES, format!("{} are supported with the memory resource", SIZES.join(", "))),
        "ephemeral-storage" => {
            (SIZES, format!("{} are supported with the local ephemeral storage resource", SIZES.join(", ")))
        }
        _ if huge => (SIZES, format!("{} are supported with the hugepages resource", SIZES.join(", "))),
        _ => return,
    };
    if !allowed.contains(&divisor.to_string().as_str()) {
        e.invalid_value(&at.path.field("divisor"), resource.s(), format!("only divisor's values {what}"));
    }
}

pub fn sources(at: &At<'_>, e: &mut Errors) {
    for source in at.each() {
        let prefix = source.f("prefix");
        if !prefix.is_empty() {
            e.messages(&prefix, relaxed_name(prefix.s()));
        }
        let mut count = 0;
        for reference in ["configMapRef", "secretRef"].iter().filter_map(|kind| source.get(kind)) {
            count += 1;
            let name = reference.f("name");
            if e.required_string(&name) {
                e.messages(&name, names::dns1123_subdomain(&names::mask_trailing_dash(name.s())));
            }
        }
        if count == 0 {
            let detail = "must specify one of: `configMapRef` or `secretRef`";
            e.invalid_value(&at.path, Value::from(""), detail);
        } else if count > 1 {
            e.invalid_value(&at.path, "", "may not have more than one field specified at a time");
        }
    }
}
