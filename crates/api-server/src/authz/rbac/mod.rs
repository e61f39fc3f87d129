//! Role-based access control, answered from an index in memory.

pub mod escalation;
pub mod index;
pub mod rule;

use std::sync::Arc;

use keelson_api_types::Gvr;
use parking_lot::RwLock;
use serde_json::{Value, json};

use crate::types::{Attributes, Change, Decision, Object, Objects, UserInfo};
use index::{BindingObject, Index, RoleObject};
use rule::Rule;

/// Group of RBAC's own kinds.
pub const GROUP: &str = "rbac.authorization.k8s.io";

/// The RBAC authorizer. Cheap to clone; all clones share the index.
#[derive(Clone, Default)]
pub struct Rbac {
    index: Arc<RwLock<Index>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Feed {
    Roles { cluster: bool },
    Bindings { cluster: bool },
}

impl Rbac {
    /// An authorizer that follows the four RBAC resources; must run inside a tokio runtime.
    pub fn start(objects: &Arc<dyn Objects>) -> Self {
        let rbac = Self::default();
        for (resource, feed) in [
            ("clusterroles", Feed::Roles { cluster: true }),
            ("roles", Feed::Roles { cluster: false }),
            ("clusterrolebindings", Feed::Bindings { cluster: true }),
            ("rolebindings", Feed::Bindings { cluster: false }),
        ] {
            let mut changes = objects.subscribe(&Gvr::new(GROUP, "v1", resource));
            let index = rbac.index.clone();
            tokio::spawn(async move {
                while let Some(change) = changes.recv().await {
                    apply(&mut index.write(), feed, &change);
                }
            });
        }
        rbac
    }

    /// Read access for escalation checks and for reviews.
    pub fn read<T>(&self, f: impl FnOnce(&Index) -> T) -> T {
        f(&self.index.read())
    }

    /// Changes the index directly: the bootstrap roles before the first write, and tests.
    pub fn write<T>(&self, f: impl FnOnce(&mut Index) -> T) -> T {
        f(&mut self.index.write())
    }
}

fn apply(index: &mut Index, feed: Feed, change: &Change) {
    match (feed, change) {
        (Feed::Roles { cluster }, Change::Snapshot(all)) => {
            index.clear_roles(cluster);
            all.iter().for_each(|o| put(index, feed, o));
        }
        (Feed::Bindings { cluster }, Change::Snapshot(all)) => {
            index.clear_bindings(cluster);
            all.iter().for_each(|o| put(index, feed, o));
        }
        (_, Change::Put(o)) => put(index, feed, o),
        (Feed::Roles { .. }, Change::Delete(o)) => index.remove_role(&o.namespace, &o.name),
        (Feed::Bindings { .. }, Change::Delete(o)) => index.remove_binding(&o.namespace, &o.name),
    }
}

fn put(index: &mut Index, feed: Feed, object: &Object) {
    let result = match feed {
        Feed::Roles { .. } => object.parse::<RoleObject>().map(|r| index.put_role(r)),
        Feed::Bindings { .. } => object.parse::<BindingObject>().map(|b| index.put_binding(b)),
    };
    if let Err(error) = result {
        tracing::error!(name = %object.name, namespace = %object.namespace, %error, "unreadable RBAC object grants nothing");
        match feed {
            Feed::Roles { .. } => index.remove_role(&object.namespace, &object.name),
            Feed::Bindings { .. } => index.remove_binding(&object.namespace, &object.name),
        }
    }
}

impl Rbac {
    pub fn authorize(&self, a: &Attributes<'_>) -> Decision {
        match self.read(|i| i.find(a.user, a.namespace, |rule| rule.allows(a))) {
            Ok(source) => Decision::Allow(format!("RBAC: allowed by {source}")),
            Err(errors) => Decision::NoOpinion(match errors.as_slice() {
                [] => String::new(),
                [one] => format!("RBAC: {one}"),
                many => format!("RBAC: [{}]", many.join(", ")),
            }),
        }
    }

