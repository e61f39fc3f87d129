//! A TCP link between a server and its store, which can be slow, stalled or cut.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    Open,
    /// Each helping waits this long.
    Slow(Duration),
    /// Connections stay, nothing passes; later all of it does.
    Stalled,
    /// Connections are closed, new ones too.
    Cut,
}

pub struct Proxy {
    address: SocketAddr,
    link: watch::Sender<Link>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    pub async fn start(to: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (link, seen) = watch::channel(Link::Open);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(join(client, to, seen.clone()));
            }
        });
        Ok(Self { address, link, accepting })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn set(&self, link: Link) {
        self.link.send_replace(link);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.link.send_replace(Link::Cut);
    }
}

async fn join(client: TcpStream, to: SocketAddr, link: watch::Receiver<Link>) {
    if *link.borrow() == Link::Cut {
        return;
    }
    let Ok(server) = TcpStream::connect(to).await else { return };
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let mut end = link.clone();
    // Either side's end ends both.
    tokio::select! {
        () = pump(from_client, to_server, link.clone()) => {}
        () = pump(from_server, to_client, link) => {}
        _ = end.wait_for(|link| *link == Link::Cut) => {}
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut link: watch::Receiver<Link>) {
    let mut helping = vec![0; 16 << 10];
    while let Ok(size @ 1..) = from.read(&mut helping).await {
        let passes = link.wait_for(|link| *link != Link::Stalled).await.map(|link| *link);
        if let Ok(Link::Slow(by)) = passes {
            tokio::time::sleep(by).await;
        }
        if to.write_all(&helping[..size]).await.is_err() {
            return;
        }
    }
}
