//! The strings library, version 2 of it, and what the specification has for strings.

use super::{MAX_TEXT, Outcome, Row, fail, mismatch, text};
use crate::value::Value;

pub(super) const ROWS: &[Row] = &[
    ("contains", "contains_string", "string.(string) -> bool", |a| test(a, |s, t| s.contains(t))),
    ("endsWith", "ends_with_string", "string.(string) -> bool", |a| test(a, |s, t| s.ends_with(t))),
    ("startsWith", "starts_with_string", "string.(string) -> bool", |a| test(a, |s, t| s.starts_with(t))),
    ("charAt", "string_char_at_int", "string.(int) -> string", char_at),
    ("indexOf", "string_index_of_string", "string.(string) -> int", index_of),
    ("indexOf", "string_index_of_string_int", "string.(string, int) -> int", index_of),
    ("lastIndexOf", "string_last_index_of_string", "string.(string) -> int", last_index_of),
    ("lastIndexOf", "string_last_index_of_string_int", "string.(string, int) -> int", last_index_of),
    ("lowerAscii", "string_lower_ascii", "string.() -> string", |a| map(a, |s| s.to_ascii_lowercase())),
    ("upperAscii", "string_upper_ascii", "string.() -> string", |a| map(a, |s| s.to_ascii_uppercase())),
    ("trim", "string_trim", "string.() -> string", |a| map(a, |s| s.trim().to_owned())),
    ("replace", "string_replace_string_string", "string.(string, string) -> string", replace),
    ("replace", "string_replace_string_string_int", "string.(string, string, int) -> string", replace),
    ("split", "string_split_string", "string.(string) -> list(string)", split),
    ("split", "string_split_string_int", "string.(string, int) -> list(string)", split),
    ("substring", "string_substring_int", "string.(int) -> string", substring),
    ("substring", "string_substring_int_int", "string.(int, int) -> string", substring),
    ("join", "list_join", "list(string).() -> string", join),
    ("join", "list_join_string", "list(string).(string) -> string", join),
    ("strings.quote", "strings_quote", "(string) -> string", |a| map(a, quote)),
    ("format", "string_format", "string.(list(dyn)) -> string", super::format::format),
    ("jsonpatch.escapeKey", "string_jsonpatch_escapeKey_string", "(string) -> string", |a| {
        map(a, escape_key)
    }),
];

fn test<'a>(args: &[Value<'a>], test: fn(&str, &str) -> bool) -> Outcome<'a> {
    let [Value::String(subject), Value::String(part)] = args else { return mismatch() };
    Ok(test(subject, part).into())
}

fn map<'a>(args: &[Value<'a>], f: fn(&str) -> String) -> Outcome<'a> {
    let [Value::String(subject)] = args else { return mismatch() };
    text(f(subject))
}

fn escape_key(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

fn out_of_range<'a>(index: i64) -> Outcome<'a> {
    fail(format!("index out of range: {index}"))
}

fn char_at<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::String(subject), Value::Int(index)] = args else { return mismatch() };
    let length = subject.chars().count();
    match usize::try_from(*index) {
        Ok(at) if at <= length => Ok(subject.chars().nth(at).map(String::from).unwrap_or_default().into()),
        _ => out_of_range(*index),
    }
}

/// Where `part` first stands, counted in characters from `offset` on.
fn index_of<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let (subject, part, offset) = match args {
        [Value::String(subject), Value::String(part)] => (subject, part, 0),
        [Value::String(subject), Value::String(part), Value::Int(offset)] => (subject, part, *offset),
        _ => return mismatch(),
    };
    if part.is_empty() {
        return Ok(Value::Int(offset));
    }
    let Ok(skip) = usize::try_from(offset) else { return out_of_range(offset) };
    let Some((start, _)) = subject.char_indices().nth(skip) else { return Ok(Value::Int(-1)) };
    let found = subject[start..].find(&**part);
    Ok(Value::Int(found.map_or(-1, |at| subject[..start + at].chars().count() as i64)))
}

