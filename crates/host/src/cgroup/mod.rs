//! Control groups of pods and QoS classes: one interface over the v1 hierarchies and the v2 tree.
//!
//! Paths are relative to the cgroup root and start with `/`, e.g. `/kubepods/burstable/pod1234`.
//! The backends take the directory under which cgroupfs is mounted, so that tests run on fixture trees.

mod v1;
mod v2;

use crate::error::{Context, Result};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::Mutex;

pub use v1::V1;
pub use v2::V2;

/// What a cgroup may use; `None` leaves the kernel's present value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// v1 scale (2..=262144, 1024 per CPU); the v2 backend converts to `cpu.weight`.
    pub cpu_shares: Option<u64>,
    /// Microseconds per 100 ms period; -1 is unlimited.
    pub cpu_quota_us: Option<i64>,
    /// Bytes; -1 is unlimited.
    pub memory_bytes: Option<i64>,
    /// Number of tasks; -1 is unlimited.
    pub pids: Option<i64>,
}

/// What a cgroup has used so far and uses now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    pub cpu_nanos: u64,
    pub memory_bytes: u64,
    /// Memory less the inactive page cache: what cannot be reclaimed at once.
    pub working_set_bytes: u64,
    pub rss_bytes: u64,
    pub page_faults: u64,
    pub major_page_faults: u64,
    pub processes: u64,
}

pub trait Cgroups: Send + Sync {
    /// 1 or 2.
    fn version(&self) -> u8;
    /// Creates the cgroup where absent and applies the limits.
    fn ensure(&self, path: &str, limits: &Limits) -> Result<()>;
    /// Kills what still runs inside and removes the cgroup with all its children; absent is fine.
    fn remove(&self, path: &str) -> Result<()>;
    fn usage(&self, path: &str) -> Result<Usage>;
    /// Names of the direct children.
    fn children(&self, path: &str) -> Result<Vec<String>>;
}

/// The hierarchy of this machine: v2 where `/sys/fs/cgroup` itself is a cgroup2 mount, else v1.
pub fn detect() -> Result<Arc<dyn Cgroups>> {
    let mounts = crate::mount::table(Path::new("/proc/self/mountinfo"))?;
    let root = Path::new("/sys/fs/cgroup");
    if mounts.iter().any(|m| m.target == root && m.fs_type == "cgroup2") {
        return Ok(Arc::new(V2::new(root)));
    }
    let hierarchies = mounts.iter().filter(|m| m.fs_type == "cgroup").filter_map(|m| {
        let controllers: Vec<String> =
            m.super_options.split(',').filter(|o| v1::CONTROLLERS.contains(o)).map(str::to_owned).collect();
        (!controllers.is_empty()).then(|| (m.target.clone(), controllers))
    });
    Ok(Arc::new(V1::new(hierarchies)))
}

/// Keeps cgroups in memory and dumps them, for tests of what decides on them.
#[derive(Debug, Default)]
pub struct Fake {
    groups: Mutex<BTreeMap<String, Limits>>,
}

impl Fake {
    pub fn groups(&self) -> BTreeMap<String, Limits> {
        self.groups.lock().expect("no panic while held").clone()
    }
}

impl Cgroups for Fake {
    fn version(&self) -> u8 {
        2
    }

    fn ensure(&self, path: &str, limits: &Limits) -> Result<()> {
        self.groups.lock().expect("no panic while held").insert(path.to_owned(), *limits);
        Ok(())
    }

    fn remove(&self, path: &str) -> Result<()> {
        let inside = format!("{path}/");
        self.groups.lock().expect("no panic while held").retain(|p, _| p != path && !p.starts_with(&inside));
        Ok(())
    }

    fn usage(&self, _path: &str) -> Result<Usage> {
        Ok(Usage::default())
    }

    fn children(&self, path: &str) -> Result<Vec<String>> {
        let inside = format!("{}/", path.trim_end_matches('/'));
        let groups = self.groups.lock().expect("no panic while held");
        Ok(groups
            .keys()
            .filter_map(|p| p.strip_prefix(&inside))
            .filter(|rest| !rest.contains('/'))
            .map(str::to_owned)
            .collect())
    }
}

fn write(file: PathBuf, value: impl ToString) -> Result<()> {
    std::fs::write(&file, value.to_string()).context("write cgroup file", file.display())
}

fn read_u64(file: PathBuf) -> Result<u64> {
    let text = std::fs::read_to_string(&file).context("read cgroup file", file.display())?;
    text.trim()
        .parse()
        .map_err(|_| std::io::Error::other(format!("not a number: {}", text.trim())))
        .context("parse cgroup file", file.display())
}

/// `key value` lines, as in memory.stat and cpu.stat.
fn read_keyed(file: PathBuf) -> Result<BTreeMap<String, u64>> {
    let text = std::fs::read_to_string(&file).context("read cgroup file", file.display())?;
    Ok(text
        .lines()
        .filter_map(|l| l.split_once(' '))
        .filter_map(|(k, v)| Some((k.to_owned(), v.trim().parse().ok()?)))
        .collect())
}

fn count_lines(file: PathBuf) -> u64 {
    std::fs::read_to_string(file).map(|t| t.lines().count() as u64).unwrap_or(0)
}

fn subdirectories(dir: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(names),
        Err(e) => return Err(e).context("list cgroup", dir.display()),
    };
    for entry in entries {
        let entry = entry.context("list cgroup", dir.display())?;
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Kills all tasks below `dir`, deepest first, and removes the directories.
fn kill_and_remove(dir: &Path) -> Result<()> {
    for child in subdirectories(dir)? {
        kill_and_remove(&dir.join(child))?;
    }
    for attempt in 0..50 {
        let procs = std::fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
        for pid in procs.lines().filter_map(|l| l.parse::<i32>().ok()).filter(|pid| *pid > 0) {
            // A task that has gone meanwhile is what was wanted.
            let _ =
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
        match std::fs::remove_dir(dir) {
            Ok(()) => return Ok(()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            // Killed tasks leave only after they were scheduled once more.
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) && attempt < 49 => {
                std::thread::sleep(std::time::Duration::from_millis(4));
            }
            Err(e) => return Err(e).context("remove cgroup", dir.display()),
        }
    }
    Ok(())
}
