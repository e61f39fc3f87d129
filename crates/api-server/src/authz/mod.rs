//! Who may do what: `system:masters`, then the authorizers of the configuration in its order (Node and RBAC
//! by default). The first Allow or Deny decides.

pub mod conditions;
pub mod config;
pub mod node;
pub mod rbac;
pub mod webhook;

use std::sync::Arc;

use arc_swap::ArcSwap;
use futures::FutureExt;
use futures::future::BoxFuture;
use keelson_api_types::gofmt::quote;
use keelson_api_types::{GroupResource, StatusError};
use serde_json::{Value, json};

use crate::remote::RemoteError;
use crate::types::{Attributes, Authorizer, Decision, Objects, UserInfo, Verdict};
use config::AuthorizationConfiguration;
use node::NodeAuthorizer;
use rbac::Rbac;
use webhook::WebhookAuthorizer;

/// The group whose members may do anything.
pub const MASTERS: &str = "system:masters";

/// The cluster's authorizer.
pub struct Authorizers {
    node: NodeAuthorizer,
    rbac: Rbac,
    chain: ArcSwap<Vec<Link>>,
    /// Paths that anybody may get, before anyone is asked.
    open_paths: Vec<String>,
}

enum Link {
    AlwaysAllow,
    AlwaysDeny,
    Node,
    Rbac,
    Webhook(Box<WebhookAuthorizer>),
}

impl Authorizers {
    /// Follows roles, bindings and what ties nodes to objects; must run inside a tokio runtime.
    pub fn start(
        objects: &Arc<dyn Objects>,
        config: &AuthorizationConfiguration,
        open_paths: Vec<String>,
    ) -> Result<Arc<Self>, RemoteError> {
        let started = Self::new(NodeAuthorizer::start(objects), Rbac::start(objects));
        started.replace(config)?;
        Ok(Arc::new(Self { open_paths, ..started }))
    }

    /// Asks Node and RBAC.
    pub fn new(node: NodeAuthorizer, rbac: Rbac) -> Self {
        let chain = ArcSwap::from_pointee(vec![Link::Node, Link::Rbac]);
        Self { node, rbac, chain, open_paths: Vec::new() }
    }

    /// Takes over a changed configuration.
    pub fn replace(&self, config: &AuthorizationConfiguration) -> Result<(), RemoteError> {
        self.chain.store(Arc::new(links(config)?));
        Ok(())
    }

    pub fn rbac(&self) -> &Rbac {
        &self.rbac
    }

    /// What needs no configured authorizer.
    fn is_open(&self, a: &Attributes<'_>) -> bool {
        a.user.in_group(MASTERS)
            || !a.is_resource && a.verb == "get" && self.open_paths.iter().any(|p| covers(p, a.path))
    }

    /// The answer of a link that answers from memory.
    fn answer(&self, link: &Link, a: &Attributes<'_>) -> Option<Decision> {
        Some(match link {
            Link::AlwaysAllow => Decision::Allow(String::new()),
            Link::AlwaysDeny => Decision::NoOpinion("Everything is forbidden.".to_owned()),
            Link::Node => self.node.authorize(a),
            Link::Rbac => self.rbac.authorize(a),
            Link::Webhook(_) => return None,
        })
    }
}

fn links(config: &AuthorizationConfiguration) -> Result<Vec<Link>, RemoteError> {
    let mut links = Vec::new();
    for authorizer in &config.authorizers {
        links.push(match (authorizer.kind.as_str(), &authorizer.webhook) {
            ("AlwaysAllow", _) => Link::AlwaysAllow,
            ("Node", _) => Link::Node,
            ("RBAC", _) => Link::Rbac,
            ("Webhook", Some(webhook)) => {
                Link::Webhook(Box::new(WebhookAuthorizer::new(&authorizer.name, webhook)?))
            }
            _ => Link::AlwaysDeny,
        });
    }
    Ok(links)
}

/// A path, or with a final `*` all that begin so.
fn covers(pattern: &str, path: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => pattern == path,
    }
}

/// What those without an opinion said.
#[derive(Default)]
struct Undecided {
    reasons: Vec<String>,
    errors: Vec<String>,
}

impl Undecided {
    /// The verdict if this one decides.
    fn take(&mut self, verdict: Verdict) -> Option<Verdict> {
        let Decision::NoOpinion(reason) = verdict.decision else { return Some(verdict) };
        self.reasons.extend(Some(reason).filter(|r| !r.is_empty()));
        self.errors.extend(Some(verdict.error).filter(|e| !e.is_empty()));
        None
    }

    fn verdict(self) -> Verdict {
        Verdict { decision: Decision::NoOpinion(self.reasons.join("\n")), error: joined(self.errors) }
    }
}

