//! Requests to the API server: bytes and JSON in and out, failures in kubectl's words.

use std::collections::HashSet;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use http::{Method, Request, Response};
use http_body_util::BodyExt;
use keelson_client::kube;
use keelson_client::kube::client::Body;
use serde_json::Value;

use crate::failure::Failure;
use crate::value::text;

pub const JSON: &str = "application/json";
pub const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
pub const MERGE_PATCH: &str = "application/merge-patch+json";
pub const STRATEGIC_PATCH: &str = "application/strategic-merge-patch+json";
pub const JSON_PATCH: &str = "application/json-patch+json";
pub const APPLY_PATCH: &str = "application/apply-patch+yaml";

/// One request, built up field by field.
#[derive(Clone, Debug)]
pub struct Call {
    method: Method,
    path: String,
    query: Vec<(String, String)>,
    accept: &'static str,
    content_type: &'static str,
    body: Vec<u8>,
}

impl Call {
    fn new(method: Method, path: impl Into<String>) -> Call {
        Call {
            method,
            path: path.into(),
            query: Vec::new(),
            accept: JSON,
            content_type: JSON,
            body: Vec::new(),
        }
    }

    pub fn get(path: impl Into<String>) -> Call {
        Call::new(Method::GET, path)
    }

    pub fn post(path: impl Into<String>, body: &Value) -> Call {
        Call::new(Method::POST, path).body(JSON, body)
    }

    pub fn put(path: impl Into<String>, body: &Value) -> Call {
        Call::new(Method::PUT, path).body(JSON, body)
    }

    pub fn delete(path: impl Into<String>, options: &Value) -> Call {
        Call::new(Method::DELETE, path).body(JSON, options)
    }

    pub fn patch(path: impl Into<String>, content_type: &'static str, body: &Value) -> Call {
        Call::new(Method::PATCH, path).body(content_type, body)
    }

    fn body(mut self, content_type: &'static str, body: &Value) -> Call {
        self.content_type = content_type;
        self.body = body.to_string().into_bytes();
        self
    }

    pub fn accept(mut self, accept: &'static str) -> Call {
        self.accept = accept;
        self
    }

    /// Adds a parameter; an empty value leaves it out.
    pub fn query(mut self, name: &str, value: impl Into<String>) -> Call {
        let value = value.into();
        if !value.is_empty() {
            self.query.push((name.to_owned(), value));
        }
        self
    }

    fn uri(&self) -> String {
        let mut uri = self.path.clone();
        for (index, (name, value)) in self.query.iter().enumerate() {
            uri.push(if index == 0 && !self.path.contains('?') { '?' } else { '&' });
            uri.push_str(&format!("{}={}", escape(name), escape(value)));
        }
        uri
    }
}

/// Percent-encodes a query value or path segment.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(byte as char),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// The connection to one API server.
pub struct Rest {
    client: kube::Client,
    server: String,
    timeout: Option<Duration>,
    verbosity: u8,
    warned: Mutex<HashSet<String>>,
}

impl Rest {
    pub fn new(client: kube::Client, server: &http::Uri, timeout: Option<Duration>, verbosity: u8) -> Rest {
        let server = server.to_string().trim_end_matches('/').to_owned();
        Rest { client, server, timeout, verbosity, warned: Mutex::default() }
    }

    /// `https://127.0.0.1:6443`.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Sends a call and takes the answer as JSON.
    pub async fn json(&self, call: Call) -> anyhow::Result<Value> {
        let what = format!("{} {}", call.method, call.path);
        let bytes = self.bytes(call).await?;
        if self.verbosity >= 8 {
            eprintln!("Response Body: {}", String::from_utf8_lossy(&bytes));
        }
        serde_json::from_slice(&bytes).with_context(|| format!("read the answer to {what}"))
    }

    pub async fn text(&self, call: Call) -> anyhow::Result<String> {
        Ok(String::from_utf8_lossy(&self.bytes(call).await?).into_owned())
    }

    pub async fn bytes(&self, call: Call) -> anyhow::Result<Bytes> {
        let read = async {
            let response = self.send(call).await?;
            let body = response.into_body().collect().await.map_err(|e| self.unreachable(&e))?;
            Ok(body.to_bytes())
        };
        match self.timeout {
            None => read.await,
            Some(limit) => tokio::time::timeout(limit, read)
                .await
                .map_err(|_| Failure::Unreachable("request timed out (--request-timeout)".to_owned()))?,
        }
    }

