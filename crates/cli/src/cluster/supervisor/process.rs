//! One supervised process: started or adopted, watched through a pidfd, ended politely.
//!
//! A pid alone may have been given to another process since; a pid file therefore holds the process's
//! start time too, and only a process that matches both is taken for ours.

use std::fs::{File, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context;
use keelson_host::process::Process as Watched;

/// What to run.
#[derive(Debug, Clone)]
pub struct Spec {
    pub name: String,
    pub program: PathBuf,
    pub args: Vec<String>,
    pub log: PathBuf,
    pub pid_file: PathBuf,
}

/// A process that runs (or has just ended).
pub struct Process {
    watched: Watched,
    /// Ours to reap; None for a process that an earlier supervisor started.
    child: Option<std::process::Child>,
}

/// Bytes after which a log is moved to `.1`; one older file is kept.
const LOG_LIMIT: u64 = 10 << 20;

impl Process {
    /// Starts the program with its output appended to its log.
    pub fn start(spec: &Spec) -> anyhow::Result<Self> {
        let log = open_log(&spec.log)?;
        let child = Command::new(&spec.program)
            .args(&spec.args)
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("share the log")?)
            .stderr(log)
            // A group of its own: a Ctrl-C at the terminal that ran `ctl` is not meant for it.
            .process_group(0)
            .spawn()
            .with_context(|| format!("start {}", spec.program.display()))?;
        let watched = Watched::open(i32::try_from(child.id())?)?;
        if let Some(identity) = identity(watched.pid()) {
            std::fs::write(&spec.pid_file, identity)
                .with_context(|| format!("write {}", spec.pid_file.display()))?;
        }
        Ok(Self { watched, child: Some(child) })
    }

    /// Takes over the process that the pid file names, if it still runs.
    pub fn adopt(pid_file: &Path) -> Option<Self> {
        let recorded = std::fs::read_to_string(pid_file).ok()?;
        let pid: i32 = recorded.split_whitespace().next()?.parse().ok()?;
        // The pidfd first: it pins the process, so that the comparison cannot be overtaken by a reuse of the pid.
        let watched = Watched::open(pid).ok()?;
        (identity(pid)? == recorded).then_some(Self { watched, child: None })
    }

    pub fn pid(&self) -> i32 {
        self.watched.pid()
    }

    /// Waits until it has ended and says how.
    pub async fn ended(&mut self) -> String {
        self.watched.ended().await;
        match self.child.as_mut().map(std::process::Child::wait) {
            Some(Ok(status)) => status.to_string(),
            Some(Err(error)) => format!("lost: {error}"),
            None => "ended".into(),
        }
    }

    /// SIGTERM, then SIGKILL once the patience is over.
    pub async fn stop(&mut self, patience: Duration) -> String {
        self.watched.terminate();
        if let Ok(how) = tokio::time::timeout(patience, self.ended()).await {
            return how;
        }
        self.watched.kill();
        self.ended().await
    }
}

/// `PID START-TIME`, the start time in clock ticks since boot (field 22 of `/proc/PID/stat`); None when it
/// has ended, a zombie included.
fn identity(pid: i32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command name, in parentheses, may itself hold spaces and parentheses.
    let mut fields = stat[stat.rfind(')')? + 1..].split_whitespace();
    let state = fields.next()?;
    let start = fields.nth(18)?;
    (state != "Z").then(|| format!("{pid} {start}"))
}

fn open_log(path: &Path) -> anyhow::Result<File> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    }
    if std::fs::metadata(path).is_ok_and(|m| m.len() > LOG_LIMIT) {
        let _ = std::fs::rename(path, path.with_extension("log.1"));
    }
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("open {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(dir: &Path, args: &[&str]) -> Spec {
        Spec {
            name: "sleeper".into(),
            program: "/bin/sh".into(),
            args: args.iter().map(|a| (*a).to_owned()).collect(),
            log: dir.join("logs/sleeper.log"),
            pid_file: dir.join("sleeper.pid"),
        }
    }

    #[tokio::test]
    async fn a_process_is_adopted_by_its_pid_file_and_stopped() {
        let dir = tempfile::tempdir().unwrap();
        let spec = spec(dir.path(), &["-c", "echo started; exec sleep 600"]);
        let mut started = Process::start(&spec).unwrap();
        let mut adopted = Process::adopt(&spec.pid_file).expect("it runs");
        assert_eq!(adopted.pid(), started.pid());
        adopted.stop(Duration::from_secs(5)).await;
        assert!(started.ended().await.contains("signal: 15"));
        assert!(Process::adopt(&spec.pid_file).is_none(), "an ended process is not adopted");
    }

    #[tokio::test]
    async fn a_process_that_ignores_the_request_to_end_is_killed() {
        let dir = tempfile::tempdir().unwrap();
        let spec = spec(dir.path(), &["-c", "trap '' TERM; echo ready; while :; do sleep 600; done"]);
        let mut process = Process::start(&spec).unwrap();
        while !std::fs::read_to_string(&spec.log).unwrap_or_default().contains("ready") {
            tokio::task::yield_now().await;
        }
        assert!(process.stop(Duration::from_millis(50)).await.contains("signal: 9"));
    }

    #[test]
    fn a_pid_file_of_another_process_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("x.pid");
        std::fs::write(&file, format!("{} 1", std::process::id())).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _guard = runtime.enter();
        assert!(Process::adopt(&file).is_none());
    }
}
