//! Which requests a webhook or an admission policy is about: rules, selectors and equivalent versions.

use keelson_api_types::{Gvk, Gvr, LabelSelector, StatusError, meta};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::{core, lookup};
use crate::types::{AdmissionRequest, Objects, Operation};

/// `matchConstraints` and `matchResources` of policies; `rules` and the selectors of a webhook.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Constraints {
    #[serde(alias = "rules")]
    resource_rules: Vec<Rule>,
    exclude_resource_rules: Vec<Rule>,
    #[serde(deserialize_with = "selector")]
    namespace_selector: Option<LabelSelector>,
    #[serde(deserialize_with = "selector")]
    object_selector: Option<LabelSelector>,
    match_policy: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Rule {
    operations: Vec<String>,
    api_groups: Vec<String>,
    api_versions: Vec<String>,
    resources: Vec<String>,
    scope: String,
    resource_names: Vec<String>,
}

/// The version in which the one who matched wants to see the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub gvr: Gvr,
    pub gvk: Gvk,
}

impl Constraints {
    pub fn has_rules(&self) -> bool {
        !self.resource_rules.is_empty()
    }

    /// In which version the request is wanted, if it is at all.
    pub async fn target(
        &self,
        objects: &dyn Objects,
        r: &AdmissionRequest<'_>,
    ) -> Result<Option<Target>, StatusError> {
        let own = || Some(Target { gvr: r.gvr.clone(), gvk: r.gvk.clone() });
        let matched = if self.has_rules() { self.by_rules(objects, &self.resource_rules, r) } else { own() };
        let excluded = || self.by_rules(objects, &self.exclude_resource_rules, r).is_some();
        if matched.is_none() || !object_selected(self.object_selector.as_ref(), r) || excluded() {
            return Ok(None);
        }
        let selected = namespace_selected(objects, self.namespace_selector.as_ref(), r).await?;
        Ok(matched.filter(|_| selected))
    }

    /// The request's own version first, then those in which the same objects are served as well.
    fn by_rules(&self, objects: &dyn Objects, rules: &[Rule], r: &AdmissionRequest<'_>) -> Option<Target> {
        let found = |gvr: &Gvr| rules.iter().any(|rule| rule.matches(r, gvr));
        if found(r.gvr) {
            return Some(Target { gvr: r.gvr.clone(), gvk: r.gvk.clone() });
        }
        if rules.is_empty() || self.match_policy == "Exact" {
            return None;
        }
        let others = objects.versions(r.gvr, r.subresource);
        // Earlier rules count before later ones.
        let pick = |rule: &Rule| others.iter().find(|(gvr, _)| gvr != r.gvr && rule.matches(r, gvr));
        rules.iter().find_map(pick).map(|(gvr, gvk)| Target { gvr: gvr.clone(), gvk: gvk.clone() })
    }
}

impl Rule {
    fn matches(&self, r: &AdmissionRequest<'_>, gvr: &Gvr) -> bool {
        let any = |list: &[String], wanted: &str| list.iter().any(|v| v == "*" || v == wanted);
        let in_scope = match self.scope.as_str() {
            "Namespaced" => !r.namespace.is_empty() && !is_namespace(r),
            "Cluster" => r.namespace.is_empty() || is_namespace(r),
            _ => true,
        };
        in_scope
            && any(&self.operations, r.op.as_str())
            && any(&self.api_groups, &gvr.group)
            && any(&self.api_versions, &gvr.version)
            && self.resources.iter().any(|w| resource_matches(w, gvr, r.subresource))
            && (self.resource_names.is_empty() || self.resource_names.iter().any(|n| n == r.name))
    }
}

fn is_namespace(r: &AdmissionRequest<'_>) -> bool {
    r.gvr.group.is_empty() && r.gvr.resource == "namespaces"
}

/// `pods`, `pods/log`, `pods/*`, `*/scale`, `*` (no subresources), `*/*`.
fn resource_matches(wanted: &str, gvr: &Gvr, subresource: &str) -> bool {
    let (resource, sub) = wanted.split_once('/').unwrap_or((wanted, ""));
    (resource == "*" || resource == gvr.resource) && (sub == "*" || sub == subresource)
}

/// None where everything is selected. Selectors are validated when they are written.
fn selector<'de, D: Deserializer<'de>>(from: D) -> Result<Option<LabelSelector>, D::Error> {
    let value = Option::<Value>::deserialize(from)?;
    let parsed =
        value.map(|v| LabelSelector::from_object(Some(&v)).unwrap_or_else(|_| LabelSelector::nothing()));
    Ok(parsed.filter(|s| !s.is_everything()))
}

fn selects(selector: &LabelSelector, object: &Value) -> bool {
    selector.matches(meta::labels(object).unwrap_or(&Map::new()))
}

/// The new or the old object: nothing escapes by taking its label away.
fn object_selected(selector: Option<&LabelSelector>, r: &AdmissionRequest<'_>) -> bool {
    let Some(selector) = selector else { return true };
    // Options of a connection have no metadata, and so no labels.
    let of =
        |object: Option<&Value>| object.is_some_and(|o| o.get("metadata").is_some() && selects(selector, o));
    of(r.object.as_deref()) || of(r.old)
}

async fn namespace_selected(
    objects: &dyn Objects,
    selector: Option<&LabelSelector>,
    r: &AdmissionRequest<'_>,
) -> Result<bool, StatusError> {
    let Some(selector) = selector.filter(|_| !r.namespace.is_empty() || is_namespace(r)) else {
        return Ok(true);
    };
    let changes = r.subresource.is_empty() && matches!(r.op, Operation::Create | Operation::Update);
    if is_namespace(r) && changes {
        return Ok(r.object.as_deref().is_some_and(|o| selects(selector, o)));
    }
    let name = if is_namespace(r) { r.name } else { r.namespace };
    let gvr = core("namespaces");
    match lookup(objects, &gvr, "", name).await? {
        Some(namespace) => Ok(selects(selector, &namespace)),
        None => Err(StatusError::not_found(&gvr.group_resource(), name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_match_by_name_and_subresource() {
        let pods = core("pods");
        for (wanted, subresource, want) in [
            ("pods", "", true),
            ("pods", "log", false),
            ("pods/log", "log", true),
            ("pods/*", "log", true),
            ("pods/*", "", true),
            ("*", "", true),
            ("*", "log", false),
            ("*/log", "log", true),
            ("*/*", "exec", true),
            ("services", "", false),
        ] {
            assert_eq!(resource_matches(wanted, &pods, subresource), want, "{wanted} {subresource}");
        }
    }
}
