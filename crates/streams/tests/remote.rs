use futures::{SinkExt, StreamExt};
use http::Response;
use http_body_util::Empty;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use keelson_streams::remote::{self, Options, TerminalSize, status};
use keelson_streams::{Error, client, spdy};
use std::convert::Infallible;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

/// A server whose command copies stdin to stdout in upper case, says the terminal's first size on stderr where
/// there is one, and ends with code 3.
async fn serve(options: Options) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let service = service_fn(move |mut request: http::Request<hyper::body::Incoming>| async move {
                let (response, pending) = match remote::accept(&mut request, options) {
                    Ok(accepted) => accepted,
                    Err(refused) => {
                        let mut response = Response::new(Empty::<bytes::Bytes>::new());
                        *response.status_mut() = refused.status;
                        return Ok::<_, Infallible>(response);
                    }
                };
                tokio::spawn(async move { command(pending.session().await.expect("a session")).await });
                Ok(response.map(|()| Empty::new()))
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(tcp), service)
                .with_upgrades();
            tokio::spawn(connection);
        }
    });
    address.to_string()
}

async fn command(mut session: remote::Session) {
    let mut input = Vec::new();
    if let Some(mut stdin) = session.stdin.take() {
        stdin.read_to_end(&mut input).await.expect("stdin");
    }
    input.make_ascii_uppercase();
    let mut stdout = session.stdout.take().expect("stdout");
    stdout.write_all(&input).await.expect("stdout");
    drop(stdout);
    if let Some(mut stderr) = session.stderr.take() {
        stderr.write_all(b"to err").await.expect("stderr");
    }
    session.control.finish(&status::exit_code(3)).await;
}

const ALL: Options = Options { stdin: true, stdout: true, stderr: true, tty: false };

#[tokio::test]
async fn a_spdy_client_gets_both_outputs_and_the_exit_code() {
    let address = serve(ALL).await;
    let mut remote = client::remote(&format!("http://{address}/exec"), ALL).await.expect("upgrades");
    let mut stdin = remote.stdin.take().expect("asked for");
    stdin.write_all(&b"hello ".repeat(50_000)).await.expect("writes");
    stdin.shutdown().await.expect("ends");
    let (mut out, mut err, mut end) = (Vec::new(), Vec::new(), Vec::new());
    remote.stdout.take().expect("asked for").read_to_end(&mut out).await.expect("stdout");
    remote.stderr.take().expect("asked for").read_to_end(&mut err).await.expect("stderr");
    remote.error.read_to_end(&mut end).await.expect("error");
    assert_eq!(out, b"HELLO ".repeat(50_000));
    assert_eq!(err, b"to err");
    let end: serde_json::Value = serde_json::from_slice(&end).expect("a Status");
    assert_eq!(end["details"]["causes"][0]["message"], "3");
}

async fn websocket(address: &str, protocol: &str) -> tokio_tungstenite::WebSocketStream<TcpStream> {
    let mut request = format!("ws://{address}/exec").into_client_request().expect("a request");
    request.headers_mut().insert("sec-websocket-protocol", protocol.parse().expect("a header"));
    let tcp = TcpStream::connect(address).await.expect("connects");
    tokio_tungstenite::client_async(request, tcp).await.expect("upgrades").0
}

#[tokio::test]
async fn a_websocket_client_of_v5_may_close_stdin_alone() {
    let address = serve(ALL).await;
    let mut socket = websocket(&address, "v5.channel.k8s.io").await;
    socket.send(Message::Binary(b"\x00abc".to_vec().into())).await.expect("stdin");
    socket.send(Message::Binary(b"\xff\x00".to_vec().into())).await.expect("half-close");
    let mut seen: Vec<(u8, Vec<u8>)> = Vec::new();
    while let Some(Ok(Message::Binary(data))) = socket.next().await {
        seen.push((data[0], data[1..].to_vec()));
    }
    seen.retain(|(_, data)| !data.is_empty());
    assert!(seen.contains(&(1, b"ABC".to_vec())), "{seen:?}");
    assert!(seen.contains(&(2, b"to err".to_vec())), "{seen:?}");
    let (channel, last) = seen.last().expect("a status");
    assert_eq!(*channel, 3);
    assert!(String::from_utf8_lossy(last).contains("NonZeroExitCode"));
}

