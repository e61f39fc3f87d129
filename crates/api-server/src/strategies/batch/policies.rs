//! A Job's rules on failures and on success.

use serde_json::json;

use super::super::check::{At, Errors};

const ACTIONS: &[&str] = &["Count", "FailIndex", "FailJob", "Ignore"];

pub(super) fn failure_policy(spec: &At<'_>, e: &mut Errors) {
    let rules = spec.dig(&["podFailurePolicy", "rules"]);
    if rules.len() > 20 {
        e.too_many(&rules.path, rules.len(), 20);
    }
    let containers: Vec<&str> = ["containers", "initContainers"]
        .iter()
        .flat_map(|list| spec.dig(&["template", "spec", list]).each().map(|c| c.f("name").s()))
        .collect();
    for rule in rules.each() {
        let (action, codes, conditions) =
            (rule.f("action"), rule.f("onExitCodes"), rule.f("onPodConditions"));
        match action.s() {
            "" => e.required(&action.path, "valid values: [\"Count\" \"FailIndex\" \"FailJob\" \"Ignore\"]"),
            "FailIndex" if !spec.f("backoffLimitPerIndex").has() => {
                e.invalid(&action, "requires the backoffLimitPerIndex to be set");
            }
            known if ACTIONS.contains(&known) => {}
            _ => e.not_supported(&action, ACTIONS),
        }
        if codes.has() {
            exit_codes(&codes, &containers, e);
        }
        for pattern in conditions.each() {
            e.qualified_name(&pattern.f("type"));
            e.one_of(&pattern.f("status"), &["False", "True", "Unknown"]);
        }
        let detail = match (codes.has(), conditions.is_empty()) {
            (true, false) => "specifying both OnExitCodes and OnPodConditions is not supported",
            (false, true) => "specifying one of OnExitCodes and OnPodConditions is required",
            _ => continue,
        };
        e.invalid_without_value(&rule.path, detail);
    }
}

fn exit_codes(at: &At<'_>, containers: &[&str], e: &mut Errors) {
    e.one_of(&at.f("operator"), &["In", "NotIn"]);
    if let Some(name) = at.get("containerName")
        && !containers.contains(&name.s())
    {
        e.invalid(&name, "must be one of the container or initContainer names in the pod template");
    }
    let values = at.f("values");
    if values.is_empty() {
        e.invalid_value(&values.path, json!([]), "at least one value is required");
    } else if values.len() > 255 {
        e.too_many(&values.path, values.len(), 255);
    }
    let mut last = None;
    for value in values.each() {
        if at.f("operator").s() == "In" && value.i() == 0 {
            e.invalid(&value, "must not be 0 for the In operator");
        }
        match last {
            Some(before) if before == value.i() => e.duplicate(&value.path, value.i()),
            Some(before) if before > value.i() => {
                e.invalid(&values, "must be ordered");
            }
            _ => {}
        }
        last = Some(value.i());
    }
}

pub(super) fn success_policy(at: &At<'_>, completions: i64, e: &mut Errors) {
    let rules = at.f("rules");
    if rules.is_empty() {
        e.required(&rules.path, "at least one rules must be specified when the successPolicy is specified");
    }
    if rules.len() > 20 {
        e.too_many(&rules.path, rules.len(), 20);
    }
    for rule in rules.each() {
        let (count, indexes) = (rule.f("succeededCount"), rule.f("succeededIndexes"));
        if !count.has() && !indexes.has() {
            let detail = "at least one of succeededCount or succeededIndexes must be specified";
            e.required(&rule.path, detail);
        }
        let total = if indexes.has() { index_count(&indexes, completions, e) } else { i64::MAX };
        if count.has() {
            e.nonnegative(&count);
            if count.i() > completions {
                let detail = format!(
                    "must be less than or equal to {completions} (the number of specified completions)"
                );
                e.invalid(&count, detail);
            }
            if count.i() > total {
                let detail = format!(
                    "must be less than or equal to {total} (the number of indexes in the specified \
                     succeededIndexes field)"
                );
                e.invalid(&count, detail);
            }
        }
    }
}

/// The number of indexes in a list like `1,3-5`.
fn index_count(at: &At<'_>, completions: i64, e: &mut Errors) -> i64 {
    let mut total = 0;
    let mut last = -1;
    for part in at.s().split(',').filter(|part| !part.is_empty()) {
        let mut bounds = part.split('-').map(str::parse::<i64>);
        let range = match (bounds.next(), bounds.next(), bounds.next()) {
            (Some(Ok(one)), None, None) => Some((one, one)),
            (Some(Ok(low)), Some(Ok(high)), None) if low < high => Some((low, high)),
            _ => None,
        };
        match range.filter(|(low, high)| *low > last && *high < completions) {
            Some((low, high)) => {
                total += high - low + 1;
                last = high;
            }
            None => {
                e.invalid(at, format!("error parsing succeededIndexes: invalid fragment {part:?}"));
                return 0;
            }
        }
    }
    total
}
