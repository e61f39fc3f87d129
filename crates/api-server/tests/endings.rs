//! How requests end that take too long or are too large, and how the server itself does.

use std::sync::Arc;

use http::Method;
use keelson_store::embedded::fault::{Faults, Step};
use keelson_store::{EmbeddedConfig, StoreConfig};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::extension::{self, Extension, Kind};
use crate::support::{CONFIG_MAPS, Client, Raw, Server, config_map, eventually};

/// Begins a create over HTTP/1.1 and leaves its last byte out; the server has asked for the body.
async fn begin(admin: &Client, query: &str) -> Raw {
    let body = config_map("slow").to_string();
    let mut raw = admin.raw(false).await;
    let head = format!(
        "POST {CONFIG_MAPS}{query} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         expect: 100-continue\r\n\r\n",
        body.len()
    );
    raw.write_all(head.as_bytes()).await.unwrap();
    let mut go_on = [0; "HTTP/1.1 100 Continue\r\n\r\n".len()];
    raw.read_exact(&mut go_on).await.unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    raw.write_all(&body.as_bytes()[..body.len() - 1]).await.unwrap();
    raw.flush().await.unwrap();
    raw
}

#[tokio::test]
async fn a_request_that_takes_longer_than_asked_for_ends_with_504() {
    let server = Server::start().await;
    let admin = server.admin();
    let mut raw = begin(&admin, "?timeout=50ms").await;
    let mut answer = vec![0; 4096];
    let n = raw.read(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer[..n]).into_owned();
    assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
    assert!(answer.contains("Timeout: request did not complete within the allotted timeout"), "{answer}");
    assert!(answer.contains("\"reason\":\"Timeout\""), "{answer}");
    let message = "invalid timeout specified in the request URL - time: missing unit in duration \"5\"";
    admin.get(&format!("{CONFIG_MAPS}?timeout=5")).await.refused(400, "BadRequest", message);
    admin.get(&format!("{CONFIG_MAPS}?timeout=0s")).await.expect(200);
}

#[tokio::test]
async fn what_is_too_large_is_refused() {
    let server = Server::start().await;
    let admin = server.admin();
    let mut large = config_map("large");
    large["data"]["a"] = "x".repeat(3 << 20).into();
    let reply = admin.send(Method::POST, CONFIG_MAPS, "application/json", large.to_string()).await;
    reply.refused(413, "RequestEntityTooLarge", "Request entity too large: limit is 3145728");
    let mut raw = admin.raw(false).await;
    raw.write_all(b"GET /version HTTP/1.1\r\nhost: x\r\n").await.unwrap();
    let header = format!("x-large: {}\r\n", "x".repeat(64 << 10));
    let mut answer = vec![0; 256];
    for _ in 0..32 {
        // The server may have answered and closed already.
        if raw.write_all(header.as_bytes()).await.is_err() {
            break;
        }
    }
    let n = raw.read(&mut answer).await.unwrap();
    assert!(answer[..n].starts_with(b"HTTP/1.1 431 "), "{}", String::from_utf8_lossy(&answer[..n]));
}

#[tokio::test]
async fn readiness_fails_first_and_requests_are_still_answered() {
    let server = Server::with(|config| config.shutdown_delay = 3600).await;
    let admin = server.admin();
    server.shut_down();
    let reply = admin.get("/readyz?verbose").await;
    assert_eq!(reply.status, 500);
    assert!(reply.text().contains("[-]shutdown failed"), "{}", reply.text());
    assert_eq!(admin.get("/livez").await.status, 200);
    admin.post(CONFIG_MAPS, &config_map("late")).await.expect(201);
}

#[tokio::test]
async fn at_shutdown_watches_end_cleanly_and_requests_under_way_finish() {
    let mut server = Server::start().await;
    let admin = server.admin();
    let mut watch = admin.watch(&format!("{CONFIG_MAPS}?watch=true")).await;
    admin.post(CONFIG_MAPS, &config_map("first")).await.expect(201);
    assert_eq!(watch.seen().await, "ADDED first");
    let mut raw = begin(&admin, "").await;
    server.shut_down();
    assert_eq!(watch.seen().await, "the end");
    raw.write_all(b"}").await.unwrap();
    let mut answer = Vec::new();
    raw.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
    server.stopped().await;
}

#[tokio::test]
async fn tunnels_end_when_the_last_request_has() {
    let Some(address) = extension::address() else { return };
    let mut server = Server::start().await;
    let admin = server.admin();
    let extension = Extension::start(&server, address, Kind::Modern).await;
    extension.register(&admin).await;
    let path = "/apis/wardle.example.com/v1alpha1/namespaces/default/flunders/a/echo";
    let mut tunnel = admin.upgrade(path, "echo").await;
    let mut raw = begin(&admin, "").await;
    server.shut_down();
    eventually("nobody listens", || async {
        match admin.try_connect().await {
            false => Ok(()),
            true => Err("still".into()),
        }
    })
    .await;
    tunnel.write_all(b"alive").await.unwrap();
    let mut back = [0; 5];
    tunnel.read_exact(&mut back).await.unwrap();
    raw.write_all(b"}").await.unwrap();
    let mut rest = Vec::new();
    raw.read_to_end(&mut rest).await.unwrap();
    assert_eq!(tunnel.read_to_end(&mut rest).await.unwrap(), 0);
    server.stopped().await;
}

#[tokio::test]
async fn a_client_of_http2_may_be_told_to_connect_anew() {
    let server = Server::with(|config| config.goaway_chance = 0.02).await;
    let raw = server.admin().raw(true).await;
    let io = hyper_util::rt::TokioIo::new(raw);
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
    let driver = tokio::spawn(connection);
    // One in fifty is enough for any run to meet it.
    for _ in 0..5000 {
        if sender.ready().await.is_err() {
            break;
        }
        let body = http_body_util::Empty::<bytes::Bytes>::new();
        let request = http::Request::get("https://x/version").body(body).unwrap();
        match sender.send_request(request).await {
            Ok(answer) => assert_eq!(answer.status(), 200),
            Err(_) => break,
        }
    }
    driver.await.unwrap().unwrap();
    assert!(sender.is_closed());
}

/// The store does not know whether it happened, here because the disk fails after it was logged.
#[tokio::test]
async fn a_write_whose_outcome_is_not_known_is_503_and_done_once_at_most() {
    let folder = tempfile::tempdir().unwrap();
    let faults = Arc::new(Faults::default());
    let mut embedded = EmbeddedConfig::new(folder.path().join("store.redb"));
    embedded.faults = Some(faults.clone());
    let store = keelson_store::open(StoreConfig::Embedded(embedded)).await.unwrap();
    let server = Server::over(store, |_| {}).await;
    let admin = server.admin();
    let mut object = admin.post(CONFIG_MAPS, &config_map("once")).await.expect(201);
    let path = format!("{CONFIG_MAPS}/once");
    for turn in 0.. {
        object["data"] = json!({"turn": turn.to_string()});
        faults.fail_at(Step::Commit);
        let reply = admin.put(&path, &object).await;
        let now = eventually("the write shows", || async {
            let now = admin.get(&path).await.expect(200);
            if now["data"] == object["data"] { Ok(now) } else { Err(now["data"].to_string()) }
        });
        let now = now.await;
        // The server's own writes may have had the failure.
        if reply.status != 200 {
            reply.refused(503, "ServiceUnavailable", "the store is unavailable");
            return;
        }
        object = now;
    }
}
