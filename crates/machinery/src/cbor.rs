//! CBOR (RFC 8949) into values and back, as Kubernetes speaks it (KEP-4222).
//!
//! Whole objects carry tag 55799. Strings are byte strings, for nobody has checked that they are UTF-8; bytes carry tag
//! 22, which says that JSON has them in base64. Reading takes what other encoders make of the same values: text
//! strings, the tags of other text encodings and of times, lengths that come last. What JSON cannot say is refused.

mod encode;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ciborium_io::Read;
use ciborium_ll::{Decoder, Header};
use jiff::{SignedDuration, Timestamp};
use keelson_api_types::gofmt::quote;
use keelson_api_types::meta;
use keelson_schema::{Shape, Type};
use serde_json::map::Entry;
use serde_json::{Map, Number, Value};

use crate::decode::DecodeError;
pub use encode::{encode, encode_item, list_head, watch_frame};

/// Self-described CBOR (RFC 8949, 3.4.6).
const SELF_DESCRIBED: u64 = 55_799;
const TIME_TEXT: u64 = 0;
const TIME_EPOCH: u64 = 1;
const BIGNUMS: [u64; 2] = [2, 3];
/// Expected later encodings (RFC 8949, 3.4.5.2).
const BASE64_URL: u64 = 21;
const BASE64: u64 = 22;
const BASE16: u64 = 23;
const FALSE: u8 = 20;
const TRUE: u8 = 21;
const NULL: u8 = 22;
/// What JSON bodies may nest, too: less than a stack bears.
const MAX_DEPTH: usize = 128;

/// Decodes a body that is one map as a type, or as it comes. Texts of errors are those of upstream's decoder.
pub fn decode(ty: Option<&Type>, body: &[u8]) -> Result<Value, DecodeError> {
    if body.is_empty() {
        return Err(malformed("EOF"));
    }
    let mut reader = Reader { decoder: Decoder::from(body), length: body.len(), depth: 0 };
    let value = reader.item(ty, None)?;
    let at = reader.decoder.offset();
    if at < body.len() {
        let rest = body.len() - at;
        return Err(malformed(format!("cbor: {rest} bytes of extraneous data starting at index {at}")));
    }
    let found = match value {
        Value::Object(_) | Value::Null => return Ok(value),
        Value::Array(_) => "array",
        Value::String(_) => "byte string",
        Value::Number(n) if n.is_u64() => "positive integer",
        Value::Number(n) if n.is_i64() => "negative integer",
        Value::Bool(_) | Value::Number(_) => "primitives",
    };
    Err(malformed(format!("cbor: cannot unmarshal {found} into Go value of type v1.TypeMeta")))
}

/// The type of a map's entry.
fn child<'a>(ty: Option<&'a Type>, key: &str) -> Option<&'a Type> {
    match &ty?.shape {
        Shape::Object(object) => object.field(key).map(|field| &*field.ty),
        Shape::Map(map) => Some(&map.value),
        _ => None,
    }
}

fn is_bytes(ty: Option<&Type>) -> bool {
    ty.is_some_and(|ty| matches!(ty.shape, Shape::Bytes))
}

/// Bytes that are no CBOR, or hold what no object may hold: nobody looks at what kind they are of.
fn malformed(problem: impl Into<String>) -> DecodeError {
    DecodeError::Cbor(problem.into())
}

/// Well-formed, but no value.
fn invalid(problem: impl Into<String>) -> DecodeError {
    DecodeError::Type(problem.into())
}

fn unacceptable(kind: &str, what: &str) -> String {
    format!("cbor: data item of cbor type {kind} is not accepted by protocol: {what}")
}

struct Reader<'a> {
    decoder: Decoder<&'a [u8]>,
    length: usize,
    depth: usize,
}

