//! The type checker: resolves names and overloads, and gives every expression a type.

mod literals;
mod unify;

use crate::ast::{Ast, Expr, Field, Fold, Id, Kind, Name};
use crate::declare::ObjectType;
use crate::env::Env;
use crate::functions::{self, Overload};
use crate::source::Sink;
use crate::types::Type;
use crate::value::Value;
use std::collections::BTreeSet;
use unify::{Mapping, most_general};

/// A tree whose names are resolved.
#[derive(Debug)]
pub(crate) struct Checked {
    pub ast: Ast,
    /// Of each expression.
    pub types: Vec<Type>,
    /// Of each call; more than one where the arguments' types are not settled.
    pub overloads: Vec<Vec<&'static Overload>>,
    /// Variables of the environment that the expression names.
    pub variables: BTreeSet<Name>,
}

pub(crate) fn check(ast: Ast, env: &Env, sink: &mut Sink<'_>) -> Checked {
    let count = ast.positions.len();
    let mut checker = Checker {
        env,
        sink,
        positions: ast.positions,
        types: vec![Type::Error; count],
        overloads: vec![Vec::new(); count],
        variables: BTreeSet::new(),
        scopes: Vec::new(),
        mapping: Mapping::default(),
        free: 0,
    };
    let mut root = ast.root;
    checker.check(&mut root);
    let Checker { mapping, mut types, overloads, variables, positions, .. } = checker;
    for ty in &mut types {
        *ty = mapping.substitute(ty, true);
    }
    let checked = Checked { ast: Ast { root, positions }, types, overloads, variables };
    if sink.is_empty() {
        literals::validate(&checked, sink);
    }
    checked
}

struct Checker<'c, 's> {
    env: &'c Env,
    sink: &'c mut Sink<'s>,
    positions: Vec<u32>,
    types: Vec<Type>,
    overloads: Vec<Vec<&'static Overload>>,
    variables: BTreeSet<Name>,
    /// Names that folds bring, the innermost last.
    scopes: Vec<(Name, Type)>,
    mapping: Mapping,
    free: usize,
}

impl Checker<'_, '_> {
    fn error(&mut self, id: Id, message: impl Into<String>) {
        self.sink.report(self.positions[id as usize], message);
    }

    fn undeclared(&mut self, id: Id, name: &str) -> Type {
        self.error(id, format!("undeclared reference to '{name}' (in container '')"));
        Type::Error
    }

    fn mismatch(&mut self, id: Id, expected: &Type, found: &Type) {
        self.error(id, format!("expected type '{expected}' but found '{found}'"));
    }

    fn type_of(&self, expr: &Expr) -> Type {
        self.types[expr.id as usize].clone()
    }

    fn free_type(&mut self) -> Type {
        self.free += 1;
        Type::Param(format!("_var{}", self.free - 1).into())
    }

    fn check(&mut self, expr: &mut Expr) {
        let id = expr.id;
        let ty = match &mut expr.kind {
            Kind::Invalid => Type::Error,
            Kind::Literal(value) => literal_type(value),
            Kind::Ident(_) => self.ident(expr),
            Kind::Select { .. } => self.select(expr),
            Kind::Call { .. } => self.call(expr),
            Kind::List(_) => self.list(expr),
            Kind::Map(_) => self.map(expr),
            Kind::Struct { name, fields } => self.structure(id, &name.clone(), fields),
            Kind::Fold(fold) => self.fold(fold),
        };
        self.types[id as usize] = ty;
    }

    /// A name's type; a name of the environment or of a type is rewritten to say so.
    fn lookup(&mut self, name: &str) -> Option<(Kind, Type)> {
        let (global, plain) = name.strip_prefix('.').map_or((false, name), |plain| (true, plain));
        if !global && let Some((name, ty)) = self.scopes.iter().rev().find(|(own, _)| **own == *name) {
            return Some((Kind::Ident(name.clone()), ty.clone()));
        }
        if let Some((name, declared)) = self.env.variable(plain) {
            self.variables.insert(name.clone());
            return Some((Kind::Ident(name.clone()), declared.ty()));
        }
        let ty = Type::named(plain)?;
        let value = Value::Type(ty.runtime_name().to_owned().into());
        Some((Kind::Literal(value), Type::Type(Some(ty.into()))))
    }

    fn ident(&mut self, expr: &mut Expr) -> Type {
        let Kind::Ident(name) = &expr.kind else { return Type::Error };
        let name = name.clone();
        match self.lookup(&name) {
            Some((kind, ty)) => {
                expr.kind = kind;
                ty
            }
            None => self.undeclared(expr.id, name.trim_start_matches('.')),
        }
    }

    fn select(&mut self, expr: &mut Expr) -> Type {
        if let Some(name) = expr.qualified_name()
            && let Some((kind, ty)) = self.lookup(&name)
        {
            expr.kind = kind;
            return ty;
        }
        let Kind::Select { operand, field, test_only } = &mut expr.kind else { return Type::Error };
        let ty = self.field(expr.id, operand, &field.clone(), false);
        if *test_only { Type::Bool } else { self.mapping.substitute(&ty, false) }
    }