    /// Sends a call and streams the answer's bytes.
    pub async fn stream(
        &self,
        call: Call,
    ) -> anyhow::Result<impl Stream<Item = anyhow::Result<Bytes>> + Send + Unpin + use<>> {
        let response = self.send(call).await?;
        let chunks = response.into_body().into_data_stream();
        Ok(Box::pin(chunks.map(|chunk| chunk.context("the stream from the server broke"))))
    }

    /// Sends a watch and yields its events.
    pub async fn watch(
        &self,
        call: Call,
    ) -> anyhow::Result<impl Stream<Item = anyhow::Result<Value>> + Send + Unpin + use<>> {
        let chunks = self.stream(call).await?;
        let events = futures::stream::unfold((chunks, Vec::new()), |(mut chunks, mut buffer)| async move {
            loop {
                if let Some(end) = buffer.iter().position(|b| *b == b'\n') {
                    let line: Vec<u8> = buffer.drain(..=end).collect();
                    if line.trim_ascii().is_empty() {
                        continue;
                    }
                    let event = serde_json::from_slice(&line).context("read a watch event");
                    return Some((event, (chunks, buffer)));
                }
                match chunks.next().await? {
                    Ok(chunk) => buffer.extend_from_slice(&chunk),
                    Err(error) => return Some((Err(error), (chunks, Vec::new()))),
                }
            }
        });
        Ok(Box::pin(events))
    }

    /// Sends a call; an answer that is no success is an error.
    pub async fn send(&self, call: Call) -> anyhow::Result<Response<Body>> {
        let uri = call.uri();
        let started = Instant::now();
        if self.verbosity >= 8 && !call.body.is_empty() {
            eprintln!("Request Body: {}", String::from_utf8_lossy(&call.body));
        }
        let mut request =
            Request::builder().method(call.method.clone()).uri(&uri).header("accept", call.accept);
        if !call.body.is_empty() {
            request = request.header("content-type", call.content_type);
        }
        let request =
            request.body(Body::from(call.body)).with_context(|| format!("make the request {uri}"))?;
        let response = self.client.send(request).await.map_err(|error| self.unreachable(&error))?;
        if self.verbosity >= 6 {
            let took = started.elapsed().as_millis();
            eprintln!("{} {}{uri} {} in {took} milliseconds", call.method, self.server, response.status());
        }
        self.warn(&response);
        if response.status().is_success() {
            return Ok(response);
        }
        let code = response.status();
        let body = response.into_body().collect().await.map(|b| b.to_bytes()).unwrap_or_default();
        Err(Failure::Status(Box::new(status_of(code, &body))).into())
    }

    /// Prints the server's warnings, each once.
    fn warn(&self, response: &Response<Body>) {
        for header in response.headers().get_all("warning") {
            let text = header.to_str().unwrap_or_default();
            let quoted = text.split_once('"').and_then(|(_, rest)| rest.rsplit_once('"')).map(|(t, _)| t);
            let message = quoted.unwrap_or(text).replace("\\\"", "\"").replace("\\\\", "\\");
            let new = self.warned.lock().is_ok_and(|mut warned| warned.insert(message.clone()));
            if new {
                eprintln!("Warning: {message}");
            }
        }
    }

    /// Words for a connection that failed.
    pub fn unreachable(&self, error: &(dyn std::error::Error + 'static)) -> anyhow::Error {
        let chain: Vec<&(dyn std::error::Error + 'static)> =
            std::iter::successors(Some(error), |e| e.source()).collect();
        let refused = chain.iter().any(|e| {
            e.downcast_ref::<std::io::Error>()
                .is_some_and(|e| e.kind() == std::io::ErrorKind::ConnectionRefused)
        });
        if refused {
            let host =
                self.server.split_once("://").map_or(self.server.as_str(), |(_, host)| host).to_owned();
            return Failure::Refused { host }.into();
        }
        let text = chain.last().map(|e| e.to_string()).unwrap_or_default();
        Failure::Unreachable(text).into()
    }
}

/// The `Status` in an error's body, or one made from what came instead.
fn status_of(code: http::StatusCode, body: &[u8]) -> Value {
    match serde_json::from_slice::<Value>(body) {
        Ok(value) if text(&value, "/kind") == "Status" => value,
        _ => {
            let said = String::from_utf8_lossy(body).trim().to_owned();
            let message = if said.is_empty() { code.to_string() } else { said };
            serde_json::json!({"kind": "Status", "code": code.as_u16(), "message": message})
        }
    }
}
