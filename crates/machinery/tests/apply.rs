use keelson_machinery::ApplyError;
use keelson_machinery::apply::{FieldSet, Manager, apply, owner_of_new, track_update};
use keelson_machinery::prune::{FieldValidation, check};
use keelson_schema::{Type, builtin, from_json_schema};
use proptest::prelude::*;
use serde_json::{Value, json};

const T1: &str = "2026-01-01T00:00:00Z";
const T2: &str = "2026-01-02T00:00:00Z";

fn deployment() -> &'static Type {
    builtin().for_kind("apps", "v1", "Deployment").expect("built in")
}

fn by<'a>(name: &'a str, now: &'a str) -> Manager<'a> {
    Manager { name, api_version: "apps/v1", subresource: "", resets: &[&["status"]], versions: None, now }
}

fn web(spec: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "d", "labels": {"app": "web"}}, "spec": spec})
}

fn containers(list: Value) -> Value {
    json!({"template": {"spec": {"containers": list}}})
}

#[test]
fn a_create_owns_what_it_sets() {
    let mut new = web(containers(
        json!([{"name": "c", "image": "i", "ports": [{"containerPort": 80, "protocol": "TCP"}], "resources": {}}]),
    ));
    new["spec"]["replicas"] = json!(1);
    new["spec"]["strategy"] = json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%"}});
    new["status"] = json!({});
    track_update(deployment(), None, &mut new, &by("kubectl-create", T1)).expect("tracked");
    assert_eq!(
        new["metadata"]["managedFields"],
        json!([{"manager": "kubectl-create", "operation": "Update", "apiVersion": "apps/v1", "time": T1, "fieldsType": "FieldsV1",
        "fieldsV1": {
            "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
            "f:spec": {
                "f:replicas": {},
                "f:strategy": {"f:type": {}, "f:rollingUpdate": {".": {}, "f:maxSurge": {}}},
                "f:template": {"f:spec": {"f:containers": {"k:{\"name\":\"c\"}": {
                    ".": {}, "f:name": {}, "f:image": {}, "f:resources": {},
                    "f:ports": {".": {}, "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}, "f:protocol": {}}}
                }}}}
            }
        }}])
    );
}

/// The short way of a create writes what the long way of every write would.
pub fn is_owned_alike(ty: &Type, object: &Value) {
    let resets: [&[&[&str]]; 3] = [&[], &[&["status"]], &[&["spec"], &["metadata", "labels"]]];
    for resets in resets {
        let mut long = object.clone();
        // Without metadata there is no place for them.
        let Some(metadata) = long.get_mut("metadata").and_then(Value::as_object_mut) else { return };
        metadata.remove("managedFields");
        let manager = Manager { subresource: "resize", resets, ..by("", T1) };
        let short = owner_of_new(ty, &long, &manager);
        track_update(ty, None, &mut long, &manager).expect("one version");
        let long = long.get("metadata").and_then(|metadata| metadata.get("managedFields"));
        assert_eq!(
            String::from_utf8_lossy(&short),
            long.map(Value::to_string).unwrap_or_default(),
            "{object}"
        );
    }
}

#[test]
fn a_create_owns_alike_what_is_in_order_of_numbers_or_twice() {
    let port =
        |number: u32| json!({"containerPort": number, "protocol": "TCP", "name": format!("p{number}")});
    for ports in
        [json!([port(80), port(443), port(9)]), json!([port(80), port(80)]), json!([{"protocol": "\u{1}\""}])]
    {
        is_owned_alike(deployment(), &web(containers(json!([{"name": "é\"\\", "ports": ports}, 1, null]))));
    }
    let mut odd = web(json!({"template": null, "strategy": {}, "selector": 1}));
    odd["metadata"]["annotations"] = json!({"\"a\"": "", "b": null, "": {}});
    odd["metadata"]["finalizers"] = json!(["b", "a", "a", 1]);
    is_owned_alike(deployment(), &odd);
    // One number, written twice, with another item between the two texts.
    let ports = json!([{"containerPort": 80.0}, {"containerPort": 80, "protocol": "UDP"}, {"containerPort": 80, "protocol": "TCP"}]);
    is_owned_alike(deployment(), &web(containers(json!([{"name": "c", "ports": ports}]))));
    odd["metadata"]["finalizers"] = json!([1.0, "a", 1]);
    is_owned_alike(deployment(), &odd);
    is_owned_alike(deployment(), &json!({"metadata": {}}));
}

#[test]
fn an_update_takes_over_only_what_it_changes() {
    let mut old = web(json!({"replicas": 1, "paused": true}));
    track_update(deployment(), None, &mut old, &by("a", T1)).expect("tracked");
    let mut new = old.clone();
    new["spec"]["replicas"] = json!(2);
    track_update(deployment(), Some(&old), &mut new, &by("b", T2)).expect("tracked");
    let managed = &new["metadata"]["managedFields"];
    assert_eq!(managed[0]["fieldsV1"]["f:spec"], json!({"f:paused": {}}));
    assert_eq!((&managed[0]["manager"], &managed[0]["time"]), (&json!("a"), &json!(T1)));
    assert_eq!(managed[1]["fieldsV1"], json!({"f:spec": {"f:replicas": {}}}));
    let mut same = new.clone();
    track_update(deployment(), Some(&new), &mut same, &by("c", T2)).expect("tracked");
    assert_eq!(same, new);
    let mut status = new.clone();
    new["status"] = json!({});
    status["status"] = json!({"replicas": 2});
    track_update(
        deployment(),
        Some(&new),
        &mut status,
        &Manager { subresource: "status", resets: &[&["spec"]], ..by("ctl", T2) },
    )
    .expect("tracked");
    assert_eq!(status["metadata"]["managedFields"][2]["subresource"], "status");
    assert_eq!(status["metadata"]["managedFields"][2]["fieldsV1"], json!({"f:status": {"f:replicas": {}}}));
}

#[test]
fn apply_merges_conflicts_and_forces() {
    let first =
        apply(deployment(), None, &web(json!({"replicas": 1})), &by("one", T1), false).expect("applies");
    assert_eq!(first["spec"]["replicas"], 1);
    let change = web(json!({"replicas": 3}));
    let e = apply(deployment(), Some(&first), &change, &by("two", T2), false).unwrap_err();
    assert_eq!(e.to_string(), "Apply failed with 1 conflict: conflict with \"one\": .spec.replicas");
    let status = e.to_status();
    assert_eq!(status.code(), 409);
    let cause = &status.details.as_ref().expect("details").causes[0];
    assert_eq!(
        (cause.reason.as_str(), cause.message.as_str(), cause.field.as_str()),
        ("FieldManagerConflict", "conflict with \"one\"", ".spec.replicas")
    );
    let forced = apply(deployment(), Some(&first), &change, &by("two", T2), true).expect("forced");
    assert_eq!(forced["spec"]["replicas"], 3);
    let managed = forced["metadata"]["managedFields"].as_array().expect("list");
    assert!(managed[0]["fieldsV1"].get("f:spec").is_none());
    assert_eq!(managed[1]["fieldsV1"]["f:spec"], json!({"f:replicas": {}}));
}

#[test]
fn conflicts_with_updaters_name_version_and_time() {
    let mut live = web(json!({"replicas": 1, "paused": true}));
    track_update(deployment(), None, &mut live, &by("kubectl", T1)).expect("tracked");
    let e =
        apply(deployment(), Some(&live), &web(json!({"replicas": 2, "paused": false})), &by("x", T2), false);
    assert_eq!(
        e.unwrap_err().to_string(),
        format!(
            "Apply failed with 2 conflicts: conflicts with \"kubectl\" using apps/v1 at {T1}:\n- .spec.paused\n- .spec.replicas"
        )
    );
}

#[test]
fn fields_no_longer_applied_go_unless_shared() {
    let two = json!([{"name": "a", "image": "x", "command": ["c"]}, {"name": "b", "image": "y"}]);
    let first = apply(deployment(), None, &web(containers(two)), &by("one", T1), false).expect("applies");
    let shared = web(containers(json!([{"name": "b", "image": "y"}])));
    let both =
        apply(deployment(), Some(&first), &shared, &by("two", T1), false).expect("same value, no conflict");
    let less = apply(
        deployment(),
        Some(&both),
        &web(containers(json!([{"name": "a", "image": "x"}]))),
        &by("one", T2),
        false,
    );
    let less = less.expect("applies");
    assert_eq!(
        less["spec"]["template"]["spec"]["containers"],
        json!([{"name": "a", "image": "x"}, {"name": "b", "image": "y"}])
    );
    let none = apply(
        deployment(),
        Some(&less),
        &web(containers(json!([{"name": "a", "image": "x"}]))),
        &by("two", T2),
        false,
    );
    let list = none.expect("applies")["spec"]["template"]["spec"]["containers"].clone();
    assert_eq!(list, json!([{"name": "a", "image": "x"}]));
}

#[test]
fn applying_to_an_unowned_object_records_who_was_before() {
    let live = web(json!({"replicas": 1}));
    let e = apply(deployment(), Some(&live), &web(json!({"replicas": 2})), &by("x", T2), false).unwrap_err();
    assert!(e.to_string().contains("\"before-first-apply\" using apps/v1"), "{e}");
}

#[test]
fn client_side_apply_is_taken_over() {
    let applied = web(json!({"replicas": 1}));
    let mut live = applied.clone();
    live["metadata"]["annotations"] =
        json!({"kubectl.kubernetes.io/last-applied-configuration": applied.to_string()});
    track_update(deployment(), None, &mut live, &by("kubectl-client-side-apply", T1)).expect("tracked");
    let change = web(json!({"replicas": 5}));
    let out = apply(deployment(), Some(&live), &change, &by("kubectl", T2), false).expect("taken over");
    assert_eq!(out["spec"]["replicas"], 5);
    let annotation =
        out["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"].as_str();
    assert!(annotation.is_some_and(|a| a.contains("\"replicas\":5")));
    assert!(apply(deployment(), Some(&live), &change, &by("other", T2), false).is_err());
}

#[test]
fn owners_of_parts_own_the_whole_once_it_is_atomic() {
    let schema = |list: &str, map: &str| {
        from_json_schema(&json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
            "list": {"type": "array", "x-kubernetes-list-type": list, "items": {"type": "string"}},
            "map": {"type": "object", "x-kubernetes-map-type": map, "additionalProperties": {"type": "string"}}
        }}}}))
        .expect("schema")
    };
    let (before, after) = (schema("set", "granular"), schema("atomic", "atomic"));
    let object = json!({"apiVersion": "a/v1", "kind": "A", "metadata": {"name": "x"},
        "spec": {"list": ["a"], "map": {"k": "1"}}});
    let m =
        |name| Manager { name, api_version: "a/v1", subresource: "", resets: &[], versions: None, now: T1 };
    let live = apply(&before, None, &object, &m("one"), false).expect("applies");
    let mut changed = live.clone();
    changed["metadata"]["labels"] = json!({"l": "1"});
    track_update(&after, Some(&live), &mut changed, &m("two")).expect("tracked");
    assert_eq!(
        changed["metadata"]["managedFields"][0]["fieldsV1"],
        json!({"f:spec": {"f:list": {}, "f:map": {}}})
    );
    let mut other = object.clone();
    other["spec"] = json!({"map": {"other": "1"}});
    let refused = apply(&after, Some(&live), &other, &m("two"), false).unwrap_err();
    assert!(refused.to_string().ends_with("conflict with \"one\": .spec.map"), "{refused}");
}

