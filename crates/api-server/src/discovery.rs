//! Which groups, versions and resources there are: one document per level, or all in one.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use http::{HeaderValue, StatusCode};
use keelson_api_types::gvk::api_version;
use keelson_api_types::{Gvr, StatusError};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::aggregation::{self, Served};
use crate::app::{App, Call};
use crate::body::{Body, Response};
use crate::negotiate::{Accepted, Encoding, clauses};
use crate::registry::Resource;
use crate::response;

/// What this server says it is; parsed as a semantic version by clients.
pub const GIT_VERSION: &str = concat!("v1.36.2+keelson.", env!("CARGO_PKG_VERSION"));
const AGGREGATED: &str = "g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// `None` for paths that are not discovery's.
pub fn serve(app: &Arc<App>, call: &Call) -> Option<Result<Response, StatusError>> {
    let parts: Vec<&str> = call.info.path.trim_matches('/').split('/').collect();
    let answer = match parts.as_slice() {
        [""] => Some(json!({"paths": paths(app)})),
        ["version"] => Some(version()),
        [root @ ("api" | "apis")] if let Some(encoding) = aggregated_in(call) => {
            return Some(aggregated(app, call, encoding, *root == "api"));
        }
        ["api"] => Some(json!({
            "kind": "APIVersions",
            "versions": ["v1"],
            "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address(app)}],
        })),
        ["apis"] => Some(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups(app)})),
        ["api", version] => resource_list(app, "", version),
        ["apis", group] => group_document(app, group),
        ["apis", group, version] => resource_list(app, group, version),
        _ => return None,
    };
    let answer = answer.ok_or_else(StatusError::not_found_path);
    Some(answer.and_then(|v| Ok(response::value(&call.headers, StatusCode::OK, call.accepted()?, &v))))
}

fn version() -> Value {
    json!({
        "major": "1",
        "minor": "36",
        "emulationMajor": "1",
        "emulationMinor": "36",
        "minCompatibilityMajor": "1",
        "minCompatibilityMinor": "35",
        "gitVersion": GIT_VERSION,
        "gitCommit": "0000000000000000000000000000000000000000",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "none",
        "compiler": "rustc",
        "platform": format!("linux/{}", if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }),
    })
}

fn address(app: &App) -> String {
    let ip = app.config.advertise_address.unwrap_or(app.config.bind.address);
    std::net::SocketAddr::new(ip, app.config.bind.port).to_string()
}

/// A group with its versions, the preferred one first.
struct Group {
    name: String,
    priority: i64,
    versions: Vec<Served>,
}

/// Every group of this server and of extension servers, in the order of their priorities.
fn all_groups(app: &App) -> Vec<Group> {
    let mut served = app.aggregation.served();
    let known: HashSet<(String, String)> =
        served.iter().map(|s| (s.group.clone(), s.version.clone())).collect();
    // What has no APIService yet, or is the group of APIServices itself.
    for resource in app.registry.all() {
        let Gvr { group, version, .. } = &resource.gvr;
        if !known.contains(&(group.clone(), version.clone())) {
            let priority = aggregation::local::priority(group, version);
            served.push(Served { group: group.clone(), version: version.clone(), priority });
        }
    }
    served.sort_by_key(|s| (-s.priority.version, version_rank(&s.version)));
    let mut groups: Vec<Group> = Vec::new();
    for version in served {
        let at = groups.iter().position(|g| g.name == version.group).unwrap_or_else(|| {
            groups.push(Group { name: version.group.clone(), priority: 0, versions: Vec::new() });
            groups.len() - 1
        });
        let group = &mut groups[at];
        group.priority = group.priority.max(version.priority.group);
        if group.versions.iter().all(|v| v.version != version.version) {
            group.versions.push(version);
        }
    }
    groups.sort_by(|a, b| b.priority.cmp(&a.priority).then_with(|| a.name.cmp(&b.name)));
    groups
}

