//! YAML as kubectl prints it: sorted keys, lists not indented below their key, quotes only where needed.

use std::fmt::Write;

use serde_json::Value;

/// A document, ending in a newline.
pub fn to_string(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => mapping(map, 0, false, &mut out),
        Value::Array(items) if !items.is_empty() => sequence(items, 0, false, &mut out),
        scalar => {
            inline(scalar, 0, &mut out);
            out.push('\n');
        }
    }
    out
}

fn mapping(map: &serde_json::Map<String, Value>, indent: usize, mut inline_first: bool, out: &mut String) {
    for (key, value) in map {
        if !std::mem::take(&mut inline_first) {
            spaces(indent, out);
        }
        out.push_str(&plain_or_quoted(key));
        out.push(':');
        match value {
            Value::Object(inner) if !inner.is_empty() => {
                out.push('\n');
                mapping(inner, indent + 2, false, out);
            }
            Value::Array(items) if !items.is_empty() => {
                out.push('\n');
                sequence(items, indent, false, out);
            }
            scalar => {
                out.push(' ');
                inline(scalar, indent + 2, out);
                out.push('\n');
            }
        }
    }
}

fn sequence(items: &[Value], indent: usize, mut inline_first: bool, out: &mut String) {
    for item in items {
        if !std::mem::take(&mut inline_first) {
            spaces(indent, out);
        }
        out.push_str("- ");
        match item {
            Value::Object(map) if !map.is_empty() => mapping(map, indent + 2, true, out),
            Value::Array(inner) if !inner.is_empty() => sequence(inner, indent + 2, true, out),
            scalar => {
                inline(scalar, indent + 2, out);
                out.push('\n');
            }
        }
    }
}

fn spaces(count: usize, out: &mut String) {
    out.extend(std::iter::repeat_n(' ', count));
}

/// A scalar or an empty collection; `indent` is where the lines of a block scalar begin.
fn inline(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
        Value::Number(n) => out.push_str(&n.to_string()),
        Value::String(text) if block_possible(text) => block(text, indent, out),
        Value::String(text) => fold(&plain_or_quoted(text), indent, out),
        Value::Array(_) => out.push_str("[]"),
        Value::Object(_) => out.push_str("{}"),
    }
}

/// Where a line grows past this column, it breaks at the next single space.
const BEST_WIDTH: usize = 80;

/// A scalar on one or several lines; a reader joins them by a space again.
fn fold(scalar: &str, indent: usize, out: &mut String) {
    let mut column = out.chars().rev().take_while(|c| *c != '\n').count();
    let chars: Vec<char> = scalar.chars().collect();
    for (at, c) in chars.iter().enumerate() {
        let single =
            *c == ' ' && at > 0 && chars[at - 1] != ' ' && chars.get(at + 1).is_some_and(|c| *c != ' ');
        // Nothing may break beside the quotes.
        let inner = at > 1 && at + 2 < chars.len();
        if single && inner && column > BEST_WIDTH {
            out.push('\n');
            spaces(indent, out);
            column = indent;
        } else {
            out.push(*c);
            column += 1;
        }
    }
}

fn block_possible(text: &str) -> bool {
    text.contains('\n') && !text.chars().any(|c| c.is_control() && c != '\n' && c != '\t')
}

/// A literal block: `|`, `|-` without, `|+` with more than one newline at the end.
fn block(text: &str, indent: usize, out: &mut String) {
    out.push('|');
    // Leading blanks of the first line would be taken for indentation.
    if text.starts_with([' ', '\n', '\t']) {
        out.push('2');
    }
    let body = match text.strip_suffix('\n') {
        None => {
            out.push('-');
            text
        }
        Some(body) if body.ends_with('\n') || body.is_empty() => {
            out.push('+');
            body
        }
        Some(body) => body,
    };
    for line in body.split('\n') {
        out.push('\n');
        if !line.is_empty() {
            spaces(indent, out);
            out.push_str(line);
        }
    }
}

fn plain_or_quoted(text: &str) -> String {
    if text.chars().any(|c| c.is_control() || c == '\u{feff}' || c == '\u{2028}' || c == '\u{2029}') {
        return double_quoted(text);
    }
    if reads_as_other(text) {
        return double_quoted(text);
    }
    if needs_quotes(text) { format!("'{}'", text.replace('\'', "''")) } else { text.to_owned() }
}

