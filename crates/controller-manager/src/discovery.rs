//! Which resources the API server has, custom ones included.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, header};
use keelson_client::rest;
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::time::Instant;

use crate::kit::{Bare, During, Error};

/// What was read is good for this long, unless a definition changed.
const FRESH: Duration = Duration::from_secs(30);
const METADATA: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// A resource, in one of its versions.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Resource {
    pub group: String,
    pub version: String,
    pub plural: String,
    pub kind: String,
    pub namespaced: bool,
    pub verbs: Vec<String>,
}

impl Resource {
    pub fn has(&self, verb: &str) -> bool {
        self.verbs.iter().any(|v| v == verb)
    }

    pub fn api_version(&self) -> String {
        match self.group.as_str() {
            "" => self.version.clone(),
            group => format!("{group}/{}", self.version),
        }
    }

    /// The path of the collection, or of one object.
    pub fn path(&self, namespace: &str, name: Option<&str>) -> String {
        let mut path = match self.group.as_str() {
            "" => format!("/api/{}", self.version),
            group => format!("/apis/{group}/{}", self.version),
        };
        if self.namespaced && !namespace.is_empty() {
            path.push_str(&format!("/namespaces/{namespace}"));
        }
        path.push_str(&format!("/{}", self.plural));
        if let Some(name) = name {
            path.push_str(&format!("/{}", rest::segment(name)));
        }
        path
    }

    /// The metadata of the objects of all namespaces, at most `limit`, from where another page has ended (or empty).
    pub async fn page(&self, client: &kube::Client, limit: usize, from: &str) -> Result<Page, kube::Error> {
        let limit = limit.to_string();
        let query = rest::query(&[("limit", &limit), ("continue", from)]);
        let request = Request::get(format!("{}?{query}", self.path("", None)))
            .header(header::ACCEPT, METADATA)
            .body(Vec::new())
            .map_err(kube::Error::HttpError)?;
        client.request(request).await
    }
}

/// A part of a list.
#[derive(Deserialize)]
pub struct Page {
    #[serde(default)]
    pub metadata: ListMeta,
    pub items: Option<Vec<Bare>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ListMeta {
    pub resource_version: String,
    /// Where the next page begins; empty at the last.
    pub r#continue: String,
}

/// All that was discovered.
#[derive(Debug, Default)]
pub struct Resources {
    /// Each resource in its group's preferred version.
    pub preferred: Vec<Resource>,
    /// Each in all its versions.
    all: Vec<Resource>,
    /// Groups that did not answer; what they hold is unknown.
    pub failed: Vec<String>,
}

impl Resources {
    /// The resource of an owner reference.
    pub fn find(&self, api_version: &str, kind: &str) -> Option<&Resource> {
        self.all.iter().find(|r| r.kind == kind && r.api_version() == api_version)
    }
}

pub struct Discovery {
    client: kube::Client,
    last: Mutex<Option<(Instant, Arc<Resources>)>>,
}

impl Discovery {
    pub fn new(client: &kube::Client) -> Discovery {
        Discovery { client: client.clone(), last: Mutex::new(None) }
    }

    /// A definition changed: the next question goes to the API server.
    pub fn forget(&self) {
        *self.last.lock() = None;
    }

    pub async fn resources(&self) -> Result<Arc<Resources>, Error> {
        if let Some((at, resources)) = &*self.last.lock()
            && at.elapsed() < FRESH
        {
            return Ok(resources.clone());
        }
        let asked = Instant::now();
        let (core, groups) = tokio::try_join!(self.fetch("/api"), self.fetch("/apis"))?;
        let resources = Arc::new(digest(core.items.into_iter().chain(groups.items)));
        *self.last.lock() = Some((asked, resources.clone()));
        Ok(resources)
    }

    async fn fetch(&self, path: &str) -> Result<GroupList, Error> {
        let during = || format!("discover {path}");
        let request = Request::get(path)
            .header(header::ACCEPT, AGGREGATED)
            .body(Vec::new())
            .map_err(kube::Error::HttpError)
            .during(during)?;
        self.client.request(request).await.during(during)
    }
}

#[derive(Deserialize)]
struct GroupList {
    #[serde(default)]
    items: Vec<Group>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Group {
    metadata: Named,
    versions: Vec<Version>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Named {
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Version {
    version: String,
    /// `Stale` for an aggregated API that does not answer.
    freshness: String,
    resources: Vec<Found>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Found {
    resource: String,
    response_kind: Kind,
    scope: String,
    verbs: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Kind {
    kind: String,
}

fn digest(groups: impl Iterator<Item = Group>) -> Resources {
    let mut resources = Resources::default();
    for group in groups {
        let mut seen = HashSet::new();
        for version in group.versions {
            if version.freshness == "Stale" {
                resources.failed.push(format!("{}/{}", group.metadata.name, version.version));
            }
            for found in version.resources {
                let resource = Resource {
                    group: group.metadata.name.clone(),
                    version: version.version.clone(),
                    plural: found.resource,
                    kind: found.response_kind.kind,
                    namespaced: found.scope == "Namespaced",
                    verbs: found.verbs,
                };
                // Versions come in the order of preference.
                if seen.insert(resource.plural.clone()) {
                    resources.preferred.push(resource.clone());
                }
                resources.all.push(resource);
            }
        }
    }
    resources
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_resource_is_preferred_in_the_first_version_that_has_it() {
        let resource = |name: &str| json!({"resource": name, "responseKind": {"kind": name}, "scope": "Namespaced", "verbs": ["list"]});
        let list: GroupList =
            serde_json::from_value(json!({"items": [{"metadata": {"name": "g"}, "versions": [
                {"version": "v1", "resources": [resource("a")]},
                {"version": "v1beta1", "resources": [resource("a"), resource("b")]},
            ]}]}))
            .unwrap();
        let resources = digest(list.items.into_iter());
        let found: Vec<_> = resources.preferred.iter().map(|r| (&*r.plural, &*r.version)).collect();
        assert_eq!(found, [("a", "v1"), ("b", "v1beta1")]);
        assert!(resources.find("g/v1beta1", "a").is_some() && resources.find("g/v2", "a").is_none());
        assert_eq!(resources.preferred[0].path("ns", Some("x:y")), "/apis/g/v1/namespaces/ns/a/x%3Ay");
    }
}