/// Sorts as upstream does: `v2` before `v1` before `v1beta1` before `v1alpha1` before anything else.
pub fn version_rank(version: &str) -> (u8, i64, i64, String) {
    let parse = || {
        let rest = version.strip_prefix('v')?;
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let major: i64 = rest[..digits].parse().ok()?;
        let (class, minor) = match &rest[digits..] {
            "" => (0, 0),
            tail if tail.starts_with("beta") => (1, tail[4..].parse().ok()?),
            tail if tail.starts_with("alpha") => (2, tail[5..].parse().ok()?),
            _ => return None,
        };
        Some((class, -major, -minor, String::new()))
    };
    parse().unwrap_or((3, 0, 0, version.to_owned()))
}

fn group_value(group: &Group) -> Value {
    let version =
        |v: &Served| json!({"groupVersion": api_version(&group.name, &v.version), "version": v.version});
    json!({
        "name": group.name,
        "versions": group.versions.iter().map(version).collect::<Vec<_>>(),
        "preferredVersion": group.versions.first().map(version),
    })
}

fn groups(app: &App) -> Vec<Value> {
    all_groups(app).iter().filter(|g| !g.name.is_empty()).map(group_value).collect()
}

fn group_document(app: &App, name: &str) -> Option<Value> {
    let group = all_groups(app).into_iter().find(|g| g.name == name && !name.is_empty())?;
    let mut value = group_value(&group);
    value["kind"] = "APIGroup".into();
    value["apiVersion"] = "v1".into();
    Some(value)
}

fn resource_list(app: &App, group: &str, version: &str) -> Option<Value> {
    let mut resources = Vec::new();
    for resource in app.registry.all().iter().filter(|r| r.gvr.group == group && r.gvr.version == version) {
        push_resource(resource, &mut resources);
    }
    if resources.is_empty() {
        return None;
    }
    Some(json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": api_version(group, version),
        "resources": resources,
    }))
}

fn push_resource(resource: &Resource, out: &mut Vec<Value>) {
    let mut value = json!({
        "name": resource.gvr.resource,
        "singularName": resource.singular,
        "namespaced": resource.namespaced,
        "kind": resource.gvk.kind,
        "verbs": verbs(resource),
    });
    if !resource.short_names.is_empty() {
        value["shortNames"] = json!(resource.short_names);
    }
    if !resource.categories.is_empty() {
        value["categories"] = json!(resource.categories);
    }
    if resource.is_stored() {
        let stored = resource.custom.as_ref().map_or(&resource.gvr.version, |c| &c.stored_version);
        value["storageVersionHash"] = storage_hash(&resource.gvr.group, stored, &resource.gvk.kind).into();
    }
    out.push(value);
    for sub in &resource.subresources {
        let mut value = json!({
            "name": format!("{}/{}", resource.gvr.resource, sub.name),
            "singularName": "",
            "namespaced": resource.namespaced,
            "kind": sub.gvk.kind,
            "verbs": sub.verbs,
        });
        if (&sub.gvk.group, &sub.gvk.version) != (&resource.gvk.group, &resource.gvk.version) {
            value["group"] = sub.gvk.group.clone().into();
            value["version"] = sub.gvk.version.clone().into();
        }
        out.push(value);
    }
}

/// The verbs that clients are told of.
fn verbs(resource: &Resource) -> Vec<&str> {
    match &resource.custom {
        Some(custom) => custom.verbs().to_vec(),
        None => resource.verbs.iter().map(String::as_str).collect(),
    }
}

/// Upstream's hash of a storage version.
fn storage_hash(group: &str, version: &str, kind: &str) -> String {
    let digest = Sha256::digest(format!("{group}/{version}/{kind}"));
    STANDARD.encode(&digest[..8])
}

/// A tag for what hashes alike.
pub fn etag(of: &impl Hash) -> String {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    format!("\"{:016X}\"", hasher.finish())
}

/// The encoding in which a client wants everything at once, if it does.
fn aggregated_in(call: &Call) -> Option<Encoding> {
    const ENCODINGS: [Encoding; 3] = [Encoding::Json, Encoding::Yaml, Encoding::Protobuf];
    let known = clauses(&call.headers)
        .filter_map(|c| Some((ENCODINGS.into_iter().find(|e| e.media_type() == c.media)?, c.target)));
    let mut wanted = known.map_while(|(encoding, target)| Some((encoding, target?)));
    let ours = ("APIGroupDiscoveryList", "apidiscovery.k8s.io", "v2");
    wanted.find(|(_, t)| (t.kind, t.group, t.version) == ours).map(|(encoding, _)| encoding)
}

