//! Evaluating sources against JSON.

use keelson_cel::{Budget, Declared, Env, EvalError, RUNTIME_BUDGET, Value, Variables};
use serde_json::{Value as Json, json};

/// An environment with a dynamic `self`.
pub fn dynamic() -> Env {
    Env::builder().variable("self", Declared::dynamic()).mutation().build()
}

/// What an expression makes of a dynamic `self`, as it prints, or why it makes nothing.
pub fn eval(source: &str, object: &Json) -> Result<String, String> {
    let program = dynamic().compile(source).map_err(|e| e.to_string())?;
    let variables = Variables::new().with("self", Value::from_json(object));
    let value = program.evaluate(&variables, &mut Budget::new(RUNTIME_BUDGET));
    value.map(|v| v.to_string()).map_err(|e| e.to_string())
}

/// Each source is true; of one that is not, what it is instead is told.
#[track_caller]
pub fn all_true(sources: &[&str]) {
    let wrong: Vec<String> = sources
        .iter()
        .map(|source| (source, eval(source, &json!(null))))
        .filter(|(_, outcome)| outcome.as_deref() != Ok("true"))
        .map(|(source, outcome)| format!("{source}: {outcome:?}"))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Each source fails with a message that holds the text beside it.
#[track_caller]
pub fn all_fail(sources: &[(&str, &str)]) {
    for (source, text) in sources {
        let outcome = eval(source, &json!(null));
        assert!(outcome.as_ref().is_err_and(|e| e.contains(text)), "{source}: {outcome:?} lacks {text:?}");
    }
}

/// Evaluates a source over `self` of a schema.
pub fn typed(schema: &Json, source: &str, object: &Json) -> Result<String, String> {
    let declared =
        std::sync::Arc::new(Declared::from_schema(schema, "selfType", false).ok_or("not exposed")?);
    let env = Env::builder().variable("self", declared.clone()).build();
    let program = env.compile(source).map_err(|e| e.to_string())?;
    let run = || -> Result<String, EvalError> {
        let variables = Variables::new().with("self", Value::from_json_as(object, &declared)?);
        let value = program.evaluate(&variables, &mut Budget::new(RUNTIME_BUDGET))?;
        Ok(value.to_string())
    };
    run().map_err(|e| e.to_string())
}
