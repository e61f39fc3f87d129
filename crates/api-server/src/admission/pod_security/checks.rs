//! The controls of the Pod Security Standards: what a pod must not ask for, by level and by the version of
//! the standard.

use std::collections::BTreeSet;

use keelson_api_types::meta;
use serde_json::Value;

use super::super::{items, text};
use super::Level::{self, Baseline, Restricted};

/// Reason and detail of what a pod breaks.
pub type Breach = Option<(String, String)>;
type Test = fn(&Value) -> Breach;

/// A control from its first version on, each version until the next.
struct Check {
    id: &'static str,
    level: Level,
    versions: &'static [(u32, Test)],
    /// The baseline check that a restricted one takes the place of.
    instead_of: &'static str,
}

const fn check(id: &'static str, level: Level, versions: &'static [(u32, Test)]) -> Check {
    Check { id, level, versions, instead_of: "" }
}

const fn stricter(id: &'static str, instead_of: &'static str, versions: &'static [(u32, Test)]) -> Check {
    Check { id, level: Restricted, versions, instead_of }
}

/// In the order in which breaches are told.
const CHECKS: &[Check] = &[
    check("appArmorProfile", Baseline, &[(0, app_armor)]),
    check("capabilities_baseline", Baseline, &[(0, capabilities_baseline)]),
    check("hostNamespaces", Baseline, &[(0, host_namespaces)]),
    check("hostPathVolumes", Baseline, &[(0, host_path)]),
    check("hostPorts", Baseline, &[(0, host_ports)]),
    check("hostProbesAndHostLifecycle", Baseline, &[(34, host_probes)]),
    check("privileged", Baseline, &[(0, privileged)]),
    check("procMount", Baseline, &[(0, proc_mount), (35, |pod| outside_user_namespace(pod, proc_mount))]),
    check("seLinuxOptions", Baseline, &[(0, |pod| selinux(pod, 4)), (31, |pod| selinux(pod, 5))]),
    check("seccompProfile_baseline", Baseline, &[(0, seccomp_annotations), (19, seccomp_baseline)]),
    check(
        "sysctls",
        Baseline,
        &[
            (0, |pod| sysctls(pod, 5)),
            (27, |pod| sysctls(pod, 6)),
            (29, |pod| sysctls(pod, 10)),
            (32, |pod| sysctls(pod, 12)),
        ],
    ),
    check("windowsHostProcess", Baseline, &[(0, windows_host_process)]),
    check(
        "allowPrivilegeEscalation",
        Restricted,
        &[(8, privilege_escalation), (25, |pod| not_on_windows(pod, privilege_escalation))],
    ),
    stricter(
        "capabilities_restricted",
        "capabilities_baseline",
        &[(22, capabilities_restricted), (25, |pod| not_on_windows(pod, capabilities_restricted))],
    ),
    stricter("procMount_restricted", "procMount", &[(35, proc_mount)]),
    stricter("restrictedVolumes", "hostPathVolumes", &[(0, restricted_volumes)]),
    check(
        "runAsNonRoot",
        Restricted,
        &[(0, run_as_non_root), (35, |pod| outside_user_namespace(pod, run_as_non_root))],
    ),
    check(
        "runAsUser",
        Restricted,
        &[(23, run_as_user), (35, |pod| outside_user_namespace(pod, run_as_user))],
    ),
    stricter(
        "seccompProfile_restricted",
        "seccompProfile_baseline",
        &[(19, seccomp_restricted), (25, |pod| not_on_windows(pod, seccomp_restricted))],
    ),
];

impl Check {
    fn at(&self, minor: u32) -> Option<Test> {
        self.versions.iter().rev().find(|(since, _)| *since <= minor).map(|(_, test)| *test)
    }
}

/// All breaches of a level as of a minor version of the standard.
pub fn breaches(level: Level, minor: u32, pod: &Value) -> Vec<(String, String)> {
    let asked = CHECKS.iter().filter(|c| c.level <= level);
    let overridden = |id: &str| {
        let mut stricter = CHECKS.iter().filter(|c| c.instead_of == id);
        level == Restricted && stricter.any(|c| c.at(minor).is_some())
    };
    asked.filter(|c| !overridden(c.id)).filter_map(|c| c.at(minor)?(pod)).collect()
}

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
/// In the order in which versions of the standard came to allow them.
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
    ["initContainers", "containers", "ephemeralContainers"].into_iter().flat_map(|k| items(&pod["spec"][k]))
}

