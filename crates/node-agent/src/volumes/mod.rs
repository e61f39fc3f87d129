//! Volumes: directories of this node that containers see.
//!
//! Setting up is repeatable: what stands and is right stays, what changed is changed in place, so that the same
//! code mounts, refreshes and adopts. Secrets and tokens stand on one tmpfs, never on disk.

mod atomic;
mod content;
mod host;
pub mod tokens;

use crate::context::Context;
use crate::pods::spec;
use k8s_openapi::api::core::v1::{Pod, Volume};
use keelson_api_types::quantity::Quantity;
use keelson_host::system;
use std::collections::HashMap;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};
use tokio::time::Instant;

/// A volume that can be mounted into containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mounted {
    pub path: PathBuf,
    pub read_only: bool,
}

/// All of a pod's volumes by name, and when tokens among them have to be renewed.
#[derive(Debug, Clone, Default)]
pub struct Volumes {
    pub mounted: HashMap<String, Mounted>,
    pub refresh_at: Option<Instant>,
}

/// Why a pod's volumes do not stand: the text of its `FailedMount` event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("MountVolume.SetUp failed for volume {volume:?} : {problem}")]
pub struct VolumeError {
    pub volume: String,
    pub problem: String,
}

/// Where what must not reach the disk is kept: one tmpfs for all pods.
pub fn memory_dir(ctx: &Context) -> PathBuf {
    ctx.config.state_dir.join("memory")
}

/// Mounts the tmpfs for secrets; one that stands already is taken over.
pub fn prepare(ctx: &Context) -> anyhow::Result<()> {
    let dir = memory_dir(ctx);
    std::fs::create_dir_all(&dir)?;
    Ok(ctx.mounts.tmpfs(&dir, None, 0o755)?)
}

/// Brings all of a pod's volumes to what its spec says.
pub async fn set_up(ctx: &Context, pod: &Pod, tokens: &mut tokens::Tokens) -> Result<Volumes, VolumeError> {
    let mut volumes = Volumes::default();
    for volume in spec::spec(pod).volumes.as_deref().unwrap_or_default() {
        let fail = |problem: String| VolumeError { volume: volume.name.clone(), problem };
        if volume.image.is_some() {
            // Comes with the first container that mounts it.
            continue;
        }
        let mounted = one(ctx, pod, volume, tokens).await.map_err(fail)?;
        volumes.mounted.insert(volume.name.clone(), mounted);
    }
    volumes.refresh_at = tokens.refresh_at();
    Ok(volumes)
}

async fn one(
    ctx: &Context,
    pod: &Pod,
    volume: &Volume,
    tokens: &mut tokens::Tokens,
) -> Result<Mounted, String> {
    let uid = spec::uid(pod);
    let on_disk = |plugin: &str| ctx.pod_dir(uid).join("volumes").join(plugin).join(&volume.name);
    let in_memory = |plugin: &str| memory_dir(ctx).join(uid).join(plugin).join(&volume.name);
    let text = |e: io::Error| e.to_string();
    if let Some(source) = &volume.empty_dir {
        let path = on_disk("kubernetes.io~empty-dir");
        let fresh = !path.exists();
        make_dir(&path, 0o777).map_err(text)?;
        if source.medium.as_deref() == Some("Memory") {
            let limit = source.size_limit.as_ref().and_then(|q| Quantity::parse(&q.0).ok());
            let size = limit.map(|q| q.value()).filter(|v| *v > 0).map(|v| v as u64);
            ctx.mounts.tmpfs(&path, size, 0o777).map_err(|e| chain(&e))?;
        }
        if fresh {
            own(pod, &path, false).map_err(text)?;
        }
        return Ok(Mounted { path, read_only: false });
    }
    if let Some(source) = &volume.host_path {
        host::check(&source.path, source.type_.as_deref().unwrap_or_default())?;
        return Ok(Mounted { path: source.path.clone().into(), read_only: false });
    }
    if let Some(source) = &volume.persistent_volume_claim {
        let read_only = source.read_only == Some(true);
        return host::claim(ctx, pod, &source.claim_name, read_only).await;
    }
    if volume.ephemeral.is_some() {
        let claim = format!("{}-{}", spec::name(pod), volume.name);
        return host::claim(ctx, pod, &claim, false).await;
    }
    let (path, files) = if let Some(source) = &volume.config_map {
        (on_disk("kubernetes.io~configmap"), content::config_map(ctx, pod, source).await?)
    } else if let Some(source) = &volume.secret {
        (in_memory("kubernetes.io~secret"), content::secret(ctx, pod, source).await?)
    } else if let Some(source) = &volume.downward_api {
        (on_disk("kubernetes.io~downward-api"), content::downward(ctx, pod, source)?)
    } else if let Some(source) = &volume.projected {
        let files = content::projected(ctx, pod, &volume.name, source, tokens).await?;
        (in_memory("kubernetes.io~projected"), files)
    } else {
        return Err("no volume plugin matched".into());
    };
    make_dir(&path, 0o777).map_err(text)?;
    let changed = atomic::write(&path, &files, fs_group(pod)).map_err(text)?;
    if changed && fs_group(pod).is_some() {
        own(pod, &path, true).map_err(text)?;
    }
    Ok(Mounted { path, read_only: true })
}

