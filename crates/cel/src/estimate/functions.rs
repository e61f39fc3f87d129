//! Estimates of functions.

use super::{
    AUTHORIZATION_CHECK, Arg, Call, LIST_CREATE, REGEX_LENGTH, Range, STRING_TRAVERSAL, STRUCT_CREATE,
};
use crate::ast::Kind;
use crate::types::Type;
use crate::value::Value;

/// How long the regular expressions of named formats are.
const FORMAT_REGEX: f64 = 128.0;
/// How long a named format's name is.
const FORMAT_SIZE: u64 = 64;

impl Arg<'_> {
    fn size(&self) -> Range {
        let declared = self.declared.map(|d| Range { min: 0, max: d.max_elements });
        self.computed.or(declared).unwrap_or(Range::UNKNOWN)
    }

    fn traversal(&self) -> Range {
        self.size().scale(STRING_TRAVERSAL)
    }

    /// The type of a list's items and their size.
    fn items(&self) -> Option<(&Type, Range)> {
        let item = *self.ty.params().first()?;
        let declared = self.declared.and_then(|d| d.element());
        Some((item, declared.map_or(Range::UNKNOWN, |d| Range { min: 0, max: d.max_elements })))
    }

    fn int(&self) -> Option<u64> {
        match self.expr.map(|e| &e.kind) {
            Some(Kind::Literal(Value::Int(int))) => Some((*int).max(0) as u64),
            _ => None,
        }
    }
}

fn cost(cost: Range) -> Option<Call> {
    Some(Call { cost, result: None })
}

fn sized(cost: Range, result: Range) -> Option<Call> {
    Some(Call { cost, result: Some(result) })
}

/// The call and a list that it makes of so many items.
fn allocating(factor: f64, size: Range) -> Option<Call> {
    sized(size.scale(factor).add(Range::fixed(1 + LIST_CREATE)), size)
}

