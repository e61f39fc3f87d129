//! From text to steps.

use serde_json::Value;

use super::filter::{Comparison, Filter};
use super::{Operand, Part, Path, Step};

/// What is wrong with a template.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("error parsing jsonpath: {0}")]
pub struct ParseError(String);

impl ParseError {
    pub(super) fn new(text: impl Into<String>) -> ParseError {
        ParseError(text.into())
    }
}

type Result<T> = std::result::Result<T, ParseError>;

/// What stands in one pair of braces.
enum Block {
    Operands(Vec<Operand>),
    Range(Path),
    End,
}

pub(super) fn template(text: &str) -> Result<Vec<Part>> {
    // The innermost open range is last.
    let mut open: Vec<(Path, Vec<Part>)> = Vec::new();
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find('{') {
        if start > 0 {
            parts.push(Part::Text(rest[..start].to_owned()));
        }
        let inner = &rest[start + 1..];
        let end = closing_brace(inner).ok_or_else(|| ParseError::new("unclosed action"))?;
        match block(&inner[..end])? {
            Block::Operands(operands) => parts.push(Part::Paths(operands)),
            Block::Range(path) => open.push((path, std::mem::take(&mut parts))),
            Block::End => {
                let (path, outer) =
                    open.pop().ok_or_else(|| ParseError::new("not in range, nothing to end"))?;
                let body = std::mem::replace(&mut parts, outer);
                parts.push(Part::Range(path, body));
            }
        }
        rest = &inner[end + 1..];
    }
    if !open.is_empty() {
        return Err(ParseError::new("a range has no end"));
    }
    if !rest.is_empty() {
        parts.push(Part::Text(rest.to_owned()));
    }
    Ok(parts)
}

/// Where the brace closes that is already open; braces in quotes do not count.
fn closing_brace(text: &str) -> Option<usize> {
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            _ if escaped => escaped = false,
            (_, '\\') => escaped = true,
            (Some(q), c) if q == c => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '}') => return Some(at),
            _ => {}
        }
    }
    None
}

