//! Validation of a pod spec as a whole, of pods and of pod templates.

use keelson_api_types::names;

use super::defaults::CONTAINERS;
use super::resources::{self, Scope};
use super::{container, env, scheduling, security};
use crate::strategies::check::{At, Errors, Path};
use crate::strategies::storage::volumes;

/// What the parts of a spec need to know of the rest.
pub struct PodContext<'a> {
    pub volumes: Vec<At<'a>>,
    pub claims: Vec<&'a str>,
    pub grace: Option<i64>,
    pub os: &'a str,
    pub restart_policy: &'a str,
    pub host_users: bool,
    /// A pod, not a template: stricter about what nobody can still fill in.
    pub is_pod: bool,
}

impl<'a> PodContext<'a> {
    pub fn volume(&self, name: &str) -> Option<&At<'a>> {
        self.volumes.iter().find(|volume| volume.f("name").s() == name)
    }
}

/// A pod's metadata annotations and spec.
pub fn pod(object: &At<'_>, e: &mut Errors) {
    let spec = object.f("spec");
    security::annotations(&object.dig(&["metadata", "annotations"]), &spec, e);
    pod_spec(&spec, Some(&object.f("metadata")), &[], e);
    if spec.f("serviceAccountName").is_empty() {
        for source in spec.f("volumes").each().flat_map(|v| v.dig(&["projected", "sources"]).each()) {
            if let Some(token) = source.get("serviceAccountToken") {
                e.forbidden(&token.path, "must not be specified when serviceAccountName is not set");
            }
        }
    }
    for container in ["containers", "initContainers"].iter().flat_map(|list| spec.f(list).each()) {
        container::image_padding(&container, e);
    }
}

/// A `PodTemplateSpec`. `extra` are volumes that the workload will add.
pub fn template(at: &At<'_>, extra: &[At<'_>], e: &mut Errors) {
    let (meta, spec) = (at.f("metadata"), at.f("spec"));
    let annotations = meta.f("annotations").under(at.path.field("annotations"));
    e.labels(&meta.f("labels").under(at.path.field("labels")));
    e.annotations(&annotations);
    security::annotations(&annotations, &spec, e);
    pod_spec(&spec, None, extra, e);
    security::annotations_match(&meta, &spec, e);
    if !spec.f("ephemeralContainers").is_empty() {
        let path = spec.path.field("ephemeralContainers");
        e.forbidden(&path, "ephemeral containers not allowed in pod template");
    }
}

