//! JSON and YAML into values, with the duplicate keys that strict decoding refuses.

pub mod strict;
mod syntax;

use keelson_api_types::gofmt::quote;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::Spanned;
use std::cell::RefCell;
use std::fmt;

/// Why bytes are no object of the type wanted. Texts are upstream's, so that they can go into a Status.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("couldn't get version/kind; json parse error: {0}")]
    Json(String),
    #[error("unable to determine group/version/kind: {0}")]
    Cbor(String),
    #[error("yaml: {0}")]
    Yaml(String),
    /// A value of the wrong JSON type, or one whose text is malformed.
    #[error("{0}")]
    Type(String),
    /// Unknown or duplicate fields under strict validation, all of them.
    #[error("strict decoding error: {}", .0.join(", "))]
    Strict(Vec<String>),
}

impl DecodeError {
    /// The text of the 400 that a request with such a body gets, if the body is to be of this kind.
    pub fn request_message(&self, version: &str, kind: &str, body: &[u8]) -> String {
        match self {
            DecodeError::Json(_) | DecodeError::Cbor(_) | DecodeError::Yaml(_) => format!(
                "the object provided is unrecognized (must be of type {kind}): {self} ({})",
                summary(body)
            ),
            _ => format!("{kind} in version {} cannot be handled as a {kind}: {self}", quote(version)),
        }
    }
}

/// The beginning of a body, as hexadecimal digits unless it looks like JSON.
fn summary(body: &[u8]) -> String {
    const SHOWN: usize = 30;
    if body.is_empty() {
        return "<empty>".to_owned();
    }
    let start = &body[..body.len().min(SHOWN)];
    let text = match body[0] {
        b'{' => String::from_utf8_lossy(start).into_owned(),
        _ => start.iter().map(|byte| format!("{byte:02x}")).collect(),
    };
    if body.len() > SHOWN { format!("{text} ...") } else { text }
}

/// A warning for each thing that a problem of strict decoding says: those of YAML come as one text.
pub fn warnings(problems: Vec<String>) -> Vec<String> {
    let one = |problem: String| match problem.strip_prefix("yaml: unmarshal errors:\n") {
        Some(lines) => lines.lines().map(|line| line.trim().to_owned()).collect(),
        None => vec![problem],
    };
    problems.into_iter().flat_map(one).collect()
}

/// Decodes one JSON value; beside it the duplicate keys, each as upstream's `duplicate field "spec.a"`.
pub fn json_strict(bytes: &[u8]) -> Result<(Value, Vec<String>), DecodeError> {
    let duplicates = RefCell::new(Vec::new());
    let mut de = serde_json::Deserializer::from_slice(bytes);
    let value = Json(&duplicates).deserialize(&mut de).map_err(|e| json_error(&e, bytes))?;
    de.end().map_err(|e| json_error(&e, bytes))?;
    let messages =
        duplicates.into_inner().into_iter().map(|path| format!("duplicate field {}", quote(&path)));
    Ok((value, messages.collect()))
}

/// Decodes one YAML document (or JSON, which YAML contains); duplicate keys come as one message with lines.
pub fn yaml(bytes: &[u8]) -> Result<(Value, Vec<String>), DecodeError> {
    let text = std::str::from_utf8(bytes).map_err(|e| DecodeError::Yaml(format!("invalid UTF-8: {e}")))?;
    let duplicates = RefCell::new(Vec::new());
    let value = serde_saphyr::with_deserializer_from_str_with_options(text, yaml_options(text), |de| {
        Yaml(&duplicates).deserialize(de)
    })
    .map_err(|e| DecodeError::Yaml(e.to_string()))?;
    let lines = duplicates.into_inner();
    let message = format!("yaml: unmarshal errors:\n  {}", lines.join("\n  "));
    Ok((value, if lines.is_empty() { Vec::new() } else { vec![message] }))
}

/// Decodes every document of a YAML stream; empty documents are left out. For files given to clients.
pub fn yaml_documents(text: &str) -> Result<Vec<Value>, DecodeError> {
    let documents: Vec<Document> = serde_saphyr::from_multiple_with_options(text, yaml_options(text))
        .map_err(|e| DecodeError::Yaml(e.to_string()))?;
    Ok(documents.into_iter().map(|d| d.0).filter(|v| !v.is_null()).collect())
}

struct Document(Value);

impl<'de> serde::Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(de: D) -> Result<Document, D::Error> {
        Yaml(&RefCell::new(Vec::new())).deserialize(de).map(Document)
    }
}

