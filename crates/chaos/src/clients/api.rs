//! Requests to one server, each sent once, and what their answers mean.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::history::{Answer, Call, Fresh, Key, Object, Revision};

pub const NAMESPACE: &str = "history";
const PATH: &str = "/api/v1/namespaces/history/configmaps";
/// A request that takes longer is given up, and its end unknown.
const PATIENCE: Duration = Duration::from_secs(5);
/// Some values are this long: they fill disks and buffers.
const LONG: usize = 30_000;

pub struct Api {
    client: kube::Client,
}

/// An object as it is on the wire.
#[derive(Debug, Deserialize)]
pub(super) struct Wire {
    metadata: WireMeta,
    #[serde(default)]
    data: WireData,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireMeta {
    name: String,
    uid: Uuid,
    resource_version: String,
}

#[derive(Debug, Default, Deserialize)]
struct WireData {
    value: String,
}

#[derive(Deserialize)]
struct WireList {
    metadata: WireListMeta,
    items: Vec<Wire>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireListMeta {
    resource_version: String,
    #[serde(default, rename = "continue")]
    next: String,
}

#[derive(Deserialize)]
struct WireDeleted {
    details: WireDetails,
}

#[derive(Deserialize)]
struct WireDetails {
    uid: Uuid,
}

impl Wire {
    pub(super) fn object(&self) -> Option<Object> {
        Some(Object {
            key: self.metadata.name.strip_prefix('k')?.parse().ok()?,
            uid: self.metadata.uid,
            revision: self.metadata.resource_version.parse().ok()?,
            value: self.data.value.parse().ok()?,
        })
    }
}

impl Api {
    /// Sends nothing twice: whether a failed write happened is what is to be found out.
    pub async fn connect(kubeconfig: &Path) -> anyhow::Result<Self> {
        let file = Kubeconfig::read_from(kubeconfig).context("read the kubeconfig")?;
        let mut config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
        config.default_retry = false;
        Ok(Self { client: kube::Client::try_from(config).context("make a client")? })
    }

    pub async fn create_namespace(&self) -> anyhow::Result<()> {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
        match self.send(Method::POST, "/api/v1/namespaces", "application/json", Some(&namespace)).await {
            Some((StatusCode::CREATED | StatusCode::CONFLICT, _)) => Ok(()),
            other => anyhow::bail!("create the namespace: {other:?}"),
        }
    }

    pub(super) async fn write(&self, key: Key, call: Call) -> Answer {
        let path = format!("{PATH}/k{key}");
        let sent = match call {
            Call::Create { value } => {
                self.send(Method::POST, PATH, "application/json", Some(&object(key, value, None))).await
            }
            Call::Update { value, expected } => {
                let object = object(key, value, Some(expected));
                self.send(Method::PUT, &path, "application/json", Some(&object)).await
            }
            Call::Patch { value } => {
                let object = object(key, value, None);
                self.send(Method::PATCH, &path, "application/merge-patch+json", Some(&object)).await
            }
            Call::Delete { expected } => {
                let version = expected.map(|revision| json!({"resourceVersion": revision.to_string()}));
                let options = json!({"preconditions": version});
                self.send(Method::DELETE, &path, "application/json", Some(&options)).await
            }
            Call::Get(_) | Call::List(_) | Call::Watch => None,
        };
        let Some((status, body)) = sent else { return Answer::Unknown(None) };
        let answer = match (status.is_success(), call) {
            (true, Call::Delete { .. }) => {
                parse(&body, |d: WireDeleted| Some(Answer::Deleted(d.details.uid)))
            }
            (true, _) => parse(&body, |wire: Wire| wire.object().map(Answer::Wrote)),
            (false, _) => None,
        };
        answer.unwrap_or_else(|| failure(status))
    }

