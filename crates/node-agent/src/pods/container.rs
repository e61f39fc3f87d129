//! One container as the runtime is asked for it.

use super::env::{self, ConfigError, Facts};
use super::{labels, resources, sandbox, spec};
use crate::context::Context;
use crate::volumes::Mounted;
use k8s_openapi::api::core::v1::{Container, Pod, SecurityContext};
use keelson_cri::v1::{
    Capability, ContainerConfig, ContainerMetadata, Image, ImageSpec, Int64Value, KeyValue,
    LinuxContainerConfig, LinuxContainerSecurityContext, Mount, MountPropagation, NamespaceMode,
    SecurityProfile, security_profile,
};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

type Result<T> = std::result::Result<T, ConfigError>;

/// What a container's configuration is made of, beside its spec.
pub struct Parts<'a> {
    pub facts: &'a Facts<'a>,
    pub container: &'a Container,
    pub attempt: u32,
    /// The image as the runtime knows it.
    pub image_ref: &'a str,
    pub image: &'a Image,
    pub volumes: &'a HashMap<String, Mounted>,
    /// The container whose processes an ephemeral one sees.
    pub target: Option<&'a str>,
}

const MASKED: &[&str] = &[
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
const READ_ONLY: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

pub async fn config(ctx: &Context, parts: &Parts<'_>) -> Result<ContainerConfig> {
    let Parts { facts, container, attempt, .. } = *parts;
    let pod = facts.pod;
    let environment = env::environment(ctx, facts, container).await?;
    let lookup = |name: &str| environment.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
    let expand = |list: &Option<Vec<String>>| -> Vec<String> {
        list.iter().flatten().map(|t| env::expand(t, &lookup)).collect()
    };
    let message = message_file(ctx, pod, container, attempt)?;
    let mounts = mounts(ctx, parts, &lookup, message.as_deref())?;
    let image = container.image.clone().unwrap_or_default();
    Ok(ContainerConfig {
        metadata: Some(ContainerMetadata { name: container.name.clone(), attempt }),
        image: Some(ImageSpec {
            image: parts.image_ref.to_owned(),
            user_specified_image: image,
            ..Default::default()
        }),
        command: expand(&container.command),
        args: expand(&container.args),
        working_dir: container.working_dir.clone().unwrap_or_default(),
        envs: environment
            .iter()
            .map(|(key, value)| KeyValue { key: key.clone(), value: value.clone().into_bytes() })
            .collect(),
        mounts,
        labels: HashMap::from([
            (labels::POD_NAME.to_owned(), spec::name(pod).to_owned()),
            (labels::POD_NAMESPACE.to_owned(), spec::namespace(pod).to_owned()),
            (labels::POD_UID.to_owned(), spec::uid(pod).to_owned()),
            (labels::CONTAINER_NAME.to_owned(), container.name.clone()),
        ]),
        annotations: annotations(pod, container, attempt, message.as_deref()),
        log_path: format!("{}/{attempt}.log", container.name),
        stdin: container.stdin == Some(true),
        stdin_once: container.stdin_once == Some(true),
        tty: container.tty == Some(true),
        linux: Some(linux(ctx, parts)?),
        ..Default::default()
    })
}

fn annotations(
    pod: &Pod,
    container: &Container,
    attempt: u32,
    message: Option<&Path>,
) -> HashMap<String, String> {
    let mut map = HashMap::from([
        (labels::RESTART_COUNT.to_owned(), attempt.to_string()),
        (labels::HASH.to_owned(), spec::container_hash(container)),
        (labels::MESSAGE_PATH.to_owned(), message_path(container).to_owned()),
        (
            labels::MESSAGE_POLICY.to_owned(),
            container.termination_message_policy.clone().unwrap_or_else(|| "File".into()),
        ),
    ]);
    if let Some(grace) = spec::spec(pod).termination_grace_period_seconds {
        map.insert(labels::GRACE.into(), grace.to_string());
    }
    if let Some(file) = message {
        map.insert(labels::MESSAGE_FILE.into(), file.to_string_lossy().into_owned());
    }
    map
}

fn message_path(container: &Container) -> &str {
    container.termination_message_path.as_deref().unwrap_or("/dev/termination-log")
}

/// Makes the file into which the container may write its last words.
fn message_file(ctx: &Context, pod: &Pod, container: &Container, attempt: u32) -> Result<Option<PathBuf>> {
    if message_path(container).is_empty() {
        return Ok(None);
    }
    let dir = ctx.pod_dir(spec::uid(pod)).join("containers").join(&container.name);
    let file = dir.join(format!("termination-{attempt}"));
    let make = || -> std::io::Result<()> {
        std::fs::create_dir_all(&dir)?;
        std::fs::write(&file, b"")?;
        // Whatever user the container runs as has to be able to write.
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o666))
    };
    make().map_err(|e| ConfigError(format!("create termination message file {}: {e}", file.display())))?;
    Ok(Some(file))
}