/// Names of the containers for which the predicate holds.
fn named(pod: &Value, bad: impl Fn(&Value) -> bool) -> Vec<&str> {
    containers(pod).filter(|c| bad(c)).map(|c| text(c, "/name")).collect()
}

fn quote_all<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> String {
    let quoted: Vec<String> = names.into_iter().map(|n| format!("\"{}\"", n.as_ref())).collect();
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

/// What the pod and its containers set, if it is something bad.
fn bad_values<'a>(pod: &'a Value, value: impl Fn(&'a Value) -> Option<&'a str>) -> BTreeSet<&'a str> {
    std::iter::once(&pod["spec"]).chain(containers(pod)).filter_map(value).collect()
}

/// A breach if containers were found; `rest` says what they must or must not do.
fn by_containers(reason: &str, names: &[&str], rest: &str) -> Breach {
    if names.is_empty() { None } else { breach(reason, format!("{} {rest}", of_containers(names))) }
}

fn not_on_windows(pod: &Value, test: Test) -> Breach {
    if text(pod, "/spec/os/name") == "windows" { None } else { test(pod) }
}

/// Root in a user namespace of the pod's own is nobody on the host.
fn outside_user_namespace(pod: &Value, test: Test) -> Breach {
    if pod["spec"]["hostUsers"] == false { None } else { test(pod) }
}

fn privilege_escalation(pod: &Value) -> Breach {
    let bad = named(pod, |c| c["securityContext"]["allowPrivilegeEscalation"] != false);
    let rest = "must set securityContext.allowPrivilegeEscalation=false";
    by_containers("allowPrivilegeEscalation != false", &bad, rest)
}

fn app_armor(pod: &Value) -> Breach {
    fn bad(holder: &Value) -> Option<&str> {
        let profile = meta::at(holder, "/securityContext/appArmorProfile").filter(|p| p.is_object())?;
        let kind = profile["type"].as_str().unwrap_or_default();
        (!matches!(kind, "RuntimeDefault" | "Localhost")).then_some(kind)
    }
    let annotations =
        pod["metadata"]["annotations"].as_object().into_iter().flatten().filter_map(|(key, value)| {
            let value = value.as_str().unwrap_or_default();
            let allowed = matches!(value, "" | "runtime/default") || value.starts_with("localhost/");
            let ours = key.starts_with("container.apparmor.security.beta.kubernetes.io/");
            (ours && !allowed).then(|| format!("{key}={value:?}"))
        });
    let annotations: BTreeSet<String> = annotations.collect();
    let mut who: Vec<String> = setters(pod, |holder| bad(holder).is_some()).into_iter().collect();
    let mut values: Vec<String> = bad_values(pod, bad).into_iter().map(str::to_owned).collect();
    if !annotations.is_empty() {
        who.push(plural("annotation", "annotations", annotations.len()).to_owned());
        values.extend(annotations);
    }
    if who.is_empty() {
        return None;
    }
    let reason = plural("forbidden AppArmor profile", "forbidden AppArmor profiles", values.len());
    let detail =
        format!("{} must not set AppArmor profile type to {}", who.join(" and "), quote_all(&values));
    breach(reason, detail)
}

fn added(container: &Value) -> impl Iterator<Item = &str> {
    items(&container["securityContext"]["capabilities"]["add"]).iter().filter_map(Value::as_str)
}

/// Containers that add other capabilities than these, and which they add.
fn adders<'a>(pod: &'a Value, allowed: &[&str]) -> (Vec<&'a str>, String) {
    let names = named(pod, |c| added(c).any(|cap| !allowed.contains(&cap)));
    let bad: BTreeSet<&str> = containers(pod).flat_map(added).filter(|cap| !allowed.contains(cap)).collect();
    (names, format!("must not include {} in securityContext.capabilities.add", quote_all(bad)))
}

fn capabilities_baseline(pod: &Value) -> Breach {
    let (names, rest) = adders(pod, &CAPABILITIES);
    by_containers("non-default capabilities", &names, &rest)
}

