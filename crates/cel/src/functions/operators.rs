//! Operators. Those that look at their operands one after the other are the evaluator's own.

use super::{Call, Outcome, Row, fail, mismatch};
use crate::error::EvalError;
use crate::time::{FIRST_SECOND, LAST_SECOND};
use crate::value::{Key, Value};
use std::cmp::Ordering;

pub(super) const ROWS: &[Row] = &[
    ("_?_:_", "conditional", "(bool, A, A) -> A", own),
    ("_&&_", "logical_and", "(bool, bool) -> bool", own),
    ("_||_", "logical_or", "(bool, bool) -> bool", own),
    ("!_", "logical_not", "(bool) -> bool", not),
    ("@not_strictly_false", "not_strictly_false", "(bool) -> bool", |a| Ok(a[0].clone())),
    ("_==_", "equals", "(A, A) -> bool", |a| Ok(a[0].equals(&a[1]).into())),
    ("_!=_", "not_equals", "(A, A) -> bool", |a| Ok((!a[0].equals(&a[1])).into())),
    ("_+_", "add_bytes", "(bytes, bytes) -> bytes", add),
    ("_+_", "add_double", "(double, double) -> double", add),
    ("_+_", "add_duration_duration", "(duration, duration) -> duration", add),
    ("_+_", "add_duration_timestamp", "(duration, timestamp) -> timestamp", add),
    ("_+_", "add_timestamp_duration", "(timestamp, duration) -> timestamp", add),
    ("_+_", "add_int64", "(int, int) -> int", add),
    ("_+_", "add_list", "(list(A), list(A)) -> list(A)", add),
    ("_+_", "add_string", "(string, string) -> string", add),
    ("_+_", "add_uint64", "(uint, uint) -> uint", add),
    ("_/_", "divide_double", "(double, double) -> double", divide),
    ("_/_", "divide_int64", "(int, int) -> int", divide),
    ("_/_", "divide_uint64", "(uint, uint) -> uint", divide),
    ("_%_", "modulo_int64", "(int, int) -> int", modulo),
    ("_%_", "modulo_uint64", "(uint, uint) -> uint", modulo),
    ("_*_", "multiply_double", "(double, double) -> double", multiply),
    ("_*_", "multiply_int64", "(int, int) -> int", multiply),
    ("_*_", "multiply_uint64", "(uint, uint) -> uint", multiply),
    ("-_", "negate_double", "(double) -> double", negate),
    ("-_", "negate_int64", "(int) -> int", negate),
    ("_-_", "subtract_double", "(double, double) -> double", subtract),
    ("_-_", "subtract_duration_duration", "(duration, duration) -> duration", subtract),
    ("_-_", "subtract_int64", "(int, int) -> int", subtract),
    ("_-_", "subtract_timestamp_duration", "(timestamp, duration) -> timestamp", subtract),
    ("_-_", "subtract_timestamp_timestamp", "(timestamp, timestamp) -> duration", subtract),
    ("_-_", "subtract_uint64", "(uint, uint) -> uint", subtract),
    ("_[_]", "index_list", "(list(A), int) -> A", own),
    ("_[_]", "index_map", "(map(A, B), A) -> B", own),
    ("_[_]", "optional_list_index_int", "(optional(list(V)), int) -> optional(V)", own),
    ("_[_]", "optional_map_index_value", "(optional(map(K, V)), K) -> optional(V)", own),
    ("_[?_]", "list_optindex_optional_int", "(list(V), int) -> optional(V)", own),
    ("_[?_]", "optional_list_optindex_optional_int", "(optional(list(V)), int) -> optional(V)", own),
    ("_[?_]", "map_optindex_optional_value", "(map(K, V), K) -> optional(V)", own),
    ("_[?_]", "optional_map_optindex_optional_value", "(optional(map(K, V)), K) -> optional(V)", own),
    ("_?._", "select_optional_field", "(dyn, string) -> optional(V)", own),
    ("@in", "in_list", "(A, list(A)) -> bool", contains),
    ("@in", "in_map", "(A, map(A, B)) -> bool", contains),
    ("size", "size_bytes", "(bytes) -> int", size),
    ("size", "bytes_size", "bytes.() -> int", size),
    ("size", "size_list", "(list(A)) -> int", size),
    ("size", "list_size", "list(A).() -> int", size),
    ("size", "size_map", "(map(A, B)) -> int", size),
    ("size", "map_size", "map(A, B).() -> int", size),
    ("size", "size_string", "(string) -> int", size),
    ("size", "string_size", "string.() -> int", size),
    ("cel.@mapInsert", "@mapInsert_map_key_value", "(map(K, V), K, V) -> map(K, V)", insert),
    ("cel.@mapInsert", "@mapInsert_map_map", "(map(K, V), map(K, V)) -> map(K, V)", insert_all),
];

/// Declares `<`, `<=`, `>` and `>=`: within each comparable type, and across numbers.
pub(super) fn comparisons(declare: &mut impl FnMut(&str, &str, &str, Call)) {
    const TYPES: [(&str, &str); 14] = [
        ("bool", "bool, bool"),
        ("int64", "int, int"),
        ("int64_double", "int, double"),
        ("int64_uint64", "int, uint"),
        ("uint64", "uint, uint"),
        ("uint64_double", "uint, double"),
        ("uint64_int64", "uint, int"),
        ("double", "double, double"),
        ("double_int64", "double, int"),
        ("double_uint64", "double, uint"),
        ("string", "string, string"),
        ("bytes", "bytes, bytes"),
        ("timestamp", "timestamp, timestamp"),
        ("duration", "duration, duration"),
    ];
    let operators: [(&str, &str, Call); 4] = [
        ("_<_", "less", |a| Ok((a[0].compare(&a[1])? == Ordering::Less).into())),
        ("_<=_", "less_equals", |a| Ok((a[0].compare(&a[1])? != Ordering::Greater).into())),
        ("_>_", "greater", |a| Ok((a[0].compare(&a[1])? == Ordering::Greater).into())),
        ("_>=_", "greater_equals", |a| Ok((a[0].compare(&a[1])? != Ordering::Less).into())),
    ];
    for (function, name, call) in operators {
        for (types, args) in TYPES {
            declare(function, &format!("{name}_{types}"), &format!("({args}) -> bool"), call);
        }
    }
}