    /// A `SubjectRulesReviewStatus`.
    pub fn rules_for(&self, user: &UserInfo, namespace: &str) -> Value {
        let (rules, errors) = self.read(|i| i.rules_for(user, namespace));
        rules_status(&rules, &errors)
    }
}

fn rules_status(rules: &[Rule], errors: &[String]) -> Value {
    let resource: Vec<Value> = rules
        .iter()
        .filter(|r| !r.resources.is_empty())
        .map(|r| json!(Rule { non_resource_urls: vec![], ..r.clone() }))
        .collect();
    let non_resource: Vec<Value> = rules
        .iter()
        .filter(|r| !r.non_resource_urls.is_empty())
        .map(|r| json!({"verbs": r.verbs, "nonResourceURLs": r.non_resource_urls}))
        .collect();
    let mut status = json!({
        "resourceRules": resource,
        "nonResourceRules": non_resource,
        "incomplete": !errors.is_empty(),
    });
    if !errors.is_empty() {
        status["evaluationError"] = errors.join(", ").into();
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authz::testing::{binding, resource, role, user};

    fn rbac() -> Rbac {
        let rbac = Rbac::default();
        rbac.write(|i| {
            i.put_role(role(
                "",
                "reader",
                json!([{"verbs":["get","list"],"apiGroups":[""],"resources":["pods"]}]),
            ));
            i.put_role(role(
                "a",
                "writer",
                json!([{"verbs":["create"],"apiGroups":[""],"resources":["pods"]}]),
            ));
            i.put_binding(binding("", "all-readers", "ClusterRole", "reader", &[("Group", "readers", "")]));
            i.put_binding(binding("a", "jane-writes", "Role", "writer", &[("User", "jane", "")]));
            i.put_binding(binding("a", "robot", "ClusterRole", "reader", &[("ServiceAccount", "bot", "b")]));
            i.put_binding(binding("a", "dangling", "ClusterRole", "gone", &[("User", "joe", "")]));
        });
        rbac
    }

    #[test]
    fn a_binding_grants_its_subjects_and_says_so() {
        let rbac = rbac();
        let cases = [
            (
                "jane",
                "create",
                "a",
                Some(r#"RBAC: allowed by RoleBinding "jane-writes/a" of Role "writer" to User "jane""#),
            ),
            ("jane", "create", "b", None),
            (
                "jane",
                "list",
                "a",
                Some(
                    r#"RBAC: allowed by ClusterRoleBinding "all-readers" of ClusterRole "reader" to Group "readers""#,
                ),
            ),
            (
                "system:serviceaccount:b:bot",
                "get",
                "a",
                Some(
                    r#"RBAC: allowed by RoleBinding "robot/a" of ClusterRole "reader" to ServiceAccount "bot/b""#,
                ),
            ),
        ];
        for (name, verb, namespace, want) in cases {
            let u = user(name, if verb == "list" { &["readers"] } else { &[] });
            let got = rbac.authorize(&resource(&u, verb, "", "pods", namespace, ""));
            match want {
                Some(reason) => assert_eq!(got, Decision::Allow(reason.into())),
                None => assert_eq!(got, Decision::NoOpinion(String::new())),
            }
        }
    }

    #[test]
    fn a_binding_to_a_missing_role_is_named() {
        let u = user("joe", &[]);
        assert_eq!(
            rbac().authorize(&resource(&u, "get", "", "pods", "a", "x")),
            Decision::NoOpinion(r#"RBAC: clusterrole.rbac.authorization.k8s.io "gone" not found"#.into())
        );
    }

    #[test]
    fn a_removed_binding_grants_nothing_more() {
        let rbac = rbac();
        rbac.write(|i| i.remove_binding("a", "jane-writes"));
        let u = user("jane", &[]);
        assert!(matches!(
            rbac.authorize(&resource(&u, "create", "", "pods", "a", "")),
            Decision::NoOpinion(_)
        ));
        rbac.write(|i| i.clear_bindings(true));
        let u = user("x", &["readers"]);
        assert!(matches!(rbac.authorize(&resource(&u, "get", "", "pods", "a", "")), Decision::NoOpinion(_)));
    }
}