fn capabilities_restricted(pod: &Value) -> Breach {
    let keeps =
        named(pod, |c| !items(&c["securityContext"]["capabilities"]["drop"]).iter().any(|d| d == "ALL"));
    let (adds, rest) = adders(pod, &["NET_BIND_SERVICE"]);
    let must_drop = "must set securityContext.capabilities.drop=[\"ALL\"]";
    let details: Vec<String> = [(keeps, must_drop), (adds, &rest)]
        .into_iter()
        .filter(|(names, _)| !names.is_empty())
        .map(|(names, rest)| format!("{} {rest}", of_containers(&names)))
        .collect();
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
    let ports = |c: &Value| -> Vec<String> {
        let all = items(&c["ports"]).iter().filter_map(|p| p["hostPort"].as_i64());
        all.filter(|p| *p != 0).map(|p| p.to_string()).collect()
    };
    let names = named(pod, |c| !ports(c).is_empty());
    let all: BTreeSet<String> = containers(pod).flat_map(ports).collect();
    let (uses, word) = (plural("uses", "use", names.len()), plural("hostPort", "hostPorts", all.len()));
    let list = all.into_iter().collect::<Vec<_>>().join(", ");
    by_containers("hostPort", &names, &format!("{uses} {word} {list}"))
}

fn host_probes(pod: &Value) -> Breach {
    fn hosts(container: &Value) -> Vec<&str> {
        let probes = ["livenessProbe", "readinessProbe", "startupProbe"].map(|k| &container[k]);
        let hooks = ["postStart", "preStop"].map(|k| &container["lifecycle"][k]);
        let actions = probes.into_iter().chain(hooks).flat_map(|h| [&h["httpGet"], &h["tcpSocket"]]);
        actions.map(|action| text(action, "/host")).filter(|host| !host.is_empty()).collect()
    }
    let names: BTreeSet<&str> = named(pod, |c| !hosts(c).is_empty()).into_iter().collect();
    let names: Vec<&str> = names.into_iter().collect();
    let all: BTreeSet<&str> = containers(pod).flat_map(hosts).collect();
    let word = plural("probe or lifecycle host", "probe or lifecycle hosts", all.len());
    let rest = format!("{} {word} {}", plural("uses", "use", names.len()), quote_all(all));
    by_containers("probe or lifecycle host", &names, &rest)
}

fn privileged(pod: &Value) -> Breach {
    let names = named(pod, |c| c["securityContext"]["privileged"] == true);
    by_containers("privileged", &names, "must not set securityContext.privileged=true")
}

fn proc_mount(pod: &Value) -> Breach {
    fn bad(c: &Value) -> Option<&str> {
        meta::at(c, "/securityContext/procMount").and_then(Value::as_str).filter(|v| *v != "Default")
    }
    let names = named(pod, |c| bad(c).is_some());
    let list = quote_all(containers(pod).filter_map(bad).collect::<BTreeSet<_>>());
    by_containers("procMount", &names, &format!("must not set securityContext.procMount to {list}"))
}

fn restricted_volumes(pod: &Value) -> Breach {
    fn kind(volume: &Value) -> &str {
        let fields = volume.as_object().into_iter().flatten();
        fields.map(|(k, _)| k.as_str()).find(|k| *k != "name").unwrap_or("unknown")
    }
    let fine = |v: &Value| RESTRICTED_VOLUMES.contains(&kind(v));
    let names = volume_names(pod, |v| !fine(v));
    if names.is_empty() {
        return None;
    }
    let bad: BTreeSet<&str> = items(&pod["spec"]["volumes"]).iter().filter(|v| !fine(v)).map(kind).collect();
    let uses = plural("uses", "use", names.len());
    let types = plural("restricted volume type", "restricted volume types", bad.len());
    breach("restricted volume types", format!("{} {uses} {types} {}", of_volumes(&names), quote_all(bad)))
}

/// The pod or each container must set something; `must` says what.
fn all_must(pod: &Value, reason: &str, set: impl Fn(&Value) -> bool, must: &str) -> Breach {
    let silent = if set(&pod["spec"]) { Vec::new() } else { named(pod, |c| !set(c)) };
    if silent.is_empty() {
        return None;
    }
    breach(reason, format!("pod or {} must set securityContext.{must}", of_containers(&silent)))
}

