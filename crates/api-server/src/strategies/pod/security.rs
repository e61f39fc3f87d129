//! Validation of security contexts, and of what annotations used to say instead.

use std::sync::LazyLock;

use keelson_api_types::names;
use regex::Regex;

use super::defaults::CONTAINERS;
use crate::strategies::check::{At, Errors, Path};

const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
const APPARMOR_CONTAINER: &str = "container.apparmor.security.beta.kubernetes.io/";
const PROFILE_TYPES: &[&str] = &["Localhost", "RuntimeDefault", "Unconfined"];
const SYSCTL: &str = r"^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
static SYSCTL_NAME: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(SYSCTL).ok());

/// A container's security context.
pub fn container(at: &At<'_>, host_users: bool, e: &mut Errors) {
    if !at.has() {
        return;
    }
    e.user_or_group_id(&at.f("runAsUser"));
    e.user_or_group_id(&at.f("runAsGroup"));
    if let Some(mount) = at.get("procMount") {
        e.optional_one_of(&mount, &["Default", "Unmasked"]);
        if host_users && mount.s() == "Unmasked" {
            e.invalid(&mount, "`hostUsers` must be false to use `Unmasked`");
        }
    }
    seccomp(&at.f("seccompProfile"), e);
    if at.f("allowPrivilegeEscalation").opt_b() == Some(false) {
        if at.f("privileged").b() {
            e.invalid(at, "cannot set `allowPrivilegeEscalation` to false and `privileged` to true");
        }
        if at.dig(&["capabilities", "add"]).strings().contains(&"CAP_SYS_ADMIN") {
            let detail =
                "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            e.invalid(at, detail);
        }
    }
    windows(&at.f("windowsOptions"), e);
    apparmor(&at.f("appArmorProfile"), e);
}

/// The pod's security context, with what of the spec belongs to it.
pub fn pod(spec: &At<'_>, e: &mut Errors) {
    let at = spec.f("securityContext");
    if !at.has() {
        return;
    }
    for id in ["fsGroup", "runAsUser", "runAsGroup"] {
        e.user_or_group_id(&at.f(id));
    }
    for group in at.f("supplementalGroups").each() {
        e.user_or_group_id(&group);
    }
    if spec.f("shareProcessNamespace").b() && spec.f("hostPID").b() {
        let path = at.path.field("shareProcessNamespace");
        e.invalid_value(&path, true, "ShareProcessNamespace and HostPID cannot both be enabled");
    }
    sysctls(spec, &at.f("sysctls"), e);
    e.optional_one_of(&at.f("fsGroupChangePolicy"), &["Always", "OnRootMismatch"]);
    seccomp(&at.f("seccompProfile"), e);
    windows(&at.f("windowsOptions"), e);
    apparmor(&at.f("appArmorProfile"), e);
    e.optional_one_of(&at.f("supplementalGroupsPolicy"), &["Merge", "Strict"]);
    e.optional_one_of(&at.f("seLinuxChangePolicy"), &["MountOption", "Recursive"]);
}

fn sysctls(spec: &At<'_>, at: &At<'_>, e: &mut Errors) {
    let mut seen = Vec::new();
    for sysctl in at.each() {
        let name = sysctl.f("name");
        let fits = |name: &str| {
            name.len() <= 253 && SYSCTL_NAME.as_ref().is_none_or(|pattern| pattern.is_match(name))
        };
        if name.is_empty() {
            e.required(&name.path, "");
        } else if !fits(name.s()) {
            e.invalid(&name, format!("must have at most 253 characters and match regex {SYSCTL}"));
        } else if seen.contains(&name.s()) {
            e.duplicate(&name.path, name.s());
        }
        seen.push(name.s());
        let dotted = name.s().replace('/', ".");
        if spec.f("hostNetwork").b() && dotted.starts_with("net.") {
            e.invalid(&name, "may not be specified when 'hostNetwork' is true");
        }
        let ipc = ["kernel.sem", "kernel.shm", "kernel.msg", "fs.mqueue."];
        if spec.f("hostIPC").b() && ipc.iter().any(|prefix| dotted.starts_with(prefix)) {
            e.invalid(&name, "may not be specified when 'hostIPC' is true");
        }
    }
}

fn seccomp(at: &At<'_>, e: &mut Errors) {
    if !at.has() {
        return;
    }
    let (kind, profile) = (at.f("type"), at.f("localhostProfile"));
    if kind.is_empty() {
        e.required(&kind.path, "type is required when seccompProfile is set");
    } else if !PROFILE_TYPES.contains(&kind.s()) {
        e.not_supported(&kind, PROFILE_TYPES);
    }
    match (kind.s(), profile.has()) {
        ("Localhost", false) => e.required(&profile.path, "must be set when seccomp type is Localhost"),
        ("Localhost", true) => e.local_path(&profile),
        (_, true) => {
            let detail = "can only be set when seccomp type is Localhost";
            e.invalid_value(&profile.path, at.value.clone(), detail);
        }
        _ => {}
    }
}

fn apparmor(at: &At<'_>, e: &mut Errors) {
    if !at.has() {
        return;
    }
    let (kind, profile) = (at.f("type"), at.f("localhostProfile"));
    match kind.s() {
        "Localhost" => {
            if profile.s().trim() != profile.s() {
                e.invalid(&profile, "must not be padded with whitespace");
            } else if profile.is_empty() {
                e.required(&profile.path, "must be set when AppArmor type is Localhost");
            }
            if profile.len() > 4095 {
                e.too_long(&profile.path, 4095);
            }
        }
        "RuntimeDefault" | "Unconfined" if profile.has() => {
            e.invalid(&profile, "can only be set when AppArmor type is Localhost");
        }
        "RuntimeDefault" | "Unconfined" => {}
        "" => e.required(&kind.path, "type is required when appArmorProfile is set"),
        _ => e.not_supported(&kind, PROFILE_TYPES),
    }
}

