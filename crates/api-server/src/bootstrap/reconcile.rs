//! What differs between a bootstrap object and the stored one, and how far the stored one is brought
//! back: people may add to what the cluster starts with, but not take from it, unless they switch the
//! object's `autoupdate` off.

use keelson_api_types::meta;
use serde_json::{Map, Value};

use crate::admission::items;
use crate::authz::rbac::rule::{Rule, missing};
use crate::fairness::config::{CATCH_ALL, EXEMPT};
use crate::strategies::Strategy;
use crate::strategies::flowcontrol::{FlowSchema, PriorityLevelConfiguration};

/// What to do with the stored object.
#[derive(Debug, PartialEq)]
pub enum Step {
    Keep,
    Update(Value),
    /// `roleRef` cannot change: the binding is deleted and made anew.
    Recreate,
}

const RBAC_AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";
const FLOW_AUTOUPDATE: &str = "apf.kubernetes.io/autoupdate-spec";

/// A role or binding of the bootstrap policy.
pub fn rbac(stored: &Value, wanted: &Value) -> Step {
    if meta::annotation(stored, RBAC_AUTOUPDATE) == Some("false") {
        return Step::Keep;
    }
    if stored["roleRef"] != wanted["roleRef"] {
        return Step::Recreate;
    }
    let mut merged = stored.clone();
    merge_metadata(&mut merged, wanted);
    add_missing_rules(&mut merged, wanted);
    if !wanted["aggregationRule"].is_null() {
        merged["aggregationRule"] = wanted["aggregationRule"].clone();
    }
    let subjects: Vec<Value> = items(&wanted["subjects"])
        .iter()
        .filter(|s| !items(&stored["subjects"]).contains(s))
        .cloned()
        .collect();
    for subject in subjects {
        crate::admission::push(&mut merged, "subjects", subject);
    }
    if merged == *stored { Step::Keep } else { Step::Update(merged) }
}

fn add_missing_rules(merged: &mut Value, wanted: &Value) {
    let rules = |o: &Value| -> Vec<Rule> {
        o.get("rules").and_then(|r| serde_json::from_value(r.clone()).ok()).unwrap_or_default()
    };
    let held = rules(merged);
    for rule in rules(wanted) {
        if !missing(&held, std::slice::from_ref(&rule)).is_empty()
            && let Ok(rule) = serde_json::to_value(&rule)
        {
            crate::admission::push(merged, "rules", rule);
        }
    }
}

/// The day stays as it is, unless it is none or still to come.
pub fn token_tracking(stored: &Value, today: &Value) -> Step {
    let since = |object: &Value| object["data"]["since"].as_str()?.parse::<jiff::civil::Date>().ok();
    match since(stored) {
        Some(day) if Some(day) <= since(today) => Step::Keep,
        _ => owned(stored, today, &["data"]),
    }
}

/// A flow schema or priority level. Those that must exist are always brought back; the others while their
/// annotation says so, or nobody has changed them since they were made. The annotation is then made to say which.
pub fn flow_control(stored: &Value, wanted: &Value) -> Step {
    let said = match meta::annotation(stored, FLOW_AUTOUPDATE) {
        Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Some(true),
        Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Some(false),
        _ => None,
    };
    let mandatory = [EXEMPT, CATCH_ALL].contains(&meta::name(wanted));
    let auto = mandatory || said.unwrap_or(crate::meta::generation(stored) <= 1);
    let mut merged = stored.clone();
    if said != Some(auto) {
        merged["metadata"]["annotations"][FLOW_AUTOUPDATE] = auto.to_string().into();
    }
    if auto {
        let mut wanted = wanted.clone();
        match wanted["kind"].as_str() {
            Some("FlowSchema") => FlowSchema.default(&mut wanted),
            _ => PriorityLevelConfiguration.default(&mut wanted),
        }
        merged["spec"] = wanted["spec"].take();
        // What the exempt may take is the administrator's to say.
        if let Some(exempt) = stored["spec"].get("exempt").filter(|e| e.is_object()) {
            merged["spec"]["exempt"] = exempt.clone();
        }
    }
    if merged == *stored { Step::Keep } else { Step::Update(merged) }
}

/// Everything else: its main fields are the cluster's own and put back, what others added stays.
pub fn owned(stored: &Value, wanted: &Value, fields: &[&str]) -> Step {
    let mut merged = stored.clone();
    merge_metadata(&mut merged, wanted);
    for field in fields {
        if !covers(&stored[*field], &wanted[*field]) {
            merged[*field] = overlay(&stored[*field], &wanted[*field]);
        }
    }
    if merged == *stored { Step::Keep } else { Step::Update(merged) }
}

