//! What calls cost when they are evaluated; the counterpart of the estimates.

use crate::estimate::functions::{CONSTANT, selector_cost};
use crate::estimate::{AUTHORIZATION_CHECK, LIST_CREATE, REGEX_LENGTH, Range, STRING_TRAVERSAL};
use crate::value::{Opaque, Value};

pub(crate) fn of_call(function: &str, overload: &str, args: &[Value<'_>], result: Option<&Value<'_>>) -> u64 {
    let traversal = |i: usize, factor: f64| scaled(size(args.get(i)), STRING_TRAVERSAL * factor);
    if let Some(cost) = of_lists(overload, args, result) {
        return cost;
    }
    match function {
        "check" => AUTHORIZATION_CHECK,
        "fieldSelector" | "labelSelector" => selector_cost(Range::fixed(size(args.get(1)))).max,
        "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" => args.first().map_or(0, traversed),
        "url" | "lowerAscii" | "upperAscii" | "substring" | "trim" | "jsonpatch.escapeKey" => {
            traversal(0, 1.0)
        }
        "replace" | "split" | "ip.isCanonical" => traversal(0, 2.0),
        "join" => scaled(size(result), 2.0 * STRING_TRAVERSAL),
        "find" | "findAll" => matching(args),
        "ip" if overload == "cidr_ip" => 1,
        "cidr" | "isIP" | "isCIDR" | "ip" | "quantity" | "isQuantity" | "semver" | "isSemver" => {
            traversal(0, 1.0)
        }
        "containsIP" | "containsCIDR" => {
            let bytes = size(args.first());
            let mut cost = scaled(2 * bytes, STRING_TRAVERSAL);
            if function == "containsCIDR" {
                cost += scaled(bytes, STRING_TRAVERSAL) + 1;
            }
            if overload.ends_with("_string") {
                cost += traversal(1, 1.0);
            }
            cost
        }
        "validate" => match args.first() {
            Some(Value::Opaque(Opaque::Format(format))) => {
                scaled(size(args.get(1)) + 1, STRING_TRAVERSAL) * scaled(format.regex_size, REGEX_LENGTH)
            }
            _ => 1,
        },
        "_==_" if matches!(args.first(), Some(Value::Opaque(_))) => 1,
        _ if CONSTANT.contains(&function) => 1,
        _ => of_overload(overload, args),
    }
}

fn of_overload(overload: &str, args: &[Value<'_>]) -> u64 {
    let compares = ["less_", "less_equals_", "greater_", "greater_equals_"]
        .iter()
        .any(|name| overload.strip_prefix(name).is_some_and(|ty| ty == "string" || ty == "bytes"));
    match overload {
        "starts_with_string" | "ends_with_string" | "string_to_bytes" | "bytes_to_string"
        | "strings_quote" | "string_format" => scaled(size(args.first()), STRING_TRAVERSAL),
        "in_list" => size(args.get(1)),
        "equals" | "not_equals" => scaled(size(args.first()).min(size(args.get(1))), STRING_TRAVERSAL),
        _ if compares => scaled(size(args.first()).min(size(args.get(1))), STRING_TRAVERSAL),
        "add_string" | "add_bytes" => scaled(size(args.first()) + size(args.get(1)), STRING_TRAVERSAL),
        "matches_string" => matching(args),
        "contains_string" => {
            scaled(size(args.first()), STRING_TRAVERSAL) * scaled(size(args.get(1)), STRING_TRAVERSAL)
        }
        _ => 1,
    }
}

fn of_lists(overload: &str, args: &[Value<'_>], result: Option<&Value<'_>>) -> Option<u64> {
    let allocating = |factor: f64, size: u64| (size as f64 * factor) as u64 + 1 + LIST_CREATE;
    let product = size(args.first()).saturating_mul(size(args.get(1)));
    Some(match overload {
        "list_slice" | "lists_range" | "list_reverse" => allocating(1.0, size(result)),
        "list_flatten" | "list_flatten_int" => {
            let depth = match args.get(1) {
                Some(Value::Int(depth)) => *depth as f64,
                _ => 1.0,
            };
            allocating(depth, size(args.first()))
        }
        "list_sets_contains_list" | "list_sets_intersects_list" => 1 + product,
        "list_sets_equivalent_list" => 1 + product.saturating_mul(2),
        _ => {
            let compared = match overload {
                "list_distinct" => args.first(),
                _ if overload.ends_with("_sortByAssociatedKeys") => args.get(1),
                _ if overload.starts_with("list_") && overload.ends_with("_sort") => args.first(),
                _ => return None,
            };
            let Some(Value::List(list)) = compared else { return None };
            let text = matches!(list.get(0), Some(Ok(Value::String(_) | Value::Bytes(_))));
            let count = list.len() as u64;
            allocating(if text { 2.0 + STRING_TRAVERSAL } else { 2.0 }, count.saturating_mul(count))
        }
    })
}

fn size(value: Option<&Value<'_>>) -> u64 {
    match value {
        Some(Value::Optional(Some(inner))) => size(Some(inner)),
        Some(value) => value.size().unwrap_or(1),
        None => 1,
    }
}

fn scaled(size: u64, factor: f64) -> u64 {
    (size as f64 * factor).ceil() as u64
}

fn matching(args: &[Value<'_>]) -> u64 {
    scaled(size(args.first()) + 1, STRING_TRAVERSAL) * scaled(size(args.get(1)), REGEX_LENGTH)
}

/// A walk over all of a value.
fn traversed(value: &Value<'_>) -> u64 {
    match value {
        Value::String(text) => (text.len() as f64 * STRING_TRAVERSAL) as u64,
        Value::Bytes(bytes) => (bytes.len() as f64 * STRING_TRAVERSAL) as u64,
        Value::List(list) => list.iter().flatten().map(|item| traversed(&item)).sum(),
        Value::Map(map) => map
            .keys()
            .iter()
            .map(|key| {
                let value = map.get(key).and_then(Result::ok);
                traversed(&key.to_value()) + value.as_ref().map_or(0, traversed)
            })
            .sum(),
        _ => 1,
    }
}
