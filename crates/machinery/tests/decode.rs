use keelson_machinery::{decode, encode};
use serde_json::json;

#[test]
fn json_reports_duplicates_with_their_path() {
    let text = br#"{"spec":{"replicas":2,"replicas":3,"c":[{"a":1},{"b":1,"b":2}]},"k":1}"#;
    let (value, duplicates) = decode::json_strict(text).expect("valid");
    assert_eq!(value["spec"]["replicas"], 3);
    assert_eq!(duplicates, [r#"duplicate field "spec.replicas""#, r#"duplicate field "spec.c[1].b""#]);
}

#[test]
fn truncated_json_says_so() {
    let e = decode::json_strict(br#"{"a":"#).unwrap_err();
    assert_eq!(e.to_string(), "couldn't get version/kind; json parse error: unexpected end of JSON input");
    assert!(decode::json_strict(b"{} x").is_err());
    assert!(decode::json_strict(&b"[".repeat(100_000)).is_err());
}

#[test]
fn bad_json_is_described_in_gos_words() {
    let check = |text: &str, expected: &str| match decode::json_strict(text.as_bytes()) {
        Err(decode::DecodeError::Json(message)) => assert_eq!(message, expected, "{text}"),
        other => panic!("{text}: {other:?}"),
    };
    for unfinished in ["", "  ", "{", "{\"a\"", "{\"a\":", "[1,", "\"x", "tru", "-", "1.", "1e", "\"\\u12"] {
        check(unfinished, "unexpected end of JSON input");
    }
    check("x", "invalid character 'x' looking for beginning of value");
    check("{x", "invalid character 'x' looking for beginning of object key string");
    check("{\"a\":1,}", "invalid character '}' looking for beginning of object key string");
    check("{\"a\" 1}", "invalid character '1' after object key");
    check("{\"a\":1 2}", "invalid character '2' after object key:value pair");
    check("[1 2]", "invalid character '2' after array element");
    check("{\"a\":1}}", "invalid character '}' after top-level value");
    check("01", "invalid character '1' after top-level value");
    check("-x", "invalid character 'x' in numeric literal");
    check("1.x", "invalid character 'x' after decimal point in numeric literal");
    check("1ex", "invalid character 'x' in exponent of numeric literal");
    check("trux", "invalid character 'x' in literal true (expecting 'e')");
    check("\"a\nb\"", "invalid character '\\n' in string literal");
    check("\"\\x\"", "invalid character 'x' in string escape code");
    check("\"\\u12x4\"", "invalid character 'x' in \\u hexadecimal character escape");
    check("'", "invalid character '\\'' looking for beginning of value");
}

#[test]
fn strict_problems_come_in_document_order() {
    let pod = keelson_schema::builtin().for_kind("", "v1", "Pod").expect("built in");
    let text = br#"{"zoo":{"x":1,"x":2},"spec":{"nodeName":"a","foo":1,"nodeName":"b","foo":2,
        "containers":[{"name":"c","oops":1}],"nodeSelector":{"k":"1","k":"2"}},"apiVersion":"v1","spec":{},"bar":[]}"#;
    let expected = [
        r#"unknown field "zoo""#,
        r#"unknown field "spec.foo""#,
        r#"duplicate field "spec.nodeName""#,
        r#"unknown field "spec.containers[0].oops""#,
        r#"duplicate field "spec.nodeSelector.k""#,
        r#"duplicate field "spec""#,
        r#"unknown field "bar""#,
    ];
    assert_eq!(decode::strict::problems(Some(pod), text), expected);
    assert_eq!(
        decode::strict::problems(None, br#"[{"a":{"b":1,"b":2}},{"a":1,"a":2,"a":3}]"#),
        [r#"duplicate field "[0].a.b""#, r#"duplicate field "[1].a""#]
    );
}

#[test]
fn each_duplicate_of_yaml_is_a_warning() {
    let (_, duplicates) = decode::yaml(b"a: 1\nb: 1\na: 2\nb: 2\n").expect("valid");
    assert_eq!(
        decode::warnings(duplicates),
        ["line 3: key \"a\" already set in map", "line 4: key \"b\" already set in map"]
    );
}

#[test]
fn yaml_reads_as_upstream_does() {
    let text = "\na: 0644\nb: yes\nc: \"yes\"\nd: 1.5\ne: ~\nf: 2026-01-02\ng: [1, x]\n8080: p\nh: |\n  x\n";
    let (value, duplicates) = decode::yaml(text.as_bytes()).expect("valid");
    assert_eq!(
        value,
        json!({"a": 420, "b": true, "c": "yes", "d": 1.5, "e": null, "f": "2026-01-02", "g": [1, "x"], "8080": "p", "h": "x\n"})
    );
    assert!(duplicates.is_empty());
}

#[test]
fn yaml_reports_duplicates_with_their_line() {
    let text = "\napiVersion: v1\nspec:\n  foo: foo1\n  foo: foo2\n";
    let (value, duplicates) = decode::yaml(text.as_bytes()).expect("valid");
    assert_eq!(value["spec"]["foo"], "foo2");
    assert_eq!(duplicates, ["yaml: unmarshal errors:\n  line 5: key \"foo\" already set in map"]);
}

#[test]
fn aliases_do_not_take_memory_out_of_proportion() {
    let repeat = |times: usize, size: usize| {
        let text = format!("a: &a {}\nb: [{}]\n", "x".repeat(size), vec!["*a"; times].join(","));
        decode::yaml(text.as_bytes()).map_err(|error| error.to_string())
    };
    let (small, _) = repeat(100, 100).unwrap();
    assert_eq!(small["b"].as_array().map(Vec::len), Some(100));
    assert!(repeat(1000, 100_000).is_err());
}

#[test]
fn yaml_may_be_long_but_not_bottomless() {
    let long = "- {a: b, c: d}\n".repeat(60_000);
    assert_eq!(decode::yaml(long.as_bytes()).unwrap().0.as_array().map(Vec::len), Some(60_000));
    let documents = "---\na: b\n".repeat(5000);
    assert_eq!(decode::yaml_documents(&documents).unwrap().len(), 5000);
    let deep = format!("{}1{}", "[".repeat(60), "]".repeat(60));
    assert!(decode::yaml(deep.as_bytes()).is_ok());
    let deeper = format!("{}1{}", "[".repeat(20_000), "]".repeat(20_000));
    assert!(decode::yaml(deeper.as_bytes()).is_err());
}

#[test]
fn yaml_streams_split_into_documents() {
    let docs = decode::yaml_documents("a: 1\n---\n---\nb: &x 2\nc: *x\n").expect("valid");
    assert_eq!(docs, [json!({"a": 1}), json!({"b": 2, "c": 2})]);
}

#[test]
fn canonical_bytes_open_with_the_metadata() {
    let object =
        json!({"kind": "Pod", "aaa": {"metadata": {}}, "metadata": {"name": "a"}, "apiVersion": "v1"});
    let bytes = encode::canonical(&object);
    assert_eq!(
        String::from_utf8(bytes).expect("utf-8"),
        r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a"},"aaa":{"metadata":{}}}"#
    );
}

#[test]
fn floats_stay_as_they_are_through_reading_and_writing() {
    for text in ["9.223372036720367e+23", "0.1", "-1.5e+300", "1.7976931348623157e+308"] {
        let (value, _) = decode::json_strict(format!("[{text}]").as_bytes()).expect("JSON");
        let once = encode::canonical(&value);
        let (again, _) = decode::json_strict(&once).expect("JSON");
        assert_eq!((encode::canonical(&again), again), (once, value), "{text}");
    }
}
