//! Exec and attach: the server's side of a remote command.
//!
//! Versions: v1 had no framing of the outcome, v3 brought the terminal's size, v4 the `Status` object on the
//! error channel, v5 the half-close of a channel.

use crate::error::{Error, Result};
use crate::negotiate::{Upgrade, Wire, negotiate};
use crate::spdy::{Connection, Role, Stream};
use crate::websocket::{self, Channels, Encoding};
use crate::{BoxRead, BoxWrite, Refused};
use http::{Request, Response};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, watch};

const WEBSOCKET: &[&str] = &[
    "v5.channel.k8s.io",
    "v4.channel.k8s.io",
    "v3.channel.k8s.io",
    "v2.channel.k8s.io",
    "channel.k8s.io",
    "v4.base64.channel.k8s.io",
    "base64.channel.k8s.io",
];
const SPDY: &[&str] = &["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"];

/// How long a SPDY client may take to open its streams.
const STREAMS_WITHIN: Duration = Duration::from_secs(30);

/// What may begin a terminal's size and go on for long is none.
const LONGEST_SIZE: usize = 1 << 10;

mod channel {
    pub const STDIN: u8 = 0;
    pub const STDOUT: u8 = 1;
    pub const STDERR: u8 = 2;
    pub const ERROR: u8 = 3;
    pub const RESIZE: u8 = 4;
}

/// Which streams the caller wants.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
}