/// Whether the bare text would be read as something else than a string.
fn reads_as_other(text: &str) -> bool {
    const WORDS: [&str; 12] =
        ["null", "true", "false", "yes", "no", "on", "off", "y", "n", "~", ".nan", "nan"];
    let lower = text.to_ascii_lowercase();
    if text.is_empty() || WORDS.contains(&lower.as_str()) {
        return true;
    }
    let bare = lower.trim_start_matches(['+', '-']);
    if bare == ".inf" || bare == "inf" {
        return true;
    }
    let digits = bare.replace('_', "");
    let radix = |prefix: &str, radix: u32| {
        digits.strip_prefix(prefix).is_some_and(|d| !d.is_empty() && d.chars().all(|c| c.is_digit(radix)))
    };
    let first = digits.chars().next().unwrap_or('x');
    ((first.is_ascii_digit() || first == '.') && digits.parse::<f64>().is_ok())
        || radix("0x", 16)
        || radix("0o", 8)
        || radix("0b", 2)
        || timestamp(text)
        || sexagesimal(bare)
}

/// `2026-01-02` and what begins so: YAML 1.1 has timestamps.
fn timestamp(text: &str) -> bool {
    let bytes = text.as_bytes();
    let digits =
        |range: std::ops::Range<usize>| bytes.get(range).is_some_and(|b| b.iter().all(u8::is_ascii_digit));
    let date = digits(0..4)
        && bytes.get(4) == Some(&b'-')
        && digits(5..7)
        && bytes.get(7) == Some(&b'-')
        && digits(8..10);
    date && (bytes.len() == 10 || keelson_api_types::meta::parse_time(text).is_some())
}

/// `10:30`, which YAML 1.1 reads in base 60.
fn sexagesimal(text: &str) -> bool {
    text.contains(':')
        && text
            .split(':')
            .all(|part| (1..=2).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit()))
}

fn needs_quotes(text: &str) -> bool {
    let first = text.chars().next().unwrap_or(' ');
    let follows = text.chars().nth(1);
    let indicator = match first {
        '-' | '?' | ':' => follows.is_none_or(|c| c == ' '),
        '!' | '&' | '*' | '[' | ']' | '{' | '}' | ',' | '#' | '|' | '>' | '@' | '`' | '"' | '\'' | '%'
        | '=' => first != '=' || text.len() == 1,
        _ => false,
    };
    indicator
        || text.starts_with("---")
        || text.starts_with("...")
        || text.starts_with("<<") && text.len() == 2
        || text.starts_with(' ')
        || text.ends_with(' ')
        || text.contains(": ")
        || text.ends_with(':')
        || text.contains(" #")
}

fn double_quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if (c as u32) < 0x80 && c.is_control() => {
                let _ = write!(out, "\\x{:02X}", c as u32);
            }
            c if c.is_control() || matches!(c, '\u{feff}' | '\u{2028}' | '\u{2029}') => {
                let _ = write!(out, "\\u{:04X}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn documents_look_as_kubectl_prints_them() {
        let value = json!({
            "apiVersion": "v1", "data": {"a": "1", "b": "x: y", "c": "l1\nl2\n", "d": "no end\nhere", "e": "true"},
            "list": [{"a": 1, "b": [1, 2]}, "x", [], {}], "empty": {}, "none": null, "when": "2026-01-02T03:04:05Z",
        });
        let expected = "\
apiVersion: v1
data:
  a: \"1\"
  b: 'x: y'
  c: |
    l1
    l2
  d: |-
    no end
    here
  e: \"true\"
empty: {}
list:
- a: 1
  b:
  - 1
  - 2
- x
- []
- {}
none: null
when: \"2026-01-02T03:04:05Z\"
";
        assert_eq!(super::to_string(&value), expected);
    }

    #[test]
    fn long_text_folds_and_reads_back() {
        let long = "word ".repeat(40) + "end";
        for text in [long.clone(), format!("{long}: x"), format!("\t{long} \"q\" \\ x")] {
            let value = json!({"k": {"l": [text]}});
            let yaml = super::to_string(&value);
            assert!(yaml.lines().count() > 3 && yaml.lines().all(|l| l.len() < 100), "{yaml}");
            let (back, _) =
                keelson_machinery::decode::yaml(yaml.as_bytes()).unwrap_or_else(|e| panic!("{yaml}: {e}"));
            assert_eq!(back, value, "{yaml}");
        }
    }

    #[test]
    fn what_is_printed_reads_back() {
        let awkward = [
            "",
            "~",
            "0x1f",
            "1e3",
            "- a",
            "a #b",
            "#a",
            "'",
            "\"",
            "a: b",
            "a:",
            "*x",
            "&x",
            "%",
            "@",
            "\t",
            "a\tb",
            " lead\nsecond\n",
            "\n",
            "x\n\n",
            "10:30",
            "0.5",
            "+1",
            "-",
            "?",
            "2026-01-02",
            "yes",
            "{a}",
            "null",
            "a\u{7}b",
        ];
        for text in awkward {
            let value = json!({"k": text, "l": [text]});
            let yaml = super::to_string(&value);
            let (back, _) =
                keelson_machinery::decode::yaml(yaml.as_bytes()).unwrap_or_else(|e| panic!("{yaml}: {e}"));
            assert_eq!(back, value, "{yaml}");
        }
    }
}
