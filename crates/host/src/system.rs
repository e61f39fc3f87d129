//! Facts about this machine: memory, processors, kernel, identity, capabilities, file-system space.

use crate::error::{Context, Error, Result};
use std::collections::BTreeMap;
use std::net::{IpAddr, UdpSocket};
use std::path::Path;

/// Number of `CAP_SYS_RESOURCE` in the kernel's bit sets.
pub const CAP_SYS_RESOURCE: u32 = 24;

/// What the Node object says in `status.nodeInfo`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    pub machine_id: String,
    pub system_uuid: String,
    pub boot_id: String,
    pub kernel: String,
    pub os_image: String,
    /// In Go's words: amd64, arm64.
    pub architecture: String,
}

/// Space and inodes of a file system.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Space {
    pub total_bytes: u64,
    pub available_bytes: u64,
    pub used_bytes: u64,
    pub inodes: u64,
    pub inodes_free: u64,
}

pub fn identity() -> Identity {
    let first = |files: &[&str]| {
        files
            .iter()
            .filter_map(|f| std::fs::read_to_string(f).ok())
            .map(|t| t.trim().to_owned())
            .find(|t| !t.is_empty())
            .unwrap_or_default()
    };
    let kernel = nix::sys::utsname::uname().map(|u| u.release().to_string_lossy().into_owned());
    Identity {
        machine_id: first(&["/etc/machine-id", "/var/lib/dbus/machine-id"]),
        system_uuid: first(&["/sys/class/dmi/id/product_uuid", "/etc/machine-id"]),
        boot_id: first(&["/proc/sys/kernel/random/boot_id"]),
        kernel: kernel.unwrap_or_default(),
        os_image: os_image(&std::fs::read_to_string("/etc/os-release").unwrap_or_default()),
        architecture: architecture().to_owned(),
    }
}

/// The processor architecture by the name that images and node labels use.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    }
}

fn os_image(os_release: &str) -> String {
    let value = |key: &str| {
        os_release
            .lines()
            .find_map(|l| l.strip_prefix(key)?.strip_prefix('='))
            .map(|v| v.trim_matches('"').to_owned())
    };
    value("PRETTY_NAME").or_else(|| value("NAME")).unwrap_or_else(|| "Linux".to_owned())
}

/// `/proc/meminfo` in bytes.
pub fn meminfo() -> Result<BTreeMap<String, u64>> {
    let text = std::fs::read_to_string("/proc/meminfo").context("read", "/proc/meminfo")?;
    Ok(text
        .lines()
        .filter_map(|l| {
            let (key, rest) = l.split_once(':')?;
            let kib: u64 = rest.split_whitespace().next()?.parse().ok()?;
            Some((key.to_owned(), kib * 1024))
        })
        .collect())
}

/// Processors on which this machine may schedule.
pub fn cpus() -> u64 {
    std::thread::available_parallelism().map(|n| n.get() as u64).unwrap_or(1)
}

pub fn hostname() -> Result<String> {
    nix::unistd::gethostname().map(|h| h.to_string_lossy().to_lowercase()).context("read", "hostname")
}

/// Whether this process holds a capability in its effective set.
pub fn has_capability(number: u32) -> Result<bool> {
    let status = std::fs::read_to_string("/proc/self/status").context("read", "/proc/self/status")?;
    let set = status.lines().find_map(|l| l.strip_prefix("CapEff:")).map(str::trim);
    let bits = set
        .and_then(|s| u64::from_str_radix(s, 16).ok())
        .ok_or_else(|| Error::new("parse", "/proc/self/status", std::io::Error::other("no CapEff line")))?;
    Ok(bits & (1 << number) != 0)
}

pub fn space(path: &Path) -> Result<Space> {
    let s = nix::sys::statvfs::statvfs(path).context("read file-system space of", path.display())?;
    let block = s.fragment_size();
    Ok(Space {
        total_bytes: s.blocks() * block,
        available_bytes: s.blocks_available() * block,
        used_bytes: (s.blocks() - s.blocks_free()) * block,
        inodes: s.files(),
        inodes_free: s.files_free(),
    })
}

/// The address from which this machine would reach others: the source of its default route, else
/// loopback. No packet is sent.
pub fn primary_address() -> IpAddr {
    let probe = || {
        let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
        socket.connect("192.0.2.1:9").ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    probe().filter(|a| !a.is_unspecified()).unwrap_or(IpAddr::from([127, 0, 0, 1]))
}

/// The number of processes and the greatest process id: what bounds pods' tasks.
pub fn pid_max() -> u64 {
    let read = std::fs::read_to_string("/proc/sys/kernel/pid_max").ok();
    read.and_then(|t| t.trim().parse().ok()).unwrap_or(32_768)
}

/// Changes owner group of a path without following a final symlink.
pub fn chown(path: &Path, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
    std::os::unix::fs::lchown(path, uid, gid).context("change owner of", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pretty_name_of_the_distribution_is_its_image() {
        assert_eq!(os_image("NAME=\"Debian\"\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n"), "Debian GNU/Linux 12");
        assert_eq!(os_image(""), "Linux");
    }

    #[test]
    fn memory_and_processors_of_this_machine_are_known() {
        assert!(meminfo().expect("Linux")["MemTotal"] > 1 << 20);
        assert!(cpus() > 0);
        assert!(space(Path::new("/")).expect("a root").total_bytes > 0);
    }
}
