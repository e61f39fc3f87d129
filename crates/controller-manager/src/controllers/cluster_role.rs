//! Cluster roles that gather the rules of others, found by label.

use std::sync::Arc;

use keelson_api_types::LabelSelector;
use keelson_client::{Change, Key, Projected, WorkQueue};
use serde_json::{Value, json};

use crate::context::Context;
use crate::kit::{Error, error::gone_is_fine, only_if};
use crate::views::ClusterRole;

/// The rules of all roles that one of the selectors matches, each once, by the roles' names.
fn gather(role: &ClusterRole, all: &[Arc<ClusterRole>]) -> Vec<Value> {
    let selectors = role.aggregation_rule.iter().flat_map(|a| &a.cluster_role_selectors);
    let selectors: Vec<_> = selectors.filter_map(|s| LabelSelector::from_object(Some(s)).ok()).collect();
    let mut rules: Vec<Value> = Vec::new();
    for other in all.iter().filter(|o| o.metadata.name != role.metadata.name) {
        if !selectors.iter().any(|s| s.matches(&other.metadata.labels)) {
            continue;
        }
        for rule in other.rules.iter().flatten() {
            if !rules.contains(rule) {
                rules.push(rule.clone());
            }
        }
    }
    rules
}

pub async fn run(context: Arc<Context>) {
    let queue = WorkQueue::<Key>::new();
    let (roles, changed) = (Arc::downgrade(&context.informers.cluster_roles), queue.clone());
    context.informers.cluster_roles.on_change(move |change| {
        if !matches!(change, Change::Deleted(_)) && change.object().aggregation_rule.is_some() {
            changed.add(change.object().key());
        }
        let Some(roles) = roles.upgrade() else { return };
        for role in roles.list().iter().filter(|r| r.aggregation_rule.is_some()) {
            changed.add(role.key());
        }
    });
    let this = context.clone();
    context.work("clusterrole-aggregation", queue, 1, move |key| sync(this.clone(), key)).await;
}

async fn sync(context: Arc<Context>, key: Key) -> Result<(), Error> {
    let roles = &context.informers.cluster_roles;
    let Some(role) = roles.get(&key).filter(|r| r.aggregation_rule.is_some()) else { return Ok(()) };
    let rules = gather(&role, &roles.list());
    if role.rules.as_deref().unwrap_or_default() == rules {
        return Ok(());
    }
    let patch = json!({ "metadata": only_if(&role.metadata), "rules": rules });
    gone_is_fine(context.requests.patch::<ClusterRole>(&role.metadata, None, &patch).await).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_come_from_labelled_roles_each_once() {
        let role = |name: &str, value: Value| -> Arc<ClusterRole> {
            let mut value = value;
            value["metadata"]["name"] = name.into();
            Arc::new(serde_json::from_value(value).unwrap())
        };
        let rule = |verb: &str| json!({"verbs": [verb]});
        let all = [
            role("a", json!({"metadata": {"labels": {"to": "view"}}, "rules": [rule("get"), rule("list")]})),
            role("b", json!({"metadata": {"labels": {"to": "view"}}, "rules": [rule("get")]})),
            role("c", json!({"rules": [rule("delete")]})),
            role(
                "view",
                json!({"aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"to": "view"}}]}}),
            ),
        ];
        assert_eq!(gather(&all[3], &all), [rule("get"), rule("list")]);
    }
}
