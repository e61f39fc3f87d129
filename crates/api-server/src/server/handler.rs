//! From a request to a response: who asks, what for, whether they may, and then to whoever answers.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use hyper::Request;
use hyper::body::Incoming;
use keelson_api_types::StatusError;
use tokio::time::Instant;

use super::sending;
use crate::app::{App, Call};
use crate::authn::impersonation;
use crate::authz::judged;
use crate::body::{Body, Response};
use crate::fairness::{Schema, Ticket, estimate};
use crate::request::{Query, RequestInfo};
use crate::types::{Attributes, Peer, UserInfo};
use crate::{audit, discovery, profiling, response, spans, subresources, verbs, zpages};

/// Answers one request; never fails and never panics.
pub(super) async fn handle(
    app: Arc<App>,
    peer: Peer,
    refused: bool,
    mut request: Request<Incoming>,
) -> Response {
    let head = request.method() == Method::HEAD;
    let query = Query::parse(request.uri().query());
    let info = RequestInfo::parse(request.method(), request.uri().path(), &query);
    let id = audit_id(request.headers());
    if app.tracer.is_some() {
        request.extensions_mut().insert(spans::AuditId(id.clone()));
    }
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
            audit::recorded(record, Box::pin(guarded(&app, peer, refused, request, query, info))).await
        }
    };
    let mut response = outcome.unwrap_or_else(|error| response::error(&error));
    if let Ok(mut id) = HeaderValue::from_maybe_shared(id) {
        // No two answers have the same: kept in HTTP/2's tables it would push out what they have in common.
        id.set_sensitive(true);
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
    let (path, version) = (request.uri().path().to_owned(), request.version());
    let limit = time_limit(app, &query, &info)?;
    let end = limit.map(|limit| Instant::now() + limit);
    let app = app.clone();
    // Boxed once, before it is handed from future to future, each of which would have room for all that it needs.
    let routed = Box::pin(async move { route(&app, peer, refused, request, query, info).await });
    let outcome = within(limit, AssertUnwindSafe(routed).catch_unwind()).await.unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<&str>()
            .map(|s| (*s).to_owned())
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_default();
        tracing::error!(panic = text, request = path, "a handler panicked");
        audit::panicked(&text);
        let message = "This request caused apiserver to panic. Look in the logs for details.";
        Err(StatusError::internal(message))
    });
    Ok(outcome?.map(|body| match end {
        Some(end) => sending::limit(body, end, version),
        None => body,
    }))
}

/// How long a request may take: as long as the client asks for, at most as long as configured; `None` for watches
/// and streams.
fn time_limit(app: &App, query: &Query, info: &RequestInfo) -> Result<Option<Duration>, StatusError> {
    if info.is_long_running() {
        return Ok(None);
    }
    let most = Duration::from_secs(app.config.request_timeout);
    let asked = query.timeout().map_err(|why| {
        StatusError::bad_request(format!("invalid timeout specified in the request URL - {why}"))
    })?;
    Ok(Some(asked.filter(|asked| !asked.is_zero()).map_or(most, |asked| asked.min(most))))
}

type Outcome = std::thread::Result<Result<Response, StatusError>>;

/// The outcome if it comes in time. What is too late goes on by itself: a write must not be left half done.
async fn within(
    limit: Option<Duration>,
    mut work: impl Future<Output = Outcome> + Send + Unpin + 'static,
) -> Outcome {
    let Some(limit) = limit else { return work.await };
    tokio::select! {
        outcome = &mut work => outcome,
        () = tokio::time::sleep(limit) => {
            tokio::spawn(work);
            Ok(Err(StatusError::timeout("request did not complete within the allotted timeout", 0)))
        }
    }
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
    // HTTP/2 has it in the address.
    if let Some(Ok(host)) = parts.uri.authority().map(|a| HeaderValue::from_str(a.as_str())) {
        parts.headers.entry(http::header::HOST).or_insert(host);
    }
    let user = identify(app, &mut parts, &peer, &info, &query).await?;
    // After authentication: who calls decides on sampling.
    let mut span = app.tracer.as_ref().and_then(|tracer| spans::begin(tracer, &parts, &info, &user, &peer));
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
    let work = async {
        authorize(app, &call.user, &call.info, &call.query).await?;
        dispatch(app, &mut call).await
    };
    let answer = spans::within(span.as_ref(), work).await;
    let mut answer = answer.unwrap_or_else(|error| response::error_as(&call.headers, &error));
    response::add_warnings(&mut answer, &call.warnings);
    if let Some(schema) = schema {
        schema.mark(&mut answer);
    }
    if let Some(span) = &mut span {
        span.answered(answer.status().as_u16());
    }
    // What is made while it is sent keeps its seats, its span lasts, and a watch is counted, until then.
    Ok(answer.map(|body| body.occupy(call.ticket.take()).hold(watching).hold(span)))
}

