//! log, exec, attach and portforward: the node agent's, reached through us.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::meta::string;
use http::header::UPGRADE;
use http::{Method, StatusCode};
use keelson_api_types::{Gvr, StatusError};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use crate::app::{App, Call};
use crate::authz::allow;
use crate::body::{Body, Response};
use crate::node::{Forward, Target};
use crate::registry::Resource;
use crate::response;
use crate::types::{AdmissionRequest, Attributes, Operation};
use crate::verbs::get;

const AGENT_PORT: u16 = 10250;
const COMPONENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

pub async fn serve(
    app: &Arc<App>,
    call: &mut Call,
    resource: &Arc<Resource>,
) -> Result<Response, StatusError> {
    let (namespace, name) = (call.info.namespace.clone(), call.info.name.clone());
    let action = call.info.subresource.clone();
    let entry = get::read(app, resource, &namespace, &name, None).await?;
    let pod: Value = serde_json::from_slice(&entry.bytes).map_err(StatusError::internal)?;
    let log = action == "log";
    if !log {
        may_connect(app, call).await?;
        if !call.headers.contains_key(UPGRADE) {
            return Err(StatusError::bad_request("Upgrade request required"));
        }
        admit(app, call, resource).await?;
    }
    let node = string(&pod["spec"], "nodeName").to_owned();
    if log {
        check_log_options(call)?;
    }
    let container = match action.as_str() {
        "portforward" => String::new(),
        _ => container(&pod, call.query.get("container").unwrap_or_default(), log)?,
    };
    if node.is_empty() {
        if log {
            // Nothing has been written yet.
            return Ok(response::text(StatusCode::OK, "text/plain", Body::empty()));
        }
        return Err(StatusError::bad_request(format!("pod {name} does not have a host assigned")));
    }
    let phase = string(&pod["status"], "phase");
    if matches!(action.as_str(), "exec" | "attach") && matches!(phase, "Succeeded" | "Failed") {
        let what = if action == "exec" { "exec into" } else { "attach to" };
        return Err(StatusError::bad_request(format!(
            "cannot {what} a container in a completed pod; current phase is {phase}"
        )));
    }
    let base = match action.as_str() {
        "log" => format!("/containerLogs/{namespace}/{name}/{container}"),
        "portforward" => format!("/portForward/{namespace}/{name}"),
        other => format!("/{other}/{namespace}/{name}/{container}"),
    };
    let query = agent_query(call, &action);
    let path = if query.is_empty() { base } else { format!("{base}?{query}") };
    let target = Target { address: agent_address(app, &node)?, node_agent: true, path };
    let forward = Forward {
        method: if log { Method::GET } else { call.method.clone() },
        headers: &call.headers,
        body: None,
        upgrade: call.upgrade.take(),
        prefix: None,
    };
    let mut answer = app.node.forward(&target, forward).await?;
    if log && answer.status().is_success() {
        let kind = http::HeaderValue::from_static("text/plain");
        answer.headers_mut().entry(http::header::CONTENT_TYPE).or_insert(kind);
    }
    Ok(answer)
}

/// Streams change things, so that reading rights are not enough for them, whatever the method.
async fn may_connect(app: &App, call: &Call) -> Result<(), StatusError> {
    let info = &call.info;
    let attributes = Attributes {
        user: &call.user,
        verb: "create",
        group: &info.group,
        version: &info.version,
        resource: &info.resource,
        subresource: &info.subresource,
        namespace: &info.namespace,
        name: &info.name,
        path: &info.path,
        is_resource: true,
        field_selector: None,
        label_selector: None,
    };
    allow(app.authorizer()?, &attributes).await
}

pub(super) async fn admit(app: &App, call: &mut Call, resource: &Resource) -> Result<(), StatusError> {
    let options = json!({});
    let admission = app.security()?.admission();
    let mut request = AdmissionRequest {
        op: Operation::Connect,
        user: &call.user,
        gvk: &resource.gvk,
        gvr: &resource.gvr,
        subresource: &call.info.subresource,
        namespace: &call.info.namespace,
        name: &call.info.name,
        object: None,
        old: None,
        options: &options,
        dry_run: false,
        warnings: Vec::new(),
    };
    let outcome = match admission.admit(&mut request).await {
        Ok(()) => admission.validate(&mut request).await,
        refused => refused,
    };
    let mut warnings = request.warnings;
    call.warnings.append(&mut warnings);
    outcome
}

