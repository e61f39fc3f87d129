//! An expression's text with its lines, and errors that point into it.

use std::fmt;

/// Errors beyond this many are counted, not listed.
const MAX_LISTED: usize = 100;
/// Longer lines are not quoted.
const MAX_SNIPPET: usize = 16384;

/// One problem of an expression, printed as upstream's compilers print it: the place, the message, the line
/// and a marker below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompileError {
    /// From 1.
    pub line: usize,
    /// From 0, in code points.
    pub column: usize,
    pub message: String,
    snippet: Option<String>,
}

/// All problems of one expression, in the order of their places; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompileErrors(Vec<CompileError>);

/// The errors found so far. A position is a code point's index in the source.
pub(crate) struct Sink<'s> {
    source: &'s str,
    found: Vec<CompileError>,
}

impl<'s> Sink<'s> {
    pub(crate) fn new(source: &'s str) -> Self {
        Sink { source, found: Vec::new() }
    }

    pub(crate) fn report(&mut self, position: u32, message: impl Into<String>) {
        let (mut line, mut column) = (1, 0);
        for c in self.source.chars().take(position as usize) {
            column += 1;
            if c == '\n' {
                (line, column) = (line + 1, 0);
            }
        }
        let snippet = self.source.split('\n').nth(line - 1).filter(|s| s.len() <= MAX_SNIPPET);
        let snippet = snippet.map(|s| s.replace('\t', " "));
        self.found.push(CompileError { line, column, message: message.into(), snippet });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    pub(crate) fn into_errors(mut self) -> CompileErrors {
        self.found.sort_by_key(|e| (e.line, e.column));
        CompileErrors(self.found)
    }
}

impl std::ops::Deref for CompileErrors {
    type Target = [CompileError];
    fn deref(&self) -> &[CompileError] {
        &self.0
    }
}

impl std::error::Error for CompileErrors {}

impl fmt::Display for CompileErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().take(MAX_LISTED).enumerate() {
            write!(f, "{}{error}", if i > 0 { "\n" } else { "" })?;
        }
        match self.0.len().saturating_sub(MAX_LISTED) {
            0 => Ok(()),
            more => write!(f, "\n{more} more errors were truncated"),
        }
    }
}

impl std::error::Error for CompileError {}

impl fmt::Display for CompileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ERROR: <input>:{}:{}: {}", self.line, self.column + 1, self.message)?;
        let Some(snippet) = &self.snippet else { return Ok(()) };
        write!(f, "\n | {snippet}\n | ")?;
        let wide = |c: Option<char>| c.is_some_and(|c| c.len_utf8() > 1);
        let mut chars = snippet.chars();
        for c in chars.by_ref().take(self.column) {
            f.write_str(if wide(Some(c)) { "\u{ff0e}" } else { "." })?;
        }
        f.write_str(if wide(chars.next()) { "\u{ff3e}" } else { "^" })
    }
}
