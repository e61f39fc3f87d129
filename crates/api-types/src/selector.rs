//! Label and field selectors: their string grammar, the LabelSelector object, and matching.

mod lexer;
mod parse;

use crate::field::{FieldError, child, index};
use crate::names;
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

/// What a selector looks labels up in.
pub trait Labels {
    fn label(&self, key: &str) -> Option<&str>;
}

/// An operator of a requirement. `==` is `Equals`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    Equals,
    NotEquals,
    In,
    NotIn,
    Exists,
    DoesNotExist,
    GreaterThan,
    LessThan,
}

/// One requirement on one label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    pub key: String,
    pub op: Operator,
    /// Sorted and without repetition when parsed from a string.
    pub values: Vec<String>,
}

/// All requirements must hold; none means everything matches, unless it is `nothing()`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
    nothing: bool,
}

/// `field=value` and `field!=value` terms, all of which must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    pub terms: Vec<FieldTerm>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldTerm {
    pub field: String,
    pub equal: bool,
    pub value: String,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SelectorError(pub String);

impl Requirement {
    pub fn matches<L: Labels + ?Sized>(&self, labels: &L) -> bool {
        let value = labels.label(&self.key);
        let has = |v: &str| self.values.iter().any(|x| x == v);
        match self.op {
            Operator::Equals | Operator::In => value.is_some_and(has),
            Operator::NotEquals | Operator::NotIn => !value.is_some_and(has),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan | Operator::LessThan => {
                let left = value.and_then(|v| v.parse::<i64>().ok());
                let right = self.values.first().and_then(|v| v.parse::<i64>().ok());
                match (left, right) {
                    (Some(l), Some(r)) if self.op == Operator::GreaterThan => l > r,
                    (Some(l), Some(r)) => l < r,
                    _ => false,
                }
            }
        }
    }

    /// Upstream's checks on key, operator and values; paths are below `path`.
    pub fn validate(&self, path: &str) -> Vec<FieldError> {
        let mut errs = Vec::new();
        let key_errs = names::qualified_name(&self.key);
        if !key_errs.is_empty() {
            errs.push(FieldError::invalid(child(path, "key"), self.key.as_str(), key_errs.join("; ")));
        }
        let values_path = child(path, "values");
        let count = self.values.len();
        let complaint = match self.op {
            Operator::In | Operator::NotIn if count == 0 => {
                "for 'in', 'notin' operators, values set can't be empty"
            }
            Operator::Equals | Operator::NotEquals if count != 1 => {
                "exact-match compatibility requires one single value"
            }
            Operator::Exists | Operator::DoesNotExist if count != 0 => {
                "values set must be empty for exists and does not exist"
            }
            Operator::GreaterThan | Operator::LessThan if count != 1 => {
                "for 'Gt', 'Lt' operators, exactly one value is required"
            }
            _ => "",
        };
        if !complaint.is_empty() {
            errs.push(FieldError::invalid(values_path.clone(), self.values.clone(), complaint));
        }
        for (i, value) in self.values.iter().enumerate() {
            let numeric = matches!(self.op, Operator::GreaterThan | Operator::LessThan);
            if numeric && value.parse::<i64>().is_err() {
                let detail = "for 'Gt', 'Lt' operators, the value must be an integer";
                errs.push(FieldError::invalid(index(&values_path, i), value.as_str(), detail));
            }
            let value_errs = names::label_value(value);
            if !value_errs.is_empty() {
                let at = format!("{}[{}]", index(&values_path, i), self.key);
                errs.push(FieldError::invalid(at, value.as_str(), value_errs.join("; ")));
            }
        }
        errs
    }
}

impl LabelSelector {
    pub fn everything() -> LabelSelector {
        LabelSelector::default()
    }

    pub fn nothing() -> LabelSelector {
        LabelSelector { requirements: Vec::new(), nothing: true }
    }

    pub fn new(requirements: Vec<Requirement>) -> LabelSelector {
        LabelSelector { requirements, nothing: false }
    }

    /// Parses `a=b,c in (d,e),!f` as `-l` and `?labelSelector=` write it.
    pub fn parse(text: &str) -> Result<LabelSelector, SelectorError> {
        let mut requirements = parse::requirements(text)?;
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(LabelSelector::new(requirements))
    }