fn pod_spec<'a>(spec: &At<'a>, meta: Option<&At<'a>>, extra: &[At<'a>], e: &mut Errors) {
    if !spec.f("terminationGracePeriodSeconds").has() {
        e.required(&spec.path.field("terminationGracePeriodSeconds"), "");
    }
    let mut context = PodContext {
        volumes: extra.to_vec(),
        claims: spec.f("resourceClaims").each().map(|c| c.f("name").s()).filter(|n| !n.is_empty()).collect(),
        grace: spec.f("terminationGracePeriodSeconds").opt_i(),
        os: spec.dig(&["os", "name"]).s(),
        restart_policy: spec.f("restartPolicy").s(),
        host_users: spec.f("hostUsers").opt_b().unwrap_or(true),
        is_pod: meta.is_some(),
    };
    volumes::all(&spec.f("volumes"), meta, &mut context.volumes, e);
    resource_claims(&spec.f("resourceClaims"), e);
    container::containers(&spec.f("containers"), &context, e);
    container::init_containers(&spec.f("initContainers"), &spec.f("containers"), &context, e);
    container::ephemeral_containers(&spec.f("ephemeralContainers"), spec, &context, e);
    resources::pod_level(spec, &context.claims, e);
    host_network_ports(spec, &context, e);
    e.one_of(&spec.f("restartPolicy"), &["Always", "OnFailure", "Never"]);
    e.one_of(&spec.f("dnsPolicy"), &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"]);
    e.labels(&spec.f("nodeSelector"));
    security::pod(spec, e);
    scheduling::affinity(&spec.f("affinity"), e);
    dns_config(spec, e);
    gates(spec, e);
    scheduling::spread_constraints(&spec.f("topologySpreadConstraints"), e);
    host_users(spec, &context, e);
    identity(spec, e);
    references(spec, e);
    os(spec, e);
    file_key_volumes(spec, &context, e);
}

fn identity(spec: &At<'_>, e: &mut Errors) {
    for name in ["serviceAccountName", "nodeName"] {
        if !spec.f(name).is_empty() {
            e.dns_subdomain(&spec.f(name));
        }
    }
    if let Some(deadline) = spec.get("activeDeadlineSeconds") {
        e.in_range(&deadline, 1, i64::from(i32::MAX));
    }
    for name in ["hostname", "subdomain"] {
        if !spec.f(name).is_empty() {
            e.dns_label(&spec.f(name));
        }
    }
    let Some(name) = spec.get("hostnameOverride") else { return };
    if spec.f("setHostnameAsFQDN").b() {
        e.forbidden(&name.path, "may not be specified when setHostnameAsFQDN is true");
    }
    if spec.f("hostNetwork").b() {
        e.forbidden(&name.path, "may not be specified when hostNetwork is true");
    }
    if name.len() > 64 {
        e.too_long(&name.path, 64);
    }
    e.dns_subdomain(&name);
}

fn references(spec: &At<'_>, e: &mut Errors) {
    scheduling::tolerations(&spec.f("tolerations"), e);
    for alias in spec.f("hostAliases").each() {
        e.ip(&alias.f("ip"), &[]);
        for name in alias.f("hostnames").each() {
            e.dns_subdomain(&name);
        }
    }
    if !spec.f("priorityClassName").is_empty() {
        e.dns_subdomain(&spec.f("priorityClassName"));
    }
    if let Some(class) = spec.get("runtimeClassName") {
        e.dns_subdomain(&class);
    }
    if let Some(policy) = spec.get("preemptionPolicy") {
        e.one_of(&policy, &["PreemptLowerPriority", "Never"]);
    }
    if let Some(overhead) = spec.get("overhead") {
        let limits = serde_json::json!({"limits": overhead.value});
        let at = At { value: &limits, path: Path::default() };
        let mut found = Errors::new();
        resources::requirements(&at, Scope::Container, &[], &mut found);
        for mut error in found.into_vec() {
            error.path = format!("{}.{}", overhead.path, error.path);
            e.extend(vec![error]);
        }
    }
    if let Some(group) = spec.get("schedulingGroup") {
        match group.get("podGroupName") {
            Some(name) => e.dns_subdomain(&name),
            None => e.invalid(&group.f("podGroupName"), "must specify one of: `podGroupName`"),
        }
    }
}

fn resource_claims(at: &At<'_>, e: &mut Errors) {
    let mut seen = Vec::new();
    for claim in at.each() {
        let name = claim.f("name");
        if name.is_empty() {
            e.required(&name.path, "");
        } else if seen.contains(&name.s()) {
            e.duplicate(&name.path, name.s());
        } else {
            e.dns_label(&name);
            seen.push(name.s());
        }
        let sources = ["resourceClaimName", "resourceClaimTemplateName"];
        let found: Vec<_> = sources.iter().filter_map(|source| claim.get(source)).collect();
        match found.len() {
            0 => e.invalid(&claim, "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`"),
            1 => {}
            _ => {
                let detail =
                    "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified";
                e.invalid(&claim, detail);
            }
        }
        for source in found {
            e.dns_subdomain(&source);
        }
    }
}

fn host_network_ports(spec: &At<'_>, pod: &PodContext<'_>, e: &mut Errors) {
    if !spec.f("hostNetwork").b() {
        return;
    }
    for port in spec.f("containers").each().flat_map(|c| c.f("ports").each()) {
        let (host, own) = (port.f("hostPort"), port.f("containerPort").i());
        if (pod.is_pod || host.i() != 0) && host.i() != own {
            let detail = "must match `containerPort` when `hostNetwork` is true";
            e.invalid_value(&host.path, host.i(), detail);
        }
    }
}

fn dns_config(spec: &At<'_>, e: &mut Errors) {
    let at = spec.f("dnsConfig");
    let servers = at.f("nameservers");
    if spec.f("dnsPolicy").s() == "None" {
        if !at.has() {
            e.required(&at.path, "must provide `dnsConfig` when `dnsPolicy` is None");
            return;
        }
        if servers.is_empty() {
            let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            e.required(&servers.path, detail);
            return;
        }
    }
    if servers.len() > 3 {
        e.invalid(&servers, "must not have more than 3 nameservers");
    }
    for server in servers.each() {
        e.ip(&server, &[]);
    }
    let searches = at.f("searches");
    if searches.len() > 32 {
        e.invalid(&searches, "must not have more than 32 search paths");
    }
    if searches.strings().join(" ").len() > 2048 {
        let detail = "must not have more than 2048 characters (including spaces) in the search list";
        e.invalid(&searches, detail);
    }
    for search in searches.each().filter(|s| s.s() != ".") {
        let name = search.s().strip_suffix('.').unwrap_or(search.s());
        // An underscore is as good as a letter here.
        if !names::dns1123_subdomain(&name.replace('_', "a")).is_empty() {
            let label = "_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?";
            let detail = format!(
                "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', \
                 and must start and end with an alphanumeric character (e.g. 'example.com', regex used for \
                 validation is '{label}(\\.{label})*')"
            );
            e.invalid_value(&search.path, name, detail);
        }
    }
    for option in at.f("options").each() {
        if option.f("name").is_empty() {
            e.required(&option.path, "must not be empty");
        }
    }
}

fn gates(spec: &At<'_>, e: &mut Errors) {
    for gate in spec.f("readinessGates").each() {
        e.qualified_name(&gate.f("conditionType"));
    }
    let mut seen = Vec::new();
    for gate in spec.f("schedulingGates").each() {
        let name = gate.f("name").under(gate.path);
        e.qualified_name(&name);
        if seen.contains(&name.s()) {
            e.duplicate(&name.path, name.s());
        }
        seen.push(name.s());
    }
}

fn host_users(spec: &At<'_>, pod: &PodContext<'_>, e: &mut Errors) {
    if pod.host_users {
        return;
    }
    const DETAIL: &str = "when `hostUsers` is false";
    for (field, reported) in [("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")]
    {
        if spec.f(field).b() {
            e.forbidden(&spec.path.field(reported), DETAIL);
        }
    }
    for container in CONTAINERS.iter().flat_map(|list| spec.f(list).each()) {
        if !container.f("volumeDevices").is_empty() {
            e.forbidden(&container.f("volumeDevices").path, DETAIL);
        }
    }
}

const NOT_ON_WINDOWS: &[&str] = &["hostUsers", "hostPID", "hostIPC", "shareProcessNamespace"];
const POD_CONTEXT_NOT_ON_WINDOWS: &[&str] = &[
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "fsGroup",
    "fsGroupChangePolicy",
    "sysctls",
    "runAsUser",
    "runAsGroup",
    "supplementalGroups",
    "supplementalGroupsPolicy",
    "seLinuxChangePolicy",
];
const CONTAINER_CONTEXT_NOT_ON_WINDOWS: &[&str] = &[
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "capabilities",
    "readOnlyRootFilesystem",
    "privileged",
    "allowPrivilegeEscalation",
    "procMount",
    "runAsUser",
    "runAsGroup",
];

fn os(spec: &At<'_>, e: &mut Errors) {
    let Some(os) = spec.get("os") else { return };
    let contexts = || CONTAINERS.iter().flat_map(|l| spec.f(l).each()).map(|c| c.f("securityContext"));
    let mut forbid = |at: &At<'_>, fields: &[&'static str], detail: &str| {
        for field in fields.iter().filter_map(|field| at.get(field)) {
            e.forbidden(&field.path, detail);
        }
    };
    match os.f("name").s() {
        "linux" => {
            let detail = "windows options cannot be set for a linux pod";
            forbid(&spec.f("securityContext"), &["windowsOptions"], detail);
            contexts().for_each(|context| forbid(&context, &["windowsOptions"], detail));
        }
        "windows" => {
            let detail = "cannot be set for a windows pod";
            forbid(spec, NOT_ON_WINDOWS, detail);
            forbid(&spec.f("securityContext"), POD_CONTEXT_NOT_ON_WINDOWS, detail);
            contexts().for_each(|context| forbid(&context, CONTAINER_CONTEXT_NOT_ON_WINDOWS, detail));
        }
        "" => e.required(&os.path.field("name"), ""),
        _ => e.not_supported(&os.f("name").under(os.path), &["linux", "windows"]),
    }
}