fn merge_metadata(merged: &mut Value, wanted: &Value) {
    for key in ["labels", "annotations"] {
        let Some(add) = wanted["metadata"][key].as_object() else { continue };
        for (name, value) in add {
            let autoupdate = name == RBAC_AUTOUPDATE || name == FLOW_AUTOUPDATE;
            let present = merged["metadata"][key].get(name);
            if present.is_none() || (!autoupdate && present != Some(value)) {
                merged["metadata"][key][name.as_str()] = value.clone();
            }
        }
    }
}

/// Whether `stored` says all that `wanted` says; it may say more (defaults).
pub fn covers(stored: &Value, wanted: &Value) -> bool {
    match (stored, wanted) {
        (Value::Object(have), Value::Object(want)) => {
            want.iter().all(|(k, v)| have.get(k).is_some_and(|h| covers(h, v)))
        }
        (Value::Array(have), Value::Array(want)) => {
            have.len() == want.len() && have.iter().zip(want).all(|(h, w)| covers(h, w))
        }
        (have, want) => have == want,
    }
}

/// `wanted` over `stored`, field by field; lists as wholes.
fn overlay(stored: &Value, wanted: &Value) -> Value {
    match (stored, wanted) {
        (Value::Object(have), Value::Object(want)) => {
            let mut merged: Map<String, Value> = have.clone();
            for (key, value) in want {
                let below = merged.get(key).cloned().unwrap_or(Value::Null);
                merged.insert(key.clone(), overlay(&below, value));
            }
            Value::Object(merged)
        }
        _ => wanted.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn role(rules: Value) -> Value {
        json!({"metadata": {"name": "r", "labels": {"a": "1"}, "annotations": {RBAC_AUTOUPDATE: "true"}}, "rules": rules})
    }

    #[test]
    fn taken_rules_come_back_and_added_ones_stay() {
        let get = json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]});
        let list = json!({"verbs": ["list"], "apiGroups": [""], "resources": ["pods"]});
        assert_eq!(rbac(&role(json!([get, list])), &role(json!([get]))), Step::Keep);
        assert_eq!(rbac(&role(json!([list])), &role(json!([get]))), Step::Update(role(json!([list, get]))));
        let mut off = role(json!([]));
        off["metadata"]["annotations"][RBAC_AUTOUPDATE] = "false".into();
        assert_eq!(rbac(&off, &role(json!([get]))), Step::Keep);
    }

    #[test]
    fn a_binding_to_another_role_is_made_anew() {
        let binding = |role: &str, subjects: Value| json!({"metadata": {"name": "b"}, "roleRef": {"name": role}, "subjects": subjects});
        assert_eq!(rbac(&binding("x", json!([])), &binding("y", json!([]))), Step::Recreate);
        let missing = rbac(&binding("x", json!(["u"])), &binding("x", json!(["v"])));
        assert_eq!(missing, Step::Update(binding("x", json!(["u", "v"]))));
    }

    #[test]
    fn a_changed_level_comes_back_unless_it_is_switched_off() {
        let level = |name: &str, shares: u32, annotation: &str| {
            json!({"kind": "PriorityLevelConfiguration", "status": {},
                "metadata": {"name": name, "generation": 2, "annotations": {FLOW_AUTOUPDATE: annotation}},
                "spec": {"type": "Limited", "limited": {"nominalConcurrencyShares": shares, "lendablePercent": 0,
                    "limitResponse": {"type": "Reject"}}}})
        };
        let wanted = level("x", 5, "true");
        assert_eq!(flow_control(&level("x", 5, "true"), &wanted), Step::Keep);
        assert_eq!(flow_control(&level("x", 6, "true"), &wanted), Step::Update(wanted.clone()));
        assert_eq!(flow_control(&level("x", 6, "false"), &wanted), Step::Keep);
        // Changed by somebody who says nothing: left alone, and so noted.
        assert_eq!(flow_control(&level("x", 6, ""), &wanted), Step::Update(level("x", 6, "false")));
        let catch_all = level("catch-all", 5, "true");
        assert_eq!(flow_control(&level("catch-all", 6, "false"), &catch_all), Step::Update(catch_all));
    }

    #[test]
    fn defaults_in_the_stored_object_are_no_difference() {
        let stored = json!({"spec": {"a": 1, "default": true, "list": [{"x": 1, "y": 2}]}, "metadata": {}});
        let wanted = json!({"spec": {"a": 1, "list": [{"x": 1}]}});
        assert_eq!(owned(&stored, &wanted, &["spec"]), Step::Keep);
        let changed = owned(&stored, &json!({"spec": {"a": 2}}), &["spec"]);
        let Step::Update(merged) = changed else { panic!("{changed:?}") };
        assert_eq!(merged["spec"]["a"], 2);
        assert_eq!(merged["spec"]["default"], true);
    }
}
