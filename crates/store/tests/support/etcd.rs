//! An etcd of one test's own: free ports, a temporary folder, killed with the test.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::DEADLINE;

pub struct EtcdServer {
    process: Child,
    client_port: u16,
    peer_port: u16,
    folder: TempDir,
}

impl EtcdServer {
    /// Starts etcd and waits until it answers. Ports are taken by asking the kernel for free ones;
    /// should another process be faster, others are tried.
    pub async fn start() -> Self {
        for _ in 0..5 {
            let folder = tempfile::tempdir().unwrap();
            let (client_port, peer_port) = free_ports();
            let process = spawn(&folder.path().join("data"), client_port, peer_port);
            let mut server = Self { process, client_port, peer_port, folder };
            if server.answers().await {
                return server;
            }
        }
        panic!("etcd does not start; install Debian's etcd-server");
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.client_port)
    }

    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Starts it again with the same data on the same port.
    pub async fn restart(&mut self) {
        self.process = spawn(&self.data(), self.client_port, self.peer_port);
        assert!(self.answers().await, "etcd does not start again");
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    async fn answers(&mut self) -> bool {
        let end = tokio::time::Instant::now() + DEADLINE;
        while tokio::time::Instant::now() < end {
            if self.process.try_wait().unwrap().is_some() {
                return false;
            }
            let connected = etcd_client::Client::connect([self.endpoint()], None).await;
            if let Ok(client) = connected {
                let status = tokio::time::timeout(std::time::Duration::from_secs(1), async {
                    client.maintenance_client().status().await
                });
                if matches!(status.await, Ok(Ok(status)) if status.leader() != 0) {
                    return true;
                }
            }
            tokio::time::sleep(std::time::Duration::from_millis(30)).await;
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

fn spawn(data: &std::path::Path, client_port: u16, peer_port: u16) -> Child {
    let (client, peer) = (format!("http://127.0.0.1:{client_port}"), format!("http://127.0.0.1:{peer_port}"));
    Command::new("etcd")
        .args(["--data-dir", &data.display().to_string(), "--name", "one", "--logger", "zap"])
        .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("one={peer}"), "--log-level", "error"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("start etcd; install Debian's etcd-server")
}

fn free_ports() -> (u16, u16) {
    let (one, two) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    (one.local_addr().unwrap().port(), two.local_addr().unwrap().port())
}
