//! A containerd of its own for each test, below a temporary directory, with a network and a small image. It ends
//! and its traces go when it is dropped.

use crate::client::Client;
use crate::cni::{self, Network};
use crate::containerd::{self, Options};
use crate::image::{self, ImageConfig};
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The image that is there from the start: busybox with its applets.
pub const IMAGE: &str = "localhost/busybox:test";
const BUSYBOX: &str = "/bin/busybox";
const APPLETS: [&str; 16] = [
    "cat", "date", "echo", "env", "hostname", "httpd", "id", "ls", "nc", "sh", "sleep", "stty", "test",
    "touch", "true", "wget",
];
const START: Duration = Duration::from_secs(30);

pub struct Containerd {
    pub dir: PathBuf,
    pub options: Options,
    pub bridge: String,
    daemon: Child,
}

/// Why no containerd can run here, where that is so: not root, or programs are missing.
pub fn unavailable() -> Option<String> {
    let root = fs::metadata("/proc/self").is_ok_and(|m| m.uid() == 0);
    if !root {
        return Some("needs root".into());
    }
    let in_path = |name: &str| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).chain(["/usr/sbin".into()]).any(|dir| dir.join(name).is_file())
    };
    let missing = ["containerd", "runc"].into_iter().find(|p| !in_path(p));
    match missing {
        Some(program) => Some(format!("needs {program}")),
        None if !Path::new(BUSYBOX).is_file() => Some(format!("needs {BUSYBOX}")),
        None if !Path::new("/usr/lib/cni/bridge").is_file() => Some("needs the CNI plugins".into()),
        None => None,
    }
}

impl Containerd {
    /// Starts one. `number` (0 to 255) sets its bridge and network apart from those of other tests.
    pub async fn start(name: &str, number: u8) -> crate::Result<Self> {
        let dir = std::env::temp_dir().join(format!("keelson-{name}-{}", std::process::id()));
        let mut options = Options::for_cluster(&dir.join("etc"), &dir.join("lib"), &dir.join("run"));
        options.sandbox_image = IMAGE.into();
        let bridge = format!("kt{number}");
        containerd::install_config(&options)?;
        let network = Network {
            name: bridge.clone(),
            bridge: bridge.clone(),
            pod_cidrs: vec![format!("10.213.{number}.0/24")],
            masquerade: false,
            mtu: 0,
            data_dir: dir.join("lib/cni"),
        };
        cni::install(&options.cni_conf_dir, &network)?;
        let log = fs::File::create(dir.join("containerd.log"))
            .map_err(crate::Error::io("create log in", dir.display()))?;
        let daemon = containerd::spawn_command(&options)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(crate::Error::io("start", "containerd"))?;
        let scratch = Self { dir, options, bridge, daemon };
        containerd::wait_ready(scratch.socket(), START).await?;
        scratch.import_busybox().await?;
        Ok(scratch)
    }

    pub fn socket(&self) -> &Path {
        &self.options.socket
    }

    pub async fn client(&self) -> crate::Result<Client> {
        Client::connect(self.socket()).await
    }

    async fn import_busybox(&self) -> crate::Result<()> {
        let rootfs = self.dir.join("rootfs");
        let make = || -> std::io::Result<()> {
            for dir in ["bin", "etc", "proc", "sys", "dev", "tmp"] {
                fs::create_dir_all(rootfs.join(dir))?;
            }
            fs::copy(BUSYBOX, rootfs.join("bin/busybox"))?;
            for applet in APPLETS {
                symlink("busybox", rootfs.join("bin").join(applet))?;
            }
            fs::write(
                rootfs.join("etc/passwd"),
                "root:x:0:0:root:/:/bin/sh\nuser:x:1000:1000:user:/:/bin/sh\n",
            )?;
            fs::write(rootfs.join("etc/group"), "root:x:0:\nuser:x:1000:\n")
        };
        make().map_err(crate::Error::io("make image in", rootfs.display()))?;
        let config = ImageConfig {
            name: IMAGE.into(),
            cmd: vec!["/bin/sleep".into(), "2147483647".into()],
            env: vec!["PATH=/bin".into()],
            ..Default::default()
        };
        let archive = self.dir.join("busybox.tar");
        image::build(&rootfs, &config, &archive)?;
        image::import(self.socket(), &archive).await.map(drop)
    }
}

impl Containerd {
    /// Processes that were started with our socket's path: nobody else has it.
    fn shims(&self) -> Vec<String> {
        let socket = self.socket().to_string_lossy().into_owned();
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        let ours = processes.filter(|p| {
            let line = fs::read(p.path().join("cmdline")).unwrap_or_default();
            line.split(|b| *b == 0).any(|argument| argument == socket.as_bytes())
        });
        ours.map(|p| p.file_name().to_string_lossy().into_owned()).collect()
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let tasks = self.options.state.join("io.containerd.runtime.v2.task/k8s.io");
        let tasks = fs::read_dir(&tasks).into_iter().flatten().flatten();
        let tasks: Vec<String> =
            tasks.filter_map(|e| fs::read_to_string(e.path().join("init.pid")).ok()).collect();
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
        // Shims outlive containerd, and tasks their shims.
        for pid in self.shims().iter().chain(&tasks) {
            let _ = Command::new("kill").args(["-9", pid.trim()]).stderr(Stdio::null()).status();
        }
        let table = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let mut below: Vec<&str> = table
            .lines()
            .filter_map(|l| l.split(' ').nth(1))
            .filter(|t| Path::new(t).starts_with(&self.dir))
            .collect();
        below.reverse();
        for target in below {
            let _ = Command::new("umount").args(["-l", target]).status();
        }
        let _ = Command::new("ip").args(["link", "del", &self.bridge]).stderr(Stdio::null()).status();
        if std::thread::panicking() {
            eprintln!(
                "containerd's log: {}",
                fs::read_to_string(self.dir.join("containerd.log")).unwrap_or_default()
            );
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}
