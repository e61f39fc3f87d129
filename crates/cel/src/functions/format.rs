//! `string.format`: evaluated, and checked where the format and its arguments are literals.

use super::{Outcome, mismatch, text};
use crate::error::EvalError;
use crate::types::Type;
use crate::value::Value;
use crate::{number, time};
use std::fmt::Write;

const DEFAULT_PRECISION: usize = 6;
const MAX_PRECISION: usize = 1000;

enum Piece<'f> {
    Text(&'f str),
    Clause { verb: char, precision: Option<usize> },
}

pub(super) fn format<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::String(format), Value::List(args)] = args else { return mismatch() };
    let (mut out, mut next) = (String::new(), 0);
    for piece in pieces(format, args.len())? {
        match piece {
            Piece::Text(part) => out.push_str(part),
            Piece::Clause { verb, precision } => {
                let arg = args.get(next).unwrap_or(Ok(Value::Null))?;
                next += 1;
                let shown = clause(verb, precision, &arg);
                out.push_str(&shown.map_err(|e| EvalError::new(format!("error during formatting: {e}")))?);
            }
        }
        if out.len() > super::MAX_TEXT {
            return text(out);
        }
    }
    text(out)
}

/// What is wrong with a literal format, given its arguments' types.
pub(crate) fn check(format: &str, args: &[Type]) -> Result<(), String> {
    let mut next = 0;
    for piece in pieces(format, args.len()).map_err(|e| e.to_string())? {
        let Piece::Clause { verb, .. } = piece else { continue };
        let ty = &args[next];
        next += 1;
        let fits = match verb {
            's' => !matches!(ty, Type::Object(_) | Type::Opaque(_) | Type::Optional(_) | Type::Error),
            'd' | 'o' => matches!(ty, Type::Int | Type::Uint | Type::Dyn),
            'f' | 'e' => matches!(ty, Type::Double | Type::String | Type::Dyn),
            'b' => matches!(ty, Type::Int | Type::Uint | Type::Bool | Type::Dyn),
            _ => matches!(ty, Type::Int | Type::Uint | Type::String | Type::Bytes | Type::Dyn),
        };
        if !fits {
            return Err(format!("error during formatting: {}", wrong(verb, ty.runtime_name())));
        }
    }
    if args.len() > next {
        let given = args.len();
        return Err(format!("too many arguments supplied to string.format (expected {next}, got {given})"));
    }
    Ok(())
}

fn pieces(format: &str, args: usize) -> Result<Vec<Piece<'_>>, EvalError> {
    let bad = |why: &str| Err(EvalError::new(format!("could not parse formatting clause: {why}")));
    let (mut pieces, mut rest, mut clauses) = (Vec::new(), format, 0);
    while let Some(at) = rest.find('%') {
        pieces.push(Piece::Text(&rest[..at]));
        rest = &rest[at + 1..];
        if rest.starts_with('%') {
            pieces.push(Piece::Text(&rest[..1]));
            rest = &rest[1..];
            continue;
        }
        if clauses >= args {
            return Err(EvalError::new(format!("index {clauses} out of range")));
        }
        clauses += 1;
        if rest.is_empty() {
            return Err(EvalError::new("unexpected end of string"));
        }
        let mut precision = None;
        if let Some(digits) = rest.strip_prefix('.') {
            let Some(end) = digits.find(|c: char| !c.is_ascii_digit()) else {
                return bad("error while parsing precision: could not find end of precision specifier");
            };
            match digits[..end].parse() {
                Ok(count) if count <= MAX_PRECISION => precision = Some(count),
                _ => return bad("error while parsing precision: not a number in range"),
            }
            rest = &digits[end..];
        }
        let verb = rest.chars().next().unwrap_or_default();
        if !"sdfebxXo".contains(verb) {
            return bad(&format!("unrecognized formatting clause \"{verb}\""));
        }
        pieces.push(Piece::Clause { verb, precision });
        rest = &rest[1..];
    }
    pieces.push(Piece::Text(rest));
    Ok(pieces)
}

fn wrong(verb: char, ty: &str) -> String {
    let rule = match verb {
        's' => {
            "string clause can only be used on strings, bools, bytes, ints, doubles, maps, lists, types, \
             durations, and timestamps"
        }
        'd' => "decimal clause can only be used on integers",
        'f' => "fixed-point clause can only be used on doubles",
        'e' => "scientific clause can only be used on doubles",
        'b' => "only integers and bools can be formatted as binary",
        'o' => "octal clause can only be used on integers",
        _ => "only integers, byte buffers, and strings can be formatted as hex",
    };
    format!("{rule}, was given {ty}")
}