impl Reader<'_> {
    fn pull(&mut self) -> Result<Header, DecodeError> {
        self.decoder.pull().map_err(|error| match error {
            ciborium_ll::Error::Io(_) => malformed("unexpected EOF"),
            ciborium_ll::Error::Syntax(at) => malformed(format!("cbor: invalid initial byte at index {at}")),
        })
    }

    /// One data item; `later` is the text encoding that an enclosing tag expects of byte strings.
    fn item(&mut self, ty: Option<&Type>, later: Option<u64>) -> Result<Value, DecodeError> {
        let start = self.decoder.offset();
        let header = self.pull()?;
        self.value(header, start, ty, later)
    }

    fn value(
        &mut self,
        header: Header,
        start: usize,
        ty: Option<&Type>,
        later: Option<u64>,
    ) -> Result<Value, DecodeError> {
        match header {
            Header::Positive(n) => {
                i64::try_from(n).map(Value::from).map_err(|_| overflow("positive", n.into()))
            }
            Header::Negative(n) => {
                i64::try_from(n).map(|n| Value::from(!n)).map_err(|_| overflow("negative", !i128::from(n)))
            }
            Header::Float(f) => number(f).map(Value::Number),
            Header::Simple(n) => simple(n, self.decoder.offset() - start > 1),
            Header::Bytes(length) => {
                let bytes = self.string(length, false)?;
                text_of(bytes, if is_bytes(ty) { later.and(Some(BASE64)) } else { later }).map(Value::String)
            }
            Header::Text(_) if is_bytes(ty) => {
                Err(invalid("cbor: cannot unmarshal UTF-8 text string into Go value of type []uint8"))
            }
            Header::Text(length) => text_of(self.string(length, true)?, None).map(Value::String),
            Header::Array(length) => self.nested(|reader| reader.array(length, ty, later)),
            Header::Map(length) => self.nested(|reader| reader.map(length, ty, later)),
            Header::Tag(tag) => self.nested(|reader| reader.tagged(tag, ty, later)),
            Header::Break => Err(malformed("cbor: unexpected \"break\" code")),
        }
    }

    fn nested<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<T, DecodeError> {
        if self.depth == MAX_DEPTH {
            return Err(malformed(format!("cbor: exceeded max nested level {MAX_DEPTH}")));
        }
        self.depth += 1;
        let read = read(self);
        self.depth -= 1;
        read
    }

    /// The content of a string whose header has been read.
    fn string(&mut self, length: Option<usize>, is_text: bool) -> Result<Vec<u8>, DecodeError> {
        let mut out = Vec::new();
        let mut chunk = length;
        loop {
            if let Some(more) = chunk {
                if more > self.length - self.decoder.offset() {
                    return Err(malformed("unexpected EOF"));
                }
                let at = out.len();
                out.resize(at + more, 0);
                self.decoder.read_exact(&mut out[at..]).map_err(|_| malformed("unexpected EOF"))?;
            }
            if length.is_some() {
                return Ok(out);
            }
            chunk = match self.pull()? {
                Header::Break => return Ok(out),
                Header::Bytes(Some(more)) if !is_text => Some(more),
                Header::Text(Some(more)) if is_text => Some(more),
                _ => return Err(malformed("cbor: wrong element type for indefinite-length string")),
            };
        }
    }

    /// The header of an array's next element or a map's next key, and where it starts; `None` after the last.
    fn next(&mut self, left: &mut Option<usize>) -> Result<Option<(Header, usize)>, DecodeError> {
        match left {
            Some(0) => return Ok(None),
            Some(left) => *left -= 1,
            None => {}
        }
        let start = self.decoder.offset();
        match self.pull()? {
            Header::Break if left.is_none() => Ok(None),
            header => Ok(Some((header, start))),
        }
    }

    fn array(
        &mut self,
        mut left: Option<usize>,
        ty: Option<&Type>,
        later: Option<u64>,
    ) -> Result<Value, DecodeError> {
        let item = ty.and_then(Type::as_list).map(|list| &*list.item);
        let mut out = Vec::new();
        while let Some((header, start)) = self.next(&mut left)? {
            out.push(self.value(header, start, item, later)?);
        }
        Ok(Value::Array(out))
    }

    fn map(
        &mut self,
        mut left: Option<usize>,
        ty: Option<&Type>,
        later: Option<u64>,
    ) -> Result<Value, DecodeError> {
        let mut out = Map::new();
        while let Some((header, start)) = self.next(&mut left)? {
            let Value::String(key) = self.value(header, start, None, later)? else {
                return Err(invalid("cbor: cannot unmarshal a map key into Go value of type string"));
            };
            let value = self.item(child(ty, &key), later)?;
            let index = out.len();
            match out.entry(key) {
                Entry::Vacant(slot) => slot.insert(value),
                Entry::Occupied(slot) => {
                    let key = quote(slot.key());
                    let problem = format!("cbor: found duplicate map key {key} at map element index {index}");
                    // Below the outermost map and its tag, the kind has been understood.
                    return Err(if self.depth > 2 { invalid(problem) } else { malformed(problem) });
                }
            };
        }
        Ok(Value::Object(out))
    }

    fn tagged(&mut self, tag: u64, ty: Option<&Type>, later: Option<u64>) -> Result<Value, DecodeError> {
        match tag {
            TIME_TEXT | TIME_EPOCH => self.time(tag),
            BASE64_URL | BASE64 | BASE16 => self.item(ty, Some(tag)),
            _ if BIGNUMS.contains(&tag) => Err(malformed(unacceptable("tag", "bignum"))),
            _ => self.item(ty, later),
        }
    }

    fn time(&mut self, tag: u64) -> Result<Value, DecodeError> {
        let seconds = match (tag, self.pull()?) {
            (TIME_TEXT, Header::Text(length)) => {
                let text = text_of(self.string(length, true)?, None)?;
                return match meta::parse_time(&text) {
                    Some(_) => Ok(Value::String(text)),
                    None => Err(invalid(format!("cbor: cannot set {text} for time.Time"))),
                };
            }
            (TIME_TEXT, _) => return Err(malformed("cbor: tag number 0 must be followed by text string")),
            (_, Header::Positive(n)) => i64::try_from(n).ok().map(SignedDuration::from_secs),
            (_, Header::Negative(n)) => i64::try_from(n).ok().map(|n| SignedDuration::from_secs(!n)),
            (_, Header::Float(f)) => {
                number(f)?;
                SignedDuration::try_from_secs_f64(f).ok()
            }
            _ => {
                return Err(malformed(
                    "cbor: tag number 1 must be followed by integer or floating-point number",
                ));
            }
        };
        let time = seconds.and_then(|since| Timestamp::from_duration(since).ok());
        time.map(|time| Value::String(time.to_string()))
            .ok_or_else(|| invalid("cbor: decoded time cannot be represented in RFC3339 format"))
    }
}

