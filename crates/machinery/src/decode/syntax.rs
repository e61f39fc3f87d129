//! What is wrong with a text that is no JSON, in the words of Go's decoder.

use std::fmt::Display;

const END: &str = "unexpected end of JSON input";
/// Go's limit on nesting.
const MAX_DEPTH: usize = 10_000;

/// The first complaint about `text`; `None` for valid JSON.
pub fn complaint(text: &[u8]) -> Option<String> {
    let mut scan = Scan { text, at: 0 };
    scan.document().err()
}

struct Scan<'a> {
    text: &'a [u8],
    at: usize,
}

type Scanned = Result<(), String>;

impl Scan<'_> {
    /// The byte here, or the complaint that there is none.
    fn peek(&self) -> Result<u8, String> {
        self.text.get(self.at).copied().ok_or_else(|| END.to_owned())
    }

    fn space(&mut self) {
        while self.text.get(self.at).is_some_and(|b| matches!(b, b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    /// The byte after white space.
    fn next(&mut self) -> Result<u8, String> {
        self.space();
        self.peek()
    }

    fn wrong<T>(&self, context: impl Display) -> Result<T, String> {
        let byte = self.peek()?;
        let shown = match byte {
            b'\'' => r"\'".to_owned(),
            b'"' => "\"".to_owned(),
            byte => {
                let quoted = keelson_api_types::gofmt::quote(&char::from(byte).to_string());
                quoted[1..quoted.len() - 1].to_owned()
            }
        };
        Err(format!("invalid character '{shown}' {context}"))
    }

    fn document(&mut self) -> Scanned {
        // Closing brackets of what is open, innermost last.
        let mut open: Vec<u8> = Vec::new();
        self.value(&mut open)?;
        while let Some(close) = open.last().copied() {
            let next = self.next()?;
            if next == close {
                self.at += 1;
                open.pop();
                continue;
            }
            if next != b',' {
                let after = if close == b'}' { "after object key:value pair" } else { "after array element" };
                return self.wrong(after);
            }
            self.at += 1;
            if close == b'}' {
                self.key()?;
            }
            self.value(&mut open)?;
        }
        self.space();
        if self.at < self.text.len() { self.wrong("after top-level value") } else { Ok(()) }
    }

    /// Consumes a scalar or an empty container, or goes into a container up to its first scalar.
    fn value(&mut self, open: &mut Vec<u8>) -> Scanned {
        loop {
            if open.len() > MAX_DEPTH {
                return Err("exceeded max depth".to_owned());
            }
            match self.next()? {
                b'{' => {
                    self.at += 1;
                    open.push(b'}');
                    if self.next()? == b'}' {
                        return Ok(());
                    }
                    self.key()?;
                }
                b'[' => {
                    self.at += 1;
                    open.push(b']');
                    if self.next()? == b']' {
                        return Ok(());
                    }
                }
                b'"' => return self.string(),
                b'-' | b'0'..=b'9' => return self.number(),
                b't' => return self.literal("true"),
                b'f' => return self.literal("false"),
                b'n' => return self.literal("null"),
                _ => return self.wrong("looking for beginning of value"),
            }
        }
    }

    fn key(&mut self) -> Scanned {
        if self.next()? != b'"' {
            return self.wrong("looking for beginning of object key string");
        }
        self.string()?;
        if self.next()? != b':' {
            return self.wrong("after object key");
        }
        self.at += 1;
        Ok(())
    }

    fn string(&mut self) -> Scanned {
        self.at += 1;
        loop {
            match self.peek()? {
                b'"' => break,
                b'\\' => {
                    self.at += 1;
                    match self.peek()? {
                        b'u' => {
                            for _ in 0..4 {
                                self.at += 1;
                                if !self.peek()?.is_ascii_hexdigit() {
                                    return self.wrong("in \\u hexadecimal character escape");
                                }
                            }
                        }
                        b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"' => {}
                        _ => return self.wrong("in string escape code"),
                    }
                }
                byte if byte < 0x20 => return self.wrong("in string literal"),
                _ => {}
            }
            self.at += 1;
        }
        self.at += 1;
        Ok(())
    }

    fn digits(&mut self, context: &str) -> Scanned {
        if !self.peek()?.is_ascii_digit() {
            return self.wrong(context);
        }
        while self.text.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
        Ok(())
    }

    fn number(&mut self) -> Scanned {
        if self.peek()? == b'-' {
            self.at += 1;
        }
        match self.peek()? {
            b'0' => self.at += 1,
            _ => self.digits("in numeric literal")?,
        }
        if self.text.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.digits("after decimal point in numeric literal")?;
        }
        if matches!(self.text.get(self.at), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek()?, b'+' | b'-') {
                self.at += 1;
            }
            self.digits("in exponent of numeric literal")?;
        }
        Ok(())
    }

    fn literal(&mut self, word: &str) -> Scanned {
        for expected in word.bytes() {
            if self.peek()? != expected {
                return self.wrong(format_args!("in literal {word} (expecting '{}')", char::from(expected)));
            }
            self.at += 1;
        }
        Ok(())
    }
}
