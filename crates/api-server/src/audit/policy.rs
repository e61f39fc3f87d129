//! `audit.k8s.io/v1` Policy: how much of a request is recorded, and at which stages.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::request::RequestInfo;
use crate::types::UserInfo;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Level {
    None,
    Metadata,
    Request,
    RequestResponse,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    RequestReceived,
    /// Of requests that last: the head has been sent, the body follows.
    ResponseStarted,
    ResponseComplete,
    Panic,
}

/// What one request's record holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub level: Level,
    pub omit_stages: Vec<Stage>,
    pub omit_managed_fields: bool,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Policy {
    api_version: String,
    kind: String,
    #[serde(default, rename = "metadata")]
    _metadata: serde_json::Value,
    rules: Vec<Rule>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    #[serde(default)]
    omit_managed_fields: bool,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    level: Level,
    #[serde(default)]
    users: Vec<String>,
    #[serde(default)]
    user_groups: Vec<String>,
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default)]
    resources: Vec<GroupResources>,
    #[serde(default)]
    namespaces: Vec<String>,
    #[serde(default, rename = "nonResourceURLs")]
    non_resource_urls: Vec<String>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    omit_managed_fields: Option<bool>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct GroupResources {
    #[serde(default)]
    group: String,
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    resource_names: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    #[error("read the audit policy {path}")]
    Read { path: String, source: std::io::Error },
    #[error("the audit policy {path} is invalid: {problem}")]
    Invalid { path: String, problem: String },
}

impl Policy {
    pub fn load(path: &Path) -> Result<Self, PolicyError> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|source| PolicyError::Read { path: name.clone(), source })?;
        Self::parse(&text).map_err(|problem| PolicyError::Invalid { path: name, problem })
    }

    fn parse(text: &str) -> Result<Self, String> {
        let policy: Self = keelson_daemon::config::parse(text)?;
        if policy.api_version != "audit.k8s.io/v1" || policy.kind != "Policy" {
            return Err(format!("{} {} is not audit.k8s.io/v1 Policy", policy.api_version, policy.kind));
        }
        if policy.rules.is_empty() {
            return Err("rules: must hold at least one rule".into());
        }
        let on_resources = |r: &Rule| !r.resources.is_empty() || !r.namespaces.is_empty();
        let mixed = |r: &Rule| !r.non_resource_urls.is_empty() && on_resources(r);
        match policy.rules.iter().position(mixed) {
            Some(i) => {
                Err(format!("rules[{i}]: rules cannot apply to both regular resources and non-resource URLs"))
            }
            None => Ok(policy),
        }
    }

    /// By the first rule that matches; nothing is recorded of what no rule matches.
    pub fn plan(&self, info: &RequestInfo, user: &UserInfo) -> Plan {
        let rule = self.rules.iter().find(|rule| rule.matches(info, user));
        let own = rule.map(|r| r.omit_stages.as_slice()).unwrap_or_default();
        Plan {
            level: rule.map_or(Level::None, |r| r.level),
            omit_stages: self.omit_stages.iter().chain(own).copied().collect(),
            omit_managed_fields: rule.and_then(|r| r.omit_managed_fields).unwrap_or(self.omit_managed_fields),
        }
    }
}

fn any<S: AsRef<str>>(list: &[S], text: &str) -> bool {
    list.iter().any(|s| s.as_ref() == text)
}

impl Rule {
    fn matches(&self, info: &RequestInfo, user: &UserInfo) -> bool {
        let narrowed = !self.namespaces.is_empty() || !self.resources.is_empty();
        (self.users.is_empty() || any(&self.users, &user.name))
            && (self.user_groups.is_empty() || user.groups.iter().any(|g| any(&self.user_groups, g)))
            && (self.verbs.is_empty() || any(&self.verbs, &info.verb))
            && match (narrowed, self.non_resource_urls.is_empty()) {
                (true, _) => info.is_resource && self.matches_resource(info),
                (false, false) => !info.is_resource && self.matches_path(&info.path),
                (false, true) => true,
            }
    }

    fn matches_path(&self, path: &str) -> bool {
        self.non_resource_urls.iter().any(|url| match url.strip_suffix('*') {
            Some(prefix) => path.starts_with(prefix),
            None => url == path,
        })
    }

