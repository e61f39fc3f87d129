use keelson_api_types::{duration, meta, names, resources};

#[test]
fn says_what_is_wrong_with_a_name() {
    assert!(names::dns1123_subdomain("a-b.c").is_empty());
    assert_eq!(
        names::dns1123_subdomain("A_b"),
        [
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
        ]
    );
    assert_eq!(names::dns1123_label("a.b"), ["must not contain dots"]);
    assert_eq!(names::dns1123_label(&"a".repeat(64)), ["must be no more than 63 characters"]);
    assert!(!names::dns1035_label("1a").is_empty());
    assert!(names::qualified_name("example.com/My_name").is_empty());
    assert_eq!(names::qualified_name("/a"), ["prefix part must be non-empty"]);
    assert!(names::qualified_name("a/b/c")[0].ends_with("(e.g. 'example.com/MyName')"));
    assert!(names::condition_reason("A_b,C:d").is_empty() && !names::condition_reason("a b").is_empty());
    assert!(names::label_value("").is_empty());
    assert_eq!(names::label_value("a b").len(), 1);
    assert!(names::port_name("http-1").is_empty());
    assert_eq!(names::port_number(0), ["must be between 1 and 65535, inclusive"]);
    assert_eq!(names::mask_trailing_dash("ab-"), "aa");
}

#[test]
fn the_resource_table_is_whole() {
    assert!(resources::ALL.len() > 60);
    let deployments = resources::find("apps", "v1", "deployments").expect("deployments");
    assert_eq!(deployments.kind, "Deployment");
    assert_eq!(deployments.short_names, ["deploy"]);
    let scale = deployments.subresource("scale").expect("scale");
    assert_eq!((scale.group, scale.version, scale.kind), ("autoscaling", "v1", "Scale"));
    assert_eq!(resources::preferred_version("autoscaling"), Some("v2"));
    assert_eq!(resources::find_kind("", "v1", "Pod").map(|r| r.resource), Some("pods"));
    assert_eq!(resources::groups()[0], "");
}

#[test]
fn durations_print_like_upstream() {
    for (s, want) in [
        (0.9, "0s"),
        (119.0, "119s"),
        (120.0, "2m"),
        (312.0, "5m12s"),
        (600.0, "10m"),
        (3.0 * 3600.0, "3h"),
        (3.5 * 3600.0, "3h30m"),
        (47.0 * 3600.0, "47h"),
        (50.0 * 3600.0, "2d2h"),
        (10.0 * 86400.0, "10d"),
        (800.0 * 86400.0, "2y70d"),
        (-5.0, "<invalid>"),
    ] {
        assert_eq!(duration::human(s), want, "{s}");
    }
    assert_eq!(duration::parse_go("1m30.5s"), Some(90_500_000_000));
    assert_eq!(duration::parse_go("5"), None);
    assert_eq!(
        meta::rfc3339(meta::parse_time("2026-01-02T03:04:05+01:00").expect("time")),
        "2026-01-02T02:04:05Z"
    );
    assert!(meta::now_micro().ends_with('Z') && meta::now_micro().len() == 27);
}

#[test]
fn a_pointer_leads_through_members_and_items() {
    let object = serde_json::json!({"spec": {"a/b~c": {"d": 1}, "": 2}, "list": [{"d": 7}]});
    for pointer in
        ["", "/spec", "/spec/a~1b~0c/d", "/spec/", "/spec/none", "/list/none/d", "/list/0/d", "/list/1"]
    {
        assert_eq!(meta::at(&object, pointer), object.pointer(pointer), "{pointer}");
    }
}