    /// The type of an operand's field.
    fn field(&mut self, id: Id, operand: &mut Expr, field: &str, optional: bool) -> Type {
        self.check(operand);
        let (target, was_optional) = self.mapping.substitute(&self.type_of(operand), false).unwrap_optional();
        let ty = match &target {
            Type::Map(pair) => pair.1.clone(),
            Type::Object(object) => object.field_type(field).unwrap_or_else(|| {
                self.error(id, format!("undefined field '{field}'"));
                Type::Error
            }),
            Type::Param(_) => {
                self.mapping.assign(&Type::Dyn, &target);
                Type::Dyn
            }
            Type::Opaque(name) if name.starts_with("kubernetes.") => {
                self.error(id, format!("unexpected failed resolution of '{name}'"));
                Type::Error
            }
            other => {
                if !other.is_dyn_or_error() {
                    self.error(id, format!("type '{other}' does not support field selection"));
                }
                Type::Dyn
            }
        };
        if was_optional || optional { Type::optional(ty) } else { ty }
    }

    fn call(&mut self, expr: &mut Expr) -> Type {
        let id = expr.id;
        let Kind::Call { function, target, args } = &mut expr.kind else { return Type::Error };
        if &**function == "_?._"
            && let [operand, field] = &mut args[..]
            && let Kind::Literal(Value::String(name)) = &field.kind
        {
            let name = name.to_string();
            self.types[field.id as usize] = Type::String;
            let ty = self.field(id, operand, &name, true);
            self.overloads[id as usize] = functions::lookup("_?._", false).into_iter().flatten().collect();
            return self.mapping.substitute(&ty, false);
        }
        args.iter_mut().for_each(|arg| self.check(arg));
        let Some(receiver) = target else {
            return match functions::lookup(function, self.env.is_for_mutation()) {
                Some(overloads) => self.resolve(id, &function.clone(), overloads, None, args),
                None => {
                    let name = function.clone();
                    self.undeclared(id, &name)
                }
            };
        };
        // `a.b.c()` is a function in a namespace if there is one of that name.
        if let Some(prefix) = receiver.qualified_name() {
            let qualified = format!("{}.{function}", prefix.trim_start_matches('.'));
            if let Some(overloads) = functions::lookup(&qualified, self.env.is_for_mutation()) {
                *function = qualified.as_str().into();
                *target = None;
                return self.resolve(id, &qualified, overloads, None, args);
            }
        }
        self.check(receiver);
        match functions::lookup(function, self.env.is_for_mutation()) {
            Some(overloads) => self.resolve(id, &function.clone(), overloads, Some(receiver), args),
            None => {
                let name = function.clone();
                self.undeclared(id, &name)
            }
        }
    }

    fn resolve(
        &mut self,
        id: Id,
        name: &str,
        overloads: &'static [Overload],
        target: Option<&Expr>,
        args: &[Expr],
    ) -> Type {
        let given: Vec<Type> = target.into_iter().chain(args).map(|arg| self.type_of(arg)).collect();
        if let "_&&_" | "_||_" = name {
            let wrong: Vec<_> =
                args.iter().zip(&given).filter(|(_, ty)| !self.mapping.assign(ty, &Type::Bool)).collect();
            for (arg, ty) in &wrong {
                self.mismatch(arg.id, &Type::Bool, ty);
            }
            self.overloads[id as usize] = overloads.iter().collect();
            return if wrong.is_empty() { Type::Bool } else { Type::Error };
        }
        let mut result: Option<Type> = None;
        for overload in overloads.iter().filter(|o| o.signature.member == target.is_some()) {
            let mut fresh = Mapping::default();
            for param in overload.signature.args.iter().chain([&overload.signature.result]) {
                self.free_params(&mut fresh, param);
            }
            let wanted: Vec<Type> =
                overload.signature.args.iter().map(|ty| fresh.substitute(ty, false)).collect();
            if !self.mapping.assign_all(&given, &wanted) {
                continue;
            }
            self.overloads[id as usize].push(overload);
            let own = self.mapping.substitute(&fresh.substitute(&overload.signature.result, false), false);
            result = Some(match result {
                None => own,
                Some(first) if first.is_dyn() || first == own => first,
                Some(_) => Type::Dyn,
            });
        }
        result.unwrap_or_else(|| {
            let mut types = given.iter().map(|ty| self.mapping.substitute(ty, true).to_string());
            let receiver = target.and_then(|_| types.next()).map(|ty| ty + ".").unwrap_or_default();
            let signature = format!("{receiver}({})", types.collect::<Vec<_>>().join(", "));
            self.error(id, format!("found no matching overload for '{name}' applied to '{signature}'"));
            Type::Error
        })
    }

    /// Gives each parameter within a type a name of its own.
    fn free_params(&mut self, fresh: &mut Mapping, ty: &Type) {
        if matches!(ty, Type::Param(_)) && fresh.substitute(ty, false) == *ty {
            let free = self.free_type();
            fresh.bind(ty, free);
        }
        for inner in ty.params() {
            self.free_params(fresh, inner);
        }
    }