    fn matches_resource(&self, info: &RequestInfo) -> bool {
        (self.namespaces.is_empty() || any(&self.namespaces, &info.namespace))
            && (self.resources.is_empty() || self.resources.iter().any(|r| r.matches(info)))
    }
}

impl GroupResources {
    fn matches(&self, info: &RequestInfo) -> bool {
        let named = || self.resource_names.is_empty() || any(&self.resource_names, &info.name);
        let is = |pattern: &str| match pattern.split_once('/') {
            None => pattern == "*" || info.subresource.is_empty() && pattern == info.resource,
            Some(("*", sub)) => !info.subresource.is_empty() && (sub == info.subresource || sub == "*"),
            Some((resource, sub)) => resource == info.resource && (sub == "*" || sub == info.subresource),
        };
        (self.group == "*" || self.group == info.group)
            && (self.resources.is_empty() || named() && self.resources.iter().any(|r| is(r)))
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::authz::testing::user;
    use crate::request::Query;

    const POLICY: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: None, users: ["system:kube-proxy"], verbs: [watch]}
- {level: None, nonResourceURLs: ["/healthz*", "/version"]}
- level: Request
  resources: [{group: "", resources: [configmaps], resourceNames: [audited]}]
  namespaces: [kube-system]
  omitStages: [Panic]
- {level: RequestResponse, resources: [{group: "", resources: [pods, "pods/status"]}], omitManagedFields: true}
- {level: Metadata, resources: [{group: "", resources: ["pods/*"]}]}
- {level: Metadata, userGroups: [auditors]}
"#;

    #[test]
    fn the_first_rule_that_matches_decides() {
        let policy = Policy::parse(POLICY).unwrap();
        let plan = |method: Method, target: &str, name: &str, groups: &[&str]| {
            let (path, query) = target.split_once('?').unwrap_or((target, ""));
            policy.plan(&RequestInfo::parse(&method, path, &Query::parse(Some(query))), &user(name, groups))
        };
        let cases = [
            ("/api/v1/services?watch=1", "system:kube-proxy", "", Level::None),
            ("/healthz/ping", "u", "auditors", Level::None),
            ("/version", "u", "auditors", Level::None),
            ("/readyz", "u", "auditors", Level::Metadata),
            ("/api/v1/namespaces/kube-system/configmaps/audited", "u", "", Level::Request),
            ("/api/v1/namespaces/kube-system/configmaps/other", "u", "", Level::None),
            ("/api/v1/namespaces/a/pods/p", "u", "", Level::RequestResponse),
            ("/api/v1/namespaces/a/pods/p/status", "u", "", Level::RequestResponse),
            ("/api/v1/namespaces/a/pods/p/log", "u", "", Level::Metadata),
            ("/apis/apps/v1/deployments", "u", "", Level::None),
        ];
        for (target, name, group, level) in cases {
            assert_eq!(plan(Method::GET, target, name, &[group]).level, level, "{target} {name}");
        }
        let pod = plan(Method::GET, "/api/v1/namespaces/a/pods/p", "u", &[]);
        assert_eq!((pod.omit_managed_fields, pod.omit_stages), (true, vec![Stage::RequestReceived]));
        let map = plan(Method::GET, "/api/v1/namespaces/kube-system/configmaps/audited", "u", &[]);
        assert_eq!(map.omit_stages, [Stage::RequestReceived, Stage::Panic]);
    }

    #[test]
    fn a_wrong_policy_is_refused() {
        let wrong = [
            ("kind: Policy\napiVersion: audit.k8s.io/v1\nrules: []", "rules"),
            ("kind: Policy\napiVersion: audit.k8s.io/v1beta1\nrules: [{level: None}]", "v1beta1"),
            ("kind: Policy\napiVersion: audit.k8s.io/v1\nrules: [{level: Everything}]", "rules[0].level"),
            (
                "kind: Policy\napiVersion: audit.k8s.io/v1\nrules: [{level: None, namespaces: [a], nonResourceURLs: [/x]}]",
                "rules[0]",
            ),
        ];
        for (text, part) in wrong {
            let problem = Policy::parse(text).unwrap_err();
            assert!(problem.contains(part), "{problem}");
        }
    }
}
