//! Tokens, by the grammar of the CEL specification.

use std::fmt;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Token {
    Ident(String),
    Int(String),
    Uint(String),
    Float(String),
    String(String),
    Bytes(Vec<u8>),
    /// Operators, punctuation and the keywords `in`, `true`, `false` and `null`.
    Symbol(&'static str),
    End,
}

#[derive(Clone, Debug)]
pub(crate) struct Spanned {
    pub token: Token,
    /// The first code point's index.
    pub position: u32,
    pub text: String,
}

pub(crate) struct LexError {
    pub position: u32,
    pub message: String,
}

/// Longer symbols first.
const SYMBOLS: [&str; 26] = [
    "==", "!=", "<=", ">=", "&&", "||", "<", ">", "[", "]", "{", "}", "(", ")", ".", ",", "-", "!", "?", ":",
    "+", "*", "/", "%", "in", "null",
];

/// The tokens of a source, the last of them [`Token::End`].
pub(crate) fn tokens(source: &str) -> (Vec<Spanned>, Vec<LexError>) {
    let chars: Vec<char> = source.chars().collect();
    let mut lexer = Lexer { chars: &chars, at: 0 };
    let (mut tokens, mut errors) = (Vec::new(), Vec::new());
    loop {
        lexer.skip_blank();
        let start = lexer.at;
        match lexer.next() {
            Ok(token) => {
                let text = if token == Token::End { "<EOF>".into() } else { lexer.text(start) };
                let end = token == Token::End;
                tokens.push(Spanned { token, position: start as u32, text });
                if end {
                    return (tokens, errors);
                }
            }
            Err(message) => {
                lexer.at = lexer.at.max(start + 1);
                errors.push(LexError { position: start as u32, message });
            }
        }
    }
}

struct Lexer<'s> {
    chars: &'s [char],
    at: usize,
}

