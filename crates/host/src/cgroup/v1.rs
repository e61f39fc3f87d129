//! The v1 hierarchies, one directory tree per controller or group of controllers.

use super::{
    Cgroups, Limits, Usage, count_lines, kill_and_remove, read_keyed, read_u64, subdirectories, write,
};
use crate::error::{Context, Result};
use std::path::PathBuf;

/// Controllers of v1; mount options that are none of these (`rw`, `name=systemd`) are skipped.
pub(super) const CONTROLLERS: &[&str] = &[
    "blkio",
    "cpu",
    "cpuacct",
    "cpuset",
    "devices",
    "freezer",
    "hugetlb",
    "memory",
    "net_cls",
    "net_prio",
    "perf_event",
    "pids",
    "rdma",
];

pub struct V1 {
    /// Mount point and its controllers.
    hierarchies: Vec<(PathBuf, Vec<String>)>,
}

impl V1 {
    pub fn new(hierarchies: impl IntoIterator<Item = (PathBuf, Vec<String>)>) -> Self {
        Self { hierarchies: hierarchies.into_iter().collect() }
    }

    fn dir(&self, controller: &str, path: &str) -> Option<PathBuf> {
        let (root, _) = self.hierarchies.iter().find(|(_, c)| c.iter().any(|c| c == controller))?;
        Some(root.join(path.trim_start_matches('/')))
    }

    fn set(&self, controller: &str, path: &str, file: &str, value: Option<impl ToString>) -> Result<()> {
        match (self.dir(controller, path), value) {
            (Some(dir), Some(value)) => write(dir.join(file), value),
            _ => Ok(()),
        }
    }

    /// A new cpuset has no CPUs and no memory nodes and admits no task until it has.
    fn inherit_cpuset(&self, path: &str) -> Result<()> {
        let Some(root) = self.dir("cpuset", "/") else { return Ok(()) };
        let mut dir = root.clone();
        for part in path.split('/').filter(|p| !p.is_empty()) {
            let parent = dir.clone();
            dir.push(part);
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let own = std::fs::read_to_string(dir.join(file)).unwrap_or_default();
                if own.trim().is_empty() {
                    let above = std::fs::read_to_string(parent.join(file)).unwrap_or_default();
                    if !above.trim().is_empty() {
                        write(dir.join(file), above.trim())?;
                    }
                }
            }
        }
        Ok(())
    }
}

impl Cgroups for V1 {
    fn version(&self) -> u8 {
        1
    }

    fn ensure(&self, path: &str, limits: &Limits) -> Result<()> {
        for (root, _) in &self.hierarchies {
            let dir = root.join(path.trim_start_matches('/'));
            std::fs::create_dir_all(&dir).context("create cgroup", dir.display())?;
        }
        self.inherit_cpuset(path)?;
        self.set("cpu", path, "cpu.shares", limits.cpu_shares)?;
        if limits.cpu_quota_us.is_some() {
            self.set("cpu", path, "cpu.cfs_period_us", Some(100_000))?;
        }
        self.set("cpu", path, "cpu.cfs_quota_us", limits.cpu_quota_us)?;
        self.set("memory", path, "memory.limit_in_bytes", limits.memory_bytes)?;
        let pids = limits.pids.map(|p| if p < 0 { "max".to_owned() } else { p.to_string() });
        self.set("pids", path, "pids.max", pids)
    }

    fn remove(&self, path: &str) -> Result<()> {
        for (root, _) in &self.hierarchies {
            kill_and_remove(&root.join(path.trim_start_matches('/')))?;
        }
        Ok(())
    }

    fn usage(&self, path: &str) -> Result<Usage> {
        let mut usage = Usage::default();
        if let Some(dir) = self.dir("cpuacct", path) {
            usage.cpu_nanos = read_u64(dir.join("cpuacct.usage"))?;
        }
        if let Some(dir) = self.dir("memory", path) {
            usage.memory_bytes = read_u64(dir.join("memory.usage_in_bytes"))?;
            let stat = read_keyed(dir.join("memory.stat"))?;
            let key = |k: &str| stat.get(k).copied().unwrap_or(0);
            usage.working_set_bytes = usage.memory_bytes.saturating_sub(key("total_inactive_file"));
            usage.rss_bytes = key("total_rss");
            usage.page_faults = key("total_pgfault");
            usage.major_page_faults = key("total_pgmajfault");
        }
        if let Some(dir) = self.dir("pids", path) {
            usage.processes =
                read_u64(dir.join("pids.current")).unwrap_or_else(|_| count_lines(dir.join("cgroup.procs")));
        }
        Ok(usage)
    }

    fn children(&self, path: &str) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for (root, _) in &self.hierarchies {
            names.extend(subdirectories(&root.join(path.trim_start_matches('/')))?);
        }
        names.sort();
        names.dedup();
        Ok(names)
    }
}
