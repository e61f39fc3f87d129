//! What evaluating an expression may cost at worst, from the sizes that its variables' types allow.
//!
//! The numbers are upstream's (cel-go's coster and the API server's estimator of extension functions): they decide
//! which rules a CRD may carry.

pub(crate) mod functions;

use crate::ast::{ACCUMULATOR, Expr, Fold, Id, Kind, Name};
use crate::check::Checked;
use crate::declare::{Declared, Shape};
use crate::env::Env;
use crate::types::Type;
use crate::value::Value;
use std::collections::HashMap;
use std::sync::LazyLock;

pub(crate) const STRING_TRAVERSAL: f64 = 0.1;
pub(crate) const REGEX_LENGTH: f64 = 0.25;
pub(crate) const LIST_CREATE: u64 = 10;
pub(crate) const MAP_CREATE: u64 = 30;
pub(crate) const STRUCT_CREATE: u64 = 40;
/// Allows two checks in an expression.
pub(crate) const AUTHORIZATION_CHECK: u64 = 350_000;

/// Bounds of a cost, or of a size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    pub min: u64,
    pub max: u64,
}

impl Range {
    pub(crate) const UNKNOWN: Range = Range { min: 0, max: u64::MAX };

    pub(crate) const fn fixed(n: u64) -> Range {
        Range { min: n, max: n }
    }

    pub(crate) fn add(self, other: Range) -> Range {
        Range { min: self.min.saturating_add(other.min), max: self.max.saturating_add(other.max) }
    }

    pub(crate) fn times(self, other: Range) -> Range {
        Range { min: self.min.saturating_mul(other.min), max: self.max.saturating_mul(other.max) }
    }

    /// Rounded up; a float's cast saturates.
    pub(crate) fn scale(self, factor: f64) -> Range {
        let scale = |n: u64| (n as f64 * factor).ceil() as u64;
        Range { min: scale(self.min), max: scale(self.max) }
    }

    pub(crate) fn union(self, other: Range) -> Range {
        Range { min: self.min.min(other.min), max: self.max.max(other.max) }
    }
}

/// The sizes of a collection's keys and values.
#[derive(Clone, Copy)]
struct EntrySize {
    list: bool,
    key: Range,
    value: Range,
}

struct Local<'e> {
    name: &'e Name,
    declared: Option<&'e Declared>,
    size: Option<Range>,
    entries: Option<EntrySize>,
}

/// What a function's cost is estimated from.
struct Arg<'e> {
    expr: Option<&'e Expr>,
    ty: &'e Type,
    declared: Option<&'e Declared>,
    computed: Option<Range>,
}

struct Call {
    cost: Range,
    result: Option<Range>,
}

pub(crate) fn estimate(checked: &Checked, env: &Env) -> Range {
    let mut estimator = Estimator {
        checked,
        env,
        declared: HashMap::new(),
        sizes: HashMap::new(),
        entries: HashMap::new(),
        locals: Vec::new(),
    };
    estimator.cost(&checked.ast.root)
}

/// Keys have no bound that a schema tells.
static KEY: LazyLock<Declared> = LazyLock::new(|| Declared { max_elements: 0, ..Declared::of(Type::String) });

struct Estimator<'e> {
    checked: &'e Checked,
    env: &'e Env,
    /// The declared types of expressions that select from variables.
    declared: HashMap<Id, Option<&'e Declared>>,
    sizes: HashMap<Id, Range>,
    entries: HashMap<Id, EntrySize>,
    locals: Vec<Local<'e>>,
}