    pub(super) async fn get(&self, key: Key, fresh: Fresh) -> Answer {
        let path = format!("{PATH}/k{key}?{}", version(fresh));
        match self.send(Method::GET, &path, "", None).await {
            Some((StatusCode::OK, body)) => parse(&body, |wire: Wire| wire.object().map(Answer::Found))
                .unwrap_or(Answer::Unknown(Some(200))),
            Some((StatusCode::NOT_FOUND, _)) => Answer::Absent,
            Some((status, _)) => failure(status),
            None => Answer::Unknown(None),
        }
    }

    pub(super) async fn list(&self, fresh: Fresh, paged: bool) -> Answer {
        let limit = if paged { "&limit=3" } else { "" };
        let (mut next, mut revision, mut objects) = (String::new(), None, Vec::new());
        loop {
            let path = match next.as_str() {
                "" => format!("{PATH}?{}{limit}", version(fresh)),
                token => format!("{PATH}?continue={token}{limit}"),
            };
            let page = match self.send(Method::GET, &path, "", None).await {
                Some((StatusCode::OK, body)) => parse(&body, page).ok_or(Answer::Unknown(Some(200))),
                Some((status, _)) => Err(failure(status)),
                None => Err(Answer::Unknown(None)),
            };
            let (at, items, more) = match page {
                Ok(page) => page,
                Err(answer) => return answer,
            };
            objects.extend(items);
            if *revision.get_or_insert(at) != at {
                return Answer::Torn;
            }
            if more.is_empty() {
                return Answer::Listed { revision: at, objects };
            }
            next = more;
        }
    }

    /// Opens a watch; the answer's body is its lines.
    pub(super) async fn watch(&self, query: &str) -> Result<Body, Answer> {
        let request = Request::get(format!("{PATH}?watch=true&{query}")).body(Body::empty());
        let Ok(request) = request else { return Err(Answer::Unknown(None)) };
        match tokio::time::timeout(PATIENCE, self.client.send(request)).await {
            Ok(Ok(response)) if response.status().is_success() => Ok(response.into_body()),
            Ok(Ok(response)) => Err(failure(response.status())),
            _ => Err(Answer::Unknown(None)),
        }
    }

    /// `None` if there was no answer, or not all of it.
    async fn send(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: Option<&Value>,
    ) -> Option<(StatusCode, Bytes)> {
        let mut request = Request::builder().method(method).uri(path);
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, content_type);
        }
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string().into_bytes()));
        let request = request.body(body).ok()?;
        let answered = async {
            let response = self.client.send(request).await.ok()?;
            let status = response.status();
            Some((status, response.into_body().collect().await.ok()?.to_bytes()))
        };
        tokio::time::timeout(PATIENCE, answered).await.ok().flatten()
    }
}

/// Which state a read or a watch begins from, as a query.
pub(super) fn version(fresh: Fresh) -> String {
    match fresh {
        Fresh::Consistent => String::new(),
        Fresh::Any => "resourceVersion=0".to_owned(),
        Fresh::AtLeast(revision) => format!("resourceVersion={revision}"),
    }
}

fn object(key: Key, value: u64, expected: Option<Revision>) -> Value {
    let padding = if value.is_multiple_of(11) { "x".repeat(LONG) } else { String::new() };
    let mut object = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": format!("k{key}"), "labels": {"side": (value & 1).to_string()}},
        "data": {"value": value.to_string(), "padding": padding},
    });
    if let Some(revision) = expected {
        object["metadata"]["resourceVersion"] = revision.to_string().into();
    }
    object
}

fn page(list: WireList) -> Option<(Revision, Vec<Object>, String)> {
    let objects = list.items.iter().map(Wire::object).collect::<Option<_>>()?;
    Some((list.metadata.resource_version.parse().ok()?, objects, list.metadata.next))
}

fn parse<'a, T: Deserialize<'a>, O>(body: &'a [u8], then: impl FnOnce(T) -> Option<O>) -> Option<O> {
    serde_json::from_slice(body).ok().and_then(then)
}

/// 4xx say that nothing was done, but 429 may come after a part of it.
pub(super) fn failure(status: StatusCode) -> Answer {
    match status.as_u16() {
        code @ (429 | 500..) => Answer::Unknown(Some(code)),
        code => Answer::Refused(code),
    }
}