fn check_log_options(call: &Call) -> Result<(), StatusError> {
    use keelson_api_types::{FieldError, GroupKind};
    let mut errors = Vec::new();
    let number = |name: &str| call.query.get(name).and_then(|t| t.parse::<i64>().ok());
    if number("tailLines").is_some_and(|n| n < 0) {
        let detail = "must be greater than or equal to 0";
        errors.push(FieldError::invalid("tailLines", number("tailLines").unwrap_or(0), detail));
    }
    for name in ["limitBytes", "sinceSeconds"] {
        if let Some(n) = number(name).filter(|n| *n < 1) {
            errors.push(FieldError::invalid(name, n, "must be greater than 0"));
        }
    }
    if call.query.get("sinceSeconds").is_some() && call.query.get("sinceTime").is_some() {
        let detail = "at most one of `sinceTime` or `sinceSeconds` may be specified";
        errors.push(FieldError::forbidden("", detail));
    }
    if errors.is_empty() {
        return Ok(());
    }
    Err(StatusError::invalid(&GroupKind::new("", "PodLogOptions"), &call.info.name, errors))
}

/// The container asked for, or the one there is.
fn container(pod: &Value, asked: &str, log: bool) -> Result<String, StatusError> {
    let names = |list: &str| -> Vec<&str> {
        pod["spec"][list].as_array().into_iter().flatten().map(|c| string(c, "name")).collect()
    };
    let (main, init, ephemeral) =
        (names("containers"), names("initContainers"), names("ephemeralContainers"));
    let pod_name = crate::meta::text(pod, "name");
    if !asked.is_empty() {
        if main.contains(&asked) || init.contains(&asked) || ephemeral.contains(&asked) {
            return Ok(asked.to_owned());
        }
        return Err(StatusError::bad_request(format!("container {asked} is not valid for pod {pod_name}")));
    }
    let default = keelson_api_types::meta::annotation(pod, "kubectl.kubernetes.io/default-container");
    match (main.as_slice(), default.filter(|d| main.contains(d))) {
        ([one], _) => Ok((*one).to_owned()),
        (_, Some(default)) if !log => Ok(default.to_owned()),
        _ => {
            let mut message = format!(
                "a container name must be specified for pod {pod_name}, choose one of: [{}]",
                main.join(" ")
            );
            if !init.is_empty() {
                message.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
            }
            Err(StatusError::bad_request(message))
        }
    }
}

/// The options in the names that node agents take.
fn agent_query(call: &Call, action: &str) -> String {
    let mut pairs: Vec<(&str, String)> = Vec::new();
    match action {
        "log" => {
            for name in [
                "follow",
                "previous",
                "timestamps",
                "sinceSeconds",
                "sinceTime",
                "tailLines",
                "limitBytes",
                "stream",
            ] {
                pairs.extend(call.query.get(name).map(|v| (name, v.to_owned())));
            }
        }
        "portforward" => pairs.extend(call.query.all("ports").map(|p| ("port", p.to_owned()))),
        _ => {
            for (ours, theirs) in
                [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")]
            {
                if call.query.flag(ours) == Some(true) {
                    pairs.push((theirs, "1".into()));
                }
            }
            pairs.extend(call.query.all("command").map(|c| ("command", c.to_owned())));
        }
    }
    let encoded = pairs.iter().map(|(k, v)| format!("{k}={}", utf8_percent_encode(v, COMPONENT)));
    encoded.collect::<Vec<_>>().join("&")
}

/// Where a node's agent listens.
pub(super) fn agent_address(app: &App, node: &str) -> Result<SocketAddr, StatusError> {
    let nodes =
        app.registry.get(&Gvr::new("", "v1", "nodes")).ok_or_else(|| StatusError::internal("no nodes"))?;
    let entry = nodes.cache.get(node);
    let entry = entry.ok_or_else(|| StatusError::not_found(&nodes.group_resource(), node))?;
    let object: Value = serde_json::from_slice(&entry.bytes).map_err(StatusError::internal)?;
    let addresses = object["status"]["addresses"].as_array().cloned().unwrap_or_default();
    let of_kind = |kind: &str| {
        let found = addresses.iter().find(|a| string(a, "type") == kind)?;
        string(found, "address").parse::<IpAddr>().ok()
    };
    let ip = of_kind("InternalIP").or_else(|| of_kind("ExternalIP"));
    let ip =
        ip.ok_or_else(|| StatusError::internal(format!("no preferred addresses found for node {node:?}")))?;
    let port = object["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"].as_u64();
    Ok(SocketAddr::new(ip, port.and_then(|p| u16::try_from(p).ok()).filter(|p| *p > 0).unwrap_or(AGENT_PORT)))
}
