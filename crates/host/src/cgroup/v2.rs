//! The unified v2 tree.

use super::{
    Cgroups, Limits, Usage, count_lines, kill_and_remove, read_keyed, read_u64, subdirectories, write,
};
use crate::error::{Context, Result};
use std::path::{Path, PathBuf};

pub struct V2 {
    root: PathBuf,
}

impl V2 {
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    fn dir(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// A controller's files exist in a child only when its parent delegates the controller.
    fn delegate(&self, parent: &Path) -> Result<()> {
        let offered = std::fs::read_to_string(parent.join("cgroup.controllers"))
            .context("read cgroup controllers", parent.display())?;
        for controller in
            offered.split_whitespace().filter(|c| ["cpu", "cpuset", "memory", "pids", "io"].contains(c))
        {
            // One by one: a controller that is busy elsewhere must not keep the others away.
            let _ = std::fs::write(parent.join("cgroup.subtree_control"), format!("+{controller}"));
        }
        Ok(())
    }
}

/// The mapping of the OCI runtimes: 2..=262144 shares onto 1..=10000.
fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

fn or_max(value: i64) -> String {
    if value < 0 { "max".to_owned() } else { value.to_string() }
}

impl Cgroups for V2 {
    fn version(&self) -> u8 {
        2
    }

    fn ensure(&self, path: &str, limits: &Limits) -> Result<()> {
        let mut dir = self.root.clone();
        for part in path.split('/').filter(|p| !p.is_empty()) {
            self.delegate(&dir)?;
            dir.push(part);
            if !dir.exists() {
                std::fs::create_dir(&dir).context("create cgroup", dir.display())?;
            }
        }
        // The runtime puts its own children below.
        self.delegate(&dir)?;
        if let Some(shares) = limits.cpu_shares {
            write(dir.join("cpu.weight"), weight(shares))?;
        }
        if let Some(quota) = limits.cpu_quota_us {
            write(dir.join("cpu.max"), format!("{} 100000", or_max(quota)))?;
        }
        if let Some(bytes) = limits.memory_bytes {
            write(dir.join("memory.max"), or_max(bytes))?;
        }
        if let Some(pids) = limits.pids {
            write(dir.join("pids.max"), or_max(pids))?;
        }
        Ok(())
    }

    fn remove(&self, path: &str) -> Result<()> {
        kill_and_remove(&self.dir(path))
    }

    fn usage(&self, path: &str) -> Result<Usage> {
        let dir = self.dir(path);
        let cpu = read_keyed(dir.join("cpu.stat"))?;
        let stat = read_keyed(dir.join("memory.stat"))?;
        let key = |k: &str| stat.get(k).copied().unwrap_or(0);
        // The root cgroup has no memory.current.
        let memory = read_u64(dir.join("memory.current")).unwrap_or_else(|_| key("anon") + key("file"));
        Ok(Usage {
            cpu_nanos: cpu.get("usage_usec").copied().unwrap_or(0) * 1000,
            memory_bytes: memory,
            working_set_bytes: memory.saturating_sub(key("inactive_file")),
            rss_bytes: key("anon"),
            page_faults: key("pgfault"),
            major_page_faults: key("pgmajfault"),
            processes: read_u64(dir.join("pids.current"))
                .unwrap_or_else(|_| count_lines(dir.join("cgroup.procs"))),
        })
    }

    fn children(&self, path: &str) -> Result<Vec<String>> {
        subdirectories(&self.dir(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_map_onto_the_whole_range_of_weights() {
        assert_eq!([2, 1024, 262_144].map(weight), [1, 39, 10_000]);
    }
}
