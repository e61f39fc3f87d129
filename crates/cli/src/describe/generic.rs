//! All fields of an object, with titles made of their names.

use serde_json::{Map, Value};

use super::{Page, Related};
use crate::value::{shown, text};

const SKIPPED: [&str; 5] = ["managedFields", "name", "namespace", "labels", "annotations"];

pub(super) fn describe(object: &Value, related: &Related) -> String {
    let mut page = Page::default();
    page.field(0, "Name", text(object, "/metadata/name"));
    page.field(0, "Namespace", text(object, "/metadata/namespace"));
    page.meta(object);
    if let Some(fields) = object.as_object() {
        content(&mut page, 0, fields, false);
    }
    page.finish(related)
}

fn content(page: &mut Page, level: usize, fields: &Map<String, Value>, in_metadata: bool) {
    for (name, value) in fields {
        if in_metadata && SKIPPED.contains(&name.as_str()) {
            continue;
        }
        match value {
            Value::Object(inner) => {
                page.line(level, &format!("{}:", title(name)));
                content(page, level + 1, inner, level == 0 && name == "metadata");
            }
            Value::Array(items) => {
                page.line(level, &format!("{}:", title(name)));
                for item in items {
                    match item {
                        Value::Object(inner) => content(page, level + 1, inner, false),
                        other => page.line(level + 1, &shown(Some(other))),
                    }
                }
            }
            scalar => page.field(level, &title(name), shown(Some(scalar))),
        }
    }
}

/// `podCIDR` → `Pod CIDR`, `apiVersion` → `API Version`.
pub(super) fn title(name: &str) -> String {
    if name.chars().any(|c| !c.is_alphabetic() && c != '-') {
        return name.to_owned();
    }
    let mut words: Vec<String> = Vec::new();
    let chars: Vec<char> = name.chars().collect();
    for (at, c) in chars.iter().enumerate() {
        let before = at.checked_sub(1).map(|i| chars[i]);
        let after = chars.get(at + 1);
        let starts = match before {
            None => true,
            Some(b) => {
                c.is_uppercase()
                    && (b.is_lowercase() || after.is_some_and(|a| a.is_lowercase()) && b.is_uppercase())
            }
        };
        match words.last_mut() {
            Some(word) if !starts => word.push(*c),
            _ => words.push(c.to_string()),
        }
    }
    let spelled = words.into_iter().map(|word| {
        if ["API", "URL", "UID", "GUID"].contains(&word.to_uppercase().as_str()) {
            return word.to_uppercase();
        }
        let mut letters = word.chars();
        letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
    });
    spelled.collect::<Vec<String>>().join(" ")
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_become_titles() {
        for (name, title) in [
            ("apiVersion", "API Version"),
            ("podCIDR", "Pod CIDR"),
            ("uid", "UID"),
            ("a.b/c", "a.b/c"),
            ("HTTPGet", "HTTP Get"),
        ] {
            assert_eq!(super::title(name), title);
        }
    }
}
