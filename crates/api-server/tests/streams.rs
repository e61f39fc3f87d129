//! Logs and remote commands through the server to a node's agent.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use keelson_daemon::tls::{ClientAuth, ServerFiles, server_config};
use keelson_daemon::{Shutdown, serve};
use keelson_pki::{Ca, Request as Certificate, Usage};
use keelson_streams::forward;
use keelson_streams::remote::{self, Options, status};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::{ClientRequestBuilder, Message};

use crate::support::webhook::Webhook;
use crate::support::{ACCOUNTS, Client, PODS, Raw, Server, default_account};

const LOCAL: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
type Socket = tokio_tungstenite::WebSocketStream<Raw>;

/// A node agent whose containers write their query as their log; so does the command `echo`, and all copy stdin to
/// stdout. A forwarded port does the same.
async fn answer(mut request: Request<Incoming>) -> Response<Full<Bytes>> {
    let plain = |status: u16, text: String| {
        Response::builder().status(status).body(Full::new(Bytes::from(text))).unwrap()
    };
    let (path, query) =
        (request.uri().path().to_owned(), request.uri().query().unwrap_or_default().to_owned());
    match path.as_str() {
        "/containerLogs/default/p/c" if query.contains("previous=true") => {
            plain(400, "previous terminated container \"c\" in pod \"p\" not found".into())
        }
        "/containerLogs/default/p/c" => plain(200, format!("{query}\n")),
        "/exec/default/p/c" | "/attach/default/p/c" => {
            let options = Options { stdin: true, stdout: true, stderr: false, tty: false };
            let (response, pending) = match remote::accept(&mut request, options) {
                Ok(accepted) => accepted,
                Err(refused) => return plain(refused.status.as_u16(), refused.message),
            };
            tokio::spawn(async move {
                let mut session = pending.session().await.unwrap();
                let (mut stdin, mut stdout) = (session.stdin.take().unwrap(), session.stdout.take().unwrap());
                if query.contains("command=echo") {
                    stdout.write_all(query.as_bytes()).await.unwrap();
                }
                let _ = tokio::io::copy(&mut stdin, &mut stdout).await;
                drop(stdout);
                session.control.finish(&status::success()).await;
            });
            response.map(|()| Full::default())
        }
        "/portForward/default/p" => {
            let (response, pending) = forward::accept(&mut request, vec![80]).unwrap();
            tokio::spawn(async move {
                let mut forward = pending.forward().await.unwrap();
                let mut pair = forward.next().await.unwrap();
                let _ = tokio::io::copy(&mut pair.read, &mut pair.write).await;
            });
            response.map(|()| Full::default())
        }
        _ => plain(404, "404 page not found\n".into()),
    }
}

/// A server with a pod that runs on a node with such an agent.
async fn running() -> Server {
    let server = Server::start().await;
    let ca = Ca::load(&server.path("pki/ca.crt"), &server.path("pki/ca.key")).unwrap();
    let issued = ca
        .issue(&Certificate {
            cn: "system:node:n".into(),
            orgs: vec!["system:nodes".into()],
            sans: vec![LOCAL.to_string()],
            usage: Usage::Server,
            ttl: Duration::from_secs(3600),
        })
        .unwrap();
    let (cert, key) = (server.path("agent.crt"), server.path("agent.key"));
    std::fs::write(&cert, issued.cert_pem).unwrap();
    std::fs::write(&key, issued.key_pem).unwrap();
    let files = ServerFiles {
        cert,
        key,
        client_cas: vec![server.path("pki/ca.crt")],
        client_auth: ClientAuth::Required,
    };
    let listener = serve::listen(SocketAddr::new(LOCAL, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(serve::serve(listener, server_config(&files).unwrap(), Shutdown::new(), answer));

    let admin = server.admin();
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}});
    admin.post("/api/v1/nodes", &node).await.expect(201);
    let status = json!({"status": {"addresses": [{"type": "InternalIP", "address": LOCAL}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}}}});
    admin.patch("/api/v1/nodes/n/status", "merge", &status).await.expect(200);
    let pod = |name: &str, node: &str| {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i"}]}})
    };
    admin.post(ACCOUNTS, &default_account()).await.expect(201);
    admin.post(PODS, &pod("p", "n")).await.expect(201);
    admin.post(PODS, &pod("unscheduled", "")).await.expect(201);
    let mut two = pod("two", "n");
    two["spec"]["containers"] = json!([{"name": "a", "image": "i"}, {"name": "b", "image": "i"}]);
    two["spec"]["initContainers"] = json!([{"name": "i", "image": "i"}]);
    admin.post(PODS, &two).await.expect(201);
    server
}

