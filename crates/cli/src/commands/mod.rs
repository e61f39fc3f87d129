//! The commands: each reads its arguments, makes a few calls and prints.

pub mod apply;
pub mod auth;
pub mod config;
pub mod create;
pub mod delete;
pub mod describe;
pub mod drain;
pub mod edit;
pub mod events;
pub mod exec;
pub mod explain;
pub mod expose;
pub mod get;
pub mod info;
pub mod label;
pub mod logs;
pub mod patch;
pub mod pods;
pub mod portforward;
pub mod rollout;
pub mod run;
pub mod scale;
pub mod set;
mod sort;
pub mod taint;
pub mod wait;

use serde_json::Value;

/// How long ago a time was, `<unknown>` for none.
pub fn age(time: &str) -> String {
    match keelson_api_types::meta::parse_time(time) {
        Some(time) => {
            let seconds = jiff::Timestamp::now().duration_since(time).as_secs_f64();
            keelson_api_types::duration::human(seconds)
        }
        None => "<unknown>".to_owned(),
    }
}

/// The pods of a workload or Service, as the text of a label selector.
pub fn selector_text(object: &Value) -> String {
    let Some(selector) = object.pointer("/spec/selector") else { return String::new() };
    // Services and replication controllers have plain maps.
    let labels = match (selector.get("matchLabels"), selector.get("matchExpressions")) {
        (None, None) => selector.as_object(),
        (labels, _) => labels.and_then(Value::as_object),
    };
    let mut parts: Vec<String> = labels
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    for expression in crate::value::list(selector, "/matchExpressions") {
        let key = crate::value::text(expression, "/key");
        let values: Vec<&str> =
            crate::value::list(expression, "/values").iter().filter_map(Value::as_str).collect();
        parts.push(match crate::value::text(expression, "/operator") {
            "In" => format!("{key} in ({})", values.join(",")),
            "NotIn" => format!("{key} notin ({})", values.join(",")),
            "Exists" => key.to_owned(),
            _ => format!("!{key}"),
        });
    }
    parts.join(",")
}

#[cfg(test)]
mod tests {
    use super::selector_text;
    use serde_json::json;

    #[test]
    fn selectors_of_both_forms_become_text() {
        assert_eq!(selector_text(&json!({"spec": {"selector": {"app": "x"}}})), "app=x");
        let expressions = json!({"spec": {"selector": {"matchLabels": {"a": "1"}, "matchExpressions": [
            {"key": "b", "operator": "In", "values": ["x", "y"]}, {"key": "c", "operator": "Exists"}, {"key": "d", "operator": "DoesNotExist"}]}}});
        assert_eq!(selector_text(&expressions), "a=1,b in (x,y),c,!d");
    }
}
