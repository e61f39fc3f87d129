//! Expressions of match conditions and admission policies: what they may name, and the values of one request.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use keelson_api_types::gofmt::quote;
use keelson_cel::{
    Activation, Authorizer as CelAuthorizer, Budget, Check, Decision, Declared, Env, EvalError, Program,
    RUNTIME_BUDGET, Subject, Type, Value as CelValue,
};
use parking_lot::Mutex;
use serde_json::Value;

use super::items;
use super::matching::Target;
use super::versioned::Versioned;
use super::webhook::request;
use crate::types::{AdmissionRequest, Attributes, Authorizer, UserInfo, Verdict};

const OUT_OF_BUDGET: &str =
    "validation failed due to running out of cost budget, no further validation rules will be run";

/// Which of the optional names an expression may use.
#[derive(Debug, Clone, Copy, Default)]
pub struct Names {
    pub params: bool,
    pub authorizer: bool,
    /// `Object{}`, `JSONPatch{}` and `jsonpatch.escapeKey`.
    pub mutation: bool,
}

/// What an expression may evaluate to.
#[derive(Debug, Clone)]
pub enum Returns {
    Anything,
    /// One of these.
    OneOf(&'static [Type]),
    /// Of this name: `Object`, `list(JSONPatch)`.
    Named(&'static str),
}

pub const BOOL: Returns = Returns::OneOf(&[Type::Bool]);
pub const STRING: Returns = Returns::OneOf(&[Type::String]);
pub const STRING_OR_NULL: Returns = Returns::OneOf(&[Type::String, Type::Null]);

/// An expression with what compiling it gave: the program, or what is wrong, in upstream's words.
#[derive(Debug)]
pub struct Expression {
    pub source: String,
    program: Result<Program, String>,
}

/// A policy's named expressions, each of which may use those before it.
#[derive(Debug)]
pub struct Variable {
    name: String,
    expression: Expression,
}

/// Compiles expressions that may name a policy's variables.
#[derive(Debug, Default)]
pub struct Compiler {
    pub variables: Vec<Variable>,
}

impl Compiler {
    /// A compiler that knows the variables of `spec.variables`.
    pub fn with_variables(list: &Value, names: Names) -> Self {
        let mut compiler = Self::default();
        for variable in items(list) {
            let text = |key: &str| variable[key].as_str().unwrap_or_default();
            compiler.add(text("name"), text("expression"), names);
        }
        compiler
    }

    /// Compiles a variable and makes its name known; what is wrong with it.
    pub fn add(&mut self, name: &str, source: &str, names: Names) -> Option<&str> {
        self.add_in(environment(names, Declared::dynamic, Declared::dynamic), name, source)
    }

    /// The same in another environment than a request's.
    pub fn add_in(&mut self, env: keelson_cel::EnvBuilder, name: &str, source: &str) -> Option<&str> {
        let expression = self.compile_in(env, source, &Returns::Anything);
        self.variables.push(Variable { name: name.to_owned(), expression });
        self.variables.last().and_then(|v| v.expression.problem())
    }

    pub fn compile(&self, source: &str, names: Names, returns: &Returns) -> Expression {
        self.compile_in(environment(names, Declared::dynamic, Declared::dynamic), source, returns)
    }

    /// In another environment than a request's; the variables are added to it.
    pub fn compile_in(&self, env: keelson_cel::EnvBuilder, source: &str, returns: &Returns) -> Expression {
        let fields = self.variables.iter().map(|v| {
            let ty = v.expression.program.as_ref().map_or(Type::Dyn, |p| p.output_type().clone());
            (v.name.as_str(), Declared::of(ty))
        });
        let env = env.variable("variables", Declared::object("kubernetes.variables", fields)).build();
        let program = env.compile(source).map_err(|e| format!("compilation failed: {e}"));
        let program = program.and_then(|p| returns.check(p.output_type()).map(|()| p));
        Expression { source: source.to_owned(), program }
    }
}

impl Returns {
    fn check(&self, output: &Type) -> Result<(), String> {
        let wanted = match self {
            Self::Anything => return Ok(()),
            Self::OneOf(types) if types.contains(output) => return Ok(()),
            Self::OneOf([one]) => one.to_string(),
            Self::OneOf(types) => {
                let name =
                    |ty: &Type| if *ty == Type::Null { "null_type".to_owned() } else { ty.to_string() };
                let names: Vec<String> = types.iter().map(name).collect();
                return Err(format!("must evaluate to one of [{}] but got {output}", names.join(" ")));
            }
            Self::Named(name) if output.to_string() == *name => return Ok(()),
            Self::Named(name) => (*name).to_owned(),
        };
        Err(format!("must evaluate to {wanted} but got {output}"))
    }
}

/// The names of a request; the types of its objects and of the parameters are the caller's to know.
pub fn environment(
    names: Names,
    object: impl Fn() -> Declared,
    params: impl Fn() -> Declared,
) -> keelson_cel::EnvBuilder {
    let mut env = Env::builder()
        .variable("object", object())
        .variable("oldObject", object())
        .variable("request", request_type())
        .variable("namespaceObject", namespace_type());
    if names.params {
        env = env.variable("params", params());
    }
    if names.authorizer {
        env = env
            .variable("authorizer", Declared::of(Type::AUTHORIZER))
            .variable("authorizer.requestResource", Declared::of(Type::RESOURCE_CHECK));
    }
    if names.mutation { env.mutation() } else { env }
}

fn string() -> Declared {
    Declared::of(Type::String)
}

fn strings() -> Declared {
    Declared::of(Type::list(Type::String))
}

fn string_map(value: Type) -> Declared {
    Declared::of(Type::map(Type::String, value))
}

/// AdmissionRequest without its objects, which are variables of their own.
fn request_type() -> Declared {
    let of_strings =
        |name: &str, fields: &[&'static str]| Declared::object(name, fields.iter().map(|f| (*f, string())));
    let kind = || of_strings("kubernetes.GroupVersionKind", &["group", "version", "kind"]);
    let resource = || of_strings("kubernetes.GroupVersionResource", &["group", "version", "resource"]);
    let user = Declared::object(
        "kubernetes.UserInfo",
        [
            ("username", string()),
            ("uid", string()),
            ("groups", strings()),
            ("extra", string_map(Type::list(Type::String))),
        ],
    );
    Declared::object(
        "kubernetes.AdmissionRequest",
        [
            ("kind", kind()),
            ("resource", resource()),
            ("subResource", string()),
            ("requestKind", kind()),
            ("requestResource", resource()),
            ("requestSubResource", string()),
            ("name", string()),
            ("namespace", string()),
            ("operation", string()),
            ("userInfo", user),
            ("dryRun", Declared::of(Type::Bool)),
            ("options", Declared::dynamic()),
        ],
    )
}

fn namespace_type() -> Declared {
    let time = || Declared::of(Type::Timestamp);
    let int = || Declared::of(Type::Int);
    let condition = Declared::object(
        "kubernetes.NamespaceCondition",
        [
            ("status", string()),
            ("type", string()),
            ("lastTransitionTime", time()),
            ("message", string()),
            ("reason", string()),
        ],
    );
    let metadata = [
        ("name", string()),
        ("generateName", string()),
        ("namespace", string()),
        ("labels", string_map(Type::String)),
        ("annotations", string_map(Type::String)),
        ("UID", string()),
        ("creationTimestamp", time()),
        ("deletionGracePeriodSeconds", int()),
        ("deletionTimestamp", time()),
        ("generation", int()),
        ("resourceVersion", string()),
        ("finalizers", strings()),
    ];
    let conditions = Declared::of(Type::list(condition.ty()));
    Declared::object(
        "kubernetes.Namespace",
        [
            ("metadata", Declared::object("kubernetes.NamespaceMetadata", metadata)),
            ("spec", Declared::object("kubernetes.NamespaceSpec", [("finalizers", strings())])),
            (
                "status",
                Declared::object(
                    "kubernetes.NamespaceStatus",
                    [("conditions", conditions), ("phase", string())],
                ),
            ),
        ],
    )
}

/// The parts of a namespace that expressions see.
pub fn visible_namespace(namespace: &Value) -> Value {
    const METADATA: [&str; 12] = [
        "name",
        "generateName",
        "namespace",
        "uid",
        "resourceVersion",
        "generation",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "labels",
        "annotations",
        "finalizers",
    ];
    let mut visible = namespace.clone();
    if let Some(metadata) = visible["metadata"].as_object_mut() {
        metadata.retain(|key, _| METADATA.contains(&key.as_str()));
    }
    visible
}

impl Expression {
    /// What is wrong with it, as upstream's validation says it.
    pub fn problem(&self) -> Option<&str> {
        self.program.as_ref().err().map(String::as_str)
    }

    /// Evaluates with the values of a request.
    ///
    /// # Errors
    /// The outer one when the budget is used up and nothing more may be evaluated; the inner one when this
    /// expression alone has failed.
    pub fn evaluate<'a>(
        &self,
        inputs: &Inputs<'a>,
        budget: &mut Budget,
    ) -> Result<Result<CelValue<'a>, String>, String> {
        let program = match &self.program {
            Ok(program) => program,
            Err(problem) => return Ok(Err(format!("compilation error: {problem}"))),
        };
        let outcome = program.evaluate(inputs, budget);
        // What variables cost counts where they are first used.
        if budget.spend(inputs.spent.take()).is_err() || matches!(outcome, Err(EvalError::OutOfBudget)) {
            return Err(OUT_OF_BUDGET.to_owned());
        }
        Ok(outcome.map_err(|e| format!("expression '{}' resulted in error: {e}", self.source)))
    }
}

/// Answers what expressions ask of the authorizer: at once what memory holds. Evaluation cannot wait, so the rest
/// is asked between two evaluations.
pub struct Asker<'a> {
    authorizer: &'a dyn Authorizer,
    user: &'a UserInfo,
    answers: Mutex<Vec<(Check, Decision)>>,
    open: Mutex<Vec<Check>>,
}

