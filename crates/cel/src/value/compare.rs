//! Equality and order.

use super::{Entries, Items, Key, List, Map, Struct, Text, Value};
use crate::declare::{ListKind, Shape};
use crate::error::EvalError;
use serde_json::Value as Json;
use std::cmp::Ordering;

impl<'a> Value<'a> {
    /// CEL's equality: numbers by their value across types, values of other types never.
    pub fn equals(&self, other: &Value<'a>) -> bool {
        if let Some(order) = self.compare_numbers(other) {
            return order == Some(Ordering::Equal);
        }
        match (self, other) {
            (Value::Null, Value::Null) => true,
            (Value::Bool(a), Value::Bool(b)) => a == b,
            (Value::String(a), Value::String(b)) => **a == **b,
            (Value::Bytes(a), Value::Bytes(b)) => a == b,
            (Value::Duration(a), Value::Duration(b)) => a == b,
            (Value::Timestamp(a), Value::Timestamp(b)) => a == b,
            (Value::List(a), Value::List(b)) => a.equals(b),
            (Value::Map(a), Value::Map(b)) => a.equals(b),
            (Value::Optional(None), Value::Optional(None)) => true,
            (Value::Optional(Some(a)), Value::Optional(Some(b))) => a.equals(b),
            (Value::Type(a), Value::Type(b)) => a == b,
            (Value::Struct(a), Value::Struct(b)) => a.equals(b),
            (Value::Opaque(a), Value::Opaque(b)) => a.equals(b),
            _ => false,
        }
    }

    /// The order of two values of comparable types.
    ///
    /// # Errors
    /// When the types have no order, or with NaN.
    pub(crate) fn compare(&self, other: &Value<'a>) -> Result<Ordering, EvalError> {
        if let Some(order) = self.compare_numbers(other) {
            return order.ok_or_else(|| EvalError::new("NaN values cannot be ordered"));
        }
        Ok(match (self, other) {
            (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
            (Value::String(a), Value::String(b)) => a.as_bytes().cmp(b.as_bytes()),
            (Value::Bytes(a), Value::Bytes(b)) => a.cmp(b),
            (Value::Duration(a), Value::Duration(b)) => a.cmp(b),
            (Value::Timestamp(a), Value::Timestamp(b)) => a.cmp(b),
            _ => return Err(EvalError::no_such_overload()),
        })
    }

    /// `None` where one is no number; `Some(None)` with NaN.
    fn compare_numbers(&self, other: &Value<'a>) -> Option<Option<Ordering>> {
        Some(match (self, other) {
            (Value::Double(a), Value::Double(b)) => a.partial_cmp(b),
            (Value::Double(a), b) => compare_double(*a, b.as_integer()?),
            (a, Value::Double(b)) => compare_double(*b, a.as_integer()?).map(Ordering::reverse),
            (a, b) => Some(a.as_integer()?.cmp(&b.as_integer()?)),
        })
    }

    fn as_integer(&self) -> Option<i128> {
        match self {
            Value::Int(value) => Some((*value).into()),
            Value::Uint(value) => Some((*value).into()),
            _ => None,
        }
    }

    /// Whether both are objects with the same values of these JSON fields.
    pub(super) fn same_keys(&self, other: &Value<'a>, keys: &[String]) -> bool {
        let (Value::Map(a), Value::Map(b)) = (self, other) else { return false };
        keys.iter().all(|key| match (a.get_json_name(key), b.get_json_name(key)) {
            (Some(Ok(a)), Some(Ok(b))) => a.equals(&b),
            (None, None) => true,
            _ => false,
        })
    }
}

fn compare_double(double: f64, integer: i128) -> Option<Ordering> {
    if double.is_nan() {
        return None;
    }
    // Beyond both integer types; within, an i128 holds the whole part exactly.
    if double.abs() >= 2f64.powi(65) {
        return Some(if double > 0.0 { Ordering::Greater } else { Ordering::Less });
    }
    let whole = double.trunc() as i128;
    Some(whole.cmp(&integer).then_with(|| double.fract().partial_cmp(&0.0).unwrap_or(Ordering::Equal)))
}

impl<'a> List<'a> {
    fn equals(&self, other: &List<'a>) -> bool {
        if self.len() != other.len() {
            return false;
        }
        // Lists read by the same schema need no conversion to be found equal.
        if let (Items::Json(a), Items::Json(b)) = (&self.items, &other.items)
            && std::ptr::eq(*a, *b)
        {
            return true;
        }
        let (Ok(a), Ok(b)) = (self.to_vec(), other.to_vec()) else { return false };
        let matched = |find: &dyn Fn(&Value<'a>, &Value<'a>) -> bool| {
            b.iter().all(|item| a.iter().any(|i| find(i, item)))
        };
        match self.kind() {
            ListKind::Atomic => a.iter().zip(&b).all(|(a, b)| a.equals(b)),
            ListKind::Set => matched(&|a, b| a.equals(b)),
            ListKind::Map(keys) => matched(&|a, b| a.same_keys(b, keys) && a.equals(b)),
        }
    }