fn file_key_volumes(spec: &At<'_>, pod: &PodContext<'_>, e: &mut Errors) {
    for variable in CONTAINERS.iter().flat_map(|l| spec.f(l).each()).flat_map(|c| c.f("env").each()) {
        let name = variable.dig(&["valueFrom", "fileKeyRef", "volumeName"]);
        if !name.has() {
            continue;
        }
        match pod.volume(name.s()) {
            None => e.not_found(&name.path, name.s()),
            Some(volume) if !volume.has_any(&["emptyDir"]) => {
                e.invalid(&name, "referenced volume must be of type emptyDir");
            }
            Some(_) => {}
        }
    }
}

/// A file of the downward API in a volume.
pub fn downward_file(at: &At<'_>, e: &mut Errors) {
    e.required_string(&at.f("path"));
    volumes::local_file(&at.f("path"), e);
    match (at.get("fieldRef"), at.get("resourceFieldRef")) {
        (Some(field), resource) => {
            env::field_ref(&field, env::VOLUME_PATHS, e);
            if resource.is_some() {
                let detail = "fieldRef and resourceFieldRef can not be specified simultaneously";
                e.invalid_value(&at.path, "resource", detail);
            }
        }
        (None, Some(resource)) => env::resource_ref(&resource, true, e),
        (None, None) => e.required(&at.path, "one of fieldRef and resourceFieldRef is required"),
    }
    e.file_mode(&at.f("mode"));
}
