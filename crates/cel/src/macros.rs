//! Macros of the specification, of two-variable comprehensions, optionals and lists.

use crate::ast::{ACCUMULATOR, Expr, Fold, Kind, Name};
use crate::parser::Parser;
use crate::value::Value;

const UNUSED: &str = "#unused";
const SORT_INPUT: &str = "@__sortBy_input__";

/// The macro's expansion, or the plain call where no macro has this name, form and number of arguments.
/// `at` is the call's opening parenthesis.
pub(crate) fn expand(
    p: &mut Parser<'_, '_>,
    at: u32,
    name: &str,
    target: Option<Expr>,
    mut args: Vec<Expr>,
) -> Expr {
    let Some(target) = target else {
        return match (name, args.len()) {
            ("has", 1) => has(p, at, args.remove(0)),
            _ => p.call(at, name, args),
        };
    };
    match (name, args.len()) {
        ("all" | "exists" | "exists_one" | "existsOne", 2 | 3) => quantifier(p, at, name, target, args),
        ("map", 2 | 3) => map(p, at, target, args),
        ("filter", 2) => filter(p, at, target, args),
        ("transformList", 3 | 4) => transform(p, at, name, target, args),
        ("transformMap" | "transformMapEntry", 3 | 4) => transform(p, at, name, target, args),
        ("optMap" | "optFlatMap", 2) => opt_map(p, at, name, target, args),
        ("sortBy", 2) => sort_by(p, at, target, args),
        _ => p.member(at, name, target, args),
    }
}

fn has(p: &mut Parser<'_, '_>, at: u32, arg: Expr) -> Expr {
    match arg.kind {
        Kind::Select { operand, field, .. } => p.node(at, Kind::Select { operand, field, test_only: true }),
        _ => {
            let position = p.position_of(&arg);
            p.error(position, "invalid argument to has() macro")
        }
    }
}

/// The names of one or two iteration variables, taken from the front of `args`.
fn variables(
    p: &mut Parser<'_, '_>,
    args: &mut Vec<Expr>,
    count: usize,
    message: &str,
) -> Result<(Name, Option<Name>), Expr> {
    let mut names = Vec::new();
    for arg in args.drain(..count) {
        let position = p.position_of(&arg);
        match arg.kind {
            Kind::Ident(name) if &*name == "__result__" => {
                return Err(p.error(position, "iteration variable overwrites accumulator variable"));
            }
            Kind::Ident(name) if names.contains(&name) => {
                return Err(p.error(position, format!("duplicate variable name: {name}")));
            }
            Kind::Ident(name) => names.push(name),
            _ => return Err(p.error(position, message)),
        }
    }
    let mut names = names.into_iter();
    Ok((names.next().unwrap_or_else(|| UNUSED.into()), names.next()))
}

fn accumulator(p: &mut Parser<'_, '_>, at: u32) -> Expr {
    p.ident(at, ACCUMULATOR)
}

fn quantifier(p: &mut Parser<'_, '_>, at: u32, name: &str, target: Expr, mut args: Vec<Expr>) -> Expr {
    let count = args.len() - 1;
    let (var, var2) = match variables(p, &mut args, count, "argument must be a simple name") {
        Ok(names) => names,
        Err(error) => return error,
    };
    let predicate = args.remove(0);
    let accu = accumulator(p, at);
    let (init, condition, step, result);
    match name {
        "all" => {
            init = Value::Bool(true);
            condition = p.call(at, "@not_strictly_false", vec![accu]);
            let accu = accumulator(p, at);
            step = p.call(at, "_&&_", vec![accu, predicate]);
            result = accumulator(p, at);
        }
        "exists" => {
            init = Value::Bool(false);
            let not = p.call(at, "!_", vec![accu]);
            condition = p.call(at, "@not_strictly_false", vec![not]);
            let accu = accumulator(p, at);
            step = p.call(at, "_||_", vec![accu, predicate]);
            result = accumulator(p, at);
        }
        _ => {
            init = Value::Int(0);
            condition = p.literal(at, Value::Bool(true));
            let one = p.literal(at, Value::Int(1));
            let more = p.call(at, "_+_", vec![accu, one]);
            let same = accumulator(p, at);
            step = p.call(at, "_?_:_", vec![predicate, more, same]);
            let (accu, one) = (accumulator(p, at), p.literal(at, Value::Int(1)));
            result = p.call(at, "_==_", vec![accu, one]);
        }
    }
    let init = p.literal(at, init);
    let accumulator = ACCUMULATOR.into();
    p.fold(at, Fold { range: target, var, var2, accumulator, init, condition, step, result })
}

