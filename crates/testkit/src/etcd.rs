//! An etcd of one test's own: free ports, a temporary folder, killed with the test.

use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

/// Longer than an etcd takes to start on a loaded machine.
const START: Duration = Duration::from_secs(60);

pub struct EtcdServer {
    process: Child,
    client: SocketAddr,
    peer: SocketAddr,
    folder: TempDir,
}

impl EtcdServer {
    /// Starts etcd and waits until it answers. Ports are taken by asking the kernel for free ones;
    /// should another process be faster, others are tried.
    ///
    /// # Panics
    /// If it does not come up.
    pub async fn start() -> Self {
        for _ in 0..5 {
            let folder = tempfile::tempdir().expect("make a folder for etcd");
            let (client, peer) = free_addresses();
            let process = spawn(&folder, client, peer);
            let mut server = Self { process, client, peer, folder };
            if server.answers().await {
                return server;
            }
        }
        panic!("etcd does not start; install Debian's etcd-server");
    }

    pub fn address(&self) -> SocketAddr {
        self.client
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.client)
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    pub fn kill(&mut self) {
        self.process.kill().expect("kill etcd");
        self.process.wait().expect("wait for etcd's end");
    }

    /// Starts it again with the same data on the same port.
    ///
    /// # Panics
    /// If it does not come up.
    pub async fn restart(&mut self) {
        self.process = spawn(&self.folder, self.client, self.peer);
        assert!(self.answers().await, "etcd does not start again");
    }

    async fn answers(&mut self) -> bool {
        let end = Instant::now() + START;
        while Instant::now() < end {
            if self.process.try_wait().expect("look at etcd").is_some() {
                return false;
            }
            if matches!(
                tokio::time::timeout(Duration::from_secs(1), healthy(self.client)).await,
                Ok(Ok(true))
            ) {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        false
    }
}

impl Drop for EtcdServer {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// etcd's `/health` is true once it has a leader.
async fn healthy(address: SocketAddr) -> std::io::Result<bool> {
    let mut connection = TcpStream::connect(address).await?;
    connection.write_all(b"GET /health HTTP/1.0\r\n\r\n").await?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await?;
    Ok(answer.contains(r#""health":"true""#))
}

fn spawn(folder: &TempDir, client: SocketAddr, peer: SocketAddr) -> Child {
    let (client, peer) = (format!("http://{client}"), format!("http://{peer}"));
    Command::new("etcd")
        .arg("--data-dir")
        .arg(folder.path().join("data"))
        .args(["--name", "one", "--logger", "zap", "--log-level", "error"])
        .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("one={peer}")])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("start etcd; install Debian's etcd-server")
}

/// Both are held until both are known.
fn free_addresses() -> (SocketAddr, SocketAddr) {
    let bound = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("bind a free port"));
    let [one, two] = bound.map(|listener| listener.local_addr().expect("see the port bound"));
    (one, two)
}
