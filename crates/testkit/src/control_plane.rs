//! An API server of its own for each test: temporary folder, own certificates, a free port.

use anyhow::{Context, bail};
use keelson_client::Options;
use keelson_pki::{Ca, ClusterIdentity, LEAF_TTL, Request, Usage, ensure_all};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::net::UnixDatagram;
use tokio::process::{Child, Command};

/// How long a server may take until it serves.
const START: Duration = Duration::from_secs(30);

/// How a control plane is started.
#[derive(Clone, Debug)]
pub struct Builder {
    binary: PathBuf,
    config: Value,
}

/// A running API server. It ends, and its folder goes, when this is dropped; if the test failed, the
/// server's log is printed.
pub struct ControlPlane {
    root: tempfile::TempDir,
    builder: Builder,
    address: SocketAddr,
    server: Child,
}

impl Builder {
    /// The program to start. Tests of the `api-server` crate pass `env!("CARGO_BIN_EXE_keelson-api-server")`.
    pub fn binary(mut self, path: impl Into<PathBuf>) -> Builder {
        self.binary = path.into();
        self
    }

    /// Sets a key of the API server's configuration.
    pub fn config(mut self, key: &str, value: Value) -> Builder {
        self.config[key] = value;
        self
    }

    pub async fn start(self) -> anyhow::Result<ControlPlane> {
        let root = tempfile::Builder::new().prefix("keelson-test-").tempdir()?;
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        ensure_all(&etc(root.path()), &identity(any_port))?;
        let (server, address) = launch(root.path(), &self, any_port).await?;
        // Kubeconfigs name the port, which is known only now.
        ensure_all(&etc(root.path()), &identity(address))?;
        Ok(ControlPlane { root, builder: self, address, server })
    }
}

impl ControlPlane {
    /// The default program: `$KEELSON_API_SERVER`, or `keelson-api-server` beside this program, or above a test's.
    pub fn builder() -> Builder {
        let beside = || {
            let this = std::env::current_exe().unwrap_or_default();
            let mut found = this.ancestors().skip(1).take(2).map(|folder| folder.join("keelson-api-server"));
            found.find(|path| path.is_file()).unwrap_or_else(|| "keelson-api-server".into())
        };
        Builder {
            binary: std::env::var_os("KEELSON_API_SERVER").map_or_else(beside, PathBuf::from),
            config: json!({}),
        }
    }

    /// # Panics
    /// If the server does not come up.
    pub async fn start() -> ControlPlane {
        ControlPlane::builder().start().await.unwrap_or_else(|error| panic!("{error:#}"))
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// The cluster's root, with `etc/keelson` and `var/lib/keelson`.
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// A kubeconfig by its name: `admin`, `scheduler`, `controller-manager`, `node-agent`, `net-proxy`, `dns`.
    pub fn kubeconfig(&self, name: &str) -> PathBuf {
        etc(self.root.path()).join(format!("{name}.kubeconfig"))
    }

    pub fn pki(&self) -> PathBuf {
        etc(self.root.path()).join("pki")
    }

    /// A client with all rights.
    pub async fn admin(&self) -> kube::Client {
        self.client("admin").await
    }

    /// A client that is what a kubeconfig says.
    pub async fn client(&self, name: &str) -> kube::Client {
        // HTTP/1.1, so that a test may open WebSockets with it.
        let options = Options { user_agent: "keelson-testkit".to_owned(), http2: false };
        let client = keelson_client::connect_with(&self.kubeconfig(name), &options).await;
        client.unwrap_or_else(|error| panic!("{error}"))
    }

    /// A client of any user in any groups (two at most).
    pub async fn client_as(&self, user: &str, groups: &[&str]) -> anyhow::Result<kube::Client> {
        let ca = Ca::load(&self.pki().join("ca.crt"), &self.pki().join("ca.key"))?;
        let issued = ca.issue(&Request {
            cn: user.to_owned(),
            orgs: groups.iter().map(|&g| g.to_owned()).collect(),
            sans: Vec::new(),
            usage: Usage::Client,
            ttl: LEAF_TTL,
        })?;
        let dir = tempfile::tempdir_in(self.root.path())?.keep();
        std::fs::write(dir.join("user.crt"), &issued.cert_pem)?;
        std::fs::write(dir.join("user.key"), &issued.key_pem)?;
        let config = json!({
            "clusters": [{ "name": "test", "cluster": {
                "server": self.url(), "certificate-authority": self.pki().join("ca.crt") } }],
            "users": [{ "name": "user", "user": { "client-certificate": "user.crt", "client-key": "user.key" } }],
            "contexts": [{ "name": "test", "context": { "cluster": "test", "user": "user" } }],
            "current-context": "test",
        });
        let path = dir.join("kubeconfig");
        std::fs::write(&path, config.to_string())?;
        let options = Options { user_agent: "keelson-testkit".to_owned(), http2: false };
        Ok(keelson_client::connect_with(&path, &options).await?)
    }

    /// Kills the server with SIGKILL.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        self.server.kill().await.context("kill the API server")
    }

