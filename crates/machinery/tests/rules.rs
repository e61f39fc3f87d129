use keelson_machinery::{Rules, check_rules};
use serde_json::{Value, json};

/// What the rules of a schema say of an object, or of its update.
fn errors(schema: &Value, object: Value, old: Option<Value>) -> Vec<String> {
    let rules = Rules::compile(schema).expect("the schema has rules");
    rules.validate(&object, old.as_ref(), &[]).errors.iter().map(ToString::to_string).collect()
}

fn ratcheted(schema: &Value, object: Value, old: Value) -> Vec<String> {
    let rules = Rules::compile(schema).expect("the schema has rules");
    rules.validate(&object, Some(&old), &[]).ratcheted.iter().map(ToString::to_string).collect()
}

/// A resource whose `spec` has these properties and rules.
fn spec(properties: Value, rules: Value) -> Value {
    json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": properties, "x-kubernetes-validations": rules}}})
}

fn numbers(rules: Value) -> Value {
    spec(json!({"min": {"type": "integer"}, "max": {"type": "integer"}}), rules)
}

#[test]
fn a_failed_rule_says_what_its_author_wrote() {
    let object = || json!({"spec": {"min": 3, "max": 2}});
    for (rule, expected) in [
        (json!({"rule": "self.min <= self.max"}), "spec: Invalid value: failed rule: self.min <= self.max"),
        (
            json!({"rule": "self.min <= self.max", "message": " min must be small "}),
            "spec: Invalid value: min must be small",
        ),
        (
            json!({"rule": "self.min <= self.max", "messageExpression": "'%d > %d'.format([self.min, self.max])"}),
            "spec: Invalid value: 3 > 2",
        ),
        (
            json!({"rule": "self.min <= self.max", "message": "plain", "messageExpression": "' '"}),
            "spec: Invalid value: plain",
        ),
        (
            json!({"rule": "self.min <= self.max", "message": "m", "fieldPath": ".min"}),
            "spec.min: Invalid value: m",
        ),
        (
            json!({"rule": "self.min <= self.max", "message": "m", "reason": "FieldValueForbidden"}),
            "spec: Forbidden: m",
        ),
        (
            json!({"rule": "self.min <= self.max", "message": "m", "reason": "FieldValueRequired"}),
            "spec: Required value: m",
        ),
        (
            json!({"rule": "self.min <= self.max", "message": "m", "reason": "FieldValueDuplicate"}),
            "spec: Duplicate value",
        ),
        (
            json!({"rule": "self.min / 0 == 1"}),
            "spec: Invalid value: \"object\": division by zero evaluating rule: self.min / 0 == 1",
        ),
        (
            json!({"rule": "dyn(self.min) + 'x' == ''", "message": "m"}),
            "spec: Invalid value: \"object\": 'no such overload: _+_(int, string)': call arguments did not match a \
             supported operator, function or macro signature for rule: m",
        ),
    ] {
        assert_eq!(errors(&numbers(json!([rule])), object(), None), [expected], "{rule}");
    }
    assert!(errors(&numbers(json!([{"rule": "self.min >= self.max"}])), object(), None).is_empty());
}

#[test]
fn rules_stand_on_any_part_of_a_schema() {
    let schema = json!({"type": "object",
    "x-kubernetes-validations": [{"rule": "self.metadata.name.startsWith('a')"}],
    "properties": {"spec": {"type": "object", "properties": {
        "list": {"type": "array", "items": {"type": "integer",
            "x-kubernetes-validations": [{"rule": "self > 0"}]}},
        "map": {"type": "object", "additionalProperties": {"type": "string",
            "x-kubernetes-validations": [{"rule": "self != 'bad'"}]}},
        "raw": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "x-kubernetes-embedded-resource": true,
            "x-kubernetes-validations": [{"rule": "self.kind == 'Pod'"}]},
        "maybe": {"type": "string", "nullable": true, "x-kubernetes-validations": [{"rule": "self.size() > 0"}]},
    }}}});
    let object = json!({"metadata": {"name": "b"}, "spec": {
        "list": [1, 0], "map": {"k": "bad"}, "raw": {"apiVersion": "v1", "kind": "Node", "x": 1}, "maybe": null}});
    let expected = [
        "<nil>: Invalid value: failed rule: self.metadata.name.startsWith('a')",
        "spec.list[1]: Invalid value: 0: failed rule: self > 0",
        "spec.map[k]: Invalid value: \"bad\": failed rule: self != 'bad'",
        "spec.raw: Invalid value: failed rule: self.kind == 'Pod'",
    ];
    assert_eq!(errors(&schema, object, None), expected);
}

