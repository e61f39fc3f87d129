//! `x-kubernetes-validations`: the CEL rules of a CRD's schema, compiled once and held against its objects.

mod correlate;
mod definition;
mod field_path;

use correlate::{Correlation, find_item};
pub use definition::check_rules;
use field_path::field_path;
use keelson_api_types::field::{child, index, key};
use keelson_api_types::{FieldError, FieldErrorKind};
use keelson_cel::{
    Activation, Budget, Declared, Env, EvalError, MAX_MESSAGE_SIZE, Program, RUNTIME_BUDGET, Type, Value,
};
use serde_json::Value as Json;
use std::sync::Arc;

/// The rules of one version of a CRD.
#[derive(Debug)]
pub struct Rules {
    schema: Json,
    root: Node,
}

/// What the rules found.
#[derive(Debug, Default)]
pub struct Findings {
    pub errors: Vec<FieldError>,
    /// What is wrong with parts of the object that an update leaves as they were.
    pub ratcheted: Vec<FieldError>,
}

/// A schema with the rules on it and below it.
#[derive(Debug, Default)]
struct Node {
    declared: Option<Arc<Declared>>,
    rules: Vec<Rule>,
    items: Option<Box<Node>>,
    values: Option<Box<Node>>,
    properties: Vec<(String, Node)>,
    all_of: Vec<Node>,
}

/// One rule as a schema states it.
#[derive(Debug)]
struct Rule {
    text: Text,
    program: Result<Program, String>,
    /// `None` where there is none, or none that compiles.
    message: Option<Program>,
    uses_old: bool,
}

#[derive(Debug, Default)]
struct Text {
    rule: String,
    message: String,
    message_expression: String,
    reason: Option<String>,
    /// Normalized; empty for none.
    field_path: String,
    optional_old: bool,
}

impl Rules {
    /// The rules of a whole resource's schema; `None` where it has none.
    pub fn compile(schema: &Json) -> Option<Rules> {
        let declared = Declared::from_schema(schema, "selfType", true).map(Arc::new);
        let root = Node::build(schema, schema, declared)?;
        Some(Rules { schema: schema.clone(), root })
    }

    /// Holds an object, and what it was before an update, against the rules. Errors of the object so far keep
    /// rules from being looked at where they say that it is not of the schema's types.
    pub fn validate(&self, object: &Json, old: Option<&Json>, so_far: &[FieldError]) -> Findings {
        use FieldErrorKind::{NotSupported, Required, TooLong, TooMany, TypeInvalid};
        let blocking =
            |e: &FieldError| matches!(e.kind, NotSupported | Required | TooLong | TooMany | TypeInvalid);
        let mut run = Run { budget: Budget::new(RUNTIME_BUDGET), findings: Findings::default() };
        if so_far.iter().any(blocking) {
            let detail = "some validation rules were not checked because the object was invalid; correct the \
                          existing errors to complete validation";
            run.findings.errors.push(FieldError::invalid(place(""), "null", detail));
        } else {
            let correlation = Correlation::root(object, old);
            // Whoever exhausts the budget has said so.
            let _ = self.root.validate(&self.schema, "", object, old, correlation, &mut run);
        }
        run.findings
    }
}

struct Run {
    budget: Budget,
    findings: Findings,
}

/// No further rule is to be looked at.
struct Stop;

impl Node {
    /// `rules_of` says which rules there are, `schema` of which types the values are: they differ below `allOf`.
    fn build(rules_of: &Json, schema: &Json, declared: Option<Arc<Declared>>) -> Option<Node> {
        let element = || declared.as_ref().and_then(|d| d.element().cloned());
        let part = |name: &str| {
            let (rules_of, schema) = (rules_of.get(name)?, schema.get(name)?);
            Node::build(rules_of, schema, element()).map(Box::new)
        };
        let (items, values) = (part("items"), part("additionalProperties"));
        let mut properties = Vec::new();
        for (name, rules_of) in rules_of.get("properties").and_then(Json::as_object).into_iter().flatten() {
            let Some(property) = schema.get("properties").and_then(|p| p.get(name)) else { continue };
            let declared = match keelson_cel::escape(name) {
                Some(_) => declared.as_ref().and_then(|d| d.property(name).cloned()),
                None => {
                    let embedded = property["x-kubernetes-embedded-resource"] == true;
                    Declared::from_schema(property, "selfType", embedded).map(Arc::new)
                }
            };
            // What has no type that expressions know is left out.
            if declared.is_some()
                && let Some(node) = Node::build(rules_of, property, declared)
            {
                properties.push((name.clone(), node));
            }
        }
        let branches = rules_of.get("allOf").and_then(Json::as_array).into_iter().flatten();
        let all_of: Vec<Node> =
            branches.filter_map(|branch| Node::build(branch, schema, declared.clone())).collect();
        let written = rules_of.get("x-kubernetes-validations").and_then(Json::as_array);
        let rules = match (written, &declared) {
            (Some(written), Some(declared)) => {
                written.iter().map(|r| Rule::compile(r, schema, declared)).collect()
            }
            _ => Vec::new(),
        };
        let empty = rules.is_empty() && items.is_none() && values.is_none();
        (!empty || !properties.is_empty() || !all_of.is_empty()).then_some(Node {
            declared,
            rules,
            items,
            values,
            properties,
            all_of,
        })
    }

