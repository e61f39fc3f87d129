//! What an extension server tells of itself: its resources, for the merged discovery, and its OpenAPI documents.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use http_body_util::{BodyExt, Limited};
use serde_json::{Value, json};

use super::{Remote, openapi, proxy};
use crate::app::App;
use crate::meta::string;
use crate::types::UserInfo;

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
                          application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";
const JSON: &str = "application/json";
const DISCOVERY: Duration = Duration::from_secs(5);
const OPENAPI: Duration = Duration::from_secs(60);
const LIMIT: usize = 64 << 20;

/// What was last told; each part stays as it was when it cannot be fetched again.
#[derive(Clone, Default)]
pub struct Documents {
    /// The resources of the version, as aggregated discovery has them.
    resources: Vec<Value>,
    discovery_etag: Option<String>,
    fresh: bool,
    pub v2: Option<V2>,
    /// Addresses of the v3 documents by the path that they are for.
    pub v3: BTreeMap<String, String>,
    /// For a server that has no v3 documents: its v2 document's part as one.
    pub converted: Option<Bytes>,
}

#[derive(Clone)]
pub struct V2 {
    pub etag: String,
    pub document: Arc<Value>,
}

struct Fetched {
    status: StatusCode,
    kind: String,
    etag: Option<String>,
    body: Bytes,
}

impl Documents {
    /// The version's entry in aggregated discovery.
    pub fn discovery(&self, version: &str) -> Value {
        let mut entry =
            json!({"version": version, "freshness": if self.fresh { "Current" } else { "Stale" }});
        if !self.resources.is_empty() {
            entry["resources"] = self.resources.clone().into();
        }
        entry
    }
}

/// Fetches everything again; says whether all of it came.
pub async fn refresh(app: &App, remote: &Remote, available: bool) -> bool {
    let mut documents = Documents::clone(&remote.documents());
    if !available {
        // Nobody is sent to resources that cannot be reached.
        (documents.fresh, documents.resources, documents.discovery_etag) = (false, Vec::new(), None);
        remote.documents.store(Arc::new(documents));
        return false;
    }
    let discovered = discover(app, remote, &mut documents).await;
    documents.fresh = discovered.is_ok();
    // What clients ask for first must not wait for what they seldom do.
    remote.documents.store(Arc::new(documents.clone()));
    let described = describe(app, remote, &mut documents).await;
    remote.documents.store(Arc::new(documents));
    for error in [&discovered, &described].into_iter().filter_map(|outcome| outcome.as_ref().err()) {
        tracing::info!(service = remote.name, error, "an extension server's documents are incomplete");
    }
    discovered.is_ok() && described.is_ok()
}

async fn fetch(
    app: &App,
    remote: &Remote,
    path: &str,
    accept: &'static str,
    etag: Option<&str>,
) -> Result<Fetched, String> {
    let place = proxy::resolve(app, &remote.backend)?.swap_remove(0);
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static(accept));
    headers.extend(etag.and_then(|e| HeaderValue::from_str(e).ok()).map(|e| (IF_NONE_MATCH, e)));
    let (name, groups, patience) = match path.starts_with("/openapi") {
        true => ("system:aggregator", Vec::new(), OPENAPI),
        false => ("system:kube-aggregator", vec!["system:masters".to_owned()], DISCOVERY),
    };
    let user = UserInfo { name: name.into(), groups, ..UserInfo::default() };
    let url = format!("https://{place}{path}");
    let whole = async {
        let answer = proxy::get(remote, &url, &user, headers).await?;
        let (parts, body) = answer.into_parts();
        let body = Limited::new(body, LIMIT).collect().await.map_err(|e| e.to_string())?.to_bytes();
        let header = |name: HeaderName| Some(parts.headers.get(name)?.to_str().ok()?.to_owned());
        let (kind, etag) = (header(CONTENT_TYPE).unwrap_or_default(), header(ETAG));
        Ok::<_, String>(Fetched { status: parts.status, kind, etag, body })
    };
    match tokio::time::timeout(patience, whole).await {
        Ok(fetched) => fetched.map_err(|e| format!("Get {url:?}: {e}")),
        Err(_) => Err(format!("Get {url:?}: timed out")),
    }
}

