use crate::support::{dynamic, eval};
use keelson_cel::{Budget, Declared, Env, Value, Variables, escape, unescape};
use proptest::prelude::*;
use serde_json::{Value as Json, json};

/// Pieces of expressions, in any order: nearly sources, and sometimes sources.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "self",
        ".",
        "a",
        "b",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        "?",
        ":",
        ",",
        "1",
        "2u",
        "1.5",
        "'x'",
        "b'y'",
        "true",
        "null",
        "+",
        "-",
        "*",
        "/",
        "%",
        "==",
        "!=",
        "<",
        "in",
        "&&",
        "||",
        "!",
        ".all(x, ",
        ".map(x, ",
        "x",
        ".?",
        "[?",
        "size(",
        "string(",
        "has(",
        "duration('1s')",
        "optional.of(",
        ".orValue(",
        "Object",
        "r'\\d'",
        ".format([",
        ".matches(",
        ".exists(i, v, ",
        ".transformMap(k, v, ",
        "lists.range(3)",
        "quantity('1')",
        "dyn(",
        ".replace(",
        ".sum()",
        ".sort()",
        ".flatten()",
        "\n",
        " ",
        "'%s'",
        "-9223372036854775808",
        "type(",
    ]);
    prop::collection::vec(piece, 0..24).prop_map(|parts| parts.concat())
}

fn json_value() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<f64>().prop_map(Json::from),
        "[a-z%é]{0,8}".prop_map(Json::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
            prop::collection::btree_map("[ab]", inner, 0..3)
                .prop_map(|m| Json::Object(m.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_text_panics_the_compiler(source in "\\PC{0,60}") {
        let _ = dynamic().compile(&source);
    }

    #[test]
    fn no_expression_panics_the_evaluator(source in pieces(), object in json_value()) {
        if let Ok(program) = dynamic().compile(&source) {
            let variables = Variables::new().with("self", Value::from_json(&object));
            if let Ok(value) = program.evaluate(&variables, &mut Budget::new(10_000)) {
                let _ = (value.to_string(), value.to_json());
                prop_assert!(value.equals(&value) || value.to_string().contains("NaN"));
            }
        }
    }

    #[test]
    fn what_fits_its_declared_type_evaluates_as_it_was_checked(n in any::<i32>(), s in "[a-z]{0,5}", l in prop::collection::vec(any::<i32>(), 0..5)) {
        let schema = json!({"type": "object", "properties": {
            "n": {"type": "integer"}, "s": {"type": "string"}, "l": {"type": "array", "items": {"type": "integer"}}}});
        let declared = std::sync::Arc::new(Declared::from_schema(&schema, "selfType", false).unwrap());
        let env = Env::builder().variable("self", declared.clone()).build();
        let object = json!({"n": n, "s": s, "l": l});
        let checks = [
            ("self.n + 0", n.to_string()),
            ("self.s.size()", s.chars().count().to_string()),
            ("self.l.map(x, x + 1).size()", l.len().to_string()),
            ("self.l.sum()", l.iter().map(|n| i64::from(*n)).sum::<i64>().to_string()),
            ("self.l.exists(x, x == self.n)", l.contains(&n).to_string()),
        ];
        for (source, expected) in checks {
            let program = env.compile(source).unwrap();
            let value = Value::from_json_as(&object, &declared).unwrap();
            let result = program.evaluate(&Variables::new().with("self", value), &mut Budget::new(100_000));
            prop_assert_eq!(result.unwrap().to_string(), expected);
        }
    }

    #[test]
    fn names_survive_escaping(name in "[a-z_./-][a-z0-9_./-]{0,12}") {
        prop_assert_eq!(escape(&name).and_then(|e| unescape(&e)), Some(name));
    }
}

#[test]
fn depth_is_bounded() {
    let deep = [
        "(".repeat(5000) + "1" + &")".repeat(5000),
        "[".repeat(5000) + &"]".repeat(5000),
        "1".to_owned() + &" + 1".repeat(5000),
        "!".repeat(5001) + "self",
        "self".to_owned() + &".a".repeat(5000),
        "self".to_owned() + &"[0]".repeat(5000),
        "true ? true : ".repeat(3000) + "true",
        "self".to_owned() + &".optMap(x, x)".repeat(200),
        "self.all(x, ".repeat(3000) + "true" + &")".repeat(3000),
    ];
    for source in &deep {
        if let Err(errors) = dynamic().compile(source) {
            assert!(
                errors.to_string().contains("recursion limit exceeded"),
                "{source:.20} {:?}",
                errors.first().map(|e| &e.message)
            );
        }
    }
    let chain = vec!["true"; 10_000].join(" && ");
    assert_eq!(eval(&chain, &json!(null)).as_deref(), Ok("true"), "logical chains are balanced");
    let long = format!("'{}' == ''", "x".repeat(100_000));
    assert!(eval(&long, &json!(null)).unwrap_err().contains("expression code point size exceeds limit"));
}

#[test]
fn memory_is_bounded() {
    let text = "x".repeat(100_000);
    for source in [
        "self.replace('x', self)",
        "self.split('').map(c, self).join()",
        "'%s%s'.format([self, self]).replace('x', self)",
    ] {
        let error = eval(source, &Json::from(text.as_str())).unwrap_err();
        assert!(error.contains("too long") || error.contains("cost limit"), "{error:.200}");
    }
}
