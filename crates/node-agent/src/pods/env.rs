//! Environment variables, and the fields of the pod that they and the downward API show.

use super::resources;
use super::spec;
use crate::api::Service;
use crate::context::{Allocatable, Context};
use k8s_openapi::api::core::v1::{Container, EnvVarSource, Pod, ResourceFieldSelector};
use keelson_api_types::quantity::Quantity;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Why a container cannot be configured; the text goes into its status.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

type Result<T> = std::result::Result<T, ConfigError>;

/// Replaces `$(NAME)` by what `lookup` knows; `$$(NAME)` stays as `$(NAME)`, and so does an unknown name.
pub fn expand(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("$$") {
            out.push('$');
            rest = after;
        } else if let Some(inside) = rest.strip_prefix("$(") {
            match inside.find(')') {
                Some(end) => {
                    let name = &inside[..end];
                    match lookup(name) {
                        Some(value) => out.push_str(&value),
                        None => out.push_str(&rest[..end + 3]),
                    }
                    rest = &inside[end + 1..];
                }
                None => {
                    out.push_str("$(");
                    rest = inside;
                }
            }
        } else {
            out.push('$');
            rest = &rest[1..];
        }
    }
    out.push_str(rest);
    out
}

/// What a pod shows of itself.
pub struct Facts<'a> {
    pub pod: &'a Pod,
    pub pod_ips: &'a [String],
    pub host_ip: IpAddr,
    pub allocatable: Allocatable,
}

impl Facts<'_> {
    /// The value of a field such as `metadata.name` or `metadata.labels['app']`.
    pub fn field(&self, path: &str) -> Result<String> {
        let meta = &self.pod.metadata;
        if let Some((map, key)) = subscript(path) {
            let entries = match map {
                "metadata.labels" => &meta.labels,
                "metadata.annotations" => &meta.annotations,
                _ => return Err(unsupported(path)),
            };
            return Ok(entries.as_ref().and_then(|m| m.get(key)).cloned().unwrap_or_default());
        }
        let spec = spec::spec(self.pod);
        Ok(match path {
            "metadata.name" => meta.name.clone().unwrap_or_default(),
            "metadata.namespace" => meta.namespace.clone().unwrap_or_default(),
            "metadata.uid" => meta.uid.clone().unwrap_or_default(),
            "metadata.labels" => lines(meta.labels.as_ref()),
            "metadata.annotations" => lines(meta.annotations.as_ref()),
            "spec.nodeName" => spec.node_name.clone().unwrap_or_default(),
            "spec.serviceAccountName" => spec.service_account_name.clone().unwrap_or_default(),
            "status.hostIP" | "status.hostIPs" => self.host_ip.to_string(),
            "status.podIP" => self.pod_ips.first().cloned().unwrap_or_default(),
            "status.podIPs" => self.pod_ips.join(","),
            _ => return Err(unsupported(path)),
        })
    }

    /// A container's request or limit in units of the divisor, rounded up; the node's where there is no limit.
    pub fn resource(&self, selector: &ResourceFieldSelector, default_container: &str) -> Result<String> {
        let name = selector.container_name.as_deref().filter(|n| !n.is_empty()).unwrap_or(default_container);
        let all = spec::containers(self.pod).iter().chain(spec::init_containers(self.pod));
        let container = all
            .into_iter()
            .find(|c| c.name == name)
            .ok_or_else(|| ConfigError(format!("container {name} not found")))?;
        let (kind, resource) =
            selector.resource.split_once('.').ok_or_else(|| unsupported(&selector.resource))?;
        let amount = match kind {
            "limits" => resources::limit(container, resource)
                .filter(|q| !q.is_zero())
                .or_else(|| self.node_amount(resource)),
            "requests" => resources::request(container, resource),
            _ => return Err(unsupported(&selector.resource)),
        };
        let divisor = selector.divisor.as_ref().and_then(|d| Quantity::parse(&d.0).ok());
        let divisor = divisor.filter(|d| !d.is_zero()).map_or(1_000_000_000, |d| d.nanos());
        let nanos = amount.map_or(0, |a| a.nanos());
        Ok(((nanos + divisor - 1) / divisor).to_string())
    }

    fn node_amount(&self, resource: &str) -> Option<Quantity> {
        match resource {
            "cpu" => Some(Quantity::from_milli(self.allocatable.cpu_milli)),
            "memory" => Quantity::parse(&self.allocatable.memory_bytes.to_string()).ok(),
            "ephemeral-storage" => Quantity::parse(&self.allocatable.ephemeral_bytes.to_string()).ok(),
            _ => None,
        }
    }
}

fn unsupported(path: &str) -> ConfigError {
    ConfigError(format!("unsupported fieldPath: {path}"))
}

/// `metadata.labels['key']` as map and key.
fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, rest) = path.split_once("['")?;
    Some((map, rest.strip_suffix("']")?))
}

/// `key="value"` per line, sorted, as volumes show labels and annotations.
fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    let entries = map.into_iter().flatten();
    entries.map(|(k, v)| format!("{k}={}", quote(v))).collect::<Vec<_>>().join("\n")
}

