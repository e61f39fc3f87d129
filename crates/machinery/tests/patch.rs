use keelson_machinery::{PatchError, diff, patch};
use keelson_schema::{Type, builtin};
use proptest::prelude::*;
use serde_json::{Value, json};

fn deployment() -> &'static Type {
    builtin().for_kind("apps", "v1", "Deployment").expect("built in")
}

fn pod() -> &'static Type {
    builtin().for_kind("", "v1", "Pod").expect("built in")
}

fn strategic(original: Value, change: Value) -> Value {
    patch::strategic(pod(), &original, &change).expect("applies")
}

#[test]
fn json_patch_applies_or_says_why() {
    let object = json!({"spec": {"replicas": 1, "list": [1, 2]}});
    let change = json!([{"op": "replace", "path": "/spec/replicas", "value": 3}, {"op": "add", "path": "/spec/list/-", "value": 3}]);
    assert_eq!(patch::json_patch(&object, &change), Ok(json!({"spec": {"replicas": 3, "list": [1, 2, 3]}})));
    let test = json!([{"op": "test", "path": "/spec/replicas", "value": 9}]);
    assert_eq!(
        patch::json_patch(&object, &test),
        Err(PatchError::DoesNotApply("testing value /spec/replicas failed: test failed".into()))
    );
    let missing = json!([{"op": "remove", "path": "/spec/nope"}]);
    assert!(patch::json_patch(&object, &missing).unwrap_err().to_string().contains("doc is missing path"));
    assert!(matches!(patch::json_patch(&object, &json!({})), Err(PatchError::Malformed(_))));
    let many = Value::Array(vec![json!({"op": "test", "path": "", "value": 1}); 10_001]);
    assert_eq!(patch::json_patch(&object, &many).unwrap_err().to_status().code(), 413);
}

