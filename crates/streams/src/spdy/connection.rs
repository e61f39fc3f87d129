//! Streams over one connection. One task reads frames and one writes them; every stream has a buffer per
//! direction, and whoever fills one waits.

use super::frame::{Decoder, Encoder, Frame, Headers};
use crate::{BUFFER, Error, Io, Result};
use bytes::{Bytes, BytesMut};
use std::collections::HashMap;
use std::io::ErrorKind::BrokenPipe;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use tokio::io::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, ReadHalf, WriteHalf,
};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinHandle};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Client,
    Server,
}

/// One stream: what is read came from the other side. Shutting it down, or dropping it, ends our direction.
pub struct Stream {
    pub headers: Headers,
    io: DuplexStream,
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream").field("headers", &self.headers).finish_non_exhaustive()
    }
}

impl Stream {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// Streams that the other side opens, until the connection ends.
pub type Incoming = mpsc::Receiver<Stream>;

type Inlet = Arc<tokio::sync::Mutex<Option<WriteHalf<DuplexStream>>>>;

/// None once nothing comes in any more.
type Inlets = Arc<Mutex<Option<HashMap<u32, Inlet>>>>;

/// Opens streams and closes the connection. Dropping it aborts whatever is under way.
pub struct Connection {
    shared: Shared,
    next: AtomicU32,
    reader: AbortHandle,
    writer: Option<JoinHandle<()>>,
}

#[derive(Clone)]
struct Shared {
    frames: mpsc::Sender<Frame>,
    inlets: Inlets,
    /// Tasks that carry a stream's outgoing bytes into frames.
    pumps: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

impl Connection {
    pub(crate) fn new(io: impl Io + 'static, role: Role) -> Result<(Self, Incoming)> {
        let (read, write) = tokio::io::split(io);
        let (frames, queue) = mpsc::channel(16);
        let (accept, incoming) = mpsc::channel(16);
        let inlets = Arc::new(Mutex::new(Some(HashMap::new())));
        let shared = Shared { frames, inlets, pumps: Arc::default() };
        let writer = tokio::spawn(write_frames(write, queue, Encoder::new()?));
        let reader = tokio::spawn(read_frames(read, shared.clone(), accept, role)).abort_handle();
        let next = AtomicU32::new(if role == Role::Client { 1 } else { 2 });
        Ok((Self { shared, next, reader, writer: Some(writer) }, incoming))
    }

    /// # Errors
    /// The connection is at its end.
    pub async fn open(&self, headers: Headers) -> Result<Stream> {
        let id = self.next.fetch_add(2, Ordering::Relaxed);
        let ended =
            || Error::Io { operation: "open", subject: "SPDY stream".into(), source: BrokenPipe.into() };
        let (stream, outlet) = self.shared.register(id, Headers::new()).ok_or_else(ended)?;
        let _ = self.shared.frames.send(Frame::SynStream { id, fin: false, headers }).await;
        self.shared.pump(id, outlet);
        Ok(stream)
    }

    /// Lets the streams' last bytes out (their ends have to be dropped or shut down), says goodbye and closes.
    pub async fn close(mut self) {
        let pumps = std::mem::take(&mut *self.shared.pumps.lock().expect("no panic while held"));
        for pump in pumps {
            let _ = pump.await;
        }
        let _ = self.shared.frames.send(Frame::GoAway { last: 0 }).await;
        self.reader.abort();
        let writer = self.writer.take();
        drop(self);
        if let Some(writer) = writer {
            let _ = tokio::time::timeout(std::time::Duration::from_secs(5), writer).await;
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.reader.abort();
        // Streams outlive nothing: their pumps hold the queue of frames open.
        for pump in self.shared.pumps.lock().expect("no panic while held").drain(..) {
            pump.abort();
        }
    }
}

impl Shared {
    fn inlets<T>(&self, change: impl FnOnce(&mut HashMap<u32, Inlet>) -> T) -> Option<T> {
        self.inlets.lock().expect("no panic while held").as_mut().map(change)
    }

    /// None where the connection is at its end or has such a stream.
    fn register(&self, id: u32, headers: Headers) -> Option<(Stream, ReadHalf<DuplexStream>)> {
        let (ours, theirs) = tokio::io::duplex(BUFFER);
        let (outlet, inlet) = tokio::io::split(theirs);
        let inlet = Arc::new(tokio::sync::Mutex::new(Some(inlet)));
        let new = self.inlets(|inlets| !inlets.contains_key(&id) && inlets.insert(id, inlet).is_none())?;
        new.then_some((Stream { headers, io: ours }, outlet))
    }

