//! Reading objects for validation: a value together with its field path, and the list of errors
//! that checks add to.
//!
//! A cursor ([`At`]) never fails: what is absent or of the wrong type reads as the zero value, as a
//! decoded Go struct would hold it. Types are the schema's business and checked before.

use std::fmt::{self, Display};
use std::rc::Rc;

use keelson_api_types::quantity::Quantity;
use keelson_api_types::{FieldError, FieldErrorKind};
use serde_json::{Map, Value};

static NULL: Value = Value::Null;

/// A field path, only printed when an error needs it. Most are of scalars that are fine: what is shared with paths below
/// is only made for what has something below.
#[derive(Clone, Default)]
pub struct Path<'a> {
    shared: Option<Rc<Step<'a>>>,
    last: Option<Segment<'a>>,
}

struct Step<'a> {
    parent: Option<Rc<Step<'a>>>,
    segment: Segment<'a>,
}

#[derive(Clone, Copy)]
enum Segment<'a> {
    Field(&'a str),
    Index(usize),
    Key(&'a str),
}

impl<'a> Path<'a> {
    pub fn of(names: &[&'a str]) -> Self {
        names.iter().fold(Self::default(), |path, name| path.field(name))
    }

    fn push(&self, segment: Segment<'a>) -> Self {
        Self { shared: self.to_shared(), last: Some(segment) }
    }

    fn to_shared(&self) -> Option<Rc<Step<'a>>> {
        match self.last {
            Some(segment) => Some(Rc::new(Step { parent: self.shared.clone(), segment })),
            None => self.shared.clone(),
        }
    }

    /// The path of this value.
    fn of_value(self, value: &Value) -> Self {
        match value {
            Value::Object(_) | Value::Array(_) => Self { shared: self.to_shared(), last: None },
            _ => self,
        }
    }

    pub fn field(&self, name: &'a str) -> Self {
        self.push(Segment::Field(name))
    }

    pub fn index(&self, index: usize) -> Self {
        self.push(Segment::Index(index))
    }

    pub fn key(&self, key: &'a str) -> Self {
        self.push(Segment::Key(key))
    }

    pub fn is_root(&self) -> bool {
        self.shared.is_none() && self.last.is_none()
    }
}

impl Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(last) = &self.last else {
            return self.shared.as_ref().map_or(Ok(()), |step| step.fmt(f));
        };
        last.fmt_after(self.shared.as_deref(), f)
    }
}

impl Step<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.segment.fmt_after(self.parent.as_deref(), f)
    }
}

impl Segment<'_> {
    fn fmt_after(&self, parent: Option<&Step<'_>>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = parent {
            parent.fmt(f)?;
        }
        match self {
            Self::Field(name) if parent.is_none() => f.write_str(name),
            Self::Field(name) => write!(f, ".{name}"),
            Self::Index(index) => write!(f, "[{index}]"),
            Self::Key(key) => write!(f, "[{key}]"),
        }
    }
}

/// A value and where it is.
#[derive(Clone)]
pub struct At<'a> {
    pub value: &'a Value,
    pub path: Path<'a>,
}

impl<'a> At<'a> {
    pub fn root(value: &'a Value) -> Self {
        Self { value, path: Path::default() }
    }

    /// The same value, reported under another path.
    pub fn under(&self, path: Path<'a>) -> Self {
        Self { value: self.value, path }
    }

    /// A member; null when absent.
    pub fn f(&self, name: &'a str) -> Self {
        Self::of(self.value.get(name).unwrap_or(&NULL), self.path.field(name))
    }

    fn of(value: &'a Value, path: Path<'a>) -> Self {
        Self { value, path: path.of_value(value) }
    }

    /// A member of a member.
    pub fn dig(&self, names: &[&'a str]) -> Self {
        names.iter().fold(self.clone(), |at, name| at.f(name))
    }

    /// A member if it is there and not null.
    pub fn get(&self, name: &'a str) -> Option<Self> {
        match self.value.get(name) {
            None | Some(Value::Null) => None,
            Some(value) => Some(Self::of(value, self.path.field(name))),
        }
    }

    pub fn at(&self, index: usize) -> Self {
        Self::of(self.value.get(index).unwrap_or(&NULL), self.path.index(index))
    }

    /// The elements of a list.
    pub fn each(&self) -> impl Iterator<Item = At<'a>> + use<'a> {
        let path = self.path.clone();
        let items = self.value.as_array().map_or(&[][..], Vec::as_slice);
        items.iter().enumerate().map(move |(i, value)| At::of(value, path.index(i)))
    }

    /// The entries of a map, each under its key.
    pub fn entries(&self) -> impl Iterator<Item = (&'a str, At<'a>)> + use<'a> {
        let path = self.path.clone();
        self.value
            .as_object()
            .into_iter()
            .flatten()
            .map(move |(key, value)| (key.as_str(), At::of(value, path.key(key))))
    }

