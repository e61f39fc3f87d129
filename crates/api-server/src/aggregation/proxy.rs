//! A client's request on its way to an extension server: as who the client is, vouched for by the front proxy's
//! certificate.

use std::sync::Arc;

use http::header::{HOST, HeaderName, LOCATION, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri};
use hyper::body::Incoming;
use keelson_api_types::Gvr;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rand::seq::SliceRandom;

use super::{Backend, Remote};
use crate::app::{App, Call};
use crate::backend::Error;
use crate::body::{Body, Response};
use crate::endpoints;
use crate::meta::string;
use crate::types::{Objects, UserInfo};
use crate::{response, spans};

/// What may stand in a header's name as it is; the rest of an extra field's key is percent-encoded.
const HEADER_NAME: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'!')
    .remove(b'#')
    .remove(b'$')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'*')
    .remove(b'+')
    .remove(b'-')
    .remove(b'.')
    .remove(b'^')
    .remove(b'_')
    .remove(b'`')
    .remove(b'|')
    .remove(b'~');
/// How long extension servers may take for discovery, which clients ask for before anything else.
const DISCOVERY: std::time::Duration = std::time::Duration::from_secs(5);

/// Never fails: what goes wrong is told as upstream's aggregator does, in plain text.
pub async fn proxy(app: &Arc<App>, call: &mut Call, remote: &Remote) -> Response {
    if !remote.is_available() {
        return refusal(StatusCode::SERVICE_UNAVAILABLE, "service unavailable");
    }
    let transport = match &remote.transport {
        Ok(transport) => transport,
        Err(error) => return refusal(StatusCode::INTERNAL_SERVER_ERROR, error),
    };
    let place = match resolve(app, &remote.backend) {
        Ok(places) => places.into_iter().next().unwrap_or_default(),
        Err(error) => {
            tracing::warn!(service = remote.name, error, "could not resolve an extension server");
            return refusal(StatusCode::SERVICE_UNAVAILABLE, "service unavailable");
        }
    };
    let query = call.raw_query.as_deref().map(|q| format!("?{q}")).unwrap_or_default();
    let uri = match format!("https://{place}{}{query}", call.info.path).parse::<Uri>() {
        Ok(uri) => uri,
        Err(error) => return refusal(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    let mut headers = identity(&call.user);
    for (name, value) in
        [(HOST, place.as_str()), (HeaderName::from_static("x-forwarded-uri"), &call.info.path)]
    {
        headers.extend(HeaderValue::from_str(value).ok().map(|value| (name, value)));
    }
    spans::tell(&mut call.headers);
    let is_discovery = !call.info.is_resource && call.info.path.trim_matches('/').split('/').count() == 3;
    let answer = app.backends.forward(transport, call, uri, headers);
    let answer = match is_discovery {
        true => tokio::time::timeout(DISCOVERY, answer)
            .await
            .unwrap_or_else(|_| Err(Error::Unreachable("context deadline exceeded".into()))),
        false => answer.await,
    };
    match answer {
        Ok(answer) if answer.status().is_redirection() && answer.headers().contains_key(LOCATION) => refusal(
            StatusCode::BAD_GATEWAY,
            "the backend attempted to redirect this request, which is not permitted",
        ),
        Ok(answer) => answer,
        Err(error) => refusal(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
    }
}

fn refusal(status: StatusCode, message: &str) -> Response {
    let mut response =
        response::text(status, "text/plain; charset=utf-8", format!("{message}\n").into_bytes());
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Asks an extension server as `user`.
pub async fn get(
    remote: &Remote,
    url: &str,
    user: &UserInfo,
    headers: HeaderMap,
) -> Result<http::Response<Incoming>, String> {
    let transport = remote.transport.as_ref().map_err(String::clone)?;
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = url.parse().map_err(|e| format!("{url}: {e}"))?;
    *request.headers_mut() = headers;
    request.headers_mut().extend(identity(user));
    transport.send(request).await
}

/// Who the client is, in the headers that the front proxy's certificate vouches for.
fn identity(user: &UserInfo) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let mut add = |name: HeaderName, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.append(name, value);
        }
    };
    add(HeaderName::from_static("x-remote-user"), &user.name);
    if !user.uid.is_empty() {
        add(HeaderName::from_static("x-remote-uid"), &user.uid);
    }
    for group in &user.groups {
        add(HeaderName::from_static("x-remote-group"), group);
    }
    for (key, values) in &user.extra {
        let name = format!("x-remote-extra-{}", utf8_percent_encode(key, HEADER_NAME));
        let Ok(name) = HeaderName::try_from(name) else { continue };
        for value in values {
            add(name.clone(), value);
        }
    }
    headers
}

/// Hosts and ports that answer for a Service, in the order in which to try them: its ready endpoints, whichever
/// node they are on.
pub fn resolve(app: &App, backend: &Backend) -> Result<Vec<String>, String> {
    let (namespace, name, port) = (&backend.namespace, &backend.service, backend.port);
    let service = app
        .get(&Gvr::new("", "v1", "services"), namespace, name)
        .ok_or_else(|| format!("service {name:?} not found"))?;
    if string(&service["spec"], "type") == "ExternalName" {
        return Ok(vec![format!("{}:{port}", string(&service["spec"], "externalName"))]);
    }
    let port_name = endpoints::named_port(&service, port)
        .ok_or_else(|| format!("no service port {port} found for service {name:?}"))?;
    let slices = endpoints::slices(app, namespace, name);
    let ready = slices.iter().flat_map(|slice| endpoints::ready(slice, port_name));
    let mut places: Vec<String> = ready.map(|(address, _)| address.to_string()).collect();
    if places.is_empty() {
        return Err(format!("no endpoints available for service {name:?}"));
    }
    places.shuffle(&mut rand::rng());
    Ok(places)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_is_told_in_headers() {
        let user = UserInfo {
            name: "jane".into(),
            uid: "42".into(),
            groups: vec!["a".into(), "b".into()],
            extra: [("example.com/Scopes".to_owned(), vec!["one".to_owned(), "two".to_owned()])].into(),
        };
        let mut seen: Vec<String> =
            identity(&user).iter().map(|(n, v)| format!("{n}: {}", v.to_str().expect("text"))).collect();
        seen.sort();
        assert_eq!(
            seen,
            [
                "x-remote-extra-example.com%2fscopes: one",
                "x-remote-extra-example.com%2fscopes: two",
                "x-remote-group: a",
                "x-remote-group: b",
                "x-remote-uid: 42",
                "x-remote-user: jane",
            ]
        );
    }
}
