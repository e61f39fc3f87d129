use keelson_machinery::prune::{FieldValidation, check, default, fill_zero, strict};
use keelson_schema::{Type, builtin, from_json_schema};
use serde_json::{Value, json};

fn ty(group: &str, version: &str, kind: &str) -> &'static Type {
    builtin().for_kind(group, version, kind).expect("built in")
}

fn fails(group: &str, kind: &str, mut object: Value) -> String {
    check(ty(group, "v1", kind), &mut object, FieldValidation::Warn).unwrap_err().to_string()
}

#[test]
fn unknown_fields_go_and_are_named() {
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "oops": 1},
        "spec": {"containers": [{"name": "c", "foo": {"x": 1}}], "nodeSelector": {"any": "thing"}}});
    let unknown = check(ty("", "v1", "Pod"), &mut pod, FieldValidation::Strict).expect("types are fine");
    assert_eq!(unknown, [r#"unknown field "metadata.oops""#, r#"unknown field "spec.containers[0].foo""#]);
    assert_eq!(pod["spec"]["containers"], json!([{"name": "c"}]));
    let problems = unknown.into_iter().chain([r#"duplicate field "spec.x""#.into()]).collect();
    let e = strict(FieldValidation::Strict, problems).unwrap_err();
    assert_eq!(
        e.request_message("v1", "Pod", b""),
        r#"Pod in version "v1" cannot be handled as a Pod: strict decoding error: unknown field "metadata.oops", unknown field "spec.containers[0].foo", duplicate field "spec.x""#
    );
}

#[test]
fn wrong_types_are_refused_in_gos_words() {
    assert_eq!(
        fails("apps", "Deployment", json!({"spec": {"replicas": "3"}})),
        "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32"
    );
    assert_eq!(
        fails(
            "apps",
            "Deployment",
            json!({"spec": {"template": {"spec": {"containers": [{"env": [{"value": 1}]}]}}}})
        ),
        "json: cannot unmarshal number into Go struct field EnvVar.spec.template.spec.containers.env.value of type string"
    );
    assert_eq!(
        fails("", "Pod", json!({"spec": "x"})),
        "json: cannot unmarshal string into Go struct field Pod.spec of type v1.PodSpec"
    );
    assert_eq!(
        fails("", "Pod", json!({"metadata": {"labels": {"a": true}}})),
        "json: cannot unmarshal bool into Go struct field ObjectMeta.metadata.labels of type string"
    );
    assert_eq!(
        fails("", "Pod", json!({"spec": {"containers": {}}})),
        "json: cannot unmarshal object into Go struct field PodSpec.spec.containers of type []v1.Container"
    );
    assert_eq!(
        fails("", "Pod", json!({"spec": {"restartPolicy": 1}})),
        "json: cannot unmarshal number into Go struct field PodSpec.spec.restartPolicy of type v1.RestartPolicy"
    );
    assert_eq!(
        fails("", "Pod", json!({"spec": {"priority": 1.5}})),
        "json: cannot unmarshal number 1.5 into Go struct field PodSpec.spec.priority of type int32"
    );
    assert_eq!(fails("", "Pod", json!([])), "json: cannot unmarshal array into Go value of type v1.Pod");
    assert!(
        fails("", "Secret", json!({"data": {"a": "%"}})).starts_with("illegal base64 data at input byte 0")
    );
    assert!(
        fails("", "Pod", json!({"metadata": {"creationTimestamp": "x"}})).starts_with("parsing time \"x\"")
    );
    assert!(
        fails("", "Pod", json!({"spec": {"containers": [{"resources": {"limits": {"cpu": "x"}}}]}}))
            .starts_with("quantities must match the regular expression")
    );
}

#[test]
fn texts_become_canonical_and_nulls_vanish() {
    let mut pod = json!({"metadata": {"creationTimestamp": null, "deletionTimestamp": "2026-01-02T03:04:05+02:00"},
        "spec": {"containers": [{"name": "c", "command": null, "args": ["a", null],
            "resources": {"limits": {"cpu": "1000m", "memory": "1024Mi", "x": 2000}}}]}});
    check(ty("", "v1", "Pod"), &mut pod, FieldValidation::Ignore).expect("valid");
    assert_eq!(
        pod,
        json!({"metadata": {"deletionTimestamp": "2026-01-02T01:04:05Z"},
            "spec": {"containers": [{"name": "c", "args": ["a", ""],
                "resources": {"limits": {"cpu": "1", "memory": "1Gi", "x": "2k"}}}]}})
    );
}

#[test]
fn empty_structs_are_written_like_upstream() {
    let mut pod = json!({"spec": {"containers": [{"name": "c"}]}});
    fill_zero(ty("", "v1", "Pod"), &mut pod);
    assert_eq!(
        pod,
        json!({"metadata": {}, "spec": {"containers": [{"name": "c", "resources": {}}]}, "status": {}})
    );
}

fn custom() -> Type {
    from_json_schema(&json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": {
            "n": {"type": "integer", "default": 2},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
                "properties": {"closed": {"type": "object", "properties": {"a": {"type": "string"}}}}},
            "obj": {"type": "object", "x-kubernetes-embedded-resource": true, "properties": {"spec": {"type": "object"}}}
        }}}}))
    .expect("valid")
}

#[test]
fn a_crd_prunes_by_its_schema() {
    let mut object = json!({"apiVersion": "a/v1", "kind": "A", "metadata": {"name": "x", "bad": 1}, "top": 1,
        "spec": {"n": "not checked here", "u": 1, "free": {"x": 1, "closed": {"a": "", "b": 1}},
            "obj": {"apiVersion": "v1", "kind": "P", "metadata": {"name": "y", "bad": 1}, "spec": {"z": 1}}}});
    let unknown = check(&custom(), &mut object, FieldValidation::Warn).expect("no type errors");
    assert_eq!(
        unknown,
        ["metadata.bad", "spec.free.closed.b", "spec.obj.metadata.bad", "spec.obj.spec.z", "spec.u", "top"]
            .map(|p| format!("unknown field {p:?}"))
    );
    assert_eq!(object["spec"]["free"], json!({"x": 1, "closed": {"a": ""}}));
    assert_eq!(object["metadata"], json!({"name": "x"}));
}

#[test]
fn a_crds_defaults_are_filled_in() {
    let mut object = json!({"spec": {"n": null}});
    default(&custom(), &mut object);
    assert_eq!(object, json!({"spec": {"n": 2}}));
}
