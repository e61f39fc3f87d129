//! Lists: Kubernetes' own functions, those of the lists library (version 3), and sets.

use super::{Call, Outcome, Row, add, fail, mismatch};
use crate::error::EvalError;
use crate::value::{List, Value};
use std::cmp::Ordering;

/// A longer range would exceed every cost limit.
const MAX_RANGE: i64 = crate::error::RUNTIME_BUDGET as i64;

pub(super) const ROWS: &[Row] = &[
    ("sum", "list_int_sum_int", "list(int).() -> int", |a| sum(a, Value::Int(0))),
    ("sum", "list_uint_sum_uint", "list(uint).() -> uint", |a| sum(a, Value::Uint(0))),
    ("sum", "list_double_sum_double", "list(double).() -> double", |a| sum(a, Value::Double(0.0))),
    ("sum", "list_duration_sum_duration", "list(duration).() -> duration", |a| sum(a, Value::Duration(0))),
    ("indexOf", "list_a_index_of_int", "list(A).(A) -> int", |a| index_of(a, false)),
    ("lastIndexOf", "list_a_last_index_of_int", "list(A).(A) -> int", |a| index_of(a, true)),
    ("slice", "list_slice", "list(T).(int, int) -> list(T)", slice),
    ("flatten", "list_flatten", "list(list(T)).() -> list(T)", flatten),
    ("flatten", "list_flatten_int", "list(dyn).(int) -> list(dyn)", flatten),
    ("lists.range", "lists_range", "(int) -> list(int)", range),
    ("reverse", "list_reverse", "list(T).() -> list(T)", reverse),
    ("distinct", "list_distinct", "list(T).() -> list(T)", distinct),
    ("sets.contains", "list_sets_contains_list", "(list(T), list(T)) -> bool", |a| {
        let [Value::List(list), Value::List(sub)] = a else { return mismatch() };
        Ok(contains_all(list, sub)?.into())
    }),
    ("sets.equivalent", "list_sets_equivalent_list", "(list(T), list(T)) -> bool", |a| {
        let [Value::List(x), Value::List(y)] = a else { return mismatch() };
        Ok((contains_all(x, y)? && contains_all(y, x)?).into())
    }),
    ("sets.intersects", "list_sets_intersects_list", "(list(T), list(T)) -> bool", intersects),
];

/// Declares what exists for lists of each comparable type.
pub(super) fn comparable(declare: &mut impl FnMut(&str, &str, &str, Call)) {
    for ty in ["int", "uint", "double", "bool", "duration", "timestamp", "string", "bytes"] {
        // The lists library names overloads by the types' full names.
        let full = match ty {
            "duration" => "google.protobuf.Duration",
            "timestamp" => "google.protobuf.Timestamp",
            ty => ty,
        };
        declare(
            "isSorted",
            &format!("list_{ty}_is_sorted_bool"),
            &format!("list({ty}).() -> bool"),
            is_sorted,
        );
        declare("max", &format!("list_{ty}_max_{ty}"), &format!("list({ty}).() -> {ty}"), |a| {
            extreme(a, "max", Ordering::Less)
        });
        declare("min", &format!("list_{ty}_min_{ty}"), &format!("list({ty}).() -> {ty}"), |a| {
            extreme(a, "min", Ordering::Greater)
        });
        declare("sort", &format!("list_{full}_sort"), &format!("list({ty}).() -> list({ty})"), |a| {
            sort_by(&[a[0].clone(), a[0].clone()])
        });
        let id = format!("list_{full}_sortByAssociatedKeys");
        declare("@sortByAssociatedKeys", &id, &format!("list(T).(list({ty})) -> list(T)"), sort_by);
    }
}

fn sum<'a>(args: &[Value<'a>], zero: Value<'a>) -> Outcome<'a> {
    let [Value::List(list)] = args else { return mismatch() };
    list.iter().try_fold(zero, |sum, item| add(&[sum, item?]))
}

fn is_sorted<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::List(list)] = args else { return mismatch() };
    let items = list.to_vec()?;
    for pair in items.windows(2) {
        if pair[0].compare(&pair[1])? == Ordering::Greater {
            return Ok(false.into());
        }
    }
    Ok(true.into())
}

