//! `/exec`, `/attach`, `/run` and `/portForward`: from the caller's streams to the runtime's.

use super::{Body, Server, is_set, plain, query, value};
use crate::pods::observe::{Instance, PodState, observe};
use crate::pods::spec;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use k8s_openapi::api::core::v1::Pod;
use keelson_cri::v1::{AttachRequest, ExecRequest};
use keelson_streams::client::{Forwarder, bridge};
use keelson_streams::forward::{self, Pair};
use keelson_streams::remote::{self, Options};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

pub async fn handle(server: &Server, request: Request<Incoming>, parts: &[&str]) -> Response<Body> {
    // With or without the pod's uid in the path.
    let (kind, namespace, name, rest) = match parts {
        [kind, namespace, name, rest @ ..] => (*kind, *namespace, *name, rest),
        _ => return plain(StatusCode::NOT_FOUND, "404 page not found\n"),
    };
    let Some(pod) = server.manager.pod(namespace, name) else {
        return plain(StatusCode::NOT_FOUND, format!("pod does not exist: {namespace}/{name}"));
    };
    let runtime = server.ctx.runtime.as_ref();
    let state = match observe(runtime, spec::uid(&pod), &PodState::default()).await {
        Ok(state) => state,
        Err(e) => return plain(StatusCode::INTERNAL_SERVER_ERROR, e.user_message()),
    };
    if kind == "portForward" {
        return port_forward(server, request, &pod, &state).await;
    }
    let Some(container) = rest.last() else {
        return plain(StatusCode::NOT_FOUND, "404 page not found\n");
    };
    let running = state.running().find(|i| i.name == *container).cloned();
    let Some(instance) = running else {
        let message = format!("container not found (\"{container}\")");
        return plain(StatusCode::NOT_FOUND, message);
    };
    match kind {
        "run" => run(server, &request, &instance).await,
        "attach" => stream(server, request, &pod, &instance, true).await,
        _ => stream(server, request, &pod, &instance, false).await,
    }
}

/// Runs a command and answers with what it wrote.
async fn run(server: &Server, request: &Request<Incoming>, instance: &Instance) -> Response<Body> {
    let query = query(request);
    let command: Vec<String> = match value(&query, "cmd") {
        Some(command) => command.split(' ').map(str::to_owned).collect(),
        None => return plain(StatusCode::BAD_REQUEST, "missing cmd\n"),
    };
    match server.ctx.runtime.exec_sync(&instance.id, command, Duration::ZERO).await {
        Ok(answer) => {
            let mut output = answer.stdout;
            output.extend(answer.stderr);
            plain(StatusCode::OK, output)
        }
        Err(e) => plain(StatusCode::INTERNAL_SERVER_ERROR, e.user_message()),
    }
}

async fn stream(
    server: &Server,
    mut request: Request<Incoming>,
    pod: &Arc<Pod>,
    instance: &Instance,
    attach: bool,
) -> Response<Body> {
    let query = query(&request);
    // The API server's names, and those of the API's own options.
    let either = |a: &str, b: &str| is_set(&query, a) || is_set(&query, b);
    let mut options = Options {
        stdin: either("input", "stdin"),
        stdout: either("output", "stdout"),
        stderr: either("error", "stderr"),
        tty: is_set(&query, "tty"),
    };
    if attach {
        // Whether there is a terminal was decided when the container was made.
        let ephemeral = spec::ephemeral_containers(pod);
        let all = spec::containers(pod).iter().chain(spec::init_containers(pod));
        let mut all = all.chain(ephemeral.iter().map(|(c, _)| c));
        options.tty = all.find(|c| c.name == instance.name).is_some_and(|c| c.tty == Some(true));
    }
    let options = match options.checked() {
        Ok(options) => options,
        Err(refused) => return plain(refused.status, refused.message),
    };
    let (response, pending) = match remote::accept(&mut request, options) {
        Ok(accepted) => accepted,
        Err(refused) => return plain(refused.status, refused.message),
    };
    let runtime = &server.ctx.runtime;
    let url = match attach {
        true => {
            let Options { stdin, stdout, stderr, tty } = options;
            runtime
                .attach(AttachRequest { container_id: instance.id.clone(), stdin, tty, stdout, stderr })
                .await
        }
        false => {
            let cmd: Vec<String> =
                query.iter().filter(|(k, _)| k == "command").map(|(_, v)| v.clone()).collect();
            let Options { stdin, stdout, stderr, tty } = options;
            runtime
                .exec(ExecRequest { container_id: instance.id.clone(), cmd, tty, stdin, stdout, stderr })
                .await
        }
    };
    let url = match url {
        Ok(url) => url,
        Err(e) => return plain(StatusCode::INTERNAL_SERVER_ERROR, e.user_message()),
    };
    tokio::spawn(async move {
        match pending.session().await {
            Ok(session) => bridge(session, &url, options).await,
            Err(error) => tracing::debug!("a stream did not come about: {}", crate::volumes::chain(&error)),
        }
    });
    response.map(|()| http_body_util::Empty::new().boxed())
}

