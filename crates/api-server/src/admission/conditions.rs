//! `matchConditions`: expressions that narrow down which requests a webhook or a policy is about.

use keelson_cel::{Budget, MATCH_CONDITIONS_BUDGET, Value as CelValue};
use serde_json::Value;

use super::expressions::{Asker, BOOL, Compiler, Expression, Facts, Inputs, Names};
use super::items;
use super::versioned::Versioned;

#[derive(Debug, Default)]
pub struct Conditions {
    expressions: Vec<Expression>,
    ignores_failure: bool,
}

impl Conditions {
    pub fn compile(conditions: &Value, names: Names, compiler: &Compiler, ignores_failure: bool) -> Self {
        let of = |condition: &Value| {
            let source = condition["expression"].as_str().unwrap_or_default();
            compiler.compile(source, names, &BOOL)
        };
        Self { expressions: items(conditions).iter().map(of).collect(), ignores_failure }
    }

    pub fn is_empty(&self) -> bool {
        self.expressions.is_empty()
    }

    /// Whether all hold. One that does not settles it, whatever the others fail with; without one, failures
    /// are for the failure policy: an ignored one is no match.
    ///
    /// # Errors
    /// What failed, in upstream's words.
    pub fn hold(&self, inputs: &Inputs<'_>) -> Result<bool, String> {
        let mut budget = Budget::new(MATCH_CONDITIONS_BUDGET);
        let mut problems = Vec::new();
        for expression in &self.expressions {
            match expression.evaluate(inputs, &mut budget) {
                Ok(Ok(CelValue::Bool(true))) => {}
                Ok(Ok(_)) => return Ok(false),
                Ok(Err(problem)) => problems.push(problem),
                Err(exhausted) => {
                    problems = vec![exhausted];
                    break;
                }
            }
        }
        match problems.as_slice() {
            [] => Ok(true),
            _ if self.ignores_failure => Ok(false),
            [one] => Err(one.clone()),
            many => Err(format!("[{}]", many.join(", "))),
        }
    }

    /// The same for a webhook, which has neither variables nor parameters.
    pub fn hold_for(&self, facts: &Facts, seen: &Versioned<'_>, asker: &Asker<'_>) -> Result<bool, String> {
        self.hold(&Inputs::new(facts, seen, None, None, asker, &[]))
    }
}