/// As upstream prints several errors.
fn joined(mut errors: Vec<String>) -> String {
    match errors.len() {
        0 | 1 => errors.pop().unwrap_or_default(),
        _ => format!("[{}]", errors.join(", ")),
    }
}

impl Authorizer for Authorizers {
    fn known(&self, a: &Attributes<'_>) -> Option<Decision> {
        if self.is_open(a) {
            return Some(Decision::Allow(String::new()));
        }
        let mut undecided = Undecided::default();
        for link in self.chain.load().iter() {
            if let Some(decided) = undecided.take(self.answer(link, a)?.into()) {
                return Some(decided.decision);
            }
        }
        Some(undecided.verdict().decision)
    }

    fn decide<'a>(&'a self, a: &'a Attributes<'_>) -> BoxFuture<'a, Verdict> {
        if self.is_open(a) {
            return std::future::ready(Decision::Allow(String::new()).into()).boxed();
        }
        let chain = self.chain.load_full();
        async move {
            let mut undecided = Undecided::default();
            for link in chain.iter() {
                let verdict = match (self.answer(link, a), link) {
                    (Some(decision), _) => decision.into(),
                    (None, Link::Webhook(webhook)) => webhook.decide(a).await,
                    (None, _) => continue,
                };
                if let Some(decided) = undecided.take(verdict) {
                    return decided;
                }
            }
            undecided.verdict()
        }
        .boxed()
    }

    fn rules_for(&self, user: &UserInfo, namespace: &str) -> Value {
        let mut status = json!({"resourceRules": [], "nonResourceRules": [], "incomplete": false});
        let mut errors = Vec::new();
        for link in self.chain.load().iter() {
            let (rules, error) = match link {
                Link::AlwaysDeny => continue,
                Link::AlwaysAllow => (everything(), String::new()),
                Link::Rbac => {
                    let rules = self.rbac.rules_for(user, namespace);
                    let error = rules["evaluationError"].as_str().unwrap_or_default().to_owned();
                    (rules, error)
                }
                Link::Node if node::node_name(user).is_some() => {
                    (json!({"incomplete": true}), unable("node"))
                }
                Link::Node => continue,
                Link::Webhook(_) => (json!({"incomplete": true}), unable("webhook")),
            };
            for key in ["resourceRules", "nonResourceRules"] {
                let more = rules[key].as_array().cloned().unwrap_or_default();
                if let Some(all) = status[key].as_array_mut() {
                    all.extend(more);
                }
            }
            if rules["incomplete"] == true {
                status["incomplete"] = true.into();
            }
            errors.extend(Some(error).filter(|e| !e.is_empty()));
        }
        if !errors.is_empty() {
            status["evaluationError"] = joined(errors).into();
        }
        status
    }
}

fn unable(authorizer: &str) -> String {
    format!("{authorizer} authorizer does not support user rule resolution")
}

fn everything() -> Value {
    json!({"resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}],
        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]})
}

/// Asks whether a request may be done; the error is what its caller is answered.
pub async fn allow(authorizer: &dyn Authorizer, a: &Attributes<'_>) -> Result<(), StatusError> {
    judged(&authorizer.decide(a).await, a)
}

/// What a verdict means for the caller.
pub fn judged(verdict: &Verdict, a: &Attributes<'_>) -> Result<(), StatusError> {
    match verdict.error.as_str() {
        _ if verdict.is_allowed() => Ok(()),
        "" => Err(forbidden(a, verdict.reason())),
        error => Err(StatusError::internal(error)),
    }
}

/// The refusal that a caller gets: 403 with upstream's text.
pub fn forbidden(a: &Attributes<'_>, reason: &str) -> StatusError {
    let mut message = forbidden_message(a);
    if !reason.is_empty() {
        message = format!("{message}: {reason}");
    }
    StatusError::forbidden(&GroupResource::new(a.group, a.resource), a.name, &message)
}

