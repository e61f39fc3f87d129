use keelson_machinery::{validate_lists, validate_schema};
use keelson_schema::from_json_schema;
use serde_json::{Value, json};

fn messages(spec: Value, object: Value) -> Vec<String> {
    let schema = json!({"type": "object", "properties": {"spec": spec}});
    let ty = from_json_schema(&schema).expect("schema");
    let object = json!({"spec": object});
    let mut errors = validate_schema(&ty, &object, None, "");
    errors.extend(validate_lists(&ty, &object));
    errors.iter().map(ToString::to_string).collect()
}

#[test]
fn complains_like_upstream() {
    for (schema, value, want) in [
        (
            json!({"type": "integer"}),
            json!("x"),
            r#"spec: Invalid value: "string": spec in body must be of type integer: "string""#,
        ),
        (
            json!({"type": "integer", "minimum": 1}),
            json!(0),
            "spec: Invalid value: 0: spec in body should be greater than or equal to 1",
        ),
        (
            json!({"type": "integer", "maximum": 1}),
            json!(2),
            "spec: Invalid value: 2: spec in body should be less than or equal to 1",
        ),
        (
            json!({"type": "string", "pattern": "^a+$"}),
            json!("b"),
            r#"spec: Invalid value: "b": spec in body should match '^a+$'"#,
        ),
        (
            json!({"type": "string", "enum": ["a", "b"]}),
            json!("c"),
            r#"spec: Unsupported value: "c": supported values: "a", "b""#,
        ),
        (
            json!({"type": "string", "maxLength": 1}),
            json!("ab"),
            "spec: Too long: may not be more than 1 byte",
        ),
        (
            json!({"type": "object", "required": ["a"], "properties": {"a": {"type": "string"}}}),
            json!({}),
            "spec.a: Required value",
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "string"}}}),
            json!({"a": null}),
            r#"spec.a: Invalid value: "null": spec.a in body must be of type string: "null""#,
        ),
        (
            json!({"type": "array", "maxItems": 1, "items": {"type": "integer"}}),
            json!([1, 2]),
            "spec: Too many: 2: must have at most 1 item",
        ),
        (
            json!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}}),
            json!(["a", "a"]),
            r#"spec[1]: Duplicate value: "a""#,
        ),
        (
            json!({"type": "string", "format": "ipv4"}),
            json!("x"),
            r#"spec: Invalid value: "x": spec in body must be of type ipv4: "x""#,
        ),
    ] {
        assert_eq!(messages(schema.clone(), value), [want], "{schema}");
    }
}

#[test]
fn junctors_hold() {
    let schema =
        json!({"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]});
    assert!(messages(schema.clone(), json!("a")).is_empty());
    assert!(messages(schema, json!(1)).is_empty());
    let schema = json!({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
        "oneOf": [{"required": ["a"]}, {"required": ["b"]}]});
    assert!(messages(schema.clone(), json!({"a": ""})).is_empty());
    assert_eq!(messages(schema, json!({})).len(), 2, "the best branch is explained");
    let schema =
        json!({"type": "object", "properties": {"a": {"type": "string"}}, "not": {"required": ["a"]}});
    assert_eq!(messages(schema, json!({"a": ""})).len(), 1);
}
