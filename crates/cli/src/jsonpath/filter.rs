//! Filters: `?(@.a=="b")`, `?(@.a)`.

use std::cmp::Ordering;

use serde_json::Value;

use super::Operand;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Filter {
    Exists(Operand),
    Compare(Operand, Comparison, Operand),
}

impl Filter {
    pub(super) fn matches(&self, root: &Value, node: &Value) -> bool {
        match self {
            Filter::Exists(operand) => !operand.select(root, node).is_empty(),
            Filter::Compare(left, comparison, right) => {
                let (left, right) = (left.select(root, node), right.select(root, node));
                match (left.first(), right.first()) {
                    (Some(left), Some(right)) => comparison.holds(left, right),
                    _ => false,
                }
            }
        }
    }
}

impl Comparison {
    fn holds(self, left: &Value, right: &Value) -> bool {
        match self {
            Comparison::Equal => equal(left, right),
            Comparison::NotEqual => !equal(left, right),
            Comparison::Less => order(left, right) == Some(Ordering::Less),
            Comparison::Greater => order(left, right) == Some(Ordering::Greater),
            Comparison::LessOrEqual => matches!(order(left, right), Some(Ordering::Less | Ordering::Equal)),
            Comparison::GreaterOrEqual => {
                matches!(order(left, right), Some(Ordering::Greater | Ordering::Equal))
            }
        }
    }
}

fn equal(left: &Value, right: &Value) -> bool {
    left == right || order(left, right) == Some(Ordering::Equal)
}

fn order(left: &Value, right: &Value) -> Option<Ordering> {
    match (left, right) {
        (Value::Number(a), Value::Number(b)) => a.as_f64()?.partial_cmp(&b.as_f64()?),
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        _ => None,
    }
}