impl<'a> Asker<'a> {
    pub fn new(authorizer: &'a dyn Authorizer, user: &'a UserInfo) -> Self {
        Self { authorizer, user, answers: Mutex::default(), open: Mutex::default() }
    }

    /// What evaluating gives once all that it asks is answered. The cost of a check bounds how often that takes.
    pub async fn settle<T>(&self, evaluate: impl Fn() -> T) -> T {
        loop {
            let outcome = evaluate();
            let open = std::mem::take(&mut *self.open.lock());
            if open.is_empty() {
                return outcome;
            }
            drop(outcome);
            for check in open {
                let (user, authorizer) = (self.subject(&check), self.authorizer);
                let verdict = authorizer.decide(&attributes(&check, &user)).await;
                self.answers.lock().push((check, decision(verdict)));
            }
        }
    }

    fn subject(&self, check: &Check) -> Cow<'a, UserInfo> {
        match &check.subject {
            Subject::Requester => Cow::Borrowed(self.user),
            Subject::ServiceAccount { namespace, name } => Cow::Owned(UserInfo {
                name: format!("system:serviceaccount:{namespace}:{name}"),
                groups: vec![
                    "system:serviceaccounts".into(),
                    format!("system:serviceaccounts:{namespace}"),
                    "system:authenticated".into(),
                ],
                ..UserInfo::default()
            }),
        }
    }
}