#[test]
fn transitions_compare_with_what_was() {
    let immutable = spec(
        json!({
            "name": {"type": "string", "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "immutable"}]},
            "once": {"type": "string", "x-kubernetes-validations": [{
                "rule": "!oldSelf.hasValue() || self == oldSelf.value()", "optionalOldSelf": true, "message": "once"}]},
            "list": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
                "items": {"type": "object", "properties": {"k": {"type": "string"}, "v": {"type": "integer",
                    "x-kubernetes-validations": [{"rule": "self >= oldSelf", "message": "grows"}]}}}},
        }),
        json!([]),
    );
    assert!(errors(&immutable, json!({"spec": {"name": "a", "once": "x"}}), None).is_empty());
    let update =
        |object: Value, old: Value| errors(&immutable, json!({"spec": object}), Some(json!({"spec": old})));
    assert_eq!(
        update(json!({"name": "b"}), json!({"name": "a"})),
        ["spec.name: Invalid value: \"b\": immutable"]
    );
    assert!(update(json!({"name": "b"}), json!({})).is_empty(), "there was nothing to compare with");
    assert_eq!(update(json!({"once": "y"}), json!({"once": "x"})), ["spec.once: Invalid value: \"y\": once"]);
    let before = json!({"list": [{"k": "a", "v": 5}, {"k": "b", "v": 1}]});
    let after = json!({"list": [{"k": "b", "v": 2}, {"k": "c", "v": 0}, {"k": "a", "v": 4}]});
    assert_eq!(update(after, before), ["spec.list[2].v: Invalid value: 4: grows"]);
}

#[test]
fn what_an_update_leaves_alone_is_no_reason_to_refuse_it() {
    let schema = spec(
        json!({
            "bad": {"type": "string", "x-kubernetes-validations": [{"rule": "self != 'bad'"}]},
            "other": {"type": "string"},
            "list": {"type": "array", "items": {"type": "string", "x-kubernetes-validations": [{"rule": "self != 'bad'"}]}},
        }),
        json!([]),
    );
    let old = json!({"spec": {"bad": "bad", "other": "x", "list": ["bad"]}});
    let same = json!({"spec": {"bad": "bad", "other": "y", "list": ["bad"]}});
    assert!(errors(&schema, same.clone(), Some(old.clone())).is_empty());
    let expected = [
        "spec.bad: Invalid value: \"bad\": failed rule: self != 'bad'",
        "spec.list[0]: Invalid value: \"bad\": failed rule: self != 'bad'",
    ];
    assert_eq!(ratcheted(&schema, same, old.clone()), expected);
    // The items of an atomic list have no old values of their own.
    let grown = json!({"spec": {"bad": "bad", "other": "x", "list": ["bad", "good"]}});
    assert_eq!(errors(&schema, grown, Some(old)), expected[1..]);
}

