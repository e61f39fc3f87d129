//! Resource quantities.

use super::{Outcome, Row, fail, mismatch};
use crate::value::{Opaque, Value};
use keelson_api_types::quantity::{Format, Quantity};
use std::cmp::Ordering;

const NANO: i128 = 1_000_000_000;

pub(super) const ROWS: &[Row] = &[
    ("quantity", "string_to_quantity", "(string) -> quantity", |a| match a {
        [Value::String(text)] => Quantity::parse(text).map_or_else(|e| fail(e.to_string()), made),
        _ => mismatch(),
    }),
    ("isQuantity", "is_quantity_string", "(string) -> bool", |a| match a {
        [Value::String(text)] => Ok(Quantity::parse(text).is_ok().into()),
        _ => mismatch(),
    }),
    ("sign", "quantity_sign", "(quantity) -> int", |a| of(a, |q| Ok(Value::Int(q.sign().into())))),
    ("isGreaterThan", "quantity_is_greater_than", "quantity.(quantity) -> bool", |a| {
        both(a, |x, y| Ok((x.cmp(y) == Ordering::Greater).into()))
    }),
    ("isLessThan", "quantity_is_less_than", "quantity.(quantity) -> bool", |a| {
        both(a, |x, y| Ok((x.cmp(y) == Ordering::Less).into()))
    }),
    ("compareTo", "quantity_compare_to", "quantity.(quantity) -> int", |a| {
        both(a, |x, y| Ok(Value::Int(x.cmp(y) as i64)))
    }),
    ("asApproximateFloat", "quantity_get_float", "quantity.() -> double", |a| {
        of(a, |q| Ok(Value::Double(q.as_f64())))
    }),
    ("asInteger", "quantity_get_int", "quantity.() -> int", |a| {
        of(a, |q| whole(q).map_or_else(|| fail("cannot convert value to integer"), |n| Ok(Value::Int(n))))
    }),
    ("isInteger", "quantity_is_integer", "quantity.() -> bool", |a| of(a, |q| Ok(whole(q).is_some().into()))),
    ("add", "quantity_add", "quantity.(quantity) -> quantity", |a| both(a, |x, y| made(x.add(y)))),
    ("add", "quantity_add_int", "quantity.(int) -> quantity", |a| both(a, |x, y| made(x.add(y)))),
    ("sub", "quantity_sub", "quantity.(quantity) -> quantity", |a| both(a, |x, y| made(x.sub(y)))),
    ("sub", "quantity_sub_int", "quantity.(int) -> quantity", |a| both(a, |x, y| made(x.sub(y)))),
];

fn made<'a>(quantity: Quantity) -> Outcome<'a> {
    Ok(Value::Opaque(Opaque::Quantity(quantity)))
}

fn whole(quantity: &Quantity) -> Option<i64> {
    let nanos = quantity.nanos();
    (nanos % NANO == 0).then(|| i64::try_from(nanos / NANO).ok())?
}

fn of<'a>(args: &[Value<'a>], f: fn(&Quantity) -> Outcome<'static>) -> Outcome<'a> {
    match args {
        [Value::Opaque(Opaque::Quantity(quantity)), ..] => f(quantity),
        _ => mismatch(),
    }
}

fn both<'a>(args: &[Value<'a>], f: fn(&Quantity, &Quantity) -> Outcome<'static>) -> Outcome<'a> {
    match args {
        [Value::Opaque(Opaque::Quantity(x)), Value::Opaque(Opaque::Quantity(y))] => f(x, y),
        [Value::Opaque(Opaque::Quantity(x)), Value::Int(y)] => {
            f(x, &Quantity::from_value(*y, Format::DecimalExponent))
        }
        _ => mismatch(),
    }
}
