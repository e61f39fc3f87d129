//! `Impersonate-*` headers: acting as somebody else. The constrained modes (KEP-5284) ask whether the caller may
//! do this very request as a node, a service account or another user; the legacy mode, whether they may be
//! whom they name for anything.

use std::collections::BTreeMap;

use http::HeaderMap;
use keelson_api_types::{FieldError, StatusError, names};

use super::front_proxy::extra_headers;
use super::service_account::account_groups;
use super::{ANONYMOUS, AUTHENTICATED, UNAUTHENTICATED};
use crate::authz::{MASTERS, forbidden};
use crate::types::{Attributes, Authorizer, UserInfo};

const GROUP: &str = "authentication.k8s.io";
const NODES: &str = "system:nodes";
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
const NODE_KEYS: &str = "authentication.kubernetes.io/associated-node-keys";
/// From so many on, the right to all of them is asked for first.
const MANY: usize = 4;

/// Asked in this order; the first that allows counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// A service account as the node that its pod runs on.
    AssociatedNode,
    ArbitraryNode,
    ServiceAccount,
    /// Anybody else.
    UserInfo,
    Legacy,
}

const MODES: [Mode; 5] =
    [Mode::AssociatedNode, Mode::ArbitraryNode, Mode::ServiceAccount, Mode::UserInfo, Mode::Legacy];

/// The user that the headers ask to be, if any; the headers are taken away. `request` is what the caller wants
/// to do, and names the caller.
pub async fn take(
    headers: &mut HeaderMap,
    request: &Attributes<'_>,
    authorizer: &dyn Authorizer,
) -> Result<Option<UserInfo>, StatusError> {
    let Some(wanted) = wanted(headers)? else { return Ok(None) };
    let mut refused = None;
    for mode in MODES.into_iter().filter(|m| m.applies(&wanted, request.user)) {
        match (Check { mode, authorizer, request }).run(&wanted).await {
            Ok(user) => {
                crate::audit::impersonating(request.user);
                return Ok(Some(user));
            }
            Err(error) => _ = refused.get_or_insert(error),
        }
    }
    Err(refused.unwrap_or_else(|| StatusError::internal("all impersonation modes failed")))
}

/// What the headers say, as they say it.
fn wanted(headers: &mut HeaderMap) -> Result<Option<UserInfo>, StatusError> {
    let values = |name: &str| -> Vec<String> {
        headers.get_all(name).iter().filter_map(|v| v.to_str().ok()).map(str::to_owned).collect()
    };
    let first = |name: &str| values(name).into_iter().next().unwrap_or_default();
    let wanted = UserInfo {
        name: first("impersonate-user"),
        uid: first("impersonate-uid"),
        groups: values("impersonate-group"),
        extra: extra_headers(headers, "impersonate-extra-"),
    };
    if wanted.name.is_empty() {
        return match wanted == UserInfo::default() {
            true => Ok(None),
            false => {
                Err(StatusError::bad_request("requested impersonation without impersonating a user name"))
            }
        };
    }
    let asked: Vec<_> = headers.keys().filter(|k| k.as_str().starts_with("impersonate-")).cloned().collect();
    for name in asked {
        headers.remove(name);
    }
    Ok(Some(wanted))
}

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Self::AssociatedNode => "associated-node",
            Self::ArbitraryNode => "arbitrary-node",
            Self::ServiceAccount => "serviceaccount",
            Self::UserInfo => "user-info",
            Self::Legacy => "",
        }
    }

    fn applies(self, wanted: &UserInfo, caller: &UserInfo) -> bool {
        let name_alone = wanted.uid.is_empty() && wanted.groups.is_empty() && wanted.extra.is_empty();
        let (node, account) = (node(&wanted.name), service_account(&wanted.name));
        match self {
            Self::AssociatedNode => {
                let own = caller.extra.get(NODE_NAME).map(Vec::as_slice);
                name_alone
                    && service_account(&caller.name).is_some()
                    && node.is_some_and(|node| own == Some(&[node.to_owned()]))
            }
            Self::ArbitraryNode => name_alone && node.is_some(),
            Self::ServiceAccount => name_alone && account.is_some(),
            Self::UserInfo => node.is_none() && account.is_none(),
            Self::Legacy => true,
        }
    }
}