fn forbidden_message(a: &Attributes<'_>) -> String {
    let user = quote(&a.user.name);
    let text = if !a.is_resource {
        format!("User {user} cannot {} path {}", a.verb, quote(a.path))
    } else {
        let resource = if a.subresource.is_empty() {
            a.resource.to_owned()
        } else {
            format!("{}/{}", a.resource, a.subresource)
        };
        let place = if a.namespace.is_empty() {
            "at the cluster scope".to_owned()
        } else {
            format!("in the namespace {}", quote(a.namespace))
        };
        let (resource, group) = (quote(&resource), quote(a.group));
        format!("User {user} cannot {} resource {resource} in API group {group} {place}", a.verb)
    };
    // The message may quote a path that the caller chose: nothing in it may read as HTML.
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Small builders that the tests of this folder share.
#[cfg(test)]
pub mod testing {
    use serde_json::{Value, json};

    use super::rbac::index::{BindingObject, RoleObject};
    use crate::types::{Attributes, UserInfo};

    pub fn user(name: &str, groups: &[&str]) -> UserInfo {
        UserInfo {
            name: name.into(),
            groups: groups.iter().map(|g| (*g).to_owned()).collect(),
            ..UserInfo::default()
        }
    }

    pub fn resource<'a>(
        user: &'a UserInfo,
        verb: &'a str,
        group: &'a str,
        resource: &'a str,
        namespace: &'a str,
        name: &'a str,
    ) -> Attributes<'a> {
        Attributes { namespace, name, ..Attributes::resource(user, verb, group, "v1", resource) }
    }

    pub fn path<'a>(user: &'a UserInfo, verb: &'a str, path: &'a str) -> Attributes<'a> {
        Attributes { path, is_resource: false, ..resource(user, verb, "", "", "", "") }
    }

    pub fn role(namespace: &str, name: &str, rules: Value) -> RoleObject {
        let object = json!({"metadata": {"namespace": namespace, "name": name}, "rules": rules});
        serde_json::from_value(object).expect("a role")
    }

    pub fn binding(
        namespace: &str,
        name: &str,
        role_kind: &str,
        role: &str,
        subjects: &[(&str, &str, &str)],
    ) -> BindingObject {
        let subjects: Vec<Value> = subjects
            .iter()
            .map(|(kind, name, ns)| json!({"kind": kind, "name": name, "namespace": ns}))
            .collect();
        serde_json::from_value(json!({
            "metadata": {"namespace": namespace, "name": name},
            "subjects": subjects,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": role_kind, "name": role},
        }))
        .expect("a binding")
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{path, resource, user};
    use super::*;

    #[test]
    fn a_refusal_reads_like_upstream() {
        let u = user("jane", &[]);
        let mut log = resource(&u, "get", "", "pods", "default", "p");
        log.subresource = "log";
        let cases = [
            (
                resource(&u, "list", "", "pods", "default", ""),
                r#"User "jane" cannot list resource "pods" in API group "" in the namespace "default""#,
            ),
            (
                resource(&u, "list", "apps", "deployments", "", ""),
                r#"User "jane" cannot list resource "deployments" in API group "apps" at the cluster scope"#,
            ),
            (log, r#"User "jane" cannot get resource "pods/log" in API group "" in the namespace "default""#),
            (path(&u, "get", "/metrics<x>"), r#"User "jane" cannot get path "/metrics&lt;x&gt;""#),
        ];
        for (a, want) in cases {
            assert_eq!(forbidden_message(&a), want);
        }
    }

    #[test]
    fn masters_may_do_anything() {
        let all = Authorizers::new(NodeAuthorizer::default(), Rbac::default());
        let u = user("root", &["system:masters"]);
        let known = all.known(&resource(&u, "escalate", "x", "y", "", ""));
        assert!(matches!(known, Some(Decision::Allow(_))));
        let u = user("jane", &[]);
        assert_eq!(all.known(&path(&u, "get", "/")), Some(Decision::NoOpinion(String::new())));
    }

    #[test]
    fn authorizers_are_asked_in_their_order() {
        let allow = |types: &[&str]| {
            let list: Vec<Value> =
                types.iter().map(|t| json!({"type": t, "name": t.to_lowercase()})).collect();
            let config = serde_json::from_value(json!({ "authorizers": list })).expect("a configuration");
            let all = Authorizers::new(NodeAuthorizer::default(), Rbac::default());
            all.replace(&config).expect("no webhook");
            let all = Authorizers { open_paths: vec!["/livez".into(), "/readyz/*".into()], ..all };
            let u = user("jane", &[]);
            let allowed = |a: Attributes<'_>| matches!(all.known(&a), Some(Decision::Allow(_)));
            (allowed(resource(&u, "get", "", "pods", "a", "p")), allowed(path(&u, "get", "/readyz/ping")))
        };
        assert_eq!(allow(&["RBAC"]), (false, true));
        assert_eq!(allow(&["AlwaysDeny", "AlwaysAllow"]), (true, true));
        assert_eq!(allow(&["AlwaysDeny"]), (false, true));
    }

    #[test]
    fn rules_of_all_authorizers_are_joined() {
        let list = json!([{"type": "Node", "name": "node"}, {"type": "AlwaysAllow", "name": "alwaysallow"}]);
        let config = serde_json::from_value(json!({ "authorizers": list })).expect("a configuration");
        let all = Authorizers::new(NodeAuthorizer::default(), Rbac::default());
        all.replace(&config).expect("no webhook");
        let rules = all.rules_for(&user("system:node:n", &["system:nodes"]), "a");
        assert_eq!(rules["evaluationError"], "node authorizer does not support user rule resolution");
        assert_eq!(
            (&rules["incomplete"], &rules["resourceRules"][0]["verbs"][0]),
            (&json!(true), &json!("*"))
        );
    }
}
