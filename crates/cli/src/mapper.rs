//! What the server serves, and which of it a word on the command line means.

use std::sync::Arc;

use anyhow::bail;
use serde_json::Value;

use crate::client::{Call, Rest};
use crate::value::{list, text};

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";

/// A resource type in one version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mapping {
    pub group: String,
    pub version: String,
    /// The plural, as in paths.
    pub resource: String,
    pub kind: String,
    pub namespaced: bool,
    pub singular: String,
    pub short_names: Vec<String>,
    pub categories: Vec<String>,
    pub verbs: Vec<String>,
    pub subresources: Vec<String>,
}

impl Mapping {
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// `deployment.apps`: how results name a kind.
    pub fn kind_name(&self) -> String {
        qualified(&self.kind.to_lowercase(), &self.group)
    }

    /// `deployments.apps`.
    pub fn resource_name(&self) -> String {
        qualified(&self.resource, &self.group)
    }

    /// The path of the collection, in a namespace, over all of them (None) or of the cluster.
    pub fn collection(&self, namespace: Option<&str>) -> String {
        let base = if self.group.is_empty() {
            format!("/api/{}", self.version)
        } else {
            format!("/apis/{}/{}", self.group, self.version)
        };
        match namespace.filter(|n| self.namespaced && !n.is_empty()) {
            Some(namespace) => format!("{base}/namespaces/{namespace}/{}", self.resource),
            None => format!("{base}/{}", self.resource),
        }
    }

    pub fn object(&self, namespace: Option<&str>, name: &str) -> String {
        format!("{}/{}", self.collection(namespace), crate::client::escape(name))
    }

    pub fn can(&self, verb: &str) -> bool {
        self.verbs.iter().any(|v| v == verb)
    }
}

pub fn qualified(name: &str, group: &str) -> String {
    if group.is_empty() { name.to_owned() } else { format!("{name}.{group}") }
}

/// All resource types, the preferred version of each group first.
#[derive(Debug, Default)]
pub struct Mapper {
    mappings: Vec<Arc<Mapping>>,
    /// `apps/v1` in the server's order.
    pub api_versions: Vec<String>,
}

impl Mapper {
    pub async fn discover(rest: &Rest) -> anyhow::Result<Mapper> {
        let (core, groups) = tokio::join!(
            rest.json(Call::get("/api").accept(AGGREGATED)),
            rest.json(Call::get("/apis").accept(AGGREGATED))
        );
        let mut mapper = Mapper::default();
        mapper.add(&core?);
        mapper.add(&groups?);
        if mapper.mappings.is_empty() {
            bail!("the server does not offer aggregated discovery");
        }
        Ok(mapper)
    }

    /// Adds the groups of an `APIGroupDiscoveryList`.
    pub fn add(&mut self, discovery: &Value) {
        for group in list(discovery, "/items") {
            let name = text(group, "/metadata/name");
            for version in list(group, "/versions") {
                let number = text(version, "/version");
                self.api_versions.push(if name.is_empty() {
                    number.to_owned()
                } else {
                    format!("{name}/{number}")
                });
                let resources = list(version, "/resources").iter();
                self.mappings.extend(resources.map(|resource| Arc::new(mapping(name, number, resource))));
            }
        }
    }

    pub fn all(&self) -> &[Arc<Mapping>] {
        &self.mappings
    }

    /// What a word means: plural, singular, short name or kind, alone, with a group or with version and group.
    pub fn find(&self, word: &str) -> anyhow::Result<Arc<Mapping>> {
        let lower = word.to_lowercase();
        if let Some(found) = self.lookup(&lower, |_| true) {
            return Ok(found);
        }
        if let Some((name, rest)) = lower.split_once('.') {
            if let Some((version, group)) = rest.split_once('.').or(Some((rest, "")))
                && let Some(found) = self.lookup(name, |m| m.version == version && m.group == group)
            {
                return Ok(found);
            }
            // `deployments.apps`, and as upstream a beginning of the group: `ingresses.networking`.
            let exact = self.lookup(name, |m| m.group == rest);
            if let Some(found) =
                exact.or_else(|| self.lookup(name, |m| m.group.starts_with(&format!("{rest}."))))
            {
                return Ok(found);
            }
            bail!("the server doesn't have a resource type {name:?} in group {rest:?}");
        }
        bail!("the server doesn't have a resource type {word:?}")
    }

    fn lookup(&self, name: &str, fits: impl Fn(&Mapping) -> bool) -> Option<Arc<Mapping>> {
        let by =
            |named: &dyn Fn(&Mapping) -> bool| self.mappings.iter().find(|m| fits(m) && named(m)).cloned();
        by(&|m| m.resource == name || m.singular == name)
            .or_else(|| by(&|m| m.short_names.iter().any(|s| s == name)))
            .or_else(|| by(&|m| m.kind.to_lowercase() == name))
    }

