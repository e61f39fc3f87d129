//! `Impersonate-*` headers: acting as somebody else, if allowed to impersonate each part of them.

use std::collections::BTreeMap;

use http::HeaderMap;
use keelson_api_types::StatusError;

use super::service_account::account_groups;
use super::{ANONYMOUS, AUTHENTICATED, UNAUTHENTICATED, extra_headers};
use crate::authz::forbidden;
use crate::types::{Attributes, AuthnError, Authorizer, Decision, UserInfo};

const GROUP: &str = "authentication.k8s.io";

/// The user that the headers ask to be; `user` itself if they ask nothing.
pub fn apply(
    user: UserInfo,
    headers: &HeaderMap,
    authorizer: &dyn Authorizer,
) -> Result<UserInfo, AuthnError> {
    let values = |name: &str| -> Vec<String> {
        headers.get_all(name).iter().filter_map(|v| v.to_str().ok()).map(str::to_owned).collect()
    };
    let name = values("impersonate-user").into_iter().next().unwrap_or_default();
    let uid = values("impersonate-uid").into_iter().next().unwrap_or_default();
    let groups = values("impersonate-group");
    let extra = extra_headers(headers, "impersonate-extra-");
    if name.is_empty() {
        if uid.is_empty() && groups.is_empty() && extra.is_empty() {
            return Ok(user);
        }
        let error = StatusError::internal("requested impersonation without impersonating a user");
        return Err(AuthnError::Impersonation(error));
    }
    check(&user, &name, &uid, &groups, &extra, authorizer).map_err(AuthnError::Impersonation)?;
    crate::audit::impersonating(&user);
    Ok(UserInfo { groups: effective_groups(&name, groups), name, uid, extra })
}

fn check(
    user: &UserInfo,
    name: &str,
    uid: &str,
    groups: &[String],
    extra: &BTreeMap<String, Vec<String>>,
    authorizer: &dyn Authorizer,
) -> Result<(), StatusError> {
    let ask = |group: &str, resource: &str, subresource: &str, namespace: &str, name: &str| {
        let attributes = Attributes {
            user,
            verb: "impersonate",
            group,
            version: "v1",
            resource,
            subresource,
            namespace,
            name,
            path: "",
            is_resource: true,
            field_selector: None,
            label_selector: None,
        };
        match authorizer.authorize(&attributes) {
            Decision::Allow(_) => Ok(()),
            Decision::Deny(reason) | Decision::NoOpinion(reason) => Err(forbidden(&attributes, &reason)),
        }
    };
    match service_account(name) {
        Some((namespace, account)) => ask("", "serviceaccounts", "", namespace, account)?,
        None => ask("", "users", "", "", name)?,
    }
    for group in groups {
        ask("", "groups", "", "", group)?;
    }
    for (key, values) in extra {
        for value in values {
            ask(GROUP, "userextras", key, "", value)?;
        }
    }
    if !uid.is_empty() {
        ask(GROUP, "uids", "", "", uid)?;
    }
    Ok(())
}

/// Namespace and name of `system:serviceaccount:NAMESPACE:NAME`.
fn service_account(name: &str) -> Option<(&str, &str)> {
    name.strip_prefix("system:serviceaccount:")?.split_once(':')
}

fn effective_groups(name: &str, mut groups: Vec<String>) -> Vec<String> {
    if groups.is_empty()
        && let Some((namespace, _)) = service_account(name)
    {
        groups = account_groups(namespace);
    }
    let has = |wanted: &str| groups.iter().any(|g| g == wanted);
    if name == ANONYMOUS {
        if !has(UNAUTHENTICATED) {
            groups.push(UNAUTHENTICATED.into());
        }
    } else if !has(AUTHENTICATED) && !has(UNAUTHENTICATED) {
        groups.push(AUTHENTICATED.into());
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authz::rbac::Rbac;
    use crate::authz::testing::{binding, role, user};
    use serde_json::json;

    fn headers(list: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in list {
            map.append(*name, http::HeaderValue::from_static(value));
        }
        map
    }

    type Headers<'a> = &'a [(&'a str, &'a str)];

    fn rbac() -> Rbac {
        let rbac = Rbac::default();
        rbac.write(|i| {
            i.put_role(role("", "imp", json!([
                {"verbs": ["impersonate"], "apiGroups": [""], "resources": ["users"], "resourceNames": ["bob"]},
                {"verbs": ["impersonate"], "apiGroups": [""], "resources": ["groups"], "resourceNames": ["devs"]},
                {"verbs": ["impersonate"], "apiGroups": [""], "resources": ["serviceaccounts"]},
                {"verbs": ["impersonate"], "apiGroups": ["authentication.k8s.io"], "resources": ["userextras/scopes"]},
            ])));
            i.put_binding(binding("", "imp", "ClusterRole", "imp", &[("User", "jane", "")]));
        });
        rbac
    }

    #[test]
    fn each_part_of_the_other_identity_needs_the_right() {
        type Case<'a> = (Headers<'a>, Result<(&'a str, &'a [&'a str]), &'a str>);
        let cases: [Case<'_>; 6] = [
            (&[], Ok(("jane", &[]))),
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
                Err(
                    r#"users "root" is forbidden: User "jane" cannot impersonate resource "users" in API group "" at the cluster scope"#,
                ),
            ),
            (
                &[("impersonate-user", "bob"), ("impersonate-group", "system:masters")],
                Err(
                    r#"groups "system:masters" is forbidden: User "jane" cannot impersonate resource "groups" in API group "" at the cluster scope"#,
                ),
            ),
        ];
        for (list, want) in cases {
            let list: Vec<(&'static str, &'static str)> =
                list.iter().map(|(a, b)| (&*a.to_string().leak(), &*b.to_string().leak())).collect();
            match (apply(user("jane", &[]), &headers(&list), &rbac()), want) {
                (Ok(got), Ok((name, groups))) => {
                    assert_eq!(got.name, name);
                    assert_eq!(got.groups, groups);
                }
                (Err(AuthnError::Impersonation(got)), Err(message)) => assert_eq!(got.message(), message),
                (got, want) => panic!("{list:?}: got {got:?}, want {want:?}"),
            }
        }
    }

    #[test]
    fn groups_alone_are_refused() {
        let got = apply(user("jane", &[]), &headers(&[("impersonate-group", "devs")]), &rbac());
        assert!(matches!(got, Err(AuthnError::Impersonation(_))));
    }
}
