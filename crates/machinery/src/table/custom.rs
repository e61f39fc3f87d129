//! Tables of custom resources, from a CRD's `additionalPrinterColumns`.

use super::Column;
use super::object::Obj;
use jiff::Timestamp;
use keelson_api_types::meta;
use serde_json::{Value, json};

/// The columns of a custom resource: its name, then what the CRD asks for, or the age.
pub fn generic_columns(printer_columns: &[Value]) -> Vec<Column> {
    let mut out = vec![Column::new("Name", "string", "name", 0)];
    if printer_columns.is_empty() {
        out.push(Column::new("Age", "date", "", 0));
    }
    for c in printer_columns {
        let text = |k: &str| c.get(k).and_then(Value::as_str).unwrap_or_default();
        let priority = c.get("priority").and_then(Value::as_i64).unwrap_or(0) as i32;
        let column = Column::new(text("name"), text("type"), text("format"), priority);
        let description = match text("description") {
            "" => format!("Custom resource definition column (in JSONPath format): {}", text("jsonPath")),
            own => own.to_owned(),
        };
        out.push(Column { description, ..column });
    }
    out
}

/// The cells of one custom resource.
pub fn generic(printer_columns: &[Value], object: &Value, now: Timestamp) -> Vec<Value> {
    let o = Obj::new(object, now);
    let mut out = vec![o.name()];
    if printer_columns.is_empty() {
        out.push(o.age());
    }
    for c in printer_columns {
        let text = |k: &str| c.get(k).and_then(Value::as_str).unwrap_or_default();
        let found = path::find(object, text("jsonPath"));
        out.push(cell(&found, text("type"), &o));
    }
    out
}

/// A value that does not have its column's type is shown as nothing.
fn cell(found: &[&Value], kind: &str, o: &Obj) -> Value {
    // Paths are simple: what they find beyond the first is not shown.
    let Some(first) = found.first().filter(|v| !v.is_null()) else { return Value::Null };
    match kind {
        "integer" => {
            first.as_i64().or_else(|| first.as_f64().map(|n| n as i64)).map_or(Value::Null, Value::from)
        }
        "number" => first.as_f64().map_or(Value::Null, Value::from),
        "boolean" => first.as_bool().map_or(Value::Null, Value::from),
        "date" => match first.as_str() {
            Some(text) if meta::parse_time(text).is_some() => {
                let wrapped = json!({"at": text});
                json!(o.with(&wrapped).since("at"))
            }
            Some(_) => json!("<invalid>"),
            None => Value::Null,
        },
        "string" => json!(plain(first)),
        _ => Value::Null,
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The part of JSONPath that printer columns use: fields, indices, wildcards and equality filters.
mod path {
    use serde_json::Value;

    enum Step<'a> {
        Field(String),
        Index(i64),
        All,
        /// Items of which a field equals a text.
        Equal(&'a str, &'a str),
    }

    pub(super) fn find<'v>(object: &'v Value, path: &str) -> Vec<&'v Value> {
        let mut found = vec![object];
        for step in steps(path) {
            found = found.into_iter().flat_map(|v| walk(v, &step)).collect();
        }
        found
    }

    fn walk<'v>(value: &'v Value, step: &Step) -> Vec<&'v Value> {
        match (step, value) {
            (Step::Field(name), _) => value.get(name).into_iter().collect(),
            (Step::Index(i), Value::Array(items)) => {
                let at = if *i < 0 { items.len() as i64 + i } else { *i };
                usize::try_from(at).ok().and_then(|at| items.get(at)).into_iter().collect()
            }
            (Step::All, Value::Array(items)) => items.iter().collect(),
            (Step::All, Value::Object(map)) => map.values().collect(),
            (Step::Equal(field, wanted), Value::Array(items)) => {
                let matches = |v: &&Value| {
                    field
                        .split('.')
                        .try_fold(*v, |v, key| v.get(key))
                        .is_some_and(|v| super::plain(v) == *wanted)
                };
                items.iter().filter(matches).collect()
            }
            _ => Vec::new(),
        }
    }

    fn steps(path: &str) -> Vec<Step<'_>> {
        let mut out = Vec::new();
        let mut rest = path.trim_start_matches('{').trim_end_matches('}').trim_start_matches('$');
        while !rest.is_empty() {
            if let Some(inner) = rest.strip_prefix('[') {
                let Some(end) = closing(inner) else { break };
                out.push(bracket(&inner[..end]));
                rest = &inner[end + 1..];
                continue;
            }
            rest = rest.trim_start_matches('.');
            let (name, after) = field(rest);
            rest = after;
            match name.as_str() {
                "" => {}
                "*" => out.push(Step::All),
                _ => out.push(Step::Field(name)),
            }
        }
        out
    }

    /// A field name, in which a backslash makes a dot part of it.
    fn field(text: &str) -> (String, &str) {
        let mut name = String::new();
        let mut chars = text.char_indices();
        while let Some((i, c)) = chars.next() {
            match c {
                '.' | '[' => return (name, &text[i..]),
                '\\' => name.extend(chars.next().map(|(_, c)| c)),
                c => name.push(c),
            }
        }
        (name, "")
    }

    /// The bracket that ends this one, quotes skipped.
    fn closing(text: &str) -> Option<usize> {
        let mut quote = None;
        for (i, c) in text.char_indices() {
            match (quote, c) {
                (Some(q), c) if q == c => quote = None,
                (None, '"' | '\'') => quote = Some(c),
                (None, ']') => return Some(i),
                _ => {}
            }
        }
        None
    }

    fn bracket(inner: &str) -> Step<'_> {
        let unquoted = |s: &'_ str| s.trim().trim_matches(['"', '\'']).to_owned();
        if let Some(filter) = inner.strip_prefix("?(").and_then(|f| f.strip_suffix(')'))
            && let Some((field, wanted)) = filter.split_once("==")
        {
            let wanted = wanted.trim().trim_matches(['"', '\'']);
            return Step::Equal(field.trim().trim_start_matches("@."), wanted);
        }
        match inner.trim() {
            "*" => Step::All,
            number if number.parse::<i64>().is_ok() => Step::Index(number.parse().unwrap_or_default()),
            name => Step::Field(unquoted(name)),
        }
    }
}