/// A fold that appends `element` to a list for each item that passes the filter.
fn collect(
    p: &mut Parser<'_, '_>,
    at: u32,
    range: Expr,
    vars: (Name, Option<Name>),
    filter: Option<Expr>,
    element: Expr,
) -> Expr {
    let (accu, element) = (accumulator(p, at), p.list(at, vec![element]));
    let step = p.call(at, "_+_", vec![accu, element]);
    let init = p.list(at, Vec::new());
    gather(p, at, range, vars, filter, init, step)
}

fn gather(
    p: &mut Parser<'_, '_>,
    at: u32,
    range: Expr,
    (var, var2): (Name, Option<Name>),
    filter: Option<Expr>,
    init: Expr,
    step: Expr,
) -> Expr {
    let step = match filter {
        Some(filter) => {
            let same = accumulator(p, at);
            p.call(at, "_?_:_", vec![filter, step, same])
        }
        None => step,
    };
    let (condition, result) = (p.literal(at, Value::Bool(true)), accumulator(p, at));
    let accumulator = ACCUMULATOR.into();
    p.fold(at, Fold { range, var, var2, accumulator, init, condition, step, result })
}

fn map(p: &mut Parser<'_, '_>, at: u32, target: Expr, mut args: Vec<Expr>) -> Expr {
    match variables(p, &mut args, 1, "argument is not an identifier") {
        Ok(vars) => {
            let filter = (args.len() == 2).then(|| args.remove(0));
            collect(p, at, target, vars, filter, args.remove(0))
        }
        Err(error) => error,
    }
}

fn filter(p: &mut Parser<'_, '_>, at: u32, target: Expr, mut args: Vec<Expr>) -> Expr {
    let element = args[0].clone();
    match variables(p, &mut args, 1, "argument is not an identifier") {
        Ok(vars) => collect(p, at, target, vars, Some(args.remove(0)), element),
        Err(error) => error,
    }
}

fn transform(p: &mut Parser<'_, '_>, at: u32, name: &str, target: Expr, mut args: Vec<Expr>) -> Expr {
    let vars = match variables(p, &mut args, 2, "argument must be a simple name") {
        Ok(vars) => vars,
        Err(error) => return error,
    };
    let filter = (args.len() == 2).then(|| args.remove(0));
    let element = args.remove(0);
    if name == "transformList" {
        return collect(p, at, target, vars, filter, element);
    }
    let mut insert = vec![accumulator(p, at)];
    if name == "transformMap" {
        insert.push(p.ident(at, &vars.0));
    }
    insert.push(element);
    let step = p.call(at, "cel.@mapInsert", insert);
    let init = p.node(at, Kind::Map(Vec::new()));
    gather(p, at, target, vars, filter, init, step)
}

/// Binds `name` to `value` within `result`: a fold over nothing.
fn bind(p: &mut Parser<'_, '_>, at: u32, name: Name, value: Expr, result: Expr) -> Expr {
    let (range, condition) = (p.list(at, Vec::new()), p.literal(at, Value::Bool(false)));
    let step = p.ident(at, &name);
    let fold = Fold {
        range,
        var: UNUSED.into(),
        var2: None,
        accumulator: name,
        init: value,
        condition,
        step,
        result,
    };
    p.fold(at, fold)
}

fn opt_map(p: &mut Parser<'_, '_>, at: u32, function: &str, target: Expr, mut args: Vec<Expr>) -> Expr {
    let message = format!("{function}() variable name must be a simple identifier");
    let name = match variables(p, &mut args, 1, &message) {
        Ok((name, _)) => name,
        Err(error) => return error,
    };
    let copy = p.copy(&target);
    let present = p.member(at, "hasValue", target, Vec::new());
    let value = p.member(at, "value", copy, Vec::new());
    let mut mapped = bind(p, at, name, value, args.remove(0));
    if function == "optMap" {
        mapped = p.call(at, "optional.of", vec![mapped]);
    }
    let none = p.call(at, "optional.none", Vec::new());
    p.call(at, "_?_:_", vec![present, mapped, none])
}

fn sort_by(p: &mut Parser<'_, '_>, at: u32, target: Expr, args: Vec<Expr>) -> Expr {
    let sortable = matches!(
        target.kind,
        Kind::List(_) | Kind::Select { .. } | Kind::Ident(_) | Kind::Fold(_) | Kind::Call { .. }
    );
    if !sortable {
        let position = p.position_of(&target);
        let message =
            "sortBy can only be applied to a list, identifier, comprehension, call or select expression";
        return p.error(position, message);
    }
    let input = p.ident(at, SORT_INPUT);
    let keys = map(p, at, input, args);
    let input = p.ident(at, SORT_INPUT);
    let sorted = p.member(at, "@sortByAssociatedKeys", input, vec![keys]);
    bind(p, at, SORT_INPUT.into(), target, sorted)
}
