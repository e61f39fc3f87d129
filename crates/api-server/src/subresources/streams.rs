//! log, exec, attach and portforward: the node agent's, reached through us.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use futures::TryStreamExt;
use http::{HeaderMap, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Limited};
use keelson_api_types::status::Details;
use keelson_api_types::{GroupResource, Gvk, Gvr, Reason, StatusError};
use keelson_streams::output;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use crate::app::{App, Call};
use crate::authz::allow;
use crate::backend::Error;
use crate::body::{Body, Response};
use crate::meta::string;
use crate::registry::Resource;
use crate::response;
use crate::slices::Data;
use crate::types::{Attributes, Operation};
use crate::verbs::admit::{Action, admit};
use crate::verbs::get;

const AGENT_PORT: u16 = 10250;
/// How much of a node agent's refusal is told.
const REFUSAL_LIMIT: usize = 50_000;
const COMPONENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

pub async fn serve(
    app: &Arc<App>,
    call: &mut Call,
    resource: &Arc<Resource>,
) -> Result<Response, StatusError> {
    if call.info.subresource == "log" {
        return log(app, call, resource).await;
    }
    may_connect(app, call).await?;
    let options = connect(app, call, resource).await?;
    let action = call.info.subresource.clone();
    let pod = pod(app, call, resource).await?;
    let (namespace, name) = (&call.info.namespace, &call.info.name);
    let path = match action.as_str() {
        "portforward" => format!("/portForward/{namespace}/{name}"),
        action => format!("/{action}/{namespace}/{name}/{}", container(&pod, options["container"].as_str())?),
    };
    let node = string(&pod["spec"], "nodeName");
    if node.is_empty() {
        return Err(StatusError::bad_request(format!("pod {name} does not have a host assigned")));
    }
    let uri = agent_uri(app, node, &path, &stream_query(&options))?;
    if call.upgrade_wanted().is_none() {
        return Err(StatusError::bad_request("Upgrade request required"));
    }
    Ok(app.backends.forward(&app.backends.agents, call, uri, HeaderMap::new()).await?)
}

async fn pod(app: &App, call: &Call, resource: &Resource) -> Result<Value, StatusError> {
    let entry = get::read(app, resource, &call.info.namespace, &call.info.name, None).await?;
    entry.decode().map_err(StatusError::internal)
}

/// A container's output: as the body of the answer, or in the messages of a WebSocket.
async fn log(app: &Arc<App>, call: &mut Call, resource: &Resource) -> Result<Response, StatusError> {
    check_log_options(call)?;
    let pod = pod(app, call, resource).await?;
    let (namespace, name) = (&call.info.namespace, &call.info.name);
    let container = container(&pod, call.query.get("container"))?;
    let node = string(&pod["spec"], "nodeName");
    if node.is_empty() {
        // Nothing has been written yet.
        let mut empty = Response::new(Body::empty());
        *empty.status_mut() = StatusCode::NO_CONTENT;
        return Ok(empty);
    }
    let path = format!("/containerLogs/{namespace}/{name}/{container}");
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = agent_uri(app, node, &path, &log_query(call))?;
    let transport = match call.query.flag("insecureSkipTLSVerifyBackend") {
        Some(true) => &app.backends.unverified_agents,
        _ => &app.backends.agents,
    };
    let answer = transport.send(request).await;
    let answer = answer.map_err(|e| StatusError::internal(format!("Get \"https://{node}{path}\": {e}")))?;
    if !answer.status().is_success() {
        return Err(refusal(answer, name).await);
    }
    let output = Body::Relayed(answer.into_body());
    if call.upgrade_wanted().is_some_and(|p| p.eq_ignore_ascii_case("websocket")) {
        return over_websocket(app, call, output);
    }
    Ok(response::text(StatusCode::OK, "text/plain", output))
}

fn over_websocket(app: &App, call: &mut Call, output: Body) -> Result<Response, StatusError> {
    let mut request = Request::new(());
    *request.headers_mut() = call.headers.clone();
    request.extensions_mut().insert(call.upgrade.take().ok_or(Error::NotUpgradable)?);
    let (answer, pending) = output::accept(&mut request)
        .map_err(|r| StatusError::new(r.status.as_u16(), Reason::Unknown, r.message))?;
    app.backends.carry(async move {
        if let Err(error) = pending.send(output.into_data_stream().map_ok(Data::into_bytes)).await {
            tracing::debug!(error = &error as &dyn std::error::Error, "a log's stream ended");
        }
    });
    Ok(answer.map(|()| Body::empty()))
}

