use crate::support::typed;
use keelson_cel::{escape, unescape};
use serde_json::json;

#[test]
fn schemas_type_their_values() {
    let schema = json!({"type": "object", "properties": {
        "int": {"type": "integer"}, "num": {"type": "number"}, "bool": {"type": "boolean"},
        "str": {"type": "string"}, "bytes": {"type": "string", "format": "byte"},
        "time": {"type": "string", "format": "date-time"}, "date": {"type": "string", "format": "date"},
        "dur": {"type": "string", "format": "duration"}, "ios": {"x-kubernetes-int-or-string": true},
        "list": {"type": "array", "items": {"type": "integer"}},
        "map": {"type": "object", "additionalProperties": {"type": "integer"}},
        "nullable": {"type": "string", "nullable": true},
        "a-b.c/d__e": {"type": "integer"}, "namespace": {"type": "string"},
        "raw": {"x-kubernetes-preserve-unknown-fields": true},
    }});
    let object = json!({
        "int": 1, "num": 2, "bool": true, "str": "x", "bytes": "aGk=", "time": "2020-01-01T00:00:00Z", "date": "2020-01-02",
        "dur": "90s", "ios": "5%", "list": [3, 1], "map": {"k": 1}, "nullable": null, "a-b.c/d__e": 7, "namespace": "ns",
        "raw": {"x": [1]}, "unknown": 1,
    });
    for (source, expected) in [
        ("self.int + 1", "2"),
        ("self.num / 4.0", "0.5"),
        ("self.bytes == b'hi'", "true"),
        ("self.time.getFullYear()", "2020"),
        ("self.date - self.time == duration('24h')", "true"),
        ("self.dur == duration('1m30s')", "true"),
        ("type(self.ios) == string && self.ios.endsWith('%')", "true"),
        ("self.list.sum()", "4"),
        ("self.map.k + self.map['k']", "2"),
        ("has(self.nullable)", "false"),
        ("has(self.int) && !has(self.map.z)", "true"),
        ("self.a__dash__b__dot__c__slash__d__underscores__e", "7"),
        ("self.__namespace__", "ns"),
        ("self == self", "true"),
    ] {
        assert_eq!(typed(&schema, source, &object).as_deref(), Ok(expected), "{source}");
    }
    for (source, expected) in [
        ("self.raw", "undefined field 'raw'"),
        ("self.unknown", "undefined field 'unknown'"),
        ("self.metadata", "undefined field 'metadata'"),
        ("self.num / 4", "found no matching overload for '_/_' applied to '(double, int)'"),
    ] {
        assert!(typed(&schema, source, &object).unwrap_err().contains(expected), "{source}");
    }
    assert_eq!(
        typed(&schema, "self.int == 1", &json!({"int": "x"})),
        Err("invalid data, expected int, got string".into())
    );
    assert_eq!(typed(&schema, "self.str == ''", &json!({})), Err("no such key: str".into()));
}

#[test]
fn list_types_decide_equality_and_sums() {
    let list = |kind: serde_json::Value, items: serde_json::Value| {
        let mut list = json!({"type": "array", "items": items});
        list.as_object_mut().unwrap().extend(kind.as_object().unwrap().clone());
        json!({"type": "object", "properties": {"a": list, "b": list}})
    };
    let set = list(json!({"x-kubernetes-list-type": "set"}), json!({"type": "string"}));
    let object = json!({"a": ["x", "y"], "b": ["y", "x"]});
    assert_eq!(typed(&set, "self.a == self.b", &object).as_deref(), Ok("true"));
    assert_eq!(typed(&set, "self.a + ['z', 'x']", &object).as_deref(), Ok("[x, y, z]"));
    let atomic = list(json!({}), json!({"type": "string"}));
    assert_eq!(typed(&atomic, "self.a == self.b", &object).as_deref(), Ok("false"));
    assert_eq!(typed(&atomic, "self.a + self.b", &object).as_deref(), Ok("[x, y, y, x]"));
    let item = json!({"type": "object", "properties": {"k": {"type": "string"}, "v": {"type": "integer"}}});
    let map = json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"], "items": item});
    let schema = json!({"type": "array", "items": map});
    let object = json!([[{"k": "p", "v": 1}, {"k": "q", "v": 2}], [{"k": "q", "v": 2}, {"k": "p", "v": 1}]]);
    assert_eq!(typed(&schema, "self[0] == self[1]", &object).as_deref(), Ok("true"));
    let object = json!([[{"k": "p", "v": 1}], [{"k": "p", "v": 9}, {"k": "r", "v": 3}]]);
    assert_eq!(typed(&schema, "(self[0] + self[1]).map(x, x.v)", &object).as_deref(), Ok("[9, 3]"));
}

#[test]
fn undeclared_fields_count_for_equality() {
    let schema = json!({"type": "object", "properties": {"a": {"type": "object", "properties": {}}, "b": {"type": "object", "properties": {}}}});
    let object = json!({"a": {"x": 1}, "b": {"x": 2}});
    assert!(
        typed(&schema, "self.a == self.b", &object).is_err(),
        "types of objects differ by where they stand"
    );
    let schema =
        json!({"type": "array", "items": {"type": "object", "properties": {"k": {"type": "string"}}}});
    for (object, equal) in [(json!([{"x": 1}, {"x": 2}]), "false"), (json!([{"x": [1]}, {"x": [1]}]), "true")]
    {
        assert_eq!(typed(&schema, "self[0] == self[1]", &object).as_deref(), Ok(equal));
    }
}

#[test]
fn names_escape_and_return() {
    for (name, escaped) in [
        ("a", Some("a")),
        ("_a_", Some("_a_")),
        ("a__b", Some("a__underscores__b")),
        ("a.b-c/d", Some("a__dot__b__dash__c__slash__d")),
        ("for", Some("__for__")),
        ("namespace", Some("__namespace__")),
        ("1a", None),
        ("a b", None),
        ("", None),
        ("é", None),
    ] {
        assert_eq!(escape(name).as_deref(), escaped, "{name}");
        if let Some(escaped) = escaped {
            assert_eq!(unescape(escaped).as_deref(), Some(name), "{escaped}");
        }
    }
    assert_eq!(unescape("a__nope__b"), None);
    assert_eq!(unescape("x__for__"), None);
}