/// Where the volumes of a pod that are made of images stand.
pub fn image_dir(ctx: &Context, uid: &str) -> PathBuf {
    ctx.pod_dir(uid).join("volumes/kubernetes.io~image")
}

/// Mounts an image that is here, by the runtime's id of it.
pub async fn image(ctx: &Context, uid: &str, name: &str, image: &str, path: &Path) -> Result<(), String> {
    let mounts = ctx.runtime.view_image(image, uid, name).await.map_err(|e| e.user_message())?;
    make_dir(path, 0o755).map_err(|e| e.to_string())?;
    for m in mounts {
        ctx.mounts.read_only(&m.kind, Path::new(&m.source), path, &m.options).map_err(|e| chain(&e))?;
    }
    Ok(())
}

/// Removes everything of a pod from this node; goes on past what fails and reports the first failure.
pub async fn tear_down(ctx: &Context, uid: &str) -> anyhow::Result<()> {
    let mut first = None;
    let mut note = |result: anyhow::Result<()>| {
        if let Err(error) = result {
            first.get_or_insert(error);
        }
    };
    let of_images = image_dir(ctx, uid).exists();
    for dir in [ctx.pod_dir(uid), memory_dir(ctx).join(uid)] {
        match ctx.mounts.below(&dir) {
            Ok(targets) => {
                for target in targets {
                    note(ctx.mounts.unmount(&target).map_err(Into::into));
                }
            }
            Err(error) => note(Err(error.into())),
        }
        if of_images {
            note(ctx.runtime.release_views(uid).await.map_err(Into::into));
        }
        // Never through a mount: what is still mounted keeps its directory.
        let clear = ctx.mounts.below(&dir).is_ok_and(|left| left.is_empty());
        if clear {
            match std::fs::remove_dir_all(&dir) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => note(Err(e.into())),
                _ => {}
            }
        }
    }
    first.map_or(Ok(()), Err)
}

/// The path of `sub` inside of a volume, made if it is not there, and never outside of it.
pub fn sub_path(volume: &Mounted, sub: &str) -> io::Result<PathBuf> {
    let mut path = volume.path.clone();
    let root = std::fs::canonicalize(&volume.path)?;
    for component in Path::new(sub).components() {
        match component {
            Component::Normal(name) => path.push(name),
            Component::CurDir => continue,
            _ => return Err(io::Error::other(format!("{sub:?} leads out of the volume"))),
        }
        match std::fs::canonicalize(&path) {
            // Links may point anywhere; only what stays inside is followed.
            Ok(real) if real.starts_with(&root) => {}
            Ok(_) => return Err(io::Error::other(format!("{sub:?} leads out of the volume"))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let mode = std::fs::metadata(&root)?.mode() & 0o7777;
                std::fs::create_dir(&path)?;
                std::fs::set_permissions(&path, PermissionsExt::from_mode(mode))?;
                let parent = std::fs::metadata(&root)?;
                std::os::unix::fs::chown(&path, Some(parent.uid()), Some(parent.gid()))?;
            }
            Err(e) => return Err(e),
        }
    }
    std::fs::canonicalize(&path)
}

fn make_dir(path: &Path, mode: u32) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    std::fs::create_dir_all(path)?;
    // Independent of this process's umask.
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode))
}

pub(crate) fn fs_group(pod: &Pod) -> Option<u32> {
    spec::spec(pod).security_context.as_ref()?.fs_group.map(|g| g as u32)
}

/// Gives a volume to the pod's fsGroup: every file and directory, new files in directories as well.
fn own(pod: &Pod, path: &Path, read_only: bool) -> io::Result<()> {
    let Some(group) = fs_group(pod) else { return Ok(()) };
    own_tree(path, group, read_only)
}

fn own_tree(path: &Path, group: u32, read_only: bool) -> io::Result<()> {
    let meta = std::fs::symlink_metadata(path)?;
    system::chown(path, None, Some(group)).map_err(|e| e.source)?;
    if meta.is_symlink() {
        return Ok(());
    }
    let mut mask = if read_only { 0o440 } else { 0o660 };
    if meta.is_dir() {
        mask |= 0o2110;
    }
    std::fs::set_permissions(path, PermissionsExt::from_mode(meta.mode() & 0o7777 | mask))?;
    if meta.is_dir() {
        for entry in std::fs::read_dir(path)? {
            own_tree(&entry?.path(), group, read_only)?;
        }
    }
    Ok(())
}

/// An error and its causes as one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(&format!(": {cause}"));
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(path: &Path) -> Mounted {
        Mounted { path: path.to_owned(), read_only: false }
    }

    #[test]
    fn a_sub_path_is_made_inside_the_volume() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = sub_path(&volume(dir.path()), "a/b").expect("made");
        assert!(path.is_dir() && path.ends_with("a/b"));
    }

    #[test]
    fn a_sub_path_never_leads_out() {
        let dir = tempfile::tempdir().expect("temporary directory");
        std::os::unix::fs::symlink("/etc", dir.path().join("out")).expect("links");
        for bad in ["../x", "/etc", "out", "out/passwd"] {
            assert!(sub_path(&volume(dir.path()), bad).is_err(), "{bad}");
        }
    }
}
