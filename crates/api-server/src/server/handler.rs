//! From a request to a response: who asks, what for, whether they may, and then to whoever answers.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use hyper::Request;
use hyper::body::Incoming;
use keelson_api_types::{GroupResource, StatusError};

use crate::app::{App, Call};
use crate::body::{Body, Response};
use crate::fairness::{Schema, Ticket, estimate};
use crate::request::{Query, RequestInfo};
use crate::types::{Attributes, AuthnError, Decision, Peer, UserInfo};
use crate::{audit, discovery, response, subresources, verbs, zpages};

/// Answers one request; never fails and never panics.
pub(super) async fn handle(app: Arc<App>, peer: Peer, refused: bool, request: Request<Incoming>) -> Response {
    let head = request.method() == Method::HEAD;
    let query = Query::parse(request.uri().query());
    let info = RequestInfo::parse(request.method(), request.uri().path(), &query);
    let id = audit_id(request.headers());
    let known =
        || info.is_resource && app.registry.find(&info.group, &info.version, &info.resource).is_some();
    let started = app.requests.begin(request.method(), request.headers(), &info, &query, known);
    let outcome = match app.audit.get() {
        None => guarded(&app, peer, refused, request, query, info).await,
        Some(audit) => {
            let uri = request.uri().path_and_query().map(|p| p.as_str().to_owned()).unwrap_or_default();
            let record = audit.begin(audit::Head {
                id: &id,
                uri,
                info: &info,
                headers: request.headers(),
                peer: peer.address,
            });
            audit::recorded(record, guarded(&app, peer, refused, request, query, info)).await
        }
    };
    let mut response = outcome.unwrap_or_else(|error| response::error(&error));
    if let Ok(id) = HeaderValue::from_maybe_shared(id) {
        response.headers_mut().insert("audit-id", id);
    }
    let mut response = app.requests.end(started, response);
    if head {
        *response.body_mut() = Body::empty();
    }
    response
}

/// The id that the client (or a server before this one) gave the request, or a new one.
fn audit_id(headers: &HeaderMap) -> Bytes {
    let given = headers.get("audit-id").map(HeaderValue::as_bytes).filter(|id| (1..=64).contains(&id.len()));
    given.map_or_else(|| Bytes::from(uuid::Uuid::new_v4().to_string()), Bytes::copy_from_slice)
}

/// A handler's panic becomes an error.
async fn guarded(
    app: &Arc<App>,
    peer: Peer,
    refused: bool,
    request: Request<Incoming>,
    query: Query,
    info: RequestInfo,
) -> Result<Response, StatusError> {
    let path = request.uri().path().to_owned();
    let work = AssertUnwindSafe(route(app, peer, refused, request, query, info)).catch_unwind();
    work.await.unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<&str>()
            .map(|s| (*s).to_owned())
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_default();
        tracing::error!(panic = text, request = path, "a handler panicked");
        audit::panicked(&text);
        Err(StatusError::internal("apiserver panicked; see its log"))
    })
}

async fn route(
    app: &Arc<App>,
    peer: Peer,
    refused: bool,
    request: Request<Incoming>,
    query: Query,
    info: RequestInfo,
) -> Result<Response, StatusError> {
    let (mut parts, body) = request.into_parts();
    if refused && !parts.headers.contains_key(http::header::AUTHORIZATION) {
        return Err(StatusError::unauthorized("Unauthorized"));
    }
    let upgrade = parts.extensions.remove::<hyper::upgrade::OnUpgrade>();
    let user = authenticate(app, &parts, &peer).await?;
    if audit::authenticated(&user) == audit::policy::Level::RequestResponse {
        // What is recorded must be legible.
        parts.headers.remove(http::header::ACCEPT_ENCODING);
    }
    let is_watch = info.verb == "watch";
    let ticket = match is_watch || !info.is_long_running() {
        true => {
            let work = |schema: &Schema| estimate::of(app, &info, &query, schema);
            match app.fairness.enter(&info, &user, work).await {
                Ok(ticket) => Some(ticket),
                Err(refused) => return Ok(refused.respond()),
            }
        }
        false => None,
    };
    let schema = ticket.as_ref().map(Ticket::schema);
    let watching = is_watch.then(|| app.fairness.watchers.register(&info, &query)).flatten();
    let mut call = Call {
        method: parts.method,
        raw_query: parts.uri.query().map(str::to_owned),
        info,
        query,
        headers: parts.headers,
        user,
        peer,
        body: Some(body),
        upgrade,
        warnings: Vec::new(),
        ticket,
    };
    let answer = match authorize(app, &call.user, &call.info, &call.query) {
        Ok(()) => dispatch(app, &mut call).await,
        Err(error) => Err(error),
    };
    let mut answer = answer.unwrap_or_else(|error| response::error_as(&call.headers, &error));
    response::add_warnings(&mut answer, &call.warnings);
    if let Some(schema) = schema {
        schema.mark(&mut answer);
    }
    // What is made while it is sent keeps its seats, and a watch is counted, until then.
    Ok(answer.map(|body| body.hold(call.ticket.take()).hold(watching)))
}