#[test]
fn budgets_bound_what_an_objects_rules_cost() {
    let texts = |count: usize| json!({"spec": vec!["x".repeat(90_000); count]});
    let rule = |rule: &str| {
        json!({"type": "object", "properties": {"spec": {"type": "array", "items": {"type": "string",
            "x-kubernetes-validations": [{"rule": rule}]}}}})
    };
    let dear = "self.matches('^x+$|aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa')";
    let too_dear = [dear; 12].join(" && ");
    let prefix = "spec[0]: Invalid value: \"string\": ";
    assert_eq!(
        errors(&rule(&too_dear), texts(1), None),
        [format!(
            "{prefix}'operation cancelled: actual cost limit exceeded': no further validation rules will be run due to \
             call cost exceeds limit for rule: {too_dear}"
        )]
    );
    assert!(errors(&rule(dear), texts(50), None).is_empty());
    let found = errors(&rule(dear), texts(120), None);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].ends_with(
        "validation failed due to running out of cost budget, no further validation rules will be run"
    ));
}

#[test]
fn objects_that_are_not_of_the_schemas_types_are_not_looked_at() {
    let rules = Rules::compile(&numbers(json!([{"rule": "false"}]))).unwrap();
    let so_far = [keelson_api_types::FieldError::required("spec.x", "")];
    let found = rules.validate(&json!({"spec": {}}), None, &so_far).errors;
    assert_eq!(
        found[0].to_string(),
        "<nil>: Invalid value: \"null\": some validation rules were not checked because the object was invalid; correct \
         the existing errors to complete validation"
    );
    assert!(Rules::compile(&json!({"type": "object"})).is_none());
}

fn definition_errors(schema: &Value) -> Vec<String> {
    check_rules(schema, "schema", false).iter().map(ToString::to_string).collect()
}

#[test]
fn definitions_must_state_rules_that_compile() {
    let at = "schema.properties[spec].x-kubernetes-validations[0]";
    let shown = |rule: &str, expression: &str| {
        format!(
            "Invalid value: apiextensions.ValidationRule{{Rule:\"{rule}\", Message:\"\", MessageExpression:\"{expression}\", \
             Reason:(*apiextensions.FieldValueErrorReason)(nil), FieldPath:\"\", OptionalOldSelf:(*bool)(nil)}}"
        )
    };
    for (rule, expected) in [
        (json!({"rule": "self.min > 0"}), Vec::new()),
        (json!({"rule": " "}), vec![format!("{at}.rule: Required value: rule is not specified")]),
        (
            json!({"rule": "true", "message": " "}),
            vec![format!("{at}.message: Invalid value: \" \": must be non-empty if specified")],
        ),
        (
            json!({"rule": "true &&\ntrue"}),
            vec![format!(
                "{at}.message: Required value: message must be specified if rule contains line breaks"
            )],
        ),
        (
            json!({"rule": "true", "reason": "Because"}),
            vec![format!(
                "{at}.reason: Unsupported value: \"Because\": supported values: \"FieldValueDuplicate\", \
                 \"FieldValueForbidden\", \"FieldValueInvalid\", \"FieldValueRequired\""
            )],
        ),
        (
            json!({"rule": "true", "fieldPath": ".nope"}),
            vec![format!("{at}.fieldPath: Invalid value: \".nope\": must be a valid path")],
        ),
        (json!({"rule": "true", "fieldPath": "['min']"}), Vec::new()),
        (
            json!({"rule": "self.nope"}),
            vec![format!(
                "{at}.rule: {}: compilation failed: ERROR: <input>:1:5: undefined field 'nope'\n | self.nope\n | ....^",
                shown("self.nope", "")
            )],
        ),
        (
            json!({"rule": "self.min"}),
            vec![format!("{at}.rule: {}: cel expression must evaluate to a bool", shown("self.min", ""))],
        ),
        (
            json!({"rule": "true", "messageExpression": "1"}),
            vec![format!(
                "{at}.messageExpression: {}: messageExpression must evaluate to a string",
                shown("true", "1")
            )],
        ),
        (
            json!({"rule": "true", "optionalOldSelf": true}),
            vec![format!(
                "{at}.optionalOldSelf: Invalid value: true: may not be set if oldSelf is not used in rule"
            )],
        ),
    ] {
        assert_eq!(definition_errors(&numbers(json!([rule]))), expected, "{rule}");
    }
}

