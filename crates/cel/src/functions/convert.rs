//! Type conversions.

use super::{Outcome, Row, fail};
use crate::error::EvalError;
use crate::time::{FIRST_SECOND, LAST_SECOND};
use crate::value::{Opaque, Value};
use crate::{number, time};

pub(super) const ROWS: &[Row] = &[
    ("type", "type", "(A) -> type(A)", |a| Ok(Value::Type(a[0].type_name()))),
    ("dyn", "to_dyn", "(A) -> dyn", |a| Ok(a[0].clone())),
    ("bool", "bool_to_bool", "(bool) -> bool", |a| convert("bool", &a[0])),
    ("bool", "string_to_bool", "(string) -> bool", |a| convert("bool", &a[0])),
    ("bytes", "bytes_to_bytes", "(bytes) -> bytes", |a| convert("bytes", &a[0])),
    ("bytes", "string_to_bytes", "(string) -> bytes", |a| convert("bytes", &a[0])),
    ("double", "double_to_double", "(double) -> double", |a| convert("double", &a[0])),
    ("double", "int64_to_double", "(int) -> double", |a| convert("double", &a[0])),
    ("double", "string_to_double", "(string) -> double", |a| convert("double", &a[0])),
    ("double", "uint64_to_double", "(uint) -> double", |a| convert("double", &a[0])),
    ("duration", "duration_to_duration", "(duration) -> duration", |a| convert("duration", &a[0])),
    ("duration", "int64_to_duration", "(int) -> duration", |a| convert("duration", &a[0])),
    ("duration", "string_to_duration", "(string) -> duration", |a| convert("duration", &a[0])),
    ("int", "int64_to_int64", "(int) -> int", |a| convert("int", &a[0])),
    ("int", "double_to_int64", "(double) -> int", |a| convert("int", &a[0])),
    ("int", "duration_to_int64", "(duration) -> int", |a| convert("int", &a[0])),
    ("int", "string_to_int64", "(string) -> int", |a| convert("int", &a[0])),
    ("int", "timestamp_to_int64", "(timestamp) -> int", |a| convert("int", &a[0])),
    ("int", "uint64_to_int64", "(uint) -> int", |a| convert("int", &a[0])),
    ("string", "string_to_string", "(string) -> string", |a| convert("string", &a[0])),
    ("string", "bool_to_string", "(bool) -> string", |a| convert("string", &a[0])),
    ("string", "bytes_to_string", "(bytes) -> string", |a| convert("string", &a[0])),
    ("string", "double_to_string", "(double) -> string", |a| convert("string", &a[0])),
    ("string", "duration_to_string", "(duration) -> string", |a| convert("string", &a[0])),
    ("string", "int64_to_string", "(int) -> string", |a| convert("string", &a[0])),
    ("string", "timestamp_to_string", "(timestamp) -> string", |a| convert("string", &a[0])),
    ("string", "uint64_to_string", "(uint) -> string", |a| convert("string", &a[0])),
    ("string", "ip_to_string", "(ip) -> string", |a| convert("string", &a[0])),
    ("string", "cidr_to_string", "(cidr) -> string", |a| convert("string", &a[0])),
    ("timestamp", "timestamp_to_timestamp", "(timestamp) -> timestamp", |a| convert("timestamp", &a[0])),
    ("timestamp", "int64_to_timestamp", "(int) -> timestamp", |a| convert("timestamp", &a[0])),
    ("timestamp", "string_to_timestamp", "(string) -> timestamp", |a| convert("timestamp", &a[0])),
    ("uint", "uint64_to_uint64", "(uint) -> uint", |a| convert("uint", &a[0])),
    ("uint", "double_to_uint64", "(double) -> uint", |a| convert("uint", &a[0])),
    ("uint", "int64_to_uint64", "(int) -> uint", |a| convert("uint", &a[0])),
    ("uint", "string_to_uint64", "(string) -> uint", |a| convert("uint", &a[0])),
];