/// Functions of the extension libraries.
pub(super) fn extension(
    function: &str,
    overload: &str,
    target: Option<&Arg<'_>>,
    args: &[Arg<'_>],
) -> Option<Call> {
    if let Some(call) = lists(overload, target, args) {
        return Some(call);
    }
    match (function, target, args) {
        ("check", ..) => cost(Range::fixed(AUTHORIZATION_CHECK)),
        ("fieldSelector" | "labelSelector", _, [selector]) => cost(selector_cost(selector.size())),
        ("isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf", Some(target), _) => {
            cost(match target.items() {
                Some((ty, size)) => {
                    let compare = match ty {
                        Type::String | Type::Bytes => size.scale(STRING_TRAVERSAL),
                        _ => Range::fixed(0),
                    };
                    target.size().times(compare.add(Range::fixed(1)))
                }
                None => target.traversal(),
            })
        }
        ("url" | "jsonpatch.escapeKey", _, [text]) => sized(text.traversal(), text.size()),
        ("lowerAscii" | "upperAscii" | "substring" | "trim", Some(target), _) => {
            sized(target.traversal(), target.size())
        }
        ("replace", Some(target), [old, new, ..]) => {
            let size = replaced(target.size(), old.size(), new.size());
            sized(target.size().scale(2.0 * STRING_TRAVERSAL), size)
        }
        ("split", Some(target), args) => {
            let most = args.get(1).and_then(Arg::int).unwrap_or(target.size().max);
            sized(target.size().scale(2.0 * STRING_TRAVERSAL), Range { min: 0, max: most })
        }
        ("join", Some(target), args) => {
            let count = target.size();
            let mut size = target.items().map_or(Range::fixed(0), |(_, item)| count.times(item));
            if let [separator, ..] = args {
                let between = Range { min: count.min.saturating_sub(1), max: count.max.saturating_sub(1) };
                size = size.add(separator.size().times(between));
            }
            sized(size.scale(STRING_TRAVERSAL), size)
        }
        ("find" | "findAll", Some(target), [pattern, ..]) => {
            sized(matching(target, pattern), Range { min: 0, max: target.size().max })
        }
        ("ip", ..) if overload == "cidr_ip" => cost(Range::fixed(1)),
        (
            "cidr" | "isIP" | "isCIDR" | "ip" | "quantity" | "isQuantity" | "semver" | "isSemver",
            _,
            [text, ..],
        ) => cost(text.traversal()),
        ("ip.isCanonical", _, [text, ..]) => cost(text.size().scale(2.0 * STRING_TRAVERSAL)),
        ("containsIP" | "containsCIDR", _, [other, ..]) => {
            let address = Range { min: 4, max: 16 };
            let mut total = address.add(address).scale(STRING_TRAVERSAL);
            if function == "containsCIDR" {
                total = total.add(address.scale(STRING_TRAVERSAL)).add(Range::fixed(1));
            }
            if overload.ends_with("_string") {
                total = total.add(other.traversal());
            }
            cost(total)
        }
        ("validate", _, [text, ..]) => cost(text.traversal().scale(FORMAT_REGEX * REGEX_LENGTH)),
        ("_==_", _, [a, b]) if a.ty == b.ty => match a.ty {
            Type::Opaque("kubernetes.NamedFormat") => {
                cost(Range { min: 1, max: FORMAT_SIZE }.scale(STRING_TRAVERSAL))
            }
            Type::Opaque("kubernetes.URL") => {
                cost(Range { min: 1, max: b.computed.map_or(1, |s| s.max) }.scale(STRING_TRAVERSAL))
            }
            Type::Opaque(_) => cost(Range::fixed(1)),
            _ => None,
        },
        _ if CONSTANT.contains(&function) => cost(Range::fixed(1)),
        _ => None,
    }
}

/// Functions that read or set one field.
pub(crate) const CONSTANT: [&str; 38] = [
    "serviceAccount",
    "path",
    "group",
    "resource",
    "subresource",
    "namespace",
    "name",
    "allowed",
    "reason",
    "error",
    "errored",
    "masked",
    "prefixLength",
    "family",
    "isUnspecified",
    "isLoopback",
    "isLinkLocalMulticast",
    "isLinkLocalUnicast",
    "isGlobalUnicast",
    "format.named",
    "sign",
    "asInteger",
    "isInteger",
    "asApproximateFloat",
    "isGreaterThan",
    "isLessThan",
    "compareTo",
    "add",
    "sub",
    "major",
    "minor",
    "patch",
    "getScheme",
    "getHostname",
    "getHost",
    "getPort",
    "getEscapedPath",
    "getQuery",
];

/// A selector is a list of requirements, each at least two characters long.
pub(crate) fn selector_cost(length: Range) -> Range {
    let requirements = length.scale(0.5).scale((LIST_CREATE + STRUCT_CREATE) as f64);
    Range::fixed(LIST_CREATE).add(length.scale(STRING_TRAVERSAL)).add(requirements)
}

/// Functions of the lists and sets libraries.
fn lists(overload: &str, target: Option<&Arg<'_>>, args: &[Arg<'_>]) -> Option<Call> {
    match (overload, target, args) {
        ("list_slice", Some(target), [start, end]) => {
            let end = end.int().unwrap_or(target.size().max);
            allocating(1.0, Range::fixed(end.wrapping_sub(start.int().unwrap_or(0))))
        }
        ("lists_range", _, [count]) => allocating(1.0, Range::fixed(count.int().unwrap_or(u64::MAX))),
        ("list_reverse", Some(target), []) => allocating(1.0, target.size()),
        ("list_flatten" | "list_flatten_int", Some(target), args) => {
            let depth = args.first().map_or(1, |depth| depth.int().unwrap_or(u64::MAX));
            allocating(depth as f64, target.size())
        }
        ("list_distinct", Some(target), []) => allocating(2.0, target.size().times(target.size())),
        (
            "list_sets_contains_list" | "list_sets_intersects_list" | "list_sets_equivalent_list",
            _,
            [a, b],
        ) => {
            let factor = if overload == "list_sets_equivalent_list" { 2.0 } else { 1.0 };
            cost(a.size().times(b.size()).scale(factor).add(Range::fixed(1)))
        }
        _ => {
            let sorted = if overload.ends_with("_sort") { target? } else { args.first()? };
            let sorts = overload.starts_with("list_") && overload.ends_with("_sort")
                || overload.ends_with("_sortByAssociatedKeys");
            let text = overload.starts_with("list_string_") || overload.starts_with("list_bytes_");
            let factor = if text { 2.0 + STRING_TRAVERSAL } else { 2.0 };
            sorts.then(|| allocating(factor, sorted.size().times(sorted.size())))?
        }
    }
}

