//! Types as the checker sees them.

use crate::declare::ObjectType;
use std::fmt;
use std::sync::Arc;

/// The type of an expression or variable. Prints as upstream's messages name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Type {
    /// Checked when evaluated.
    Dyn,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    Duration,
    Timestamp,
    List(Arc<Type>),
    Map(Arc<(Type, Type)>),
    Optional(Arc<Type>),
    /// The type of types.
    Type(Option<Arc<Type>>),
    /// An object with declared fields; equal by name.
    Object(ObjectType),
    /// A type with functions but no fields.
    Opaque(&'static str),
    /// A type that a use settles.
    Param(Arc<str>),
    /// Stands where an error was reported.
    Error,
}

impl Type {
    pub const QUANTITY: Type = Type::Opaque("kubernetes.Quantity");
    pub const SEMVER: Type = Type::Opaque("kubernetes.Semver");
    pub const URL: Type = Type::Opaque("kubernetes.URL");
    pub const FORMAT: Type = Type::Opaque("kubernetes.NamedFormat");
    pub const IP: Type = Type::Opaque("net.IP");
    pub const CIDR: Type = Type::Opaque("net.CIDR");
    pub const AUTHORIZER: Type = Type::Opaque("kubernetes.authorization.Authorizer");
    pub const PATH_CHECK: Type = Type::Opaque("kubernetes.authorization.PathCheck");
    pub const GROUP_CHECK: Type = Type::Opaque("kubernetes.authorization.GroupCheck");
    pub const RESOURCE_CHECK: Type = Type::Opaque("kubernetes.authorization.ResourceCheck");
    pub const DECISION: Type = Type::Opaque("kubernetes.authorization.Decision");

    pub fn list(item: Type) -> Type {
        Type::List(Arc::new(item))
    }

    pub fn map(key: Type, value: Type) -> Type {
        Type::Map(Arc::new((key, value)))
    }

    pub fn optional(value: Type) -> Type {
        Type::Optional(Arc::new(value))
    }

    pub(crate) fn is_dyn(&self) -> bool {
        matches!(self, Type::Dyn)
    }

    pub(crate) fn is_dyn_or_error(&self) -> bool {
        matches!(self, Type::Dyn | Type::Error)
    }

    /// The type within an optional, and whether it was one.
    pub(crate) fn unwrap_optional(self) -> (Type, bool) {
        match self {
            Type::Optional(inner) => ((*inner).clone(), true),
            other => (other, false),
        }
    }

    pub(crate) fn params(&self) -> Vec<&Type> {
        match self {
            Type::List(item) | Type::Optional(item) | Type::Type(Some(item)) => vec![item],
            Type::Map(pair) => vec![&pair.0, &pair.1],
            _ => Vec::new(),
        }
    }

    /// The same type with other parameters.
    pub(crate) fn with_params(&self, mut f: impl FnMut(&Type) -> Type) -> Type {
        match self {
            Type::List(item) => Type::list(f(item)),
            Type::Optional(item) => Type::optional(f(item)),
            Type::Type(Some(item)) => Type::Type(Some(Arc::new(f(item)))),
            Type::Map(pair) => Type::map(f(&pair.0), f(&pair.1)),
            other => other.clone(),
        }
    }

    /// A type that an expression names, for `type(x) == int` and the like.
    pub(crate) fn named(name: &str) -> Option<Type> {
        Some(match name {
            "bool" => Type::Bool,
            "bytes" => Type::Bytes,
            "double" => Type::Double,
            "google.protobuf.Duration" => Type::Duration,
            "dyn" => Type::Dyn,
            "int" => Type::Int,
            "list" => Type::list(Type::Dyn),
            "map" => Type::map(Type::Dyn, Type::Dyn),
            "null_type" => Type::Null,
            "optional_type" => Type::optional(Type::Dyn),
            "string" => Type::String,
            "google.protobuf.Timestamp" => Type::Timestamp,
            "type" => Type::Type(None),
            "uint" => Type::Uint,
            "net.IP" => Type::IP,
            "net.CIDR" => Type::CIDR,
            _ => return None,
        })
    }