async fn port_forward(
    server: &Server,
    mut request: Request<Incoming>,
    pod: &Arc<Pod>,
    state: &PodState,
) -> Response<Body> {
    let Some(sandbox) = state.sandbox().map(|s| s.id.clone()) else {
        let message = format!("not found (\"{}\")", spec::full_name(pod));
        return plain(StatusCode::NOT_FOUND, message);
    };
    let query = query(&request);
    let ports = query
        .iter()
        .filter(|(k, _)| k == "port" || k == "ports")
        .flat_map(|(_, v)| v.split(',').map(str::to_owned).collect::<Vec<_>>())
        .filter_map(|p| p.parse().ok())
        .collect();
    let (response, pending) = match forward::accept(&mut request, ports) {
        Ok(accepted) => accepted,
        Err(refused) => return plain(refused.status, refused.message),
    };
    let runtime = server.ctx.runtime.clone();
    tokio::spawn(async move {
        let mut forward = match pending.forward().await {
            Ok(forward) => forward,
            Err(error) => {
                tracing::debug!("port forwarding did not come about: {}", crate::volumes::chain(&error));
                return;
            }
        };
        while let Some(pair) = forward.next().await {
            let (runtime, sandbox) = (runtime.clone(), sandbox.clone());
            tokio::spawn(async move {
                let url = runtime.port_forward(&sandbox, vec![i32::from(pair.port)]).await;
                let url = url.map_err(|e| e.user_message());
                join(pair, url).await;
            });
        }
        forward.finish().await;
    });
    response.map(|()| http_body_util::Empty::new().boxed())
}

/// Carries one connection; what goes wrong is told on its error stream.
async fn join(pair: Pair, url: Result<String, String>) {
    let Pair { port, mut read, mut write, mut error } = pair;
    let connect = async {
        let mut forwarder = Forwarder::connect(&url?).await.map_err(|e| crate::volumes::chain(&e))?;
        let streams = forwarder.open(port).await.map_err(|e| crate::volumes::chain(&e))?;
        Ok::<_, String>((forwarder, streams))
    };
    let (forwarder, (data, mut trouble)) = match connect.await {
        Ok(connected) => connected,
        Err(message) => {
            let _ =
                error.write_all(format!("error forwarding port {port} to pod: {message}").as_bytes()).await;
            return;
        }
    };
    let (mut from, mut to) = tokio::io::split(data);
    let inward = async {
        let _ = tokio::io::copy(&mut read, &mut to).await;
        let _ = to.shutdown().await;
    };
    let outward = async {
        let _ = tokio::io::copy(&mut from, &mut write).await;
        let _ = write.shutdown().await;
    };
    let told = async {
        let mut message = Vec::new();
        let _ = trouble.read_to_end(&mut message).await;
        message
    };
    // The pod's side decides: when it has ended, what the client still sends has nowhere to go.
    let (message, ()) = tokio::select! {
        done = async { tokio::join!(told, outward) } => done,
        () = async { inward.await; std::future::pending::<()>().await } => unreachable!("waits for ever"),
    };
    if !message.is_empty() {
        let _ = error.write_all(&message).await;
    }
    drop(forwarder);
}
