use crate::support::dynamic;
use keelson_cel::{Declared, Env, Type};
use serde_json::json;

fn errors(source: &str) -> String {
    let schema = json!({"type": "object", "properties": {
        "replicas": {"type": "integer"},
        "name": {"type": "string"},
        "tags": {"type": "array", "items": {"type": "string"}},
    }});
    let declared = Declared::from_schema(&schema, "selfType", true).unwrap();
    let env = Env::builder().variable("self", declared).build();
    env.compile(source).map(|_| String::new()).unwrap_or_else(|e| e.to_string())
}

#[test]
fn messages_point_into_the_source() {
    for (source, expected) in [
        ("x", "ERROR: <input>:1:1: undeclared reference to 'x' (in container '')\n | x\n | ^"),
        ("self.nope == 1", "ERROR: <input>:1:5: undefined field 'nope'\n | self.nope == 1\n | ....^"),
        (
            "self.replicas == self.name",
            "ERROR: <input>:1:15: found no matching overload for '_==_' applied to '(int, string)'\n | self.replicas \
             == self.name\n | ..............^",
        ),
        (
            "self.name.size(1) > 0",
            "ERROR: <input>:1:15: found no matching overload for 'size' applied to 'string.(int)'\n | \
             self.name.size(1) > 0\n | ..............^",
        ),
        (
            "self.name.nope()",
            "ERROR: <input>:1:15: undeclared reference to 'nope' (in container '')\n | self.name.nope()\n | ..............^",
        ),
        (
            "self.replicas.all(x, true)",
            "ERROR: <input>:1:5: expression of type 'int' cannot be range of a comprehension (must be list, map, or \
             dynamic)\n | self.replicas.all(x, true)\n | ....^",
        ),
        (
            "self.replicas.x",
            "ERROR: <input>:1:14: type 'int' does not support field selection\n | self.replicas.x\n | .............^",
        ),
        (
            "[1, 'a'] == []",
            "ERROR: <input>:1:5: expected type 'int' but found 'string'\n | [1, 'a'] == []\n | ....^",
        ),
        ("true && 1", "ERROR: <input>:1:9: expected type 'bool' but found 'int'\n | true && 1\n | ........^"),
        (
            "a &&\n b",
            "ERROR: <input>:1:1: undeclared reference to 'a' (in container '')\n | a &&\n | ^\nERROR: <input>:2:2: \
             undeclared reference to 'b' (in container '')\n |  b\n | .^",
        ),
        (
            "'é' + x",
            "ERROR: <input>:1:7: undeclared reference to 'x' (in container '')\n | 'é' + x\n | .．....^",
        ),
        (
            "duration('x') > duration('1s')",
            "ERROR: <input>:1:10: invalid duration argument\n | duration('x') > duration('1s')\n | .........^",
        ),
    ] {
        assert_eq!(errors(source), expected, "{source}");
    }
}

#[test]
fn syntax_errors_say_so() {
    for (source, expected) in [
        ("self.replicas >", "Syntax error: mismatched input '<EOF>' expecting {'[', '{', '(', '.'"),
        ("", "Syntax error: mismatched input '<EOF>' expecting {"),
        ("1 2", "Syntax error: extraneous input '2' expecting <EOF>"),
        ("self.", "Syntax error: mismatched input '<EOF>' expecting IDENTIFIER"),
        ("(1", "Syntax error: mismatched input '<EOF>' expecting ')'"),
        ("'abc", "Syntax error: token recognition error at: ''abc'"),
        ("a # b", "Syntax error: token recognition error at: '#'"),
        ("namespace", "reserved identifier: namespace"),
        ("99999999999999999999", "invalid int literal"),
    ] {
        assert!(errors(source).contains(expected), "{source}: {}", errors(source));
    }
}

#[test]
fn expressions_have_types() {
    for (source, expected) in [
        ("1", "int"),
        ("[1, 2].map(x, string(x))", "list(string)"),
        ("{'a': [1.5]}", "map(string, list(double))"),
        ("self", "dyn"),
        ("self.x == 1", "bool"),
        ("optional.of(1)", "optional_type(int)"),
        ("true ? 1 : 2", "int"),
        ("type(1)", "type(int)"),
        ("null", "null"),
        ("quantity('1')", "kubernetes.Quantity"),
        ("duration('1s')", "duration"),
        ("self.items.filter(x, x.a)", "list(dyn)"),
        ("[].map(x, x)", "list(dyn)"),
        ("url('/x').getQuery()", "map(string, list(string))"),
        ("Object{}", "Object"),
        ("[JSONPatch{op: 'test'}]", "list(JSONPatch)"),
    ] {
        let ty = dynamic().compile(source).map(|p| p.output_type().to_string());
        assert_eq!(ty.map_err(|e| e.to_string()), Ok(expected.to_owned()), "{source}");
    }
}

#[test]
fn programs_know_the_variables_that_they_name() {
    let env =
        Env::builder().variable("self", Declared::dynamic()).variable("oldSelf", Declared::dynamic()).build();
    let program = env.compile("self.a == 1 && [1].all(oldSelf, oldSelf > 0)").unwrap();
    assert!(program.references("self") && !program.references("oldSelf"), "a macro's variable hides it");
    assert!(env.compile("oldSelf.a").unwrap().references("oldSelf"));
}

#[test]
fn mutation_types_are_known_only_where_they_are_allowed() {
    let env = Env::builder().build();
    for source in ["Object{}", "JSONPatch{op: 'x'}", "jsonpatch.escapeKey('x')"] {
        assert!(env.compile(source).unwrap_err().to_string().contains("undeclared reference"), "{source}");
    }
    assert_eq!(*dynamic().compile("jsonpatch.escapeKey('x')").unwrap().output_type(), Type::String);
}