/// Where `part` last stands, at `offset` or before.
fn last_index_of<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let (subject, part, offset) = match args {
        [Value::String(subject), Value::String(part)] if part.is_empty() => {
            return Ok(Value::Int(subject.chars().count() as i64));
        }
        [Value::String(subject), Value::String(part)] => (subject, part, subject.chars().count() as i64 - 1),
        [Value::String(_), Value::String(part), Value::Int(offset)] if part.is_empty() => {
            return Ok(Value::Int(*offset));
        }
        [Value::String(subject), Value::String(part), Value::Int(offset)] if *offset < 0 => {
            let _ = (subject, part);
            return out_of_range(*offset);
        }
        [Value::String(subject), Value::String(part), Value::Int(offset)] => (subject, part, *offset),
        _ => return mismatch(),
    };
    let length = subject.chars().count() as i64;
    if offset >= length {
        return Ok(Value::Int(-1));
    }
    let last = offset.min(length - part.chars().count() as i64);
    let Ok(last) = usize::try_from(last) else { return Ok(Value::Int(-1)) };
    let starts: Vec<usize> = subject.char_indices().map(|(at, _)| at).take(last + 1).collect();
    let found = starts.iter().rposition(|at| subject[*at..].starts_with(&**part));
    Ok(Value::Int(found.map_or(-1, |at| at as i64)))
}

fn replace<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let (subject, old, new, count) = match args {
        [Value::String(subject), Value::String(old), Value::String(new)] => (subject, old, new, -1),
        [Value::String(subject), Value::String(old), Value::String(new), Value::Int(count)] => {
            (subject, old, new, *count)
        }
        _ => return mismatch(),
    };
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let found = subject.matches(&**old).take(count).count();
    if subject.len().saturating_add(found.saturating_mul(new.len())) > MAX_TEXT {
        return fail("string is too long");
    }
    text(subject.replacen(&**old, new, count))
}

/// At most `count` parts where it is given; none where it is zero. Nothing separates single characters.
fn split<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let (subject, separator, count) = match args {
        [Value::String(subject), Value::String(separator)] => (subject, separator, -1),
        [Value::String(subject), Value::String(separator), Value::Int(count)] => (subject, separator, *count),
        _ => return mismatch(),
    };
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let parts: Vec<Value<'a>> = match (count, separator.is_empty()) {
        (0, _) => Vec::new(),
        (count, false) => subject.splitn(count, &**separator).map(Value::from).collect(),
        (count, true) => {
            let mut parts: Vec<Value<'a>> =
                subject.chars().take(count - 1).map(|c| Value::from(String::from(c))).collect();
            if let Some((at, _)) = subject.char_indices().nth(count - 1) {
                parts.push(subject[at..].into());
            }
            parts
        }
    };
    Ok(Value::list(parts))
}

fn substring<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let (subject, start, end) = match args {
        [Value::String(subject), Value::Int(start)] => (subject, *start, None),
        [Value::String(subject), Value::Int(start), Value::Int(end)] => (subject, *start, Some(*end)),
        _ => return mismatch(),
    };
    let length = subject.chars().count() as i64;
    let last = end.unwrap_or(length);
    if let Some(end) = end
        && start > end
    {
        return fail(format!("invalid substring range. start: {start}, end: {end}"));
    }
    for bound in [start, last] {
        if !(0..=length).contains(&bound) {
            return out_of_range(bound);
        }
    }
    Ok(subject.chars().skip(start as usize).take((last - start) as usize).collect::<String>().into())
}

fn join<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let (list, separator) = match args {
        [Value::List(list)] => (list, ""),
        [Value::List(list), Value::String(separator)] => (list, &**separator),
        _ => return mismatch(),
    };
    let mut out = String::new();
    for (i, item) in list.iter().enumerate() {
        let item = item?;
        let Some(part) = item.as_str() else { return fail(format!("join: invalid input: {item}")) };
        if i > 0 {
            out.push_str(separator);
        }
        out.push_str(part);
        if out.len() > MAX_TEXT {
            return fail("string is too long");
        }
    }
    Ok(out.into())
}

fn quote(subject: &str) -> String {
    let mut out = String::with_capacity(subject.len() + 2);
    out.push('"');
    for c in subject.chars() {
        match c {
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