fn block(text: &str) -> Result<Block> {
    let trimmed = text.trim();
    if trimmed == "end" {
        return Ok(Block::End);
    }
    if let Some(path) = trimmed.strip_prefix("range").filter(|t| t.starts_with([' ', '.', '$', '@', '['])) {
        let mut parser = Parser { text: path.trim(), at: 0 };
        let path = parser.path()?;
        parser.finish()?;
        return Ok(Block::Range(path));
    }
    let mut parser = Parser { text: trimmed, at: 0 };
    let mut operands = Vec::new();
    while parser.peek().is_some() {
        operands.push(parser.operand()?);
        parser.spaces();
    }
    Ok(Block::Operands(operands))
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl Parser<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    fn eat(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        self.at += if found { token.len() } else { 0 };
        found
    }

    fn expect(&mut self, token: &str) -> Result<()> {
        if self.eat(token) { Ok(()) } else { Err(self.unexpected(&format!("expected {token:?}"))) }
    }

    fn unexpected(&self, what: &str) -> ParseError {
        ParseError::new(format!("{what} at {:?} in {:?}", self.rest(), self.text))
    }

    fn spaces(&mut self) {
        while self.peek().is_some_and(char::is_whitespace) {
            self.next();
        }
    }

    fn finish(&mut self) -> Result<()> {
        self.spaces();
        if self.peek().is_none() { Ok(()) } else { Err(self.unexpected("unrecognized character")) }
    }

    fn operand(&mut self) -> Result<Operand> {
        self.spaces();
        match self.peek() {
            Some('"' | '\'') => Ok(Operand::Literal(Value::String(self.quoted()?))),
            Some('.' | '$' | '@' | '[') => Ok(Operand::Path(self.path()?)),
            Some(c) if c == '-' || c.is_ascii_digit() => self.number(),
            _ if self.eat("true") => Ok(Operand::Literal(Value::Bool(true))),
            _ if self.eat("false") => Ok(Operand::Literal(Value::Bool(false))),
            // `{metadata.name}` means `{.metadata.name}`.
            Some(c) if c.is_alphanumeric() || c == '_' => {
                let name = self.name()?;
                let mut path = self.path()?;
                path.steps.insert(0, Step::Field(name));
                Ok(Operand::Path(path))
            }
            _ => Err(self.unexpected("unrecognized character")),
        }
    }

    fn number(&mut self) -> Result<Operand> {
        let start = self.at;
        while self.peek().is_some_and(|c| c.is_ascii_digit() || matches!(c, '-' | '.' | 'e' | 'E' | '+')) {
            self.next();
        }
        let text = &self.text[start..self.at];
        let number = text.parse().map_err(|_| ParseError::new(format!("cannot parse number {text}")))?;
        Ok(Operand::Literal(Value::Number(number)))
    }

    fn quoted(&mut self) -> Result<String> {
        let quote = self.next();
        let mut text = String::new();
        loop {
            match self.next() {
                None => return Err(ParseError::new("unterminated quoted string")),
                c if c == quote => return Ok(text),
                Some('\\') => match self.next() {
                    Some('n') => text.push('\n'),
                    Some('t') => text.push('\t'),
                    Some('r') => text.push('\r'),
                    Some(c) => text.push(c),
                    None => return Err(ParseError::new("unterminated quoted string")),
                },
                Some(c) => text.push(c),
            }
        }
    }

    fn path(&mut self) -> Result<Path> {
        let mut path = Path { absolute: self.eat("$"), steps: Vec::new() };
        let _ = !path.absolute && self.eat("@");
        loop {
            match self.peek() {
                Some('.') => self.dotted(&mut path.steps)?,
                Some('[') => {
                    let step = self.bracketed()?;
                    path.steps.push(step);
                }
                _ => return Ok(path),
            }
        }
    }

    fn dotted(&mut self, steps: &mut Vec<Step>) -> Result<()> {
        self.expect(".")?;
        if self.eat(".") {
            steps.push(Step::Recursive);
            if self.peek() == Some('[') {
                return Ok(());
            }
        }
        match self.peek() {
            // `{.}` is the node itself, `.['a']` the same as `['a']`.
            None | Some('[' | ' ' | ')' | '=' | '!' | '<' | '>') => {}
            Some('*') => {
                self.next();
                steps.push(Step::Wildcard);
            }
            _ => {
                let name = self.name()?;
                steps.push(Step::Field(name));
            }
        }
        Ok(())
    }

    /// A field's name; a backslash takes the next character as it is.
    fn name(&mut self) -> Result<String> {
        let mut name = String::new();
        while let Some(c) = self.peek() {
            match c {
                '\\' => {
                    self.next();
                    name.extend(self.next());
                    continue;
                }
                '.' | '[' | ']' | '(' | ')' | '=' | '!' | '<' | '>' | '"' | '\'' | '{' | '}' | ',' | '@'
                | '$' => break,
                c if c.is_whitespace() => break,
                c => name.push(c),
            }
            self.next();
        }
        if name.is_empty() { Err(self.unexpected("expected a name")) } else { Ok(name) }
    }

    fn bracketed(&mut self) -> Result<Step> {
        self.expect("[")?;
        if self.eat("?(") {
            let filter = self.filter()?;
            self.expect(")")?;
            self.spaces();
            self.expect("]")?;
            return Ok(Step::Filter(filter));
        }
        let mut members = Vec::new();
        loop {
            self.spaces();
            members.push(self.member()?);
            self.spaces();
            if self.eat("]") {
                break;
            }
            self.expect(",")?;
        }
        Ok(if members.len() == 1 { members.remove(0) } else { Step::Union(members) })
    }

    fn member(&mut self) -> Result<Step> {
        match self.peek() {
            Some('*') => {
                self.next();
                Ok(Step::Wildcard)
            }
            Some('"' | '\'') => {
                // Inside quotes a dot still walks, unless it is escaped.
                let start = self.at;
                self.quoted()?;
                let raw = &self.text[start + 1..self.at - 1];
                let mut inner = Parser { text: raw, at: 0 };
                let first = inner.name()?;
                let mut path = inner.path()?;
                inner.finish()?;
                path.steps.insert(0, Step::Field(first));
                Ok(if path.steps.len() == 1 { path.steps.remove(0) } else { Step::Chain(path.steps) })
            }
            _ => self.index_or_slice(),
        }
    }

    fn index_or_slice(&mut self) -> Result<Step> {
        let first = self.integer()?;
        if !self.eat(":") {
            return first.map(Step::Index).ok_or_else(|| self.unexpected("invalid array index"));
        }
        let to = self.integer()?;
        let step = if self.eat(":") { self.integer()?.unwrap_or(1) } else { 1 };
        Ok(Step::Slice(first, to, step))
    }

    fn integer(&mut self) -> Result<Option<i64>> {
        let start = self.at;
        while self.peek().is_some_and(|c| c == '-' || c.is_ascii_digit()) {
            self.next();
        }
        match &self.text[start..self.at] {
            "" => Ok(None),
            text => {
                text.parse().map(Some).map_err(|_| ParseError::new(format!("invalid array index {text}")))
            }
        }
    }

    fn filter(&mut self) -> Result<Filter> {
        let left = self.operand()?;
        self.spaces();
        let comparisons = [
            ("==", Comparison::Equal),
            ("!=", Comparison::NotEqual),
            ("<=", Comparison::LessOrEqual),
            (">=", Comparison::GreaterOrEqual),
            ("<", Comparison::Less),
            (">", Comparison::Greater),
        ];
        for (token, comparison) in comparisons {
            if self.eat(token) {
                let right = self.operand()?;
                self.spaces();
                return Ok(Filter::Compare(left, comparison, right));
            }
        }
        Ok(Filter::Exists(left))
    }
}
