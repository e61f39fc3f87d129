//! The sandbox of a pod as the runtime is asked for it.

use super::{dns, labels, resources, spec};
use crate::context::Context;
use k8s_openapi::api::core::v1::{Pod, PodSecurityContext, SeccompProfile};
use keelson_cri::v1::{
    Int64Value, LinuxPodSandboxConfig, LinuxSandboxSecurityContext, NamespaceMode, NamespaceOption,
    PodSandboxConfig, PodSandboxMetadata, PortMapping, Protocol, SecurityProfile, security_profile,
};
use std::collections::HashMap;

pub fn config(ctx: &Context, pod: &Pod, attempt: u32) -> PodSandboxConfig {
    let host_resolv = std::fs::read_to_string(&ctx.config.resolv_conf).unwrap_or_default();
    let (hostname, _) = dns::hostname(pod, &ctx.config.cluster_domain);
    let host_network = spec::is_host_network(pod);
    let mut sandbox_labels: HashMap<String, String> =
        pod.metadata.labels.clone().unwrap_or_default().into_iter().collect();
    sandbox_labels.insert(labels::POD_NAME.into(), spec::name(pod).into());
    sandbox_labels.insert(labels::POD_NAMESPACE.into(), spec::namespace(pod).into());
    sandbox_labels.insert(labels::POD_UID.into(), spec::uid(pod).into());
    sandbox_labels.insert(labels::NODE.into(), ctx.node_name.clone());
    PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: spec::name(pod).into(),
            uid: spec::uid(pod).into(),
            namespace: spec::namespace(pod).into(),
            attempt,
        }),
        // In the host's network the host's name is kept.
        hostname: if host_network { String::new() } else { hostname },
        log_directory: ctx
            .pod_log_dir(spec::namespace(pod), spec::name(pod), spec::uid(pod))
            .to_string_lossy()
            .into_owned(),
        dns_config: Some(dns::resolver(pod, &ctx.config, &host_resolv)),
        port_mappings: port_mappings(pod),
        labels: sandbox_labels,
        annotations: annotations(pod),
        linux: Some(linux(ctx, pod)),
        windows: None,
    }
}

fn annotations(pod: &Pod) -> HashMap<String, String> {
    let given = pod.metadata.annotations.clone().unwrap_or_default();
    // What clients keep there for themselves can be as large as the object.
    given.into_iter().filter(|(k, _)| k != "kubectl.kubernetes.io/last-applied-configuration").collect()
}

fn port_mappings(pod: &Pod) -> Vec<PortMapping> {
    if spec::is_host_network(pod) {
        return Vec::new();
    }
    let containers =
        spec::containers(pod).iter().chain(spec::init_containers(pod).iter().filter(|c| spec::is_sidecar(c)));
    let ports = containers.flat_map(|c| c.ports.as_deref().unwrap_or_default());
    ports
        .filter_map(|p| {
            Some(PortMapping {
                protocol: match p.protocol.as_deref() {
                    Some("UDP") => Protocol::Udp,
                    Some("SCTP") => Protocol::Sctp,
                    _ => Protocol::Tcp,
                } as i32,
                container_port: p.container_port,
                host_port: p.host_port.filter(|p| *p > 0)?,
                host_ip: p.host_ip.clone().unwrap_or_default(),
            })
        })
        .collect()
}

pub fn namespaces(pod: &Pod) -> NamespaceOption {
    let spec = spec::spec(pod);
    let pick = |host: Option<bool>, own: NamespaceMode| {
        if host == Some(true) { NamespaceMode::Node } else { own }
    };
    let shared = spec.share_process_namespace == Some(true);
    NamespaceOption {
        network: pick(spec.host_network, NamespaceMode::Pod) as i32,
        ipc: pick(spec.host_ipc, NamespaceMode::Pod) as i32,
        pid: pick(spec.host_pid, if shared { NamespaceMode::Pod } else { NamespaceMode::Container }) as i32,
        ..Default::default()
    }
}

fn linux(ctx: &Context, pod: &Pod) -> LinuxPodSandboxConfig {
    let context = spec::spec(pod).security_context.clone().unwrap_or_default();
    let privileged = spec::containers(pod)
        .iter()
        .chain(spec::init_containers(pod))
        .any(|c| c.security_context.as_ref().and_then(|s| s.privileged) == Some(true));
    let sysctls = context.sysctls.as_deref().unwrap_or_default();
    LinuxPodSandboxConfig {
        cgroup_parent: resources::pod_cgroup(&ctx.config.cgroup_root, pod),
        sysctls: sysctls.iter().map(|s| (s.name.clone(), s.value.clone())).collect(),
        security_context: Some(LinuxSandboxSecurityContext {
            namespace_options: Some(namespaces(pod)),
            run_as_user: context.run_as_user.map(|value| Int64Value { value }),
            run_as_group: context.run_as_user.and(context.run_as_group).map(|value| Int64Value { value }),
            supplemental_groups: supplemental_groups(&context),
            privileged,
            seccomp: Some(seccomp(None)),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// fsGroup counts among the groups of every process.
pub fn supplemental_groups(context: &PodSecurityContext) -> Vec<i64> {
    context.fs_group.into_iter().chain(context.supplemental_groups.clone().unwrap_or_default()).collect()
}

/// The runtime's own filter where nothing is said, as for the sandbox.
pub fn seccomp(profile: Option<&SeccompProfile>) -> SecurityProfile {
    use security_profile::ProfileType;
    match profile.map(|p| (p.type_.as_str(), p.localhost_profile.clone().unwrap_or_default())) {
        Some(("Unconfined", _)) => {
            SecurityProfile { profile_type: ProfileType::Unconfined as i32, localhost_ref: String::new() }
        }
        Some(("Localhost", path)) => SecurityProfile {
            profile_type: ProfileType::Localhost as i32,
            localhost_ref: format!("/var/lib/kubelet/seccomp/{path}"),
        },
        _ => {
            SecurityProfile { profile_type: ProfileType::RuntimeDefault as i32, localhost_ref: String::new() }
        }
    }
}

/// Which sysctls a pod may set: those that the kernel keeps per namespace, and what the node allows besides.
pub fn forbidden_sysctl(pod: &Pod, allowed: &[String]) -> Option<String> {
    const SAFE: [&str; 11] = [
        "kernel.shm_rmid_forced",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.tcp_syncookies",
        "net.ipv4.ping_group_range",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.tcp_keepalive_time",
        "net.ipv4.tcp_fin_timeout",
        "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes",
        "net.ipv4.tcp_rmem",
    ];
    let context = spec::spec(pod).security_context.as_ref()?;
    let listed = context.sysctls.as_deref().unwrap_or_default().iter();
    let permitted = |name: &str| {
        SAFE.contains(&name)
            || name == "net.ipv4.tcp_wmem"
            || allowed.iter().any(|a| match a.strip_suffix('*') {
                Some(prefix) => name.starts_with(prefix),
                None => a == name,
            })
    };
    listed.map(|s| s.name.replace('/', ".")).find(|name| !permitted(name))
}