async fn dispatch(app: &Arc<App>, call: &mut Call) -> Result<Response, StatusError> {
    if !call.info.is_resource {
        return paths(app, call);
    }
    let resource = app.resource(&call.info)?;
    call.warnings.extend(resource.custom.as_ref().and_then(|c| c.deprecation.clone()));
    if call.info.subresource.is_empty() {
        verbs::serve(app, call, &resource).await
    } else {
        subresources::serve(app, call, &resource).await
    }
}

/// What is not a resource: discovery, documents, health.
fn paths(app: &Arc<App>, call: &Call) -> Result<Response, StatusError> {
    if !matches!(call.method, Method::GET | Method::HEAD) {
        return Err(StatusError::not_found_path());
    }
    let path = call.info.path.as_str();
    let whole = |response: http::Response<http_body_util::Full<bytes::Bytes>>| {
        response.map(|full| {
            let bytes = http_body_util::BodyExt::collect(full).now_or_never().and_then(Result::ok);
            Body::Whole(bytes.map(http_body_util::Collected::to_bytes))
        })
    };
    if let Some(answer) = app.health.respond(path, call.raw_query.as_deref()) {
        return Ok(whole(answer));
    }
    if let Some(answer) = crate::fairness::dump(&app.fairness, path, &call.query) {
        return Ok(answer);
    }
    if path == "/metrics" {
        return Ok(whole(app.metrics.respond(&call.headers)));
    }
    if let Some(answer) = zpages::serve(app, call) {
        return answer;
    }
    if let Some(answer) = discovery::serve(app, call) {
        return answer;
    }
    if let Some(answer) = crate::openapi::serve(app, call) {
        return answer;
    }
    if let Some((kind, body)) = app.security()?.document(path) {
        return Ok(response::text(StatusCode::OK, kind, body));
    }
    Err(StatusError::not_found_path())
}

async fn authenticate(app: &App, parts: &http::request::Parts, peer: &Peer) -> Result<UserInfo, StatusError> {
    let authenticator = app.security()?.authenticator();
    match authenticator.authenticate(parts, peer.certificate.as_deref()).await {
        Ok(Some(user)) => Ok(user),
        Ok(None) => Err(StatusError::unauthorized("Unauthorized")),
        Err(error) => Err(refusal(error)),
    }
}

fn refusal(error: AuthnError) -> StatusError {
    if let AuthnError::Impersonation(status) = error {
        return status;
    }
    tracing::debug!(error = &error as &dyn std::error::Error, "authentication failed");
    match error {
        AuthnError::Impersonation(answer) => answer,
        AuthnError::Invalid(_) => StatusError::unauthorized("Unauthorized"),
    }
}

fn authorize(app: &App, user: &UserInfo, info: &RequestInfo, query: &Query) -> Result<(), StatusError> {
    let selects = matches!(info.verb.as_str(), "list" | "watch" | "deletecollection");
    let attributes = Attributes {
        user,
        verb: &info.verb,
        group: &info.group,
        version: &info.version,
        resource: &info.resource,
        subresource: &info.subresource,
        namespace: &info.namespace,
        name: &info.name,
        path: &info.path,
        is_resource: info.is_resource,
        field_selector: query.get("fieldSelector").filter(|_| selects),
        label_selector: query.get("labelSelector").filter(|_| selects),
    };
    let (decision, reason) = match app.authorizer()?.authorize(&attributes) {
        Decision::Allow(reason) => ("allow", reason),
        Decision::Deny(reason) | Decision::NoOpinion(reason) => ("forbid", reason),
    };
    audit::annotate("authorization.k8s.io/decision", || decision.to_owned());
    audit::annotate("authorization.k8s.io/reason", || reason.clone());
    if decision == "allow" {
        return Ok(());
    }
    Err(forbidden(&attributes, &reason))
}

/// Upstream's words for what a caller may not do.
pub fn forbidden(attributes: &Attributes<'_>, reason: &str) -> StatusError {
    let user = format!("User {:?} cannot {}", attributes.user.name, attributes.verb);
    let mut cause = if !attributes.is_resource {
        format!("{user} path {:?}", attributes.path)
    } else {
        let mut resource = attributes.resource.to_owned();
        if !attributes.subresource.is_empty() {
            resource = format!("{resource}/{}", attributes.subresource);
        }
        let scope = match attributes.namespace {
            "" => "at the cluster scope".to_owned(),
            namespace => format!("in the namespace {namespace:?}"),
        };
        format!("{user} resource {resource:?} in API group {:?} {scope}", attributes.group)
    };
    if !reason.is_empty() {
        cause = format!("{cause}: {reason}");
    }
    let group_resource = GroupResource::new(attributes.group, attributes.resource);
    StatusError::forbidden(&group_resource, attributes.name, cause)
}