#[test]
fn definitions_may_not_cost_too_much() {
    let list = |limits: Value| {
        let mut list = json!({"type": "array", "items": {"type": "string"},
            "x-kubernetes-validations": [{"rule": "self.all(x, self.all(y, x == y))"}]});
        list.as_object_mut().unwrap().extend(limits.as_object().unwrap().clone());
        json!({"type": "object", "properties": {"list": list}})
    };
    let found = definition_errors(&list(json!({})));
    let at = "schema.properties[list].x-kubernetes-validations[0].rule";
    let advice = "(try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and \
                  strings are declared)";
    let expected = [
        format!("{at}: Forbidden: estimated rule cost exceeds budget by factor of more than 100x {advice}"),
        format!(
            "{at}: Forbidden: contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema"
        ),
        format!(
            "schema: Forbidden: x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema exceeds budget \
             by factor of more than 100x {advice}"
        ),
    ];
    assert_eq!(found, expected);
    assert!(
        definition_errors(&list(json!({"maxItems": 5, "items": {"type": "string", "maxLength": 10}})))
            .is_empty()
    );
    let unchanged = check_rules(&list(json!({})), "schema", true);
    assert_eq!(unchanged.len(), 2, "what was there may cost what it did; the total is bounded all the same");
}

#[test]
fn rules_may_compare_only_what_can_be_told_apart() {
    let list = |kind: Value| {
        let mut list = json!({"type": "array", "maxItems": 5, "items": {"type": "object", "properties": {"k": {"type": "string", "maxLength": 5}},
            "required": ["k"], "x-kubernetes-validations": [{"rule": "self.k == oldSelf.k"}]}});
        list.as_object_mut().unwrap().extend(kind.as_object().unwrap().clone());
        json!({"type": "object", "properties": {"list": list}})
    };
    let map = json!({"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"]});
    assert!(definition_errors(&list(map)).is_empty());
    assert_eq!(
        definition_errors(&list(json!({}))),
        [
            "schema.properties[list].items.x-kubernetes-validations[0].rule: Invalid value: \"self.k == oldSelf.k\": oldSelf \
             cannot be used on the uncorrelatable portion of the schema within schema.properties[list]"
        ]
    );
}

#[test]
fn the_conformance_suites_rules_are_accepted_and_bounded() {
    let schema = json!({"type": "object", "properties": {
        "spec": {
            "type": "object",
            "x-kubernetes-validations": [
                {"rule": "self.x + self.y > 0"},
                {"rule": "self.firstArray.isSorted() && self.secondArray.isSorted() && ((self.firstArray.sum() + \
                          self.secondArray.sum()) % 2 == 0)"},
                {"rule": "self.largeArray.all(x, self.largeArray.all(y, y == x))"}
            ],
            "properties": {
                "x": {"type": "integer"}, "y": {"type": "integer"},
                "firstArray": {"type": "array", "maxItems": 1000, "items": {"type": "integer"}},
                "secondArray": {"type": "array", "maxItems": 1000, "items": {"type": "integer"}},
                "largeArray": {"type": "array", "maxItems": 725, "items": {"type": "integer"}}
            }
        },
        "status": {"type": "object", "properties": {"health": {"type": "string"}},
            "x-kubernetes-validations": [{"rule": "self.health == 'ok' || self.health == 'unhealthy'"}]}
    }});
    assert_eq!(definition_errors(&schema), [""; 0]);
    let good =
        json!({"spec": {"x": 1, "y": 0, "firstArray": [3, 4], "secondArray": [5, 10], "largeArray": [2, 2]}});
    assert_eq!(errors(&schema, good, None), [""; 0]);
    let large = json!({"spec": {"largeArray": vec![20; 725]}});
    assert!(errors(&schema, large, None).last().is_some_and(|e| e.contains("call cost exceeds limit")));
}
