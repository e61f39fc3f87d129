//! ValidatingAdmissionPolicy: expressions that must hold, or the write is refused, warned about or audited.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use keelson_api_types::{Cause, Gvr, Reason, Status, StatusError};
use keelson_cel::{Budget, MAX_MESSAGE_SIZE, RUNTIME_BUDGET, Value as CelValue};
use serde_json::{Value, json};

use super::super::conditions::Conditions;
use super::super::expressions::{
    Asker, BOOL, Compiler, Expression, Facts, Inputs, Names, STRING, STRING_OR_NULL,
};
use super::super::memo::Memo;
use super::super::versioned::Versioned;
use super::super::{Chain, GROUP, Verdict, items, text};
use super::{Binding, Policy, Step, is_exempt, load, namespace_of, steps};
use crate::types::AdmissionRequest;

const POLICIES: &str = "validatingadmissionpolicies";
const BINDINGS: &str = "validatingadmissionpolicybindings";
const FAILURES: &str = "validation.policy.admission.k8s.io/validation_failure";
const MAX_ANNOTATION: usize = 10 << 10;

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
    validations: Vec<Validation>,
    annotations: Vec<(String, Expression)>,
    ignores_failure: bool,
}

struct Validation {
    expression: Expression,
    message: String,
    message_expression: Option<Expression>,
    reason: String,
}

/// Why a validation does not hold.
struct Denial {
    /// Which of the validations.
    index: usize,
    message: String,
    /// Empty where evaluating failed.
    reason: String,
    took: Duration,
}

#[derive(Default)]
struct Outcome {
    denials: Vec<Denial>,
    annotations: Vec<(String, String)>,
    /// Annotations that could not be made, where the failure policy minds.
    broken: Vec<(String, Duration)>,
    /// What failed where it does not.
    ignored: Vec<(String, Duration)>,
}

fn compile(spec: &Value, ignores_failure: bool) -> Evaluator {
    let params = spec["paramKind"].is_object();
    let names = Names { params, authorizer: true, mutation: false };
    let compiler = Compiler::with_variables(&spec["variables"], names);
    let validation = |v: &Value| Validation {
        expression: compiler.compile(text(v, "/expression"), names, &BOOL),
        message: text(v, "/message").trim().to_owned(),
        message_expression: v["messageExpression"]
            .as_str()
            .filter(|e| !e.is_empty())
            .map(|source| compiler.compile(source, Names { authorizer: false, ..names }, &STRING)),
        reason: text(v, "/reason").to_owned(),
    };
    let annotation = |a: &Value| {
        (text(a, "/key").to_owned(), compiler.compile(text(a, "/valueExpression"), names, &STRING_OR_NULL))
    };
    Evaluator {
        conditions: Conditions::compile(&spec["matchConditions"], names, &compiler, ignores_failure),
        validations: items(&spec["validations"]).iter().map(validation).collect(),
        annotations: items(&spec["auditAnnotations"]).iter().map(annotation).collect(),
        ignores_failure,
        compiler,
    }
}

/// What is to be told when all policies have been asked.
#[derive(Default)]
struct Report {
    refusal: Option<(String, String)>,
    notes: BTreeMap<String, Vec<String>>,
}

