//! MutatingAdmissionPolicy: expressions that make a patch of what is written.

use std::time::Instant;

use keelson_api_types::{Cause, Gvr, Reason, Status, StatusError, meta};
use keelson_cel::{Budget, RUNTIME_BUDGET, Struct, Value as CelValue};
use keelson_machinery::patch;
use serde_json::{Map, Value};

use super::super::conditions::Conditions;
use super::super::expressions::{Asker, Compiler, Expression, Facts, Inputs, Names, Returns};
use super::super::matching::Target;
use super::super::memo::Memo;
use super::super::versioned::Versioned;
use super::super::{Chain, GROUP, Verdict, items, text};
use super::{Binding, Policy, Step, is_exempt, load, namespace_of, steps};
use crate::types::{AdmissionRequest, Operation};

const POLICIES: &str = "mutatingadmissionpolicies";
const BINDINGS: &str = "mutatingadmissionpolicybindings";
/// What the expressions of the two kinds of mutation make.
pub const PATCH: Returns = Returns::Named("list(JSONPatch)");
pub const CONFIGURATION: Returns = Returns::Named("Object");

/// The cluster's policies, as long as they stay the same.
pub struct Policies(Memo<Vec<Policy<Evaluator>>>);

impl Default for Policies {
    fn default() -> Self {
        Self(Memo::of([POLICIES, BINDINGS].map(|resource| Gvr::new(GROUP, "v1", resource))))
    }
}

struct Evaluator {
    compiler: Compiler,
    conditions: Conditions,
    mutations: Vec<Mutation>,
    reinvoked: bool,
}

enum Mutation {
    Patch(Expression),
    Apply(Expression),
}

/// What one mutation asks for.
enum Change {
    Patch(Value),
    Apply(Value),
}

/// What goes wrong: by the failure policy, or for good.
enum Failure {
    Policy(String),
    Refused(StatusError),
}

impl Failure {
    fn message(&self) -> &str {
        match self {
            Self::Policy(why) => why,
            Self::Refused(status) => status.message(),
        }
    }
}

fn compile(spec: &Value, ignores_failure: bool) -> Evaluator {
    let names = Names { params: spec["paramKind"].is_object(), authorizer: true, mutation: false };
    let compiler = Compiler::with_variables(&spec["variables"], names);
    let making = Names { mutation: true, ..names };
    let mutation = |m: &Value| match text(m, "/patchType") {
        "JSONPatch" => Mutation::Patch(compiler.compile(text(m, "/jsonPatch/expression"), making, &PATCH)),
        _ => {
            let source = text(m, "/applyConfiguration/expression");
            Mutation::Apply(compiler.compile(source, making, &CONFIGURATION))
        }
    };
    Evaluator {
        conditions: Conditions::compile(&spec["matchConditions"], names, &compiler, ignores_failure),
        mutations: items(&spec["mutations"]).iter().map(mutation).collect(),
        reinvoked: spec["reinvocationPolicy"] == "IfNeeded",
        compiler,
    }
}

pub async fn mutate(chain: &Chain, r: &mut AdmissionRequest<'_>) -> Verdict {
    let load = || load(chain.objects(), POLICIES, BINDINGS, compile);
    let policies = chain.mutating_policies.0.get(chain.objects(), load);
    if policies.is_empty() || r.op == Operation::Delete || is_exempt(r) {
        return Ok(());
    }
    let steps = steps(chain, &policies, r).await;
    if steps.is_empty() {
        return Ok(());
    }
    let namespace = namespace_of(chain, r).await?;
    let again = r.reinvocation.again;
    r.reinvocation.policies.begin(again, r.object.as_deref());
    let (mut problems, mut patched) = (Vec::new(), false);
    for step in &steps {
        let (policy, binding, target, params) = match step {
            Step::Evaluate { policy, binding, target, params } => (*policy, *binding, target, params),
            Step::Misconfigured { policy, binding, why } => {
                let what = if binding.is_some() { "binding" } else { "policy" };
                if !policy.ignores_failure {
                    let why = format!("failed to configure {what}: {why}");
                    problems.push((describe(policy, *binding, &why), false));
                }
                continue;
            }
        };
        for params in params {
            let (params, namespace) = (params.as_deref(), namespace.as_ref());
            let call = Call { chain, policy, binding, target, params, namespace };
            match call.run(r, &key(policy, binding, params)).await {
                Ok(did) => patched |= did,
                Err(Failure::Refused(status)) => return Err(status),
                Err(Failure::Policy(_)) if policy.ignores_failure => {}
                Err(Failure::Policy(why)) => problems.push((describe(policy, Some(binding), &why), true)),
            }
        }
    }
    if patched {
        r.reinvocation.policies.changed();
        r.reinvocation.wanted = true;
    }
    r.reinvocation.policies.end(r.object.as_deref());
    refuse(r, problems)
}