fn clause(verb: char, precision: Option<usize>, arg: &Value<'_>) -> Result<String, EvalError> {
    let signed = |value: i64, digits: String| if value < 0 { format!("-{digits}") } else { digits };
    Ok(match (verb, arg) {
        ('s', arg) => return shown(arg),
        ('d', Value::Int(_) | Value::Uint(_)) => arg.to_string(),
        ('b', Value::Bool(value)) => u8::from(*value).to_string(),
        ('b', Value::Int(value)) => signed(*value, format!("{:b}", value.unsigned_abs())),
        ('b', Value::Uint(value)) => format!("{value:b}"),
        ('o', Value::Int(value)) => signed(*value, format!("{:o}", value.unsigned_abs())),
        ('o', Value::Uint(value)) => format!("{value:o}"),
        ('x' | 'X', arg) => {
            let hex = match arg {
                Value::Int(value) => signed(*value, format!("{:x}", value.unsigned_abs())),
                Value::Uint(value) => format!("{value:x}"),
                Value::String(text) => hex(text.as_bytes()),
                Value::Bytes(bytes) => hex(bytes),
                other => return Err(EvalError::new(wrong(verb, &other.type_name()))),
            };
            if verb == 'X' { hex.to_uppercase() } else { hex }
        }
        ('f' | 'e', arg) => {
            let value = match arg {
                Value::Double(value) => *value,
                Value::String(text) => match &**text {
                    "NaN" => f64::NAN,
                    "Infinity" => f64::INFINITY,
                    "-Infinity" => f64::NEG_INFINITY,
                    _ => return Err(EvalError::new(wrong(verb, "string"))),
                },
                other => return Err(EvalError::new(wrong(verb, &other.type_name()))),
            };
            let decimals = precision.unwrap_or(DEFAULT_PRECISION);
            match number::special(value, "∞", "-∞") {
                Some(special) => special.to_owned(),
                None if verb == 'f' => grouped(&format!("{value:.decimals$}")),
                None => powered(&number::scientific(value, decimals)),
            }
        }
        (verb, other) => return Err(EvalError::new(wrong(verb, &other.type_name()))),
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// The whole part's thousands set apart by commas, as the locale `en_US` has it.
fn grouped(number: &str) -> String {
    let (whole, fraction) = number.split_once('.').map_or((number, None), |(w, f)| (w, Some(f)));
    let digits = whole.trim_start_matches('-');
    let mut out = String::from(if digits.len() < whole.len() { "-" } else { "" });
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    fraction.map_or(out.clone(), |fraction| format!("{out}.{fraction}"))
}

/// `1.5e+03` as `1.5×10⁰³`.
fn powered(number: &str) -> String {
    let Some((mantissa, exponent)) = number.split_once('e') else { return number.to_owned() };
    let power = exponent.chars().filter(|c| *c != '+').map(|c| match c {
        '-' => '⁻',
        '1' => '¹',
        '2' => '²',
        '3' => '³',
        digit => char::from_u32('⁰' as u32 + digit.to_digit(10).unwrap_or(0)).unwrap_or('⁰'),
    });
    format!("{mantissa}×10{}", power.collect::<String>())
}

fn shown(arg: &Value<'_>) -> Result<String, EvalError> {
    Ok(match arg {
        Value::List(list) => {
            let items = list.iter().map(|item| literal(&item?)).collect::<Result<Vec<_>, _>>()?;
            format!("[{}]", items.join(", "))
        }
        Value::Map(map) => {
            let mut entries = Vec::new();
            for key in map.keys() {
                let value = map.get(&key).unwrap_or(Ok(Value::Null))?;
                entries.push((literal(&key.to_value())?, literal(&value)?));
            }
            entries.sort();
            let entries: Vec<String> =
                entries.into_iter().map(|(key, value)| format!("{key}:{value}")).collect();
            format!("{{{}}}", entries.join(", "))
        }
        Value::Double(value) => number::general(*value, 6),
        Value::Bytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => text.to_owned(),
            Err(_) => return Err(EvalError::new("invalid UTF-8 in bytes, cannot convert to string")),
        },
        Value::Optional(_) | Value::Struct(_) | Value::Opaque(_) => {
            return Err(EvalError::new(wrong('s', &arg.type_name())));
        }
        scalar => scalar.to_string(),
    })
}

/// A value within a collection, as an expression would write it.
fn literal(value: &Value<'_>) -> Result<String, EvalError> {
    Ok(match value {
        Value::String(text) => format!("{:?}", &**text),
        Value::Bytes(_) => format!("b{:?}", shown(value)?),
        Value::Timestamp(at) => format!("timestamp({:?})", time::timestamp_text(*at)),
        Value::Duration(nanos) => format!("duration({:?})", time::duration_text(*nanos)),
        Value::Double(number) => match number::special(*number, "+Inf", "-Inf") {
            Some(special) => format!("{special:?}"),
            None => format!("{number:.6}"),
        },
        other => return shown(other),
    })
}
