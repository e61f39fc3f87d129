//! FlowSchemas and PriorityLevelConfigurations as the server uses them, and which schema a request belongs to.

use serde::Deserialize;

use super::allocation::Shares;
use super::queueset::{Mode, Queuing};
use crate::request::RequestInfo;
use crate::types::UserInfo;

/// The schema and the level that always exist, whoever deletes their objects.
pub const EXEMPT: &str = "exempt";
pub const CATCH_ALL: &str = "catch-all";

const SERVICE_ACCOUNT: &str = "system:serviceaccount:";

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Meta {
    pub name: String,
    pub uid: String,
}

#[derive(Debug, Clone, Deserialize)]
pub struct FlowSchema {
    pub metadata: Meta,
    #[serde(default)]
    pub spec: FlowSchemaSpec,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FlowSchemaSpec {
    pub priority_level_configuration: Meta,
    pub matching_precedence: i64,
    pub distinguisher_method: Option<DistinguisherMethod>,
    pub rules: Vec<Rule>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct DistinguisherMethod {
    #[serde(rename = "type")]
    pub kind: Distinguisher,
}

/// What tells the flows of a schema apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Distinguisher {
    ByUser,
    ByNamespace,
}

impl Distinguisher {
    pub fn of<'a>(self, info: &'a RequestInfo, user: &'a UserInfo) -> &'a str {
        match self {
            Self::ByUser => &user.name,
            Self::ByNamespace => &info.namespace,
        }
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rule {
    subjects: Vec<Subject>,
    resource_rules: Vec<ResourceRule>,
    non_resource_rules: Vec<NonResourceRule>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "kind")]
enum Subject {
    User {
        user: Meta,
    },
    Group {
        group: Meta,
    },
    ServiceAccount {
        #[serde(rename = "serviceAccount")]
        account: ServiceAccount,
    },
}

#[derive(Debug, Clone, Deserialize)]
struct ServiceAccount {
    namespace: String,
    name: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ResourceRule {
    verbs: Names,
    api_groups: Names,
    resources: Names,
    cluster_scope: bool,
    namespaces: Names,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct NonResourceRule {
    verbs: Names,
    #[serde(rename = "nonResourceURLs")]
    urls: Vec<String>,
}

/// A list of names, where a single `*` means all.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(from = "Vec<String>")]
struct Names {
    all: bool,
    names: Vec<String>,
}

impl From<Vec<String>> for Names {
    fn from(names: Vec<String>) -> Self {
        Self { all: names == ["*"], names }
    }
}

impl Names {
    fn has(&self, name: &str) -> bool {
        self.all || self.names.iter().any(|n| n == name)
    }

    /// `resource/subresource`, without putting it together.
    fn has_resource(&self, resource: &str, subresource: &str) -> bool {
        self.all
            || self.names.iter().any(|name| match name.strip_prefix(resource) {
                Some(rest) if subresource.is_empty() => rest.is_empty(),
                Some(rest) => rest.strip_prefix('/') == Some(subresource),
                None => false,
            })
    }
}

impl FlowSchemaSpec {
    pub fn matches(&self, info: &RequestInfo, user: &UserInfo) -> bool {
        self.rules.iter().any(|rule| {
            rule.subjects.iter().any(|s| s.matches(user))
                && match info.is_resource {
                    true => rule.resource_rules.iter().any(|r| r.matches(info)),
                    false => rule.non_resource_rules.iter().any(|r| r.matches(info)),
                }
        })
    }
}

impl Subject {
    fn matches(&self, user: &UserInfo) -> bool {
        match self {
            Self::User { user: wanted } => wanted.name == "*" || wanted.name == user.name,
            Self::Group { group } => group.name == "*" || user.in_group(&group.name),
            Self::ServiceAccount { account } => {
                let account_of = |name: &str| name == account.name || account.name == "*";
                let rest =
                    user.name.strip_prefix(SERVICE_ACCOUNT).and_then(|n| n.strip_prefix(&account.namespace));
                rest.and_then(|n| n.strip_prefix(':')).is_some_and(account_of)
            }
        }
    }
}

impl ResourceRule {
    fn matches(&self, info: &RequestInfo) -> bool {
        self.verbs.has(&info.verb)
            && self.resources.has_resource(&info.resource, &info.subresource)
            && self.api_groups.has(&info.group)
            && match info.namespace.as_str() {
                "" => self.cluster_scope,
                namespace => self.namespaces.has(namespace),
            }
    }
}

impl NonResourceRule {
    fn matches(&self, info: &RequestInfo) -> bool {
        let below = |url: &str| {
            let prefix = url.strip_suffix('*').unwrap_or(url);
            let rest = info.path.strip_prefix(prefix);
            rest.is_some_and(|rest| prefix.ends_with('/') || rest.starts_with('/'))
        };
        self.verbs.has(&info.verb) && self.urls.iter().any(|u| u == "*" || *u == info.path || below(u))
    }
}

#[derive(Debug, Clone, Deserialize)]
pub struct PriorityLevel {
    pub metadata: Meta,
    pub spec: PriorityLevelSpec,
}

#[derive(Debug, Clone, Deserialize)]
pub struct PriorityLevelSpec {
    #[serde(rename = "type")]
    kind: String,
    limited: Option<Limited>,
    exempt: Option<Exempt>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Exempt {
    nominal_concurrency_shares: Option<u32>,
    lendable_percent: Option<u32>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Limited {
    nominal_concurrency_shares: Option<u32>,
    lendable_percent: Option<u32>,
    borrowing_limit_percent: Option<u32>,
    limit_response: LimitResponse,
}

#[derive(Debug, Clone, Deserialize)]
struct LimitResponse {
    #[serde(rename = "type")]
    kind: String,
    queuing: Option<QueuingSpec>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct QueuingSpec {
    queues: usize,
    hand_size: usize,
    queue_length_limit: usize,
}

impl PriorityLevel {
    /// How the level treats requests and what part of the seats it gets; `None` for one that makes no sense,
    /// which is treated as if it did not exist. Only the level named `exempt` is exempt.
    pub fn plan(&self) -> Option<(Mode, Shares)> {
        let percent = |p: Option<u32>| f64::from(p.unwrap_or(0));
        match (self.spec.kind.as_str(), &self.spec.limited, &self.spec.exempt) {
            ("Exempt", None, Some(exempt)) if self.metadata.name == EXEMPT => {
                let shares = Shares {
                    nominal: f64::from(exempt.nominal_concurrency_shares.unwrap_or(0)),
                    lendable: percent(exempt.lendable_percent),
                    borrowing: None,
                };
                Some((Mode::Exempt, shares))
            }
            ("Limited", Some(limited), None) if self.metadata.name != EXEMPT => {
                let mode = match (limited.limit_response.kind.as_str(), &limited.limit_response.queuing) {
                    ("Reject", None) => Mode::Reject,
                    ("Queue", Some(q)) => Mode::Queue(Queuing {
                        queues: q.queues.max(1),
                        length: q.queue_length_limit,
                        hand: q.hand_size,
                    }),
                    _ => return None,
                };
                let shares = Shares {
                    nominal: f64::from(limited.nominal_concurrency_shares.unwrap_or(30)),
                    lendable: percent(limited.lendable_percent),
                    borrowing: limited.borrowing_limit_percent.map(f64::from),
                };
                Some((mode, shares))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Method;
    use serde_json::{Value, json};

    use super::*;
    use crate::authz::testing::user;
    use crate::request::Query;

    fn schema(rule: Value) -> FlowSchemaSpec {
        serde_json::from_value(json!({"matchingPrecedence": 5, "rules": [rule]})).unwrap()
    }

    fn matches(spec: &FlowSchemaSpec, method: Method, path: &str, name: &str, groups: &[&str]) -> bool {
        spec.matches(&RequestInfo::parse(&method, path, &Query::parse(None)), &user(name, groups))
    }

    #[test]
    fn resource_rules_match_verb_group_resource_and_scope() {
        let spec = schema(json!({
            "subjects": [{"kind": "Group", "group": {"name": "g"}}],
            "resourceRules": [{"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods", "pods/log"],
                "namespaces": ["a"]}],
        }));
        let cases = [
            (Method::GET, "/api/v1/namespaces/a/pods/x", true),
            (Method::GET, "/api/v1/namespaces/a/pods/x/log", true),
            (Method::GET, "/api/v1/namespaces/a/pods/x/status", false),
            (Method::GET, "/api/v1/namespaces/b/pods/x", false),
            (Method::GET, "/api/v1/pods", false),
            (Method::DELETE, "/api/v1/namespaces/a/pods/x", false),
            (Method::GET, "/apis/apps/v1/namespaces/a/pods/x", false),
            (Method::GET, "/healthz", false),
        ];
        for (method, path, wanted) in cases {
            assert_eq!(matches(&spec, method.clone(), path, "u", &["g"]), wanted, "{method} {path}");
        }
        assert!(!matches(&spec, Method::GET, "/api/v1/namespaces/a/pods/x", "u", &["h"]));
    }

    #[test]
    fn subjects_are_users_groups_and_service_accounts() {
        let spec = |subject: Value| {
            schema(
                json!({"subjects": [subject], "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]}),
            )
        };
        let account = |name: &str| {
            spec(json!({"kind": "ServiceAccount", "serviceAccount": {"namespace": "ns", "name": name}}))
        };
        let any = spec(json!({"kind": "User", "user": {"name": "*"}}));
        let cases = [
            (&any, "anyone", true),
            (&spec(json!({"kind": "User", "user": {"name": "jane"}})), "john", false),
            (&account("sa"), "system:serviceaccount:ns:sa", true),
            (&account("sa"), "system:serviceaccount:ns:other", false),
            (&account("*"), "system:serviceaccount:ns:other", true),
            (&account("*"), "system:serviceaccount:ns2:other", false),
        ];
        for (spec, name, wanted) in cases {
            assert_eq!(matches(spec, Method::GET, "/version", name, &[]), wanted, "{name}");
        }
    }

    #[test]
    fn paths_match_whole_or_below_a_prefix() {
        let spec = schema(json!({
            "subjects": [{"kind": "Group", "group": {"name": "*"}}],
            "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/healthz", "/debug/*"]}],
        }));
        for (path, wanted) in [
            ("/healthz", true),
            ("/healthz/ping", true),
            ("/healthzz", false),
            ("/debug/x/y", true),
            ("/debug", false),
        ] {
            assert_eq!(matches(&spec, Method::GET, path, "u", &["g"]), wanted, "{path}");
        }
    }

    #[test]
    fn a_level_that_makes_no_sense_is_not_used() {
        let level = |name: &str, spec: Value| -> Option<Mode> {
            let object = json!({"metadata": {"name": name}, "spec": spec});
            serde_json::from_value::<PriorityLevel>(object).unwrap().plan().map(|(mode, _)| mode)
        };
        let exempt = json!({"type": "Exempt", "exempt": {}});
        assert_eq!(level("exempt", exempt.clone()), Some(Mode::Exempt));
        assert_eq!(level("other", exempt), None);
        let limited = json!({"type": "Limited", "limited": {"limitResponse": {"type": "Reject"}}});
        assert_eq!(level("other", limited.clone()), Some(Mode::Reject));
        assert_eq!(level("exempt", limited), None);
        let no_queues = json!({"type": "Limited", "limited": {"limitResponse": {"type": "Queue"}}});
        assert_eq!(level("other", no_queues), None);
    }
}