impl Fetched {
    fn json(&self) -> Result<Value, String> {
        serde_json::from_slice(&self.body).map_err(|e| e.to_string())
    }
}

async fn discover(app: &App, remote: &Remote, documents: &mut Documents) -> Result<(), String> {
    let known = documents.discovery_etag.clone();
    let fetched = fetch(app, remote, "/apis", AGGREGATED, known.as_deref()).await?;
    match fetched.status {
        StatusCode::NOT_MODIFIED => return Ok(()),
        StatusCode::SERVICE_UNAVAILABLE => return Err("the server does not answer for its groups".into()),
        StatusCode::OK if fetched.kind.contains("as=APIGroupDiscoveryList") => {
            let list = fetched.json()?;
            documents.resources = version_of(&list, &remote.group, &remote.version);
            documents.discovery_etag = fetched.etag;
            return Ok(());
        }
        _ => {}
    }
    let path = format!("/apis/{}/{}", remote.group, remote.version);
    let fetched = fetch(app, remote, &path, JSON, None).await?;
    if fetched.status != StatusCode::OK {
        return Err(format!("failed to download legacy discovery for {path}: {}", fetched.status));
    }
    documents.resources = aggregate(&fetched.json()?, &remote.group, &remote.version);
    documents.discovery_etag = None;
    Ok(())
}

/// A version's resources in an aggregated document.
fn version_of(list: &Value, group: &str, version: &str) -> Vec<Value> {
    let items = |value: &Value, field: &str| value[field].as_array().cloned().unwrap_or_default();
    let groups = items(list, "items").into_iter().filter(|g| g["metadata"]["name"] == group);
    let found = groups.flat_map(|g| items(&g, "versions")).find(|v| v["version"] == version);
    let mut resources = found.map(|v| items(&v, "resources")).unwrap_or_default();
    for resource in &mut resources {
        fill_kind(resource);
        resource["subresources"].as_array_mut().into_iter().flatten().for_each(fill_kind);
        if resource["subresources"].is_null() {
            resource.as_object_mut().map(|r| r.remove("subresources"));
        }
    }
    resources
}

/// Some clients fail where there is none.
fn fill_kind(resource: &mut Value) {
    if resource["responseKind"].is_null() {
        resource["responseKind"] = json!({"group": "", "version": "", "kind": ""});
    }
}

/// An `APIResourceList` in the form of aggregated discovery.
fn aggregate(list: &Value, group: &str, version: &str) -> Vec<Value> {
    let mut resources: Vec<Value> = Vec::new();
    for listed in list["resources"].as_array().into_iter().flatten() {
        let own = |field: &str, default: &str| match string(listed, field) {
            "" => default.to_owned(),
            own => own.to_owned(),
        };
        let kind = json!({
            "group": own("group", group),
            "version": own("version", version),
            "kind": string(listed, "kind"),
        });
        let (name, subresource) = match string(listed, "name").split_once('/') {
            Some((name, subresource)) => (name, Some(subresource)),
            None => (string(listed, "name"), None),
        };
        let scope = if listed["namespaced"] == true { "Namespaced" } else { "Cluster" };
        let at = resources.iter().position(|r| r["resource"] == name).unwrap_or_else(|| {
            resources.push(json!({"resource": name, "scope": scope, "responseKind": {}, "verbs": []}));
            resources.len() - 1
        });
        let resource = &mut resources[at];
        let Some(subresource) = subresource else {
            resource["responseKind"] = kind;
            for (from, to) in [
                ("verbs", "verbs"),
                ("singularName", "singularResource"),
                ("shortNames", "shortNames"),
                ("categories", "categories"),
            ] {
                if !listed[from].is_null() {
                    resource[to] = listed[from].clone();
                }
            }
            continue;
        };
        let sub = json!({"subresource": subresource, "responseKind": kind, "verbs": listed["verbs"]});
        match resource["subresources"].as_array_mut() {
            Some(all) => all.push(sub),
            None => resource["subresources"] = json!([sub]),
        }
    }
    resources
}

