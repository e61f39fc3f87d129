//! One stream to a WebSocket client, in plain messages: how browsers read logs.

use crate::Refused;
use crate::error::{Error, Result};
use crate::negotiate::{Upgrade, Wire, negotiate};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use futures::{SinkExt, Stream, StreamExt};
use http::{Request, Response};
use hyper_util::rt::TokioIo;
use std::time::Duration;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, frame::coding::CloseCode};
use tokio_tungstenite::tungstenite::{self, Message};

const WEBSOCKET: &[&str] = &["binary.k8s.io", "base64.binary.k8s.io"];
/// How long the client may take to answer the end.
const FAREWELL: Duration = Duration::from_secs(2);

/// An accepted request; the stream begins when the response is out.
pub struct Pending {
    upgrade: hyper::upgrade::OnUpgrade,
    base64: bool,
}

/// Checks the request and says how to answer it. A client that names no protocol gets binary messages.
pub fn accept<B>(request: &mut Request<B>) -> Result<(Response<()>, Pending), Refused> {
    let Upgrade { wire, response, on } = negotiate(request, WEBSOCKET, &[])?;
    let base64 = matches!(&wire, Wire::WebSocket { protocol } if protocol.starts_with("base64"));
    Ok((response, Pending { upgrade: on, base64 }))
}

impl Pending {
    /// Sends the data as it comes, then closes; ends early when the client does.
    pub async fn send<E>(self, data: impl Stream<Item = Result<Bytes, E>>) -> Result<()> {
        let lost = |source| Error::Http { operation: "upgrade", subject: "output".into(), source };
        let Self { upgrade, base64 } = self;
        let io = TokioIo::new(upgrade.await.map_err(lost)?);
        let mut socket = WebSocketStream::from_raw_socket(io, Role::Server, None).await;
        let mut data = std::pin::pin!(data);
        // An empty message tells the client that the connection stands.
        let broken = |source| Error::WebSocket { operation: "send output", source: Box::new(source) };
        socket.send(message(base64, Bytes::new())).await.map_err(broken)?;
        loop {
            tokio::select! {
                piece = data.next() => match piece {
                    Some(Ok(piece)) => socket.send(message(base64, piece)).await.map_err(broken)?,
                    _ => break,
                },
                // What the client says is not heard; that it goes is.
                message = socket.next() => match message {
                    Some(Ok(message)) if !message.is_close() => {}
                    _ => return Ok(()),
                },
            }
        }
        let close = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        match socket.close(Some(close)).await {
            Err(tungstenite::Error::ConnectionClosed) | Ok(()) => {}
            Err(error) => return Err(broken(error)),
        }
        let _ =
            tokio::time::timeout(FAREWELL, async { while let Some(Ok(_)) = socket.next().await {} }).await;
        Ok(())
    }
}

fn message(base64: bool, data: Bytes) -> Message {
    if base64 { Message::Text(BASE64.encode(data).into()) } else { Message::Binary(data) }
}