/// One mode's questions.
struct Check<'a> {
    mode: Mode,
    authorizer: &'a dyn Authorizer,
    request: &'a Attributes<'a>,
}

impl Check<'_> {
    fn is_constrained(&self) -> bool {
        self.mode != Mode::Legacy
    }

    async fn run(&self, wanted: &UserInfo) -> Result<UserInfo, StatusError> {
        if self.is_constrained() {
            let verb = format!("impersonate-on:{}:{}", self.mode.name(), self.request.verb);
            self.ask(Attributes { verb: &verb, ..*self.request }).await?;
        }
        let mut user = wanted.clone();
        self.name(&mut user).await?;
        if !wanted.uid.is_empty() {
            self.part(GROUP, "uids", "", "", &wanted.uid).await?;
        }
        self.groups(&wanted.groups).await?;
        self.extra(&wanted.extra).await?;
        let has = |user: &UserInfo, group: &str| user.in_group(group);
        if user.name == ANONYMOUS {
            if !has(&user, UNAUTHENTICATED) {
                user.groups.push(UNAUTHENTICATED.into());
            }
        } else if !has(&user, AUTHENTICATED) && !has(&user, UNAUTHENTICATED) {
            user.groups.push(AUTHENTICATED.into());
        }
        Ok(user)
    }

    /// May the caller be called so; the groups that the name brings are filled in.
    async fn name(&self, user: &mut UserInfo) -> Result<(), StatusError> {
        let group = self.group();
        if let Some((namespace, account)) = service_account(&user.name) {
            self.part(group, "serviceaccounts", "", namespace, account).await?;
            if user.groups.is_empty() {
                user.groups = account_groups(namespace);
            }
            return Ok(());
        }
        match node(&user.name).filter(|_| self.is_constrained()) {
            Some(node) => {
                // The answer counts for every node that the caller may be tied to.
                let node = if self.mode == Mode::AssociatedNode { "*" } else { node };
                self.part(group, "nodes", "", "", node).await?;
                user.groups = vec![NODES.into()];
                Ok(())
            }
            None => self.part(group, "users", "", "", &user.name).await,
        }
    }

    async fn groups(&self, groups: &[String]) -> Result<(), StatusError> {
        let group = self.group();
        if self.is_constrained() {
            if groups.iter().any(String::is_empty) {
                return Err(self.refuse("groups", "", "impersonating the empty string group is not allowed"));
            }
            if groups.iter().any(|g| g == MASTERS) {
                let reason = "impersonating the system:masters group is not allowed";
                return Err(self.refuse("groups", MASTERS, reason));
            }
            if groups.len() >= MANY && self.part(group, "groups", "", "", "*").await.is_ok() {
                return Ok(());
            }
        }
        for name in groups {
            self.part(group, "groups", "", "", name).await?;
        }
        Ok(())
    }

    async fn extra(&self, extra: &BTreeMap<String, Vec<String>>) -> Result<(), StatusError> {
        if self.is_constrained() && !extra.is_empty() {
            check_extra(extra).map_err(|reason| self.refuse("userextras", "", &reason))?;
            let many = extra.len() >= MANY || extra.values().map(Vec::len).sum::<usize>() >= MANY;
            if many && self.part(GROUP, "userextras", "*", "", "*").await.is_ok() {
                return Ok(());
            }
        }
        for (key, values) in extra {
            for value in values {
                self.part(GROUP, "userextras", key, "", value).await?;
            }
        }
        Ok(())
    }

    /// Of users, groups and service accounts.
    fn group(&self) -> &'static str {
        if self.is_constrained() { GROUP } else { "" }
    }

    fn verb(&self) -> String {
        if self.is_constrained() { format!("impersonate:{}", self.mode.name()) } else { "impersonate".into() }
    }

    async fn part(
        &self,
        group: &str,
        resource: &str,
        subresource: &str,
        namespace: &str,
        name: &str,
    ) -> Result<(), StatusError> {
        let verb = self.verb();
        let part = part(self.request.user, &verb, group, resource);
        self.ask(Attributes { subresource, namespace, name, ..part }).await
    }

    fn refuse(&self, resource: &str, name: &str, reason: &str) -> StatusError {
        let verb = self.verb();
        forbidden(&Attributes { name, ..part(self.request.user, &verb, GROUP, resource) }, reason)
    }

    async fn ask(&self, question: Attributes<'_>) -> Result<(), StatusError> {
        // What binds the caller to its node has been looked at: it must not tell one answer from the next.
        let caller = (self.mode == Mode::AssociatedNode).then(|| {
            let keys = question.user.extra.keys().cloned().collect();
            UserInfo { extra: [(NODE_KEYS.to_owned(), keys)].into(), ..question.user.clone() }
        });
        let question = Attributes { user: caller.as_ref().unwrap_or(question.user), ..question };
        let verdict = self.authorizer.decide(&question).await;
        if verdict.is_allowed() {
            return Ok(());
        }
        let reason = match (verdict.error.as_str(), verdict.reason()) {
            ("", reason) => reason.to_owned(),
            (error, "") => error.to_owned(),
            (error, reason) => format!("{error}: {reason}"),
        };
        Err(forbidden(&question, &reason))
    }
}