    pub(crate) fn contains(&self, item: &Value<'a>) -> Result<bool, EvalError> {
        for own in self.iter() {
            if own?.equals(item) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl<'a> Map<'a> {
    fn get_json_name(&self, name: &str) -> Option<Result<Value<'a>, EvalError>> {
        match (&self.declared, crate::escape::escape(name)) {
            (Some(declared), Some(escaped)) if matches!(declared.shape, Shape::Object(_)) => {
                self.get_str(&escaped)
            }
            _ => self.get_str(name),
        }
    }

    fn equals(&self, other: &Map<'a>) -> bool {
        if self.len() != other.len() {
            return false;
        }
        let keys = self.keys();
        let declared = keys.iter().all(|key| match (self.get(key), other.get(key)) {
            (Some(Ok(a)), Some(Ok(b))) => a.equals(&b),
            (None, None) => true,
            _ => false,
        });
        // Fields that no schema declares compare as JSON.
        declared
            && (keys.len() == self.len()
                || match (&self.entries, &other.entries) {
                    (Entries::Json(a), Entries::Json(b)) => a.iter().all(|(name, value)| {
                        self.is_declared(name) || b.get(name).is_none_or(|other| same_json(value, other))
                    }),
                    _ => false,
                })
    }

    fn is_declared(&self, json: &str) -> bool {
        self.declared.is_some_and(|d| d.property(json).is_some())
    }
}

impl<'a> Struct<'a> {
    fn equals(&self, other: &Struct<'a>) -> bool {
        self.type_name == other.type_name
            && self.fields.len() == other.fields.len()
            && self.fields.iter().all(|(name, value)| other.fields.get(name).is_some_and(|o| value.equals(o)))
    }
}

/// Whether two JSON values are equal, numbers by their value.
fn same_json(a: &Json, b: &Json) -> bool {
    match (a, b) {
        (Json::Number(x), Json::Number(y)) => x == y || x.as_f64() == y.as_f64(),
        (Json::Array(x), Json::Array(y)) => {
            x.len() == y.len() && x.iter().zip(y).all(|(x, y)| same_json(x, y))
        }
        (Json::Object(x), Json::Object(y)) => {
            x.len() == y.len() && x.iter().all(|(k, v)| y.get(k).is_some_and(|o| same_json(v, o)))
        }
        (a, b) => a == b,
    }
}

impl Key<'_> {
    fn rank(&self) -> u8 {
        match self {
            Key::Bool(_) => 0,
            Key::Int(_) | Key::Uint(_) => 1,
            Key::String(_) => 2,
        }
    }
}

impl Ord for Key<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        let number = |key: &Key<'_>| match key {
            Key::Int(value) => i128::from(*value),
            Key::Uint(value) => i128::from(*value),
            _ => 0,
        };
        match (self, other) {
            (Key::Bool(a), Key::Bool(b)) => a.cmp(b),
            (Key::String(a), Key::String(b)) => a.as_bytes().cmp(b.as_bytes()),
            _ => self.rank().cmp(&other.rank()).then_with(|| number(self).cmp(&number(other))),
        }
    }
}

impl PartialOrd for Key<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Key<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Key<'_> {}

impl PartialEq for Text<'_> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Text<'_> {}