impl CelAuthorizer for Asker<'_> {
    fn authorize(&self, check: &Check) -> Decision {
        if let Some(known) = self.authorizer.known(&attributes(check, &self.subject(check))) {
            return decision(known.into());
        }
        if let Some((_, answer)) = self.answers.lock().iter().find(|(asked, _)| asked == check) {
            return answer.clone();
        }
        let mut open = self.open.lock();
        if !open.contains(check) {
            open.push(check.clone());
        }
        Decision::default()
    }
}

fn attributes<'a>(check: &'a Check, user: &'a UserInfo) -> Attributes<'a> {
    fn selector(text: &str) -> Option<&str> {
        Some(text).filter(|t| !t.is_empty())
    }
    Attributes {
        user,
        verb: &check.verb,
        group: &check.group,
        version: "*",
        resource: &check.resource,
        subresource: &check.subresource,
        namespace: &check.namespace,
        name: &check.name,
        path: check.path.as_deref().unwrap_or_default(),
        is_resource: check.path.is_none(),
        field_selector: selector(&check.field_selector),
        label_selector: selector(&check.label_selector),
    }
}

fn decision(verdict: Verdict) -> Decision {
    Decision {
        allowed: verdict.is_allowed(),
        reason: verdict.reason().to_owned(),
        error: Some(verdict.error).filter(|e| !e.is_empty()),
    }
}