fn part<'a>(user: &'a UserInfo, verb: &'a str, group: &'a str, resource: &'a str) -> Attributes<'a> {
    Attributes::resource(user, verb, group, "v1", resource)
}

fn check_extra(extra: &BTreeMap<String, Vec<String>>) -> Result<(), String> {
    for (key, values) in extra {
        let (domain, path) = key.split_once('/').unwrap_or((key, ""));
        let problem = if key.is_empty() {
            "impersonating the empty string key in extra is not allowed".to_owned()
        } else if path.is_empty() || !names::dns1123_subdomain(domain).is_empty() {
            let detail = "must be a domain-prefixed path (such as \"acme.io/foo\")";
            let error = FieldError::invalid("extra.key", key.as_str(), detail);
            format!("impersonating an invalid key in extra is not allowed: {error}")
        } else if *key != key.to_lowercase() {
            format!("impersonating a non-lowercase key in extra is not allowed: {key:?}")
        } else if values.is_empty() {
            "impersonating empty values in extra is not allowed".to_owned()
        } else if values.iter().any(String::is_empty) {
            "impersonating the empty string value in extra is not allowed".to_owned()
        } else {
            continue;
        };
        return Err(problem);
    }
    Ok(())
}

/// Namespace and name of `system:serviceaccount:NAMESPACE:NAME`.
fn service_account(name: &str) -> Option<(&str, &str)> {
    let (namespace, account) = name.strip_prefix("system:serviceaccount:")?.split_once(':')?;
    let valid = names::dns1123_label(namespace).is_empty() && names::dns1123_subdomain(account).is_empty();
    valid.then_some((namespace, account))
}

