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