async fn describe(app: &App, remote: &Remote, documents: &mut Documents) -> Result<(), String> {
    let known = documents.v2.as_ref().map(|v2| v2.etag.clone());
    let v2 = fetch(app, remote, "/openapi/v2", JSON, known.as_deref()).await?;
    match v2.status {
        StatusCode::OK => {
            let etag = v2.etag.clone().unwrap_or_else(|| crate::discovery::etag(&v2.body));
            if documents.v2.as_ref().is_none_or(|known| known.etag != etag) {
                let document = openapi::part(v2.json()?, &remote.group, &remote.version);
                documents.v2 = Some(V2 { etag, document: Arc::new(document) });
                documents.converted = None;
            }
        }
        StatusCode::NOT_MODIFIED => {}
        // A server without a document is none the worse.
        StatusCode::NOT_FOUND => documents.v2 = None,
        status => return Err(format!("failed to retrieve openAPI spec: {status}")),
    }
    let v3 = fetch(app, remote, "/openapi/v3", JSON, None).await?;
    match v3.status {
        StatusCode::OK => {
            let index = v3.json()?;
            let paths = index["paths"].as_object().into_iter().flatten();
            documents.v3 = paths
                .map(|(path, entry)| (path.clone(), string(entry, "serverRelativeURL").to_owned()))
                .collect();
            documents.converted = None;
        }
        StatusCode::NOT_FOUND => {
            documents.v3.clear();
            if let (Some(v2), None) = (&documents.v2, &documents.converted) {
                let converted = openapi::to_v3(&v2.document);
                documents.converted = serde_json::to_vec(&converted).ok().map(Bytes::from);
            }
            if let Some(converted) = &documents.converted {
                let path = format!("apis/{}/{}", remote.group, remote.version);
                let hash = crate::discovery::etag(converted);
                let address = format!("/openapi/v3/{path}?hash={}", hash.trim_matches('"'));
                documents.v3.insert(path, address);
            }
        }
        status => return Err(format!("failed to retrieve the index of OpenAPI v3: {status}")),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_resources_becomes_a_versions_entry() {
        let list = json!({"resources": [
            {"name": "flunders", "singularName": "flunder", "namespaced": true, "kind": "Flunder",
             "verbs": ["get", "list"], "shortNames": ["fl"]},
            {"name": "flunders/status", "singularName": "", "namespaced": true, "kind": "Flunder", "verbs": ["get"]},
            {"name": "pods/eviction", "namespaced": true, "group": "policy", "version": "v1", "kind": "Eviction",
             "verbs": ["create"]},
        ]});
        let kind = json!({"group": "g", "version": "v1", "kind": "Flunder"});
        let eviction = json!({"group": "policy", "version": "v1", "kind": "Eviction"});
        assert_eq!(
            json!(aggregate(&list, "g", "v1")),
            json!([
                {"resource": "flunders", "singularResource": "flunder", "scope": "Namespaced", "responseKind": kind,
                 "verbs": ["get", "list"], "shortNames": ["fl"],
                 "subresources": [{"subresource": "status", "responseKind": kind, "verbs": ["get"]}]},
                {"resource": "pods", "scope": "Namespaced", "responseKind": {}, "verbs": [],
                 "subresources": [{"subresource": "eviction", "responseKind": eviction, "verbs": ["create"]}]},
            ])
        );
    }

    #[test]
    fn a_version_is_found_in_the_aggregated_document() {
        let list = json!({"items": [
            {"metadata": {"name": "other"}, "versions": [{"version": "v1", "resources": [{"resource": "x"}]}]},
            {"metadata": {"name": "g"}, "versions": [{"version": "v1", "resources": [
                {"resource": "a", "responseKind": null, "subresources": [{"subresource": "s"}]}]}]},
        ]});
        let nothing = json!({"group": "", "version": "", "kind": ""});
        assert_eq!(
            json!(version_of(&list, "g", "v1")),
            json!([{"resource": "a", "responseKind": nothing,
                    "subresources": [{"subresource": "s", "responseKind": nothing}]}])
        );
        assert!(version_of(&list, "g", "v2").is_empty());
    }
}