pub async fn validate(chain: &Chain, r: &mut AdmissionRequest<'_>) -> Verdict {
    let load = || load(chain.objects(), POLICIES, BINDINGS, compile);
    let policies = chain.validating_policies.0.get(chain.objects(), load);
    if policies.is_empty() || is_exempt(r) {
        return Ok(());
    }
    let mut report = Report::default();
    let mut namespace = None;
    for step in steps(chain, &policies, r).await {
        let (policy, binding, target, params) = match step {
            Step::Evaluate { policy, binding, target, params } => (policy, binding, target, params),
            Step::Misconfigured { policy, binding, why } => {
                let what = if binding.is_some() { "binding" } else { "policy" };
                if !policy.ignores_failure {
                    report.refuse(policy, binding, format!("failed to configure {what}: {why}"), "");
                }
                continue;
            }
        };
        if namespace.is_none() {
            namespace = Some(namespace_of(chain, r).await?);
        }
        let namespace = namespace.as_ref().and_then(Option::as_ref);
        let seen = match Versioned::new(chain.objects(), r, &target).await {
            Ok(seen) => seen,
            Err(error) => {
                if !policy.ignores_failure {
                    let why = format!("failed to convert object version: {}", error.message());
                    let why = format!("failed to configure binding: {why}");
                    report.refuse(policy, Some(binding), why, "");
                }
                continue;
            }
        };
        let facts = Facts::of(r, &target);
        let asker = Asker::new(chain.authorizer(), r.user);
        let mut outcomes = Vec::with_capacity(params.len());
        for params in &params {
            let variables = &policy.evaluator.compiler.variables;
            let evaluate = || {
                let inputs = Inputs::new(&facts, &seen, params.as_deref(), namespace, &asker, variables);
                policy.evaluator.evaluate(&inputs)
            };
            outcomes.push(asker.settle(evaluate).await);
        }
        drop(seen);
        for outcome in outcomes {
            report.take(chain, policy, binding, outcome, r);
        }
    }
    for (key, values) in std::mem::take(&mut report.notes) {
        r.annotate(key, values.join(", "));
    }
    match report.refusal {
        None => Ok(()),
        Some((message, reason)) => Err(refusal(r, message, &reason)),
    }
}

impl Report {
    /// The first refusal is the one that is told.
    fn refuse(&mut self, policy: &Policy<Evaluator>, binding: Option<&Binding>, why: String, reason: &str) {
        let bound = binding.map(|b| format!(" with binding '{}'", b.name)).unwrap_or_default();
        let message = format!("ValidatingAdmissionPolicy '{}'{bound} denied request: {why}", policy.name);
        self.refusal.get_or_insert((message, reason.to_owned()));
    }

    fn take(
        &mut self,
        chain: &Chain,
        policy: &Policy<Evaluator>,
        binding: &Binding,
        outcome: Outcome,
        r: &mut AdmissionRequest<'_>,
    ) {
        let count = |why: &str, action, took| {
            chain.metrics.validation(&policy.name, &binding.name, why, action, took);
        };
        outcome.ignored.iter().for_each(|(why, took)| count(why, "allow", *took));
        for denial in outcome.denials {
            for action in &binding.actions {
                let count = |action| count(&denial.message, action, denial.took);
                match action.as_str() {
                    "Deny" => {
                        count("deny");
                        self.refuse(policy, Some(binding), denial.message.clone(), &denial.reason);
                    }
                    "Warn" => {
                        count("warn");
                        r.warnings.push(format!(
                            "Validation failed for ValidatingAdmissionPolicy '{}' with binding '{}': {}",
                            policy.name, binding.name, denial.message
                        ));
                    }
                    _ => {
                        count("audit");
                        let failure = json!([{
                            "message": denial.message, "policy": policy.name, "binding": binding.name,
                            "expressionIndex": denial.index, "validationActions": binding.actions,
                        }]);
                        r.annotate(FAILURES.to_owned(), failure.to_string());
                    }
                }
            }
        }
        for (key, value) in outcome.annotations {
            let values = self.notes.entry(format!("{}/{key}", policy.name)).or_default();
            if !values.contains(&value) {
                values.push(value);
            }
        }
        for (why, took) in outcome.broken {
            count(&why, "deny", took);
            self.refuse(policy, Some(binding), why, "");
        }
    }
}