    pub fn map(&self) -> Option<&'a Map<String, Value>> {
        self.value.as_object()
    }

    pub fn has(&self) -> bool {
        !self.value.is_null()
    }

    pub fn s(&self) -> &'a str {
        self.value.as_str().unwrap_or_default()
    }

    pub fn i(&self) -> i64 {
        self.value.as_i64().unwrap_or_default()
    }

    pub fn b(&self) -> bool {
        self.value.as_bool().unwrap_or_default()
    }

    pub fn opt_i(&self) -> Option<i64> {
        self.value.as_i64()
    }

    pub fn opt_b(&self) -> Option<bool> {
        self.value.as_bool()
    }

    /// The elements of a list of strings.
    pub fn strings(&self) -> Vec<&'a str> {
        self.value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
    }

    pub fn len(&self) -> usize {
        match self.value {
            Value::Array(items) => items.len(),
            Value::Object(map) => map.len(),
            Value::String(s) => s.len(),
            _ => 0,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn quantity(&self) -> Option<Quantity> {
        quantity(self.value)
    }
}

/// A quantity as it may stand in JSON: a string or a number.
pub fn quantity(value: &Value) -> Option<Quantity> {
    match value {
        Value::String(text) => Quantity::parse(text).ok(),
        Value::Number(number) => Quantity::parse(&number.to_string()).ok(),
        _ => None,
    }
}

/// What a validation found, in the order found.
#[derive(Default)]
pub struct Errors(Vec<FieldError>);

impl Errors {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn into_vec(self) -> Vec<FieldError> {
        self.0
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn extend(&mut self, errors: Vec<FieldError>) {
        self.0.extend(errors);
    }

    pub fn truncate(&mut self, len: usize) {
        self.0.truncate(len);
    }

    pub fn required(&mut self, path: &Path<'_>, detail: impl Into<String>) {
        self.0.push(FieldError::required(path.to_string(), detail));
    }

    pub fn invalid(&mut self, at: &At<'_>, detail: impl Into<String>) {
        self.invalid_value(&at.path, at.value.clone(), detail);
    }

    /// For a value other than the one at the path.
    pub fn invalid_value(&mut self, path: &Path<'_>, value: impl Into<Value>, detail: impl Into<String>) {
        self.0.push(FieldError::invalid(path.to_string(), value.into(), detail));
    }

    /// An `Invalid` whose value would only be noise.
    pub fn invalid_without_value(&mut self, path: &Path<'_>, detail: impl Into<String>) {
        self.0.push(FieldError::new(FieldErrorKind::Invalid, path.to_string(), None, detail));
    }

    pub fn forbidden(&mut self, path: &Path<'_>, detail: impl Into<String>) {
        self.0.push(FieldError::forbidden(path.to_string(), detail));
    }

    pub fn duplicate(&mut self, path: &Path<'_>, value: impl Into<Value>) {
        self.0.push(FieldError::duplicate(path.to_string(), value.into()));
    }

    /// Replaces the detail of the error just added.
    pub fn detail_last(&mut self, detail: &str) {
        if let Some(last) = self.0.last_mut() {
            last.detail = detail.to_owned();
        }
    }

    /// Moves the error just added to another path.
    pub fn path_last(&mut self, path: &Path<'_>) {
        if let Some(last) = self.0.last_mut() {
            last.path = path.to_string();
        }
    }

    pub fn not_found(&mut self, path: &Path<'_>, value: impl Into<Value>) {
        self.0.push(FieldError::not_found(path.to_string(), value.into()));
    }

    pub fn not_supported(&mut self, at: &At<'_>, valid: &[&str]) {
        // An absent string is an empty one, as in a decoded struct.
        let value = if at.value.is_null() { Value::from("") } else { at.value.clone() };
        self.0.push(FieldError::not_supported(at.path.to_string(), value, valid));
    }

    pub fn too_long(&mut self, path: &Path<'_>, max: usize) {
        self.0.push(FieldError::too_long(path.to_string(), max));
    }

    pub fn too_many(&mut self, path: &Path<'_>, actual: usize, max: usize) {
        self.0.push(FieldError::too_many(path.to_string(), actual, max));
    }

    /// One `Invalid` per message.
    pub fn messages<I: Into<String>>(&mut self, at: &At<'_>, messages: impl IntoIterator<Item = I>) {
        for message in messages {
            self.invalid(at, message);
        }
    }
}
