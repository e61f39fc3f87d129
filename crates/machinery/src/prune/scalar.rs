//! Scalars: their JSON type checked, their text brought into the form in which the API returns it.

use super::go_type;
use crate::decode::DecodeError;
use crate::path::Path;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use keelson_api_types::gofmt::quote;
use keelson_api_types::{duration, meta, quantity};
use keelson_schema::{Object, Shape, Type};
use serde_json::Value;

/// What is wrong with a scalar.
pub(super) enum Problem {
    /// The JSON type, in Go's words (`string`, `number 1.5`).
    Type(String),
    /// The text, with the whole message.
    Text(String),
}

impl Problem {
    pub(super) fn at(self, ty: &Type, owner: Option<&Object>, path: &Path<'_>, go: &str) -> DecodeError {
        DecodeError::Type(match self {
            Problem::Text(message) => message,
            Problem::Type(found) => {
                let wanted = go_type(ty, if is_text(ty) { "" } else { go });
                match owner {
                    Some(o) => format!(
                        "json: cannot unmarshal {found} into Go struct field {}.{} of type {wanted}",
                        o.go_struct(),
                        path.fields()
                    ),
                    None => format!("json: cannot unmarshal {found} into Go value of type {wanted}"),
                }
            }
        })
    }
}

fn is_text(ty: &Type) -> bool {
    matches!(ty.shape, Shape::Time | Shape::MicroTime | Shape::Duration | Shape::IntOrString)
}

/// Checks a value against a scalar type and rewrites it if its canonical form differs.
pub(super) fn normalise(ty: &Type, value: &mut Value) -> Result<(), Problem> {
    match (&ty.shape, &*value) {
        (Shape::String, Value::String(_))
        | (Shape::Bool, Value::Bool(_))
        | (Shape::Float, Value::Number(_)) => Ok(()),
        (Shape::Int64, Value::Number(n)) if n.is_i64() => Ok(()),
        (Shape::Int32 | Shape::IntOrString, Value::Number(n))
            if n.as_i64().is_some_and(|n| i32::try_from(n).is_ok()) =>
        {
            Ok(())
        }
        (Shape::Int32 | Shape::Int64 | Shape::IntOrString, Value::Number(n)) => {
            Err(Problem::Type(format!("number {n}")))
        }
        (Shape::IntOrString, Value::String(_)) => Ok(()),
        (Shape::Bytes, Value::String(s)) => replace(base64(s)?, value),
        (Shape::Quantity, Value::String(s)) => replace(quantity_text(s.trim())?, value),
        (Shape::Quantity, Value::Number(n)) => {
            replace(Some(quantity_text(&n.to_string())?.unwrap_or_else(|| n.to_string())), value)
        }
        (Shape::Quantity, other) => {
            // Upstream parses whatever text stands there, so the complaint is about its form.
            quantity_text(&other.to_string()).map(|_| ())
        }
        (Shape::Time, Value::String(s)) => replace(time(s, false)?, value),
        (Shape::MicroTime, Value::String(s)) => replace(time(s, true)?, value),
        (Shape::Duration, Value::String(s)) => match duration::parse_go(s) {
            Some(_) => Ok(()),
            None => Err(Problem::Text(format!("time: invalid duration {}", quote(s)))),
        },
        (_, other) => Err(Problem::Type(kind(other).to_owned())),
    }
}

fn replace(new: Option<String>, value: &mut Value) -> Result<(), Problem> {
    if let Some(new) = new {
        *value = Value::String(new);
    }
    Ok(())
}

/// The canonical text if it differs.
fn quantity_text(text: &str) -> Result<Option<String>, Problem> {
    let canonical = quantity::canonical(text).map_err(|e| Problem::Text(e.to_string()))?;
    Ok(if canonical == text { None } else { Some(canonical) })
}

/// Go's decoder skips line breaks inside base64.
fn base64(text: &str) -> Result<Option<String>, Problem> {
    let clean = text.contains(['\n', '\r']).then(|| text.replace(['\n', '\r'], ""));
    STANDARD.decode(clean.as_deref().unwrap_or(text)).map_err(|e| {
        let at = match e {
            base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _) => at,
            _ => text.len() / 4 * 4,
        };
        Problem::Text(format!("illegal base64 data at input byte {at}"))
    })?;
    Ok(clean)
}

fn time(text: &str, micro: bool) -> Result<Option<String>, Problem> {
    // The usual form is canonical already: digits and separators in place, in UTC.
    if is_canonical_time(text, micro) {
        return Ok(None);
    }
    let layout = if micro { "2006-01-02T15:04:05.000000Z07:00" } else { "2006-01-02T15:04:05Z07:00" };
    let parsed = meta::parse_time(text).ok_or_else(|| {
        let (text, layout) = (quote(text), quote(layout));
        Problem::Text(format!("parsing time {text} as {layout}: cannot parse {text} as \"2006\""))
    })?;
    Ok(Some(if micro { meta::micro(parsed) } else { meta::rfc3339(parsed) }))
}

fn is_canonical_time(text: &str, micro: bool) -> bool {
    let pattern: &[u8] = if micro { b"dddd-dd-ddTdd:dd:dd.ddddddZ" } else { b"dddd-dd-ddTdd:dd:ddZ" };
    let fits = |(b, p): (&u8, &u8)| if *p == b'd' { b.is_ascii_digit() } else { b == p };
    text.len() == pattern.len()
        && text.as_bytes().iter().zip(pattern).all(fits)
        && meta::parse_time(text).is_some()
}

/// What Go's decoder calls a JSON value.
pub fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
