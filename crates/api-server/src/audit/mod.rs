//! Audit: a record of who asked for what, as `audit.k8s.io/v1` Events, as far as the [`policy`] says.
//!
//! A request that is audited carries its record as a task-local; what a part of the server has to say about it
//! ([`annotate`], the decoded body, who impersonates) goes there and nowhere without one. Without audit in the
//! configuration there is never a record.

mod event;
mod log;
pub mod policy;
mod webhook;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use keelson_api_types::StatusError;
use prometheus_client::metrics::counter::Counter;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::body::{Body, Response};
use crate::request::RequestInfo;
use crate::slices::Data;
use crate::types::{Objects, UserInfo};
pub use event::Record;
use policy::{Level, Policy, PolicyError};

/// Lines that wait for a backend.
const QUEUE: usize = 10_000;

/// Of the configuration file.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// An `audit.k8s.io/v1` Policy.
    pub policy_file: PathBuf,
    pub log: Option<LogConfig>,
    pub webhook: Option<WebhookConfig>,
}

/// One event a line; `-` is standard output.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LogConfig {
    pub path: PathBuf,
    /// Megabytes after which another file is begun.
    #[serde(default = "LogConfig::megabytes")]
    pub max_size: u64,
    /// Days that full files are kept; 0 for ever.
    #[serde(default)]
    pub max_age: u64,
    /// Full files that are kept; 0 for all.
    #[serde(default)]
    pub max_backups: usize,
}

impl LogConfig {
    fn megabytes() -> u64 {
        100
    }
}

/// EventLists in batches to an HTTPS server.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WebhookConfig {
    pub url: String,
    /// The authority of the server; the system's own if not given.
    pub ca_file: Option<PathBuf>,
    #[serde(default = "WebhookConfig::batch")]
    pub batch_max_size: usize,
    /// Seconds after which a batch goes that is not full.
    #[serde(default = "WebhookConfig::wait")]
    pub batch_max_wait: u64,
    /// Seconds after which a batch that was not taken is sent again; each further time half as long again.
    #[serde(default = "WebhookConfig::backoff")]
    pub initial_backoff: u64,
}

impl WebhookConfig {
    fn batch() -> usize {
        400
    }

    fn wait() -> u64 {
        30
    }

