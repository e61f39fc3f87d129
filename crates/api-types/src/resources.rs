//! The table of every built-in resource and subresource of API v1.36: `data/resources.tsv`. Alpha and beta versions
//! are in it that an API server serves only where its configuration says so.

use crate::gvk::Gvk;
use std::sync::LazyLock;

/// One resource, in discovery's order.
#[derive(Debug)]
pub struct ResourceInfo {
    pub group: &'static str,
    pub version: &'static str,
    /// Plural name, as in the URL.
    pub resource: &'static str,
    pub kind: &'static str,
    pub singular: &'static str,
    pub namespaced: bool,
    pub verbs: Vec<&'static str>,
    pub short_names: Vec<&'static str>,
    pub categories: Vec<&'static str>,
    pub subresources: Vec<SubresourceInfo>,
}

/// One subresource. `group` and `version` are those of `kind`, which may differ from the parent's
/// (`autoscaling/v1` for `scale`).
#[derive(Debug)]
pub struct SubresourceInfo {
    pub name: &'static str,
    pub kind: &'static str,
    pub group: &'static str,
    pub version: &'static str,
    pub verbs: Vec<&'static str>,
}

/// All resources.
pub static ALL: LazyLock<Vec<ResourceInfo>> = LazyLock::new(parse);

impl ResourceInfo {
    pub fn gvk(&self) -> Gvk {
        Gvk::new(self.group, self.version, self.kind)
    }

    pub fn api_version(&self) -> String {
        crate::gvk::api_version(self.group, self.version)
    }

    pub fn has_verb(&self, verb: &str) -> bool {
        self.verbs.contains(&verb)
    }

    pub fn subresource(&self, name: &str) -> Option<&SubresourceInfo> {
        self.subresources.iter().find(|s| s.name == name)
    }

    /// Whether objects of it are stored (reviews and bindings are not).
    pub fn is_stored(&self) -> bool {
        self.has_verb("get")
    }
}

/// Finds a resource by its URL parts.
pub fn find(group: &str, version: &str, resource: &str) -> Option<&'static ResourceInfo> {
    ALL.iter().find(|r| r.resource == resource && r.group == group && r.version == version)
}

/// Finds the resource whose objects have this kind.
pub fn find_kind(group: &str, version: &str, kind: &str) -> Option<&'static ResourceInfo> {
    ALL.iter().find(|r| r.kind == kind && r.group == group && r.version == version)
}

/// The version that discovery lists first for a group.
pub fn preferred_version(group: &str) -> Option<&'static str> {
    ALL.iter().find(|r| r.group == group).map(|r| r.version)
}

/// Group names in discovery's order, the core group ("") first.
pub fn groups() -> Vec<&'static str> {
    let mut out: Vec<&'static str> = Vec::new();
    for r in ALL.iter() {
        if !out.contains(&r.group) {
            out.push(r.group);
        }
    }
    out
}

/// The versions of a group, preferred first.
pub fn versions(group: &str) -> Vec<&'static str> {
    let mut out: Vec<&'static str> = Vec::new();
    for r in ALL.iter().filter(|r| r.group == group) {
        if !out.contains(&r.version) {
            out.push(r.version);
        }
    }
    out
}

fn parse() -> Vec<ResourceInfo> {
    let mut out: Vec<ResourceInfo> = Vec::with_capacity(80);
    for line in include_str!("../data/resources.tsv").lines().skip(1) {
        let col: Vec<&'static str> = line.split('\t').collect();
        if col.len() < 10 {
            continue;
        }
        match col[2].split_once('/') {
            None => out.push(ResourceInfo {
                group: col[0],
                version: col[1],
                resource: col[2],
                kind: col[3],
                singular: col[8],
                namespaced: col[4] == "Namespaced",
                verbs: list(col[5]),
                short_names: list(col[6]),
                categories: list(col[7]),
                subresources: Vec::new(),
            }),
            Some((parent, name)) => {
                let (group, version) = match col[9].split_once('/') {
                    Some((g, v)) if !v.is_empty() => (g, v),
                    _ => (col[0], col[1]),
                };
                let sub = SubresourceInfo { name, kind: col[3], group, version, verbs: list(col[5]) };
                let found = out
                    .iter_mut()
                    .rev()
                    .find(|r| r.resource == parent && r.group == col[0] && r.version == col[1]);
                if let Some(parent) = found {
                    parent.subresources.push(sub);
                }
            }
        }
    }
    out
}

fn list(text: &'static str) -> Vec<&'static str> {
    text.split(',').filter(|s| !s.is_empty()).collect()
}
