//! Roles and bindings in the shape of the question "what may this user do here", kept current by
//! changes, so that a request never lists anything.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde::Deserialize;

use super::rule::Rule;
use crate::types::UserInfo;

/// Who a binding names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Subject {
    /// Users and, by their user name, service accounts.
    User(String),
    Group(String),
}

/// One binding, ready to be asked.
#[derive(Debug)]
pub struct Grant {
    name: String,
    /// Empty for a ClusterRoleBinding.
    namespace: String,
    role_kind: String,
    role_name: String,
    subjects: Vec<(Subject, String)>,
}

impl Grant {
    /// Upstream's words for where a permission comes from.
    fn describe(&self, user: &UserInfo) -> String {
        let subject = self
            .subjects
            .iter()
            .find(|(s, _)| match s {
                Subject::User(n) => *n == user.name,
                Subject::Group(g) => user.in_group(g),
            })
            .map(|(_, text)| text.as_str())
            .unwrap_or_default();
        let (kind, name) = if self.namespace.is_empty() {
            ("ClusterRoleBinding", self.name.clone())
        } else {
            ("RoleBinding", format!("{}/{}", self.name, self.namespace))
        };
        format!("{kind} \"{name}\" of {} \"{}\" to {subject}", self.role_kind, self.role_name)
    }
}

#[derive(Debug, Default)]
struct Bindings {
    by_name: HashMap<String, Arc<Grant>>,
    by_subject: HashMap<Subject, Vec<Arc<Grant>>>,
}

impl Bindings {
    fn remove(&mut self, name: &str) {
        let Some(old) = self.by_name.remove(name) else {
            return;
        };
        for (subject, _) in &old.subjects {
            if let Some(list) = self.by_subject.get_mut(subject) {
                list.retain(|g| !Arc::ptr_eq(g, &old));
                if list.is_empty() {
                    self.by_subject.remove(subject);
                }
            }
        }
    }

    fn put(&mut self, grant: Grant) {
        self.remove(&grant.name);
        let grant = Arc::new(grant);
        let subjects: HashSet<&Subject> = grant.subjects.iter().map(|(s, _)| s).collect();
        for subject in subjects {
            self.by_subject.entry(subject.clone()).or_default().push(grant.clone());
        }
        self.by_name.insert(grant.name.clone(), grant);
    }

    fn of<'a>(&'a self, user: &UserInfo) -> Vec<&'a Arc<Grant>> {
        let user_subject = Subject::User(user.name.clone());
        let groups = user.groups.iter().map(|g| Subject::Group(g.clone()));
        let mut found: Vec<&Arc<Grant>> = Vec::new();
        for subject in std::iter::once(user_subject).chain(groups) {
            for grant in self.by_subject.get(&subject).into_iter().flatten() {
                if !found.iter().any(|f| Arc::ptr_eq(f, grant)) {
                    found.push(grant);
                }
            }
        }
        found
    }
}

/// All roles and bindings. The namespace `""` holds ClusterRoles and ClusterRoleBindings.
#[derive(Debug, Default)]
pub struct Index {
    roles: HashMap<String, HashMap<String, Arc<[Rule]>>>,
    bindings: HashMap<String, Bindings>,
}

