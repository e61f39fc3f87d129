//! The Common Expression Language as Kubernetes 1.36 uses it: parsed, type checked, its cost estimated, evaluated
//! with a bound on what that costs.
//!
//! ```text
//! let env = Env::builder().variable("self", declared).build();
//! let program = env.compile("self.replicas <= 10")?;
//! let value = program.evaluate(&Variables::new().with("self", value), &mut Budget::new(RUNTIME_BUDGET))?;
//! ```
//!
//! Grammar and semantics are the CEL specification's. Where it leaves room, and for extension libraries, costs and
//! messages, upstream's API server is the reference.

mod ast;
mod authorizer;
mod check;
mod compose;
mod cost;
mod declare;
mod env;
mod error;
mod escape;
mod estimate;
mod eval;
mod functions;
mod lexer;
mod macros;
mod number;
mod parser;
mod plan;
mod source;
mod time;
mod types;
mod value;

pub use authorizer::{Authorizer, Check, Decision, Subject};
pub use compose::{Composition, Scope};
pub use declare::{Declared, MAX_REQUEST_SIZE, ObjectType};
pub use env::{Activation, Env, EnvBuilder, Program, Variables};
pub use error::{
    Budget, ESTIMATED_CRD_LIMIT, ESTIMATED_LIMIT, EvalError, MATCH_CONDITIONS_BUDGET, MAX_MESSAGE_SIZE,
    PER_CALL_LIMIT, RUNTIME_BUDGET,
};
pub use escape::{escape, is_keyword, unescape};
pub use estimate::Range as Cost;
pub use functions::{NamedFormat, Url};
pub use source::{CompileError, CompileErrors};
pub use types::Type;
pub use value::{Cidr, Key, List, Map, Opaque, Struct, Text, Value};
