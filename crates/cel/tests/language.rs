use crate::support::{all_fail, all_true, eval};
use serde_json::json;

#[test]
fn literals_and_operators_follow_the_specification() {
    all_true(&[
        "1 + 2 * 3 == 7",
        "(1 + 2) * 3 == 9",
        "7 / 2 == 3 && -7 / 2 == -3 && -7 % 3 == -1",
        "0x10 == 16 && -0x10 == -16 && 0x10u == 16u",
        "-9223372036854775808 < 0",
        "18446744073709551615u > 0u",
        "1.5e3 == 1500.0 && .5 == 0.5",
        "--1 == 1 && !!true",
        "'a' + \"b\" == 'ab'",
        r#"'\u00e9\x41\101\n'.size() == 4"#,
        r#"r'\d' == '\\d'"#,
        r#"'''a
b''' == 'a\nb'"#,
        r#"b'\xff\x00'.size() == 2 && b'é'.size() == 2"#,
        "[1, 2] + [3] == [1, 2, 3]",
        "{'a': 1, 'b': 2}['a'] == 1 && {'a': 1}.a == 1",
        "{1: 'x'}[1] == 'x' && {true: 'y'}[true] == 'y'",
        "2 in [1, 2, 3] && !(4 in [1, 2, 3]) && 'a' in {'a': 1}",
        "true ? 'x' == 'x' : false",
        "1 < 2 && 2 <= 2 && 3 > 2 && 3 >= 3 && 1 != 2",
        "1 < 2.5 && 1u < 2 && 2.0 > 1u",
        "dyn(1) == dyn(1.0) && dyn(1u) == dyn(1) && dyn('1') != dyn(1)",
        "null == null && dyn(null) != dyn(0)",
        "[[1], [2]] == [[1], [2]] && [[1], [2]] != [[2], [1]]",
        "{'a': [1]} == {'a': [1]}",
        "type(1) == int && type('') == string && type([]) == list && type({}) == map && type(null) == null_type",
        "type(1.0) == double && type(1u) == uint && type(b'') == bytes && type(type(1)) == type",
        "type(duration('1s')) == google.protobuf.Duration",
        "// a comment\n true",
        "has({'a': 1}.a) && !has({'a': 1}.b)",
        "'abc' < 'abd' && b'a' < b'b' && false < true",
    ]);
}

#[test]
fn sides_that_decide_absorb_errors() {
    all_true(&[
        "true || 1 / 0 == 1",
        "1 / 0 == 1 || true",
        "!(false && 1 / 0 == 1)",
        "!(1 / 0 == 1 && false)",
        "[1, 0].exists(x, 1 / x == 1)",
        "[0, 1].exists(x, 1 / x == 1)",
        "![0, 2].all(x, 4 / x == 1)",
    ]);
    all_fail(&[
        ("false || 1 / 0 == 1", "division by zero"),
        ("true && 1 / 0 == 1", "division by zero"),
        ("[0].all(x, 1 / x == 1)", "division by zero"),
        ("[1, 0].exists_one(x, 1 / x == 1)", "division by zero"),
    ]);
}

#[test]
fn errors_have_upstreams_words() {
    all_fail(&[
        ("9223372036854775807 + 1 == 0", "integer overflow"),
        ("0u - 1u == 0u", "unsigned integer overflow"),
        ("-(-9223372036854775808) == 0", "integer overflow"),
        ("1 % 0 == 0", "modulus by zero"),
        ("[1][1] == 1", "index out of bounds: 1"),
        ("{'a': 1}['b'] == 1", "no such key: b"),
        ("{'a': 1}.b == 1", "no such key: b"),
        ("dyn('a') + dyn(1) == 'a1'", "no such overload: _+_(string, int)"),
        ("dyn(1) ? true : false", "no such overload"),
        ("int('x') == 1", "type conversion error from 'string' to 'int'"),
        ("int(1e30) == 1", "integer overflow"),
        ("uint(-1) == 1u", "unsigned integer overflow"),
        ("optional.none().value() == 1", "optional.none() dereference"),
        ("{'a': 1, 'a': 2} == {}", "repeated key"),
        ("string(b'\\xff') == ''", "invalid UTF-8 in bytes, cannot convert to string"),
        ("timestamp(dyn(253402300800)) == timestamp(0)", "timestamp overflow"),
    ]);
}

#[test]
fn macros_expand() {
    all_true(&[
        "[1, 2, 3].all(x, x > 0) && [].all(x, x > 0)",
        "[1, 2].exists(x, x == 2) && ![].exists(x, x == 2)",
        "[1, 2, 2].exists_one(x, x == 1) && ![1, 2, 2].existsOne(x, x == 2)",
        "[1, 2, 3].map(x, x * 2) == [2, 4, 6]",
        "[1, 2, 3].map(x, x > 1, x * 2) == [4, 6]",
        "[1, 2, 3].filter(x, x > 1) == [2, 3]",
        "{'a': 1, 'b': 2}.all(k, k in ['a', 'b'])",
        "{'b': 1}.map(k, k + 'x') == ['bx']",
        "[[1], [2, 3]].map(l, l.map(x, x + 1)) == [[2], [3, 4]]",
        "[1, 2].all(i, v, i < v)",
        "{'a': 1}.exists(k, v, k == 'a' && v == 1)",
        "[1, 2].existsOne(i, v, i == 0 && v == 1)",
        "['x', 'y'].transformList(i, v, string(i) + v) == ['0x', '1y']",
        "[1, 2, 3].transformList(i, v, i > 0, v) == [2, 3]",
        "{'a': 1}.transformMap(k, v, v + 1) == {'a': 2}",
        "{'a': 1, 'b': 2}.transformMap(k, v, k != 'a', v) == {'b': 2}",
        "['a', 'b'].transformMapEntry(i, v, {v: i}) == {'a': 0, 'b': 1}",
        "[3, 1, 2].sortBy(x, -x) == [3, 2, 1]",
    ]);
    all_fail(&[
        ("['a', 'a'].transformMapEntry(i, v, {v: i}) == {}", "insert failed: key a already exists"),
        ("has(1)", "invalid argument to has() macro"),
        ("[1].all(1, true)", "argument must be a simple name"),
        ("[1].map(x.y, true)", "argument is not an identifier"),
        ("[1].all(i, i, true)", "duplicate variable name: i"),
        ("[1].all(__result__, true)", "iteration variable overwrites accumulator variable"),
    ]);
}

#[test]
fn optionals_chain() {
    all_true(&[
        "optional.of(1).hasValue() && !optional.none().hasValue()",
        "optional.of(1).value() == 1",
        "!optional.ofNonZeroValue('').hasValue() && optional.ofNonZeroValue('x').value() == 'x'",
        "{'a': 1}.?a.orValue(2) == 1 && {'a': 1}.?b.orValue(2) == 2",
        "{'a': {'b': 3}}.?a.?b.orValue(0) == 3 && {'a': {'b': 3}}.?x.b.orValue(0) == 0",
        "[1, 2][?1].orValue(9) == 2 && [1, 2][?5].orValue(9) == 9",
        "{'a': 1}[?'a'].hasValue()",
        "optional.none().or(optional.of(2)).value() == 2",
        "{'a': 1}.?a.optMap(x, x + 1).value() == 2",
        "!{'a': 1}.?b.optMap(x, x + 1).hasValue()",
        "{'a': {'b': 1}}.?a.optFlatMap(x, x.?b).value() == 1",
        "[?optional.of(1), ?optional.none(), 3] == [1, 3]",
        "{?'a': optional.of(1), ?'b': optional.none()} == {'a': 1}",
        "[optional.of(1), optional.none()].unwrapOpt() == [1]",
        "[1, 2].first().value() == 1 && [1, 2].last().value() == 2 && ![].first().hasValue()",
        "has({'a': {'b': 1}}.?a.b) && !has({'a': {'b': 1}}.?c.b)",
        "optional.of(1) == optional.of(1) && optional.of(1) != optional.none()",
    ]);
}

#[test]
fn json_is_dynamic() {
    let object = json!({"n": 1, "f": 1.5, "s": "x", "l": [1, "a", null], "m": {"k": true}, "big": 1e300});
    for (source, expected) in [
        ("type(self.n) == int && type(self.f) == double", "true"),
        ("self.l[1]", "a"),
        ("self.m.k && self.m['k']", "true"),
        ("self.l.exists(x, x == null)", "true"),
        ("self.n + 1", "2"),
        ("self.l", "[1, a, null]"),
        ("self.m", "{k: true}"),
        ("self.n < self.f", "true"),
        ("self.big", "1e+300"),
    ] {
        assert_eq!(eval(source, &object).as_deref(), Ok(expected), "{source}");
    }
    assert_eq!(eval("self.s + 1", &object), Err("no such overload: _+_(string, int)".into()));
}

#[test]
fn objects_and_patches_are_built_for_mutations() {
    let json = |source: &str| -> serde_json::Value {
        use keelson_cel::{Budget, Variables};
        let program = crate::support::dynamic().compile(source).unwrap();
        program.evaluate(&Variables::new(), &mut Budget::new(1_000_000)).unwrap().to_json().unwrap()
    };
    assert_eq!(
        json("Object{spec: Object.spec{replicas: 3, labels: {'a': 'b'}, list: [Object.spec.list{x: 1}]}}"),
        json!({"spec": {"replicas": 3, "labels": {"a": "b"}, "list": [{"x": 1}]}})
    );
    assert_eq!(
        json("[JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('a/b~c'), value: 'x'}]"),
        json!([{"op": "add", "path": "/metadata/labels/a~1b~0c", "value": "x"}])
    );
    assert!(eval("Object{?a: optional.none()} == Object{}", &json!(null)).is_ok_and(|v| v == "true"));
    assert!(eval("JSONPatch{nope: 1}", &json!(null)).unwrap_err().contains("undefined field 'nope'"));
    assert!(
        eval("JSONPatch{op: 1}", &json!(null))
            .unwrap_err()
            .contains("expected type of field 'op' is 'string' but provided type is 'int'")
    );
}

#[test]
fn variables_compose_and_are_evaluated_once() {
    use keelson_cel::{Budget, Composition, Declared, Env, RUNTIME_BUDGET, Value, Variables};
    let mut composition = Composition::new(&Env::builder().variable("object", Declared::dynamic()).build());
    composition.add("count", "object.list.size()").unwrap();
    composition.add("double", "variables.count * 2").unwrap();
    composition.add("broken", "variables.later").unwrap_err();
    composition.add("fails", "1 / (variables.count - 2)").unwrap();
    let object = json!({"list": [1, 2]});
    let outer = Variables::new().with("object", Value::from_json(&object));
    let scope = composition.scope(&outer);
    let run = |source: &str| {
        let program = composition.env().compile(source).map_err(|e| e.to_string())?;
        let value = program.evaluate(&scope, &mut Budget::new(RUNTIME_BUDGET));
        value.map(|v| v.to_string()).map_err(|e| e.to_string())
    };
    assert_eq!(run("variables.double + variables.count").as_deref(), Ok("6"));
    assert!(scope.take_cost() > 0);
    assert_eq!(run("variables.double").as_deref(), Ok("4"));
    assert_eq!(scope.take_cost(), 0, "the value is kept");
    assert_eq!(
        run("true || variables.fails == 1").as_deref(),
        Ok("true"),
        "what is not asked for is not evaluated"
    );
    let failed = "composited variable \"fails\" fails to evaluate: division by zero";
    assert_eq!(run("variables.fails == 1"), Err(failed.into()));
    assert!(
        run("variables.broken == 1")
            .unwrap_err()
            .starts_with("composited variable \"broken\" fails to compile")
    );
    assert!(run("variables.nope").unwrap_err().contains("undefined field 'nope'"));
    assert!(
        run("variables.count + 'x'").unwrap_err().contains("found no matching overload"),
        "variables have types"
    );
}