/// The fields of Role and ClusterRole that authorization reads.
#[derive(Debug, Deserialize)]
pub struct RoleObject {
    pub metadata: Meta,
    #[serde(default)]
    pub rules: Option<Vec<Rule>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Meta {
    pub name: String,
    pub namespace: String,
}

/// The fields of RoleBinding and ClusterRoleBinding that authorization reads.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BindingObject {
    pub metadata: Meta,
    #[serde(default)]
    pub subjects: Option<Vec<SubjectObject>>,
    pub role_ref: RoleRef,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct SubjectObject {
    pub kind: String,
    pub name: String,
    pub namespace: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RoleRef {
    pub api_group: String,
    pub kind: String,
    pub name: String,
}

impl Index {
    pub fn put_role(&mut self, role: RoleObject) {
        self.roles
            .entry(role.metadata.namespace)
            .or_default()
            .insert(role.metadata.name, role.rules.unwrap_or_default().into());
    }

    pub fn remove_role(&mut self, namespace: &str, name: &str) {
        if let Some(roles) = self.roles.get_mut(namespace) {
            roles.remove(name);
            if roles.is_empty() {
                self.roles.remove(namespace);
            }
        }
    }

    pub fn put_binding(&mut self, binding: BindingObject) {
        let namespace = binding.metadata.namespace;
        let subjects =
            binding.subjects.unwrap_or_default().into_iter().filter_map(|s| subject(s, &namespace)).collect();
        self.bindings.entry(namespace.clone()).or_default().put(Grant {
            name: binding.metadata.name,
            namespace,
            role_kind: binding.role_ref.kind,
            role_name: binding.role_ref.name,
            subjects,
        });
    }

    pub fn remove_binding(&mut self, namespace: &str, name: &str) {
        if let Some(bindings) = self.bindings.get_mut(namespace) {
            bindings.remove(name);
            if bindings.by_name.is_empty() {
                self.bindings.remove(namespace);
            }
        }
    }

    /// Forgets the cluster-wide roles, or those of all namespaces; what a fresh snapshot needs.
    pub fn clear_roles(&mut self, cluster: bool) {
        self.roles.retain(|ns, _| ns.is_empty() != cluster);
    }

    pub fn clear_bindings(&mut self, cluster: bool) {
        self.bindings.retain(|ns, _| ns.is_empty() != cluster);
    }

    /// The rules that a reference in a binding of `namespace` means, or upstream's "not found".
    pub fn role_rules(&self, kind: &str, name: &str, namespace: &str) -> Result<Arc<[Rule]>, String> {
        let (namespace, resource) = match kind {
            "ClusterRole" => ("", "clusterrole"),
            "Role" => (namespace, "role"),
            other => return Err(format!("unsupported role reference kind: {other:?}")),
        };
        self.roles
            .get(namespace)
            .and_then(|roles| roles.get(name))
            .cloned()
            .ok_or_else(|| format!("{resource}.rbac.authorization.k8s.io \"{name}\" not found"))
    }

    /// The source of the first rule for which `allowed` holds; else what could not be resolved.
    pub fn find(
        &self,
        user: &UserInfo,
        namespace: &str,
        allowed: impl Fn(&Rule) -> bool,
    ) -> Result<String, Vec<String>> {
        let mut errors = Vec::new();
        for grant in self.grants(user, namespace) {
            match self.role_rules(&grant.role_kind, &grant.role_name, &grant.namespace) {
                Ok(rules) if rules.iter().any(&allowed) => return Ok(grant.describe(user)),
                Ok(_) => {}
                Err(e) if errors.contains(&e) => {}
                Err(e) => errors.push(e),
            }
        }
        Err(errors)
    }

    /// Every rule that applies to the user in the namespace, and what could not be resolved.
    pub fn rules_for(&self, user: &UserInfo, namespace: &str) -> (Vec<Rule>, Vec<String>) {
        let (mut rules, mut errors) = (Vec::new(), Vec::new());
        for grant in self.grants(user, namespace) {
            match self.role_rules(&grant.role_kind, &grant.role_name, &grant.namespace) {
                Ok(found) => rules.extend(found.iter().cloned()),
                Err(e) => errors.push(e),
            }
        }
        (rules, errors)
    }

    fn grants<'a>(&'a self, user: &UserInfo, namespace: &str) -> Vec<&'a Arc<Grant>> {
        let of = |ns: &str| self.bindings.get(ns).map(|b| b.of(user)).unwrap_or_default();
        let mut grants = of("");
        if !namespace.is_empty() {
            grants.extend(of(namespace));
        }
        grants
    }
}

fn subject(s: SubjectObject, binding_namespace: &str) -> Option<(Subject, String)> {
    match s.kind.as_str() {
        "User" => Some((Subject::User(s.name.clone()), format!("User \"{}\"", s.name))),
        "Group" => Some((Subject::Group(s.name.clone()), format!("Group \"{}\"", s.name))),
        "ServiceAccount" => {
            let namespace = if s.namespace.is_empty() { binding_namespace } else { &s.namespace };
            if namespace.is_empty() {
                return None;
            }
            Some((
                Subject::User(format!("system:serviceaccount:{namespace}:{}", s.name)),
                format!("ServiceAccount \"{}/{namespace}\"", s.name),
            ))
        }
        _ => None,
    }
}
