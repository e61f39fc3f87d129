//! How many watches a write concerns, for the seats that sending it to them takes.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;

use crate::request::{Query, RequestInfo};

/// Counts by what watches have asked for: group and resource, then namespace and name.
#[derive(Debug, Default)]
pub struct Watchers {
    counts: Arc<RwLock<Counts>>,
}

type Counts = HashMap<Box<str>, Vec<Resource>>;

#[derive(Debug)]
struct Resource {
    group: Box<str>,
    all: u32,
    /// By `namespace/name`, either of which may be empty.
    narrow: HashMap<Box<str>, u32>,
}

/// A watch that is counted until this is dropped.
#[derive(Debug)]
pub struct Watching {
    counts: Arc<RwLock<Counts>>,
    resource: Box<str>,
    group: Box<str>,
    scope: Box<str>,
}

impl Watchers {
    /// Counts a watch. One that sees a single node's pods is left out: of all those, a write concerns one.
    pub fn register(&self, info: &RequestInfo, query: &Query) -> Option<Watching> {
        let by_node = query.get("fieldSelector").is_some_and(|s| {
            s.split(',').any(|term| term.starts_with("spec.nodeName=") && !term.ends_with('='))
        });
        if info.resource == "pods" && info.group.is_empty() && by_node {
            return None;
        }
        let scope = scope(&info.namespace, &info.name);
        let mut counts = self.counts.write();
        let groups = counts.entry(info.resource.as_str().into()).or_default();
        let at = groups.iter().position(|r| *r.group == *info.group).unwrap_or_else(|| {
            groups.push(Resource { group: info.group.as_str().into(), all: 0, narrow: HashMap::new() });
            groups.len() - 1
        });
        match &*scope {
            "/" => groups[at].all += 1,
            _ => *groups[at].narrow.entry(scope.clone()).or_default() += 1,
        }
        Some(Watching {
            counts: self.counts.clone(),
            resource: info.resource.as_str().into(),
            group: info.group.as_str().into(),
            scope,
        })
    }

    /// The watches that a write may be sent to.
    pub fn interested(&self, info: &RequestInfo) -> u32 {
        let counts = self.counts.read();
        let groups = counts.get(info.resource.as_str());
        let Some(resource) = groups.and_then(|g| g.iter().find(|r| *r.group == *info.group)) else {
            return 0;
        };
        if resource.narrow.is_empty() {
            return resource.all;
        }
        let narrow = |namespace: &str, name: &str| match (namespace, name) {
            ("", "") => 0,
            _ => resource.narrow.get(&*scope(namespace, name)).copied().unwrap_or(0),
        };
        let named = if info.name.is_empty() { 0 } else { narrow(&info.namespace, &info.name) };
        resource.all + narrow(&info.namespace, "") + named
    }
}

fn scope(namespace: &str, name: &str) -> Box<str> {
    format!("{namespace}/{name}").into()
}

impl Drop for Watching {
    fn drop(&mut self) {
        let mut counts = self.counts.write();
        let groups = counts.get_mut(&self.resource);
        let Some(resource) = groups.and_then(|g| g.iter_mut().find(|r| r.group == self.group)) else {
            return;
        };
        if &*self.scope == "/" {
            resource.all -= 1;
        } else if let Some(count) = resource.narrow.get_mut(&self.scope) {
            *count -= 1;
            if *count == 0 {
                resource.narrow.remove(&self.scope);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    #[test]
    fn a_write_concerns_the_watches_of_its_resource_namespace_and_name() {
        let watchers = Watchers::default();
        let watch = |target: &str| {
            let (path, query) = target.split_once('?').unwrap_or((target, ""));
            let query = Query::parse(Some(query));
            watchers.register(&RequestInfo::parse(&Method::GET, path, &query), &query)
        };
        let interested =
            |path: &str| watchers.interested(&RequestInfo::parse(&Method::PUT, path, &Query::default()));
        let held = [
            watch("/api/v1/pods?watch=1"),
            watch("/api/v1/namespaces/a/pods?watch=1"),
            watch("/api/v1/namespaces/b/pods?watch=1"),
            watch("/api/v1/namespaces/a/pods?watch=1&fieldSelector=metadata.name%3Dx"),
            watch("/api/v1/pods?watch=1&fieldSelector=spec.nodeName%3Dn1"),
            watch("/apis/metrics.k8s.io/v1/pods?watch=1"),
        ];
        assert_eq!(interested("/api/v1/namespaces/a/pods/x"), 3);
        assert_eq!(interested("/api/v1/namespaces/a/pods/y"), 2);
        assert_eq!(interested("/api/v1/namespaces/c/pods/y"), 1);
        drop(held);
        assert_eq!(interested("/api/v1/namespaces/a/pods/x"), 0);
    }
}
