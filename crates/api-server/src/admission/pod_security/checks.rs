//! The controls of the Pod Security Standards, each on one pod: reason and detail of a breach.

use std::collections::BTreeSet;

use serde_json::Value;

use super::super::{items, text};

pub type Breach = Option<(String, String)>;
type Check = fn(&Value) -> Breach;

pub const BASELINE: &[Check] = &[
    app_armor,
    capabilities_baseline,
    host_namespaces,
    host_path,
    host_ports,
    host_probes,
    privileged,
    proc_mount,
    selinux,
    seccomp_baseline,
    sysctls,
    windows_host_process,
];

pub const RESTRICTED: &[Check] = &[
    privilege_escalation,
    app_armor,
    capabilities_restricted,
    host_namespaces,
    host_ports,
    host_probes,
    privileged,
    proc_mount,
    volumes_restricted,
    run_as_non_root,
    run_as_user,
    selinux,
    seccomp_restricted,
    sysctls,
    windows_host_process,
];

const CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];
const SELINUX_TYPES: [&str; 5] =
    ["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"];
const SYSCTLS: [&str; 12] = [
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
    "net.ipv4.tcp_wmem",
];
const RESTRICTED_VOLUMES: [&str; 9] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    ["containers", "initContainers", "ephemeralContainers"].into_iter().flat_map(|k| items(&pod["spec"][k]))
}

/// Names of the containers for which the predicate holds.
fn named(pod: &Value, bad: impl Fn(&Value) -> bool) -> Vec<&str> {
    containers(pod).filter(|c| bad(c)).map(|c| text(c, "/name")).collect()
}

fn quote_all<S: AsRef<str>>(names: &[S]) -> String {
    let quoted: Vec<String> = names.iter().map(|n| format!("{:?}", n.as_ref())).collect();
    quoted.join(", ")
}

fn plural<'a>(one: &'a str, many: &'a str, n: usize) -> &'a str {
    if n == 1 { one } else { many }
}

fn of_containers(names: &[&str]) -> String {
    format!("{} {}", plural("container", "containers", names.len()), quote_all(names))
}

fn breach(reason: &str, detail: String) -> Breach {
    Some((reason.to_owned(), detail))
}

/// `pod and containers "a", "b"`, for whichever the predicate holds; None if for neither.
fn setters(pod: &Value, bad: impl Fn(&Value) -> bool) -> Option<String> {
    let names = named(pod, &bad);
    match (bad(&pod["spec"]), names.is_empty()) {
        (false, true) => None,
        (true, true) => Some("pod".to_owned()),
        (false, false) => Some(of_containers(&names)),
        (true, false) => Some(format!("pod and {}", of_containers(&names))),
    }
}

/// A breach if containers were found; `rest` says what they must or must not do.
fn by_containers(reason: &str, names: &[&str], rest: &str) -> Breach {
    if names.is_empty() { None } else { breach(reason, format!("{} {rest}", of_containers(names))) }
}

fn privilege_escalation(pod: &Value) -> Breach {
    if windows(pod) {
        return None;
    }
    let bad = named(pod, |c| c["securityContext"]["allowPrivilegeEscalation"] != false);
    let rest = "must set securityContext.allowPrivilegeEscalation=false";
    by_containers("allowPrivilegeEscalation != false", &bad, rest)
}

fn app_armor(pod: &Value) -> Breach {
    let bad = |holder: &Value| text(holder, "/securityContext/appArmorProfile/type") == "Unconfined";
    let setters = setters(pod, bad)?;
    let rest = "must not set securityContext.appArmorProfile.type to \"Unconfined\"";
    breach("forbidden AppArmor profile", format!("{setters} {rest}"))
}

fn added(container: &Value) -> impl Iterator<Item = &str> {
    items(&container["securityContext"]["capabilities"]["add"]).iter().filter_map(Value::as_str)
}

fn capabilities_baseline(pod: &Value) -> Breach {
    let names = named(pod, |c| added(c).any(|cap| !CAPABILITIES.contains(&cap)));
    let bad: BTreeSet<&str> =
        containers(pod).flat_map(added).filter(|cap| !CAPABILITIES.contains(cap)).collect();
    let list = quote_all(&bad.into_iter().collect::<Vec<_>>());
    let rest = format!("must not include {list} in securityContext.capabilities.add");
    by_containers("non-default capabilities", &names, &rest)
}