/// The values of one request, for the expressions of one policy binding or webhook.
pub struct Inputs<'a> {
    object: Option<&'a Value>,
    old: Option<&'a Value>,
    request: &'a Value,
    params: Option<&'a Value>,
    namespace: Option<&'a Value>,
    asker: &'a Asker<'a>,
    own: Check,
    variables: &'a [Variable],
    computed: RefCell<BTreeMap<usize, Result<CelValue<'a>, EvalError>>>,
    /// What variables have cost since the last expression.
    spent: Cell<u64>,
}

/// What [`Inputs`] borrows from, beside the objects.
pub struct Facts {
    request: Value,
    own: Check,
}

impl Facts {
    pub fn of(r: &AdmissionRequest<'_>, target: &Target) -> Self {
        let own = Check {
            group: r.gvr.group.clone(),
            resource: r.gvr.resource.clone(),
            subresource: r.subresource.to_owned(),
            namespace: r.namespace.to_owned(),
            name: r.name.to_owned(),
            ..Check::default()
        };
        Self { request: request(r, target), own }
    }
}

impl<'a> Inputs<'a> {
    pub fn new(
        facts: &'a Facts,
        seen: &'a Versioned<'_>,
        params: Option<&'a Value>,
        namespace: Option<&'a Value>,
        asker: &'a Asker<'a>,
        variables: &'a [Variable],
    ) -> Self {
        Self {
            object: seen.object.as_deref(),
            old: seen.old.as_deref(),
            request: &facts.request,
            params,
            namespace,
            asker,
            own: facts.own.clone(),
            variables,
            computed: RefCell::default(),
            spent: Cell::new(0),
        }
    }
}

impl<'a> Activation<'a> for Inputs<'a> {
    fn resolve(&self, name: &str) -> Option<Result<CelValue<'a>, EvalError>> {
        let json = |value: Option<&'a Value>| value.map_or(CelValue::Null, CelValue::from_json);
        Some(Ok(match name {
            "object" => json(self.object),
            "oldObject" => json(self.old),
            "request" => json(Some(self.request)),
            "params" => json(self.params),
            "namespaceObject" => json(self.namespace),
            "authorizer" => CelValue::authorizer(self.asker),
            "authorizer.requestResource" => CelValue::resource_check(self.asker, self.own.clone()),
            _ => return None,
        }))
    }

    fn resolve_field(&self, name: &str, field: &str) -> Option<Result<CelValue<'a>, EvalError>> {
        if name != "variables" {
            return None;
        }
        let index = self.variables.iter().position(|v| v.name == field)?;
        if let Some(known) = self.computed.borrow().get(&index) {
            return Some(known.clone());
        }
        let variable = &self.variables[index];
        let mut budget = Budget::new(RUNTIME_BUDGET);
        let value = match &variable.expression.program {
            Ok(program) => program.evaluate(self, &mut budget).map_err(|e| e.to_string()),
            Err(problem) => Err(problem.clone()),
        };
        self.spent.set(self.spent.get() + (RUNTIME_BUDGET - budget.remaining()));
        let value = value.map_err(|why| {
            EvalError::new(format!("composited variable {} fails to evaluate: {why}", quote(field)))
        });
        self.computed.borrow_mut().insert(index, value.clone());
        Some(value)
    }
}