#[test]
fn sets_atomics_and_bad_objects() {
    let crd = from_json_schema(&json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "list": {"type": "array", "items": {"type": "string"}},
        "map": {"type": "object", "x-kubernetes-map-type": "atomic", "additionalProperties": {"type": "string"}}
    }}}}))
    .expect("schema");
    let m =
        |name| Manager { name, api_version: "a/v1", subresource: "", resets: &[], versions: None, now: T1 };
    let object =
        |spec: Value| json!({"apiVersion": "a/v1", "kind": "A", "metadata": {"name": "x"}, "spec": spec});
    let one =
        apply(&crd, None, &object(json!({"set": ["a"], "list": ["a"], "map": {"a": "1"}})), &m("one"), false)
            .expect("applies");
    let two = apply(&crd, Some(&one), &object(json!({"set": ["b"]})), &m("two"), false).expect("sets merge");
    assert_eq!(two["spec"]["set"], json!(["a", "b"]));
    let e = apply(&crd, Some(&two), &object(json!({"list": ["b"], "map": {"b": "1"}})), &m("two"), false)
        .unwrap_err();
    assert!(e.to_string().ends_with("conflicts with \"one\":\n- .spec.list\n- .spec.map"), "{e}");
    let e = apply(&crd, None, &object(json!({"nope": 1})), &m("one"), false).unwrap_err();
    assert!(e.to_string().ends_with(".spec.nope: field not declared in schema"), "{e}");
    let e = apply(&crd, None, &object(json!({"set": ["a", "a"]})), &m("one"), false).unwrap_err();
    assert!(e.to_string().contains("duplicate entries for key [=\"a\"]"), "{e}");
    let managed = json!({"apiVersion": "a/v1", "kind": "A", "metadata": {"name": "x", "managedFields": []}});
    assert_eq!(
        apply(&crd, None, &managed, &m("one"), false),
        Err(ApplyError::BadRequest("metadata.managedFields must be nil".into()))
    );
}

