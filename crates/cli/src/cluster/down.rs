//! `ctl cluster down`.
//!
//! Each step is carried out whatever became of the others: what is left of a cluster whose processes were
//! killed is removed all the same. Nothing is touched that this cluster did not make: processes are known by
//! their pid files, pods by the runtime's socket, mounts by lying below the root, interfaces and tables by name.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};
use keelson_cri::v1::PodSandboxFilter;
use keelson_cri::{Runtime, containerd};

use super::components::{CONTAINERD, find_program};
use super::keeper::Keeper;
use super::layout::Layout;
use super::progress::step;
use super::settings::Settings;
use super::up::runtime_options;

pub async fn down(layout: &Layout, purge: bool) -> anyhow::Result<()> {
    super::require_root()?;
    let settings = Settings::load(layout)?;
    let mut failures = Vec::new();
    let mut note = |result: anyhow::Result<()>| {
        if let Err(error) = result {
            failures.push(format!("{error:#}"));
        }
    };
    let keeper = Keeper::of(layout, &settings)?;
    note(step("Daemons", keeper.stop_daemons()).await);
    if settings.runtime_endpoint.is_none() && layout.containerd_config().exists() {
        note(step("Pods and container runtime", stop_runtime(layout, &keeper)).await);
        end_shims(&layout.containerd_socket());
    }
    note(keeper.remove().await);
    note(step("Network", async { remove_network(&settings) }).await);
    note(step("Mounts", async { unmount_below(&[&layout.run_dir(), &layout.state_dir()]) }).await);
    if purge {
        note(step("Data", async { remove_data(layout) }).await);
    }
    if failures.is_empty() {
        return Ok(());
    }
    bail!("not everything could be removed:\n  {}", failures.join("\n  "))
}

/// Removes every pod through the runtime, which is started once more if it does not run: it alone knows how to
/// undo what it did (network namespaces, mounts, address leases).
async fn stop_runtime(layout: &Layout, keeper: &Keeper) -> anyhow::Result<()> {
    if keeper.runs_containerd().await {
        let removed = remove_pods(&layout.containerd_socket()).await;
        return removed.and(keeper.stop_containerd().await);
    }
    let log = std::fs::File::options().create(true).append(true).open(layout.log_file(CONTAINERD));
    let mut command = containerd::spawn_command(&runtime_options(layout));
    if let Ok(log) = log {
        command.stdout(log.try_clone()?).stderr(log);
    }
    let mut child = command.spawn().context("start containerd to remove its pods")?;
    let removed = remove_pods(&layout.containerd_socket()).await;
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id())?);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).context("stop containerd")?;
    child.wait().context("wait for containerd")?;
    removed
}

async fn remove_pods(socket: &Path) -> anyhow::Result<()> {
    let runtime =
        containerd::wait_ready(socket, Duration::from_secs(20)).await.context("reach containerd")?;
    let sandboxes = runtime.list_pod_sandboxes(PodSandboxFilter::default()).await.context("list the pods")?;
    let runtime = &runtime;
    let removals = sandboxes.iter().map(|sandbox| async move {
        runtime.stop_pod_sandbox(&sandbox.id).await?;
        runtime.remove_pod_sandbox(&sandbox.id).await
    });
    let failed: Vec<String> = futures::future::join_all(removals)
        .await
        .into_iter()
        .filter_map(|removed| removed.err().map(|error| format!("{:#}", anyhow::Error::from(error))))
        .collect();
    if failed.is_empty() { Ok(()) } else { bail!("remove pods: {}", failed.join("; ")) }
}

/// Ends what containerd has lost sight of, now that it is gone itself: shims that name its socket, and what runs in them.
fn end_shims(socket: &Path) {
    let kill = |pid: i32| {
        // It may have ended meanwhile.
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
    };
    let pids = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    for pid in pids
        .filter(|pid| is_shim_of(&std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default(), socket))
    {
        let children =
            std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        children.split_whitespace().filter_map(|child| child.parse().ok()).for_each(kill);
        kill(pid);
    }
}

/// Whether a command line is that of a shim of the containerd at this socket.
fn is_shim_of(command: &[u8], socket: &Path) -> bool {
    let words: Vec<&[u8]> = command.split(|byte| *byte == 0).collect();
    let name = words[0].rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    name.starts_with(b"containerd-shim")
        && words.windows(2).any(|pair| pair == [b"-address".as_slice(), socket.as_os_str().as_bytes()])
}

fn remove_network(settings: &Settings) -> anyhow::Result<()> {
    let remove = |program: &str, args: &[&str]| -> anyhow::Result<()> {
        let Some(path) = find_program(program) else { return Ok(()) };
        let output = Command::new(path).args(args).output().with_context(|| format!("run {program}"))?;
        let message = String::from_utf8_lossy(&output.stderr);
        // Not there is what is wanted.
        if output.status.success()
            || message.contains("No such file")
            || message.contains("Cannot find device")
        {
            return Ok(());
        }
        bail!("{program} {}: {}", args.join(" "), message.trim())
    };
    let table = remove("nft", &["delete", "table", "ip", &settings.nft_table()]);
    let bridge = remove("ip", &["link", "delete", &settings.bridge()]);
    table.and(bridge)
}

/// Unmounts what lies below these folders, the innermost first.
fn unmount_below(folders: &[&Path]) -> anyhow::Result<()> {
    let table = std::fs::read_to_string("/proc/self/mounts").context("read the mount table")?;
    let mut failed = Vec::new();
    for point in table.lines().rev().filter_map(|line| line.split(' ').nth(1)) {
        // The kernel escapes blanks and backslashes in octal.
        let point = point.replace("\\040", " ").replace("\\134", "\\");
        let path = Path::new(&point);
        if folders.iter().any(|folder| path.starts_with(folder) && path != *folder)
            && let Err(error) = nix::mount::umount2(path, nix::mount::MntFlags::MNT_DETACH)
        {
            failed.push(format!("{point}: {error}"));
        }
    }
    if failed.is_empty() { Ok(()) } else { bail!("unmount {}", failed.join("; ")) }
}

fn remove_data(layout: &Layout) -> anyhow::Result<()> {
    for dir in [layout.run_dir(), layout.state_dir(), layout.config_dir()] {
        match std::fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("remove {}", dir.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_shims_of_the_clusters_own_containerd_are_ended() {
        let ours = Path::new("/a/run/containerd.sock");
        for (command, want) in [
            (
                "/usr/bin/containerd-shim-runc-v2\0-namespace\0k8s.io\0-id\0x\0-address\0/a/run/containerd.sock\0",
                true,
            ),
            ("/usr/bin/containerd-shim-runc-v2\0-id\0x\0-address\0/run/containerd.sock\0", false),
            ("ctr\0-address\0/a/run/containerd.sock\0", false),
            ("", false),
        ] {
            assert_eq!(is_shim_of(command.as_bytes(), ours), want, "{command:?}");
        }
    }
}
