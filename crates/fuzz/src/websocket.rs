//! What clients of exec, attach and port forwarding send over WebSockets, behind the upgrade that servers make.

use std::convert::Infallible;
use std::future::ready;
use std::io::Cursor;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{FutureExt, join_all};
use http_body_util::Empty;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use keelson_streams::remote::{self, Options, Session, status};
use keelson_streams::{BoxRead, BoxWrite, forward};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocket};

const V4: &str = "v4.channel.k8s.io";
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
/// And whether it is for port forwarding.
const PROTOCOLS: &[(&str, bool)] = &[
    ("v5.channel.k8s.io", false),
    (V4, false),
    ("channel.k8s.io", false),
    ("v4.base64.channel.k8s.io", false),
    (V4, true),
    ("v4.base64.channel.k8s.io", true),
    (TUNNEL, true),
    ("v3.channel.k8s.io", false),
    ("v2.channel.k8s.io", false),
    ("base64.channel.k8s.io", false),
];

/// What came in by channel.
type Taken = Vec<(u8, Vec<u8>)>;

/// The first byte chooses the protocol. What is taken is taken again as a client would send it.
pub(crate) fn websocket(data: &[u8]) {
    // Who sends nothing at all is gone before there is an upgrade.
    let Some((choice, frames @ [_, ..])) = data.split_first() else { return };
    let (protocol, forwards) = PROTOCOLS[usize::from(*choice) % PROTOCOLS.len()];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let taken = runtime.block_on(serve(protocol, forwards, frames));
    let size: usize = taken.iter().map(|(_, bytes)| bytes.len()).sum();
    assert!(size <= 8 * frames.len(), "{size} of {}", frames.len());
    if protocol != TUNNEL {
        let mut client = WebSocket::from_raw_socket(Cursor::new(Vec::new()), Role::Client, None);
        for (channel, bytes) in &taken {
            client.send([&[*channel], &bytes[..]].concat().into()).expect("room for it");
        }
        assert_eq!(runtime.block_on(serve(V4, forwards, client.get_ref().get_ref())), taken);
    }
}

/// Ends when the client has gone, whatever it sent.
async fn serve(protocol: &str, forwards: bool, frames: &[u8]) -> Taken {
    let (client, server) = tokio::io::duplex(1 << 10);
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let service = service_fn(|mut request| {
        let (answer, session) = if forwards {
            let (answer, pending) =
                forward::accept(&mut request, vec![80, 8080]).expect("a protocol of ours");
            (answer, async { carry(pending.forward().await.expect("an upgrade")).await }.boxed())
        } else {
            let all = Options { stdin: true, stdout: true, stderr: true, tty: true };
            let (answer, pending) = remote::accept(&mut request, all).expect("a protocol of ours");
            (answer, async { run(pending.session().await.expect("an upgrade")).await }.boxed())
        };
        let _ = tell.send(session);
        ready(Ok::<_, Infallible>(answer.map(|()| Empty::<Bytes>::new())))
    });
    let connection = http1::Builder::new().serve_connection(TokioIo::new(server), service).with_upgrades();
    let head = format!(
        "GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\
         Sec-WebSocket-Protocol: {protocol}\r\n\r\n"
    );
    let (mut from, mut to) = tokio::io::split(client);
    let talk = async {
        // A server that has heard enough hangs up.
        let _ = to.write_all(&[head.as_bytes(), frames].concat()).await;
        let _ = to.shutdown().await;
    };
    let session = async { told.recv().await.expect("a request").await };
    let mut heard = Vec::new();
    let all = async { tokio::join!(session, talk, from.read_to_end(&mut heard), connection).0 };
    tokio::time::timeout(Duration::from_secs(60), all).await.expect("an end")
}

async fn run(session: Session) -> Taken {
    let Session { stdin, stdout, stderr, mut resize, control } = session;
    drop(stderr);
    let sizes = async {
        let mut sizes = Vec::new();
        while let Some(size) = resize.recv().await {
            serde_json::to_writer(&mut sizes, &size).expect("room for it");
        }
        sizes
    };
    let input = echo(stdin.expect("asked for"), stdout.expect("asked for"));
    let (input, sizes) = tokio::join!(input, sizes);
    control.finish(&status::success()).await;
    vec![(0, input), (4, sizes)]
}

async fn carry(mut forward: forward::Forward) -> Taken {
    let mut pairs = Vec::new();
    while let Some(pair) = forward.next().await {
        pairs.push(tokio::spawn(echo(pair.read, pair.write)));
    }
    let taken = join_all(pairs).await;
    forward.finish().await;
    (0..=u8::MAX).step_by(2).zip(taken.into_iter().flatten()).collect()
}

async fn echo(mut from: BoxRead, mut to: BoxWrite) -> Vec<u8> {
    let (mut all, mut sent) = (Vec::new(), 0);
    while from.read_buf(&mut all).await.is_ok_and(|read| read > 0) {
        let _ = to.write_all(&all[sent..]).await;
        sent = all.len();
    }
    all
}
