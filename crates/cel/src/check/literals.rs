//! What is wrong with literals that only evaluation would find, and mixed aggregates.

use super::Checked;
use crate::ast::{Expr, Kind};
use crate::functions::{check_format, compile_regex, convert};
use crate::source::Sink;
use crate::types::Type;
use crate::value::Value;

pub(super) fn validate(checked: &Checked, sink: &mut Sink<'_>) {
    let mut mixed_allowed = Vec::new();
    checked.ast.root.walk(&mut |expr| match &expr.kind {
        Kind::Call { function, target, args } => {
            if &**function == "format" {
                expr.walk(&mut |below| mixed_allowed.push(below.id));
            }
            call(checked, sink, expr, function, target.as_deref(), args);
        }
        Kind::List(items) if !mixed_allowed.contains(&expr.id) => {
            let types = items.iter().map(|i| (&i.value, item_type(checked, &i.value, i.optional)));
            same_types(checked, sink, types);
        }
        Kind::Map(entries) if !mixed_allowed.contains(&expr.id) => {
            same_types(checked, sink, entries.iter().map(|e| (&e.key, item_type(checked, &e.key, false))));
            let values = entries.iter().map(|e| (&e.value, item_type(checked, &e.value, e.optional)));
            same_types(checked, sink, values);
        }
        _ => {}
    });
}

fn call(
    checked: &Checked,
    sink: &mut Sink<'_>,
    expr: &Expr,
    function: &str,
    target: Option<&Expr>,
    args: &[Expr],
) {
    let first = args.first();
    if let Some((first, Kind::Literal(value))) = first.map(|first| (first, &first.kind)) {
        let valid = match (function, value) {
            ("duration" | "timestamp", value) => convert(function, value).is_ok(),
            ("matches", Value::String(pattern)) => compile_regex(pattern).is_ok(),
            _ => true,
        };
        if !valid {
            sink.report(position(checked, first), format!("invalid {function} argument"));
        }
    }
    if function == "format"
        && let Some(Kind::Literal(Value::String(format))) = target.map(|t| &t.kind)
        && let Some(Kind::List(items)) = first.map(|f| &f.kind)
    {
        let types: Vec<Type> = items.iter().map(|i| checked.types[i.value.id as usize].clone()).collect();
        if let Err(message) = check_format(format, &types) {
            sink.report(position(checked, expr), message);
        }
    }
}

fn position(checked: &Checked, expr: &Expr) -> u32 {
    checked.ast.positions[expr.id as usize]
}

fn item_type(checked: &Checked, value: &Expr, optional: bool) -> Type {
    let ty = checked.types[value.id as usize].clone();
    if optional { ty.unwrap_optional().0 } else { ty }
}

fn same_types<'e>(checked: &Checked, sink: &mut Sink<'_>, mut items: impl Iterator<Item = (&'e Expr, Type)>) {
    let Some((_, first)) = items.next() else { return };
    if let Some((expr, ty)) = items.find(|(_, ty)| *ty != first) {
        sink.report(position(checked, expr), format!("expected type '{first}' but found '{ty}'"));
    }
}