#[tokio::test]
async fn base64_channels_are_served_to_browsers() {
    let address = serve(Options { stdin: false, ..ALL }).await;
    let mut socket = websocket(&address, "v4.base64.channel.k8s.io").await;
    let mut texts = Vec::new();
    while let Some(Ok(Message::Text(text))) = socket.next().await {
        texts.push(text.to_string());
    }
    assert!(texts.contains(&"2dG8gZXJy".to_owned()), "{texts:?}");
}

/// A server whose command is that of another.
async fn bridge(runtime: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().expect("bound").to_string();
    tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.expect("accepts");
        let service = service_fn(move |mut request: http::Request<hyper::body::Incoming>| {
            let url = format!("http://{runtime}/exec");
            async move {
                let (response, pending) = remote::accept(&mut request, ALL).expect("accepted");
                tokio::spawn(async move {
                    client::bridge(pending.session().await.expect("a session"), &url, ALL).await;
                });
                Ok::<_, Infallible>(response.map(|()| Empty::<bytes::Bytes>::new()))
            }
        });
        let _ = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(tcp), service)
            .with_upgrades()
            .await;
    });
    address
}

#[tokio::test]
async fn a_bridge_carries_a_session_to_another_server() {
    let address = bridge(serve(ALL).await).await;
    let mut socket = websocket(&address, "v5.channel.k8s.io").await;
    socket.send(Message::Binary(b"\x00through".to_vec().into())).await.expect("stdin");
    socket.send(Message::Binary(b"\xff\x00".to_vec().into())).await.expect("half-close");
    let mut out = Vec::new();
    let mut end = Vec::new();
    while let Some(Ok(Message::Binary(data))) = socket.next().await {
        match data[0] {
            1 => out.extend_from_slice(&data[1..]),
            3 => end.extend_from_slice(&data[1..]),
            _ => {}
        }
    }
    assert_eq!(out, b"THROUGH");
    assert!(String::from_utf8_lossy(&end).contains("\"3\""));
}

/// Switches protocols and hangs up at the first frame.
async fn serve_nothing() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().expect("bound").to_string();
    tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.expect("accepts");
        let mut heard = [0; 4096];
        let _ = tcp.read(&mut heard).await.expect("a request");
        let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n";
        tcp.write_all(answer.as_bytes()).await.expect("writes");
        let _ = tcp.read(&mut heard).await.expect("a frame");
    });
    address
}

#[tokio::test]
async fn streams_end_with_their_connection() {
    let (connection, _) =
        client::connect(&format!("http://{}/exec", serve_nothing().await), "v4.channel.k8s.io")
            .await
            .expect("upgrades");
    let mut stream = connection.open(spdy::Headers::new()).await.expect("opens");
    let mut nothing = Vec::new();
    stream.read_to_end(&mut nothing).await.expect("ends");
    assert_eq!(nothing, b"");
    let refused = connection.open(spdy::Headers::new()).await;
    assert!(matches!(refused, Err(Error::Io { operation: "open", .. })), "{refused:?}");
}

#[tokio::test]
async fn a_runtime_that_breaks_off_is_no_success() {
    let mut socket = websocket(&bridge(serve_nothing().await).await, "v5.channel.k8s.io").await;
    let mut end = Vec::new();
    while let Some(Ok(Message::Binary(data))) = socket.next().await {
        if data[0] == 3 {
            end.extend_from_slice(&data[1..]);
        }
    }
    let end: serde_json::Value = serde_json::from_slice(&end).expect("a Status");
    assert_eq!(end["reason"], "InternalError");
}

#[tokio::test]
async fn a_request_without_any_stream_is_refused() {
    let mut request = http::Request::builder().body(()).expect("valid");
    let refused = remote::accept(&mut request, Options::default()).err().expect("refused");
    assert_eq!(refused.status, http::StatusCode::BAD_REQUEST);
    let size: TerminalSize = serde_json::from_str(r#"{"Width":80,"Height":24}"#).expect("a size");
    assert_eq!((size.width, size.height), (80, 24));
}
