//! WebSocket messages as channels, and as a plain run of bytes for what is tunnelled.

use crate::{BUFFER, BoxRead, BoxWrite, Io};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{BufMut, Bytes, BytesMut};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use std::collections::HashMap;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, frame::coding::CloseCode};

/// In v5: the channel named in the next byte is at its end.
const CLOSE: u8 = 255;

/// How a message says its channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// First byte of a binary message.
    Binary,
    /// First character of a text message, `0` to `9`; the rest in base64.
    Base64,
}

/// One direction or both of a connection cut into channels.
pub(crate) struct Channels {
    encoding: Encoding,
    messages: mpsc::Sender<Message>,
    pumps: Vec<JoinHandle<()>>,
    reader: JoinHandle<()>,
    writer: JoinHandle<()>,
    closed: watch::Receiver<bool>,
}

/// Where the messages of a channel go.
pub(crate) type Inlets = HashMap<u8, DuplexStream>;

impl Channels {
    pub async fn new(io: impl Io + 'static, encoding: Encoding, inlets: Inlets) -> Self {
        let socket = WebSocketStream::from_raw_socket(io, Role::Server, None).await;
        let (sink, stream) = socket.split();
        let (messages, queue) = mpsc::channel(16);
        let (gone, closed) = watch::channel(false);
        let writer = tokio::spawn(write(sink, queue));
        let reader = tokio::spawn(async move {
            read(stream, encoding, inlets).await;
            let _ = gone.send(true);
        });
        Self { encoding, messages, pumps: Vec::new(), reader, writer, closed }
    }

    /// What is written goes out on the channel.
    pub fn outlet(&mut self, channel: u8) -> BoxWrite {
        let (ours, mut theirs) = tokio::io::duplex(BUFFER);
        let (messages, encoding) = (self.messages.clone(), self.encoding);
        self.pumps.push(tokio::spawn(async move {
            let mut buffer = BytesMut::with_capacity(8 << 10);
            loop {
                buffer.reserve(8 << 10);
                match theirs.read_buf(&mut buffer).await {
                    Ok(n) if n > 0 => {
                        let data = buffer.split();
                        if messages.send(encode(encoding, channel, &data)).await.is_err() {
                            return;
                        }
                    }
                    _ => return,
                }
            }
        }));
        Box::new(ours)
    }

    pub async fn send(&self, channel: u8, data: &[u8]) {
        let _ = self.messages.send(encode(self.encoding, channel, data)).await;
    }

    /// Turns true when the client has gone.
    pub fn closed(&self) -> watch::Receiver<bool> {
        self.closed.clone()
    }

    /// Lets out what was written (the outlets have to be dropped), then `last`, and closes.
    pub async fn finish(mut self, last: Option<(u8, Vec<u8>)>) {
        for pump in self.pumps.drain(..) {
            let _ = pump.await;
        }
        if let Some((channel, data)) = last {
            self.send(channel, &data).await;
        }
        let close = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        let _ = self.messages.send(Message::Close(Some(close))).await;
        let Self { reader, writer, messages, .. } = self;
        drop(messages);
        let _ = tokio::time::timeout(Duration::from_secs(5), writer).await;
        // Reading on until the client closes keeps the kernel from resetting the connection under bytes that
        // it has not read yet.
        let abort = reader.abort_handle();
        if tokio::time::timeout(Duration::from_secs(2), reader).await.is_err() {
            abort.abort();
        }
    }
}

fn encode(encoding: Encoding, channel: u8, data: &[u8]) -> Message {
    match encoding {
        Encoding::Binary => {
            let mut message = BytesMut::with_capacity(data.len() + 1);
            message.put_u8(channel);
            message.put_slice(data);
            Message::Binary(message.freeze())
        }
        Encoding::Base64 => Message::Text(format!("{channel}{}", BASE64.encode(data)).into()),
    }
}

/// Channel and data of a message, where it is well-formed.
fn decode(encoding: Encoding, message: Message) -> Option<(u8, Bytes)> {
    let bytes: Bytes = match message {
        Message::Binary(bytes) => bytes,
        Message::Text(text) => text.into(),
        _ => return None,
    };
    let channel = *bytes.first()?;
    match encoding {
        Encoding::Binary => Some((channel, bytes.slice(1..))),
        Encoding::Base64 => Some((channel.checked_sub(b'0')?, BASE64.decode(&bytes[1..]).ok()?.into())),
    }
}

async fn read<S: Io>(mut stream: SplitStream<WebSocketStream<S>>, encoding: Encoding, mut inlets: Inlets) {
    while let Some(Ok(message)) = stream.next().await {
        if matches!(message, Message::Close(_)) {
            // The next poll lets the closing answer out.
            continue;
        }
        let Some((channel, data)) = decode(encoding, message) else { continue };
        if channel == CLOSE {
            if let Some(closed) = data.first() {
                inlets.remove(closed);
            }
        } else if let Some(inlet) = inlets.get_mut(&channel)
            && inlet.write_all(&data).await.is_err()
        {
            inlets.remove(&channel);
        }
    }
}

async fn write<S: Io>(mut sink: SplitSink<WebSocketStream<S>, Message>, mut queue: mpsc::Receiver<Message>) {
    while let Some(message) = queue.recv().await {
        let last = matches!(message, Message::Close(_));
        if sink.send(message).await.is_err() || last {
            break;
        }
    }
}

/// A channel that is read: where its messages go, and what the session reads.
pub(crate) fn inlet() -> (DuplexStream, BoxRead) {
    let (theirs, ours) = tokio::io::duplex(BUFFER);
    (theirs, Box::new(ours))
}

/// Binary messages as one run of bytes in each direction.
pub(crate) async fn tunnel(io: impl Io + 'static) -> DuplexStream {
    let socket = WebSocketStream::from_raw_socket(io, Role::Server, None).await;
    let (mut sink, mut stream) = socket.split();
    let (ours, theirs) = tokio::io::duplex(BUFFER);
    let (mut outgoing, mut incoming) = tokio::io::split(theirs);
    tokio::spawn(async move {
        while let Some(Ok(message)) = stream.next().await {
            if let Message::Binary(data) = message
                && incoming.write_all(&data).await.is_err()
            {
                break;
            }
        }
        let _ = incoming.shutdown().await;
    });
    tokio::spawn(async move {
        let mut buffer = BytesMut::with_capacity(8 << 10);
        loop {
            buffer.reserve(8 << 10);
            match outgoing.read_buf(&mut buffer).await {
                Ok(n) if n > 0 => {
                    if sink.send(Message::Binary(buffer.split().freeze())).await.is_err() {
                        return;
                    }
                }
                _ => break,
            }
        }
        let close = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        let _ = sink.send(Message::Close(Some(close))).await;
    });
    ours
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_encodings_carry_channel_and_bytes() {
        for encoding in [Encoding::Binary, Encoding::Base64] {
            let message = encode(encoding, 2, b"\x00\xffabc");
            assert_eq!(decode(encoding, message), Some((2, Bytes::from_static(b"\x00\xffabc"))));
        }
    }
}