    fn backoff() -> u64 {
        10
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Policy(#[from] PolicyError),
    #[error("open the audit log {path}")]
    Log { path: PathBuf, source: std::io::Error },
    #[error("read the authority of the audit webhook")]
    Webhook(#[source] std::io::Error),
}

/// The policy and where records go.
pub struct Audit {
    policy: Policy,
    backends: Vec<mpsc::Sender<Arc<str>>>,
    events: Counter,
    lost: Counter,
}

tokio::task_local! {
    static RECORD: RefCell<Record>;
}

impl Audit {
    /// Opens the backends; they end after `shutdown`, once their queues are empty.
    pub fn start(
        config: &Config,
        metrics: &keelson_daemon::Metrics,
        objects: Arc<dyn Objects>,
        shutdown: &CancellationToken,
    ) -> Result<Arc<Self>, Error> {
        let policy = Policy::load(&config.policy_file)?;
        let mut backends = Vec::new();
        let (events, lost) = (Counter::default(), Counter::default());
        metrics.register(|registry| {
            registry.register("apiserver_audit_event", "Audit events made", events.clone());
            registry.register("apiserver_audit_error", "Audit events that no backend took", lost.clone());
        });
        if let Some(config) = &config.log {
            let (sender, queue) = mpsc::channel(QUEUE);
            log::start(config, queue).map_err(|source| Error::Log { path: config.path.clone(), source })?;
            backends.push(sender);
        }
        if let Some(config) = &config.webhook {
            let (sender, queue) = mpsc::channel(QUEUE);
            let hook = webhook::Hook::new(config, objects, lost.clone()).map_err(Error::Webhook)?;
            tokio::spawn(hook.run(queue, shutdown.clone()));
            backends.push(sender);
        }
        Ok(Arc::new(Self { policy, backends, events, lost }))
    }

    /// A record of a request that has just come.
    pub fn begin(self: &Arc<Self>, head: Head<'_>) -> Record {
        Record::new(self.clone(), head)
    }

    fn send(&self, line: &Arc<str>) {
        self.events.inc();
        for backend in &self.backends {
            if backend.try_send(line.clone()).is_err() {
                self.lost.inc();
            }
        }
    }
}

/// What is known of a request before anybody has looked at it.
pub struct Head<'a> {
    pub id: &'a [u8],
    pub uri: String,
    pub info: &'a RequestInfo,
    pub headers: &'a HeaderMap,
    pub peer: SocketAddr,
}

/// Serves a request under its record.
pub async fn recorded<F>(record: Record, work: F) -> Result<Response, StatusError>
where
    F: Future<Output = Result<Response, StatusError>>,
{
    let work = async {
        let mut outcome = work.await;
        let wanted = RECORD.with(|r| r.borrow_mut().response_level(&outcome));
        if let (Level::RequestResponse, Ok(response)) = (wanted, &mut outcome) {
            whole(response);
        }
        let ending = RECORD.with(|r| r.borrow_mut().answered(&outcome));
        // What lasts ends with its body.
        outcome.map(|response| response.map(|body| body.hold(ending)))
    };
    RECORD.scope(RefCell::new(record), work).await
}

/// A body that is made while it is sent becomes one that can be looked at.
fn whole(response: &mut Response) {
    if let Body::Chunks(chunks, _) = response.body_mut() {
        let bytes: Vec<u8> = chunks.flat_map(Data::into_bytes).collect();
        *response.body_mut() = bytes.into();
    }
}

fn on_record(act: impl FnOnce(&mut Record)) {
    // Outside of an audited request there is nothing to do.
    let _ = RECORD.try_with(|record| act(&mut record.borrow_mut()));
}

/// Says who asks; the first stage is recorded. Returns how much of the request is wanted.
pub fn authenticated(user: &UserInfo) -> Level {
    let mut level = Level::None;
    on_record(|record| level = record.authenticated(user));
    level
}

/// Says that a user acts as somebody else.
pub fn impersonating(user: &UserInfo) {
    on_record(|record| record.impersonator = Some(user.clone()));
}

/// Adds what a part of the server has to say about the request; the first to use a key is right.
pub fn annotate(key: &str, value: impl FnOnce() -> String) {
    on_record(|record| {
        record.annotations.entry(key.to_owned()).or_insert_with(value);
    });
}

/// Says that a handler panicked.
pub fn panicked(text: &str) {
    on_record(|record| record.panicked(text));
}

/// Says what the request's body is.
pub fn request_body(content_type: &str, bytes: &[u8]) {
    on_record(|record| record.request_body(content_type, bytes));
}

type Annotations = BTreeMap<String, String>;

/// A body as an object, in whatever encoding it came.
fn object_of(content_type: &str, bytes: &[u8]) -> Option<Value> {
    match content_type.split(';').next().unwrap_or_default().trim() {
        "application/vnd.kubernetes.protobuf" => {
            let envelope = keelson_machinery::proto::open(bytes).ok()?;
            let (group, version) =
                envelope.api_version.rsplit_once('/').unwrap_or(("", &envelope.api_version));
            let ty = keelson_schema::builtin().for_kind(group, version, &envelope.kind)?;
            let mut object = keelson_machinery::proto::decode(ty, envelope.raw).ok()?;
            object["apiVersion"] = envelope.api_version.as_str().into();
            object["kind"] = envelope.kind.as_str().into();
            Some(object)
        }
        kind if kind.ends_with("cbor") => keelson_machinery::cbor::decode(None, bytes).ok(),
        kind if kind.contains("yaml") => Some(keelson_machinery::decode::yaml(bytes).ok()?.0),
        _ => serde_json::from_slice(bytes).ok(),
    }
}

fn retry_after(config: &WebhookConfig, attempt: u32) -> Duration {
    Duration::from_secs(config.initial_backoff).mul_f64(1.5f64.powi(attempt as i32))
}