/// The node of `system:node:NAME`.
fn node(name: &str) -> Option<&str> {
    name.strip_prefix("system:node:").filter(|node| names::dns1123_subdomain(node).is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authz::Authorizers;
    use crate::authz::rbac::Rbac;
    use crate::authz::testing::{binding, resource, role, user};
    use http::{HeaderName, HeaderValue};
    use serde_json::{Value, json};

    type Headers<'a> = &'a [(&'a str, &'a str)];
    type Case<'a> = (Headers<'a>, Result<(&'a str, &'a [&'a str]), &'a str>);

    fn rbac(rules: Value, subject: &str) -> Authorizers {
        let rbac = Rbac::default();
        rbac.write(|i| {
            i.put_role(role("", "imp", rules));
            i.put_binding(binding("", "imp", "ClusterRole", "imp", &[("User", subject, "")]));
        });
        Authorizers::new(Default::default(), rbac)
    }

    async fn check(caller: &UserInfo, verb: &str, rbac: &Authorizers, cases: &[Case<'_>]) {
        for (list, want) in cases {
            let mut headers = HeaderMap::new();
            for (name, value) in *list {
                let name: HeaderName = name.parse().expect("a header name");
                headers.append(name, HeaderValue::from_str(value).expect("a header value"));
            }
            let request = resource(caller, verb, "", "pods", "default", "");
            match (take(&mut headers, &request, rbac).await, want) {
                (Ok(got), Ok((name, groups))) => {
                    let got = got.unwrap_or_default();
                    assert_eq!(
                        (got.name.as_str(), &got.groups),
                        (*name, &groups.iter().map(|g| (*g).to_owned()).collect())
                    );
                    assert!(headers.is_empty(), "{list:?}: {headers:?}");
                }
                (Err(got), Err(part)) => assert!(got.message().contains(part), "{list:?}: {}", got.message()),
                (got, want) => panic!("{list:?}: got {got:?}, want {want:?}"),
            }
        }
    }

    #[tokio::test]
    async fn each_part_of_the_other_identity_needs_the_right() {
        let rules = json!([
            {"verbs": ["impersonate"], "apiGroups": [""], "resources": ["users"], "resourceNames": ["bob"]},
            {"verbs": ["impersonate"], "apiGroups": [""], "resources": ["groups"], "resourceNames": ["devs"]},
            {"verbs": ["impersonate"], "apiGroups": [""], "resources": ["serviceaccounts"]},
            {"verbs": ["impersonate"], "apiGroups": ["authentication.k8s.io"], "resources": ["userextras/scopes"]},
        ]);
        let cases: [Case<'_>; 7] = [
            (&[], Ok(("", &[]))),
            (&[("impersonate-user", "bob")], Ok(("bob", &["system:authenticated"]))),
            (
                &[
                    ("impersonate-user", "bob"),
                    ("impersonate-group", "devs"),
                    ("impersonate-extra-scopes", "x"),
                ],
                Ok(("bob", &["devs", "system:authenticated"])),
            ),
            (
                &[("impersonate-user", "system:serviceaccount:ns:sa")],
                Ok((
                    "system:serviceaccount:ns:sa",
                    &["system:serviceaccounts", "system:serviceaccounts:ns", "system:authenticated"],
                )),
            ),
            (
                &[("impersonate-user", "root")],
                Err(r#"User "jane" cannot impersonate-on:user-info:list resource "pods""#),
            ),
            (&[("impersonate-user", "bob"), ("impersonate-group", "system:masters")], Err("is forbidden")),
            (&[("impersonate-group", "devs")], Err("without impersonating a user name")),
        ];
        check(&user("jane", &[]), "list", &rbac(rules, "jane"), &cases).await;
    }

    #[tokio::test]
    async fn a_constrained_right_counts_for_its_request_alone() {
        let rules = json!([
            {"verbs": ["impersonate:user-info"], "apiGroups": ["authentication.k8s.io"], "resources": ["users"], "resourceNames": ["bob"]},
            {"verbs": ["impersonate:user-info"], "apiGroups": ["authentication.k8s.io"], "resources": ["groups"]},
            {"verbs": ["impersonate-on:user-info:list"], "apiGroups": [""], "resources": ["pods"]},
        ]);
        let rbac = rbac(rules, "jane");
        let bob: Case<'_> = (&[("impersonate-user", "bob")], Ok(("bob", &["system:authenticated"])));
        let masters = "impersonating the system:masters group is not allowed";
        let cases = [
            bob,
            (&[("impersonate-user", "bob"), ("impersonate-group", "system:masters")][..], Err(masters)),
            (&[("impersonate-user", "system:node:n")], Err("cannot impersonate-on:arbitrary-node:list")),
        ];
        check(&user("jane", &[]), "list", &rbac, &cases).await;
        let other: Case<'_> = (&[("impersonate-user", "bob")], Err("cannot impersonate-on:user-info:delete"));
        check(&user("jane", &[]), "delete", &rbac, &[other]).await;
    }

    #[tokio::test]
    async fn a_service_account_may_be_allowed_to_be_the_node_it_runs_on() {
        let rules = json!([
            {"verbs": ["impersonate:associated-node"], "apiGroups": ["authentication.k8s.io"], "resources": ["nodes"]},
            {"verbs": ["impersonate-on:associated-node:list"], "apiGroups": [""], "resources": ["pods"]},
        ]);
        let account = "system:serviceaccount:ns:agent";
        let rbac = rbac(rules, account);
        let mut caller = user(account, &[]);
        caller.extra.insert(NODE_NAME.into(), vec!["n1".into()]);
        let cases: [Case<'_>; 2] = [
            (
                &[("impersonate-user", "system:node:n1")],
                Ok(("system:node:n1", &["system:nodes", "system:authenticated"])),
            ),
            (&[("impersonate-user", "system:node:n2")], Err("cannot impersonate-on:arbitrary-node:list")),
        ];
        check(&caller, "list", &rbac, &cases).await;
    }
}
