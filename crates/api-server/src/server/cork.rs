//! Few system calls for many small writes.
//!
//! HTTP/2 flushes after every frame, so that each watcher of a connection would cost a call to the kernel per event, and
//! a list one per 16 KiB. A corked stream leaves what is written while its connection is polled with TLS, as encrypted
//! records; [`Handle::drive`] sends them in one call when that poll is over. Little is not sent before the tasks that are
//! ready to run have had their turn: one commit answers many writes, and one call sends the answers. Nothing waits longer.
//!
//! A poll sends no more than a turn's worth: who takes many long lists on one connection must not keep those waiting that
//! share the thread.

use std::future::Future;
use std::io::{self, IoSlice, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::server::TlsStream;

/// As much is collected, and a poll sends no more: some tenths of a millisecond's work.
const TURN: usize = 256 << 10;
/// What a call to the kernel is spared for: more is worth one.
const LITTLE: usize = 16 << 10;

/// A TLS stream that collects what is written once [`Handle::cork`] was called, and passes everything through before.
pub struct Cork<S>(Arc<Mutex<State<S>>>);

/// Sends what a [`Cork`] collected.
pub struct Handle<S>(Arc<Mutex<State<S>>>);

struct State<S> {
    tls: TlsStream<S>,
    corked: bool,
    /// What may still be sent in this poll.
    left: usize,
    /// How much was collected since all was sent.
    collected: usize,
    /// Whether that has waited for other tasks' turn.
    waited: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Cork<S> {
    pub fn new(mut tls: TlsStream<S>) -> (Self, Handle<S>) {
        tls.get_mut().1.set_buffer_limit(Some(TURN));
        let state =
            Arc::new(Mutex::new(State { tls, corked: false, left: TURN, collected: 0, waited: false }));
        (Self(state.clone()), Handle(state))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Handle<S> {
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

impl<S: AsyncRead + AsyncWrite + Unpin> State<S> {
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let (stream, session) = self.tls.get_mut();
        while session.wants_write() {
            if self.left == 0 {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            match session.write_tls(&mut Sender { stream: &mut *stream, cx: &mut *cx, most: self.left }) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(written) => self.left -= written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        (self.collected, self.waited) = (0, false);
        Poll::Ready(Ok(()))
    }

    /// At the end of each poll of the connection.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.corked {
            return Poll::Ready(Ok(()));
        }
        if (1..LITTLE).contains(&self.collected) && !self.waited {
            self.waited = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let sent = self.poll_send(cx);
        self.left = TURN;
        sent
    }

    fn poll_collect(&mut self, cx: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let empty = parts.iter().all(|part| part.is_empty());
        loop {
            match self.tls.get_mut().1.writer().write_vectored(parts)? {
                0 if !empty => ready!(self.poll_send(cx))?,
                written => {
                    self.collected += written;
                    return Poll::Ready(Ok(written));
                }
            }
        }
    }
}

/// The stream beneath TLS, as that writes to it.
struct Sender<'a, 'b, S> {
    stream: &'a mut S,
    cx: &'a mut Context<'b>,
    /// No more than this much is taken.
    most: usize,
}

impl<S: AsyncWrite + Unpin> Write for Sender<'_, '_, S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut room = self.most;
        let whole = parts.iter().take_while(|part| {
            let fits = part.len() <= room;
            room -= part.len() * usize::from(fits);
            fits
        });
        let first;
        let parts = match (whole.count(), parts) {
            (0, [part, ..]) => {
                first = [IoSlice::new(&part[..room])];
                &first[..]
            }
            (whole, parts) => &parts[..whole],
        };
        match Pin::new(&mut *self.stream).poll_write_vectored(self.cx, parts) {
            Poll::Ready(written) => written,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Cork<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.lock().tls).poll_read(cx, into)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Cork<S> {
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
            false => Pin::new(&mut state.tls).poll_write_vectored(cx, parts),
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
            false => Pin::new(&mut state.tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.lock();
        ready!(state.poll_send(cx))?;
        Pin::new(&mut state.tls).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::pki_types::{PrivateKeyDer, ServerName};
    use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio_rustls::client::TlsStream;
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::{Cork, Handle, TURN};

    /// A corked stream to a client, over a wire that takes so much.
    async fn corked(room: usize) -> (Cork<DuplexStream>, Handle<DuplexStream>, TlsStream<DuplexStream>) {
        let identity = rcgen::generate_simple_self_signed(["server".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(identity.signing_key.serialize_der()).unwrap();
        let certificate = identity.cert.der().clone();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate.clone()).unwrap();
        let server = rustls::ServerConfig::builder().with_no_client_auth();
        let server = server.with_single_cert(vec![certificate], key).unwrap();
        let client = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let (near, far) = duplex(room);
        let acceptor = TlsAcceptor::from(Arc::new(server));
        let connector = TlsConnector::from(Arc::new(client));
        let name = ServerName::try_from("server").unwrap();
        let (near, far) = tokio::join!(acceptor.accept(near), connector.connect(name, far));
        let (cork, handle) = Cork::new(near.unwrap());
        (cork, handle, far.unwrap())
    }

    /// Whether there is something to read.
    async fn has_more(from: &mut (impl AsyncRead + Unpin)) -> bool {
        futures::poll!(std::pin::pin!(from.read_u8())).is_ready()
    }

    #[tokio::test]
    async fn what_is_written_arrives_once_and_in_order() {
        let (mut cork, handle, mut far) = corked(1000).await;
        let long = vec![b'x'; 3 * TURN];
        let writing = async {
            cork.write_all(b"passed through,").await.unwrap();
            handle.cork();
            let parts = async {
                for part in [b"one,".as_slice(), b"two,", &long, b"end"] {
                    cork.write_all(part).await.unwrap();
                    cork.flush().await.unwrap();
                }
                cork.shutdown().await.unwrap();
                drop(cork);
            };
            handle.drive(parts).await;
            drop(handle);
        };
        let mut all = Vec::new();
        let ((), read) = tokio::join!(writing, far.read_to_end(&mut all));
        let want = [b"passed through,one,two,".as_slice(), &long, b"end"].concat();
        assert!(all == want, "{:?}: {} bytes of {}", read, all.len(), want.len());
    }

    #[tokio::test]
    async fn a_poll_sends_no_more_than_its_share() {
        let (mut cork, handle, mut far) = corked(10 * TURN).await;
        handle.cork();
        let connection = async {
            cork.write_all(&vec![b'x'; 3 * TURN]).await.unwrap();
            std::future::pending::<()>().await;
        };
        let mut driven = std::pin::pin!(handle.drive(connection));
        for _ in 0..2 {
            assert!(futures::poll!(driven.as_mut()).is_pending());
            // What is sent has TLS's own bytes in it, and its last record may have come in part.
            let mut into = vec![0; TURN - (32 << 10)];
            far.read_exact(&mut into).await.unwrap();
            let mut more = 0;
            while has_more(&mut far).await {
                more += 1;
            }
            assert!(more <= 32 << 10, "{more} bytes more");
        }
    }

    #[tokio::test]
    async fn little_waits_for_one_turn_of_the_other_tasks() {
        let (mut cork, handle, mut far) = corked(1000).await;
        handle.cork();
        let connection = async {
            cork.write_all(b"first,").await.unwrap();
            tokio::task::yield_now().await;
            cork.write_all(b"second").await.unwrap();
            std::future::pending::<()>().await;
        };
        let mut driven = std::pin::pin!(handle.drive(connection));
        assert!(futures::poll!(driven.as_mut()).is_pending());
        assert!(!has_more(&mut far).await);
        assert!(futures::poll!(driven.as_mut()).is_pending());
        let mut both = [0; 12];
        far.read_exact(&mut both).await.unwrap();
        assert_eq!(&both, b"first,second");
    }

    #[tokio::test]
    async fn a_poll_that_is_not_over_sends_nothing() {
        let (mut cork, handle, mut far) = corked(1000).await;
        handle.cork();
        let connection = async {
            cork.write_all(b"first,").await.unwrap();
            cork.write_all(b"second").await.unwrap();
            assert!(!has_more(&mut far).await);
            tokio::task::yield_now().await;
            let mut both = [0; 12];
            far.read_exact(&mut both).await.unwrap();
            assert_eq!(&both, b"first,second");
        };
        handle.drive(connection).await;
    }
}