/// Converts a value to the type of a conversion function.
pub(crate) fn convert<'a>(to: &str, value: &Value<'a>) -> Outcome<'a> {
    let converted = match (to, value) {
        ("bool", Value::Bool(_))
        | ("bytes", Value::Bytes(_))
        | ("double", Value::Double(_))
        | ("duration", Value::Duration(_))
        | ("int", Value::Int(_))
        | ("string", Value::String(_))
        | ("timestamp", Value::Timestamp(_))
        | ("uint", Value::Uint(_)) => Some(value.clone()),
        ("bool", Value::String(text)) => match &**text {
            "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true.into()),
            "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false.into()),
            _ => None,
        },
        ("bytes", Value::String(text)) => Some(Value::Bytes(text.as_bytes().into())),
        ("double", Value::Int(int)) => Some(Value::Double(*int as f64)),
        ("double", Value::Uint(uint)) => Some(Value::Double(*uint as f64)),
        ("double", Value::String(text)) => text.trim_start_matches('+').parse().ok().map(Value::Double),
        ("duration", Value::Int(nanos)) => Some(Value::Duration(*nanos)),
        ("duration", Value::String(text)) => time::parse_duration(text).ok().map(Value::Duration),
        ("int", Value::Double(double)) => {
            return ranged(*double, -(2f64.powi(63)), 2f64.powi(63), |d| Value::Int(d as i64));
        }
        ("int", Value::Duration(nanos)) => Some(Value::Int(*nanos)),
        ("int", Value::String(text)) => text.parse().ok().map(Value::Int),
        ("int", Value::Timestamp(time)) => Some(Value::Int(time.as_second())),
        ("int", Value::Uint(uint)) => {
            let int = i64::try_from(*uint).map(Value::Int);
            return int.map_err(|_| EvalError::new("integer overflow"));
        }
        ("string", Value::Bytes(bytes)) => match std::str::from_utf8(bytes) {
            Ok(text) => Some(text.into()),
            Err(_) => return fail("invalid UTF-8 in bytes, cannot convert to string"),
        },
        ("string", Value::Double(double)) => Some(number::general(*double, 6).into()),
        (
            "string",
            Value::Bool(_) | Value::Int(_) | Value::Uint(_) | Value::Duration(_) | Value::Timestamp(_),
        ) => Some(value.to_string().into()),
        ("string", Value::Opaque(value @ (Opaque::Ip(_) | Opaque::Cidr(_)))) => Some(value.text().into()),
        ("timestamp", Value::Int(second)) if (FIRST_SECOND..=LAST_SECOND).contains(second) => {
            jiff::Timestamp::from_second(*second).ok().map(Value::Timestamp)
        }
        ("timestamp", Value::Int(_)) => return fail("timestamp overflow"),
        ("timestamp", Value::String(text)) => time::parse_timestamp(text).map(Value::Timestamp),
        ("uint", Value::Double(double)) => {
            return ranged(*double, -1.0, 2f64.powi(64), |d| Value::Uint(d as u64));
        }
        ("uint", Value::Int(int)) => {
            let uint = u64::try_from(*int).map(Value::Uint);
            return uint.map_err(|_| EvalError::new("unsigned integer overflow"));
        }
        ("uint", Value::String(text)) => text.parse().ok().map(Value::Uint),
        _ => None,
    };
    let to = match to {
        "duration" => "google.protobuf.Duration",
        "timestamp" => "google.protobuf.Timestamp",
        to => to,
    };
    converted.ok_or_else(|| {
        EvalError::new(format!("type conversion error from '{}' to '{to}'", value.type_name()))
    })
}

/// A double within bounds, both exclusive.
fn ranged<'a>(double: f64, above: f64, below: f64, make: fn(f64) -> Value<'static>) -> Outcome<'a> {
    if double.is_finite() && double > above && double < below {
        return Ok(make(double));
    }
    fail(if above < -1.0 { "integer overflow" } else { "unsigned integer overflow" })
}