fn capabilities_restricted(pod: &Value) -> Breach {
    if windows(pod) {
        return None;
    }
    let mut details = Vec::new();
    let keeps =
        named(pod, |c| !items(&c["securityContext"]["capabilities"]["drop"]).iter().any(|d| d == "ALL"));
    if !keeps.is_empty() {
        let rest = "must set securityContext.capabilities.drop=[\"ALL\"]";
        details.push(format!("{} {rest}", of_containers(&keeps)));
    }
    let adds = named(pod, |c| added(c).any(|cap| cap != "NET_BIND_SERVICE"));
    if !adds.is_empty() {
        let bad: BTreeSet<&str> =
            containers(pod).flat_map(added).filter(|cap| *cap != "NET_BIND_SERVICE").collect();
        let list = quote_all(&bad.into_iter().collect::<Vec<_>>());
        details.push(format!(
            "{} must not include {list} in securityContext.capabilities.add",
            of_containers(&adds)
        ));
    }
    if details.is_empty() { None } else { breach("unrestricted capabilities", details.join("; ")) }
}

fn host_namespaces(pod: &Value) -> Breach {
    let set: Vec<String> = ["hostNetwork", "hostPID", "hostIPC"]
        .iter()
        .filter(|k| pod["spec"][**k] == true)
        .map(|k| format!("{k}=true"))
        .collect();
    if set.is_empty() { None } else { breach("host namespaces", set.join(", ")) }
}

fn volume_names(pod: &Value, bad: impl Fn(&Value) -> bool) -> Vec<&str> {
    items(&pod["spec"]["volumes"]).iter().filter(|v| bad(v)).map(|v| text(v, "/name")).collect()
}

fn of_volumes(names: &[&str]) -> String {
    format!("{} {}", plural("volume", "volumes", names.len()), quote_all(names))
}

fn host_path(pod: &Value) -> Breach {
    let names = volume_names(pod, |v| v["hostPath"].is_object());
    if names.is_empty() { None } else { breach("hostPath volumes", of_volumes(&names)) }
}

fn host_ports(pod: &Value) -> Breach {
    let ports = |c: &Value| -> Vec<i64> {
        items(&c["ports"]).iter().filter_map(|p| p["hostPort"].as_i64()).filter(|p| *p != 0).collect()
    };
    let names = named(pod, |c| !ports(c).is_empty());
    let all: BTreeSet<i64> = containers(pod).flat_map(ports).collect();
    let list: Vec<String> = all.iter().map(i64::to_string).collect();
    let word = plural("uses hostPort", "use hostPorts", names.len().max(list.len()));
    by_containers("hostPort", &names, &format!("{word} {}", list.join(", ")))
}

fn host_probes(pod: &Value) -> Breach {
    let host =
        |action: &Value| ["httpGet", "tcpSocket"].iter().any(|k| !text(&action[*k], "/host").is_empty());
    let names = named(pod, |c| {
        ["livenessProbe", "readinessProbe", "startupProbe"].iter().any(|k| host(&c[*k]))
            || ["postStart", "preStop"].iter().any(|k| host(&c["lifecycle"][*k]))
    });
    by_containers("probe or lifecycle host", &names, "must not set a host in probes or lifecycle handlers")
}

fn privileged(pod: &Value) -> Breach {
    let names = named(pod, |c| c["securityContext"]["privileged"] == true);
    by_containers("privileged", &names, "must not set securityContext.privileged=true")
}

fn proc_mount(pod: &Value) -> Breach {
    // In a user namespace of its own a pod's unmasked /proc shows nothing of the host.
    if pod["spec"]["hostUsers"] == false {
        return None;
    }
    let value = |c: &Value| text(c, "/securityContext/procMount").to_owned();
    let names = named(pod, |c| !matches!(value(c).as_str(), "" | "Default"));
    let bad: BTreeSet<String> =
        containers(pod).map(value).filter(|v| !matches!(v.as_str(), "" | "Default")).collect();
    let list = quote_all(&bad.into_iter().collect::<Vec<_>>());
    by_containers("procMount", &names, &format!("must not set securityContext.procMount to {list}"))
}

