//! The client's side, over SPDY: what a container runtime's streaming server speaks. And the bridge from a
//! session of ours to such a server.

use crate::error::{Error, Result};
use crate::negotiate::{SPDY_TOKEN, STREAM_PROTOCOL};
use crate::remote::{Options, Session, TerminalSize, status};
use crate::spdy::{Connection, Headers, Incoming, Role, Stream};
use bytes::Bytes;
use http::header::{CONNECTION, HOST, UPGRADE};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const REMOTE: &str = "v4.channel.k8s.io";
const FORWARD: &str = "portforward.k8s.io";

/// Upgrades a request to `url` (plain HTTP: runtimes serve on loopback) to SPDY.
pub async fn connect(url: &str, protocol: &'static str) -> Result<(Connection, Incoming)> {
    let uri: Uri = url.parse().map_err(|_| Error::Url(url.to_owned()))?;
    let host = uri.authority().filter(|_| uri.scheme_str() == Some("http"));
    let host = host.ok_or_else(|| Error::Url(url.to_owned()))?.to_string();
    let lost = |operation, subject: &str| {
        let subject = subject.to_owned();
        move |source| Error::Http { operation, subject, source }
    };
    let tcp = TcpStream::connect(&host).await.map_err(|source| Error::Io {
        operation: "connect to",
        subject: host.clone(),
        source,
    })?;
    let _ = tcp.set_nodelay(true);
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(tcp)).await.map_err(lost("connect to", &host))?;
    tokio::spawn(connection.with_upgrades());
    let path = uri.path_and_query().map_or("/", |p| p.as_str());
    let request = Request::post(path)
        .header(HOST, &host)
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, SPDY_TOKEN)
        .header(STREAM_PROTOCOL, protocol)
        .body(Empty::<Bytes>::new())
        .map_err(|_| Error::Url(url.to_owned()))?;
    let response = sender.send_request(request).await.map_err(lost("ask for streams", &host))?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let status = response.status();
        let body = response.into_body().collect().await.map(|b| b.to_bytes()).unwrap_or_default();
        let body = String::from_utf8_lossy(&body).trim().to_owned();
        return Err(Error::NotUpgraded { subject: host, status, body });
    }
    let upgraded = hyper::upgrade::on(response).await.map_err(lost("upgrade", &host))?;
    Connection::new(TokioIo::new(upgraded), Role::Client)
}

/// The streams of a remote command as its client sees them.
pub struct Remote {
    pub connection: Connection,
    pub stdin: Option<Stream>,
    pub stdout: Option<Stream>,
    pub stderr: Option<Stream>,
    pub resize: Option<Stream>,
    /// Carries the `Status` at the end.
    pub error: Stream,
}

pub async fn remote(url: &str, options: Options) -> Result<Remote> {
    let (connection, _) = connect(url, REMOTE).await?;
    let open = async |kind: &str, wanted: bool| -> Result<Option<Stream>> {
        if !wanted {
            return Ok(None);
        }
        connection.open(Headers::from([("streamtype".to_owned(), kind.to_owned())])).await.map(Some)
    };
    let error = open("error", true).await?.ok_or(Error::Protocol("no error stream"))?;
    let stdin = open("stdin", options.stdin).await?;
    let stdout = open("stdout", options.stdout).await?;
    let stderr = open("stderr", options.stderr && !options.tty).await?;
    let resize = open("resize", options.tty).await?;
    Ok(Remote { stdin, stdout, stderr, resize, error, connection })
}

/// Forwards connections to ports of one sandbox.
pub struct Forwarder {
    connection: Connection,
    next: u64,
}

impl Forwarder {
    pub async fn connect(url: &str) -> Result<Self> {
        let (connection, _) = connect(url, FORWARD).await?;
        Ok(Self { connection, next: 0 })
    }

    /// A connection to the port: its data, and the stream that says what went wrong.
    pub async fn open(&mut self, port: u16) -> Result<(Stream, Stream)> {
        let id = self.next;
        self.next += 1;
        let headers = |kind: &str| {
            Headers::from([
                ("streamtype".to_owned(), kind.to_owned()),
                ("port".to_owned(), port.to_string()),
                ("requestid".to_owned(), id.to_string()),
            ])
        };
        let mut error = self.connection.open(headers("error")).await?;
        // Nothing is ever sent there by the client.
        let _ = error.shutdown().await;
        let data = self.connection.open(headers("data")).await?;
        Ok((data, error))
    }
}

/// Joins a session with a command that waits on a runtime's streaming server, until one of them ends.
pub async fn bridge(session: Session, url: &str, options: Options) {
    let Session { stdin, stdout, stderr, mut resize, mut control } = session;
    let remote = match remote(url, options).await {
        Ok(remote) => remote,
        Err(error) => {
            drop((stdin, stdout, stderr));
            control.finish(&status::internal(&error.to_string())).await;
            return;
        }
    };
    let Remote { connection, stdin: to, stdout: out, stderr: err, resize: sizes, mut error } = remote;
    let input = tokio::spawn(async move {
        if let (Some(mut from), Some(mut to)) = (stdin, to) {
            let _ = tokio::io::copy(&mut from, &mut to).await;
            let _ = to.shutdown().await;
            // Held open until the command ends: dropping it would close the direction that is still read.
            std::future::pending::<()>().await;
        }
    });
    let terminal = tokio::spawn(async move {
        let Some(mut sizes) = sizes else { return };
        while let Some(size) = resize.recv().await {
            let TerminalSize { width, height } = size;
            let text = format!("{{\"Width\":{width},\"Height\":{height}}}\n");
            if sizes.write_all(text.as_bytes()).await.is_err() {
                return;
            }
        }
        std::future::pending::<()>().await;
    });
    let outputs = async {
        let copy = async |from: Option<Stream>, to: Option<crate::BoxWrite>| {
            if let (Some(mut from), Some(mut to)) = (from, to) {
                let _ = tokio::io::copy(&mut from, &mut to).await;
                let _ = to.shutdown().await;
            }
        };
        let outcome = async {
            let mut text = Vec::new();
            let _ = error.read_to_end(&mut text).await;
            text
        };
        let ((), (), text) = tokio::join!(copy(out, stdout), copy(err, stderr), outcome);
        text
    };
    let outcome = tokio::select! {
        text = outputs => Some(text),
        () = control.closed() => None,
    };
    input.abort();
    terminal.abort();
    drop(connection);
    if let Some(text) = outcome {
        let status: Value = serde_json::from_slice(&text).unwrap_or_else(|_| {
            match text.is_empty() {
                // Success is told like any other outcome.
                true => status::internal("the runtime broke the stream off"),
                false => status::internal(&String::from_utf8_lossy(&text)),
            }
        });
        control.finish(&status).await;
    }
}