impl<'e> Estimator<'e> {
    fn ty(&self, expr: &Expr) -> &'e Type {
        &self.checked.types[expr.id as usize]
    }

    fn local(&self, name: &str) -> Option<&Local<'e>> {
        self.locals.iter().rev().find(|local| **local.name == *name)
    }

    fn declared(&self, expr: &Expr) -> Option<&'e Declared> {
        self.declared.get(&expr.id).copied().flatten()
    }

    fn cost(&mut self, expr: &'e Expr) -> Range {
        match &expr.kind {
            Kind::Invalid | Kind::Literal(_) => Range::fixed(0),
            Kind::Ident(name) => {
                let declared = match self.local(name) {
                    Some(local) => local.declared,
                    None => self.env.variable(name).map(|(_, declared)| declared),
                };
                self.declared.insert(expr.id, declared);
                Range::fixed(1)
            }
            Kind::Select { operand, test_only: true, .. } => self.cost(operand),
            Kind::Select { operand, field, .. } => {
                let mut cost = self.cost(operand);
                if matches!(self.ty(operand), Type::Map(_) | Type::Object(_) | Type::Param(_)) {
                    cost = cost.add(Range::fixed(1));
                }
                let declared = self.declared(operand).and_then(|d| match &d.shape {
                    Shape::Object(object) => object.field(field).map(|p| &*p.declared),
                    _ => None,
                });
                self.declared.insert(expr.id, declared);
                cost
            }
            Kind::Call { function, target, args } => self.call(expr, function, target.as_deref(), args),
            Kind::List(items) => {
                let mut size = Range { min: if items.is_empty() { 0 } else { u64::MAX }, max: 0 };
                let mut cost = Range::fixed(LIST_CREATE);
                for item in items {
                    cost = cost.add(self.cost(&item.value));
                    size = size.union(self.size_or_unknown(&item.value));
                }
                self.entries.insert(expr.id, EntrySize { list: true, key: Range::fixed(1), value: size });
                cost
            }
            Kind::Map(entries) => {
                let empty = Range { min: if entries.is_empty() { 0 } else { u64::MAX }, max: 0 };
                let (mut key, mut value, mut cost) = (empty, empty, Range::fixed(MAP_CREATE));
                for entry in entries {
                    cost = cost.add(self.cost(&entry.key)).add(self.cost(&entry.value));
                    key = key.union(self.size_or_unknown(&entry.key));
                    value = value.union(self.size_or_unknown(&entry.value));
                }
                self.entries.insert(expr.id, EntrySize { list: false, key, value });
                cost
            }
            Kind::Struct { fields, .. } => fields
                .iter()
                .fold(Range::fixed(STRUCT_CREATE), |cost, field| cost.add(self.cost(&field.value))),
            Kind::Fold(fold) if fold.is_bind() => {
                let cost = self.cost(&fold.range).add(self.cost(&fold.init));
                self.push_bound(&fold.accumulator, &fold.init);
                let cost = cost.add(self.cost(&fold.result));
                self.copy_size(expr, &fold.result);
                self.locals.pop();
                cost
            }
            Kind::Fold(fold) => self.fold(expr, fold),
        }
    }

    fn fold(&mut self, expr: &'e Expr, fold: &'e Fold) -> Range {
        let mut cost = self.cost(&fold.range).add(self.cost(&fold.init));
        self.push_bound(&fold.accumulator, &fold.init);
        let depth = self.locals.len();
        let entries = self.entry_size(&fold.range);
        let list = entries.map_or(matches!(self.ty(&fold.range), Type::List(_)), |e| e.list);
        // Upstream takes what is in the result of a call for `self`: a bound that no schema gives otherwise.
        let whole = match self.declared.contains_key(&fold.range.id) {
            true => None,
            false => self.env.variable("self").map(|(_, declared)| declared),
        };
        let range = self.declared(&fold.range);
        let element = whole.or_else(|| range.and_then(|d| d.element().map(|e| &**e)));
        let key_of = range.filter(|d| matches!(d.shape, Shape::Map(_)) && !list).map(|_| &*KEY);
        let key = (whole.or(key_of), entries.map(|e| e.key));
        let value = (element, entries.map(|e| e.value));
        let (first, second) = match &fold.var2 {
            Some(_) => (key, Some(value)),
            None if list => (value, None),
            None => (key, None),
        };
        for (name, bound) in [(Some(&fold.var), Some(first)), (fold.var2.as_ref(), second)] {
            if let (Some(name), Some((declared, size))) = (name, bound) {
                self.locals.push(Local { name, declared, size, entries: None });
            }
        }
        let round = self.cost(&fold.condition).add(self.cost(&fold.step));
        self.locals.truncate(depth);
        cost = cost.add(self.cost(&fold.result));
        self.locals.pop();
        let count = self.size_or_unknown(&fold.range);
        match fold.init.kind {
            Kind::Literal(_) => {
                if let Some(size) = self.size(&fold.init) {
                    self.sizes.insert(expr.id, size);
                }
            }
            Kind::List(_) | Kind::Map(_) => {
                self.sizes.insert(expr.id, count);
                if let Some(entries) = self.entry_size(&fold.step) {
                    self.entries.insert(expr.id, entries);
                }
            }
            _ => {}
        }
        cost.add(count.times(round))
    }

    fn push_bound(&mut self, name: &'e Name, value: &'e Expr) {
        let entries = self.entry_size(value);
        let size = self.size(value);
        let declared = self.declared(value);
        self.locals.push(Local { name, declared, size, entries });
    }

    fn call(&mut self, expr: &'e Expr, function: &str, target: Option<&'e Expr>, args: &'e [Expr]) -> Range {
        if function == "dyn" && args.len() == 1 {
            let cost = self.cost(&args[0]).add(Range::fixed(1));
            self.copy_size(expr, &args[0]);
            return cost;
        }
        let costs: Vec<Range> = args.iter().map(|arg| self.cost(arg)).collect();
        let nodes: Vec<Arg<'e>> = args.iter().map(|arg| self.arg(arg)).collect();
        let target_cost = target.map_or(Range::fixed(0), |target| self.cost(target));
        let target = target.map(|target| self.arg(target));
        let mut cost = Range { min: u64::MAX, max: 0 };
        let mut result: Option<Range> = None;
        let checked = self.checked;
        let overloads = &checked.overloads[expr.id as usize];
        if overloads.is_empty() {
            return Range::fixed(0);
        }
        for overload in overloads {
            let call = self.function(expr, function, &overload.id, target.as_ref(), &nodes, &costs);
            cost = cost.union(call.cost);
            result = match (result, call.result) {
                (Some(a), Some(b)) => Some(a.union(b)),
                (a, b) => a.or(b),
            };
            if let "index_list" | "index_map" = overload.id.as_str() {
                result = self.entry_size(&args[0]).map(|e| e.value);
                let element = self.declared(&args[0]).and_then(|d| d.element().map(|e| &**e));
                self.declared.insert(expr.id, element);
            }
            result = result.or_else(|| self.size(expr));
        }
        if let Some(result) = result {
            self.sizes.insert(expr.id, result);
        }
        target_cost.add(cost)
    }

    /// The cost of a call of one overload, arguments included.
    fn function(
        &mut self,
        expr: &'e Expr,
        function: &str,
        overload: &str,
        target: Option<&Arg<'e>>,
        args: &[Arg<'e>],
        costs: &[Range],
    ) -> Call {
        let sum = costs.iter().fold(Range::fixed(0), |sum, cost| sum.add(*cost));
        if let Some(call) = functions::extension(function, overload, target, args) {
            return Call { cost: call.cost.add(sum), result: call.result };
        }
        let size = |i: usize| args[i].computed.unwrap_or(Range::UNKNOWN);
        match overload {
            "logical_or" | "logical_and" => {
                // The right side may not be looked at.
                let max = costs[0].add(costs[1]).max;
                Call { cost: Range { min: costs[0].min, max }, result: None }
            }
            "conditional" => {
                let (a, b) = (args[1].expr, args[2].expr);
                if let (Some(a), Some(b)) = (a, b)
                    && let (Some(a), Some(b)) = (self.entry_size(a), self.entry_size(b))
                {
                    self.entries.insert(expr.id, union_entries(a, b));
                }
                Call { cost: costs[0].add(costs[1].union(costs[2])), result: Some(size(1).union(size(2))) }
            }
            "add_string" | "add_bytes" | "add_list" => {
                let result = size(0).add(size(1));
                if let (Some(a), Some(b)) = (args[0].expr, args[1].expr)
                    && let (Some(a), Some(b)) = (self.entry_size(a), self.entry_size(b))
                {
                    self.entries.insert(expr.id, union_entries(a, b));
                }
                let own =
                    if overload == "add_list" { Range::fixed(1) } else { result.scale(STRING_TRAVERSAL) };
                Call { cost: own.add(sum), result: Some(result) }
            }
            _ => {
                let call = functions::standard(overload, target, args);
                Call { cost: call.cost.add(sum), result: call.result }
            }
        }
    }

    fn arg(&mut self, expr: &'e Expr) -> Arg<'e> {
        let accumulator = matches!(&expr.kind, Kind::Ident(name) if **name == *ACCUMULATOR);
        let declared = if accumulator { None } else { self.declared(expr) };
        Arg { expr: Some(expr), ty: self.ty(expr), declared, computed: self.size(expr) }
    }

    fn size(&mut self, expr: &'e Expr) -> Option<Range> {
        if let Some(size) = self.sizes.get(&expr.id) {
            return Some(*size);
        }
        let literal = match &expr.kind {
            Kind::Literal(Value::String(text)) => Some(text.chars().count()),
            Kind::Literal(Value::Bytes(bytes)) => Some(bytes.len()),
            Kind::Literal(Value::Type(_)) => None,
            Kind::Literal(_) => Some(1),
            Kind::List(items) => Some(items.len()),
            Kind::Map(entries) => Some(entries.len()),
            _ => None,
        };
        if let Some(size) = literal {
            return Some(Range::fixed(size as u64));
        }
        if let Some(declared) = self.declared(expr) {
            let size = Range { min: 0, max: declared.max_elements };
            self.sizes.insert(expr.id, size);
            return Some(size);
        }
        if is_scalar(self.ty(expr)) {
            return Some(Range::fixed(1));
        }
        match &expr.kind {
            Kind::Ident(name) => self.local(name).and_then(|local| local.size),
            _ => None,
        }
    }

    fn size_or_unknown(&mut self, expr: &'e Expr) -> Range {
        self.size(expr).unwrap_or(Range::UNKNOWN)
    }

    fn entry_size(&self, expr: &Expr) -> Option<EntrySize> {
        self.entries.get(&expr.id).copied().or_else(|| match &expr.kind {
            Kind::Ident(name) => self.local(name).and_then(|local| local.entries),
            _ => None,
        })
    }

    fn copy_size(&mut self, to: &Expr, from: &'e Expr) {
        if let Some(size) = self.size(from) {
            self.sizes.insert(to.id, size);
        }
        if let Some(entries) = self.entry_size(from) {
            self.entries.insert(to.id, entries);
        }
    }
}

fn union_entries(a: EntrySize, b: EntrySize) -> EntrySize {
    EntrySize { list: a.list, key: a.key.union(b.key), value: a.value.union(b.value) }
}

fn is_scalar(ty: &Type) -> bool {
    match ty {
        Type::Bool | Type::Double | Type::Duration | Type::Int | Type::Timestamp | Type::Uint => true,
        Type::Optional(inner) => is_scalar(inner),
        _ => false,
    }
}