    /// Starts the server again, on its port and with its data, after [`ControlPlane::kill`].
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        let (server, address) = launch(self.root.path(), &self.builder, self.address).await?;
        (self.server, self.address) = (server, address);
        Ok(())
    }

    /// The process id of the server.
    pub fn pid(&self) -> Option<u32> {
        self.server.id()
    }

    /// What the server wrote to its log so far.
    pub fn log(&self) -> String {
        read_log(self.root.path())
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of the API server:\n{}---", self.log());
        }
    }
}

fn etc(root: &Path) -> PathBuf {
    root.join("etc/keelson")
}

fn read_log(root: &Path) -> String {
    std::fs::read_to_string(root.join("api-server.log")).unwrap_or_default()
}

fn identity(address: SocketAddr) -> ClusterIdentity {
    ClusterIdentity {
        name: "test".to_owned(),
        server: format!("https://{address}"),
        node_name: "node-1".to_owned(),
        node_ips: vec![address.ip()],
        service_ip: [10, 96, 0, 1].into(),
        cluster_domain: "cluster.local".to_owned(),
        extra_sans: Vec::new(),
    }
}

/// Starts the program and waits until it says where it serves.
async fn launch(root: &Path, builder: &Builder, address: SocketAddr) -> anyhow::Result<(Child, SocketAddr)> {
    if !builder.binary.is_file() {
        let path = builder.binary.display();
        bail!("no program {path}: run `cargo build -p keelson-api-server`, or set KEELSON_API_SERVER");
    }
    let mut config = builder.config.clone();
    config["bind"] = json!({ "address": address.ip(), "port": address.port() });
    config["dataDir"] = json!(root.join("var/lib/keelson/api-server"));
    config["pkiDir"] = json!(etc(root).join("pki"));
    let path = etc(root).join("api-server.yaml");
    std::fs::write(&path, config.to_string())?;

    let socket = root.join("notify.sock");
    let _ = std::fs::remove_file(&socket);
    let ready = UnixDatagram::bind(&socket)?;
    let log = std::fs::File::options().create(true).append(true).open(root.join("api-server.log"))?;
    let mut server = Command::new(&builder.binary)
        .arg("--config")
        .arg(&path)
        .env("NOTIFY_SOCKET", &socket)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("start {}", builder.binary.display()))?;
    let mut message = [0; 512];
    let address = tokio::select! {
        received = ready.recv(&mut message) => serving_address(&message[..received?]),
        ended = server.wait() => bail!("the API server ended at once, {}:\n{}", ended?, read_log(root)),
        () = tokio::time::sleep(START) => bail!("the API server is not ready after {START:?}:\n{}", read_log(root)),
    };
    let unsaid = || format!("the API server did not say where it serves:\n{}", read_log(root));
    Ok((server, address.with_context(unsaid)?))
}

/// Of a notification as `Daemon::notify_serving` sends it.
fn serving_address(message: &[u8]) -> Option<SocketAddr> {
    let text = std::str::from_utf8(message).ok()?;
    text.lines().find_map(|l| l.strip_prefix("X_KEELSON_ADDRESS="))?.parse().ok()
}
