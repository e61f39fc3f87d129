//! CPU time and memory of processes by name.

use std::fs;

/// The processes that are measured together.
#[derive(Debug, Clone)]
pub struct Servers {
    pids: Vec<u32>,
    /// Their command lines.
    commands: Vec<Vec<u8>>,
}

impl Servers {
    /// All processes whose executable has one of these names, or whose id is one of them: several clusters may run.
    pub fn named(names: &[String]) -> anyhow::Result<Self> {
        let found = Self::find(|pid, line| {
            let program = line.split(|b| *b == 0).next().unwrap_or_default();
            let program = String::from_utf8_lossy(program);
            let base = program.rsplit('/').next().unwrap_or_default();
            names.iter().any(|name| name == base || *name == pid.to_string())
        })?;
        anyhow::ensure!(
            !found.pids.is_empty(),
            "no process is named {}; is the cluster up?",
            names.join(" or ")
        );
        Ok(found)
    }

    /// The processes that were started anew with the same command lines.
    pub fn again(&self) -> anyhow::Result<Self> {
        Self::find(|_, line| self.commands.iter().any(|command| command == line))
    }

    fn find(wanted: impl Fn(u32, &[u8]) -> bool) -> anyhow::Result<Self> {
        let mut found = Self { pids: Vec::new(), commands: Vec::new() };
        for entry in fs::read_dir("/proc")?.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
                continue;
            };
            let Ok(line) = fs::read(format!("/proc/{pid}/cmdline")) else { continue };
            if wanted(pid, &line) {
                found.pids.push(pid);
                found.commands.push(line);
            }
        }
        Ok(found)
    }

    pub fn count(&self) -> usize {
        self.pids.len()
    }

    /// SIGKILL to each.
    pub fn kill(&self) -> anyhow::Result<()> {
        for pid in &self.pids {
            let pid = nix::unistd::Pid::from_raw(i32::try_from(*pid)?);
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL)?;
        }
        Ok(())
    }

    /// User and system time so far, in seconds.
    pub fn cpu_seconds(&self) -> f64 {
        // USER_HZ is 100 on every Linux that Rust runs on.
        self.pids.iter().filter_map(|pid| ticks(*pid)).sum::<u64>() as f64 / 100.0
    }

    /// Resident memory, in megabytes.
    pub fn resident_mb(&self) -> f64 {
        self.pids.iter().filter_map(|pid| resident_kb(*pid)).sum::<u64>() as f64 / 1000.0
    }

    /// Bytes written to storage so far.
    pub fn written_bytes(&self) -> u64 {
        self.pids.iter().filter_map(|pid| field(&format!("/proc/{pid}/io"), "write_bytes:")).sum()
    }
}

fn ticks(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat[stat.rfind(')')? + 1..].split_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

fn resident_kb(pid: u32) -> Option<u64> {
    field(&format!("/proc/{pid}/status"), "VmRSS:")
}

fn field(file: &str, name: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
