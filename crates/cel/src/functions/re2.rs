//! Regular expressions with RE2's syntax and meaning, run by the `regex` crate.

use super::{Outcome, Row, fail, mismatch};
use crate::value::Value;
use regex::Regex;
use std::cell::RefCell;
use std::collections::HashMap;

/// Patterns are nearly always literals: each thread keeps those it last compiled.
const KEPT: usize = 256;

thread_local! {
    static COMPILED: RefCell<HashMap<String, Regex>> = RefCell::default();
}

pub(super) const ROWS: &[Row] = &[
    ("matches", "matches", "(string, string) -> bool", matches),
    ("matches", "matches_string", "string.(string) -> bool", matches),
    ("find", "string_find_string", "string.(string) -> string", |a| {
        let [Value::String(subject), Value::String(pattern)] = a else { return mismatch() };
        match compile(pattern) {
            Ok(regex) => Ok(regex.find(subject).map_or("", |m| m.as_str()).into()),
            Err(why) => fail(format!("Illegal regex: {why}")),
        }
    }),
    ("findAll", "string_find_all_string", "string.(string) -> list(string)", find_all),
    ("findAll", "string_find_all_string_int", "string.(string, int) -> list(string)", find_all),
];

fn matches<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::String(subject), Value::String(pattern)] = args else { return mismatch() };
    compile(pattern).map_or_else(fail, |regex| Ok(regex.is_match(subject).into()))
}

fn find_all<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let (subject, pattern, count) = match args {
        [Value::String(subject), Value::String(pattern)] => (subject, pattern, -1),
        [Value::String(subject), Value::String(pattern), Value::Int(count)] => (subject, pattern, *count),
        _ => return mismatch(),
    };
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    match compile(pattern) {
        Ok(regex) => {
            Ok(Value::list(regex.find_iter(subject).take(count).map(|m| Value::from(m.as_str())).collect()))
        }
        Err(why) => fail(format!("Illegal regex: {why}")),
    }
}

/// # Errors
/// Why the pattern is none.
pub(crate) fn compile(pattern: &str) -> Result<Regex, String> {
    COMPILED.with_borrow_mut(|compiled| {
        if let Some(regex) = compiled.get(pattern) {
            return Ok(regex.clone());
        }
        let regex =
            Regex::new(&translate(pattern)).map_err(|_| format!("error parsing regexp: `{pattern}`"))?;
        if compiled.len() >= KEPT {
            compiled.clear();
        }
        compiled.insert(pattern.to_owned(), regex.clone());
        Ok(regex)
    })
}

/// The same pattern for the `regex` crate, whose `\d`, `\s`, `\w` and `\b` know all of Unicode where RE2's know
/// ASCII, whose classes nest and have operators, and which has no `\Q`.
fn translate(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len() + 16);
    let mut chars = pattern.chars().peekable();
    // How many characters into a class, its bracket and caret not counted.
    let mut class: Option<usize> = None;
    while let Some(c) = chars.next() {
        let inside = class.is_some();
        match c {
            '\\' => match chars.next() {
                Some('Q') if !inside => {
                    let rest: String = chars.clone().collect();
                    let quoted = rest.split("\\E").next().unwrap_or(&rest);
                    out.push_str(&regex::escape(quoted));
                    let skip = quoted.chars().count() + if quoted.len() < rest.len() { 2 } else { 0 };
                    chars.by_ref().take(skip).for_each(drop);
                }
                Some(letter) => match ascii_class(letter, inside) {
                    Some(ascii) => out.push_str(ascii),
                    None => out.extend(['\\', letter]),
                },
                None => out.push('\\'),
            },
            '[' if !inside => {
                out.push('[');
                if chars.next_if_eq(&'^').is_some() {
                    out.push('^');
                }
                class = Some(0);
                continue;
            }
            '[' if chars.peek() != Some(&':') => out.push_str("\\["),
            '[' => {
                // [:alpha:] and its like are the same in both.
                out.push('[');
                for c in chars.by_ref() {
                    out.push(c);
                    if c == ']' {
                        break;
                    }
                }
            }
            ']' if class == Some(0) => out.push_str("\\]"),
            ']' if inside => {
                out.push(']');
                class = None;
                continue;
            }
            '&' | '~' if inside => out.extend(['\\', c]),
            c => out.push(c),
        }
        class = class.map(|count| count + 1);
    }
    out
}

fn ascii_class(letter: char, inside: bool) -> Option<&'static str> {
    Some(match (letter, inside) {
        ('d', true) => "0-9",
        ('d', false) => "[0-9]",
        ('w', true) => "0-9A-Za-z_",
        ('w', false) => "[0-9A-Za-z_]",
        ('s', true) => r"\t\n\f\r ",
        ('s', false) => r"[\t\n\f\r ]",
        ('D', _) => "[^0-9]",
        ('W', _) => "[^0-9A-Za-z_]",
        ('S', _) => r"[^\t\n\f\r ]",
        ('b', false) => r"(?-u:\b)",
        ('B', false) => r"(?-u:\B)",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::{compile, translate};

    #[test]
    fn classes_are_of_ascii_and_do_not_nest() {
        for (pattern, translated) in [
            (r"^\d+\.\w$", r"^[0-9]+\.[0-9A-Za-z_]$"),
            (r"[\d-]", "[0-9-]"),
            (r"[^\s]", r"[^\t\n\f\r ]"),
            (r"[[a]", r"[\[a]"),
            (r"[]a]", r"[\]a]"),
            (r"[a&&b]", r"[a\&\&b]"),
            (r"[[:alpha:]_]", "[[:alpha:]_]"),
            (r"\Qa.b\E+", r"a\.b+"),
            (r"\bx\b", r"(?-u:\b)x(?-u:\b)"),
        ] {
            assert_eq!(translate(pattern), translated, "{pattern}");
            assert!(compile(pattern).is_ok(), "{pattern}");
        }
        assert!(!compile(r"^\d$").unwrap().is_match("٣"));
        assert!(compile("^.$").unwrap().is_match("é"));
        assert!(compile(r"(?=x)").is_err(), "RE2 has no look-around");
    }
}
