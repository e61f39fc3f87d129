//! Volumes that are directories of this machine: hostPath, and claims that are bound to one.

use super::Mounted;
use crate::context::Context;
use crate::pods::spec;
use k8s_openapi::api::core::v1::Pod;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

/// Checks, or makes, what a hostPath of this type demands.
pub(super) fn check(path: &str, kind: &str) -> Result<(), String> {
    let target = Path::new(path);
    let meta = std::fs::metadata(target).ok();
    let file_type = meta.as_ref().map(std::fs::Metadata::file_type);
    let demand = |good: bool, what: &str| match good {
        true => Ok(()),
        false => Err(format!("hostPath type check failed: {path} is not {what}")),
    };
    match kind {
        "DirectoryOrCreate" if meta.is_none() => {
            std::fs::create_dir_all(target).map_err(|e| format!("create {path}: {e}"))
        }
        "FileOrCreate" if meta.is_none() => {
            std::fs::write(target, b"").map_err(|e| format!("create {path}: {e}"))
        }
        "Directory" | "DirectoryOrCreate" => demand(file_type.is_some_and(|t| t.is_dir()), "a directory"),
        "File" | "FileOrCreate" => demand(file_type.is_some_and(|t| t.is_file()), "a file"),
        "Socket" => demand(file_type.is_some_and(|t| t.is_socket()), "a socket file"),
        "CharDevice" => demand(file_type.is_some_and(|t| t.is_char_device()), "a character device"),
        "BlockDevice" => demand(file_type.is_some_and(|t| t.is_block_device()), "a block device"),
        // Nothing is checked: the runtime makes a directory where there is nothing.
        _ => Ok(()),
    }
}

/// The directory behind a bound claim.
pub(super) async fn claim(ctx: &Context, pod: &Pod, name: &str, read_only: bool) -> Result<Mounted, String> {
    let claim = ctx.api.claim(spec::namespace(pod), name).await.map_err(|e| match e.code() {
        Some(404) => format!("persistentvolumeclaim {name:?} not found"),
        _ => super::chain(&e),
    })?;
    let bound = claim.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound");
    let volume = claim.spec.and_then(|s| s.volume_name).filter(|v| bound && !v.is_empty());
    let volume = volume.ok_or_else(|| format!("PersistentVolumeClaim {name:?} is not bound"))?;
    let volume = ctx.api.volume(&volume).await.map_err(|e| super::chain(&e))?;
    let source = volume.spec.unwrap_or_default();
    let path = match (source.host_path, source.local) {
        (Some(host), _) => {
            let kind = host.type_.unwrap_or_default();
            check(&host.path, if kind.is_empty() { "DirectoryOrCreate" } else { &kind })?;
            host.path
        }
        (None, Some(local)) => {
            check(&local.path, "Directory")?;
            local.path
        }
        (None, None) => return Err("no volume plugin matched".into()),
    };
    Ok(Mounted { path: path.into(), read_only })
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn types_are_checked_and_made() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
        assert!(check(&path("none"), "Directory").is_err());
        assert!(check(&path("made"), "DirectoryOrCreate").is_ok() && dir.path().join("made").is_dir());
        assert!(check(&path("file"), "FileOrCreate").is_ok() && dir.path().join("file").is_file());
        assert!(check(&path("file"), "Directory").is_err());
        assert!(check(&path("none"), "").is_ok());
    }
}