fn mounts(
    ctx: &Context,
    parts: &Parts<'_>,
    lookup: &dyn Fn(&str) -> Option<String>,
    message: Option<&Path>,
) -> Result<Vec<Mount>> {
    let container = parts.container;
    let mut mounts = Vec::new();
    for mount in container.volume_mounts.as_deref().unwrap_or_default() {
        let volume = parts.volumes.get(&mount.name).ok_or_else(|| {
            ConfigError(format!(
                "cannot find volume {:?} to mount into container {:?}",
                mount.name, container.name
            ))
        })?;
        let sub_path = match (&mount.sub_path, &mount.sub_path_expr) {
            (Some(path), _) if !path.is_empty() => path.clone(),
            (_, Some(expression)) if !expression.is_empty() => sub_path_of(expression, lookup)?,
            _ => String::new(),
        };
        let host_path = match sub_path.is_empty() {
            true => volume.path.clone(),
            false => crate::volumes::sub_path(volume, &sub_path).map_err(|e| {
                ConfigError(format!(
                    "failed to prepare subPath for volumeMount {:?} of container {:?}: {e}",
                    mount.name, container.name
                ))
            })?,
        };
        let target = match mount.mount_path.starts_with('/') {
            true => mount.mount_path.clone(),
            false => format!("/{}", mount.mount_path),
        };
        mounts.push(Mount {
            container_path: target,
            host_path: host_path.to_string_lossy().into_owned(),
            readonly: mount.read_only == Some(true) || volume.read_only,
            propagation: match mount.mount_propagation.as_deref() {
                Some("Bidirectional") => MountPropagation::PropagationBidirectional,
                Some("HostToContainer") => MountPropagation::PropagationHostToContainer,
                _ => MountPropagation::PropagationPrivate,
            } as i32,
            ..Default::default()
        });
    }
    let taken =
        |path: &str, mounts: &[Mount]| mounts.iter().any(|m| m.container_path.trim_end_matches('/') == path);
    if !taken("/etc/hosts", &mounts) {
        let file = hosts_file(ctx, parts)?;
        mounts.push(Mount {
            container_path: "/etc/hosts".into(),
            host_path: file.to_string_lossy().into_owned(),
            ..Default::default()
        });
    }
    if let Some(file) = message {
        mounts.push(Mount {
            container_path: message_path(container).to_owned(),
            host_path: file.to_string_lossy().into_owned(),
            ..Default::default()
        });
    }
    Ok(mounts)
}