/// Go's quoting of a string: what escapes does a reader of these files expects.
fn quote(value: &str) -> String {
    let mut out = String::from("\"");
    for c in value.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c.is_control() => out.push_str(&format!("\\x{:02x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// The environment of a container, in the order of the spec, Services last.
pub async fn environment(
    ctx: &Context,
    facts: &Facts<'_>,
    container: &Container,
) -> Result<Vec<(String, String)>> {
    let links = spec::spec(facts.pod).enable_service_links != Some(false);
    let services: Vec<_> = ctx.api.services();
    let services = service_variables(services.iter().map(AsRef::as_ref), spec::namespace(facts.pod), links);
    let mut set: Vec<(String, String)> = Vec::new();
    let put = |set: &mut Vec<(String, String)>, name: String, value: String| match set
        .iter_mut()
        .find(|(n, _)| *n == name)
    {
        Some((_, present)) => *present = value,
        None => set.push((name, value)),
    };
    for (name, value) in env_from(ctx, facts, container).await? {
        put(&mut set, name, value);
    }
    for variable in container.env.as_deref().unwrap_or_default() {
        let value = match (&variable.value, &variable.value_from) {
            (Some(value), _) if !value.is_empty() => Some(expand(value, &|name| {
                set.iter()
                    .find(|(n, _)| n == name)
                    .map(|(_, v)| v.clone())
                    .or_else(|| services.get(name).cloned())
            })),
            (_, Some(source)) => source_value(ctx, facts, container, source).await?,
            _ => Some(String::new()),
        };
        if let Some(value) = value {
            put(&mut set, variable.name.clone(), value);
        }
    }
    for (name, value) in services {
        if !set.iter().any(|(n, _)| *n == name) {
            set.push((name, value));
        }
    }
    Ok(set)
}

async fn env_from(ctx: &Context, facts: &Facts<'_>, container: &Container) -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for source in container.env_from.as_deref().unwrap_or_default() {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        if let Some(reference) = &source.config_map_ref {
            let optional = reference.optional == Some(true);
            let Some(map) = config_map(ctx, facts.pod, &reference.name, optional).await? else { continue };
            found.extend(map.into_iter().map(|(k, v)| (format!("{prefix}{k}"), v)));
        }
        if let Some(reference) = &source.secret_ref {
            let optional = reference.optional == Some(true);
            let Some(map) = secret(ctx, facts.pod, &reference.name, optional).await? else { continue };
            let text = |v: Vec<u8>| String::from_utf8_lossy(&v).into_owned();
            found.extend(map.into_iter().map(|(k, v)| (format!("{prefix}{k}"), text(v))));
        }
    }
    found.retain(|(name, _)| !name.is_empty() && !name.contains('='));
    Ok(found)
}

/// `None`: an optional source that is not there leaves the variable out.
async fn source_value(
    ctx: &Context,
    facts: &Facts<'_>,
    container: &Container,
    source: &EnvVarSource,
) -> Result<Option<String>> {
    let namespace = spec::namespace(facts.pod);
    if let Some(field) = &source.field_ref {
        return facts.field(&field.field_path).map(Some);
    }
    if let Some(resource) = &source.resource_field_ref {
        return facts.resource(resource, &container.name).map(Some);
    }
    if let Some(key) = &source.config_map_key_ref {
        let optional = key.optional == Some(true);
        let map = config_map(ctx, facts.pod, &key.name, optional).await?;
        return match map.and_then(|mut m| m.remove(&key.key)) {
            Some(value) => Ok(Some(value)),
            None if optional => Ok(None),
            None => Err(ConfigError(format!(
                "couldn't find key {} in ConfigMap {namespace}/{}",
                key.key, key.name
            ))),
        };
    }
    if let Some(key) = &source.secret_key_ref {
        let optional = key.optional == Some(true);
        let map = secret(ctx, facts.pod, &key.name, optional).await?;
        return match map.and_then(|mut m| m.remove(&key.key)) {
            Some(value) => Ok(Some(String::from_utf8_lossy(&value).into_owned())),
            None if optional => Ok(None),
            None => {
                Err(ConfigError(format!("couldn't find key {} in Secret {namespace}/{}", key.key, key.name)))
            }
        };
    }
    Ok(Some(String::new()))
}

async fn config_map(
    ctx: &Context,
    pod: &Pod,
    name: &str,
    optional: bool,
) -> Result<Option<BTreeMap<String, String>>> {
    match ctx.api.config_map(pod, name).await {
        Ok(Some(map)) => Ok(Some(map.object.data.clone().unwrap_or_default())),
        Ok(None) if optional => Ok(None),
        Ok(None) => Err(ConfigError(format!("configmap {name:?} not found"))),
        Err(e) => Err(ConfigError(e.to_string())),
    }
}

async fn secret(
    ctx: &Context,
    pod: &Pod,
    name: &str,
    optional: bool,
) -> Result<Option<BTreeMap<String, Vec<u8>>>> {
    match ctx.api.secret(pod, name).await {
        Ok(Some(secret)) => {
            let data = secret.object.data.clone().unwrap_or_default();
            Ok(Some(data.into_iter().map(|(k, v)| (k, v.0)).collect()))
        }
        Ok(None) if optional => Ok(None),
        Ok(None) => Err(ConfigError(format!("secret {name:?} not found"))),
        Err(e) => Err(ConfigError(e.to_string())),
    }
}

/// The variables of Services that a pod of this namespace sees; the API's own Service always.
fn service_variables<'a>(
    services: impl Iterator<Item = &'a Service>,
    namespace: &str,
    links: bool,
) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    for service in services {
        let Service { metadata, spec } = service;
        let own = metadata.namespace.as_deref() == Some(namespace);
        let name = metadata.name.as_str();
        let master = name == "kubernetes" && metadata.namespace.as_deref() == Some("default");
        let ip = spec.cluster_ip.as_str();
        if !(master || own && links) || ip.is_empty() || ip == "None" {
            continue;
        }
        let ports = &spec.ports;
        let Some(first) = ports.first() else { continue };
        let prefix = variable_name(name);
        let mut put = |suffix: String, value: String| variables.insert(format!("{prefix}_{suffix}"), value);
        put("SERVICE_HOST".into(), ip.to_owned());
        put("SERVICE_PORT".into(), first.port.to_string());
        for port in ports {
            if !port.name.is_empty() {
                put(format!("SERVICE_PORT_{}", variable_name(&port.name)), port.port.to_string());
            }
        }
        let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
        for (index, port) in ports.iter().enumerate() {
            let protocol = if port.protocol.is_empty() { "TCP" } else { port.protocol.as_str() };
            let lower = protocol.to_lowercase();
            let url = format!("{lower}://{host}:{}", port.port);
            if index == 0 {
                put("PORT".into(), url.clone());
            }
            let base = format!("PORT_{}_{protocol}", port.port);
            put(base.clone(), url);
            put(format!("{base}_PROTO"), lower);
            put(format!("{base}_PORT"), port.port.to_string());
            put(format!("{base}_ADDR"), ip.to_owned());
        }
    }
    variables
}

