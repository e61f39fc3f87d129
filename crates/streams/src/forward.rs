//! Port forwarding: the server's side. Every connection is a pair of streams, one for data and one on which an
//! error message may come back.

use crate::error::{Error, Result};
use crate::negotiate::{SPDY_TOKEN, Upgrade, Wire, negotiate};
use crate::spdy::{Connection, Incoming, Role, Stream};
use crate::websocket::{self, Channels, Encoding};
use crate::{BoxRead, BoxWrite, Refused};
use http::{Request, Response};
use hyper_util::rt::TokioIo;
use std::collections::HashMap;
use std::time::Duration;

const PROTOCOL: &str = "portforward.k8s.io";
/// SPDY inside of WebSocket messages, what kubectl asks for first.
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
const WEBSOCKET: &[&str] = &[TUNNEL, "v4.channel.k8s.io", "v4.base64.channel.k8s.io"];

/// How long the second stream of a pair may take.
const PAIR_WITHIN: Duration = Duration::from_secs(30);

/// One forwarded connection.
pub struct Pair {
    pub port: u16,
    pub read: BoxRead,
    pub write: BoxWrite,
    /// A message here tells the client what went wrong with this connection.
    pub error: BoxWrite,
}

/// The connections of one client.
pub struct Forward {
    source: Source,
}

enum Source {
    Spdy { connection: Connection, incoming: Incoming, half: HashMap<String, (Stream, tokio::time::Instant)> },
    WebSocket { channels: Channels, pairs: Vec<Pair> },
}

pub struct Pending {
    upgrade: hyper::upgrade::OnUpgrade,
    wire: Wire,
    ports: Vec<u16>,
}

/// Checks the request and says how to answer it. `ports` are those of the query; only clients of WebSocket
/// channels name them there.
pub fn accept<B>(request: &mut Request<B>, ports: Vec<u16>) -> Result<(Response<()>, Pending), Refused> {
    let Upgrade { wire, response, on } = negotiate(request, WEBSOCKET, &[PROTOCOL])?;
    let by_channels = matches!(&wire, Wire::WebSocket { protocol } if !protocol.starts_with(SPDY_TOKEN));
    if by_channels && ports.is_empty() {
        return Err(Refused::new(http::StatusCode::BAD_REQUEST, "query parameter \"port\" is required"));
    }
    Ok((response, Pending { upgrade: on, wire, ports }))
}

impl Pending {
    pub async fn forward(self) -> Result<Forward> {
        let upgraded = self.upgrade.await.map_err(|source| Error::Http {
            operation: "upgrade",
            subject: "port forwarding".into(),
            source,
        })?;
        let io = TokioIo::new(upgraded);
        let source = match self.wire {
            Wire::Spdy { .. } => spdy(io)?,
            Wire::WebSocket { protocol } if protocol.starts_with(SPDY_TOKEN) => {
                spdy(websocket::tunnel(io).await)?
            }
            Wire::WebSocket { protocol } => {
                let encoding = if protocol.contains("base64") { Encoding::Base64 } else { Encoding::Binary };
                by_channels(io, encoding, &self.ports).await
            }
        };
        Ok(Forward { source })
    }
}

fn spdy(io: impl crate::Io + 'static) -> Result<Source> {
    let (connection, incoming) = Connection::new(io, Role::Server)?;
    Ok(Source::Spdy { connection, incoming, half: HashMap::new() })
}

/// Channels 2n and 2n+1 are data and error of the n-th port; each begins with the port in two bytes.
async fn by_channels(io: impl crate::Io + 'static, encoding: Encoding, ports: &[u16]) -> Source {
    let mut inlets = websocket::Inlets::new();
    let mut reads = Vec::new();
    for n in 0..ports.len().min(64) {
        let (inlet, read) = websocket::inlet();
        inlets.insert(2 * n as u8, inlet);
        reads.push(read);
    }
    let mut channels = Channels::new(io, encoding, inlets).await;
    let mut pairs = Vec::new();
    for (n, read) in reads.into_iter().enumerate() {
        let (data, error) = (2 * n as u8, 2 * n as u8 + 1);
        channels.send(data, &ports[n].to_le_bytes()).await;
        channels.send(error, &ports[n].to_le_bytes()).await;
        let (write, error) = (channels.outlet(data), channels.outlet(error));
        pairs.push(Pair { port: ports[n], read, write, error });
    }
    pairs.reverse();
    Source::WebSocket { channels, pairs }
}

impl Forward {
    /// The next connection; `None` when the client has gone.
    pub async fn next(&mut self) -> Option<Pair> {
        match &mut self.source {
            Source::Spdy { incoming, half, .. } => loop {
                let stream = incoming.recv().await?;
                half.retain(|_, (_, since)| since.elapsed() < PAIR_WITHIN);
                if let Some(pair) = complete(half, stream) {
                    return Some(pair);
                }
            },
            Source::WebSocket { channels, pairs } => match pairs.pop() {
                Some(pair) => Some(pair),
                None => {
                    let _ = channels.closed().wait_for(|gone| *gone).await;
                    None
                }
            },
        }
    }

    /// Closes after the connections' ends were dropped.
    pub async fn finish(self) {
        match self.source {
            // The client is gone: what its streams still hold has nowhere to go.
            Source::Spdy { connection, .. } => drop(connection),
            Source::WebSocket { channels, .. } => channels.finish(None).await,
        }
    }
}

fn complete(half: &mut HashMap<String, (Stream, tokio::time::Instant)>, stream: Stream) -> Option<Pair> {
    let id = match stream.header("requestid") {
        // The oldest clients open one pair per port and do not number them.
        "" => format!("port {}", stream.header("port")),
        id => id.to_owned(),
    };
    let Some((other, _)) = half.remove(&id) else {
        half.insert(id, (stream, tokio::time::Instant::now()));
        return None;
    };
    let (data, error) = if stream.header("streamtype") == "data" { (stream, other) } else { (other, stream) };
    let port = data.header("port").parse().ok()?;
    let (read, write) = tokio::io::split(data);
    Some(Pair { port, read: Box::new(read), write: Box::new(write), error: Box::new(error) })
}
