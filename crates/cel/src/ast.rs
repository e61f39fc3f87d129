//! The syntax tree.

use crate::value::Value;
use std::sync::Arc;

pub(crate) type Name = Arc<str>;

/// An index into [`Ast::positions`], and into what the checker says of each expression.
pub(crate) type Id = u32;

#[derive(Debug)]
pub(crate) struct Ast {
    pub root: Expr,
    /// Where each expression stands: a code point's index in the source.
    pub positions: Vec<u32>,
}

#[derive(Clone, Debug)]
pub(crate) struct Expr {
    pub id: Id,
    /// The height of the tree below, which bounds every recursion over it.
    pub height: u16,
    pub kind: Kind,
}

#[derive(Clone, Debug)]
pub(crate) enum Kind {
    /// Stands where the parser found an error.
    Invalid,
    Literal(Value<'static>),
    Ident(Name),
    Select {
        operand: Box<Expr>,
        field: Name,
        test_only: bool,
    },
    Call {
        function: Name,
        target: Option<Box<Expr>>,
        args: Vec<Expr>,
    },
    List(Vec<Item>),
    Map(Vec<Entry>),
    Struct {
        name: Name,
        fields: Vec<Field>,
    },
    Fold(Box<Fold>),
}

#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub value: Expr,
    pub optional: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub key: Expr,
    pub value: Expr,
    pub optional: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Field {
    pub id: Id,
    pub name: Name,
    pub value: Expr,
    pub optional: bool,
}

/// What comprehension macros expand to.
#[derive(Clone, Debug)]
pub(crate) struct Fold {
    pub range: Expr,
    pub var: Name,
    /// With it, `var` is the index or key.
    pub var2: Option<Name>,
    pub accumulator: Name,
    pub init: Expr,
    pub condition: Expr,
    pub step: Expr,
    pub result: Expr,
}

/// The accumulator of macros; no source can write it.
pub(crate) const ACCUMULATOR: &str = "@result";

impl Fold {
    /// Whether this only binds a name for `result`.
    pub(crate) fn is_bind(&self) -> bool {
        matches!(&self.range.kind, Kind::List(items) if items.is_empty())
            && matches!(self.condition.kind, Kind::Literal(Value::Bool(false)))
            && &*self.accumulator != ACCUMULATOR
    }
}

impl Expr {
    /// `a.b.c` where nothing but names is selected.
    pub(crate) fn qualified_name(&self) -> Option<String> {
        match &self.kind {
            Kind::Ident(name) => Some(name.to_string()),
            Kind::Select { operand, field, test_only: false } => {
                operand.qualified_name().map(|prefix| format!("{prefix}.{field}"))
            }
            _ => None,
        }
    }

    /// Calls `visit` with this expression and all below it, parents first.
    pub(crate) fn walk<'e>(&'e self, visit: &mut impl FnMut(&'e Expr)) {
        visit(self);
        match &self.kind {
            Kind::Invalid | Kind::Literal(_) | Kind::Ident(_) => {}
            Kind::Select { operand, .. } => operand.walk(visit),
            Kind::Call { target, args, .. } => {
                target.iter().for_each(|t| t.walk(visit));
                args.iter().for_each(|a| a.walk(visit));
            }
            Kind::List(items) => items.iter().for_each(|i| i.value.walk(visit)),
            Kind::Map(entries) => entries.iter().for_each(|e| {
                e.key.walk(visit);
                e.value.walk(visit);
            }),
            Kind::Struct { fields, .. } => fields.iter().for_each(|f| f.value.walk(visit)),
            Kind::Fold(fold) => {
                for part in [&fold.range, &fold.init, &fold.condition, &fold.step, &fold.result] {
                    part.walk(visit);
                }
            }
        }
    }
}
