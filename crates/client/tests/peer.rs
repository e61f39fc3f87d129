//! A peer with an API server's list, watch and write rules, and switches for what can go wrong.

use bytes::Bytes;
use futures::StreamExt;
use http::{Method, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;
use tokio::sync::mpsc;

type Line = Result<Frame<Bytes>, io::Error>;
type Answer = UnsyncBoxBody<Bytes, io::Error>;

#[derive(Clone, Default)]
pub struct Peer(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    objects: BTreeMap<Id, Value>,
    version: u64,
    history: Vec<(u64, &'static str, Id, Value)>,
    compacted: u64,
    down: bool,
    writes_fail: bool,
    watchers: Vec<(String, mpsc::UnboundedSender<Line>)>,
    requests: Vec<String>,
}

/// Plural, namespace, name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Id(String, String, String);

impl Peer {
    pub fn client(&self) -> kube::Client {
        let peer = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let peer = peer.clone();
            async move { peer.answer(request).await }
        });
        kube::Client::new(service, "default")
    }

    /// Writes an object as if another client had.
    pub fn put(&self, plural: &str, object: Value) {
        let meta = &object["metadata"];
        let text = |field: &str| meta[field].as_str().unwrap_or_default().to_owned();
        self.0.lock().write(Id(plural.to_owned(), text("namespace"), text("name")), object);
    }

    pub fn remove(&self, plural: &str, namespace: &str, name: &str) {
        self.0.lock().remove(&Id(plural.to_owned(), namespace.to_owned(), name.to_owned()));
    }

    pub fn get(&self, plural: &str, namespace: &str, name: &str) -> Option<Value> {
        self.0.lock().objects.get(&Id(plural.to_owned(), namespace.to_owned(), name.to_owned())).cloned()
    }

    pub fn all(&self, plural: &str) -> Vec<Value> {
        self.0
            .lock()
            .objects
            .iter()
            .filter(|(id, _)| id.0 == plural)
            .map(|(_, object)| object.clone())
            .collect()
    }

    /// What was asked for so far, oldest first, as `METHOD path?query`.
    pub fn requests(&self) -> Vec<String> {
        self.0.lock().requests.clone()
    }

    /// Breaks all watches.
    pub fn disconnect(&self) {
        for (_, watcher) in self.0.lock().watchers.drain(..) {
            let _ = watcher.send(Err(io::Error::from(io::ErrorKind::ConnectionReset)));
        }
    }

    /// Breaks all watches and answers nothing until [`Peer::start`].
    pub fn stop(&self) {
        self.0.lock().down = true;
        self.disconnect();
    }

    pub fn start(&self) {
        self.0.lock().down = false;
    }

    /// From now on the history does not reach back before the present.
    pub fn compact(&self) {
        let mut state = self.0.lock();
        state.compacted = state.version;
    }

    pub fn fail_writes(&self, fail: bool) {
        self.0.lock().writes_fail = fail;
    }

    /// Tells all watchers the present version without a change.
    pub fn bookmark(&self) -> u64 {
        let mut state = self.0.lock();
        state.version += 1;
        let version = state.version;
        let event = json!({ "type": "BOOKMARK", "object": { "metadata": { "resourceVersion": version.to_string() } } });
        state.watchers.retain(|(_, watcher)| watcher.send(line(&event)).is_ok());
        version
    }

    async fn answer(&self, request: Request<Body>) -> Result<Response<Answer>, io::Error> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
        let mut state = self.0.lock();
        state.requests.push(format!("{} {}", parts.method, parts.uri));
        if state.down {
            return Err(io::Error::from(io::ErrorKind::ConnectionRefused));
        }
        if state.writes_fail && parts.method != Method::GET {
            return Ok(failure(500, "InternalError"));
        }
        let id = parse(parts.uri.path());
        let query = parts.uri.query().unwrap_or_default();
        let query: HashMap<&str, &str> = query.split('&').filter_map(|pair| pair.split_once('=')).collect();
        Ok(state.answer(&parts.method, id, &query, body))
    }
}