/// What is written out may be of any length; what aliases add to it is bounded, and so is the depth, which takes stack.
fn yaml_options(text: &str) -> serde_saphyr::Options {
    let (written, nodes) = (text.len(), 250_000 + text.len() / 2);
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_reader_input_bytes: None,
            max_documents: written,
            max_nodes: nodes,
            max_events: 4 * nodes,
            max_total_scalar_bytes: written + (4 << 20),
            enforce_alias_anchor_ratio: false,
        },
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::PassThrough,
        legacy_octal_numbers: true,
        with_snippet: false,
    }
}

fn json_error(e: &serde_json::Error, bytes: &[u8]) -> DecodeError {
    DecodeError::Json(syntax::complaint(bytes).unwrap_or_else(|| e.to_string()))
}

/// Builds a value from JSON; duplicates are collected as paths relative to this value and completed by the
/// callers on the way up, so that a clean document pays nothing for them.
#[derive(Clone, Copy)]
struct Json<'a>(&'a RefCell<Vec<String>>);

impl<'de> DeserializeSeed<'de> for Json<'_> {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, de: D) -> Result<Value, D::Error> {
        de.deserialize_any(self)
    }
}

macro_rules! visit_scalars {
    () => {
        fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
            f.write_str("any value")
        }
        fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
            Ok(Value::Bool(v))
        }
        fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
            Ok(Value::Number(v.into()))
        }
        fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
            Ok(Value::Number(v.into()))
        }
        fn visit_f64<E: serde::de::Error>(self, v: f64) -> Result<Value, E> {
            Number::from_f64(v).map(Value::Number).ok_or_else(|| E::custom("number out of range"))
        }
        fn visit_str<E>(self, v: &str) -> Result<Value, E> {
            Ok(Value::String(v.to_owned()))
        }
        fn visit_string<E>(self, v: String) -> Result<Value, E> {
            Ok(Value::String(v))
        }
        fn visit_unit<E>(self) -> Result<Value, E> {
            Ok(Value::Null)
        }
        fn visit_none<E>(self) -> Result<Value, E> {
            Ok(Value::Null)
        }
        fn visit_some<D: Deserializer<'de>>(self, de: D) -> Result<Value, D::Error> {
            self.deserialize(de)
        }
    };
}

impl<'de> Visitor<'de> for Json<'_> {
    type Value = Value;
    visit_scalars!();

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut out = Vec::with_capacity(seq.size_hint().unwrap_or(0));
        loop {
            let before = self.0.borrow().len();
            let Some(value) = seq.next_element_seed(self)? else { return Ok(Value::Array(out)) };
            self.prefix(before, || format!("[{}]", out.len()));
            out.push(value);
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut out = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            let before = self.0.borrow().len();
            let value = map.next_value_seed(self)?;
            self.prefix(before, || key.clone());
            match out.entry(key) {
                serde_json::map::Entry::Vacant(slot) => {
                    slot.insert(value);
                }
                serde_json::map::Entry::Occupied(mut slot) => {
                    if !self.0.borrow().contains(slot.key()) {
                        self.0.borrow_mut().push(slot.key().clone());
                    }
                    slot.insert(value);
                }
            }
        }
        Ok(Value::Object(out))
    }
}

impl Json<'_> {
    /// Puts a step in front of the paths found since `before`.
    fn prefix(&self, before: usize, step: impl Fn() -> String) {
        for path in self.0.borrow_mut().iter_mut().skip(before) {
            let dot = if path.starts_with('[') { "" } else { "." };
            *path = format!("{}{dot}{path}", step());
        }
    }
}

#[derive(Clone, Copy)]
struct Yaml<'a>(&'a RefCell<Vec<String>>);

impl<'de> DeserializeSeed<'de> for Yaml<'_> {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, de: D) -> Result<Value, D::Error> {
        de.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Yaml<'_> {
    type Value = Value;
    visit_scalars!();

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut out = Vec::new();
        while let Some(value) = seq.next_element_seed(self)? {
            out.push(value);
        }
        Ok(Value::Array(out))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut out = Map::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            let value = map.next_value_seed(self)?;
            if out.contains_key(&key.value) {
                let line = key.referenced.line();
                self.0
                    .borrow_mut()
                    .push(format!("line {line}: key {} already set in map", quote(&key.value)));
            }
            if key.value.len() > 1 << 20 {
                return Err(A::Error::custom("key too long"));
            }
            out.insert(key.value, value);
        }
        Ok(Value::Object(out))
    }
}
