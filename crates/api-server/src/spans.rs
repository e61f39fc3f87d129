//! The span of a request, and those of what it waits for, named and described as upstream's are.

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Version};
use keelson_traces::{Config as TracingConfiguration, Context, Scope, Span, Started, Tracer};
use tokio_util::sync::CancellationToken;

use crate::app::Call;
use crate::body::BoxError;
use crate::config::Config;
use crate::request::RequestInfo;
use crate::structured::Document;
use crate::types::{Peer, UserInfo};

/// Whose traces are gone on with.
const TRUSTED: [&str; 2] = ["system:masters", "system:monitoring"];

impl Document for TracingConfiguration {
    const KIND: &'static str = "TracingConfiguration";
    const VERSIONS: &'static [&'static str] = &["v1", "v1beta1", "v1alpha1"];

    fn problems(&self) -> Vec<String> {
        Self::problems(self)
    }
}

/// Starts what the configuration says; the last spans are sent after `ended`.
pub fn start(config: &Config, ended: &CancellationToken) -> Result<Option<Started>, BoxError> {
    let Some(source) = &config.tracing else { return Ok(None) };
    let instance = crate::run::hostname();
    let resource = [("service.name", "apiserver"), ("service.instance.id", &*instance)];
    Ok(Some(Tracer::start(&source.load()?, &resource, ended.clone())?))
}

tokio::task_local! {
    /// The innermost span that the task is in.
    static SCOPE: Scope;
}

/// Does some work within a span, if there is one.
pub async fn within<T>(span: Option<&Span>, work: impl Future<Output = T>) -> T {
    match span {
        Some(span) => Box::pin(SCOPE.scope(span.scope(), work)).await,
        None => work.await,
    }
}

/// Begins a span of something within the request, if that has one.
pub fn child(name: &str) -> Option<Span> {
    SCOPE.try_with(|scope| scope.begin(name.to_owned())).ok()
}

/// Tells another server, in the request to it, which span it is asked in.
pub fn tell(headers: &mut HeaderMap) {
    let _ = SCOPE.try_with(|scope| scope.context().put_into(headers));
}

/// Begins the span of what a request does with its resource.
pub fn verb(call: &Call) -> Option<Span> {
    let name = match call.info.verb.as_str() {
        "create" => "Create",
        "get" => "Get",
        "list" => "List",
        "update" => "Update",
        "patch" => "Patch",
        "delete" | "deletecollection" => "Delete",
        _ => return None,
    };
    let mut span = child(name)?;
    let info = &call.info;
    let scope = match (info.namespace.is_empty(), info.name.is_empty()) {
        (_, false) => "resource",
        (false, true) => "namespace",
        (true, true) => "cluster",
    };
    for (key, value) in [
        ("api-group", &*info.group),
        ("api-version", &info.version),
        ("resource", &info.resource),
        ("subresource", &info.subresource),
        ("namespace", &info.namespace),
        ("name", &info.name),
        ("scope", scope),
        ("url", &info.path),
        ("verb", &info.verb),
        ("client", &call.peer.address.ip().to_string()),
    ] {
        span.set(key, value);
    }
    Some(span)
}

/// A request's audit id, in its extensions.
#[derive(Clone)]
pub struct AuditId(pub Bytes);

/// Begins the span of an authenticated request, if it is sampled.
pub fn begin(
    tracer: &Tracer,
    parts: &Parts,
    info: &RequestInfo,
    user: &UserInfo,
    peer: &Peer,
) -> Option<Span> {
    let trusted = user.groups.iter().any(|group| TRUSTED.contains(&group.as_str()));
    let mut span = tracer.begin(name(parts, info), Context::of(&parts.headers), trusted)?;
    let header = |name: &str| parts.headers.get(name).and_then(|v| v.to_str().ok());
    let host = header("host").and_then(|host| host.parse::<http::uri::Authority>().ok());
    if let Some(host) = &host {
        span.set("server.address", host.host());
        span.set("server.port", i64::from(host.port_u16().unwrap_or(443)));
    }
    span.set("http.request.method", parts.method.as_str());
    span.set("url.scheme", "https");
    span.set("url.path", parts.uri.path());
    let address = peer.address.ip().to_string();
    span.set("network.peer.address", &*address);
    span.set("network.peer.port", i64::from(peer.address.port()));
    span.set("network.protocol.version", if parts.version == Version::HTTP_2 { "2.0" } else { "1.1" });
    let forwarded = header("x-forwarded-for").and_then(|all| all.split(',').next());
    span.set("client.address", forwarded.unwrap_or(&address));
    if let Some(agent) = header("user-agent") {
        span.set("user_agent.original", agent);
    }
    span.set("http.target", parts.uri.path_and_query().map_or("/", |p| p.as_str()));
    if let Some(id) = parts.extensions.get::<AuditId>() {
        span.set("audit-id", &*String::from_utf8_lossy(&id.0));
    }
    Some(span)
}

/// The method, and the path of a resource without what there is many of.
fn name(parts: &Parts, info: &RequestInfo) -> String {
    let mut name = parts.method.to_string();
    if !info.is_resource {
        return name;
    }
    name.push_str(if info.group.is_empty() { " /api" } else { " /apis/" });
    name.push_str(&info.group);
    name.push('/');
    name.push_str(&info.version);
    if !info.namespace.is_empty() {
        name.push_str("/namespaces/{:namespace}");
    }
    name.push('/');
    name.push_str(&info.resource);
    if !info.name.is_empty() {
        name.push_str("/{:name}");
    }
    if !info.subresource.is_empty() {
        name.push('/');
        name.push_str(&info.subresource);
    }
    name
}