#[test]
fn old_updaters_are_folded() {
    let mut live = web(json!({"replicas": 0}));
    track_update(deployment(), None, &mut live, &by("m0", T1)).expect("tracked");
    for i in 1..15 {
        let mut new = live.clone();
        new["metadata"]["labels"][format!("l{i}")] = json!("x");
        track_update(deployment(), Some(&live), &mut new, &by(&format!("m{i}"), T2)).expect("tracked");
        live = new;
    }
    let managed = live["metadata"]["managedFields"].as_array().expect("list");
    assert_eq!(managed.len(), 10);
    assert!(managed.iter().any(|m| m["manager"] == "ancient-changes"));
}

fn config() -> impl Strategy<Value = Value> {
    let container =
        ("[a-c]", proptest::option::of("[x-z]"), proptest::collection::btree_map("[A-C]", "[0-9]", 0..3));
    let labels = proptest::collection::btree_map("[a-c]", "[a-c]", 0..3);
    (proptest::collection::vec(container, 0..3), labels, proptest::option::of(0..3)).prop_map(
        |(list, labels, replicas)| {
            let mut seen = Vec::new();
            let mut containers = Vec::new();
            for (name, image, env) in list {
                if seen.contains(&name) {
                    continue;
                }
                seen.push(name.clone());
                let env: Vec<Value> = env.into_iter().map(|(k, v)| json!({"name": k, "value": v})).collect();
                containers.push(json!({"name": name, "image": image, "env": env}));
            }
            let mut out =
                web(json!({"replicas": replicas, "template": {"spec": {"containers": containers}}}));
            out["metadata"]["labels"] = json!(labels);
            check(deployment(), &mut out, FieldValidation::Ignore).expect("valid");
            out
        },
    )
}

