//! Recursive descent over the selector grammars, with upstream's complaints.

use super::lexer::{Token, tokens};
use super::{FieldTerm, Operator, Requirement, SelectorError};
use crate::field::{FieldError, aggregate};
use crate::names;
use std::collections::BTreeSet;

const BINARY: &str = "in, notin, =, ==, !=, gt, lt";

struct Parser<'a> {
    tokens: Vec<(Token, &'a str)>,
    at: usize,
}

pub(super) fn requirements(text: &str) -> Result<Vec<Requirement>, SelectorError> {
    let mut p = Parser { tokens: tokens(text), at: 0 };
    let mut out = Vec::new();
    loop {
        match p.peek() {
            (Token::Word | Token::Bang, _) => {
                let requirement = p.requirement();
                out.push(
                    requirement
                        .map_err(|e| SelectorError(format!("unable to parse requirement: {}", e.0)))?,
                );
                match p.take() {
                    (Token::End, _) => return Ok(out),
                    (Token::Comma, _) => {
                        let (next, text) = p.peek();
                        if !matches!(next, Token::Word | Token::Bang) {
                            return err(format!("found '{text}', expected: identifier after ','"));
                        }
                    }
                    (_, text) => return err(format!("found '{text}', expected: ',' or 'end of string'")),
                }
            }
            (Token::End, _) => return Ok(out),
            (_, text) => return err(format!("found '{text}', expected: !, identifier, or 'end of string'")),
        }
    }
}

impl<'a> Parser<'a> {
    /// The next token where `in` and `notin` are plain words.
    fn peek(&self) -> (Token, &'a str) {
        match self.tokens[self.at.min(self.tokens.len() - 1)] {
            (Token::In | Token::NotIn, text) => (Token::Word, text),
            other => other,
        }
    }

    fn take(&mut self) -> (Token, &'a str) {
        let token = self.peek();
        self.at += 1;
        token
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        let (mut token, mut text) = self.take();
        let negated = token == Token::Bang;
        if negated {
            (token, text) = self.take();
        }
        if token != Token::Word {
            return err(format!("found '{text}', expected: identifier"));
        }
        let key_errs = names::qualified_name(text);
        if !key_errs.is_empty() {
            return err(FieldError::invalid("<nil>", text, key_errs.join("; ")).to_string());
        }
        let key = text.to_owned();
        if negated || matches!(self.peek().0, Token::End | Token::Comma) {
            let op = if negated { Operator::DoesNotExist } else { Operator::Exists };
            return Ok(Requirement { key, op, values: Vec::new() });
        }
        let op = self.operator()?;
        let values = match op {
            Operator::In | Operator::NotIn => self.set()?,
            _ => self.exact()?,
        };
        let requirement = Requirement { key, op, values: values.into_iter().collect() };
        let errs = requirement.validate("");
        if errs.is_empty() { Ok(requirement) } else { err(aggregate(&errs)) }
    }

    fn operator(&mut self) -> Result<Operator, SelectorError> {
        let (token, text) = self.tokens[self.at.min(self.tokens.len() - 1)];
        self.at += 1;
        Ok(match token {
            Token::In => Operator::In,
            Token::NotIn => Operator::NotIn,
            Token::Equals => Operator::Equals,
            Token::NotEquals => Operator::NotEquals,
            Token::Greater => Operator::GreaterThan,
            Token::Less => Operator::LessThan,
            _ => return err(format!("found '{text}', expected: {BINARY}")),
        })
    }

    fn set(&mut self) -> Result<BTreeSet<String>, SelectorError> {
        let (token, text) = self.take();
        if token != Token::Open {
            return err(format!("found '{text}' expected: '('"));
        }
        let mut values = BTreeSet::new();
        let mut expect_value = true;
        loop {
            match self.take() {
                (Token::Word, text) if expect_value => {
                    values.insert(text.to_owned());
                    expect_value = false;
                }
                (Token::Comma, _) => {
                    if expect_value {
                        values.insert(String::new());
                    }
                    expect_value = true;
                }
                (Token::Close, _) => {
                    if expect_value {
                        values.insert(String::new());
                    }
                    return Ok(values);
                }
                (_, text) if expect_value => {
                    return err(format!("found '{text}', expected: ',', ')' or identifier"));
                }
                (_, text) => return err(format!("found '{text}', expected: ',' or ')'")),
            }
        }
    }

    fn exact(&mut self) -> Result<BTreeSet<String>, SelectorError> {
        if matches!(self.peek().0, Token::End | Token::Comma) {
            return Ok(BTreeSet::from([String::new()]));
        }
        match self.take() {
            (Token::Word, text) => Ok(BTreeSet::from([text.to_owned()])),
            (_, text) => err(format!("found '{text}', expected: identifier")),
        }
    }
}

pub(super) fn field_terms(text: &str) -> Result<Vec<FieldTerm>, SelectorError> {
    let mut parts = split_terms(text);
    parts.sort_unstable();
    let mut out = Vec::new();
    for part in parts.into_iter().filter(|p| !p.is_empty()) {
        let Some(at) = part.find(['=', '!']).and_then(|_| first_operator(part)) else {
            return err(format!("invalid selector: '{text}'; can't understand '{part}'"));
        };
        let (field, rest) = part.split_at(at);
        let (equal, value) = if let Some(v) = rest.strip_prefix("!=") {
            (false, v)
        } else {
            (true, rest.strip_prefix("==").or_else(|| rest.strip_prefix('=')).unwrap_or_default())
        };
        out.push(FieldTerm { field: field.to_owned(), equal, value: unescape(value)? });
    }
    Ok(out)
}

fn first_operator(part: &str) -> Option<usize> {
    let equals = part.find('=')?;
    Some(if equals > 0 && part.as_bytes()[equals - 1] == b'!' { equals - 1 } else { equals })
}

fn split_terms(text: &str) -> Vec<&str> {
    let (mut out, mut start, mut escaped) = (Vec::new(), 0, false);
    for (i, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                out.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    out.push(&text[start..]);
    out
}

fn unescape(value: &str) -> Result<String, SelectorError> {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(e @ ('\\' | ',' | '=')) => out.push(e),
                Some(e) => return err(format!("invalid field selector: invalid escape sequence: \\{e}")),
                None => return err("invalid field selector: invalid escape sequence: \\".to_owned()),
            },
            ',' | '=' => {
                return err(format!("invalid field selector: unescaped character in value: {}", c as u32));
            }
            c => out.push(c),
        }
    }
    Ok(out)
}

pub(super) fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=")
}

fn err<T>(message: String) -> Result<T, SelectorError> {
    Err(SelectorError(message))
}
