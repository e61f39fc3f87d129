//! The supervisor's control socket: one JSON request a line, one JSON answer a line.
//!
//! Whoever can open the socket (mode 0600, so root) may command; there is no other authentication.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

/// What the supervisor can be asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Request {
    /// The state of every component.
    Status,
    /// Stop these components and keep them stopped; answered when they have ended.
    Stop(Vec<String>),
    /// Restart one component, for a changed configuration.
    Restart(Vec<String>),
    /// Leave, without touching what still runs.
    Exit,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Answer {
    Components(Vec<ComponentState>),
    Done,
    Failed(String),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ComponentState {
    pub name: String,
    /// None while it is stopped or waits for its next start.
    pub pid: Option<i32>,
    pub restarts: u32,
    /// How the last run ended, where one did.
    pub last_exit: Option<String>,
}

/// Sends one request; `Ok(None)` when no supervisor listens.
pub async fn ask(socket: &Path, request: &Request) -> anyhow::Result<Option<Answer>> {
    let stream = match UnixStream::connect(socket).await {
        Ok(stream) => stream,
        Err(error)
            if matches!(
                error.kind(),
                std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused
            ) =>
        {
            return Ok(None);
        }
        Err(error) => {
            return Err(error).with_context(|| format!("connect to the supervisor at {}", socket.display()));
        }
    };
    let (read, mut write) = stream.into_split();
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    write.write_all(&line).await.context("ask the supervisor")?;
    let mut answer = String::new();
    let mut reader = BufReader::new(read);
    let read = reader.read_line(&mut answer);
    // Longer than the longest patience that the supervisor has with a component that does not end.
    tokio::time::timeout(Duration::from_secs(60), read).await.context("wait for the supervisor")??;
    if answer.is_empty() {
        bail!("the supervisor closed the connection without an answer");
    }
    Ok(Some(serde_json::from_str(&answer).context("read the supervisor's answer")?))
}
