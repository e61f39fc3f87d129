//! Whether an extension server can be reached: the checks behind an APIService's `Available` condition, with
//! upstream's reasons and messages.

use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use http::HeaderMap;
use keelson_api_types::{Gvr, StatusError};
use serde_json::{Value, json};

use super::{Remote, gvr, proxy};
use crate::app::App;
use crate::endpoints;
use crate::meta::string;
use crate::subresources::binding::set_condition;
use crate::types::{Objects, UserInfo};

const PROBE: Duration = Duration::from_secs(5);
/// How many endpoints are probed; one that answers is enough.
const PROBES: usize = 5;

/// What the condition says.
#[derive(Debug, PartialEq, Eq)]
pub struct Verdict {
    reason: &'static str,
    message: String,
}

impl Verdict {
    fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }

    pub fn is_available(&self) -> bool {
        self.reason == "Passed"
    }
}

pub fn is_available(object: &Value) -> bool {
    let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().any(|c| string(c, "type") == "Available" && string(c, "status") == "True")
}

pub async fn check(app: &App, remote: &Remote) -> Verdict {
    match look(app, remote).await {
        Ok(()) => Verdict::new("Passed", "all checks passed"),
        Err(verdict) => verdict,
    }
}

async fn look(app: &App, remote: &Remote) -> Result<(), Verdict> {
    let backend = &remote.backend;
    let (namespace, name, port) = (&backend.namespace, &backend.service, backend.port);
    let service = app.get(&Gvr::new("", "v1", "services"), namespace, name).ok_or_else(|| {
        Verdict::new("ServiceNotFound", format!("service/{name} in {namespace:?} is not present"))
    })?;
    if string(&service["spec"], "type") == "ClusterIP" {
        let port_name = endpoints::named_port(&service, port).ok_or_else(|| {
            let message = format!("service/{name} in {namespace:?} is not listening on port {port}");
            Verdict::new("ServicePortError", message)
        })?;
        let slices = endpoints::slices(app, namespace, name);
        if slices.is_empty() {
            let message = format!("cannot find endpointslices for service/{name} in {namespace:?}");
            return Err(Verdict::new("EndpointsNotFound", message));
        }
        if slices.iter().all(|slice| endpoints::ready(slice, port_name).is_empty()) {
            let message = format!(
                "endpointslices for service/{name} in {namespace:?} have no addresses with port name {port_name:?}"
            );
            return Err(Verdict::new("MissingEndpoints", message));
        }
    }
    probe(app, remote).await.map_err(|message| Verdict::new("FailedDiscoveryCheck", message))
}

/// Asks for the group's discovery, which every extension server must answer.
async fn probe(app: &App, remote: &Remote) -> Result<(), String> {
    let mut places = proxy::resolve(app, &remote.backend)?;
    places.truncate(PROBES);
    let mut probes: FuturesUnordered<_> = places.iter().map(|place| discover(remote, place)).collect();
    let mut last = Ok(());
    while let Some(outcome) = probes.next().await {
        last = outcome;
        if last.is_ok() {
            break;
        }
    }
    last
}

async fn discover(remote: &Remote, place: &str) -> Result<(), String> {
    let url = format!("https://{place}/apis/{}/{}", remote.group, remote.version);
    let user = UserInfo {
        name: "system:kube-aggregator".into(),
        groups: vec!["system:masters".into()],
        ..UserInfo::default()
    };
    let answer = tokio::time::timeout(PROBE, proxy::get(remote, &url, &user, HeaderMap::new())).await;
    let failed = |why: String| format!("failing or missing response from {url}: {why}");
    match answer {
        Err(_) => Err(failed(format!("Get {url:?}: context deadline exceeded"))),
        Ok(Err(error)) => Err(failed(format!("Get {url:?}: {error}"))),
        Ok(Ok(answer)) if answer.status().is_success() => Ok(()),
        Ok(Ok(answer)) => Err(failed(format!("bad status from {url}: {}", answer.status().as_u16()))),
    }
}

/// Writes the condition where it says something else; the other conditions stay.
pub async fn report(app: &App, name: &str, verdict: &Verdict) -> Result<(), StatusError> {
    let Some(stored) = app.get_fresh(&gvr(), "", name).await? else { return Ok(()) };
    let mut object = Value::clone(&stored);
    let mut conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let condition = json!({
        "type": "Available",
        "status": if verdict.is_available() { "True" } else { "False" },
        "reason": verdict.reason,
        "message": verdict.message,
    });
    set_condition(&mut conditions, condition);
    if object["status"]["conditions"] == json!(conditions) {
        return Ok(());
    }
    tracing::info!(service = name, reason = verdict.reason, verdict.message, "an APIService's availability");
    object["status"]["conditions"] = conditions.into();
    match app.update(&gvr(), "", "status", object).await {
        // Whoever wrote meanwhile wakes us again.
        Err(error) if matches!(error.code(), 404 | 409) => Ok(()),
        outcome => outcome.map(drop),
    }
}
