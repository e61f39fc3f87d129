//! The functions: the specification's and those of Kubernetes' extension libraries, each overload one row.

mod authz;
mod convert;
mod format;
mod lists;
mod named;
mod net;
mod operators;
mod optional;
mod quantity;
mod re2;
mod semver;
mod strings;
mod times;
mod url;

use crate::error::EvalError;
use crate::types::{Signature, Type};
use crate::value::Value;
use std::collections::HashMap;
use std::sync::LazyLock;

pub(crate) use convert::convert;
pub(crate) use format::check as check_format;
pub use named::NamedFormat;
pub(crate) use operators::add;
pub(crate) use re2::compile as compile_regex;
pub use url::Url;

/// Strings that functions build stay below this many bytes.
pub(crate) const MAX_TEXT: usize = 16 * 1024 * 1024;

pub(crate) type Outcome<'a> = Result<Value<'a>, EvalError>;
pub(crate) type Call = for<'a> fn(&[Value<'a>]) -> Outcome<'a>;

/// Function, overload, signature, what it does. Arguments have the signature's types when it is called.
pub(crate) type Row = (&'static str, &'static str, &'static str, Call);

#[derive(Debug)]
pub(crate) struct Overload {
    pub id: String,
    pub signature: Signature,
    pub call: Call,
    /// Known in environments for mutations alone.
    pub mutation: bool,
}

pub(crate) type Function = Vec<Overload>;

static FUNCTIONS: LazyLock<HashMap<String, Function>> = LazyLock::new(|| {
    let mut functions: HashMap<String, Function> = HashMap::new();
    let mut declare = |function: &str, id: &str, signature: &str, call: Call| {
        let overload = Overload {
            id: id.to_owned(),
            signature: Signature::parse(signature),
            call,
            mutation: function.starts_with("jsonpatch."),
        };
        functions.entry(function.to_owned()).or_default().push(overload);
    };
    let tables = [
        operators::ROWS,
        convert::ROWS,
        times::ROWS,
        strings::ROWS,
        re2::ROWS,
        lists::ROWS,
        optional::ROWS,
        url::ROWS,
        net::ROWS,
        quantity::ROWS,
        semver::ROWS,
        named::ROWS,
        authz::ROWS,
    ];
    for (function, id, signature, call) in tables.into_iter().flatten() {
        declare(function, id, signature, *call);
    }
    operators::comparisons(&mut declare);
    lists::comparable(&mut declare);
    named::constants(&mut declare);
    functions
});

/// The overloads of a function, in the order in which they are tried.
pub(crate) fn lookup(name: &str, mutation: bool) -> Option<&'static Function> {
    let function = FUNCTIONS.get(name)?;
    (mutation || function.iter().any(|o| !o.mutation)).then_some(function)
}

impl Overload {
    /// Whether values of these types may be given to the overload.
    pub(crate) fn accepts(&self, args: &[Value<'_>]) -> bool {
        args.len() == self.signature.args.len()
            && self.signature.args.iter().zip(args).all(|(ty, value)| takes(ty, value))
    }
}

/// Whether a value may be given where a type is asked for; of a list, its first item tells.
fn takes(ty: &Type, value: &Value<'_>) -> bool {
    match (ty, value) {
        (Type::Dyn | Type::Param(_), _) => true,
        (Type::List(item), Value::List(list)) => match list.get(0) {
            Some(Ok(first)) => takes(item, &first),
            _ => true,
        },
        (Type::Optional(item), Value::Optional(Some(inner))) => takes(item, inner),
        (Type::Type(_), Value::Type(_)) => true,
        (ty, value) => ty.runtime_name() == value.type_name(),
    }
}

/// What a body answers to values of types that its overload does not take.
pub(crate) fn mismatch<'a>() -> Outcome<'a> {
    Err(EvalError::no_such_overload())
}

pub(crate) fn fail<'a>(message: impl Into<String>) -> Outcome<'a> {
    Err(EvalError::new(message))
}

/// A string that a function built, unless it became too long.
pub(crate) fn text<'a>(text: String) -> Outcome<'a> {
    if text.len() > MAX_TEXT { fail("string is too long") } else { Ok(text.into()) }
}