impl State {
    fn answer(
        &mut self,
        method: &Method,
        id: Id,
        query: &HashMap<&str, &str>,
        body: Value,
    ) -> Response<Answer> {
        let found = self.objects.get(&id).cloned();
        let stale = |found: &Value| {
            let wanted = &body["metadata"]["resourceVersion"];
            !wanted.is_null() && *wanted != found["metadata"]["resourceVersion"]
        };
        match (method.as_str(), found) {
            ("GET", _) if query.contains_key("watch") => self.watch(&id, query),
            ("GET", _) if id.2.is_empty() => self.list(&id, query),
            ("GET", Some(found)) => success(&found),
            ("POST", _) => {
                let name = body["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                let id = Id(id.0, id.1, name);
                match self.objects.contains_key(&id) {
                    true => failure(409, "AlreadyExists"),
                    false => success(&self.write(id, body)),
                }
            }
            ("PUT", Some(found)) if stale(&found) => failure(409, "Conflict"),
            ("PUT", Some(_)) => success(&self.write(id, body)),
            ("PATCH", Some(mut found)) => {
                for (key, value) in body.as_object().unwrap() {
                    found[key] = value.clone();
                }
                success(&self.write(id, found))
            }
            ("DELETE", Some(found)) => {
                self.remove(&id);
                success(&found)
            }
            _ => failure(404, "NotFound"),
        }
    }

    fn list(&self, id: &Id, query: &HashMap<&str, &str>) -> Response<Answer> {
        let limit: usize = query.get("limit").map_or(usize::MAX, |l| l.parse().unwrap());
        let start: usize = query.get("continue").map_or(0, |c| c.parse().unwrap());
        let all: Vec<&Value> =
            self.objects.iter().filter(|(other, _)| within(id, other)).map(|(_, o)| o).collect();
        let page: Vec<&&Value> = all.iter().skip(start).take(limit).collect();
        let next = (start + page.len() < all.len()).then(|| (start + page.len()).to_string());
        let version = self.version.to_string();
        success(
            &json!({ "metadata": { "resourceVersion": version, "continue": next.unwrap_or_default() }, "items": page }),
        )
    }

    fn watch(&mut self, id: &Id, query: &HashMap<&str, &str>) -> Response<Answer> {
        let after: u64 = query["resourceVersion"].parse().unwrap();
        let (sender, lines) = mpsc::unbounded_channel();
        if after < self.compacted {
            let status = json!({ "kind": "Status", "status": "Failure", "code": 410, "reason": "Expired", "message": "too old" });
            let _ = sender.send(line(&json!({ "type": "ERROR", "object": status })));
        } else {
            for (version, kind, other, object) in &self.history {
                if *version > after && within(id, other) {
                    let _ = sender.send(line(&json!({ "type": kind, "object": object })));
                }
            }
            self.watchers.push((id.0.clone(), sender));
        }
        let lines =
            futures::stream::unfold(lines, |mut lines| async { lines.recv().await.map(|l| (l, lines)) });
        Response::new(StreamBody::new(lines.boxed()).boxed_unsync())
    }

    fn write(&mut self, id: Id, mut object: Value) -> Value {
        self.version += 1;
        let kind = if self.objects.contains_key(&id) { "MODIFIED" } else { "ADDED" };
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        if object["metadata"]["uid"].is_null() {
            object["metadata"]["uid"] = format!("uid-{}", id.2).into();
        }
        self.objects.insert(id.clone(), object.clone());
        self.tell(kind, id, object.clone());
        object
    }

    fn remove(&mut self, id: &Id) {
        let mut object = self.objects.remove(id).unwrap();
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.tell("DELETED", id.clone(), object);
    }

    fn tell(&mut self, kind: &'static str, id: Id, object: Value) {
        let event = json!({ "type": kind, "object": object });
        self.watchers.retain(|(plural, watcher)| *plural != id.0 || watcher.send(line(&event)).is_ok());
        self.history.push((self.version, kind, id, object));
    }
}

fn within(collection: &Id, id: &Id) -> bool {
    collection.0 == id.0 && (collection.1.is_empty() || collection.1 == id.1)
}

/// `/api/v1/…` or `/apis/GROUP/VERSION/…`.
fn parse(path: &str) -> Id {
    let mut parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    parts.drain(..if parts[0] == "api" { 2 } else { 3 });
    let namespace = if parts[0] == "namespaces" { parts.drain(..2).nth(1).unwrap() } else { "" };
    Id(parts[0].to_owned(), namespace.to_owned(), parts.get(1).unwrap_or(&"").to_string())
}

fn line(event: &Value) -> Line {
    Ok(Frame::data(Bytes::from(format!("{event}\n"))))
}

fn success(body: &Value) -> Response<Answer> {
    Response::new(Full::from(body.to_string()).map_err(|e| match e {}).boxed_unsync())
}

fn failure(code: u16, reason: &str) -> Response<Answer> {
    let status =
        json!({ "kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": reason });
    let mut response = success(&status);
    *response.status_mut() = code.try_into().unwrap();
    response
}