fn key(policy: &Policy<Evaluator>, binding: &Binding, params: Option<&Value>) -> String {
    let of = |o: &Value| format!("{}/{}", meta::namespace(o), meta::name(o));
    format!("{}/{}/{}", policy.name, binding.name, params.map(of).unwrap_or_default())
}

fn describe(policy: &Policy<Evaluator>, binding: Option<&Binding>, why: &str) -> String {
    match binding {
        Some(binding) => {
            format!("policy '{}' with binding '{}' denied request: {why}", policy.name, binding.name)
        }
        None => format!("policy {:?} denied request: {why}", policy.name),
    }
}

/// The first problem's message is the refusal's; all are its causes.
fn refuse(r: &AdmissionRequest<'_>, problems: Vec<(String, bool)>) -> Verdict {
    let Some((message, invalid)) = problems.first() else { return Ok(()) };
    let reason = if *invalid { Reason::Invalid } else { Reason::Forbidden };
    let Status { details, code, .. } = r.forbidden("admission request denied by policy").into_status();
    let mut details = details.unwrap_or_default();
    let causes = problems.iter().map(|(message, _)| Cause { message: message.clone(), ..Cause::default() });
    details.causes.extend(causes);
    Err(StatusError::new(code, reason, message.clone()).with_details(details))
}

/// One policy with one parameter.
struct Call<'c> {
    chain: &'c Chain,
    policy: &'c Policy<Evaluator>,
    binding: &'c Binding,
    target: &'c Target,
    params: Option<&'c Value>,
    namespace: Option<&'c Value>,
}

impl Call<'_> {
    /// True if something was patched, whatever came of it.
    async fn run(&self, r: &mut AdmissionRequest<'_>, key: &str) -> Result<bool, Failure> {
        let evaluator = &self.policy.evaluator;
        let seen = self.see(r).await?;
        let holds = self.with_inputs(r, &seen, |inputs| evaluator.conditions.hold(inputs)).await;
        drop(seen);
        let again = r.reinvocation.again;
        if !holds.map_err(Failure::Policy)? || !r.reinvocation.policies.runs(again, key) {
            return Ok(false);
        }
        let before = r.object.as_deref().cloned();
        let (mut patched, mut problem) = (false, None);
        for mutation in evaluator.mutations.iter().filter(|_| before.is_some()) {
            let since = Instant::now();
            let outcome = self.mutate(r, mutation).await;
            let why = outcome.as_ref().err().map(Failure::message);
            self.chain.metrics.mutation(&self.policy.name, &self.binding.name, why, since.elapsed());
            match outcome {
                Ok(()) => patched = true,
                // The others of the policy still run; the first problem is told.
                Err(Failure::Policy(why)) => problem = problem.or(Some(Failure::Policy(why))),
                refused => return refused.map(|()| patched),
            }
        }
        if before.as_ref() != r.object.as_deref() {
            r.reinvocation.policies.changed();
            r.reinvocation.wanted = true;
        }
        if evaluator.reinvoked {
            r.reinvocation.policies.ran(key);
        }
        problem.map_or(Ok(patched), Err)
    }

    async fn see<'s>(&self, r: &'s AdmissionRequest<'_>) -> Result<Versioned<'s>, Failure> {
        Versioned::new(self.chain.objects(), r, self.target).await.map_err(Failure::Refused)
    }

    async fn with_inputs<T>(
        &self,
        r: &AdmissionRequest<'_>,
        seen: &Versioned<'_>,
        act: impl Fn(&Inputs<'_>) -> T,
    ) -> T {
        let facts = Facts::of(r, self.target);
        let asker = Asker::new(self.chain.authorizer(), r.user);
        let variables = &self.policy.evaluator.compiler.variables;
        let act = || act(&Inputs::new(&facts, seen, self.params, self.namespace, &asker, variables));
        asker.settle(act).await
    }

    async fn mutate(&self, r: &mut AdmissionRequest<'_>, mutation: &Mutation) -> Result<(), Failure> {
        let seen = self.see(r).await?;
        let change = self.with_inputs(r, &seen, |inputs| mutation.evaluate(inputs)).await;
        let change = change.map_err(Failure::Policy)?;
        let object = seen.object.as_deref().unwrap_or(&Value::Null);
        let changed = match change {
            Change::Patch(operations) => match patch::json_patch(object, &operations) {
                Ok(patched) => patched,
                // A failed test means that the patch is not for this object.
                Err(patch::PatchError::DoesNotApply(why)) if why.ends_with("test failed") => return Ok(()),
                Err(error) => return Err(Failure::Policy(format!("JSON Patch: {error}"))),
            },
            Change::Apply(mut configuration) => {
                for field in ["apiVersion", "kind"] {
                    configuration[field] = object[field].clone();
                }
                let objects = self.chain.objects();
                objects
                    .overlay(&self.target.gvr, object, &configuration)
                    .map_err(|why| Failure::Policy(format!("error applying patch: {why}")))?
            }
        };
        drop(seen);
        let stored = self
            .chain
            .objects()
            .as_admitted(&self.target.gvr, changed, r.gvr)
            .await
            .map_err(Failure::Refused)?;
        if let Some(object) = r.object.as_deref_mut() {
            *object = stored;
        }
        Ok(())
    }
}