fn volumes_restricted(pod: &Value) -> Breach {
    let kind = |v: &Value| {
        let fields = v.as_object().into_iter().flatten();
        fields.map(|(k, _)| k.clone()).find(|k| k != "name").unwrap_or_default()
    };
    let fine = |v: &Value| kind(v).is_empty() || RESTRICTED_VOLUMES.contains(&kind(v).as_str());
    let names = volume_names(pod, |v| !fine(v));
    if names.is_empty() {
        return None;
    }
    let bad: BTreeSet<String> =
        items(&pod["spec"]["volumes"]).iter().filter(|v| !fine(v)).map(kind).collect();
    let uses = plural("uses", "use", names.len());
    let types = plural("restricted volume type", "restricted volume types", bad.len());
    let list = quote_all(&bad.into_iter().collect::<Vec<_>>());
    breach("restricted volume types", format!("{} {uses} {types} {list}", of_volumes(&names)))
}

fn run_as_non_root(pod: &Value) -> Breach {
    if pod["spec"]["hostUsers"] == false {
        return None;
    }
    let own = |holder: &Value| holder["securityContext"]["runAsNonRoot"].as_bool();
    if let Some(setters) = setters(pod, |holder| own(holder) == Some(false)) {
        let detail = format!("{setters} must not set securityContext.runAsNonRoot=false");
        return breach("runAsNonRoot != true", detail);
    }
    if own(&pod["spec"]) == Some(true) {
        return None;
    }
    let silent = named(pod, |c| own(c).is_none());
    if silent.is_empty() && containers(pod).next().is_some() {
        return None;
    }
    let subject =
        if silent.is_empty() { "pod".to_owned() } else { format!("pod or {}", of_containers(&silent)) };
    breach("runAsNonRoot != true", format!("{subject} must set securityContext.runAsNonRoot=true"))
}

fn run_as_user(pod: &Value) -> Breach {
    if pod["spec"]["hostUsers"] == false {
        return None;
    }
    let root = |holder: &Value| holder["securityContext"]["runAsUser"] == 0;
    let setters = setters(pod, root)?;
    breach("runAsUser=0", format!("{setters} must not set runAsUser=0"))
}

fn selinux(pod: &Value) -> Breach {
    let bad = |holder: &Value| {
        let options = &holder["securityContext"]["seLinuxOptions"];
        !SELINUX_TYPES.contains(&text(options, "/type"))
            || !text(options, "/user").is_empty()
            || !text(options, "/role").is_empty()
    };
    let setters = setters(pod, bad)?;
    breach("seLinuxOptions", format!("{setters} set forbidden securityContext.seLinuxOptions"))
}

fn seccomp(holder: &Value) -> Option<&str> {
    holder.pointer("/securityContext/seccompProfile/type").and_then(Value::as_str)
}

/// Profiles that are no confinement, on the pod or on containers.
fn seccomp_baseline(pod: &Value) -> Breach {
    let bad = |holder: &Value| seccomp(holder).is_some_and(|t| !matches!(t, "RuntimeDefault" | "Localhost"));
    let setters = setters(pod, bad)?;
    let rest = "must not set securityContext.seccompProfile.type to \"Unconfined\"";
    breach("seccompProfile", format!("{setters} {rest}"))
}

fn seccomp_restricted(pod: &Value) -> Breach {
    if windows(pod) {
        return None;
    }
    if let Some(found) = seccomp_baseline(pod) {
        return Some(found);
    }
    if seccomp(&pod["spec"]).is_some() {
        return None;
    }
    let silent = named(pod, |c| seccomp(c).is_none());
    if silent.is_empty() && containers(pod).next().is_some() {
        return None;
    }
    let subject =
        if silent.is_empty() { "pod".to_owned() } else { format!("pod or {}", of_containers(&silent)) };
    let rest = "must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"";
    breach("seccompProfile", format!("{subject} {rest}"))
}

fn sysctls(pod: &Value) -> Breach {
    let bad: Vec<&str> = items(&pod["spec"]["securityContext"]["sysctls"])
        .iter()
        .map(|s| text(s, "/name"))
        .filter(|n| !SYSCTLS.contains(n))
        .collect();
    if bad.is_empty() { None } else { breach("forbidden sysctls", bad.join(", ")) }
}

fn windows_host_process(pod: &Value) -> Breach {
    let bad = |holder: &Value| holder["securityContext"]["windowsOptions"]["hostProcess"] == true;
    let setters = setters(pod, bad)?;
    let rest = "must not set securityContext.windowsOptions.hostProcess=true";
    breach("hostProcess", format!("{setters} {rest}"))
}

fn windows(pod: &Value) -> bool {
    text(pod, "/spec/os/name") == "windows"
}
