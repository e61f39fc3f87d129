//! Requests by path, for projections and for what has no type here.

use crate::Projected;
use bytes::Bytes;
use http::{Method, Request, Response, header};
use http_body_util::BodyExt;
use kube::client::Body;
use kube::core::Status;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The content types of the patches that the API server takes.
pub mod patch {
    pub const JSON: &str = "application/json-patch+json";
    pub const MERGE: &str = "application/merge-patch+json";
    pub const STRATEGIC: &str = "application/strategic-merge-patch+json";
    pub const APPLY: &str = "application/apply-patch+yaml";
}

/// What stays as it is in a query's value, or in a name in a path (RFC 3986, unreserved).
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// `/api/v1/namespaces/NS/pods/NAME/status` and the like. An empty `namespace` means all of them.
pub fn path<P: Projected>(namespace: &str, name: Option<&str>, subresource: Option<&str>) -> String {
    let mut path = match P::GROUP {
        "" => format!("/api/{}", P::VERSION),
        group => format!("/apis/{group}/{}", P::VERSION),
    };
    if P::NAMESPACED && !namespace.is_empty() {
        path.push_str(&format!("/namespaces/{namespace}"));
    }
    path.push_str(&format!("/{}", P::PLURAL));
    for part in [name, subresource].into_iter().flatten() {
        path.push_str(&format!("/{part}"));
    }
    path
}

/// A name as part of a path.
pub fn segment(name: &str) -> impl std::fmt::Display + '_ {
    utf8_percent_encode(name, PLAIN)
}

/// A query from pairs; empty values are left out.
pub fn query(pairs: &[(&str, &str)]) -> String {
    let pairs = pairs.iter().filter(|(_, value)| !value.is_empty());
    pairs
        .map(|(key, value)| format!("{key}={}", utf8_percent_encode(value, PLAIN)))
        .collect::<Vec<_>>()
        .join("&")
}

/// Sends an object, or anything else that is JSON, and reads the answer.
pub async fn send<T: DeserializeOwned>(
    client: &kube::Client,
    method: Method,
    path: &str,
    content_type: &str,
    body: &impl Serialize,
) -> Result<T, kube::Error> {
    let body = serde_json::to_vec(body).map_err(kube::Error::SerdeError)?;
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::CONTENT_TYPE, content_type)
        .header(header::ACCEPT, "application/json")
        .body(Body::from(body))
        .map_err(kube::Error::HttpError)?;
    read(client.send(request).await?).await
}

/// POSTs a new object.
pub async fn create<T: DeserializeOwned>(
    client: &kube::Client,
    path: &str,
    object: &impl Serialize,
) -> Result<T, kube::Error> {
    send(client, Method::POST, path, "application/json", object).await
}

/// PUTs an object; its `resourceVersion`, if it has one, must be the present.
pub async fn replace<T: DeserializeOwned>(
    client: &kube::Client,
    path: &str,
    object: &impl Serialize,
) -> Result<T, kube::Error> {
    send(client, Method::PUT, path, "application/json", object).await
}

/// PATCHes an object, with one of the content types of [`patch`].
pub async fn patch<T: DeserializeOwned>(
    client: &kube::Client,
    path: &str,
    content_type: &str,
    patch: &impl Serialize,
) -> Result<T, kube::Error> {
    send(client, Method::PATCH, path, content_type, patch).await
}

/// GETs an object.
pub async fn get<T: DeserializeOwned>(client: &kube::Client, path: &str) -> Result<T, kube::Error> {
    read(open(client, path).await?).await
}

/// DELETEs an object; `options` is a `DeleteOptions`, or `json!({})`.
pub async fn delete(client: &kube::Client, path: &str, options: &impl Serialize) -> Result<(), kube::Error> {
    send::<serde::de::IgnoredAny>(client, Method::DELETE, path, "application/json", options).await.map(drop)
}

/// The HTTP code of an error that the API server answered.
pub fn code(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}

/// GETs a path; the answer is a success whose body is still to be read.
pub(crate) async fn open(client: &kube::Client, path: &str) -> Result<Response<Body>, kube::Error> {
    let request = Request::get(path)
        .header(header::ACCEPT, "application/json")
        .body(Body::empty())
        .map_err(kube::Error::HttpError)?;
    let response = client.send(request).await?;
    if response.status().is_success() {
        return Ok(response);
    }
    Err(api_error(response).await)
}

async fn read<T: DeserializeOwned>(response: Response<Body>) -> Result<T, kube::Error> {
    if !response.status().is_success() {
        return Err(api_error(response).await);
    }
    serde_json::from_slice(&collect(response).await?).map_err(kube::Error::SerdeError)
}

pub(crate) async fn collect(response: Response<Body>) -> Result<Bytes, kube::Error> {
    Ok(response.into_body().collect().await?.to_bytes())
}

/// The `Status` that a failed request was answered with, or one that says what came instead.
async fn api_error(response: Response<Body>) -> kube::Error {
    let code = response.status();
    let body = match collect(response).await {
        Ok(body) => body,
        Err(error) => return error,
    };
    let status = serde_json::from_slice::<Status>(&body).ok().filter(|s| s.code != 0).unwrap_or_else(|| {
        let text = String::from_utf8_lossy(&body[..body.len().min(1024)]).into_owned();
        Status::failure(&text, code.canonical_reason().unwrap_or("Unknown")).with_code(code.as_u16())
    });
    kube::Error::Api(Box::new(status))
}
