//! JSON into values by a declared type, and values into JSON.

use super::{Items, Key, List, Map, Text, Value};
use crate::declare::{Declared, Shape};
use crate::error::EvalError;
use crate::{number, time};
use base64::Engine;
use serde_json::Value as Json;

impl<'a> Value<'a> {
    /// JSON as it is: integers are `int`, other numbers `double`, objects maps.
    pub fn from_json(json: &'a Json) -> Value<'a> {
        match json {
            Json::Null => Value::Null,
            Json::Bool(value) => Value::Bool(*value),
            Json::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(int), _) => Value::Int(int),
                (_, Some(uint)) => Value::Uint(uint),
                _ => Value::Double(number.as_f64().unwrap_or_default()),
            },
            Json::String(text) => Value::borrowed(text),
            Json::Array(items) => Value::List(List { items: Items::Json(items), declared: None }),
            Json::Object(entries) => {
                Value::Map(Map { entries: super::Entries::Json(entries), declared: None })
            }
        }
    }

    /// JSON read by its declared type.
    ///
    /// # Errors
    /// When it is not of that type.
    pub fn from_json_as(json: &'a Json, declared: &'a Declared) -> Result<Value<'a>, EvalError> {
        Value::read(json, Some(declared))
    }

    pub(super) fn read(json: &'a Json, declared: Option<&'a Declared>) -> Result<Value<'a>, EvalError> {
        let Some(declared) = declared else { return Ok(Value::from_json(json)) };
        let wrong = |expected: &str| {
            Err(EvalError::new(format!("invalid data, expected {expected}, got {}", go_type(json))))
        };
        Ok(match (&declared.shape, json) {
            (Shape::Dyn | Shape::Other(_), json) => Value::from_json(json),
            (_, Json::Null) if declared.nullable => Value::Null,
            (_, Json::Null) => {
                return Err(EvalError::new("invalid data, got null for schema with nullable=false"));
            }
            (Shape::Bool, Json::Bool(value)) => Value::Bool(*value),
            (Shape::Bool, _) => return wrong("bool"),
            (Shape::Int, Json::Number(number)) => match number::whole(number) {
                Some(int) => Value::Int(int),
                None => return wrong("int"),
            },
            (Shape::Int, _) => return wrong("int"),
            (Shape::Double, Json::Number(number)) => Value::Double(number.as_f64().unwrap_or_default()),
            (Shape::Double, _) => return wrong("float"),
            (Shape::IntOrString, Json::String(text)) => Value::borrowed(text),
            (Shape::IntOrString, Json::Number(number)) if number.is_i64() => {
                Value::Int(number.as_i64().unwrap_or_default())
            }
            (Shape::IntOrString, _) => {
                let message = "invalid data, expected XIntOrString value to be either a string or integer";
                return Err(EvalError::new(message));
            }
            (Shape::List(..), Json::Array(items)) => {
                Value::List(List { items: Items::Json(items), declared: Some(declared) })
            }
            (Shape::List(..), _) => {
                let message = "invalid data, expected an array for the provided schema with type=array";
                return Err(EvalError::new(message));
            }
            (Shape::Map(_) | Shape::Object(_), Json::Object(entries)) => {
                Value::Map(Map { entries: super::Entries::Json(entries), declared: Some(declared) })
            }
            (Shape::Map(_) | Shape::Object(_), _) => {
                let message = "invalid data, expected a map for the provided schema with type=object";
                return Err(EvalError::new(message));
            }
            (shape, Json::String(text)) => return read_string(shape, text),
            _ => return wrong("string"),
        })
    }

    /// The value as JSON: bytes as base64, times as RFC 3339, optionals as what they hold.
    ///
    /// # Errors
    /// When the value is of a type that JSON does not have, or a map's key is not a string.
    pub fn to_json(&self) -> Result<Json, EvalError> {
        let wrong = || EvalError::new(format!("type conversion error from '{}' to JSON", self.type_name()));
        Ok(match self {
            Value::Null | Value::Optional(None) => Json::Null,
            Value::Optional(Some(value)) => value.to_json()?,
            Value::Bool(value) => (*value).into(),
            Value::Int(value) => (*value).into(),
            Value::Uint(value) => (*value).into(),
            Value::Double(value) => {
                serde_json::Number::from_f64(*value).map(Json::Number).ok_or_else(wrong)?
            }
            Value::String(text) => (&**text).into(),
            Value::Bytes(bytes) => base64::engine::general_purpose::STANDARD.encode(bytes).into(),
            Value::Duration(nanos) => time::duration_text(*nanos).into(),
            Value::Timestamp(time) => time::timestamp_text(*time).into(),
            Value::List(list) => list.iter().map(|item| item?.to_json()).collect::<Result<_, _>>()?,
            Value::Map(map) => {
                if let (super::Entries::Json(entries), Some(_)) = (&map.entries, map.declared) {
                    return Ok(Json::Object((*entries).clone()));
                }
                let mut object = serde_json::Map::new();
                for key in map.keys() {
                    let value = map.get(&key).unwrap_or(Ok(Value::Null))?.to_json()?;
                    let Key::String(name) = key else {
                        let value = key.to_value();
                        let message =
                            format!("map key {value:?} is of type {}, not string", value.type_name());
                        return Err(EvalError::new(message));
                    };
                    object.insert(name.to_string(), value);
                }
                Json::Object(object)
            }
            Value::Struct(value) => {
                let fields =
                    value.fields.iter().map(|(name, value)| Ok((name.to_string(), value.to_json()?)));
                Json::Object(fields.collect::<Result<_, EvalError>>()?)
            }
            Value::Opaque(super::Opaque::Quantity(quantity)) => quantity.to_string().into(),
            Value::Type(_) | Value::Opaque(_) => return Err(wrong()),
        })
    }
}

fn read_string<'a>(shape: &Shape, text: &'a str) -> Result<Value<'a>, EvalError> {
    let invalid = |what: &str, why: String| EvalError::new(format!("Invalid {what} {text}: {why}"));
    Ok(match shape {
        Shape::Duration => {
            Value::Duration(time::parse_duration(text).map_err(|e| invalid("duration", e.to_string()))?)
        }
        Shape::Date => {
            let time = format!("{text}T00:00:00Z").parse();
            Value::Timestamp(time.map_err(|e: jiff::Error| invalid("date formatted string", e.to_string()))?)
        }
        Shape::DateTime => Value::Timestamp(
            text.parse().map_err(|e: jiff::Error| invalid("date-time formatted string", e.to_string()))?,
        ),
        Shape::Bytes => {
            let bytes = base64::engine::general_purpose::STANDARD.decode(text);
            Value::Bytes(bytes.map_err(|e| invalid("byte formatted string", e.to_string()))?.into())
        }
        _ => Value::String(Text::Borrowed(text)),
    })
}

/// What upstream's messages call a JSON value's type.
fn go_type(json: &Json) -> &'static str {
    match json {
        Json::Null => "<nil>",
        Json::Bool(_) => "bool",
        Json::Number(number) if number.is_f64() => "float64",
        Json::Number(_) => "int64",
        Json::String(_) => "string",
        Json::Array(_) => "[]interface {}",
        Json::Object(_) => "map[string]interface {}",
    }
}