/// Functions of the specification.
pub(super) fn standard(overload: &str, target: Option<&Arg<'_>>, args: &[Arg<'_>]) -> Call {
    let size = |i: usize| args[i].computed.unwrap_or(Range::UNKNOWN);
    let comparison = ["less_", "less_equals_", "greater_", "greater_equals_"]
        .iter()
        .any(|name| overload.strip_prefix(name).is_some_and(|ty| ty == "string" || ty == "bytes"));
    let call = match (overload, target) {
        ("string_format", Some(target)) => {
            cost(target.computed.unwrap_or(Range::UNKNOWN).scale(STRING_TRAVERSAL))
        }
        ("string_to_bytes", _) => {
            let size = size(0);
            sized(size.scale(STRING_TRAVERSAL), Range { max: size.max.saturating_mul(4), ..size })
        }
        ("bytes_to_string", _) => {
            let size = size(0);
            sized(size.scale(STRING_TRAVERSAL), Range { min: size.min / 4, ..size })
        }
        ("strings_quote", _) => {
            let size = size(0);
            let quoted = size.add(Range { min: 0, max: size.max }).add(Range::fixed(2));
            sized(size.scale(STRING_TRAVERSAL), quoted)
        }
        ("starts_with_string" | "ends_with_string", _) => cost(size(0).scale(STRING_TRAVERSAL)),
        ("in_list", _) => cost(size(1)),
        ("matches_string", Some(target)) => cost(matching(target, &args[0])),
        ("contains_string", Some(target)) => {
            let target = target.computed.unwrap_or(Range::UNKNOWN).scale(STRING_TRAVERSAL);
            cost(target.times(size(0).scale(STRING_TRAVERSAL)))
        }
        ("equals" | "not_equals", _) => cost(compared(size(0), size(1))),
        _ if comparison => cost(compared(size(0), size(1))),
        _ => None,
    };
    call.unwrap_or(Call { cost: Range::fixed(1), result: None })
}

fn compared(a: Range, b: Range) -> Range {
    let max = a.max.min(b.max);
    Range { min: u64::from(max > 0), max }.scale(STRING_TRAVERSAL)
}

fn matching(subject: &Arg<'_>, pattern: &Arg<'_>) -> Range {
    // Even an empty subject costs what the pattern takes.
    let subject = subject.size().add(Range::fixed(1)).scale(STRING_TRAVERSAL);
    subject.times(pattern.size().scale(REGEX_LENGTH))
}

/// How long a string of one size becomes when parts of another are replaced by those of a third.
fn replaced(size: Range, old: Range, new: Range) -> Range {
    let count = |size: u64, by: u64| (size as f64 / by as f64).ceil() as u64;
    let (most, longest) = match old.min {
        0 => (size.max.saturating_add(1), size.max),
        shortest if new.max <= shortest => (0, size.max),
        shortest => (count(size.max, shortest), 0),
    };
    let (fewest, shortest) = match old.max {
        0 => (size.min.saturating_add(1), size.min),
        longest if longest <= new.min => (0, size.min),
        longest => (count(size.min, longest), 0),
    };
    Range { min: fewest, max: most }.times(new).add(Range { min: shortest, max: longest })
}