async fn dispatch(app: &Arc<App>, call: &mut Call) -> Result<Response, StatusError> {
    if let Some(remote) = app.aggregation.remote_at(&call.info.path) {
        return Ok(Box::pin(crate::aggregation::proxy(app, call, &remote)).await);
    }
    if !call.info.is_resource {
        return Box::pin(paths(app, call)).await;
    }
    let resource = app.resource(&call.info)?;
    call.warnings.extend(resource.custom.as_ref().and_then(|c| c.deprecation.clone()));
    let span = spans::verb(call);
    let work = async {
        match call.info.subresource.is_empty() {
            true => verbs::serve(app, call, &resource).await,
            false => Box::pin(subresources::serve(app, call, &resource)).await,
        }
    };
    spans::within(span.as_ref(), work).await
}

/// What is not a resource: discovery, documents, health.
async fn paths(app: &Arc<App>, call: &mut Call) -> Result<Response, StatusError> {
    if !matches!(call.method, Method::GET | Method::HEAD) {
        return Err(StatusError::not_found_path());
    }
    let path = call.info.path.clone();
    let path = path.as_str();
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
    if let Some(answer) = profiling::serve(app, call).await {
        return answer;
    }
    if let Some(answer) = discovery::serve(app, call) {
        return answer;
    }
    if let Some(answer) = crate::openapi::serve(app, call).await {
        return answer;
    }
    if let Some((kind, body)) = app.security()?.document(path) {
        return Ok(response::text(StatusCode::OK, kind, body));
    }
    Err(StatusError::not_found_path())
}

/// Who the request is by or, where they ask to be somebody else and may, as whom.
async fn identify(
    app: &App,
    parts: &mut http::request::Parts,
    peer: &Peer,
    info: &RequestInfo,
    query: &Query,
) -> Result<UserInfo, StatusError> {
    let (security, authorizer) = (app.security()?, app.authorizer()?);
    let caller = security.authenticator().authenticate(parts, peer.certificate.as_deref()).await;
    let caller = match caller {
        Ok(Some(caller)) => caller,
        Ok(None) => return Err(StatusError::unauthorized("Unauthorized")),
        Err(error) => {
            tracing::debug!(error = &error as &dyn std::error::Error, "authentication failed");
            return Err(StatusError::unauthorized("Unauthorized"));
        }
    };
    let asked = attributes(&caller, info, query);
    let other = impersonation::take(&mut parts.headers, &asked, authorizer).await?;
    Ok(other.unwrap_or(caller))
}

async fn authorize(app: &App, user: &UserInfo, info: &RequestInfo, query: &Query) -> Result<(), StatusError> {
    let attributes = attributes(user, info, query);
    let verdict = app.authorizer()?.decide(&attributes).await;
    let decision = if verdict.is_allowed() { "allow" } else { "forbid" };
    audit::annotate("authorization.k8s.io/decision", || decision.to_owned());
    audit::annotate("authorization.k8s.io/reason", || verdict.reason().to_owned());
    judged(&verdict, &attributes)
}

fn attributes<'a>(user: &'a UserInfo, info: &'a RequestInfo, query: &'a Query) -> Attributes<'a> {
    let selects = matches!(info.verb.as_str(), "list" | "watch" | "deletecollection");
    Attributes {
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
    }
}
