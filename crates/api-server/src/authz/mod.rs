//! Who may do what: `system:masters`, the Node authorizer and RBAC, asked in this order.

pub mod node;
pub mod rbac;

use std::sync::Arc;

use keelson_api_types::gofmt::quote;
use keelson_api_types::{GroupResource, StatusError};
use serde_json::Value;

use crate::types::{Attributes, Authorizer, Decision, Objects, UserInfo};
use node::NodeAuthorizer;
use rbac::Rbac;

/// The group whose members may do anything.
pub const MASTERS: &str = "system:masters";

/// The cluster's authorizer: the first Allow or Deny decides, reasons of the others are joined.
pub struct Authorizers {
    node: NodeAuthorizer,
    rbac: Rbac,
}

impl Authorizers {
    /// Follows roles, bindings and what ties nodes to objects; must run inside a tokio runtime.
    pub fn start(objects: &Arc<dyn Objects>) -> Arc<Self> {
        Arc::new(Self::new(NodeAuthorizer::start(objects), Rbac::start(objects)))
    }

    pub fn new(node: NodeAuthorizer, rbac: Rbac) -> Self {
        Self { node, rbac }
    }

    pub fn rbac(&self) -> &Rbac {
        &self.rbac
    }
}

impl Authorizer for Authorizers {
    fn authorize(&self, a: &Attributes<'_>) -> Decision {
        if a.user.in_group(MASTERS) {
            return Decision::Allow(String::new());
        }
        let mut reasons = Vec::new();
        for authorizer in [&self.node as &dyn Authorizer, &self.rbac] {
            match authorizer.authorize(a) {
                Decision::NoOpinion(reason) if reason.is_empty() => {}
                Decision::NoOpinion(reason) => reasons.push(reason),
                decided => return decided,
            }
        }
        Decision::NoOpinion(reasons.join("\n"))
    }

    fn rules_for(&self, user: &UserInfo, namespace: &str) -> Value {
        let mut status = self.rbac.rules_for(user, namespace);
        if node::node_name(user).is_some() {
            status["incomplete"] = true.into();
            status["evaluationError"] = "node authorizer does not support user rule resolution".into();
        }
        status
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
        Attributes {
            user,
            verb,
            group,
            version: "v1",
            resource,
            subresource: "",
            namespace,
            name,
            path: "",
            is_resource: true,
            field_selector: None,
            label_selector: None,
        }
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
        assert!(matches!(all.authorize(&resource(&u, "escalate", "x", "y", "", "")), Decision::Allow(_)));
        let u = user("jane", &[]);
        assert_eq!(all.authorize(&path(&u, "get", "/")), Decision::NoOpinion(String::new()));
    }
}