proptest! {
    #[test]
    fn applying_twice_changes_nothing(a in config(), b in config()) {
        let one = apply(deployment(), None, &a, &by("one", T1), false).expect("applies");
        let two = apply(deployment(), Some(&one), &b, &by("two", T1), true).expect("forced");
        let again = apply(deployment(), Some(&two), &b, &by("two", T2), true).expect("forced");
        prop_assert_eq!(again, two);
    }

    #[test]
    fn a_sole_applier_gets_what_it_applies(a in config(), b in config()) {
        let one = apply(deployment(), None, &a, &by("one", T1), false).expect("applies");
        let two = apply(deployment(), Some(&one), &b, &by("one", T2), false).expect("no one to conflict with");
        let fresh = apply(deployment(), None, &b, &by("one", T2), false).expect("applies");
        prop_assert_eq!(without_empty(&two["spec"]), without_empty(&fresh["spec"]));
        prop_assert_eq!(without_empty(&two["metadata"]["labels"]), without_empty(&fresh["metadata"]["labels"]));
    }

    #[test]
    fn field_sets_survive_their_encoding(a in config()) {
        let one = apply(deployment(), None, &a, &by("one", T1), false).expect("applies");
        let value = &one["metadata"]["managedFields"][0]["fieldsV1"];
        if !value.is_null() {
            prop_assert_eq!(&FieldSet::from_value(value).expect("parses").to_value(), value);
        }
    }
}

fn without_empty(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map.iter().map(|(k, v)| (k.clone(), without_empty(v)));
            Value::Object(kept.filter(|(_, v)| *v != json!({}) && *v != json!([]) && !v.is_null()).collect())
        }
        Value::Array(items) => items.iter().map(without_empty).collect(),
        Value::Null => json!({}),
        other => other.clone(),
    }
}

#[test]
fn of_two_entries_of_one_applier_the_last_counts() {
    let entry = |version: &str, field: &str| {
        json!({"manager": "a", "operation": "Apply", "apiVersion": version, "time": T1,
            "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {field: {}}}})
    };
    let mut live = web(json!({"replicas": 1, "paused": true}));
    live["metadata"]["managedFields"] =
        json!([entry("apps/v1beta1", "f:replicas"), entry("apps/v1", "f:paused")]);
    let applied = web(json!({"minReadySeconds": 3}));
    let once = apply(deployment(), Some(&live), &applied, &by("a", T2), true).expect("applied");
    // What it had applied last is gone, what the entry before said is nobody's.
    assert_eq!(once["spec"], json!({"replicas": 1, "minReadySeconds": 3}));
    assert_eq!(once["metadata"]["managedFields"].as_array().map(Vec::len), Some(1));
    let twice = apply(deployment(), Some(&once), &applied, &by("a", T2), false);
    assert_eq!(twice.expect("applied"), once);
}