    fn validate(
        &self,
        schema: &Json,
        path: &str,
        object: &Json,
        old: Option<&Json>,
        correlation: Correlation<'_>,
        run: &mut Run,
    ) -> Result<(), Stop> {
        // Rules look at values alone; what may be null is for the rules around it to say.
        if object.is_null() {
            return Ok(());
        }
        let old = old.filter(|old| !old.is_null());
        if let Some(declared) = &self.declared {
            let scope = Scope { declared, object, old };
            for rule in self.rules.iter().filter(|rule| !rule.text.rule.trim().is_empty()) {
                rule.hold(&scope, schema, path, correlation, run)?;
            }
        }
        for node in &self.all_of {
            node.validate(schema, path, object, old, correlation.of_all_of(), run)?;
        }
        match object {
            Json::Array(items) => {
                let Some(node) = &self.items else { return Ok(()) };
                let schema_of_items = &schema["items"];
                for (i, item) in items.iter().enumerate() {
                    let old = old.and_then(|old| find_item(schema, old, item));
                    let correlation = correlation.index(schema, item);
                    node.validate(schema_of_items, &index(path, i), item, old, correlation, run)?;
                }
            }
            Json::Object(entries) => {
                for (name, value) in entries {
                    let old = old.and_then(|old| old.get(name));
                    let correlation = correlation.key(schema, name);
                    if let Some(node) = &self.values {
                        let schema = &schema["additionalProperties"];
                        node.validate(schema, &key(path, name), value, old, correlation, run)?;
                    } else if let Some((_, node)) = self.properties.iter().find(|(own, _)| own == name) {
                        let schema = &schema["properties"][name];
                        node.validate(schema, &child(path, name), value, old, correlation, run)?;
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// What a rule's variables stand for.
struct Scope<'a> {
    declared: &'a Declared,
    object: &'a Json,
    old: Option<&'a Json>,
}

struct Bound<'s, 'a> {
    scope: &'s Scope<'a>,
    optional_old: bool,
}

impl<'a> Activation<'a> for Bound<'_, 'a> {
    fn resolve(&self, name: &str) -> Option<Result<Value<'a>, EvalError>> {
        let Scope { declared, object, old } = *self.scope;
        match name {
            "self" => Some(Value::from_json_as(object, declared)),
            "oldSelf" => match (old.map(|old| Value::from_json_as(old, declared)), self.optional_old) {
                (None, true) => Some(Ok(Value::Optional(None))),
                (old, true) => old.map(|old| old.map(Value::some)),
                (old, false) => old,
            },
            _ => None,
        }
    }
}

impl Rule {
    fn compile(written: &Json, schema: &Json, declared: &Arc<Declared>) -> Rule {
        let mut text = Text::read(written);
        text.field_path = match text.field_path.as_str() {
            "" => String::new(),
            path => field_path(path, schema).unwrap_or_default(),
        };
        let env = environment(declared, text.optional_old);
        let program = compile_rule(&env, &text.rule);
        let message = Some(&text.message_expression).filter(|m| !m.is_empty());
        let message = message.and_then(|m| compile_message(&env, m).ok());
        let uses_old = program.as_ref().is_ok_and(|p| p.references("oldSelf"));
        Rule { text, program, message, uses_old }
    }

    fn hold(
        &self,
        scope: &Scope<'_>,
        schema: &Json,
        path: &str,
        correlation: Correlation<'_>,
        run: &mut Run,
    ) -> Result<(), Stop> {
        let ty = schema["type"].as_str().unwrap_or_default();
        let name = self.text.name();
        let fail = |run: &mut Run, detail: String| {
            run.findings.errors.push(FieldError::invalid(place(path), ty, detail));
        };
        let program = match &self.program {
            Ok(program) => program,
            Err(why) => {
                fail(run, format!("rule compile error: {why}"));
                return Ok(());
            }
        };
        // A transition has no meaning where there was nothing, unless the rule says so.
        if self.uses_old && scope.old.is_none() && !self.text.optional_old {
            return Ok(());
        }
        let activation = Bound { scope, optional_old: self.text.optional_old };
        match program.evaluate(&activation, &mut run.budget) {
            Ok(Value::Bool(true)) => return Ok(()),
            Ok(_) => {}
            Err(EvalError::OutOfBudget) => {
                let detail = "validation failed due to running out of cost budget, no further validation rules will be run";
                fail(run, detail.to_owned());
                return Err(Stop);
            }
            Err(error @ EvalError::CallLimit) => {
                let why = "no further validation rules will be run due to call cost exceeds limit for rule";
                fail(run, format!("'{error}': {why}: {name}"));
                return Err(Stop);
            }
            Err(error) if error.is_no_such_overload() => {
                let why =
                    "call arguments did not match a supported operator, function or macro signature for rule";
                fail(run, format!("'{error}': {why}: {name}"));
                return Ok(());
            }
            Err(error) => {
                fail(run, format!("{error} evaluating rule: {name}"));
                return Ok(());
            }
        }
        let path = match self.text.field_path.as_str() {
            "" => path.to_owned(),
            below => child(path, below),
        };
        let (error, outcome) = match self.message(&activation, run) {
            Ok(message) => (self.error(&path, ty, scope.object, message), Ok(())),
            Err(why) => (FieldError::invalid(place(&path), ty, why), Err(Stop)),
        };
        if !self.uses_old && correlation.is_unchanged() {
            run.findings.ratcheted.push(error);
        } else {
            run.findings.errors.push(error);
        }
        outcome
    }

    /// What the failed rule says: what its expression makes, if that is a proper message, else what is written.
    ///
    /// # Errors
    /// The message of an exhausted budget.
    fn message(&self, activation: &Bound<'_, '_>, run: &mut Run) -> Result<String, String> {
        let Some(program) = &self.message else { return Ok(self.text.or_default()) };
        let made = match program.evaluate(activation, &mut run.budget) {
            Ok(value) => value.as_str().map(|s| s.trim().to_owned()),
            Err(EvalError::OutOfBudget) => {
                return Err(
                    "messageExpression evaluation failed due to running out of cost budget, no further \
                            validation rules will be run"
                        .to_owned(),
                );
            }
            Err(EvalError::CallLimit) => {
                let source = keelson_api_types::gofmt::quote(&self.text.message_expression);
                return Err(format!(
                    "no further validation rules will be run due to call cost exceeds limit for messageExpression: \
                     {source}"
                ));
            }
            Err(_) => None,
        };
        let proper = made.filter(|m| !m.is_empty() && m.len() <= MAX_MESSAGE_SIZE && !m.contains('\n'));
        Ok(proper.unwrap_or_else(|| self.text.or_default()))
    }

    fn error(&self, path: &str, ty: &str, object: &Json, message: String) -> FieldError {
        let value = (!matches!(ty, "object" | "array")).then(|| object.clone());
        let path = place(path);
        match self.text.reason.as_deref() {
            Some("FieldValueForbidden") => FieldError::forbidden(path, message),
            Some("FieldValueRequired") => FieldError::required(path, message),
            Some("FieldValueDuplicate") => FieldError::new(FieldErrorKind::Duplicate, path, value, ""),
            _ => FieldError::new(FieldErrorKind::Invalid, path, value, message),
        }
    }
}

impl Text {
    fn read(written: &Json) -> Text {
        let text = |name: &str| written[name].as_str().unwrap_or_default().to_owned();
        Text {
            rule: text("rule"),
            message: text("message"),
            message_expression: text("messageExpression"),
            reason: written["reason"].as_str().map(str::to_owned),
            field_path: text("fieldPath"),
            optional_old: written["optionalOldSelf"] == true,
        }
    }

    /// How messages call the rule.
    fn name(&self) -> &str {
        if self.message.is_empty() { self.rule.trim() } else { self.message.trim() }
    }

    fn or_default(&self) -> String {
        match self.message.is_empty() {
            true => format!("failed rule: {}", self.name()),
            false => self.message.trim().to_owned(),
        }
    }
}

/// The path of a field error; upstream prints the root's as Go prints nothing.
fn place(path: &str) -> &str {
    if path.is_empty() { "<nil>" } else { path }
}

fn environment(declared: &Arc<Declared>, optional_old: bool) -> Env {
    let old = match optional_old {
        true => Arc::new(Declared::of(Type::optional(declared.ty()))),
        false => declared.clone(),
    };
    Env::builder().variable("self", declared.clone()).variable("oldSelf", old).build()
}

fn compile_rule(env: &Env, source: &str) -> Result<Program, String> {
    let program = env.compile(source).map_err(|errors| format!("compilation failed: {errors}"))?;
    match program.output_type() {
        Type::Bool => Ok(program),
        _ => Err("cel expression must evaluate to a bool".to_owned()),
    }
}

fn compile_message(env: &Env, source: &str) -> Result<Program, String> {
    let program =
        env.compile(source).map_err(|errors| format!("messageExpression compilation failed: {errors}"))?;
    match program.output_type() {
        Type::String => Ok(program),
        _ => Err("messageExpression must evaluate to a string".to_owned()),
    }
}
