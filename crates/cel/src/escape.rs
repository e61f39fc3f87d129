//! Field names of the API as CEL identifiers, and back.

/// The grammar's own words beside the reserved ones.
const LITERALS: [&str; 4] = ["true", "false", "null", "in"];
/// Legal as field names, not as variables or functions.
pub(crate) const RESERVED: [&str; 17] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];
const ESCAPES: [(&str, &str); 4] =
    [("__", "__underscores__"), (".", "__dot__"), ("-", "__dash__"), ("/", "__slash__")];

/// Whether a name is one of the language's own words.
pub fn is_keyword(name: &str) -> bool {
    LITERALS.contains(&name) || RESERVED.contains(&name)
}

/// The identifier that an expression selects a field by, `None` where no expression can.
pub fn escape(name: &str) -> Option<String> {
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    if is_keyword(name) {
        return Some(format!("__{name}__"));
    }
    if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-/".contains(&b)) {
        return None;
    }
    let (mut out, mut rest) = (String::with_capacity(name.len()), name);
    'next: while let Some(c) = rest.chars().next() {
        for (plain, escaped) in ESCAPES {
            if let Some(after) = rest.strip_prefix(plain) {
                out.push_str(escaped);
                rest = after;
                continue 'next;
            }
        }
        out.push(c);
        rest = &rest[c.len_utf8()..];
    }
    Some(out)
}

/// The field that an identifier selects, `None` where it holds an escape that does not exist.
pub fn unescape(identifier: &str) -> Option<String> {
    let (mut out, mut rest) = (String::with_capacity(identifier.len()), identifier);
    while let Some(start) = rest.find("__") {
        let inner = &rest[start + 2..];
        let length = inner.find('_').unwrap_or(inner.len());
        if length == 0 || !inner[length..].starts_with("__") {
            // Not an escape: one underscore is plain text.
            out.push_str(&rest[..start + 1]);
            rest = &rest[start + 1..];
            continue;
        }
        let (word, end) = (&inner[..length], start + 4 + length);
        out.push_str(&rest[..start]);
        match ESCAPES.iter().find(|(_, escaped)| escaped[2..].strip_suffix("__") == Some(word)) {
            Some((plain, _)) => out.push_str(plain),
            None if is_keyword(word) && length + 4 == identifier.len() => out.push_str(word),
            None => return None,
        }
        rest = &rest[end..];
    }
    out.push_str(rest);
    Some(out)
}
