//! Why an evaluation failed, and the budget that bounds it.

use std::sync::Arc;

/// The most that one evaluation may cost: about a tenth of a second.
pub const PER_CALL_LIMIT: u64 = 1_000_000;
/// What all rules of one object, or all expressions of one policy binding, may cost together.
pub const RUNTIME_BUDGET: u64 = 10_000_000;
/// What the match conditions of one webhook or policy binding may cost together.
pub const MATCH_CONDITIONS_BUDGET: u64 = 2_500_000;
/// The highest estimate that a single rule of a CRD may have.
pub const ESTIMATED_LIMIT: u64 = 10_000_000;
/// The highest estimate that all rules of a CRD may have together.
pub const ESTIMATED_CRD_LIMIT: u64 = 100_000_000;
/// The longest message, in bytes, that a message expression may make.
pub const MAX_MESSAGE_SIZE: usize = 5 * 1024;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvalError {
    /// What the expression did is an error: a missing key, an overflow, a wrong type.
    #[error("{0}")]
    Failed(Arc<str>),
    /// This evaluation alone cost more than [`PER_CALL_LIMIT`].
    #[error("operation cancelled: actual cost limit exceeded")]
    CallLimit,
    /// The budget did not cover the evaluation.
    #[error("operation cancelled: cost budget exhausted")]
    OutOfBudget,
}

/// What evaluations may still cost. An evaluation that it does not cover empties it.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    remaining: u64,
}

impl Budget {
    pub fn new(cost: u64) -> Budget {
        Budget { remaining: cost }
    }

    pub fn remaining(&self) -> u64 {
        self.remaining
    }

    /// Takes a cost.
    ///
    /// # Errors
    /// [`EvalError::OutOfBudget`] when less than it remains; then nothing does.
    pub fn spend(&mut self, cost: u64) -> Result<(), EvalError> {
        let left = self.remaining.checked_sub(cost);
        self.remaining = left.unwrap_or(0);
        left.map(drop).ok_or(EvalError::OutOfBudget)
    }
}

impl EvalError {
    pub fn new(message: impl Into<String>) -> EvalError {
        EvalError::Failed(message.into().into())
    }

    pub(crate) fn no_such_overload() -> EvalError {
        EvalError::new("no such overload")
    }

    /// Whether a dynamic value had a type that the operation does not take.
    pub fn is_no_such_overload(&self) -> bool {
        matches!(self, EvalError::Failed(message) if message.starts_with("no such overload"))
    }

    /// Whether nothing more may be evaluated, not even what would absorb an error.
    pub fn is_limit(&self) -> bool {
        !matches!(self, EvalError::Failed(_))
    }
}
