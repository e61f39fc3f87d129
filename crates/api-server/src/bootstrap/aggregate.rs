//! ClusterRoles that gather the rules of others by label.

use std::sync::Arc;

use keelson_api_types::{LabelSelector, meta};
use serde_json::{Map, Value};

use super::super::admission::items;

/// The rules that an aggregating role should have; None for a role that does not aggregate.
pub fn gathered(role: &Value, all: &[Arc<Value>]) -> Option<Vec<Value>> {
    let selectors = role.pointer("/aggregationRule/clusterRoleSelectors")?.as_array()?;
    let mut sorted: Vec<&Arc<Value>> = all.iter().collect();
    sorted.sort_by_key(|r| meta::name(r));
    let none = Map::new();
    let mut rules: Vec<Value> = Vec::new();
    for selector in selectors {
        let Ok(selector) = LabelSelector::from_object(Some(selector)) else { continue };
        for other in &sorted {
            if meta::name(other) == meta::name(role)
                || !selector.matches(meta::labels(other).unwrap_or(&none))
            {
                continue;
            }
            for rule in items(&other["rules"]) {
                if !rules.contains(rule) {
                    rules.push(rule.clone());
                }
            }
        }
    }
    Some(rules)
}

/// The aggregating roles whose rules are not what they should be, corrected.
pub fn stale(all: &[Arc<Value>]) -> Vec<Value> {
    let corrected = |role: &Arc<Value>| {
        let rules = gathered(role, all)?;
        if items(&role["rules"]) == rules.as_slice() {
            return None;
        }
        let mut role = Value::clone(role);
        role["rules"] = rules.into();
        Some(role)
    };
    all.iter().filter_map(corrected).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_role_gathers_the_rules_of_labelled_roles_once_each() {
        let role = |name: &str, labels: Value, rules: Value| {
            Arc::new(json!({"metadata": {"name": name, "labels": labels}, "rules": rules}))
        };
        let rule = |verb: &str| json!({"verbs": [verb]});
        let mut admin = Value::clone(&role("admin", json!({}), json!([])));
        admin["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {"to-admin": "true"}}]});
        let all = [
            role("z", json!({"to-admin": "true"}), json!([rule("a"), rule("b")])),
            role("b", json!({"to-admin": "true"}), json!([rule("b"), rule("c")])),
            role("x", json!({}), json!([rule("d")])),
            Arc::new(admin.clone()),
        ];
        assert_eq!(gathered(&admin, &all), Some(vec![rule("b"), rule("c"), rule("a")]));
        let fixed = stale(&all);
        assert_eq!(fixed.len(), 1);
        let again: Vec<Arc<Value>> =
            all.iter().take(3).cloned().chain(fixed.into_iter().map(Arc::new)).collect();
        assert!(stale(&again).is_empty());
    }
}