/// What a node agent said instead of a log.
async fn refusal(answer: http::Response<hyper::body::Incoming>, pod: &str) -> StatusError {
    let status = answer.status();
    let text = match Limited::new(answer.into_body(), REFUSAL_LIMIT).collect().await {
        Ok(text) => String::from_utf8_lossy(&text.to_bytes()).into_owned(),
        Err(error) => return StatusError::internal(error),
    };
    match status {
        StatusCode::INTERNAL_SERVER_ERROR => StatusError::internal(text),
        StatusCode::BAD_REQUEST => StatusError::bad_request(text),
        StatusCode::NOT_FOUND => {
            let message = format!("the server could not find the requested resource ( pods/log {pod})");
            let kind = GroupResource::new("", "pods/log").to_string();
            let details = Details { kind, name: pod.to_owned(), ..Details::default() };
            StatusError::new(404, Reason::NotFound, message).with_details(details)
        }
        status => StatusError::new(status.as_u16(), Reason::Unknown, text),
    }
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

/// Admits a connection, which is described by its options; what admission made of them.
pub(super) async fn connect(app: &App, call: &mut Call, resource: &Resource) -> Result<Value, StatusError> {
    if call.query.get("dryRun").is_some() {
        return Err(StatusError::bad_request("dryRun is not supported"));
    }
    let subresource = resource.subresource(&call.info.subresource);
    let gvk = subresource.map_or_else(|| resource.gvk.clone(), |s| s.gvk.clone());
    let mut options = connect_options(call, &gvk);
    let action = Action { op: Operation::Connect, gvk: &gvk, options: &Value::Null, dry_run: false };
    admit(app, call, resource, action, &mut options).await?;
    Ok(options)
}

/// The query as an object of the options' kind.
fn connect_options(call: &Call, gvk: &Gvk) -> Value {
    let mut options = json!({"kind": gvk.kind, "apiVersion": gvk.api_version()});
    let all = |name: &str| -> Vec<String> { call.query.all(name).map(str::to_owned).collect() };
    match gvk.kind.as_str() {
        "PodExecOptions" | "PodAttachOptions" => {
            for name in ["stdin", "stdout", "stderr", "tty"] {
                if call.query.flag(name) == Some(true) {
                    options[name] = true.into();
                }
            }
            if let Some(container) = call.query.get("container").filter(|c| !c.is_empty()) {
                options["container"] = container.into();
            }
            let command = all("command");
            if gvk.kind == "PodExecOptions" {
                options["command"] = command.into();
            }
        }
        "PodPortForwardOptions" => {
            let ports: Vec<i64> =
                all("ports").iter().flat_map(|p| p.split(',')).filter_map(|p| p.parse().ok()).collect();
            options["ports"] = ports.into();
        }
        _ => {
            let path = format!("/{}", call.info.rest);
            options["path"] = path.into();
        }
    }
    options
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
    if let Some(stream) = call.query.get("stream") {
        if !["All", "Stderr", "Stdout"].contains(&stream) {
            errors.push(FieldError::not_supported("stream", stream, &["All", "Stderr", "Stdout"]));
        }
        if stream != "All" && call.query.get("tailLines").is_some() {
            let detail = "`tailLines` and specific `stream` are mutually exclusive for now";
            errors.push(FieldError::forbidden("", detail));
        }
    }
    if errors.is_empty() {
        return Ok(());
    }
    Err(StatusError::invalid(&GroupKind::new("", "PodLogOptions"), &call.info.name, errors))
}

/// The container asked for, or the one there is.
fn container(pod: &Value, asked: Option<&str>) -> Result<String, StatusError> {
    let names = |list: &str| -> Vec<&str> {
        pod["spec"][list].as_array().into_iter().flatten().map(|c| string(c, "name")).collect()
    };
    let all = [names("initContainers"), names("containers"), names("ephemeralContainers")].concat();
    let pod_name = crate::meta::text(pod, "name");
    let refused = |why: String| Err(StatusError::bad_request(why));
    match asked.filter(|name| !name.is_empty()) {
        Some(name) if all.contains(&name) => Ok(name.to_owned()),
        Some(name) => refused(format!("container {name} is not valid for pod {pod_name}")),
        None => match names("containers").as_slice() {
            [only] => Ok((*only).to_owned()),
            _ => refused(format!(
                "a container name must be specified for pod {pod_name}, choose one of: [{}]",
                all.join(" ")
            )),
        },
    }
}

/// Where a node's agent answers for a path.
fn agent_uri(app: &App, node: &str, path: &str, query: &str) -> Result<Uri, StatusError> {
    let query = if query.is_empty() { String::new() } else { format!("?{query}") };
    let uri = format!("https://{}{path}{query}", agent_address(app, node)?);
    uri.parse().map_err(|e| StatusError::bad_request(format!("invalid path {path:?}: {e}")))
}

fn log_query(call: &Call) -> String {
    const OPTIONS: [&str; 8] = [
        "follow",
        "previous",
        "timestamps",
        "sinceSeconds",
        "sinceTime",
        "tailLines",
        "limitBytes",
        "stream",
    ];
    query(OPTIONS.into_iter().filter_map(|name| Some((name, call.query.get(name)?.to_owned()))))
}

/// The options of a stream in the names that node agents take.
fn stream_query(options: &Value) -> String {
    let list = |name: &str| options[name].as_array().map(Vec::as_slice).unwrap_or_default();
    let flags = [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")];
    let flags = flags.into_iter().filter(|(ours, _)| options[*ours] == true);
    let command = list("command").iter().filter_map(Value::as_str).map(|word| ("command", word.to_owned()));
    let ports: Vec<String> = list("ports").iter().map(Value::to_string).collect();
    let ports = (!ports.is_empty()).then(|| ("port", ports.join(",")));
    query(flags.map(|(_, theirs)| (theirs, "1".to_owned())).chain(command).chain(ports))
}

fn query<'a>(pairs: impl Iterator<Item = (&'a str, String)>) -> String {
    let encoded = pairs.map(|(k, v)| format!("{k}={}", utf8_percent_encode(&v, COMPONENT)));
    encoded.collect::<Vec<_>>().join("&")
}

/// Where a node's agent listens.
pub(super) fn agent_address(app: &App, node: &str) -> Result<SocketAddr, StatusError> {
    let nodes =
        app.registry.get(&Gvr::new("", "v1", "nodes")).ok_or_else(|| StatusError::internal("no nodes"))?;
    let entry = nodes.cache.get(node);
    let entry = entry.ok_or_else(|| StatusError::not_found(&nodes.group_resource(), node))?;
    let object: Value = entry.decode().map_err(StatusError::internal)?;
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