    /// The type of an item's value: what is within, if it is an optional one.
    fn item_type(&mut self, value: &Expr, optional: bool) -> Type {
        let ty = self.type_of(value);
        if !optional {
            return ty;
        }
        let (inner, was) = ty.unwrap_optional();
        if !was && !inner.is_dyn() {
            self.mismatch(value.id, &Type::optional(inner.clone()), &inner);
        }
        inner
    }

    /// What a literal's items have in common. That they must be of one type is checked apart: not everywhere.
    fn join(&mut self, previous: Option<Type>, current: Type) -> Type {
        match previous {
            None => current,
            Some(previous) if self.mapping.assign(&previous, &current) => {
                most_general(&previous, &current).clone()
            }
            Some(_) => Type::Dyn,
        }
    }

    fn list(&mut self, expr: &mut Expr) -> Type {
        let Kind::List(items) = &mut expr.kind else { return Type::Error };
        let mut joined = None;
        for item in items {
            self.check(&mut item.value);
            let ty = self.item_type(&item.value, item.optional);
            joined = Some(self.join(joined, ty));
        }
        Type::list(joined.unwrap_or_else(|| self.free_type()))
    }

    fn map(&mut self, expr: &mut Expr) -> Type {
        let Kind::Map(entries) = &mut expr.kind else { return Type::Error };
        let (mut key, mut value) = (None, None);
        for entry in entries {
            self.check(&mut entry.key);
            let ty = self.type_of(&entry.key);
            key = Some(self.join(key, ty));
            self.check(&mut entry.value);
            let ty = self.item_type(&entry.value, entry.optional);
            value = Some(self.join(value, ty));
        }
        let key = key.unwrap_or_else(|| self.free_type());
        Type::map(key, value.unwrap_or_else(|| self.free_type()))
    }

    fn structure(&mut self, id: Id, name: &str, fields: &mut [Field]) -> Type {
        let Some(object) = self.struct_type(name) else {
            return match self.lookup(name) {
                Some((_, Type::Type(Some(ty)))) => {
                    self.error(id, format!("'{ty}' is not a message type"));
                    Type::Error
                }
                Some((_, ty)) => {
                    self.error(id, format!("'{ty}' is not a type"));
                    Type::Error
                }
                None => self.undeclared(id, name),
            };
        };
        for field in fields {
            self.check(&mut field.value);
            let wanted = object.field_type(&field.name).unwrap_or_else(|| {
                self.error(field.id, format!("undefined field '{}'", field.name));
                Type::Error
            });
            let given = self.item_type(&field.value, field.optional);
            if !self.mapping.assign(&wanted, &given) {
                let message = format!(
                    "expected type of field '{}' is '{wanted}' but provided type is '{given}'",
                    field.name
                );
                self.error(field.id, message);
            }
        }
        Type::Object(object)
    }

    fn struct_type(&self, name: &str) -> Option<ObjectType> {
        match name {
            _ if !self.env.is_for_mutation() => None,
            "JSONPatch" => Some(ObjectType::json_patch()),
            _ if name == "Object" || name.starts_with("Object.") => Some(ObjectType::open(name)),
            _ => None,
        }
    }

    fn fold(&mut self, fold: &mut Fold) -> Type {
        self.check(&mut fold.range);
        self.check(&mut fold.init);
        let range = self.mapping.substitute(&self.type_of(&fold.range), false);
        let accumulator = self.type_of(&fold.init);
        let depth = self.scopes.len();
        self.scopes.push((fold.accumulator.clone(), accumulator.clone()));
        let (first, second) = match &range {
            Type::List(item) if fold.var2.is_some() => (Type::Int, (**item).clone()),
            Type::List(item) => ((**item).clone(), Type::Dyn),
            Type::Map(pair) => pair.as_ref().clone(),
            Type::Dyn | Type::Error | Type::Param(_) => {
                self.mapping.assign(&Type::Dyn, &range);
                (Type::Dyn, Type::Dyn)
            }
            other => {
                let message = format!(
                    "expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)"
                );
                self.error(fold.range.id, message);
                (Type::Error, Type::Error)
            }
        };
        self.scopes.push((fold.var.clone(), first));
        self.scopes.extend(fold.var2.clone().map(|var| (var, second)));
        for (part, wanted) in [(&mut fold.condition, &Type::Bool), (&mut fold.step, &accumulator)] {
            self.check(part);
            let found = self.type_of(part);
            if !self.mapping.assign(wanted, &found) {
                self.mismatch(part.id, wanted, &found);
            }
        }
        self.scopes.truncate(depth + 1);
        self.check(&mut fold.result);
        self.scopes.truncate(depth);
        self.mapping.substitute(&self.type_of(&fold.result), false)
    }
}

fn literal_type(value: &Value<'_>) -> Type {
    match value {
        Value::Null => Type::Null,
        Value::Bool(_) => Type::Bool,
        Value::Int(_) => Type::Int,
        Value::Uint(_) => Type::Uint,
        Value::Double(_) => Type::Double,
        Value::String(_) => Type::String,
        Value::Bytes(_) => Type::Bytes,
        _ => Type::Error,
    }
}
