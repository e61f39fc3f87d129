//! Named expressions that later ones use as `variables.NAME`, each evaluated once, when it is first asked for.

use crate::declare::Declared;
use crate::env::{Activation, Env, Program};
use crate::error::{Budget, EvalError, PER_CALL_LIMIT};
use crate::source::CompileErrors;
use crate::types::Type;
use crate::value::Value;
use std::cell::{Cell, OnceCell};
use std::sync::Arc;

const VARIABLES: &str = "variables";
/// Variables that use one another deeper than this fail.
const MAX_DEPTH: u32 = 64;

/// Expressions in the order in which they were declared; each may use those before it.
#[derive(Clone, Debug)]
pub struct Composition {
    env: Env,
    variables: Vec<(Arc<str>, Result<Program, CompileErrors>)>,
}

/// The variables of one evaluation, over what the environment's own variables stand for.
pub struct Scope<'s, 'a> {
    composition: &'s Composition,
    outer: &'s dyn Activation<'a>,
    values: Vec<OnceCell<Result<Value<'a>, EvalError>>>,
    cost: Cell<u64>,
    depth: Cell<u32>,
}

impl Composition {
    pub fn new(env: &Env) -> Composition {
        let mut composition = Composition { env: env.clone(), variables: Vec::new() };
        composition.declare();
        composition
    }

    /// Compiles a variable. One that does not compile is known all the same: what uses it fails when evaluated.
    ///
    /// # Errors
    /// What is wrong with the expression.
    pub fn add(&mut self, name: &str, source: &str) -> Result<(), CompileErrors> {
        let outcome = self.env.compile(source);
        self.variables.push((name.into(), outcome.clone()));
        self.declare();
        outcome.map(drop)
    }

    /// The environment with all variables so far.
    pub fn env(&self) -> &Env {
        &self.env
    }

    pub fn scope<'s, 'a>(&'s self, outer: &'s dyn Activation<'a>) -> Scope<'s, 'a> {
        let values = self.variables.iter().map(|_| OnceCell::new()).collect();
        Scope { composition: self, outer, values, cost: Cell::new(0), depth: Cell::new(0) }
    }

    fn declare(&mut self) {
        let fields = self.variables.iter().map(|(name, program)| {
            let ty = program.as_ref().map_or(Type::Dyn, |program| program.output_type().clone());
            (name.clone(), Declared::of(ty))
        });
        let declared = Declared::object("kubernetes.variables", fields);
        self.env = self.env.extend().variable(VARIABLES, declared).build();
    }
}

impl<'a> Scope<'_, 'a> {
    /// What variables cost since this was last asked. Evaluations that use them do not count it.
    pub fn take_cost(&self) -> u64 {
        self.cost.take()
    }

    fn evaluate(&self, name: &str, program: &Result<Program, CompileErrors>) -> Result<Value<'a>, EvalError> {
        let program = program.as_ref().map_err(|errors| {
            EvalError::new(format!(
                "composited variable {name:?} fails to compile: compilation failed: {errors}"
            ))
        })?;
        if self.depth.get() >= MAX_DEPTH {
            return Err(EvalError::new(format!("composited variable {name:?} is nested too deeply")));
        }
        self.depth.set(self.depth.get() + 1);
        let mut budget = Budget::new(PER_CALL_LIMIT);
        let value = program.evaluate(self, &mut budget);
        self.depth.set(self.depth.get() - 1);
        self.cost.set(self.cost.get().saturating_add(PER_CALL_LIMIT - budget.remaining()));
        value.map_err(|error| {
            EvalError::new(format!("composited variable {name:?} fails to evaluate: {error}"))
        })
    }
}

impl<'a> Activation<'a> for Scope<'_, 'a> {
    fn resolve(&self, name: &str) -> Option<Result<Value<'a>, EvalError>> {
        self.outer.resolve(name)
    }

    fn resolve_field(&self, name: &str, field: &str) -> Option<Result<Value<'a>, EvalError>> {
        if name != VARIABLES {
            return self.outer.resolve_field(name, field);
        }
        // A later variable of the same name hides the earlier.
        let at = self.composition.variables.iter().rposition(|(own, _)| **own == *field)?;
        let (own, program) = &self.composition.variables[at];
        if let Some(value) = self.values[at].get() {
            return Some(value.clone());
        }
        let value = self.evaluate(own, program);
        Some(self.values[at].get_or_init(|| value).clone())
    }
}