/// Declared for the checker; never called.
fn own<'a>(_: &[Value<'a>]) -> Outcome<'a> {
    mismatch()
}

fn not<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    args[0].as_bool().map_or_else(mismatch, |b| Ok((!b).into()))
}

fn integer<'a>(result: Option<i64>) -> Outcome<'a> {
    result.map(Value::Int).ok_or_else(|| EvalError::new("integer overflow"))
}

fn unsigned<'a>(result: Option<u64>) -> Outcome<'a> {
    result.map(Value::Uint).ok_or_else(|| EvalError::new("unsigned integer overflow"))
}

fn duration<'a>(result: Option<i64>) -> Outcome<'a> {
    result.map(Value::Duration).ok_or_else(|| EvalError::new("duration overflow"))
}

fn shift<'a>(time: jiff::Timestamp, nanos: Option<i64>) -> Outcome<'a> {
    nanos
        .and_then(|n| time.checked_add(jiff::SignedDuration::from_nanos(n)).ok())
        .filter(|time| (FIRST_SECOND..=LAST_SECOND).contains(&time.as_second()))
        .map(Value::Timestamp)
        .ok_or_else(|| EvalError::new("timestamp overflow"))
}

pub(crate) fn add<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Int(a), Value::Int(b)] => integer(a.checked_add(*b)),
        [Value::Uint(a), Value::Uint(b)] => unsigned(a.checked_add(*b)),
        [Value::Double(a), Value::Double(b)] => Ok(Value::Double(a + b)),
        [Value::String(a), Value::String(b)] => super::text(format!("{}{}", &**a, &**b)),
        [Value::Bytes(a), Value::Bytes(b)] if a.len() + b.len() > super::MAX_TEXT => {
            fail("bytes are too long")
        }
        [Value::Bytes(a), Value::Bytes(b)] => Ok(Value::Bytes([&**a, &**b].concat().into())),
        [Value::Duration(a), Value::Duration(b)] => duration(a.checked_add(*b)),
        [Value::Timestamp(t), Value::Duration(d)] | [Value::Duration(d), Value::Timestamp(t)] => {
            shift(*t, Some(*d))
        }
        [Value::List(a), Value::List(b)] => a.concat(b).map(Value::List),
        _ => mismatch(),
    }
}

fn subtract<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Int(a), Value::Int(b)] => integer(a.checked_sub(*b)),
        [Value::Uint(a), Value::Uint(b)] => unsigned(a.checked_sub(*b)),
        [Value::Double(a), Value::Double(b)] => Ok(Value::Double(a - b)),
        [Value::Duration(a), Value::Duration(b)] => duration(a.checked_sub(*b)),
        [Value::Timestamp(t), Value::Duration(d)] => shift(*t, d.checked_neg()),
        [Value::Timestamp(a), Value::Timestamp(b)] => {
            duration(i64::try_from(a.duration_since(*b).as_nanos()).ok())
        }
        _ => mismatch(),
    }
}

fn multiply<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Int(a), Value::Int(b)] => integer(a.checked_mul(*b)),
        [Value::Uint(a), Value::Uint(b)] => unsigned(a.checked_mul(*b)),
        [Value::Double(a), Value::Double(b)] => Ok(Value::Double(a * b)),
        _ => mismatch(),
    }
}

fn divide<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Int(_), Value::Int(0)] | [Value::Uint(_), Value::Uint(0)] => fail("division by zero"),
        [Value::Int(a), Value::Int(b)] => integer(a.checked_div(*b)),
        [Value::Uint(a), Value::Uint(b)] => Ok(Value::Uint(a / b)),
        [Value::Double(a), Value::Double(b)] => Ok(Value::Double(a / b)),
        _ => mismatch(),
    }
}

fn modulo<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Int(_), Value::Int(0)] | [Value::Uint(_), Value::Uint(0)] => fail("modulus by zero"),
        [Value::Int(a), Value::Int(b)] => integer(a.checked_rem(*b)),
        [Value::Uint(a), Value::Uint(b)] => Ok(Value::Uint(a % b)),
        _ => mismatch(),
    }
}

fn negate<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Int(a)] => integer(a.checked_neg()),
        [Value::Double(a)] => Ok(Value::Double(-a)),
        _ => mismatch(),
    }
}

fn contains<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [item, Value::List(list)] => Ok(list.contains(item)?.into()),
        [key, Value::Map(map)] => Ok(Key::from_value(key).is_ok_and(|key| map.get(&key).is_some()).into()),
        _ => mismatch(),
    }
}

fn size<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    args[0].size().map_or_else(mismatch, |size| Ok(Value::Int(size as i64)))
}

fn insert<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Map(map), key, value] => {
            map.clone().insert(Key::from_value(key)?, value.clone()).map(Value::Map)
        }
        _ => mismatch(),
    }
}

fn insert_all<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::Map(map), Value::Map(more)] = args else { return mismatch() };
    let mut map = map.clone();
    for key in more.keys() {
        let value = more.get(&key).unwrap_or(Ok(Value::Null))?;
        map = map.insert(key, value)?;
    }
    Ok(Value::Map(map))
}