fn aggregated(app: &App, call: &Call, encoding: Encoding, core: bool) -> Result<Response, StatusError> {
    let all = app.registry.all();
    let items: Vec<Value> = all_groups(app)
        .iter()
        .filter(|g| g.name.is_empty() == core)
        .map(|group| {
            let versions: Vec<Value> = group
                .versions
                .iter()
                .map(|v| aggregated_version(app, &all, &group.name, &v.version))
                .collect();
            json!({"metadata": {"name": group.name, "creationTimestamp": null}, "versions": versions})
        })
        .collect();
    let document = json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": items,
    });
    let bytes = response::encode(&document);
    let etag = etag(&bytes);
    let known = call.headers.get(IF_NONE_MATCH).and_then(|v| v.to_str().ok()) == Some(etag.as_str());
    let mut answer = match known {
        true => {
            let mut answer = Response::new(Body::empty());
            *answer.status_mut() = StatusCode::NOT_MODIFIED;
            answer
        }
        false => {
            response::encoded(&call.headers, StatusCode::OK, Accepted { encoding, ..Accepted::JSON }, bytes)
        }
    };
    if let Ok(kind) = HeaderValue::from_str(&format!("{};{AGGREGATED}", encoding.media_type())) {
        answer.headers_mut().insert(CONTENT_TYPE, kind);
    }
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        answer.headers_mut().insert(ETAG, etag);
    }
    answer.headers_mut().insert(http::header::VARY, HeaderValue::from_static("Accept"));
    Ok(answer)
}

fn aggregated_version(app: &App, all: &[Arc<Resource>], group: &str, version: &str) -> Value {
    let remotes = app.aggregation.remotes();
    if let Some(remote) = remotes.iter().find(|r| r.group == group && r.version == version) {
        return remote.documents().discovery(version);
    }
    let here = |r: &&Arc<Resource>| r.gvr.group == group && r.gvr.version == version;
    let resources: Vec<Value> = all.iter().filter(here).map(|r| aggregated_resource(r)).collect();
    json!({"version": version, "freshness": "Current", "resources": resources})
}

fn aggregated_resource(resource: &Resource) -> Value {
    let kind =
        |gvk: &keelson_api_types::Gvk| json!({"group": gvk.group, "version": gvk.version, "kind": gvk.kind});
    let mut value = json!({
        "resource": resource.gvr.resource,
        "responseKind": kind(&resource.gvk),
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": resource.singular,
        "verbs": verbs(resource),
    });
    if !resource.short_names.is_empty() {
        value["shortNames"] = json!(resource.short_names);
    }
    if !resource.categories.is_empty() {
        value["categories"] = json!(resource.categories);
    }
    if !resource.subresources.is_empty() {
        let subs = resource.subresources.iter();
        let sub = |s: &crate::registry::Subresource| json!({"subresource": s.name, "responseKind": kind(&s.gvk), "verbs": s.verbs});
        value["subresources"] = subs.map(sub).collect();
    }
    value
}

fn paths(app: &App) -> Vec<String> {
    let mut paths: Vec<String> = ["/.well-known/openid-configuration", "/api", "/api/v1", "/apis", "/apis/"]
        .map(str::to_owned)
        .to_vec();
    for group in all_groups(app).iter().filter(|g| !g.name.is_empty()) {
        paths.push(format!("/apis/{}", group.name));
        paths.extend(group.versions.iter().map(|v| format!("/apis/{}/{}", group.name, v.version)));
    }
    let rest = [
        "/healthz",
        "/livez",
        "/metrics",
        "/openapi/v2",
        "/openapi/v3",
        "/openapi/v3/",
        "/openid/v1/jwks",
        "/readyz",
        "/version",
    ];
    paths.extend(rest.map(str::to_owned));
    paths.sort();
    paths
}

#[cfg(test)]
mod tests {
    use super::version_rank;

    #[test]
    fn versions_sort_by_stability_then_number() {
        let mut versions = ["v1alpha1", "foo", "v1", "v10", "v2beta1", "v2"];
        versions.sort_by_key(|v| version_rank(v));
        assert_eq!(versions, ["v10", "v2", "v1", "v2beta1", "v1alpha1", "foo"]);
    }
}
