//! `componentstatuses`: no objects, but what the scheduler, the controller manager and the store answer when asked.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use keelson_api_types::StatusError;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::app::{App, Call};
use crate::body::{Body, Response};
use crate::cache::{Entry, Labels, Texts};
use crate::options::ListOptions;
use crate::presenter::ListMeta;
use crate::registry::Resource;
use crate::verbs::list::selection;

const TIMEOUT: Duration = Duration::from_secs(20);
/// How much of an answer is told.
const ANSWER: usize = 10 << 10;
const STORE: &str = "etcd-0";

/// Where this machine's daemons tell of their health; upstream's ports by default.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Components {
    pub controller_manager: SocketAddr,
    pub scheduler: SocketAddr,
}

impl Default for Components {
    fn default() -> Self {
        let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Self { controller_manager: local(10257), scheduler: local(10259) }
    }
}

/// A component's condition: its status, message and error.
type Outcome = (&'static str, String, String);

/// Answers `get` and `list`.
pub async fn serve(
    app: &Arc<App>,
    call: &mut Call,
    resource: &Arc<Resource>,
) -> Result<Response, StatusError> {
    let components = &app.config.components;
    let all = [
        ("controller-manager", Some(components.controller_manager)),
        (STORE, None),
        ("scheduler", Some(components.scheduler)),
    ];
    let name = call.info.name.as_str();
    if name.is_empty() {
        let presenter = call.presenter(resource)?.check(true)?;
        let selection = selection(resource, "", &ListOptions::parse(&call.query, &call.info)?)?;
        let mut entries = join_all(all.map(|(name, at)| status(app, name, at))).await;
        entries.retain(|entry| selection.matches(entry));
        return Ok(presenter.list(&call.headers, &ListMeta::default(), entries));
    }
    let presenter = call.presenter(resource)?.check(false)?;
    let found = all.iter().find(|(known, _)| *known == name);
    let (name, at) = found.ok_or_else(|| {
        StatusError::not_found(&keelson_api_types::GroupResource::new("", "componentstatus"), name)
    })?;
    Ok(presenter.respond(&call.headers, StatusCode::OK, &*status(app, name, *at).await))
}

async fn status(app: &App, name: &str, at: Option<SocketAddr>) -> Arc<Entry> {
    let (status, message, error) = match at {
        Some(at) => daemon(app, at).await,
        None => store(app).await,
    };
    let mut condition = json!({"type": "Healthy", "status": status});
    for (key, text) in [("message", message), ("error", error)] {
        if !text.is_empty() {
            condition[key] = text.into();
        }
    }
    let object: Value = json!({"kind": "ComponentStatus", "apiVersion": "v1", "metadata": {"name": name},
        "conditions": [condition]});
    let bytes = Bytes::from(keelson_machinery::encode::canonical(&object));
    Arc::new(Entry::new(name.into(), 0, bytes.into(), Labels::default(), Texts::default()))
}

async fn daemon(app: &App, at: SocketAddr) -> Outcome {
    let url = format!("https://{at}/healthz");
    let unknown = |why: &str| ("Unknown", String::new(), format!("Get {url:?}: {why}"));
    let Ok(request) = Request::get(&url).body(Body::empty()) else { return unknown("invalid address") };
    let asked = async {
        let answer = app.backends.unverified_agents.send(request).await?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER).collect().await.map_err(|e| e.to_string())?;
        Ok::<_, String>((status, String::from_utf8_lossy(&body.to_bytes()).into_owned()))
    };
    match tokio::time::timeout(TIMEOUT, asked).await {
        Ok(Ok((status, body))) if status.as_u16() < 400 => ("True", body, String::new()),
        Ok(Ok((status, _))) => {
            ("False", format!("HTTP probe failed with statuscode: {}", status.as_u16()), String::new())
        }
        Ok(Err(why)) => unknown(&why),
        Err(_) => unknown("context deadline exceeded"),
    }
}

async fn store(app: &App) -> Outcome {
    match tokio::time::timeout(TIMEOUT, app.caches.store().revision()).await {
        Ok(Ok(_)) => ("True", "ok".to_owned(), String::new()),
        Ok(Err(error)) => ("False", String::new(), crate::errors::chain(&error)),
        Err(_) => ("False", String::new(), "context deadline exceeded".to_owned()),
    }
}
