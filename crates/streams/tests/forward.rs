use bytes::Bytes;
use http_body_util::Empty;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use keelson_streams::client::Forwarder;
use keelson_streams::forward;
use std::convert::Infallible;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// Every forwarded connection answers with its port and then echoes.
async fn serve() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().expect("bound").to_string();
    tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.expect("accepts");
        let service = service_fn(|mut request: http::Request<hyper::body::Incoming>| async move {
            let (response, pending) = forward::accept(&mut request, Vec::new()).expect("accepted");
            tokio::spawn(async move {
                let mut forward = pending.forward().await.expect("a session");
                while let Some(mut pair) = forward.next().await {
                    tokio::spawn(async move {
                        if pair.port == 1 {
                            let _ = pair.error.write_all(b"refused").await;
                            return;
                        }
                        let _ = pair.write.write_all(pair.port.to_string().as_bytes()).await;
                        let _ = tokio::io::copy(&mut pair.read, &mut pair.write).await;
                    });
                }
                forward.finish().await;
            });
            Ok::<_, Infallible>(response.map(|()| Empty::<Bytes>::new()))
        });
        let _ = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(tcp), service)
            .with_upgrades()
            .await;
    });
    address
}

#[tokio::test]
async fn pairs_of_streams_carry_connections_side_by_side() {
    let mut forwarder = Forwarder::connect(&format!("http://{}/pf", serve().await)).await.expect("upgrades");
    let (mut a, _a_error) = forwarder.open(80).await.expect("opens");
    let (mut b, _b_error) = forwarder.open(8080).await.expect("opens");
    a.write_all(b"-first").await.expect("writes");
    b.write_all(b"-second").await.expect("writes");
    a.shutdown().await.expect("ends");
    b.shutdown().await.expect("ends");
    let (mut from_a, mut from_b) = (String::new(), String::new());
    a.read_to_string(&mut from_a).await.expect("reads");
    b.read_to_string(&mut from_b).await.expect("reads");
    assert_eq!((from_a.as_str(), from_b.as_str()), ("80-first", "8080-second"));
}

#[tokio::test]
async fn an_error_comes_back_on_its_own_stream() {
    let mut forwarder = Forwarder::connect(&format!("http://{}/pf", serve().await)).await.expect("upgrades");
    let (mut data, mut error) = forwarder.open(1).await.expect("opens");
    let (mut nothing, mut message) = (String::new(), String::new());
    error.read_to_string(&mut message).await.expect("reads");
    data.read_to_string(&mut nothing).await.expect("reads");
    assert_eq!((nothing.as_str(), message.as_str()), ("", "refused"));
}
