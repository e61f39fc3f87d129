//! Environments, in which expressions are compiled, and the programs that come of it.

use crate::ast::Name;
use crate::check::{self, Checked};
use crate::declare::Declared;
use crate::error::{Budget, EvalError};
use crate::estimate::{self, Range};
use crate::eval::Machine;
use crate::parser;
use crate::plan::{self, Node};
use crate::source::{CompileErrors, Sink};
use crate::types::Type;
use crate::value::Value;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The variables that expressions may name. The libraries are those of Kubernetes 1.36.
#[derive(Clone, Debug, Default)]
pub struct Env {
    variables: BTreeMap<Name, Arc<Declared>>,
    mutation: bool,
}

#[derive(Clone, Debug, Default)]
pub struct EnvBuilder(Env);

/// An expression ready to be evaluated; cheap to clone.
#[derive(Clone, Debug)]
pub struct Program(Arc<Compiled>);

#[derive(Debug)]
struct Compiled {
    source: String,
    output: Type,
    variables: Vec<Name>,
    node: Node,
    estimate: Range,
}

/// What variables stand for in one evaluation.
pub trait Activation<'a> {
    /// The value of a variable.
    fn resolve(&self, name: &str) -> Option<Result<Value<'a>, EvalError>>;

    /// The value of a variable's field, where it is computed only when an expression asks for it.
    fn resolve_field(&self, _name: &str, _field: &str) -> Option<Result<Value<'a>, EvalError>> {
        None
    }
}

/// An activation of values at hand.
#[derive(Clone, Debug, Default)]
pub struct Variables<'a>(Vec<(Cow<'static, str>, Value<'a>)>);

impl Env {
    /// An environment without variables, to which some are added.
    pub fn builder() -> EnvBuilder {
        EnvBuilder::default()
    }

    /// A builder that starts from this environment.
    pub fn extend(&self) -> EnvBuilder {
        EnvBuilder(self.clone())
    }

    /// Parses and checks an expression. The program's estimate is of the sizes that the variables' types allow.
    ///
    /// # Errors
    /// All that is wrong with it, printed as upstream prints it.
    pub fn compile(&self, source: &str) -> Result<Program, CompileErrors> {
        let mut sink = Sink::new(source);
        let ast = parser::parse(source, &mut sink);
        if !sink.is_empty() {
            return Err(sink.into_errors());
        }
        let checked = check::check(ast, self, &mut sink);
        if sink.is_empty() { Ok(Program::new(source, &checked, self)) } else { Err(sink.into_errors()) }
    }

    pub(crate) fn variable(&self, name: &str) -> Option<(&Name, &Declared)> {
        self.variables.get_key_value(name).map(|(name, declared)| (name, &**declared))
    }

    pub(crate) fn is_for_mutation(&self) -> bool {
        self.mutation
    }
}

impl EnvBuilder {
    /// Declares a variable, or declares it anew.
    #[must_use]
    pub fn variable(mut self, name: &str, declared: impl Into<Arc<Declared>>) -> Self {
        self.0.variables.insert(name.into(), declared.into());
        self
    }

    /// Lets expressions build `Object{}`, `Object.spec{}` and `JSONPatch{}`, and call `jsonpatch.escapeKey`.
    #[must_use]
    pub fn mutation(mut self) -> Self {
        self.0.mutation = true;
        self
    }

    pub fn build(self) -> Env {
        self.0
    }
}

impl Program {
    fn new(source: &str, checked: &Checked, env: &Env) -> Program {
        Program(Arc::new(Compiled {
            source: source.to_owned(),
            output: checked.types[checked.ast.root.id as usize].clone(),
            variables: checked.variables.iter().cloned().collect(),
            node: plan::plan(checked),
            estimate: estimate::estimate(checked, env),
        }))
    }

    pub fn source(&self) -> &str {
        &self.0.source
    }

    /// The type of the result; [`Type::Dyn`] where only evaluation tells.
    pub fn output_type(&self) -> &Type {
        &self.0.output
    }

    /// Whether the expression names a variable.
    pub fn references(&self, variable: &str) -> bool {
        self.0.variables.iter().any(|name| **name == *variable)
    }

    /// The least and the most that an evaluation can cost.
    pub fn estimate(&self) -> Range {
        self.0.estimate
    }

    /// Evaluates the expression; what it costs, even if it fails, is taken from the budget.
    ///
    /// # Errors
    /// [`EvalError`]; see its kinds.
    pub fn evaluate<'a>(
        &self,
        activation: &dyn Activation<'a>,
        budget: &mut Budget,
    ) -> Result<Value<'a>, EvalError> {
        let mut machine = Machine::new(activation, budget.remaining());
        let outcome = machine.eval(&self.0.node);
        budget.spend(machine.cost())?;
        outcome
    }
}

impl<'a> Variables<'a> {
    pub fn new() -> Self {
        Variables::default()
    }

    #[must_use]
    pub fn with(mut self, name: impl Into<Cow<'static, str>>, value: Value<'a>) -> Self {
        self.0.push((name.into(), value));
        self
    }
}

impl<'a> Activation<'a> for Variables<'a> {
    fn resolve(&self, name: &str) -> Option<Result<Value<'a>, EvalError>> {
        self.0.iter().rev().find(|(own, _)| own == name).map(|(_, value)| Ok(value.clone()))
    }
}