async fn websocket(admin: &Client, path: &str, protocol: &str) -> Socket {
    let mut request = ClientRequestBuilder::new(format!("wss://localhost{path}").parse().unwrap());
    if !protocol.is_empty() {
        request = request.with_sub_protocol(protocol);
    }
    tokio_tungstenite::client_async(request, admin.raw(false).await).await.unwrap().0
}

/// Everything that a socket brings until it is closed.
async fn all(socket: &mut Socket) -> Vec<Message> {
    let mut messages = Vec::new();
    while let Some(Ok(message)) = socket.next().await {
        if message.is_close() {
            break;
        }
        messages.push(message);
    }
    messages
}

#[tokio::test]
async fn logs_are_asked_for_with_the_clients_options() {
    let server = running().await;
    let admin = server.admin();
    let log = format!("{PODS}/p/log");
    let options = "follow=true&timestamps=true&sinceSeconds=5&tailLines=3&limitBytes=7";
    let reply = admin.get(&format!("{log}?{options}")).await;
    assert_eq!((reply.status.as_u16(), reply.headers["content-type"].to_str().unwrap()), (200, "text/plain"));
    for option in options.split('&') {
        assert!(reply.text().contains(option), "{}", reply.text());
    }
    assert_eq!(admin.get(&format!("{log}?insecureSkipTLSVerifyBackend=true&container=c")).await.status, 200);
    let missing = "previous terminated container \"c\" in pod \"p\" not found";
    admin.get(&format!("{log}?previous=true")).await.refused(400, "BadRequest", missing);
    assert_eq!(admin.get(&format!("{PODS}/unscheduled/log")).await.status, 204);
    for (query, message) in [
        ("tailLines=-1", "tailLines: Invalid value: -1: must be greater than or equal to 0"),
        ("limitBytes=0", "limitBytes: Invalid value: 0: must be greater than 0"),
        (
            "sinceSeconds=1&sinceTime=2026-01-01T00:00:00Z",
            "at most one of `sinceTime` or `sinceSeconds` may be specified",
        ),
        ("stream=Both", "stream: Unsupported value: \"Both\""),
    ] {
        admin.get(&format!("{log}?{query}")).await.refused(422, "Invalid", message);
    }
    let which = "a container name must be specified for pod two, choose one of: [i a b]";
    admin.get(&format!("{PODS}/two/log")).await.refused(400, "BadRequest", which);
    let which = "container x is not valid for pod two";
    admin.get(&format!("{PODS}/two/log?container=x")).await.refused(400, "BadRequest", which);
}

