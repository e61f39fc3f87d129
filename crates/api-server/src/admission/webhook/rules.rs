//! Which requests a webhook wants to see.

use keelson_api_types::{Gvr, LabelSelector, StatusError, meta};
use serde_json::{Map, Value};

use super::super::{core, items, lookup, text};
use crate::types::{AdmissionRequest, Objects, Operation};

/// Whether the webhook's rules, namespace selector and object selector all match.
pub async fn matches(
    objects: &dyn Objects,
    hook: &Value,
    r: &AdmissionRequest<'_>,
) -> Result<bool, StatusError> {
    if !items(&hook["rules"]).iter().any(|rule| rule_matches(rule, r)) {
        return Ok(false);
    }
    if !object_selected(&hook["objectSelector"], r) {
        return Ok(false);
    }
    namespace_selected(objects, &hook["namespaceSelector"], r).await
}

fn rule_matches(rule: &Value, r: &AdmissionRequest<'_>) -> bool {
    let any = |key: &str, wanted: &str| items(&rule[key]).iter().any(|v| v == "*" || v == wanted);
    let is_namespace = r.gvr.group.is_empty() && r.gvr.resource == "namespaces";
    let in_scope = match text(rule, "/scope") {
        "Namespaced" => !r.namespace.is_empty() && !is_namespace,
        "Cluster" => r.namespace.is_empty() || is_namespace,
        _ => true,
    };
    in_scope
        && any("operations", r.op.as_str())
        && any("apiGroups", &r.gvr.group)
        && any("apiVersions", &r.gvr.version)
        && items(&rule["resources"])
            .iter()
            .filter_map(Value::as_str)
            .any(|w| resource_matches(w, r.gvr, r.subresource))
}

/// `pods`, `pods/log`, `pods/*`, `*/scale`, `*` (no subresources), `*/*`.
fn resource_matches(wanted: &str, gvr: &Gvr, subresource: &str) -> bool {
    let (resource, sub) = wanted.split_once('/').unwrap_or((wanted, ""));
    (resource == "*" || resource == gvr.resource) && (sub == "*" || sub == subresource)
}

fn selects(selector: &Value, labels: Option<&Map<String, Value>>) -> bool {
    let none = Map::new();
    LabelSelector::from_object(Some(selector)).is_ok_and(|s| s.matches(labels.unwrap_or(&none)))
}

fn is_everything(selector: &Value) -> bool {
    selector.as_object().is_none_or(Map::is_empty)
}

/// The new or the old object: nothing escapes by taking its label away.
fn object_selected(selector: &Value, r: &AdmissionRequest<'_>) -> bool {
    let of = |object: Option<&Value>| object.is_some_and(|o| selects(selector, meta::labels(o)));
    is_everything(selector) || of(r.object.as_deref()) || of(r.old)
}

async fn namespace_selected(
    objects: &dyn Objects,
    selector: &Value,
    r: &AdmissionRequest<'_>,
) -> Result<bool, StatusError> {
    let is_namespace = r.gvr.group.is_empty() && r.gvr.resource == "namespaces";
    if is_everything(selector) || (r.namespace.is_empty() && !is_namespace) {
        return Ok(true);
    }
    if is_namespace && matches!(r.op, Operation::Create | Operation::Update) {
        return Ok(r.object.as_deref().is_some_and(|o| selects(selector, meta::labels(o))));
    }
    let name = if is_namespace { r.name } else { r.namespace };
    let gvr = core("namespaces");
    match lookup(objects, &gvr, "", name).await? {
        Some(namespace) => Ok(selects(selector, meta::labels(&namespace))),
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
