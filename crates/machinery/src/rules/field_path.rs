//! `fieldPath` of a rule: `.spec.list`, `.labels['a.b']`, no indices.

use keelson_api_types::field::{child, key};
use serde_json::Value as Json;

/// The path as field errors write it.
///
/// # Errors
/// Why it is none that the schema has.
pub(super) fn field_path(path: &str, schema: &Json) -> Result<String, String> {
    let (mut out, mut rest, mut schema) = (String::new(), path, schema);
    while !rest.is_empty() {
        let name = if let Some(after) = rest.strip_prefix('.') {
            let end = after.find(['.', '[', ']']).unwrap_or(after.len());
            rest = &after[end..];
            after[..end].to_owned()
        } else if let Some(after) = rest.strip_prefix('[') {
            let (name, after) = quoted(after)?;
            rest = after;
            name
        } else {
            return Err(format!("expected [ or . but got: {rest}"));
        };
        if let Some(properties) = schema.get("properties") {
            schema = properties.get(&name).ok_or("does not refer to a valid field")?;
            out = child(&out, &name);
        } else if let Some(values) = schema.get("additionalProperties") {
            schema = values;
            out = key(&out, &name);
        } else {
            return Err("does not refer to a valid field".to_owned());
        }
    }
    if out.is_empty() { Err("is empty".to_owned()) } else { Ok(out) }
}

/// `'name']`, and what follows.
fn quoted(text: &str) -> Result<(String, &str), String> {
    let inner =
        text.strip_prefix('\'').ok_or_else(|| format!("expected single quoted string but got {text}"))?;
    let mut name = String::new();
    let mut chars = inner.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\'' => {
                let after = &inner[at + 1..];
                let after = after.strip_prefix(']').ok_or_else(|| format!("expected ] but got {after}"))?;
                return Ok((name, after));
            }
            '\\' => name.push(match chars.next().map(|(_, c)| c) {
                Some('a') => '\u{7}',
                Some('b') => '\u{8}',
                Some('f') => '\u{c}',
                Some('n') => '\n',
                Some('r') => '\r',
                Some('t') => '\t',
                Some('v') => '\u{b}',
                Some(c @ ('\'' | '\\')) => c,
                other => return Err(format!("invalid string literal: invalid escape char {other:?}")),
            }),
            c => name.push(c),
        }
    }
    Err("unexpected end of JSON path".to_owned())
}