    fn pump(&self, id: u32, mut outlet: ReadHalf<DuplexStream>) {
        let frames = self.frames.clone();
        let pump = tokio::spawn(async move {
            let mut buffer = BytesMut::with_capacity(8 << 10);
            loop {
                buffer.reserve(8 << 10);
                match outlet.read_buf(&mut buffer).await {
                    Ok(n) if n > 0 => {
                        let data = buffer.split().freeze();
                        if frames.send(Frame::Data { id, fin: false, data }).await.is_err() {
                            return;
                        }
                    }
                    _ => break,
                }
            }
            let _ = frames.send(Frame::Data { id, fin: true, data: Bytes::new() }).await;
        });
        let mut pumps = self.pumps.lock().expect("no panic while held");
        pumps.retain(|p| !p.is_finished());
        pumps.push(pump);
    }

    /// Gives bytes to a stream and ends its incoming direction where they are the last.
    async fn deliver(&self, id: u32, data: &[u8], end: bool) {
        let Some(Some(inlet)) = self.inlets(|inlets| inlets.get(&id).cloned()) else { return };
        let mut inlet = inlet.lock().await;
        if let Some(writer) = inlet.as_mut() {
            // Nobody reads any more: the bytes go nowhere, as on a closed pipe.
            let gone = !data.is_empty() && writer.write_all(data).await.is_err();
            if end {
                let _ = writer.shutdown().await;
            }
            if end || gone {
                *inlet = None;
                self.inlets(|inlets| inlets.remove(&id));
            }
        }
    }
}

async fn read_frames(mut io: ReadHalf<impl Io>, shared: Shared, accept: mpsc::Sender<Stream>, role: Role) {
    let mut decoder = Decoder::default();
    loop {
        let frame = match decoder.read(&mut io).await {
            Ok(Some(frame)) => frame,
            Ok(None) => break,
            Err(error) => {
                tracing::debug!(%error, "a stream connection broke");
                break;
            }
        };
        match frame {
            Frame::SynStream { id, fin, headers } => {
                let Some((stream, outlet)) = shared.register(id, headers) else { break };
                let reply = Frame::SynReply { id, fin: false, headers: Headers::new() };
                if shared.frames.send(reply).await.is_err() || accept.send(stream).await.is_err() {
                    break;
                }
                shared.pump(id, outlet);
                if fin {
                    shared.deliver(id, &[], true).await;
                }
            }
            Frame::Data { id, fin, data } => shared.deliver(id, &data, fin).await,
            Frame::SynReply { id, fin: true, .. }
            | Frame::Headers { id, fin: true }
            | Frame::Reset { id, .. } => {
                shared.deliver(id, &[], true).await;
            }
            Frame::Ping { id } => {
                let theirs = (id % 2 == 1) == (role == Role::Server);
                if theirs && shared.frames.send(Frame::Ping { id }).await.is_err() {
                    break;
                }
            }
            // Open streams go on until they end by themselves.
            Frame::GoAway { .. } | Frame::SynReply { .. } | Frame::Headers { .. } | Frame::Other => {}
        }
    }
    let inlets = shared.inlets.lock().expect("no panic while held").take().unwrap_or_default();
    for inlet in inlets.into_values() {
        // Dropping it alone would leave the reader waiting: the pump holds the other half.
        if let Some(mut inlet) = inlet.lock().await.take() {
            let _ = inlet.shutdown().await;
        }
    }
}

async fn write_frames(mut io: WriteHalf<impl Io>, mut queue: mpsc::Receiver<Frame>, mut encoder: Encoder) {
    let mut out = BytesMut::new();
    while let Some(frame) = queue.recv().await {
        let last = matches!(frame, Frame::GoAway { .. });
        if encoder.encode(&frame, &mut out).is_err() {
            break;
        }
        // Frames that wait already leave in one write.
        if !last && !queue.is_empty() && out.len() < BUFFER {
            continue;
        }
        if io.write_all_buf(&mut out).await.is_err() || io.flush().await.is_err() || last {
            break;
        }
    }
    let _ = io.shutdown().await;
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
