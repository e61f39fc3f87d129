//! Optional values. `or` and `orValue` are the evaluator's own: they look at their second operand only if needed.

use super::{Outcome, Row, fail, mismatch};
use crate::value::Value;

pub(super) const ROWS: &[Row] = &[
    ("optional.of", "optional_of", "(V) -> optional(V)", |a| Ok(Value::some(a[0].clone()))),
    ("optional.ofNonZeroValue", "optional_ofNonZeroValue", "(V) -> optional(V)", |a| {
        Ok(if a[0].is_zero() { Value::Optional(None) } else { Value::some(a[0].clone()) })
    }),
    ("optional.none", "optional_none", "() -> optional(V)", |_| Ok(Value::Optional(None))),
    ("value", "optional_value", "optional(V).() -> V", |a| match a {
        [Value::Optional(Some(value))] => Ok(Value::clone(value)),
        [Value::Optional(None)] => fail("optional.none() dereference"),
        _ => mismatch(),
    }),
    ("hasValue", "optional_hasValue", "optional(V).() -> bool", |a| match a {
        [Value::Optional(value)] => Ok(value.is_some().into()),
        _ => mismatch(),
    }),
    ("or", "optional_or_optional", "optional(V).(optional(V)) -> optional(V)", |_| mismatch()),
    ("orValue", "optional_orValue_value", "optional(V).(V) -> V", |_| mismatch()),
    ("last", "list_last", "list(V).() -> optional(V)", |a| end(a, true)),
    ("first", "list_first", "list(V).() -> optional(V)", |a| end(a, false)),
    ("optional.unwrap", "optional_unwrap", "(list(optional(V))) -> list(V)", unwrap),
    ("unwrapOpt", "optional_unwrapOpt", "list(optional(V)).() -> list(V)", unwrap),
];

fn end<'a>(args: &[Value<'a>], last: bool) -> Outcome<'a> {
    let [Value::List(list)] = args else { return mismatch() };
    let at = if last { list.len().wrapping_sub(1) } else { 0 };
    Ok(list.get(at).transpose()?.map_or(Value::Optional(None), Value::some))
}

fn unwrap<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::List(list)] = args else { return mismatch() };
    let mut values = Vec::new();
    for item in list.iter() {
        match item? {
            Value::Optional(Some(value)) => values.push(Value::clone(&value)),
            Value::Optional(None) => {}
            other => return fail(format!("value {other} is not optional")),
        }
    }
    Ok(Value::list(values))
}
