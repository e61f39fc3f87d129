//! Semantic versions, version 1 of the library.

use super::{Outcome, Row, fail, mismatch};
use crate::value::{Opaque, Value};
use semver::Version;
use std::cmp::Ordering;
use std::sync::Arc;

pub(super) const ROWS: &[Row] = &[
    ("semver", "string_to_semver", "(string) -> semver", make),
    ("semver", "string_bool_to_semver", "(string, bool) -> semver", make),
    ("isSemver", "is_semver_string", "(string) -> bool", |a| Ok(parse(a).is_some_and(|v| v.is_ok()).into())),
    ("isSemver", "is_semver_string_bool", "(string, bool) -> bool", |a| {
        Ok(parse(a).is_some_and(|v| v.is_ok()).into())
    }),
    ("isGreaterThan", "semver_is_greater_than", "semver.(semver) -> bool", |a| {
        compare(a, |order| (order == Ordering::Greater).into())
    }),
    ("isLessThan", "semver_is_less_than", "semver.(semver) -> bool", |a| {
        compare(a, |order| (order == Ordering::Less).into())
    }),
    ("compareTo", "semver_compare_to", "semver.(semver) -> int", |a| {
        compare(a, |order| Value::Int(order as i64))
    }),
    ("major", "semver_major", "semver.() -> int", |a| part(a, |v| v.major)),
    ("minor", "semver_minor", "semver.() -> int", |a| part(a, |v| v.minor)),
    ("patch", "semver_patch", "semver.() -> int", |a| part(a, |v| v.patch)),
];

/// The version that a string is; with `true` beside it, leniently so.
fn parse(args: &[Value<'_>]) -> Option<Result<Version, String>> {
    match args {
        [Value::String(text)] | [Value::String(text), Value::Bool(false)] => {
            Some(Version::parse(text).map_err(|e| e.to_string()))
        }
        [Value::String(text), Value::Bool(true)] => Some(normalize(text)),
        _ => None,
    }
}

fn make<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match parse(args) {
        Some(Ok(version)) => Ok(Value::Opaque(Opaque::Semver(Arc::new(version)))),
        Some(Err(why)) => fail(why),
        None => mismatch(),
    }
}

/// `v1.02` is read as `1.2.0`.
fn normalize(text: &str) -> Result<Version, String> {
    let mut parts: Vec<String> =
        text.strip_prefix('v').unwrap_or(text).splitn(3, '.').map(str::to_owned).collect();
    for part in &mut parts {
        let trimmed = part.trim_start_matches('0');
        if part.len() > 1 && trimmed.len() < part.len() {
            let digit = trimmed.starts_with(|c: char| c.is_ascii_digit());
            *part = if digit { trimmed.to_owned() } else { format!("0{trimmed}") };
        }
    }
    if parts.len() < 3 && parts.last().is_some_and(|p| p.contains(['+', '-'])) {
        return Err("short version cannot contain PreRelease/Build meta data".to_owned());
    }
    parts.resize(parts.len().max(3), "0".to_owned());
    Version::parse(&parts.join(".")).map_err(|e| e.to_string())
}

fn compare<'a>(args: &[Value<'a>], f: fn(Ordering) -> Value<'static>) -> Outcome<'a> {
    match args {
        [Value::Opaque(Opaque::Semver(x)), Value::Opaque(Opaque::Semver(y))] => Ok(f(x.cmp_precedence(y))),
        _ => mismatch(),
    }
}

fn part<'a>(args: &[Value<'a>], f: fn(&Version) -> u64) -> Outcome<'a> {
    match args {
        [Value::Opaque(Opaque::Semver(version))] => Ok(Value::Int(f(version) as i64)),
        _ => mismatch(),
    }
}