    /// From a `LabelSelector` object (`matchLabels`, `matchExpressions`). Absent or null selects nothing,
    /// an empty object everything.
    pub fn from_object(selector: Option<&Value>) -> Result<LabelSelector, SelectorError> {
        let Some(selector) = selector.filter(|v| !v.is_null()) else { return Ok(LabelSelector::nothing()) };
        let mut requirements = Vec::new();
        if let Some(Value::Object(labels)) = selector.get("matchLabels") {
            for (key, value) in labels {
                let values = vec![value.as_str().unwrap_or_default().to_owned()];
                requirements.push(checked(Requirement { key: key.clone(), op: Operator::In, values })?);
            }
        }
        for e in selector.get("matchExpressions").and_then(Value::as_array).into_iter().flatten() {
            let text = |k: &str| e.get(k).and_then(Value::as_str).unwrap_or_default();
            let op = match text("operator") {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => {
                    let quoted = crate::gofmt::quote(other);
                    return Err(SelectorError(format!("{quoted} is not a valid label selector operator")));
                }
            };
            let values = e.get("values").and_then(Value::as_array).into_iter().flatten();
            let values = values.filter_map(Value::as_str).map(str::to_owned).collect();
            requirements.push(checked(Requirement { key: text("key").to_owned(), op, values })?);
        }
        Ok(LabelSelector::new(requirements))
    }

    /// From a plain map of labels, as Services and ReplicationControllers select. An empty one selects
    /// everything: the caller decides what that means.
    pub fn from_map<'a>(labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> LabelSelector {
        let equals = |(k, v): (&str, &str)| Requirement {
            key: k.to_owned(),
            op: Operator::Equals,
            values: vec![v.to_owned()],
        };
        LabelSelector::new(labels.into_iter().map(equals).collect())
    }

    pub fn matches<L: Labels + ?Sized>(&self, labels: &L) -> bool {
        !self.nothing && self.requirements.iter().all(|r| r.matches(labels))
    }

    pub fn is_everything(&self) -> bool {
        !self.nothing && self.requirements.is_empty()
    }

    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }
}

impl FieldSelector {
    pub fn parse(text: &str) -> Result<FieldSelector, SelectorError> {
        parse::field_terms(text).map(|terms| FieldSelector { terms })
    }

    /// `value` gives the field's value; an absent one counts as the empty string, as upstream's set does.
    pub fn matches<'a>(&self, value: impl Fn(&str) -> Option<Cow<'a, str>>) -> bool {
        self.terms.iter().all(|t| (value(&t.field).unwrap_or_default() == t.value) == t.equal)
    }

    /// The value that a field must equal, if a term says so.
    pub fn requires_exact(&self, field: &str) -> Option<&str> {
        self.terms.iter().find(|t| t.equal && t.field == field).map(|t| t.value.as_str())
    }

    pub fn is_everything(&self) -> bool {
        self.terms.is_empty()
    }
}

impl Labels for Map<String, Value> {
    fn label(&self, key: &str) -> Option<&str> {
        self.get(key)?.as_str()
    }
}

impl Labels for Value {
    fn label(&self, key: &str) -> Option<&str> {
        self.get(key)?.as_str()
    }
}

impl Labels for BTreeMap<String, String> {
    fn label(&self, key: &str) -> Option<&str> {
        self.get(key).map(String::as_str)
    }
}

impl<L: Labels> Labels for Option<L> {
    fn label(&self, key: &str) -> Option<&str> {
        self.as_ref()?.label(key)
    }
}

impl<L: Labels + ?Sized> Labels for &L {
    fn label(&self, key: &str) -> Option<&str> {
        (**self).label(key)
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.values.first().map(String::as_str).unwrap_or_default();
        match self.op {
            Operator::Equals => write!(f, "{}={value}", self.key),
            Operator::NotEquals => write!(f, "{}!={value}", self.key),
            Operator::In => write!(f, "{} in ({})", self.key, self.values.join(",")),
            Operator::NotIn => write!(f, "{} notin ({})", self.key, self.values.join(",")),
            Operator::Exists => f.write_str(&self.key),
            Operator::DoesNotExist => write!(f, "!{}", self.key),
            Operator::GreaterThan => write!(f, "{}>{value}", self.key),
            Operator::LessThan => write!(f, "{}<{value}", self.key),
        }
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, r) in self.requirements.iter().enumerate() {
            write!(f, "{}{r}", if i > 0 { "," } else { "" })?;
        }
        Ok(())
    }
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, t) in self.terms.iter().enumerate() {
            let sep = if i > 0 { "," } else { "" };
            let op = if t.equal { "=" } else { "!=" };
            write!(f, "{sep}{}{op}{}", t.field, parse::escape(&t.value))?;
        }
        Ok(())
    }
}

fn checked(requirement: Requirement) -> Result<Requirement, SelectorError> {
    let errs = requirement.validate("");
    if errs.is_empty() { Ok(requirement) } else { Err(SelectorError(crate::field::aggregate(&errs))) }
}