fn variable_name(name: &str) -> String {
    name.to_uppercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn references_are_expanded_and_escapes_kept() {
        let lookup = |name: &str| (name == "A").then(|| "1".to_owned());
        for (text, expanded) in [
            ("$(A)", "1"),
            ("x$(A)y$(A)", "x1y1"),
            ("$$(A)", "$(A)"),
            ("$(B)", "$(B)"),
            ("$A $", "$A $"),
            ("$(A", "$(A"),
            ("$$$(A)", "$1"),
        ] {
            assert_eq!(expand(text, &lookup), expanded, "{text}");
        }
    }

    #[test]
    fn services_become_variables_of_their_namespace() {
        let service = |namespace: &str, name: &str| -> Service {
            serde_json::from_value(json!({
                "metadata": { "name": name, "namespace": namespace },
                "spec": { "clusterIP": "10.96.0.1", "ports": [{ "name": "https", "port": 443, "protocol": "TCP" }] },
            }))
            .expect("a service")
        };
        let services = [service("default", "kubernetes"), service("a", "my-svc"), service("b", "other")];
        let variables = service_variables(services.iter(), "a", true);
        assert_eq!(variables["KUBERNETES_SERVICE_HOST"], "10.96.0.1");
        assert_eq!(variables["KUBERNETES_SERVICE_PORT_HTTPS"], "443");
        assert_eq!(variables["MY_SVC_PORT_443_TCP_ADDR"], "10.96.0.1");
        assert_eq!(variables["MY_SVC_PORT"], "tcp://10.96.0.1:443");
        assert!(!variables.contains_key("OTHER_SERVICE_HOST"));
        assert!(!service_variables(services.iter(), "a", false).contains_key("MY_SVC_PORT"));
    }

    #[test]
    fn fields_and_resources_of_the_pod_are_shown() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "name": "p", "labels": { "b": "2", "a": "say \"hi\"" } },
            "spec": { "containers": [{ "name": "c", "resources": { "limits": { "memory": "1.5Mi" } } }] },
        }))
        .expect("a pod");
        let ips = ["10.0.0.1".to_owned()];
        let facts = Facts {
            pod: &pod,
            pod_ips: &ips,
            host_ip: IpAddr::from([1, 2, 3, 4]),
            allocatable: Allocatable { cpu_milli: 2000, ..Default::default() },
        };
        assert_eq!(facts.field("metadata.labels").expect("known"), "a=\"say \\\"hi\\\"\"\nb=\"2\"");
        assert_eq!(facts.field("metadata.labels['b']").expect("known"), "2");
        assert_eq!(facts.field("status.podIP").expect("known"), "10.0.0.1");
        assert!(facts.field("spec.nothing").is_err());
        let resource = |resource: &str, divisor: &str| {
            let selector = serde_json::from_value(json!({ "resource": resource, "divisor": divisor }));
            facts.resource(&selector.expect("a selector"), "c").expect("known")
        };
        assert_eq!(resource("limits.memory", "1Mi"), "2");
        assert_eq!(resource("limits.cpu", "1"), "2");
        assert_eq!(resource("requests.cpu", "1m"), "0");
    }
}