impl Options {
    /// A terminal has one output; at least one stream has to be asked for.
    pub fn checked(mut self) -> Result<Self, Refused> {
        if self.tty {
            self.stderr = false;
        }
        if !(self.stdin || self.stdout || self.stderr) {
            let message = "you must specify at least 1 of stdin, stdout, stderr";
            return Err(Refused::new(http::StatusCode::BAD_REQUEST, message));
        }
        Ok(self)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct TerminalSize {
    pub width: u16,
    pub height: u16,
}

/// The streams of one remote command as its server sees them.
pub struct Session {
    pub stdin: Option<BoxRead>,
    pub stdout: Option<BoxWrite>,
    pub stderr: Option<BoxWrite>,
    pub resize: mpsc::Receiver<TerminalSize>,
    pub control: Control,
}

/// The end of a session: the client's going, or the outcome.
pub struct Control {
    wire: Ending,
    /// From v4 on the outcome is a `Status`; before, a message where something failed.
    structured: bool,
    closed: watch::Receiver<bool>,
}

enum Ending {
    WebSocket(Channels),
    Spdy { connection: Connection, error: Stream },
}

/// An accepted request; the session begins when the response is out.
pub struct Pending {
    upgrade: hyper::upgrade::OnUpgrade,
    wire: Wire,
    options: Options,
}

/// Checks the request and says how to answer it. The response has to be sent before the session is awaited.
pub fn accept<B>(request: &mut Request<B>, options: Options) -> Result<(Response<()>, Pending), Refused> {
    let options = options.checked()?;
    let Upgrade { wire, response, on } = negotiate(request, WEBSOCKET, SPDY)?;
    Ok((response, Pending { upgrade: on, wire, options }))
}

impl Pending {
    pub async fn session(self) -> Result<Session> {
        let upgraded = self.upgrade.await.map_err(|source| Error::Http {
            operation: "upgrade",
            subject: "remote command".into(),
            source,
        })?;
        let io = TokioIo::new(upgraded);
        match self.wire {
            Wire::WebSocket { protocol } => Ok(over_websocket(io, &protocol, self.options).await),
            Wire::Spdy { protocol } => over_spdy(io, &protocol, self.options).await,
        }
    }
}

fn is_structured(protocol: &str) -> bool {
    protocol.starts_with("v4.") || protocol.starts_with("v5.")
}

async fn over_websocket(io: impl crate::Io + 'static, protocol: &str, options: Options) -> Session {
    let encoding = if protocol.contains("base64") { Encoding::Base64 } else { Encoding::Binary };
    let mut inlets = websocket::Inlets::new();
    let stdin = options.stdin.then(|| {
        let (inlet, read) = websocket::inlet();
        inlets.insert(channel::STDIN, inlet);
        read
    });
    let (inlet, sizes) = websocket::inlet();
    inlets.insert(channel::RESIZE, inlet);
    let mut channels = Channels::new(io, encoding, inlets).await;
    let stdout = options.stdout.then(|| channels.outlet(channel::STDOUT));
    let stderr = options.stderr.then(|| channels.outlet(channel::STDERR));
    // An empty message tells older clients that the connection stands.
    let first = match options {
        Options { stdout: true, .. } => channel::STDOUT,
        Options { stderr: true, .. } => channel::STDERR,
        _ => channel::ERROR,
    };
    channels.send(first, &[]).await;
    let closed = channels.closed();
    let control = Control { wire: Ending::WebSocket(channels), structured: is_structured(protocol), closed };
    Session { stdin, stdout, stderr, resize: resizes(sizes), control }
}

async fn over_spdy(io: impl crate::Io + 'static, protocol: &str, options: Options) -> Result<Session> {
    let (connection, mut incoming) = Connection::new(io, Role::Server)?;
    let resizable = options.tty && (is_structured(protocol) || protocol.starts_with("v3."));
    let want =
        1 + [options.stdin, options.stdout, options.stderr, resizable].into_iter().filter(|s| *s).count();
    let mut streams = Vec::new();
    let collect = async {
        while streams.len() < want {
            let Some(stream) = incoming.recv().await else { break };
            streams.push(stream);
        }
    };
    let _ = tokio::time::timeout(STREAMS_WITHIN, collect).await;
    if streams.len() < want {
        return Err(Error::StreamsMissing { got: streams.len(), want });
    }
    let mut take = |kind: &str| {
        let at = streams.iter().position(|s| s.header("streamtype").eq_ignore_ascii_case(kind))?;
        Some(streams.swap_remove(at))
    };
    let error = take("error").ok_or(Error::Protocol("no error stream"))?;
    let stdin = take("stdin").filter(|_| options.stdin).map(|s| Box::new(s) as BoxRead);
    let stdout = take("stdout").filter(|_| options.stdout).map(|s| Box::new(s) as BoxWrite);
    let stderr = take("stderr").filter(|_| options.stderr).map(|s| Box::new(s) as BoxWrite);
    let resize = match take("resize") {
        Some(stream) => resizes(stream),
        None => mpsc::channel(1).1,
    };
    let (gone, closed) = watch::channel(false);
    tokio::spawn(async move {
        // No further streams are expected: the queue ends when the connection does.
        while incoming.recv().await.is_some() {}
        let _ = gone.send(true);
    });
    let control =
        Control { wire: Ending::Spdy { connection, error }, structured: is_structured(protocol), closed };
    Ok(Session { stdin, stdout, stderr, resize, control })
}

/// JSON objects one after another, as they arrive.
fn resizes(mut read: impl AsyncRead + Send + Unpin + 'static) -> mpsc::Receiver<TerminalSize> {
    let (sizes, receiver) = mpsc::channel(4);
    tokio::spawn(async move {
        let mut pending = Vec::new();
        while let Ok(n) = read.read_buf(&mut pending).await {
            if n == 0 {
                return;
            }
            let mut objects = serde_json::Deserializer::from_slice(&pending).into_iter::<TerminalSize>();
            let mut used = 0;
            let mut found = Vec::new();
            loop {
                match objects.next() {
                    Some(Ok(size)) => {
                        found.push(size);
                        used = objects.byte_offset();
                    }
                    Some(Err(e)) if e.is_eof() => break,
                    // What is not a size is dropped with everything that arrived with it.
                    Some(Err(_)) => {
                        used = pending.len();
                        break;
                    }
                    None => break,
                }
            }
            pending.drain(..used);
            if pending.len() > LONGEST_SIZE {
                pending.clear();
            }
            for size in found {
                if sizes.send(size).await.is_err() {
                    return;
                }
            }
        }
    });
    receiver
}

impl Control {
    /// Returns when the client has gone.
    pub async fn closed(&mut self) {
        let _ = self.closed.wait_for(|gone| *gone).await;
    }

    /// Reports the outcome (a `Status` object) and closes. The session's writers have to be dropped before.
    pub async fn finish(self, status: &Value) {
        let text = if self.structured {
            status.to_string().into_bytes()
        } else if status["status"] == "Success" {
            Vec::new()
        } else {
            status["message"].as_str().unwrap_or_default().as_bytes().to_vec()
        };
        match self.wire {
            Ending::WebSocket(channels) => {
                let last = (!text.is_empty()).then_some((channel::ERROR, text));
                channels.finish(last).await;
            }
            Ending::Spdy { connection, mut error } => {
                let _ = error.write_all(&text).await;
                drop(error);
                connection.close().await;
            }
        }
    }
}

/// `Status` objects of remote commands.
pub mod status {
    use serde_json::{Value, json};

    pub fn success() -> Value {
        json!({ "metadata": {}, "status": "Success" })
    }

    /// The command ended with another code than 0.
    pub fn exit_code(code: i32) -> Value {
        json!({
            "metadata": {},
            "status": "Failure",
            "message": format!("command terminated with non-zero exit code: exit status {code}"),
            "reason": "NonZeroExitCode",
            "details": { "causes": [{ "reason": "ExitCode", "message": code.to_string() }] },
        })
    }

    pub fn internal(message: &str) -> Value {
        json!({
            "metadata": {},
            "status": "Failure",
            "message": format!("Internal error occurred: {message}"),
            "reason": "InternalError",
            "details": { "causes": [{ "message": message }] },
            "code": 500,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_begins_like_a_size_and_does_not_end_is_let_go() {
        let (mut client, server) = tokio::io::duplex(64);
        let mut sizes = resizes(server);
        let endless = [br#"{"Width":"#.as_slice(), &[b' '; LONGEST_SIZE * 3 / 2]].concat();
        client.write_all(&endless).await.expect("heard");
        client.write_all(br#"{"Width":80,"Height":24}"#).await.expect("heard");
        assert_eq!(sizes.recv().await, Some(TerminalSize { width: 80, height: 24 }));
    }
}