impl Lexer<'_> {
    fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    fn text(&self, start: usize) -> String {
        self.chars[start..self.at.min(self.chars.len())].iter().collect()
    }

    fn skip_blank(&mut self) {
        loop {
            match self.peek(0) {
                Some('\t' | ' ' | '\r' | '\n' | '\u{c}') => self.at += 1,
                Some('/') if self.peek(1) == Some('/') => {
                    while self.peek(0).is_some_and(|c| c != '\n') {
                        self.at += 1;
                    }
                }
                _ => return,
            }
        }
    }

    fn next(&mut self) -> Result<Token, String> {
        let Some(c) = self.peek(0) else { return Ok(Token::End) };
        let digit_after_dot = c == '.' && self.peek(1).is_some_and(|c| c.is_ascii_digit());
        if c.is_ascii_digit() || digit_after_dot {
            return Ok(self.number());
        }
        if let Some(prefix) = self.string_prefix() {
            return self.string(prefix);
        }
        if c.is_ascii_alphabetic() || c == '_' {
            let start = self.at;
            while self.peek(0).is_some_and(|c| c.is_ascii_alphanumeric() || c == '_') {
                self.at += 1;
            }
            let word = self.text(start);
            return Ok(match word.as_str() {
                "in" => Token::Symbol("in"),
                "true" => Token::Symbol("true"),
                "false" => Token::Symbol("false"),
                "null" => Token::Symbol("null"),
                _ => Token::Ident(word),
            });
        }
        for symbol in SYMBOLS {
            if symbol.chars().enumerate().all(|(i, c)| self.peek(i) == Some(c)) {
                self.at += symbol.len();
                return Ok(Token::Symbol(symbol));
            }
        }
        self.at += 1;
        Err(format!("Syntax error: token recognition error at: '{c}'"))
    }

    fn digits(&mut self, hex: bool) {
        while self.peek(0).is_some_and(|c| if hex { c.is_ascii_hexdigit() } else { c.is_ascii_digit() }) {
            self.at += 1;
        }
    }

    fn number(&mut self) -> Token {
        let start = self.at;
        let hex = self.peek(0) == Some('0')
            && self.peek(1) == Some('x')
            && self.peek(2).is_some_and(|c| c.is_ascii_hexdigit());
        if hex {
            self.at += 2;
        }
        self.digits(hex);
        let mut float = false;
        if !hex {
            if self.peek(0) == Some('.') && self.peek(1).is_some_and(|c| c.is_ascii_digit()) {
                float = true;
                self.at += 1;
                self.digits(false);
            }
            let sign = usize::from(matches!(self.peek(1), Some('+' | '-')));
            let exponent = matches!(self.peek(0), Some('e' | 'E'))
                && self.peek(1 + sign).is_some_and(|c| c.is_ascii_digit());
            if exponent {
                float = true;
                self.at += 1 + sign;
                self.digits(false);
            }
        }
        let text = self.text(start);
        if float {
            return Token::Float(text);
        }
        if matches!(self.peek(0), Some('u' | 'U')) {
            self.at += 1;
            return Token::Uint(text);
        }
        Token::Int(text)
    }

    /// Whether a string starts here, how long its prefix is, and whether it is raw or of bytes.
    fn string_prefix(&self) -> Option<Prefix> {
        let mut prefix = Prefix::default();
        for length in 0..3 {
            match self.peek(length)? {
                '"' | '\'' => return Some(Prefix { length, ..prefix }),
                'r' | 'R' if !prefix.raw => prefix.raw = true,
                'b' | 'B' if length == 0 => prefix.bytes = true,
                _ => return None,
            }
        }
        None
    }

    fn string(&mut self, prefix: Prefix) -> Result<Token, String> {
        let start = self.at;
        self.at += prefix.length;
        let quote = self.peek(0).unwrap_or_default();
        let long = self.peek(1) == Some(quote) && self.peek(2) == Some(quote);
        let width = if long { 3 } else { 1 };
        self.at += width;
        let mut out = Text { bytes: Vec::new(), of_bytes: prefix.bytes };
        loop {
            let Some(c) = self.peek(0).filter(|c| long || !matches!(c, '\n' | '\r')) else {
                let text = self.text(start);
                return Err(format!("Syntax error: token recognition error at: '{}'", Shown(&text)));
            };
            if (0..width).all(|i| self.peek(i) == Some(quote)) {
                self.at += width;
                break;
            }
            self.at += 1;
            match c {
                '\\' if !prefix.raw => self.escape(&mut out).map_err(|()| {
                    format!("Syntax error: token recognition error at: '{}'", Shown(&self.text(start)))
                })?,
                // A long string's line ends are one character, whatever the platform wrote.
                '\r' if long && self.peek(0) == Some('\n') => {}
                '\r' if long => out.char('\n'),
                c => out.char(c),
            }
        }
        if prefix.bytes {
            return Ok(Token::Bytes(out.bytes));
        }
        String::from_utf8(out.bytes).map(Token::String).map_err(|_| "invalid UTF-8 in string".to_owned())
    }

    fn escape(&mut self, out: &mut Text) -> Result<(), ()> {
        let c = self.peek(0).ok_or(())?;
        self.at += 1;
        let simple = match c {
            'a' => '\u{7}',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\u{b}',
            '"' | '\'' | '\\' | '?' | '`' => c,
            'x' | 'X' => return self.code(2, 16).and_then(|code| out.code(code, true)),
            'u' => return self.code(4, 16).and_then(|code| out.code(code, false)),
            'U' => return self.code(8, 16).and_then(|code| out.code(code, false)),
            '0'..='3' => {
                self.at -= 1;
                return self.code(3, 8).and_then(|code| out.code(code, true));
            }
            _ => return Err(()),
        };
        out.char(simple);
        Ok(())
    }

    fn code(&mut self, digits: usize, radix: u32) -> Result<u32, ()> {
        let mut code: u32 = 0;
        for _ in 0..digits {
            let digit = self.peek(0).and_then(|c| c.to_digit(radix)).ok_or(())?;
            code = code.checked_mul(radix).and_then(|c| c.checked_add(digit)).ok_or(())?;
            self.at += 1;
        }
        Ok(code)
    }
}

#[derive(Clone, Copy, Default)]
struct Prefix {
    length: usize,
    raw: bool,
    bytes: bool,
}

struct Text {
    bytes: Vec<u8>,
    of_bytes: bool,
}

impl Text {
    fn char(&mut self, c: char) {
        self.bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
    }

    /// A hex or octal escape is a byte in bytes, a code point in strings.
    fn code(&mut self, code: u32, byte: bool) -> Result<(), ()> {
        match (self.of_bytes, byte) {
            (true, true) => self.bytes.push(u8::try_from(code).map_err(|_| ())?),
            (true, false) => return Err(()),
            (false, _) => self.char(char::from_u32(code).ok_or(())?),
        }
        Ok(())
    }
}

/// Text with its line ends written as escapes.
struct Shown<'s>(&'s str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.replace('\n', "\\n").replace('\r', "\\r").replace('\t', "\\t"))
    }
}