#[tokio::test]
async fn logs_come_over_websockets_in_plain_messages() {
    let server = running().await;
    let admin = server.admin();
    let path = format!("{PODS}/p/log?tailLines=3");
    for protocol in ["", "binary.k8s.io", "base64.binary.k8s.io"] {
        let mut text = Vec::new();
        for message in all(&mut websocket(&admin, &path, protocol).await).await {
            match message {
                Message::Binary(bytes) => text.extend_from_slice(&bytes),
                Message::Text(encoded) => text.extend(STANDARD.decode(encoded.as_bytes()).unwrap()),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(String::from_utf8(text).unwrap(), "tailLines=3\n", "{protocol:?}");
    }
}

#[tokio::test]
async fn commands_run_over_websockets_and_spdy() {
    let server = running().await;
    let admin = server.admin();
    for path in ["exec?stdin=1&stdout=1&command=cat", "attach?stdin=1&stdout=1"] {
        let path = format!("{PODS}/p/{path}");
        let mut socket = websocket(&admin, &path, "v5.channel.k8s.io").await;
        socket.send(Message::Binary(b"\x00hello".to_vec().into())).await.unwrap();
        socket.send(Message::Binary(b"\xff\x00".to_vec().into())).await.unwrap();
        let messages: Vec<Bytes> = all(&mut socket).await.into_iter().map(Message::into_data).collect();
        assert!(messages.iter().any(|m| &m[..] == b"\x01hello"), "{path}: {messages:?}");
        let last: Value = serde_json::from_slice(&messages.last().unwrap()[1..]).unwrap();
        assert_eq!(last["status"], "Success", "{path}");
        speaks_spdy(&admin, &path, "v4.channel.k8s.io").await;
    }
}

/// Sends a ping, which the agent sends back.
async fn speaks_spdy(admin: &Client, path: &str, protocol: &str) {
    let mut stream = admin.with("x-stream-protocol-version", protocol).upgrade(path, "SPDY/3.1").await;
    stream.write_all(&[0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1]).await.unwrap();
    let mut pong = [0; 12];
    stream.read_exact(&mut pong).await.unwrap();
    assert_eq!(pong, [0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1]);
}

#[tokio::test]
async fn ports_are_forwarded_over_websockets_and_spdy() {
    let server = running().await;
    let admin = server.admin();
    let path = format!("{PODS}/p/portforward?ports=80");
    let mut socket = websocket(&admin, &path, "v4.channel.k8s.io").await;
    for channel in [0, 1] {
        assert_eq!(socket.next().await.unwrap().unwrap().into_data()[..], [channel, 80, 0]);
    }
    socket.send(Message::Binary(b"\x00hello".to_vec().into())).await.unwrap();
    assert_eq!(&socket.next().await.unwrap().unwrap().into_data()[..], b"\x00hello");
    speaks_spdy(&admin, &path, "portforward.k8s.io").await;
}

#[tokio::test]
async fn commands_are_refused_where_they_cannot_run() {
    let server = running().await;
    let admin = server.admin();
    let exec = |pod: &str| format!("{PODS}/{pod}/exec?stdout=1&command=true");
    admin.get(&exec("p")).await.refused(400, "BadRequest", "Upgrade request required");
    let asking = admin.with("connection", "Upgrade").with("upgrade", "websocket");
    let homeless = "pod unscheduled does not have a host assigned";
    asking.get(&exec("unscheduled")).await.refused(400, "BadRequest", homeless);
    asking.get(&exec("nobody")).await.refused(404, "NotFound", "pods \"nobody\" not found");
}

#[tokio::test]
async fn what_a_webhook_makes_of_the_options_is_what_runs() {
    let hook = Webhook::start(|_| {
        let operations = json!([{"op": "replace", "path": "/command", "value": ["echo"]},
            {"op": "add", "path": "/container", "value": "c"}, {"op": "add", "path": "/stdin", "value": true}]);
        json!({"allowed": true, "patchType": "JSONPatch", "patch": STANDARD.encode(operations.to_string())})
    })
    .await;
    let server = running().await;
    let admin = server.admin();
    let rules = json!([{"operations": ["CONNECT"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods/exec"]}]);
    let configuration = json!({"metadata": {"name": "m"}, "webhooks": [hook.hook("m.example.com", rules)]});
    let path = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
    admin.post(path, &configuration).await.expect(201);
    admin.get(path).await.expect(200);
    let mut socket =
        websocket(&admin, &format!("{PODS}/p/exec?stdout=1&command=ls"), "v5.channel.k8s.io").await;
    socket.send(Message::Binary(b"\xff\x00".to_vec().into())).await.unwrap();
    let messages: Vec<Bytes> = all(&mut socket).await.into_iter().map(Message::into_data).collect();
    assert!(messages.iter().any(|m| &m[..] == b"\x01input=1&output=1&command=echo"), "{messages:?}");
    let dry = admin.post(&format!("{PODS}/p/exec?command=ls&dryRun=All"), &json!({})).await;
    dry.refused(400, "BadRequest", "dryRun is not supported");
}
