//! `AuthorizationConfiguration`: who is asked whether a request is allowed, in which order.

use std::path::PathBuf;
use std::time::Duration;

use keelson_api_types::names;
use serde::Deserialize;

use super::conditions::Conditions;
use crate::structured::{Document, go_duration};

const MAX_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_CONDITIONS: usize = 64;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthorizationConfiguration {
    #[serde(default)]
    pub authorizers: Vec<AuthorizerConfiguration>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthorizerConfiguration {
    #[serde(default, rename = "type")]
    pub kind: String,
    /// Names it in metrics and logs.
    #[serde(default)]
    pub name: String,
    pub webhook: Option<WebhookConfiguration>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct WebhookConfiguration {
    #[serde(default, rename = "authorizedTTL", deserialize_with = "go_duration")]
    authorized_ttl: Option<Duration>,
    #[serde(default)]
    cache_authorized_requests: Option<bool>,
    #[serde(default, rename = "unauthorizedTTL", deserialize_with = "go_duration")]
    unauthorized_ttl: Option<Duration>,
    #[serde(default)]
    cache_unauthorized_requests: Option<bool>,
    #[serde(default, deserialize_with = "go_duration")]
    timeout: Option<Duration>,
    /// `v1` or `v1beta1`.
    #[serde(default)]
    pub subject_access_review_version: String,
    #[serde(default)]
    match_condition_subject_access_review_version: String,
    #[serde(default)]
    failure_policy: String,
    #[serde(default)]
    connection_info: ConnectionInfo,
    #[serde(default)]
    pub match_conditions: Vec<MatchCondition>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct ConnectionInfo {
    #[serde(rename = "type")]
    kind: String,
    kube_config_file: Option<PathBuf>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MatchCondition {
    /// CEL over `request`, a SubjectAccessReviewSpec; must be boolean.
    #[serde(default)]
    pub expression: String,
}

impl Default for AuthorizationConfiguration {
    fn default() -> Self {
        let of = |kind: &str| AuthorizerConfiguration {
            kind: kind.to_owned(),
            name: kind.to_lowercase(),
            webhook: None,
        };
        Self { authorizers: vec![of("Node"), of("RBAC")] }
    }
}

impl AuthorizationConfiguration {
    /// The types besides webhooks, which a reload must keep.
    pub fn own_types(&self) -> Vec<&str> {
        let own = self.authorizers.iter().map(|a| a.kind.as_str()).filter(|k| *k != "Webhook");
        own.collect()
    }
}

impl Document for AuthorizationConfiguration {
    const KIND: &'static str = "AuthorizationConfiguration";
    const VERSIONS: &'static [&'static str] = &["v1", "v1beta1", "v1alpha1"];

    fn problems(&self) -> Vec<String> {
        let mut found = Vec::new();
        if self.authorizers.is_empty() {
            found.push("authorizers: at least one authorization mode must be defined".to_owned());
        }
        for (i, authorizer) in self.authorizers.iter().enumerate() {
            authorizer.check(&format!("authorizers[{i}]"), &self.authorizers[..i], &mut found);
        }
        found
    }
}

const TYPES: [&str; 5] = ["AlwaysAllow", "AlwaysDeny", "Node", "RBAC", "Webhook"];

impl AuthorizerConfiguration {
    fn check(&self, path: &str, earlier: &[Self], found: &mut Vec<String>) {
        let Self { kind, name, webhook } = self;
        if !TYPES.contains(&kind.as_str()) {
            found.push(format!(
                "{path}.type: Unsupported value: {kind:?}: supported values: {}",
                TYPES.join(", ")
            ));
            return;
        }
        if kind != "Webhook" && earlier.iter().any(|e| e.kind == *kind) {
            found.push(format!("{path}.type: Duplicate value: {kind:?}"));
        }
        let lower = kind.to_lowercase();
        if name.is_empty() {
            found.push(format!("{path}.name: Required value"));
        } else if earlier.iter().any(|e| e.name == *name) {
            found.push(format!("{path}.name: Duplicate value: {name:?}"));
        } else if kind != "Webhook" && *name != lower {
            found.push(format!("{path}.name: expected name {lower} for authorizer {kind} instead of {name}"));
        } else if let Some(problem) = names::dns1123_subdomain(name).first() {
            found.push(format!("{path}.name: authorizer name is invalid: {problem}"));
        }
        match (kind.as_str(), webhook) {
            ("Webhook", None) => found.push(format!("{path}.webhook: required when type=Webhook")),
            ("Webhook", Some(webhook)) => webhook.check(path, found),
            (_, Some(_)) => found.push(format!("{path}.webhook: may only be specified when type=Webhook")),
            (_, None) => {}
        }
    }
}

impl WebhookConfiguration {
    pub fn timeout(&self) -> Duration {
        self.timeout.unwrap_or(MAX_TIMEOUT)
    }

    /// How long an allowing answer is believed; zero not at all.
    pub fn authorized_ttl(&self) -> Duration {
        let ttl = self.authorized_ttl.unwrap_or(Duration::from_secs(300));
        if self.cache_authorized_requests.unwrap_or(true) { ttl } else { Duration::ZERO }
    }

    pub fn unauthorized_ttl(&self) -> Duration {
        let ttl = self.unauthorized_ttl.unwrap_or(Duration::from_secs(30));
        if self.cache_unauthorized_requests.unwrap_or(true) { ttl } else { Duration::ZERO }
    }

    pub fn denies_on_failure(&self) -> bool {
        self.failure_policy == "Deny"
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.connection_info.kube_config_file.clone().unwrap_or_default()
    }

    fn check(&self, path: &str, found: &mut Vec<String>) {
        let mut add = |field: &str, problem: String| found.push(format!("{path}.{field}: {problem}"));
        match self.timeout {
            None => add("timeout", "Required value".into()),
            Some(t) if t.is_zero() || t > MAX_TIMEOUT => add("timeout", "must be > 0s and <= 30s".into()),
            Some(_) => {}
        }
        let one_of = |value: &str, allowed: &[&str]| match value {
            "" => Some("Required value".to_owned()),
            v if allowed.contains(&v) => None,
            v => Some(format!("Unsupported value: {v:?}: supported values: {}", allowed.join(", "))),
        };
        if let Some(problem) = one_of(&self.subject_access_review_version, &["v1", "v1beta1"]) {
            add("subjectAccessReviewVersion", problem);
        }
        if let Some(problem) = one_of(&self.failure_policy, &["NoOpinion", "Deny"]) {
            add("failurePolicy", problem);
        }
        let of_conditions = self.match_condition_subject_access_review_version.as_str();
        if !(of_conditions.is_empty() && self.match_conditions.is_empty())
            && let Some(problem) = one_of(of_conditions, &["v1"])
        {
            add("matchConditionSubjectAccessReviewVersion", problem);
        }
        let file = self.connection_info.kube_config_file.as_deref();
        match (self.connection_info.kind.as_str(), file) {
            ("KubeConfigFile", None) => add("connectionInfo.kubeConfigFile", "Required value".into()),
            ("KubeConfigFile", Some(file)) if !file.is_absolute() => {
                add("connectionInfo.kubeConfigFile", "must be an absolute path".into());
            }
            ("KubeConfigFile", Some(file)) if !file.is_file() => {
                add("connectionInfo.kubeConfigFile", format!("no file {}", file.display()));
            }
            ("KubeConfigFile", Some(_)) => {}
            (kind, _) => {
                let problem = one_of(kind, &["KubeConfigFile"]);
                add("connectionInfo.type", problem.unwrap_or_default());
            }
        }
        if self.match_conditions.len() > MAX_CONDITIONS {
            add("matchConditions", format!("must have at most {MAX_CONDITIONS} items"));
        }
        for (i, condition) in self.match_conditions.iter().enumerate() {
            let at = format!("matchConditions[{i}].expression");
            if condition.expression.trim().is_empty() {
                add(&at, "Required value".into());
            } else if self.match_conditions[..i].iter().any(|c| c.expression == condition.expression) {
                add(&at, format!("Duplicate value: {:?}", condition.expression));
            }
        }
        if let Err((i, problem)) = Conditions::compile(&self.match_conditions) {
            add(&format!("matchConditions[{i}].expression"), problem);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_not_work_as_written_is_named() {
        let cases = [
            ("authorizers: [{type: Node, name: node}, {type: RBAC, name: rbac}]", None),
            ("authorizers: []", Some("at least one")),
            ("authorizers: [{type: ABAC, name: abac}]", Some("Unsupported value")),
            ("authorizers: [{type: RBAC, name: rbac}, {type: RBAC, name: other}]", Some("Duplicate value")),
            ("authorizers: [{type: RBAC, name: mine}]", Some("expected name rbac")),
            ("authorizers: [{type: Webhook, name: w}]", Some("required when type=Webhook")),
            (
                "authorizers: [{type: Webhook, name: w, webhook: {timeout: 31s}}]",
                Some("must be > 0s and <= 30s"),
            ),
            (
                "authorizers: [{type: Webhook, name: w, webhook: {connectionInfo: {type: InClusterConfig}}}]",
                Some("connectionInfo.type"),
            ),
        ];
        for (text, want) in cases {
            let parsed: AuthorizationConfiguration = keelson_daemon::config::parse(text).expect(text);
            let got = parsed.problems();
            match want {
                None => assert_eq!(got, Vec::<String>::new(), "{text}"),
                Some(part) => assert!(got.iter().any(|p| p.contains(part)), "{text}: {got:?}"),
            }
        }
    }
}
