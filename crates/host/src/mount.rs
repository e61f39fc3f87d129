//! Mounts: the kernel's table, tmpfs and bind mounts, and their removal.

use crate::error::{Context, Result};
use nix::mount::{MntFlags, MsFlags};
use std::collections::BTreeMap;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// One line of `mountinfo`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    pub target: PathBuf,
    pub fs_type: String,
    pub source: String,
    pub super_options: String,
    /// `shared`, `master` and the like: the propagation of the mount.
    pub propagation: Vec<String>,
}

pub trait Mounts: Send + Sync {
    /// A tmpfs with an optional size in bytes; a mount that stands already is kept.
    fn tmpfs(&self, target: &Path, size: Option<u64>, mode: u32) -> Result<()>;
    fn bind(&self, source: &Path, target: &Path) -> Result<()>;
    /// Mounts a filesystem or a directory (`bind` among the options) read-only, with nothing in it executable; options
    /// are mount(8)'s. A mount that stands already is kept.
    fn read_only(&self, kind: &str, source: &Path, target: &Path, options: &[String]) -> Result<()>;
    /// Lazily unmounts everything stacked on `target`; not mounted is fine.
    fn unmount(&self, target: &Path) -> Result<()>;
    /// Targets at or below `dir`, deepest first.
    fn below(&self, dir: &Path) -> Result<Vec<PathBuf>>;
}

/// Reads a mount table in the format of `/proc/self/mountinfo`.
pub fn table(file: &Path) -> Result<Vec<Mount>> {
    let text = std::fs::read_to_string(file).context("read mount table", file.display())?;
    Ok(text.lines().filter_map(parse).collect())
}

fn parse(line: &str) -> Option<Mount> {
    let (before, after) = line.split_once(" - ")?;
    let mut fields = before.split(' ').skip(4);
    let target = unescape(fields.next()?);
    let propagation = fields.skip(1).map(|f| f.split(':').next().unwrap_or(f).to_owned()).collect();
    let mut rest = after.split(' ');
    Some(Mount {
        target,
        fs_type: rest.next()?.to_owned(),
        source: rest.next()?.to_owned(),
        super_options: rest.next().unwrap_or_default().to_owned(),
        propagation,
    })
}

/// The kernel writes blanks and backslashes of paths in octal.
fn unescape(field: &str) -> PathBuf {
    let bytes = field.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let octal = (bytes[i] == b'\\').then(|| field.get(i + 1..i + 4)).flatten();
        match octal.and_then(|o| u8::from_str_radix(o, 8).ok()) {
            Some(byte) => {
                out.push(byte);
                i += 4;
            }
            None => {
                out.push(bytes[i]);
                i += 1;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(out))
}

/// The mounts of this process's namespace.
#[derive(Debug, Default, Clone, Copy)]
pub struct Kernel;

impl Kernel {
    fn is_mounted(&self, target: &Path) -> Result<bool> {
        Ok(table(Path::new("/proc/self/mountinfo"))?.iter().any(|m| m.target == target))
    }
}

impl Mounts for Kernel {
    fn tmpfs(&self, target: &Path, size: Option<u64>, mode: u32) -> Result<()> {
        if self.is_mounted(target)? {
            return Ok(());
        }
        let mut options = format!("mode={mode:o}");
        if let Some(size) = size {
            options.push_str(&format!(",size={size}"));
        }
        nix::mount::mount(
            Some("tmpfs"),
            target,
            Some("tmpfs"),
            MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
            Some(options.as_str()),
        )
        .context("mount tmpfs", target.display())
    }

    fn bind(&self, source: &Path, target: &Path) -> Result<()> {
        nix::mount::mount(
            Some(source),
            target,
            None::<&str>,
            MsFlags::MS_BIND | MsFlags::MS_REC,
            None::<&str>,
        )
        .context("bind mount", target.display())
    }

    fn read_only(&self, kind: &str, source: &Path, target: &Path, options: &[String]) -> Result<()> {
        if self.is_mounted(target)? {
            return Ok(());
        }
        let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        if options.iter().any(|o| o == "bind" || o == "rbind") {
            self.bind(source, target)?;
            // A bind mount takes its flags only when it stands.
            let again = flags | MsFlags::MS_BIND | MsFlags::MS_REMOUNT;
            return nix::mount::mount(None::<&Path>, target, None::<&str>, again, None::<&str>)
                .context("make read-only", target.display());
        }
        let rest: Vec<_> = options.iter().map(String::as_str).filter(|o| !["ro", "rw"].contains(o)).collect();
        nix::mount::mount(Some(source), target, Some(kind), flags, Some(rest.join(",").as_str()))
            .context("mount", target.display())
    }

    fn unmount(&self, target: &Path) -> Result<()> {
        while self.is_mounted(target)? {
            nix::mount::umount2(target, MntFlags::MNT_DETACH).context("unmount", target.display())?;
        }
        Ok(())
    }

    fn below(&self, dir: &Path) -> Result<Vec<PathBuf>> {
        let mut targets: Vec<PathBuf> = table(Path::new("/proc/self/mountinfo"))?
            .into_iter()
            .map(|m| m.target)
            .filter(|t| t.starts_with(dir))
            .collect();
        targets.sort_by_key(|t| std::cmp::Reverse(t.components().count()));
        Ok(targets)
    }
}

/// Remembers what would be mounted.
#[derive(Debug, Default)]
pub struct Fake {
    mounted: Mutex<BTreeMap<PathBuf, String>>,
}

impl Fake {
    pub fn mounted(&self) -> BTreeMap<PathBuf, String> {
        self.mounted.lock().expect("no panic while held").clone()
    }
}

impl Mounts for Fake {
    fn tmpfs(&self, target: &Path, size: Option<u64>, _mode: u32) -> Result<()> {
        let what = size.map_or("tmpfs".to_owned(), |s| format!("tmpfs size={s}"));
        self.mounted.lock().expect("no panic while held").insert(target.to_owned(), what);
        Ok(())
    }

    fn bind(&self, source: &Path, target: &Path) -> Result<()> {
        let what = format!("bind {}", source.display());
        self.mounted.lock().expect("no panic while held").insert(target.to_owned(), what);
        Ok(())
    }

    fn read_only(&self, kind: &str, source: &Path, target: &Path, options: &[String]) -> Result<()> {
        let what = format!("{kind} {} ro {}", source.display(), options.join(","));
        self.mounted
            .lock()
            .expect("no panic while held")
            .insert(target.to_owned(), what.trim_end().to_owned());
        Ok(())
    }

    fn unmount(&self, target: &Path) -> Result<()> {
        self.mounted.lock().expect("no panic while held").remove(target);
        Ok(())
    }

    fn below(&self, dir: &Path) -> Result<Vec<PathBuf>> {
        let mounted = self.mounted.lock().expect("no panic while held");
        Ok(mounted.keys().rev().filter(|t| t.starts_with(dir)).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_mountinfo_is_read_with_its_escapes() {
        let line = r"36 35 98:0 /a /mnt/with\040blank rw,noatime master:1 shared:2 - ext3 /dev/root rw,errors=continue";
        let mount = parse(line).expect("well-formed");
        assert_eq!(mount.target, Path::new("/mnt/with blank"));
        assert_eq!(mount.fs_type, "ext3");
        assert_eq!(mount.source, "/dev/root");
        assert_eq!(mount.propagation, ["master", "shared"]);
    }

    #[test]
    fn a_line_without_optional_fields_is_read() {
        let mount = parse("40 25 0:35 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu").expect("well-formed");
        assert_eq!((mount.super_options.as_str(), mount.propagation.len()), ("rw,cpu", 0));
    }
}
