//! Few system calls for many small writes.
//!
//! HTTP/2 flushes after every frame, so that each watcher of a connection would cost a call to the kernel per event, and
//! a list one per 16 KiB. A corked stream collects what is written while its connection is polled; [`Handle::drive`]
//! sends it when that poll is over. Nothing waits longer than that.
//!
//! A poll sends no more than a turn's worth: who takes many long lists on one connection must not keep those waiting that
//! share the thread.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// More is not collected before some of it is sent.
const LIMIT: usize = 64 << 10;
/// What is collected at most: one more TLS record.
const FULL: usize = LIMIT + (17 << 10);
/// What is sent in one poll: some tenths of a millisecond's work.
const TURN: usize = 256 << 10;
/// An answer of one object mostly needs no more.
const SMALL: usize = 4 << 10;

/// A stream that collects what is written once [`Handle::cork`] was called, and passes everything through before.
pub struct Cork<S>(Arc<Mutex<State<S>>>);

/// Sends what a [`Cork`] collected.
pub struct Handle<S>(Arc<Mutex<State<S>>>);

struct State<S> {
    stream: S,
    corked: bool,
    collected: Vec<u8>,
    /// How much of it is sent.
    sent: usize,
    /// What may still be sent in this poll.
    left: usize,
}

impl<S: AsyncWrite + Unpin> Cork<S> {
    pub fn new(stream: S) -> (Self, Handle<S>) {
        let state = State { stream, corked: false, collected: Vec::new(), sent: 0, left: TURN };
        let state = Arc::new(Mutex::new(state));
        (Self(state.clone()), Handle(state))
    }
}

impl<S: AsyncWrite + Unpin> Handle<S> {
    /// From here on the stream's writer must be polled through [`Handle::drive`].
    pub fn cork(&self) {
        self.0.lock().corked = true;
    }

    /// Runs a connection on the corked stream, sending what each of its polls wrote.
    pub async fn drive<F: Future>(&self, connection: F) -> F::Output {
        let mut connection = std::pin::pin!(connection);
        let output = std::future::poll_fn(|cx| {
            let output = connection.as_mut().poll(cx);
            // An error meets the connection at its next write.
            let _ = self.0.lock().poll_end(cx);
            output
        });
        let output = output.await;
        let _ = std::future::poll_fn(|cx| self.0.lock().poll_end(cx)).await;
        self.0.lock().corked = false;
        output
    }
}

impl<S: AsyncWrite + Unpin> State<S> {
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.collected.len() {
            if self.left == 0 {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let end = self.collected.len().min(self.sent + self.left);
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.collected[self.sent..end]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += written;
            self.left -= written;
        }
        // An idle connection holds no memory for this.
        (self.collected, self.sent) = (Vec::new(), 0);
        Poll::Ready(Ok(()))
    }

    /// At the end of each poll of the connection.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let sent = self.poll_send(cx);
        self.left = TURN;
        sent
    }

    fn poll_collect(&mut self, cx: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if self.collected.len() >= LIMIT {
            ready!(self.poll_send(cx))?;
        }
        let length = parts.iter().map(|part| part.len()).sum();
        if self.collected.capacity() - self.collected.len() < length {
            let size = if self.collected.len() + length <= SMALL { SMALL } else { FULL.max(length) };
            self.collected.reserve_exact(size - self.collected.len());
        }
        parts.iter().for_each(|part| self.collected.extend_from_slice(part));
        Poll::Ready(Ok(length))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Cork<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.lock().stream).poll_read(cx, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Cork<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.0.lock();
        match state.corked {
            true => state.poll_collect(cx, parts),
            false => Pin::new(&mut state.stream).poll_write_vectored(cx, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.lock();
        match state.corked {
            // The poll that is under way may write more.
            true => Poll::Ready(Ok(())),
            false => Pin::new(&mut state.stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.lock();
        ready!(state.poll_send(cx))?;
        Pin::new(&mut state.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::{Cork, LIMIT, TURN};

    #[tokio::test]
    async fn what_is_written_arrives_once_and_in_order() {
        let (near, mut far) = duplex(1000);
        let (mut cork, handle) = Cork::new(near);
        cork.write_all(b"passed through,").await.unwrap();
        handle.cork();
        let long = vec![b'x'; 3 * LIMIT];
        let writing = async {
            for part in [b"one,".as_slice(), b"two,", &long, b"end"] {
                cork.write_all(part).await.unwrap();
                cork.flush().await.unwrap();
            }
            drop(cork);
        };
        let reading = async {
            let mut all = Vec::new();
            far.read_to_end(&mut all).await.unwrap();
            all
        };
        let writing = async {
            handle.drive(writing).await;
            drop(handle);
        };
        let ((), all) = tokio::join!(writing, reading);
        let want = [b"passed through,one,two,".as_slice(), &long, b"end"].concat();
        assert!(all == want, "{} bytes of {}", all.len(), want.len());
    }

    #[tokio::test]
    async fn a_poll_sends_no_more_than_its_share() {
        let (near, mut far) = duplex(10 * TURN);
        let (mut cork, handle) = Cork::new(near);
        handle.cork();
        let connection = async {
            cork.write_all(&vec![b'x'; 3 * TURN]).await.unwrap();
            std::future::pending::<()>().await;
        };
        let mut driven = std::pin::pin!(handle.drive(connection));
        let mut into = vec![0; 10 * TURN];
        for _ in 0..3 {
            assert!(futures::poll!(driven.as_mut()).is_pending());
            assert_eq!(far.read(&mut into).await.unwrap(), TURN);
        }
    }

    #[tokio::test]
    async fn a_poll_that_is_not_over_sends_nothing() {
        let (near, mut far) = duplex(1000);
        let (mut cork, handle) = Cork::new(near);
        handle.cork();
        let connection = async {
            cork.write_all(b"first,").await.unwrap();
            cork.write_all(b"second").await.unwrap();
            let nothing = futures::poll!(std::pin::pin!(far.read_u8()));
            assert!(nothing.is_pending());
            tokio::task::yield_now().await;
            let mut both = [0; 12];
            assert_eq!(far.read(&mut both).await.unwrap(), 12);
        };
        handle.drive(connection).await;
    }
}