/// Every reference has to be known: a path with a hole would be another directory.
fn sub_path_of(expression: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<String> {
    let missing = std::cell::RefCell::new(None);
    let path = env::expand(expression, &|name| {
        let value = lookup(name);
        if value.is_none() {
            *missing.borrow_mut() = Some(name.to_owned());
        }
        value
    });
    match missing.into_inner() {
        Some(name) => Err(ConfigError(format!("missing value for {name:?}"))),
        None => Ok(path),
    }
}

fn hosts_file(ctx: &Context, parts: &Parts<'_>) -> Result<PathBuf> {
    let pod = parts.facts.pod;
    let file = ctx.pod_dir(spec::uid(pod)).join("etc-hosts");
    let host = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
    let text = super::dns::hosts_file(pod, parts.facts.pod_ips, &ctx.config.cluster_domain, &host);
    let same = std::fs::read_to_string(&file).is_ok_and(|present| present == text);
    if !same {
        std::fs::write(&file, text).map_err(|e| ConfigError(format!("write {}: {e}", file.display())))?;
    }
    Ok(file)
}

fn linux(ctx: &Context, parts: &Parts<'_>) -> Result<LinuxContainerConfig> {
    let (pod, container) = (parts.facts.pod, parts.container);
    let mut context = security_context(pod, container);
    check_non_root(pod, container, parts.image, &context)?;
    if context.run_as_user.is_none() && context.run_as_username.is_empty() {
        // The image's user, resolved by the runtime's own reading of it.
        context.run_as_user = parts.image.uid;
        if parts.image.uid.is_none() {
            context.run_as_username = parts.image.username.clone();
        }
    }
    if let Some(target) = parts.target
        && let Some(options) = &mut context.namespace_options
    {
        options.pid = NamespaceMode::Target as i32;
        options.target_id = target.to_owned();
    }
    Ok(LinuxContainerConfig {
        resources: Some(resources::container_resources(pod, container, &ctx.allocatable)),
        security_context: Some(context),
    })
}

/// The pod's settings, overridden by the container's.
fn security_context(pod: &Pod, container: &Container) -> LinuxContainerSecurityContext {
    let of_pod = spec::spec(pod).security_context.clone().unwrap_or_default();
    let own = container.security_context.clone().unwrap_or_default();
    let privileged = own.privileged == Some(true);
    let capabilities = own.capabilities.clone().unwrap_or_default();
    let unmasked = own.proc_mount.as_deref() == Some("Unmasked") || privileged;
    let list = |paths: &[&str]| match unmasked {
        true => Vec::new(),
        false => paths.iter().map(|p| (*p).to_owned()).collect(),
    };
    let profile = own.seccomp_profile.as_ref().or(of_pod.seccomp_profile.as_ref());
    let unconfined = SecurityProfile {
        profile_type: security_profile::ProfileType::Unconfined as i32,
        localhost_ref: String::new(),
    };
    LinuxContainerSecurityContext {
        capabilities: Some(Capability {
            add_capabilities: capabilities.add.unwrap_or_default(),
            drop_capabilities: capabilities.drop.unwrap_or_default(),
            ..Default::default()
        }),
        privileged,
        namespace_options: Some(sandbox::namespaces(pod)),
        run_as_user: own.run_as_user.or(of_pod.run_as_user).map(|value| Int64Value { value }),
        run_as_group: own.run_as_group.or(of_pod.run_as_group).map(|value| Int64Value { value }),
        readonly_rootfs: own.read_only_root_filesystem == Some(true),
        supplemental_groups: sandbox::supplemental_groups(&of_pod),
        supplemental_groups_policy: i32::from(of_pod.supplemental_groups_policy.as_deref() == Some("Strict")),
        no_new_privs: own.allow_privilege_escalation == Some(false),
        masked_paths: list(MASKED),
        readonly_paths: list(READ_ONLY),
        // Where nothing is said there is no filter, unlike for the sandbox.
        seccomp: Some(match profile {
            Some(profile) if !privileged => sandbox::seccomp(Some(profile)),
            _ => unconfined,
        }),
        ..Default::default()
    }
}

fn check_non_root(
    pod: &Pod,
    container: &Container,
    image: &Image,
    context: &LinuxContainerSecurityContext,
) -> Result<()> {
    let of_pod = spec::spec(pod).security_context.as_ref().and_then(|c| c.run_as_non_root);
    let own = container.security_context.as_ref().and_then(|c: &SecurityContext| c.run_as_non_root);
    if own.or(of_pod) != Some(true) {
        return Ok(());
    }
    let who = format!("pod: {:?}, container: {}", spec::full_name(pod), container.name);
    match (&context.run_as_user, &image.uid, image.username.as_str()) {
        (Some(user), _, _) if user.value == 0 => {
            Err(ConfigError(format!("container's runAsUser breaks non-root policy ({who})")))
        }
        (Some(_), _, _) => Ok(()),
        (None, Some(uid), _) if uid.value == 0 => {
            Err(ConfigError(format!("container has runAsNonRoot and image will run as root ({who})")))
        }
        (None, None, name) if !name.is_empty() && name != "root" => Err(ConfigError(format!(
            "container has runAsNonRoot and image has non-numeric user ({name}), cannot verify user is non-root ({who})"
        ))),
        (None, None, _) => {
            Err(ConfigError(format!("container has runAsNonRoot and image will run as root ({who})")))
        }
        (None, Some(_), _) => Ok(()),
    }
}
