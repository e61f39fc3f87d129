//! A schema's `pattern`: a regular expression in Go's syntax, compiled on first use.

use regex::Regex;
use std::collections::HashSet;
use std::sync::{LazyLock, Mutex, OnceLock, PoisonError};

/// Patterns that compile, some of them: definitions repeat a few again and again, and compiling takes longer than
/// all else about them.
static SOUND: LazyLock<Mutex<HashSet<String>>> = LazyLock::new(Mutex::default);
const REMEMBERED: usize = 1024;

/// A pattern as written, and what it compiles to.
#[derive(Debug)]
pub struct Pattern {
    text: String,
    compiled: OnceLock<Option<Regex>>,
}

impl Pattern {
    pub fn new(text: String) -> Self {
        Self { text, compiled: OnceLock::new() }
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the pattern occurs in the text. One that does not compile was refused with its CRD, and matches.
    pub fn is_match(&self, text: &str) -> bool {
        let compiled = self.compiled.get_or_init(|| Regex::new(&translated(&self.text)).ok());
        compiled.as_ref().is_none_or(|re| re.is_match(text))
    }

    /// Why it is no regular expression.
    pub fn error(text: &str) -> Option<String> {
        let sound = || SOUND.lock().unwrap_or_else(PoisonError::into_inner);
        if text.is_empty() || sound().contains(text) {
            return None;
        }
        let Err(error) = Regex::new(&translated(text)) else {
            let mut sound = sound();
            if sound.len() == REMEMBERED {
                sound.clear();
            }
            sound.insert(text.to_owned());
            return None;
        };
        let error = error.to_string();
        let last = error.lines().last().unwrap_or_default();
        Some(last.trim_start_matches("error: ").to_owned())
    }
}

/// Go's syntax in this engine's: its Perl classes are ASCII, a brace that repeats nothing is a brace, and a bracket
/// inside a class is a bracket.
fn translated(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len() + 8);
    let mut rest = pattern;
    let mut class = false;
    while let Some(c) = rest.chars().next() {
        let tail = &rest[c.len_utf8()..];
        rest = tail;
        match c {
            '\\' => {
                let Some(next) = tail.chars().next() else {
                    out.push('\\');
                    break;
                };
                rest = &tail[next.len_utf8()..];
                match (next, class) {
                    ('d', true) => out.push_str("0-9"),
                    ('d', false) => out.push_str("[0-9]"),
                    ('w', true) => out.push_str("0-9A-Za-z_"),
                    ('w', false) => out.push_str("[0-9A-Za-z_]"),
                    ('s', true) => out.push_str(r"\t\n\f\r "),
                    ('s', false) => out.push_str(r"[\t\n\f\r ]"),
                    ('D', _) => out.push_str("[^0-9]"),
                    ('W', _) => out.push_str("[^0-9A-Za-z_]"),
                    ('S', _) => out.push_str(r"[^\t\n\f\r ]"),
                    ('b', false) => out.push_str(r"(?-u:\b)"),
                    (next, _) => out.extend(['\\', next]),
                }
            }
            '[' if class => match tail.strip_prefix(':').and_then(|t| t.find(":]")) {
                Some(end) => {
                    let named = end + 3;
                    out.push('[');
                    out.push_str(&tail[..named]);
                    rest = &tail[named..];
                }
                None => out.push_str(r"\["),
            },
            '[' => {
                class = true;
                out.push('[');
                if let Some(after) = rest.strip_prefix('^') {
                    out.push('^');
                    rest = after;
                }
                if let Some(after) = rest.strip_prefix(']') {
                    out.push_str(r"\]");
                    rest = after;
                }
            }
            ']' if class => {
                class = false;
                out.push(']');
            }
            '&' | '~' if class => out.extend(['\\', c]),
            '{' if !class && !is_repeat(tail) => out.push_str(r"\{"),
            c => out.push(c),
        }
    }
    out
}

/// Whether what follows a brace makes it a counted repetition.
fn is_repeat(tail: &str) -> bool {
    let Some((inner, _)) = tail.split_once('}') else { return false };
    let (low, high) = inner.split_once(',').unwrap_or((inner, ""));
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    !low.is_empty() && digits(low) && digits(high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_what_they_mean_in_go() {
        for (pattern, text, matches) in [
            ("^[a-z]+$", "abc", true),
            (r"^\d+$", "١٢", false),
            (r"^\w{2,3}$", "ab_", true),
            (r"^[\w.-]+$", "a.b-c", true),
            ("^{.*}$", "{a}", true),
            ("^a{2}$", "aa", true),
            ("^[[a]$", "[", true),
            ("^[]a]$", "]", true),
            ("^[[:alpha:]:]+$", "a:", true),
            (r"^\p{L}+$", "äb", true),
            ("^[a&&b]+$", "&", true),
            ("(", "anything", true),
        ] {
            assert_eq!(Pattern::new(pattern.to_owned()).is_match(text), matches, "{pattern} {text}");
        }
        assert!(Pattern::error("(").is_some() && Pattern::error("a+").is_none());
    }
}