    /// The members of a category, such as `all`.
    pub fn category(&self, name: &str) -> Vec<Arc<Mapping>> {
        let mut members: Vec<Arc<Mapping>> = Vec::new();
        for mapping in self.mappings.iter().filter(|m| m.categories.iter().any(|c| c == name)) {
            if !members.iter().any(|m| m.group == mapping.group && m.resource == mapping.resource) {
                members.push(mapping.clone());
            }
        }
        members
    }

    /// The resource type of an object.
    pub fn for_object(&self, object: &Value) -> anyhow::Result<Arc<Mapping>> {
        let (api_version, kind) = (text(object, "/apiVersion"), text(object, "/kind"));
        if kind.is_empty() {
            bail!("Object 'Kind' is missing in {}", shortened(object));
        }
        if api_version.is_empty() {
            bail!("Object 'apiVersion' is missing in {}", shortened(object));
        }
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        match self.for_kind(group, version, kind) {
            Some(mapping) => Ok(mapping),
            None => bail!(
                "no matches for kind {kind:?} in version {api_version:?}\nensure CRDs are installed first"
            ),
        }
    }

    pub fn for_kind(&self, group: &str, version: &str, kind: &str) -> Option<Arc<Mapping>> {
        let fits = |m: &&Arc<Mapping>| {
            m.group == group && m.kind == kind && (version.is_empty() || m.version == version)
        };
        self.mappings.iter().find(fits).cloned()
    }
}

fn shortened(object: &Value) -> String {
    object.to_string().chars().take(120).collect()
}

fn mapping(group: &str, version: &str, resource: &Value) -> Mapping {
    let strings = |pointer: &str| -> Vec<String> {
        list(resource, pointer).iter().filter_map(|v| v.as_str().map(str::to_owned)).collect()
    };
    Mapping {
        group: group.to_owned(),
        version: version.to_owned(),
        resource: text(resource, "/resource").to_owned(),
        kind: text(resource, "/responseKind/kind").to_owned(),
        namespaced: text(resource, "/scope") == "Namespaced",
        singular: text(resource, "/singularResource").to_owned(),
        short_names: strings("/shortNames"),
        categories: strings("/categories"),
        verbs: strings("/verbs"),
        subresources: list(resource, "/subresources")
            .iter()
            .map(|s| text(s, "/subresource").to_owned())
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn mapper() -> Mapper {
        let resource = |plural: &str, kind: &str, short: &[&str], categories: &[&str]| {
            json!({"resource": plural, "responseKind": {"kind": kind}, "scope": "Namespaced", "verbs": ["get"],
                "singularResource": kind.to_lowercase(), "shortNames": short, "categories": categories})
        };
        let mut mapper = Mapper::default();
        mapper.add(&json!({"items": [{"metadata": {}, "versions": [{"version": "v1", "resources": [
            resource("pods", "Pod", &["po"], &["all"]), resource("events", "Event", &["ev"], &[])]}]}]}));
        mapper.add(&json!({"items": [
            {"metadata": {"name": "apps"}, "versions": [{"version": "v1", "resources": [
                resource("deployments", "Deployment", &["deploy"], &["all"])]}]},
            {"metadata": {"name": "events.k8s.io"}, "versions": [{"version": "v1", "resources": [
                resource("events", "Event", &["ev"], &[])]}]}]}));
        mapper
    }

    #[test]
    fn words_find_their_resource() {
        let mapper = mapper();
        for (word, group, resource) in [
            ("pods", "", "pods"),
            ("po", "", "pods"),
            ("Pod", "", "pods"),
            ("pods.v1", "", "pods"),
            ("pods.v1.", "", "pods"),
            ("deploy", "apps", "deployments"),
            ("deployment.apps", "apps", "deployments"),
            ("deployments.v1.apps", "apps", "deployments"),
            ("ev", "", "events"),
            ("events.events.k8s.io", "events.k8s.io", "events"),
            ("events.events", "events.k8s.io", "events"),
        ] {
            let found = mapper.find(word).unwrap_or_else(|e| panic!("{word}: {e}"));
            assert_eq!((found.group.as_str(), found.resource.as_str()), (group, resource), "{word}");
        }
        let error = mapper.find("foo").expect_err("unknown").to_string();
        assert_eq!(error, "the server doesn't have a resource type \"foo\"");
        assert_eq!(mapper.category("all").len(), 2);
    }

    #[test]
    fn paths_follow_scope_and_group() {
        let deployments = mapper().find("deploy").expect("deployments");
        assert_eq!(deployments.object(Some("a"), "x"), "/apis/apps/v1/namespaces/a/deployments/x");
        assert_eq!(deployments.collection(None), "/apis/apps/v1/deployments");
    }
}