    /// The name without parameters, which values of the type report when evaluated.
    pub(crate) fn runtime_name(&self) -> &str {
        match self {
            Type::Dyn => "dyn",
            Type::Null => "null_type",
            Type::Bool => "bool",
            Type::Int => "int",
            Type::Uint => "uint",
            Type::Double => "double",
            Type::String => "string",
            Type::Bytes => "bytes",
            Type::Duration => "google.protobuf.Duration",
            Type::Timestamp => "google.protobuf.Timestamp",
            Type::List(_) => "list",
            Type::Map(_) => "map",
            Type::Optional(_) => "optional_type",
            Type::Type(_) => "type",
            Type::Object(object) => object.name(),
            Type::Opaque(name) => name,
            Type::Param(name) => name,
            Type::Error => "error",
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::Null => f.write_str("null"),
            Type::Duration => f.write_str("duration"),
            Type::Timestamp => f.write_str("timestamp"),
            Type::List(item) => write!(f, "list({item})"),
            Type::Map(pair) => write!(f, "map({}, {})", pair.0, pair.1),
            Type::Optional(item) => write!(f, "optional_type({item})"),
            Type::Type(Some(inner)) => write!(f, "type({inner})"),
            Type::Error => f.write_str("!error!"),
            other => f.write_str(other.runtime_name()),
        }
    }
}

/// What a function's overload takes and returns. `member` overloads take their receiver first.
#[derive(Debug)]
pub(crate) struct Signature {
    pub member: bool,
    pub args: Vec<Type>,
    pub result: Type,
}

impl Signature {
    /// Reads `(string, int) -> list(T)`, or `string.(int) -> T` for a member; single capitals are parameters.
    ///
    /// # Panics
    /// On text that is not of this form: the tables of functions are fixed, and a test reads them all.
    pub(crate) fn parse(text: &str) -> Signature {
        let (head, result) = text.split_once(" -> ").expect("a signature has a result");
        let open = head.find('(').expect("a signature has arguments");
        // A receiver may have parameters of its own: the arguments' parenthesis follows its dot.
        let open = if head.starts_with('(') { open } else { head.rfind(".(").map_or(open, |dot| dot + 1) };
        let mut rest = head[open + 1..].strip_suffix(')').expect("arguments end");
        let mut args = Vec::new();
        let member = open > 0;
        if member {
            args.push(type_of(&mut &head[..open - 1]));
        }
        while !rest.is_empty() {
            args.push(type_of(&mut rest));
            rest = rest.trim_start_matches(", ");
        }
        Signature { member, args, result: type_of(&mut &*result) }
    }
}

fn type_of(text: &mut &str) -> Type {
    let end = text.find(['(', ')', ',']).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    *text = rest;
    let mut params = Vec::new();
    if let Some(inner) = text.strip_prefix('(') {
        *text = inner;
        while !text.starts_with(')') {
            params.push(type_of(text));
            *text = text.trim_start_matches(", ");
        }
        *text = &text[1..];
    }
    let mut params = params.into_iter();
    let mut param = || params.next().expect("a parameter");
    match word {
        "list" => Type::list(param()),
        "map" => Type::map(param(), param()),
        "optional" => Type::optional(param()),
        "type" => Type::Type(Some(Arc::new(param()))),
        "duration" => Type::Duration,
        "timestamp" => Type::Timestamp,
        "quantity" => Type::QUANTITY,
        "semver" => Type::SEMVER,
        "url" => Type::URL,
        "format" => Type::FORMAT,
        "ip" => Type::IP,
        "cidr" => Type::CIDR,
        "authorizer" => Type::AUTHORIZER,
        "pathcheck" => Type::PATH_CHECK,
        "groupcheck" => Type::GROUP_CHECK,
        "resourcecheck" => Type::RESOURCE_CHECK,
        "decision" => Type::DECISION,
        _ if word.len() == 1 => Type::Param(word.into()),
        _ => Type::named(word).expect("a known type"),
    }
}
