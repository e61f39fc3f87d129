//! One policy rule: whether it allows a request, and whether a set of rules covers another.

use std::collections::BTreeSet;

use keelson_api_types::gofmt::quote;
use serde::{Deserialize, Serialize};

use crate::types::Attributes;

/// `PolicyRule` of `rbac.authorization.k8s.io/v1`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rule {
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "list")]
    pub verbs: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "list")]
    pub api_groups: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "list")]
    pub resources: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "list")]
    pub resource_names: Vec<String>,
    #[serde(rename = "nonResourceURLs", skip_serializing_if = "Vec::is_empty", deserialize_with = "list")]
    pub non_resource_urls: Vec<String>,
}

/// A list that may also be written as `null`.
fn list<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::<Vec<String>>::deserialize(d)?.unwrap_or_default())
}

impl Rule {
    /// Whether this rule alone allows the request.
    pub fn allows(&self, a: &Attributes<'_>) -> bool {
        if !has_or_star(&self.verbs, a.verb) {
            return false;
        }
        if !a.is_resource {
            return self.url_matches(a.path);
        }
        has_or_star(&self.api_groups, a.group)
            && self.resource_matches(a.resource, a.subresource)
            && (self.resource_names.is_empty() || has(&self.resource_names, a.name))
    }

    fn resource_matches(&self, resource: &str, subresource: &str) -> bool {
        self.resources.iter().any(|r| {
            if r == "*" {
                return true;
            }
            if subresource.is_empty() {
                return r == resource;
            }
            match r.split_once('/') {
                Some((res, sub)) => sub == subresource && (res == "*" || res == resource),
                None => false,
            }
        })
    }

    fn url_matches(&self, path: &str) -> bool {
        self.non_resource_urls.iter().any(|u| u == "*" || url_covers(u, path))
    }

    /// The rule taken apart: at most one verb, group, resource and name each.
    fn atoms(&self) -> Vec<Rule> {
        let mut out = Vec::new();
        for group in &self.api_groups {
            for resource in &self.resources {
                for verb in &self.verbs {
                    let atom = Rule {
                        verbs: vec![verb.clone()],
                        api_groups: vec![group.clone()],
                        resources: vec![resource.clone()],
                        ..Rule::default()
                    };
                    if self.resource_names.is_empty() {
                        out.push(atom);
                    } else {
                        out.extend(
                            self.resource_names
                                .iter()
                                .map(|n| Rule { resource_names: vec![n.clone()], ..atom.clone() }),
                        );
                    }
                }
            }
        }
        for url in &self.non_resource_urls {
            out.extend(self.verbs.iter().map(|verb| Rule {
                verbs: vec![verb.clone()],
                non_resource_urls: vec![url.clone()],
                ..Rule::default()
            }));
        }
        out
    }

    /// Whether this rule gives everything that `atom`, one of [`Rule::atoms`], gives.
    fn covers(&self, atom: &Rule) -> bool {
        let all = |set: &[String], want: &[String]| want.iter().all(|w| has_or_star(set, w));
        all(&self.verbs, &atom.verbs)
            && all(&self.api_groups, &atom.api_groups)
            && atom.resources.iter().all(|r| self.covers_resource(r))
            && (self.resource_names.is_empty()
                || (!atom.resource_names.is_empty()
                    && atom.resource_names.iter().all(|n| has(&self.resource_names, n))))
            && atom
                .non_resource_urls
                .iter()
                .all(|u| self.non_resource_urls.iter().any(|own| url_covers(own, u)))
    }

    fn covers_resource(&self, resource: &str) -> bool {
        has_or_star(&self.resources, resource)
            || resource.split_once('/').is_some_and(|(_, sub)| has(&self.resources, &format!("*/{sub}")))
    }

    /// As upstream writes a rule into messages: `{APIGroups:[""], Resources:["pods"], Verbs:["get"]}`.
    pub fn compact(&self) -> String {
        let parts = [
            ("APIGroups", &self.api_groups),
            ("Resources", &self.resources),
            ("NonResourceURLs", &self.non_resource_urls),
            ("ResourceNames", &self.resource_names),
            ("Verbs", &self.verbs),
        ];
        let text: Vec<String> =
            parts.iter().filter(|(_, v)| !v.is_empty()).map(|(k, v)| format!("{k}:{}", quoted(v))).collect();
        format!("{{{}}}", text.join(", "))
    }
}