fn overflow(sign: &str, n: i128) -> DecodeError {
    invalid(format!(
        "cbor: cannot unmarshal {sign} integer into Go value of type int64 ({n} overflows Go's int64)"
    ))
}

/// Infinities and what is no number have no JSON.
fn number(f: f64) -> Result<Number, DecodeError> {
    let what = if f.is_nan() { "floating-point NaN" } else { "floating-point infinity" };
    Number::from_f64(f).ok_or_else(|| malformed(unacceptable("primitives", what)))
}

/// `long` is the form with a byte of its own, which is for those from 32 on.
fn simple(n: u8, long: bool) -> Result<Value, DecodeError> {
    match n {
        ..32 if long => Err(malformed(format!("cbor: invalid simple value {n} for type primitives"))),
        FALSE | TRUE => Ok(Value::Bool(n == TRUE)),
        NULL => Ok(Value::Null),
        _ => Err(invalid(unacceptable("primitives", &format!("simple value {n} is not recognized")))),
    }
}

/// A string, in the text encoding that is expected of its bytes.
fn text_of(bytes: Vec<u8>, later: Option<u64>) -> Result<String, DecodeError> {
    match later {
        Some(BASE64_URL) => Ok(URL_SAFE_NO_PAD.encode(bytes)),
        Some(BASE64) => Ok(STANDARD.encode(bytes)),
        Some(BASE16) => Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect()),
        _ => String::from_utf8(bytes).map_err(|_| invalid("cbor: invalid UTF-8 string")),
    }
}

#[cfg(test)]
mod tests;
