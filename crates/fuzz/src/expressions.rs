//! CEL: whatever compiles is evaluated within its budget.

use keelson_cel::{Budget, Declared, Env, Value, Variables};
use serde_json::json;

/// Of a validation rule, as upstream.
const BUDGET: u64 = 1_000_000;

pub(crate) fn evaluate(data: &[u8]) {
    let Ok(source) = std::str::from_utf8(data) else { return };
    let env = Env::builder().variable("self", Declared::dynamic()).build();
    let Ok(program) = env.compile(source) else { return };
    let _ = program.estimate();
    let object =
        json!({"a": 1, "b": [1, 2.5, "three", null, true], "s": "text", "m": {"k": "v", "n": {"x": -1}}});
    let mut budget = Budget::new(BUDGET);
    let _ = program.evaluate(&Variables::new().with("self", Value::from_json(&object)), &mut budget);
}
