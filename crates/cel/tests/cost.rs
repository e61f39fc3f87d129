use keelson_cel::{Budget, Cost, Declared, Env, EvalError, PER_CALL_LIMIT, RUNTIME_BUDGET, Value, Variables};
use serde_json::{Value as Json, json};
use std::sync::Arc;

fn env(schema: &Json) -> (Env, Arc<Declared>) {
    let declared = Arc::new(Declared::from_schema(schema, "selfType", false).unwrap());
    (Env::builder().variable("self", declared.clone()).build(), declared)
}

#[test]
fn estimates_are_upstreams() {
    let ints = |most: Option<u64>| {
        let mut list = json!({"type": "array", "items": {"type": "integer"}});
        if let Some(most) = most {
            list["maxItems"] = most.into();
        }
        json!({"type": "object", "properties": {"list": list}})
    };
    let text = json!({"type": "object", "properties": {"s": {"type": "string", "maxLength": 10}}});
    for (schema, source, expected) in [
        // Three for each of the most integers that a request holds, one for each selection.
        (ints(None), "self.list.all(x, true)", 4718592),
        (ints(Some(10)), "self.list.all(x, true)", 33),
        (text.clone(), "self.s == 'abc'", 3),
        (text.clone(), "self.s.startsWith('abc')", 3),
        (text.clone(), "self.s.matches('[a-z]+')", 12),
        (text.clone(), "has(self.s)", 1),
        // What `split` makes is as long as `self` may be.
        (
            json!({"type": "string", "maxLength": 20}),
            "self.split('.').exists(x, x.matches('^0[0-9]+$'))",
            2578,
        ),
        (text, "1 + 1 == 2", 2),
    ] {
        let estimate = env(&schema).0.compile(source).unwrap().estimate().max;
        assert_eq!(estimate, expected, "{source}");
    }
}

#[test]
fn what_runs_costs_no_more_than_estimated() {
    let schema = json!({"type": "object", "properties": {
        "list": {"type": "array", "maxItems": 5, "items": {"type": "string", "maxLength": 5}},
        "map": {"type": "object", "maxProperties": 5, "additionalProperties": {"type": "integer"}},
        "s": {"type": "string", "maxLength": 20},
    }});
    let object =
        json!({"list": ["abcde", "b", "c", "d", "e"], "map": {"a": 1, "b": 2}, "s": "the quick brown fox"});
    let (env, declared) = env(&schema);
    for source in [
        "self.list.all(x, x.size() > 0)",
        "self.list.map(x, x + 'y').size() == 5",
        "self.map.all(k, self.map[k] > 0)",
        "self.s.contains('quick') && self.s.matches('^the')",
        "self.list.exists(x, x == 'e') || self.s == ''",
        "self.list.isSorted() && self.s.split(' ').size() == 4",
    ] {
        let program = env.compile(source).unwrap();
        let mut budget = Budget::new(RUNTIME_BUDGET);
        let value = Value::from_json_as(&object, &declared).unwrap();
        program.evaluate(&Variables::new().with("self", value), &mut budget).unwrap();
        let (Cost { max, .. }, actual) = (program.estimate(), RUNTIME_BUDGET - budget.remaining());
        assert!(actual > 0 && actual <= max, "{source}: {actual} > {max}");
    }
}

#[test]
fn budgets_end_evaluations() {
    let env = Env::builder().build();
    let nested = "lists.range(1000).all(x, lists.range(1000).all(y, x + y >= 0))";
    let program = env.compile(nested).unwrap();
    let mut budget = Budget::new(RUNTIME_BUDGET);
    assert_eq!(program.evaluate(&Variables::new(), &mut budget).unwrap_err(), EvalError::CallLimit);
    assert!(RUNTIME_BUDGET - budget.remaining() >= PER_CALL_LIMIT, "what was spent is gone");
    let mut budget = Budget::new(100);
    assert_eq!(program.evaluate(&Variables::new(), &mut budget).unwrap_err(), EvalError::OutOfBudget);
    assert_eq!(budget.remaining(), 0);
    let absorbed = env.compile(&format!("true || {nested}")).unwrap();
    assert!(
        absorbed.evaluate(&Variables::new(), &mut Budget::new(100)).is_ok(),
        "what is not run costs nothing"
    );
    let first = env.compile(&format!("{nested} || true")).unwrap();
    let outcome = first.evaluate(&Variables::new(), &mut Budget::new(RUNTIME_BUDGET));
    assert_eq!(outcome.unwrap_err(), EvalError::CallLimit, "limits are not absorbed");
}
