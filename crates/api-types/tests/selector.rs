use keelson_api_types::selector::{FieldSelector, LabelSelector};
use serde_json::json;

#[test]
fn matches_by_every_operator() {
    let labels = json!({"app": "web", "tier": "front", "n": "5", "in": "x"});
    for (selector, want) in [
        ("", true),
        ("app=web", true),
        ("app==web", true),
        ("app = web , tier", true),
        ("app!=web", false),
        ("absent!=web", true),
        ("app in (api, web)", true),
        ("app notin (api,web)", false),
        ("absent notin (a)", true),
        ("!app", false),
        ("!absent", true),
        ("n>4", true),
        ("n<5", false),
        ("in in (x)", true),
        ("app=", false),
        ("app in ()", false),
    ] {
        let parsed = LabelSelector::parse(selector).unwrap_or_else(|e| panic!("{selector}: {e}"));
        assert_eq!(parsed.matches(&labels), want, "{selector}");
    }
}

#[test]
fn complains_like_upstream() {
    for (selector, want) in [
        ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
        ("a,", "found '', expected: identifier after ','"),
        (",a", "found ',', expected: !, identifier, or 'end of string'"),
        ("a in b", "unable to parse requirement: found 'b' expected: '('"),
    ] {
        assert_eq!(LabelSelector::parse(selector).map_err(|e| e.0), Err(want.to_owned()), "{selector}");
    }
    assert!(LabelSelector::parse("-a=b").is_err());
    assert!(LabelSelector::parse("a=b c").is_err());
}

/// It is no white space of the grammar: a lexer that takes it for some goes on for ever.
#[test]
fn a_form_feed_is_part_of_a_word() {
    for given in ["\u{c}a", "a=\u{c}", "a in (\u{c})"] {
        assert!(LabelSelector::parse(given).is_err(), "{given:?}");
    }
}

#[test]
fn reads_the_selector_object() {
    let object = json!({"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "c", "operator": "In", "values": ["d"]}]});
    let selector = LabelSelector::from_object(Some(&object)).expect("valid");
    assert!(selector.matches(&json!({"a": "b", "c": "d"})));
    assert!(!selector.matches(&json!({"a": "b"})));
    assert!(LabelSelector::from_object(Some(&json!({}))).expect("valid").matches(&json!({})));
    assert!(!LabelSelector::from_object(None).expect("valid").matches(&json!({})));
    let bad = json!({"matchExpressions": [{"key": "c", "operator": "Like"}]});
    assert_eq!(
        LabelSelector::from_object(Some(&bad)).map_err(|e| e.0),
        Err("\"Like\" is not a valid label selector operator".to_owned())
    );
}

#[test]
fn field_selectors_compare_and_escape() {
    let s = FieldSelector::parse("metadata.name=a\\,b,status.phase!=Running").expect("valid");
    assert_eq!(s.requires_exact("metadata.name"), Some("a,b"));
    assert!(s.matches(|f| (f == "metadata.name").then(|| "a,b".into())));
    assert_eq!(s.to_string(), "metadata.name=a\\,b,status.phase!=Running");
    let bad = FieldSelector::parse("metadata.name").map_err(|e| e.0);
    assert_eq!(bad, Err("invalid selector: 'metadata.name'; can't understand 'metadata.name'".to_owned()));
}