fn run_as_non_root(pod: &Value) -> Breach {
    const REASON: &str = "runAsNonRoot != true";
    let own = |holder: &Value| holder["securityContext"]["runAsNonRoot"].as_bool();
    if let Some(setters) = setters(pod, |holder| own(holder) == Some(false)) {
        return breach(REASON, format!("{setters} must not set securityContext.runAsNonRoot=false"));
    }
    all_must(pod, REASON, |holder| own(holder).is_some(), "runAsNonRoot=true")
}

fn run_as_user(pod: &Value) -> Breach {
    let setters = setters(pod, |holder| holder["securityContext"]["runAsUser"] == 0)?;
    breach("runAsUser=0", format!("{setters} must not set runAsUser=0"))
}

fn selinux(pod: &Value, allowed: usize) -> Breach {
    let options = |holder: &Value, key: &str| {
        let value = &holder["securityContext"]["seLinuxOptions"][key];
        value.as_str().unwrap_or_default().to_owned()
    };
    let bad_type = |holder: &Value| !SELINUX_TYPES[..allowed].contains(&options(holder, "type").as_str());
    let set = |holder: &Value, key: &str| !options(holder, key).is_empty();
    let setters = setters(pod, |h| bad_type(h) || set(h, "user") || set(h, "role"))?;
    let holders = || std::iter::once(&pod["spec"]).chain(containers(pod));
    let types: BTreeSet<String> = holders().filter(|h| bad_type(h)).map(|h| options(h, "type")).collect();
    let mut data = Vec::new();
    if !types.is_empty() {
        data.push(format!("{} {}", plural("type", "types", types.len()), quote_all(types)));
    }
    for key in ["user", "role"] {
        if holders().any(|h| set(h, key)) {
            data.push(format!("{key} may not be set"));
        }
    }
    let data = data.join("; ");
    breach("seLinuxOptions", format!("{setters} set forbidden securityContext.seLinuxOptions: {data}"))
}

fn seccomp(holder: &Value) -> Option<&str> {
    let profile = meta::at(holder, "/securityContext/seccompProfile").filter(|p| p.is_object())?;
    Some(profile["type"].as_str().unwrap_or_default())
}

/// Before there were fields.
fn seccomp_annotations(pod: &Value) -> Breach {
    const POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
    let keys = containers(pod)
        .map(|c| format!("container.seccomp.security.alpha.kubernetes.io/{}", text(c, "/name")))
        .chain([POD.to_owned()]);
    let bad = |key: String| {
        let value = meta::annotation(pod, &key)?;
        let fine = matches!(value, "runtime/default" | "docker/default") || value.starts_with("localhost/");
        (!fine).then(|| format!("{key}={value:?}"))
    };
    let found: BTreeSet<String> = keys.filter_map(bad).collect();
    if found.is_empty() {
        return None;
    }
    let word = plural("annotation", "annotations", found.len());
    breach("seccompProfile", format!("forbidden {word} {}", found.into_iter().collect::<Vec<_>>().join(", ")))
}

/// Profiles that are no confinement, on the pod or on containers.
fn seccomp_baseline(pod: &Value) -> Breach {
    fn bad(holder: &Value) -> Option<&str> {
        seccomp(holder).filter(|t| !matches!(*t, "RuntimeDefault" | "Localhost"))
    }
    let setters = setters(pod, |holder| bad(holder).is_some())?;
    let list = quote_all(bad_values(pod, bad));
    breach("seccompProfile", format!("{setters} must not set securityContext.seccompProfile.type to {list}"))
}

fn seccomp_restricted(pod: &Value) -> Breach {
    let must = "seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"";
    seccomp_baseline(pod)
        .or_else(|| all_must(pod, "seccompProfile", |holder| seccomp(holder).is_some(), must))
}

fn sysctls(pod: &Value, allowed: usize) -> Breach {
    let bad: Vec<&str> = items(&pod["spec"]["securityContext"]["sysctls"])
        .iter()
        .map(|s| text(s, "/name"))
        .filter(|n| !SYSCTLS[..allowed].contains(n))
        .collect();
    if bad.is_empty() { None } else { breach("forbidden sysctls", bad.join(", ")) }
}

fn windows_host_process(pod: &Value) -> Breach {
    let bad = |holder: &Value| holder["securityContext"]["windowsOptions"]["hostProcess"] == true;
    let setters = setters(pod, bad)?;
    breach("hostProcess", format!("{setters} must not set securityContext.windowsOptions.hostProcess=true"))
}