/// What of `wanted` the rules `held` do not give, as sorted texts; empty when all is covered.
pub fn missing(held: &[Rule], wanted: &[Rule]) -> Vec<String> {
    let uncovered = wanted.iter().flat_map(Rule::atoms).filter(|atom| !held.iter().any(|h| h.covers(atom)));
    let mut merged: Vec<Rule> = Vec::new();
    for atom in uncovered {
        let same = |m: &&mut Rule| {
            m.non_resource_urls.is_empty()
                && atom.non_resource_urls.is_empty()
                && m.api_groups == atom.api_groups
                && m.resources == atom.resources
                && m.resource_names == atom.resource_names
        };
        match merged.iter_mut().find(same) {
            Some(m) => m.verbs.extend(atom.verbs),
            None => merged.push(atom),
        }
    }
    let texts: BTreeSet<String> = merged.iter().map(Rule::compact).collect();
    texts.into_iter().collect()
}

/// A list of strings as Go's `%q` prints it.
pub fn quoted<S: AsRef<str>>(items: &[S]) -> String {
    let inner: Vec<String> = items.iter().map(|s| quote(s.as_ref())).collect();
    format!("[{}]", inner.join(" "))
}

fn has(set: &[String], item: &str) -> bool {
    set.iter().any(|s| s == item)
}

fn has_or_star(set: &[String], item: &str) -> bool {
    set.iter().any(|s| s == "*" || s == item)
}

fn url_covers(owner: &str, path: &str) -> bool {
    owner == path || (owner.ends_with('*') && path.starts_with(owner.trim_end_matches('*')))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authz::testing::{path, resource, user};

    fn rule(verbs: &str, groups: &str, resources: &str, names: &str) -> Rule {
        let split = |s: &str| -> Vec<String> {
            s.split(',').filter(|x| !x.is_empty()).map(|x| x.replace("core", "")).collect()
        };
        Rule {
            verbs: split(verbs),
            api_groups: split(groups),
            resources: split(resources),
            resource_names: split(names),
            non_resource_urls: vec![],
        }
    }

    #[test]
    fn a_resource_rule_allows_what_it_names() {
        let u = user("jane", &[]);
        let cases = [
            (rule("get", "core", "pods", ""), "get", "", "pods", "", "a", true),
            (rule("get", "core", "pods", ""), "list", "", "pods", "", "", false),
            (rule("*", "*", "*", ""), "delete", "apps", "deployments", "scale", "x", true),
            (rule("get", "core", "pods", ""), "get", "", "pods", "log", "a", false),
            (rule("get", "core", "pods/log", ""), "get", "", "pods", "log", "a", true),
            (rule("get", "core", "*/log", ""), "get", "", "pods", "log", "a", true),
            (rule("get", "core", "*/log", ""), "get", "", "pods", "exec", "a", false),
            (rule("get", "core", "pods", "a"), "get", "", "pods", "", "b", false),
            (rule("get", "core", "pods", "a"), "list", "", "pods", "", "", false),
            (rule("get", "core", "pods", "a"), "get", "", "pods", "", "a", true),
            (rule("get", "apps", "pods", ""), "get", "", "pods", "", "a", false),
        ];
        for (r, verb, group, res, sub, name, want) in cases {
            let mut a = resource(&u, verb, group, res, "default", name);
            a.subresource = sub;
            assert_eq!(r.allows(&a), want, "{r:?} {verb} {res}/{sub} {name}");
        }
    }

    #[test]
    fn a_path_rule_allows_prefixes_with_a_star() {
        let u = user("jane", &[]);
        let r = Rule {
            verbs: vec!["get".into()],
            non_resource_urls: vec!["/healthz".into(), "/apis/*".into()],
            ..Rule::default()
        };
        for (p, want) in [("/healthz", true), ("/healthz/", false), ("/apis/apps", true), ("/apis", false)] {
            assert_eq!(r.allows(&path(&u, "get", p)), want, "{p}");
        }
    }

    #[test]
    fn missing_rights_are_listed_compactly() {
        let held = [rule("get,list", "core", "pods", "")];
        assert!(missing(&held, &[rule("get", "core", "pods", "x")]).is_empty());
        assert_eq!(
            missing(&held, &[rule("get,delete,watch", "core", "pods,secrets", "")]),
            [
                r#"{APIGroups:[""], Resources:["pods"], Verbs:["delete" "watch"]}"#,
                r#"{APIGroups:[""], Resources:["secrets"], Verbs:["get" "delete" "watch"]}"#
            ]
        );
        let named = [rule("get", "core", "secrets", "a")];
        assert_eq!(missing(&named, &[rule("get", "core", "secrets", "")]).len(), 1);
    }
}
