//! Roles and bindings.

use keelson_api_types::{FieldError, names};
use serde_json::Value;

use super::Strategy;
use super::check::{At, Errors};
use super::common::selector_is_empty;
use super::edit::{self, default_zero, same};

const GROUP: &str = "rbac.authorization.k8s.io";

/// Roles of either scope.
pub struct Role {
    pub namespaced: bool,
}

impl Strategy for Role {
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let (at, mut e) = (At::root(object), Errors::new());
        for rule in at.f("rules").each() {
            self.rule(&rule, &mut e);
        }
        if let Some(aggregation) = at.get("aggregationRule").filter(|_| !self.namespaced) {
            let selectors = aggregation.f("clusterRoleSelectors");
            if selectors.is_empty() {
                let detail = "at least one clusterRoleSelector required if aggregationRule is non-nil";
                e.required(&selectors.path, detail);
            }
            selectors.each().filter(|s| !selector_is_empty(s)).for_each(|s| e.label_selector(&s));
        }
        e.into_vec()
    }
}

impl Role {
    fn rule(&self, rule: &At<'_>, e: &mut Errors) {
        if rule.f("verbs").is_empty() {
            e.required(&rule.path.field("verbs"), "verbs must contain at least one value");
        }
        let urls = rule.f("nonResourceURLs");
        if !urls.is_empty() {
            if self.namespaced {
                e.invalid(&urls, "namespaced rules cannot apply to non-resource URLs");
            }
            if ["apiGroups", "resources", "resourceNames"].iter().any(|field| !rule.f(field).is_empty()) {
                e.invalid(&urls, "rules cannot apply to both regular resources and non-resource URLs");
            }
            return;
        }
        for (field, what) in [("apiGroups", "api group"), ("resources", "resource")] {
            if rule.f(field).is_empty() {
                let detail = format!("resource rules must supply at least one {what}");
                e.required(&rule.path.field(field), detail);
            }
        }
    }
}

/// Bindings of either scope.
pub struct Binding {
    pub namespaced: bool,
}

impl Strategy for Binding {
    fn default(&self, object: &mut Value) {
        if let Some(reference) = edit::ensure(object, "roleRef") {
            default_zero(reference, "apiGroup", GROUP);
        }
        for subject in edit::each(object, "subjects") {
            match subject.get("kind").and_then(Value::as_str) {
                Some("User" | "Group") => default_zero(subject, "apiGroup", GROUP),
                _ => edit::omit_zero(subject, &["apiGroup"]),
            }
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let (at, mut e) = (At::root(object), Errors::new());
        let role = at.f("roleRef");
        if role.f("apiGroup").s() != GROUP {
            e.not_supported(&role.f("apiGroup"), &[GROUP]);
        }
        let kinds = if self.namespaced { &["Role", "ClusterRole"][..] } else { &["ClusterRole"] };
        if !kinds.contains(&role.f("kind").s()) {
            e.not_supported(&role.f("kind"), kinds);
        }
        if e.required_string(&role.f("name")) {
            e.messages(&role.f("name"), names::path_segment_name(role.f("name").s()));
        }
        for subject in at.f("subjects").each() {
            self.subject(&subject, &mut e);
        }
        e.into_vec()
    }

    fn validate_update(&self, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut e = Errors::new();
        e.extend(self.validate(object));
        let role = At::root(object).f("roleRef");
        if !same(role.value, At::root(old).f("roleRef").value) {
            e.invalid(&role, "cannot change roleRef");
        }
        e.into_vec()
    }
}

impl Binding {
    fn subject(&self, at: &At<'_>, e: &mut Errors) {
        let (name, group, namespace) = (at.f("name"), at.f("apiGroup"), at.f("namespace"));
        e.required_string(&name);
        match at.f("kind").s() {
            "ServiceAccount" => {
                if !name.is_empty() {
                    e.dns_subdomain(&name);
                }
                if !group.is_empty() {
                    e.not_supported(&group, &[""]);
                }
                if !self.namespaced && namespace.is_empty() {
                    e.required(&namespace.path, "");
                }
            }
            "User" | "Group" => {
                if group.s() != GROUP {
                    e.not_supported(&group, &[GROUP]);
                }
            }
            _ => e.not_supported(&at.f("kind"), &["ServiceAccount", "User", "Group"]),
        }
    }
}