#[test]
fn merge_patch_follows_the_rfc() {
    for (original, change, want) in [
        (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
        (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
        (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
        (json!({"a": [1]}), json!({"a": {"b": {"c": null}}}), json!({"a": {"b": {}}})),
        (json!([1]), json!({"a": 1}), json!({"a": 1})),
    ] {
        assert_eq!(patch::merge_patch(&original, &change), want, "{change}");
    }
}

#[test]
fn strategic_merges_lists_by_key() {
    let original = json!({"spec": {"containers": [{"name": "a", "image": "x", "ports": [{"containerPort": 80}]}, {"name": "b"}]}});
    let change = json!({"spec": {"containers": [{"name": "a", "image": "y", "env": [{"name": "E", "value": "1"}]}, {"name": "c"}]}});
    assert_eq!(
        strategic(original, change)["spec"]["containers"],
        json!([{"name": "a", "image": "y", "ports": [{"containerPort": 80}], "env": [{"name": "E", "value": "1"}]}, {"name": "c"}, {"name": "b"}])
    );
}

#[test]
fn strategic_obeys_directives() {
    let object = || {
        json!({"metadata": {"finalizers": ["a", "b"]}, "spec": {"nodeSelector": {"a": "1"}, "containers": [{"name": "a"}, {"name": "b"}],
        "volumes": [{"name": "v", "emptyDir": {}}]}})
    };
    let containers =
        |change: Value| strategic(object(), json!({"spec": change}))["spec"]["containers"].clone();
    assert_eq!(
        containers(json!({"containers": [{"name": "a", "$patch": "delete"}]})),
        json!([{"name": "b"}])
    );
    assert_eq!(
        containers(json!({"containers": [{"name": "c"}, {"$patch": "replace"}]})),
        json!([{"name": "c"}])
    );
    assert_eq!(
        containers(json!({"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]})),
        json!([{"name": "b"}, {"name": "a"}])
    );
    let out = strategic(
        object(),
        json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c"]}}),
    );
    assert_eq!(out["metadata"]["finalizers"], json!(["c", "b"]));
    let out = strategic(object(), json!({"spec": {"nodeSelector": {"$patch": "replace", "b": "2"}}}));
    assert_eq!(out["spec"]["nodeSelector"], json!({"b": "2"}));
    let out = strategic(
        object(),
        json!({"spec": {"volumes": [{"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/"}}]}}),
    );
    assert_eq!(out["spec"]["volumes"], json!([{"name": "v", "hostPath": {"path": "/"}}]));
    let out =
        strategic(object(), json!({"spec": {"nodeSelector": null, "affinity": {"nodeAffinity": null}}}));
    assert_eq!((out["spec"].get("nodeSelector"), &out["spec"]["affinity"]), (None, &json!({})));
    let bad = patch::strategic(pod(), &object(), &json!({"spec": {"containers": [{"image": "x"}]}}));
    assert!(bad.unwrap_err().to_string().ends_with("does not contain declared merge key: name"));
}

#[test]
fn three_way_keeps_what_others_set() {
    let original = json!({"metadata": {"labels": {"a": "1", "b": "2"}}, "spec": {"replicas": 1,
        "template": {"spec": {"containers": [{"name": "a", "image": "x"}, {"name": "old"}]}}}});
    let modified = json!({"metadata": {"labels": {"a": "9"}}, "spec": {
        "template": {"spec": {"containers": [{"name": "a", "image": "y"}]}}}});
    let current = json!({"metadata": {"labels": {"a": "1", "b": "2", "other": "x"}}, "spec": {"replicas": 1, "paused": true,
        "template": {"spec": {"containers": [{"name": "a", "image": "x", "imagePullPolicy": "Always"}, {"name": "old"}, {"name": "injected"}]}}}});
    let change = diff::three_way_strategic(deployment(), &original, &modified, &current).expect("diff");
    let result = patch::strategic(deployment(), &current, &change).expect("applies");
    assert_eq!(result["metadata"]["labels"], json!({"a": "9", "other": "x"}));
    assert_eq!(result["spec"].get("replicas"), None);
    assert_eq!(result["spec"]["paused"], true);
    assert_eq!(
        result["spec"]["template"]["spec"]["containers"],
        json!([{"name": "a", "image": "y", "imagePullPolicy": "Always"}, {"name": "injected"}])
    );
    let merge = diff::three_way_merge(&original, &modified, &current);
    assert_eq!(merge["metadata"]["labels"], json!({"a": "9", "b": null}));
    assert_eq!(merge["spec"]["replicas"], Value::Null);
    assert!(merge["spec"].get("paused").is_none());
}

#[test]
fn an_unchanged_object_needs_no_patch() {
    let object = json!({"metadata": {"labels": {"a": "1"}}, "spec": {"containers": [{"name": "a", "ports": [{"containerPort": 1}]}]}});
    assert_eq!(diff::three_way_strategic(pod(), &object, &object, &object), Ok(json!({})));
    assert_eq!(diff::two_way_strategic(pod(), &object, &object), Ok(json!({})));
    assert_eq!(diff::three_way_merge(&object, &object, &object), json!({}));
}

fn small_pod() -> impl Strategy<Value = Value> {
    let port = (1u16..5).prop_map(|p| json!({"containerPort": p}));
    let container =
        ("[a-d]", "[x-z]", proptest::collection::vec(port, 0..3)).prop_map(|(n, i, mut ports)| {
            ports.dedup();
            ports.sort_by_key(|p| p["containerPort"].as_u64());
            ports.dedup();
            json!({"name": n, "image": i, "ports": ports})
        });
    let labels = proptest::collection::btree_map("[a-c]", "[a-c]", 0..3);
    (proptest::collection::vec(container, 0..4), labels).prop_map(|(mut containers, labels)| {
        containers.sort_by_key(|c| c["name"].to_string());
        containers.dedup_by_key(|c| c["name"].to_string());
        json!({"metadata": {"labels": labels}, "spec": {"containers": containers}})
    })
}

proptest! {
    #[test]
    fn a_strategic_diff_applies_to_the_target(from in small_pod(), to in small_pod()) {
        let change = diff::two_way_strategic(pod(), &from, &to).expect("diff");
        let mut got = patch::strategic(pod(), &from, &change).expect("applies");
        let mut want = to;
        // An emptied merge list stays as an empty one.
        for v in [&mut got, &mut want] {
            v["spec"]["containers"].as_array_mut().expect("list").sort_by_key(|c| c["name"].to_string());
        }
        prop_assert_eq!(got, want);
    }

    #[test]
    fn a_merge_diff_applies_to_the_target(from in small_pod(), to in small_pod()) {
        prop_assert_eq!(patch::merge_patch(&from, &diff::two_way_merge(&from, &to)), to);
    }
}

#[test]
fn copies_of_copies_do_not_take_all_memory() {
    let copy = |turn| json!({"op": "copy", "from": "", "path": format!("/{turn}")});
    let doubling: Vec<_> = (0..40).map(copy).collect();
    let error = patch::json_patch(&json!({"a": "x".repeat(1000)}), &doubling.into()).unwrap_err();
    assert!(error.to_string().contains("exceeding the limit 3145728"), "{error}");
}
