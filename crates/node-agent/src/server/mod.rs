//! The agent's own HTTPS server: logs, streams, statistics, for callers whom the API knows and allows.

mod auth;
mod exec;
mod pod_logs;
mod stats;

use crate::context::Context;
use crate::pods::Manager;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use keelson_daemon::tls::{self, ClientAuth, ServerFiles};
use keelson_daemon::{Daemon, serve};
use percent_encoding::percent_decode_str;
use serde_json::json;
use std::convert::Infallible;
use std::sync::Arc;

pub(crate) type Body = BoxBody<Bytes, Infallible>;

pub(crate) fn full(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).boxed()
}

pub(crate) fn answer(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(full(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}

pub(crate) fn plain(status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    answer(status, "text/plain; charset=utf-8", text)
}

fn json_answer(value: &serde_json::Value) -> Response<Body> {
    answer(StatusCode::OK, "application/json", value.to_string())
}

/// Decoded pairs of a query.
pub(crate) fn query(request: &Request<Incoming>) -> Vec<(String, String)> {
    let decode = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
    let text = request.uri().query().unwrap_or_default();
    text.split('&')
        .filter(|p| !p.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(k, v)| (decode(k), decode(v)))
        .collect()
}

pub(crate) fn value<'a>(query: &'a [(String, String)], name: &str) -> Option<&'a str> {
    query.iter().find(|(k, v)| k == name && !v.is_empty()).map(|(_, v)| v.as_str())
}

pub(crate) fn is_set(query: &[(String, String)], name: &str) -> bool {
    value(query, name).is_some_and(|v| v == "1" || v.eq_ignore_ascii_case("true"))
}

#[derive(Clone)]
pub struct Server {
    pub(crate) ctx: Arc<Context>,
    pub(crate) manager: Manager,
    auth: Arc<auth::Auth>,
    stats: Arc<stats::Stats>,
    daemon: Daemon,
}

impl Server {
    pub fn new(ctx: Arc<Context>, manager: Manager, client: kube::Client, daemon: Daemon) -> Self {
        let auth = Arc::new(auth::Auth::new(client, ctx.node_name.clone()));
        let stats = Arc::new(stats::Stats::new(ctx.clone(), manager.clone()));
        Self { ctx, manager, auth, stats, daemon }
    }

    /// Listens and serves in the background; returns the port.
    pub async fn serve(&self) -> anyhow::Result<u16> {
        let pki = &self.ctx.config.pki_dir;
        let tls = tls::server_config(&ServerFiles {
            cert: pki.join("node-agent.crt"),
            key: pki.join("node-agent.key"),
            client_cas: vec![pki.join("ca.crt")],
            client_auth: ClientAuth::Optional,
        })?;
        let listener = serve::listen(self.ctx.config.listen()).await?;
        let port = listener.local_addr()?.port();
        let server = self.clone();
        let handler = move |request: Request<Incoming>| {
            let server = server.clone();
            async move { server.handle(request).await }
        };
        tokio::spawn(serve::serve(listener, tls, self.daemon.shutdown.clone(), handler));
        Ok(port)
    }

    async fn handle(&self, request: Request<Incoming>) -> Response<Body> {
        let path = request.uri().path().to_owned();
        let parts: Vec<String> = path
            .trim_matches('/')
            .split('/')
            .map(|p| percent_decode_str(p).decode_utf8_lossy().into_owned())
            .collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        if let Err(refusal) = self.auth.check(&request, &parts).await {
            return refusal;
        }
        match (request.method(), parts.as_slice()) {
            (_, ["exec" | "attach" | "portForward" | "run", ..]) => exec::handle(self, request, &parts).await,
            (&Method::GET, ["containerLogs", namespace, pod, container]) => {
                pod_logs::handle(self, &request, namespace, pod, container).await
            }
            (&Method::GET, ["healthz" | "livez" | "readyz", ..] | ["metrics"]) => {
                self.daemon.respond(&request).map(BodyExt::boxed)
            }
            (&Method::GET, ["pods"] | ["runningpods"]) => {
                let items = self.manager.pods();
                json_answer(&json!({ "kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items }))
            }
            (&Method::GET, ["stats", "summary"]) => json_answer(&self.stats.summary().await),
            (&Method::GET, ["metrics", "resource"]) => {
                answer(StatusCode::OK, "text/plain; version=0.0.4", self.stats.resource_metrics().await)
            }
            (&Method::GET, ["metrics", "cadvisor"]) => {
                answer(StatusCode::OK, "text/plain; version=0.0.4", self.stats.container_metrics().await)
            }
            (&Method::GET, ["metrics", "probes"]) => answer(StatusCode::OK, "text/plain; version=0.0.4", ""),
            (&Method::GET, ["configz"]) => json_answer(&self.configz()),
            (&Method::GET, ["logs", rest @ ..]) => node_logs(rest),
            (&Method::GET, _) => plain(StatusCode::NOT_FOUND, "404 page not found\n"),
            _ => plain(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n"),
        }
    }

    /// The settings that clients of a kubelet look for here.
    fn configz(&self) -> serde_json::Value {
        let config = &self.ctx.config;
        json!({ "kubeletconfig": {
            "kind": "KubeletConfiguration",
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "address": config.bind.address,
            "port": config.bind.port,
            "clusterDNS": config.cluster_dns,
            "clusterDomain": config.cluster_domain,
            "maxPods": config.max_pods,
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": config.cgroup_root,
            "containerLogMaxSize": config.container_log.max_size,
            "containerLogMaxFiles": config.container_log.max_files,
            "imageGCHighThresholdPercent": config.image_gc.high_percent,
            "imageGCLowThresholdPercent": config.image_gc.low_percent,
            "nodeLeaseDurationSeconds": 40,
            "resolvConf": config.resolv_conf,
        } })
    }
}

/// Files below /var/log: a listing of a directory, the text of a file.
fn node_logs(rest: &[&str]) -> Response<Body> {
    let not_found = || plain(StatusCode::NOT_FOUND, "404 page not found\n");
    let root = std::path::Path::new("/var/log");
    let path = rest.iter().fold(root.to_owned(), |path, part| path.join(part));
    // Links and dots may lead elsewhere.
    let Ok(path) = std::fs::canonicalize(&path) else { return not_found() };
    if !path.starts_with(root) {
        return not_found();
    }
    if path.is_dir() {
        let entries = std::fs::read_dir(&path).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries
            .map(|e| {
                let slash = if e.path().is_dir() { "/" } else { "" };
                format!("{}{slash}", e.file_name().to_string_lossy())
            })
            .collect();
        names.sort();
        let lines: String = names.iter().map(|n| format!("<a href=\"{n}\">{n}</a>\n")).collect();
        return answer(StatusCode::OK, "text/html; charset=utf-8", format!("<pre>\n{lines}</pre>\n"));
    }
    match std::fs::read(&path) {
        Ok(bytes) => plain(StatusCode::OK, bytes),
        Err(_) => not_found(),
    }
}