fn refusal(r: &AdmissionRequest<'_>, message: String, reason: &str) -> StatusError {
    let (reason, code) = match reason {
        "Unauthorized" => (Reason::Unauthorized, 401),
        "Forbidden" => (Reason::Forbidden, 403),
        "RequestEntityTooLarge" => (Reason::RequestEntityTooLarge, 413),
        _ => (Reason::Invalid, 422),
    };
    let Status { details, message: full, .. } = r.forbidden(&message).into_status();
    let mut details = details.unwrap_or_default();
    details.causes.push(Cause { message, ..Cause::default() });
    StatusError::new(code, reason, full).with_details(details)
}

impl Evaluator {
    fn evaluate(&self, inputs: &Inputs<'_>) -> Outcome {
        let since = Instant::now();
        match self.conditions.hold(inputs) {
            Ok(true) => {}
            Ok(false) => return Outcome::default(),
            Err(why) => return self.failed(why, since),
        }
        let mut budget = Budget::new(RUNTIME_BUDGET);
        let mut results = Vec::with_capacity(self.validations.len());
        for validation in &self.validations {
            let since = Instant::now();
            match validation.expression.evaluate(inputs, &mut budget) {
                Ok(result) => results.push((result, since.elapsed())),
                Err(exhausted) => return self.failed(exhausted, since),
            }
        }
        let mut outcome = Outcome::default();
        for (index, (validation, (result, took))) in self.validations.iter().zip(results).enumerate() {
            match result {
                Ok(CelValue::Bool(true)) => {}
                Ok(_) => match validation.message(inputs, &mut budget) {
                    Ok(message) => {
                        let reason = validation.reason.clone();
                        outcome.denials.push(Denial { index, message, reason, took });
                    }
                    Err(why) => {
                        self.fail(&mut outcome, index, format!("failed messageExpression: {why}"), took)
                    }
                },
                Err(why) => self.fail(&mut outcome, index, why, took),
            }
        }
        if let Err(exhausted) = self.annotate(inputs, &mut outcome) {
            return self.failed(exhausted, since);
        }
        outcome
    }

    fn failed(&self, message: String, since: Instant) -> Outcome {
        let mut outcome = Outcome::default();
        self.fail(&mut outcome, 0, message, since.elapsed());
        outcome
    }

    /// What cannot be evaluated denies, unless the failure policy does not mind.
    fn fail(&self, outcome: &mut Outcome, index: usize, message: String, took: Duration) {
        match self.ignores_failure {
            true => outcome.ignored.push((message, took)),
            false => outcome.denials.push(Denial { index, message, reason: String::new(), took }),
        }
    }

    fn annotate(&self, inputs: &Inputs<'_>, outcome: &mut Outcome) -> Result<(), String> {
        let mut budget = Budget::new(RUNTIME_BUDGET);
        for (key, expression) in &self.annotations {
            let since = Instant::now();
            match expression.evaluate(inputs, &mut budget)? {
                Ok(value) => {
                    let value = value.as_str().unwrap_or_default().trim();
                    if !value.is_empty() {
                        let end = value.floor_char_boundary(MAX_ANNOTATION);
                        outcome.annotations.push((key.clone(), value[..end].to_owned()));
                    }
                }
                Err(why) if !self.ignores_failure => outcome.broken.push((why, since.elapsed())),
                Err(_) => {}
            }
        }
        Ok(())
    }
}

impl Validation {
    /// What the caller is told: the message expression's text where it gives a usable one, the message, or
    /// the expression itself.
    fn message(&self, inputs: &Inputs<'_>, budget: &mut Budget) -> Result<String, String> {
        let made = match &self.message_expression {
            None => None,
            Some(expression) => expression.evaluate(inputs, budget)?.ok(),
        };
        let made = made.as_ref().and_then(CelValue::as_str).map(str::trim);
        let made = made.filter(|m| !m.is_empty() && m.len() <= MAX_MESSAGE_SIZE && !m.contains('\n'));
        Ok(match made {
            Some(message) => message.to_owned(),
            None if !self.message.is_empty() => self.message.clone(),
            None => format!("failed expression: {}", self.expression.source.trim()),
        })
    }
}