/// The item that no other replaces: one replaces the best so far when the best compares to it as `worse`.
fn extreme<'a>(args: &[Value<'a>], name: &str, worse: Ordering) -> Outcome<'a> {
    let [Value::List(list)] = args else { return mismatch() };
    let mut best: Option<Value<'a>> = None;
    for item in list.iter() {
        let item = item?;
        best = match best {
            Some(best) if best.compare(&item)? != worse => Some(best),
            _ => Some(item),
        };
    }
    best.ok_or_else(|| EvalError::new(format!("{name} called on empty list")))
}

fn index_of<'a>(args: &[Value<'a>], last: bool) -> Outcome<'a> {
    let [Value::List(list), item] = args else { return mismatch() };
    let items = list.to_vec()?;
    let same = |own: &Value<'a>| own.equals(item);
    let found = if last { items.iter().rposition(same) } else { items.iter().position(same) };
    Ok(Value::Int(found.map_or(-1, |at| at as i64)))
}

fn slice<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::List(list), Value::Int(start), Value::Int(end)] = args else { return mismatch() };
    let why = match (start, end) {
        _ if *start < 0 || *end < 0 => "negative indexes not supported".to_owned(),
        _ if start > end => "start index must be less than or equal to end index".to_owned(),
        _ if list.len() < *end as usize => format!("list is length {}", list.len()),
        _ => return Ok(Value::list(list.to_vec()?[*start as usize..*end as usize].to_vec())),
    };
    fail(format!("cannot slice({start}, {end}), {why}"))
}

fn flatten<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let (list, depth) = match args {
        [Value::List(list)] => (list, 1),
        [Value::List(list), Value::Int(depth)] => (list, *depth),
        _ => return mismatch(),
    };
    if depth < 0 {
        return fail("level must be non-negative");
    }
    let mut flat = Vec::new();
    flatten_into(&mut flat, list, depth)?;
    Ok(Value::list(flat))
}

fn flatten_into<'a>(flat: &mut Vec<Value<'a>>, list: &List<'a>, depth: i64) -> Result<(), EvalError> {
    for item in list.iter() {
        match item? {
            Value::List(inner) if depth > 0 => flatten_into(flat, &inner, depth - 1)?,
            item => flat.push(item),
        }
    }
    Ok(())
}

fn range<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Int(count)] if *count > MAX_RANGE => Err(EvalError::CallLimit),
        [Value::Int(count)] => Ok(Value::list((0..*count).map(Value::Int).collect())),
        _ => mismatch(),
    }
}

fn reverse<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::List(list)] = args else { return mismatch() };
    Ok(Value::list(list.to_vec()?.into_iter().rev().collect()))
}

fn distinct<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::List(list)] = args else { return mismatch() };
    let mut unique: Vec<Value<'a>> = Vec::new();
    for item in list.iter() {
        let item = item?;
        if !unique.iter().any(|own| own.equals(&item)) {
            unique.push(item);
        }
    }
    Ok(Value::list(unique))
}

fn contains_all<'a>(list: &List<'a>, sub: &List<'a>) -> Result<bool, EvalError> {
    for item in sub.iter() {
        if !list.contains(&item?)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn intersects<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::List(x), Value::List(y)] = args else { return mismatch() };
    for item in x.iter() {
        if y.contains(&item?)? {
            return Ok(true.into());
        }
    }
    Ok(false.into())
}

/// The first list in the order of the second one's items.
fn sort_by<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::List(list), Value::List(keys)] = args else { return mismatch() };
    if list.len() != keys.len() {
        return fail(format!(
            "@sortByAssociatedKeys() expected a list of the same size as the associated keys list, but got {} \
             and {} elements respectively",
            list.len(),
            keys.len()
        ));
    }
    let keys = keys.to_vec()?;
    if let Some(first) = keys.first() {
        if first.compare(first).is_err_and(|e| e.is_no_such_overload()) {
            return fail("list elements must be comparable");
        }
        if keys.iter().any(|key| key.type_name() != first.type_name()) {
            return fail("list elements must have the same type");
        }
    }
    let mut pairs: Vec<_> = keys.into_iter().zip(list.to_vec()?).collect();
    pairs.sort_by(|(a, _), (b, _)| a.compare(b).unwrap_or(Ordering::Equal));
    Ok(Value::list(pairs.into_iter().map(|(_, item)| item).collect()))
}