impl Mutation {
    fn evaluate(&self, inputs: &Inputs<'_>) -> Result<Change, String> {
        let mut budget = Budget::new(RUNTIME_BUDGET);
        match self {
            Self::Patch(expression) => {
                let CelValue::List(list) = evaluated(expression, inputs, &mut budget)? else {
                    return Err("type mismatch: JSONPatchType.expression should evaluate to array".into());
                };
                let operation = |value: Result<CelValue<'_>, keelson_cel::EvalError>| match value {
                    Ok(CelValue::Struct(operation)) => patch_operation(&operation),
                    Ok(_) => {
                        Err("type mismatch: JSONPatchType.expression should evaluate to array of JSONPatch"
                            .into())
                    }
                    Err(error) => Err(error.to_string()),
                };
                Ok(Change::Patch(list.iter().map(operation).collect::<Result<Vec<Value>, String>>()?.into()))
            }
            Self::Apply(expression) => match evaluated(expression, inputs, &mut budget)? {
                CelValue::Struct(object) => {
                    check_types(&object)?;
                    Ok(Change::Apply(CelValue::Struct(object).to_json().map_err(|e| e.to_string())?))
                }
                other => Err(format!(
                    "unsupported return type from ApplyConfiguration expression: {}",
                    other.type_name()
                )),
            },
        }
    }
}

fn evaluated<'a>(
    expression: &Expression,
    inputs: &Inputs<'a>,
    budget: &mut Budget,
) -> Result<CelValue<'a>, String> {
    if let Some(problem) = expression.problem() {
        return Err(problem.to_owned());
    }
    expression.evaluate(inputs, budget)?
}

/// `JSONPatch{op: …}` as JSON.
fn patch_operation(operation: &Struct<'_>) -> Result<Value, String> {
    let mut json = Map::new();
    for (name, value) in &operation.fields {
        if let CelValue::Struct(object) = value {
            check_types(object)?;
        }
        let value = value.to_json().map_err(|e| {
            format!("JSONPath valueExpression evaluated to a type that could not marshal to JSON: {e}")
        })?;
        if &**name != "from" || value != "" {
            json.insert(name.to_string(), value);
        }
    }
    Ok(json.into())
}

/// An object literal's type says where it stands: `Object.spec{}` only as `spec` of an `Object{}`.
fn check_types(object: &Struct<'_>) -> Result<(), String> {
    for (field, value) in &object.fields {
        check_type(value, &format!("{}.{field}", object.type_name))?;
    }
    Ok(())
}

fn check_type(value: &CelValue<'_>, expected: &str) -> Result<(), String> {
    match value {
        CelValue::Struct(object) if *object.type_name != *expected => Err(format!(
            "type mismatch: unexpected type name {:?}, expected {expected:?}, which matches field name path from root Object type",
            object.type_name
        )),
        CelValue::Struct(object) => check_types(object),
        CelValue::List(list) => list.iter().try_for_each(|item| match item {
            Ok(item) => check_type(&item, expected),
            Err(error) => Err(error.to_string()),
        }),
        CelValue::Optional(Some(inner)) => check_type(inner, expected),
        _ => Ok(()),
    }
}