fn windows(at: &At<'_>, e: &mut Errors) {
    if let Some(name) = at.get("gmsaCredentialSpecName") {
        e.text(&name, names::dns1123_subdomain(name.s()));
    }
    if let Some(spec) = at.get("gmsaCredentialSpec") {
        if spec.is_empty() {
            e.invalid(&spec, "gmsaCredentialSpec cannot be an empty string");
        } else if spec.len() > 64 * 1024 {
            e.invalid(&spec, "gmsaCredentialSpec size must be under 64 KiB");
        }
    }
    if let Some(user) = at.get("runAsUserName") {
        if user.is_empty() {
            e.invalid(&user, "runAsUserName cannot be an empty string");
        } else if user.s().contains(char::is_control) {
            e.invalid(&user, "runAsUserName cannot contain control characters");
        } else if user.s().matches('\\').count() > 1 {
            e.invalid(&user, "runAsUserName cannot contain more than one backslash");
        }
    }
}

/// Annotations that only mean something on pods.
pub fn annotations(at: &At<'_>, spec: &At<'_>, e: &mut Errors) {
    for (key, value) in at.entries() {
        match key {
            "kubernetes.io/config.mirror" if spec.f("nodeName").is_empty() => {
                e.invalid(&value, "must set spec.nodeName if mirror pod annotation is set");
            }
            "controller.kubernetes.io/pod-deletion-cost" if !is_deletion_cost(value.s()) => {
                e.invalid(&value, "must be a 32bit integer");
            }
            SECCOMP_POD => seccomp_annotation(value.s(), &at.path.field(key), e),
            _ if key.starts_with(SECCOMP_CONTAINER) => seccomp_annotation(value.s(), &at.path.field(key), e),
            _ => {
                let Some(name) = key.strip_prefix(APPARMOR_CONTAINER) else { continue };
                let exists = |list: &&str| spec.f(list).each().any(|c| c.f("name").s() == name);
                if !CONTAINERS.iter().any(exists) {
                    e.invalid_value(&value.path, name, "container not found");
                }
                let profile = value.s();
                if !matches!(profile, "" | "runtime/default" | "unconfined")
                    && !profile.starts_with("localhost/")
                {
                    e.invalid(&value, format!("invalid AppArmor profile name: {profile:?}"));
                }
            }
        }
    }
}

/// Decimal, no superfluous sign or zeros.
fn is_deletion_cost(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    text.parse::<i32>().is_ok() && (digits == "0" || !digits.starts_with(['0', '+'])) && text != "-0"
}

fn seccomp_annotation(profile: &str, path: &Path<'_>, e: &mut Errors) {
    match profile.strip_prefix("localhost/") {
        Some(local) => {
            let value = serde_json::Value::from(local);
            let at = At { value: &value, path: Path::default() };
            let mut found = Errors::new();
            found.local_path(&at);
            if !found.is_empty() {
                e.invalid_value(path, local, "must be a relative path");
            }
        }
        None if ["runtime/default", "docker/default", "unconfined"].contains(&profile) => {}
        None => e.invalid_value(path, profile, "must be a valid seccomp profile"),
    }
}

/// A profile in a field and one in an annotation must agree.
pub fn annotations_match(meta: &At<'_>, spec: &At<'_>, e: &mut Errors) {
    let annotations = meta.f("annotations");
    let pod = spec.f("securityContext");
    agree(&annotations, SECCOMP_POD, &pod.f("seccompProfile"), "seccomp", e);
    for container in CONTAINERS.iter().flat_map(|list| spec.f(list).each()) {
        let own = container.f("securityContext");
        let seccomp_key = format!("{SECCOMP_CONTAINER}{}", container.f("name").s());
        agree(&annotations, &seccomp_key, &own.f("seccompProfile"), "seccomp", e);
        let key = format!("{APPARMOR_CONTAINER}{}", container.f("name").s());
        let field = own.f("appArmorProfile");
        let effective = if field.has() { field } else { pod.f("appArmorProfile").under(field.path) };
        agree(&annotations, &key, &effective, "apparmor", e);
    }
}

fn agree(annotations: &At<'_>, key: &str, field: &At<'_>, what: &str, e: &mut Errors) {
    let Some(annotation) = annotations.value.get(key).and_then(|v| v.as_str()) else { return };
    if !field.has() {
        return;
    }
    let same = match field.f("type").s() {
        "Unconfined" => annotation == "unconfined",
        "RuntimeDefault" => {
            annotation == "runtime/default" || (what == "seccomp" && annotation == "docker/default")
        }
        "Localhost" => match annotation.strip_prefix("localhost/") {
            Some(profile) if profile == field.f("localhostProfile").s() => true,
            Some(_) => {
                let path = field.path.field("localhostProfile");
                e.forbidden(&path, format!("{what} profile in annotation and field must match"));
                true
            }
            None => false,
        },
        _ => true,
    };
    if !same {
        let path = field.path.field("type");
        e.forbidden(&path, format!("{what} type in annotation and field must match"));
    }
}
