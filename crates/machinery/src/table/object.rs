//! Reading an object's fields for printing.

use jiff::Timestamp;
use keelson_api_types::{LabelSelector, duration, meta};
use serde_json::{Value, json};

/// An object and the time at which it is printed.
#[derive(Clone, Copy)]
pub(super) struct Obj<'a> {
    value: &'a Value,
    now: Timestamp,
}

impl<'a> Obj<'a> {
    pub(super) fn new(value: &'a Value, now: Timestamp) -> Obj<'a> {
        Obj { value, now }
    }

    /// Another value, printed at the same time.
    pub(super) fn with<'b>(&self, value: &'b Value) -> Obj<'b> {
        Obj { value, now: self.now }
    }

    pub(super) fn value(&self) -> &'a Value {
        self.value
    }

    /// The value at a dotted path.
    pub(super) fn get(&self, path: &str) -> Option<&'a Value> {
        path.split('.').try_fold(self.value, |v, key| v.get(key)).filter(|v| !v.is_null())
    }

    pub(super) fn at(&self, path: &str) -> Obj<'a> {
        Obj { value: self.get(path).unwrap_or(&Value::Null), now: self.now }
    }

    pub(super) fn has(&self, path: &str) -> bool {
        self.get(path).is_some()
    }

    pub(super) fn text(&self, path: &str) -> &'a str {
        self.get(path).and_then(Value::as_str).unwrap_or_default()
    }

    pub(super) fn int(&self, path: &str) -> i64 {
        self.get(path).and_then(Value::as_i64).unwrap_or_default()
    }

    pub(super) fn flag(&self, path: &str) -> bool {
        self.get(path).and_then(Value::as_bool).unwrap_or_default()
    }

    pub(super) fn list(&self, path: &str) -> impl DoubleEndedIterator<Item = Obj<'a>> + ExactSizeIterator {
        let items: &[Value] = self.get(path).and_then(Value::as_array).map_or(&[], Vec::as_slice);
        let now = self.now;
        items.iter().map(move |value| Obj { value, now })
    }

    /// The strings of a list, joined.
    pub(super) fn join(&self, path: &str, separator: &str) -> String {
        let parts: Vec<&str> = self.list(path).filter_map(|o| o.value.as_str()).collect();
        parts.join(separator)
    }

    /// Entries of a list or map.
    pub(super) fn len(&self, path: &str) -> usize {
        match self.get(path) {
            Some(Value::Array(items)) => items.len(),
            Some(Value::Object(map)) => map.len(),
            _ => 0,
        }
    }

    pub(super) fn name(&self) -> Value {
        json!(meta::name(self.value))
    }

    pub(super) fn age(&self) -> Value {
        json!(self.since("metadata.creationTimestamp"))
    }

    /// How long ago a time at a path was.
    pub(super) fn since(&self, path: &str) -> String {
        match meta::parse_time(self.text(path)) {
            Some(then) => duration::human(seconds(then, self.now)),
            None => "<unknown>".to_owned(),
        }
    }

    /// Between two times of the object; until now when the second is missing; empty without the first.
    pub(super) fn between(&self, from: &str, to: &str) -> String {
        let Some(from) = meta::parse_time(self.text(from)) else { return String::new() };
        duration::human(seconds(from, meta::parse_time(self.text(to)).unwrap_or(self.now)))
    }

    /// A text, or a placeholder when it is empty.
    pub(super) fn or(&self, path: &str, placeholder: &str) -> String {
        match self.get(path) {
            Some(Value::String(s)) if !s.is_empty() => s.clone(),
            Some(Value::Number(n)) => n.to_string(),
            _ => placeholder.to_owned(),
        }
    }

    /// Names and images of a pod template's containers.
    pub(super) fn containers(&self, path: &str) -> [Value; 2] {
        let of = |key: &str| {
            let parts: Vec<&str> = self.list(path).map(|c| c.text(key)).collect();
            json!(parts.join(","))
        };
        [of("name"), of("image")]
    }

    /// A plain label map, `<none>` when empty.
    pub(super) fn labels(&self, path: &str) -> String {
        let map = self.get(path).and_then(Value::as_object);
        let pairs: Vec<String> = map
            .into_iter()
            .flatten()
            .map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default()))
            .collect();
        if pairs.is_empty() { "<none>".to_owned() } else { pairs.join(",") }
    }

    /// A LabelSelector object as text.
    pub(super) fn selector(&self, path: &str) -> String {
        match LabelSelector::from_object(self.get(path)) {
            Ok(s) => {
                let text = printed(&s);
                if text.is_empty() { "<none>".to_owned() } else { text }
            }
            Err(_) => "<error>".to_owned(),
        }
    }

    /// The status of a condition; None when it is not there.
    pub(super) fn condition(&self, kind: &str) -> Option<Obj<'a>> {
        self.list("status.conditions").find(|c| c.text("type") == kind)
    }

    pub(super) fn has_true_condition(&self, kind: &str) -> bool {
        self.condition(kind).is_some_and(|c| c.text("status") == "True")
    }
}

/// `in` with one value came from `matchLabels` and prints as equality.
fn printed(selector: &LabelSelector) -> String {
    let parts: Vec<String> = selector
        .requirements()
        .iter()
        .map(|r| match (r.op, r.values.as_slice()) {
            (keelson_api_types::selector::Operator::In, [only]) => format!("{}={only}", r.key),
            _ => r.to_string(),
        })
        .collect();
    parts.join(",")
}

fn seconds(from: Timestamp, to: Timestamp) -> f64 {
    (to.as_millisecond() - from.as_millisecond()) as f64 / 1000.0
}

/// A short list, with how many more there are.
pub(super) fn shortened(parts: Vec<String>, max: usize, empty: &str) -> String {
    if parts.is_empty() {
        return empty.to_owned();
    }
    let shown = parts.iter().take(max).cloned().collect::<Vec<_>>().join(",");
    if parts.len() > max { format!("{shown} + {} more...", parts.len() - max) } else { shown }
}

pub(super) fn title_bool(value: bool) -> &'static str {
    if value { "True" } else { "False" }
}
